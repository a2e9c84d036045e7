//! What a model knew of the unseen classes, the first thing to know of a zero-shot number.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a model was told about the unseen classes before it was scored on them. Numbers of different protocols are not
/// comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Neither names nor pixels of unseen classes were used in training.
    Inductive,
    /// Names of unseen classes were known in training; all unlabelled pixels got pseudo labels ("+ST").
    Transductive,
    /// As [`Transductive`](Self::Transductive), but pseudo labels only on pixels of unseen classes ("†"); where these
    /// are, was taken from the truth.
    TransductiveUnseen,
    /// All classes had labels in training: the bound that zero-shot methods are compared with.
    FullySupervised,
    /// Trained on another data set.
    CrossDataset,
    /// Scored on class names that training did not aim at, with no split of seen and unseen.
    OpenVocabulary,
    /// No training on segmentation at all.
    TrainingFree,
}

impl Protocol {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Inductive,
        Self::Transductive,
        Self::TransductiveUnseen,
        Self::FullySupervised,
        Self::CrossDataset,
        Self::OpenVocabulary,
        Self::TrainingFree,
    ];

    /// The name in files and arguments, as `transductive-unseen`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Inductive => "inductive",
            Self::Transductive => "transductive",
            Self::TransductiveUnseen => "transductive-unseen",
            Self::FullySupervised => "fully-supervised",
            Self::CrossDataset => "cross-dataset",
            Self::OpenVocabulary => "open-vocabulary",
            Self::TrainingFree => "training-free",
        }
    }

    /// The name in text, as the papers write it.
    pub fn title(self) -> &'static str {
        match self {
            Self::Inductive => "inductive",
            Self::Transductive => "transductive (+ST)",
            Self::TransductiveUnseen => "transductive (†)",
            Self::FullySupervised => "fully supervised",
            Self::CrossDataset => "cross-dataset",
            Self::OpenVocabulary => "open vocabulary",
            Self::TrainingFree => "training-free",
        }
    }

    /// What it means, in a sentence.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Inductive => {
                "In training the unseen classes were unknown: no pixel labels, no names."
            }
            Self::Transductive => {
                "In training the names of the unseen classes were known; all unlabelled pixels got the model's own \
                 labels."
            }
            Self::TransductiveUnseen => {
                "In training the names of the unseen classes were known, and which pixels are theirs; these got the \
                 model's own labels."
            }
            Self::FullySupervised => {
                "All classes had labelled pixels in training, the \"unseen\" ones too: an upper bound, not a zero-shot \
                 result."
            }
            Self::CrossDataset => "The model was trained on another data set.",
            Self::OpenVocabulary => {
                "The classes are given as words; training did not aim at this class list."
            }
            Self::TrainingFree => "The model was never trained on segmentation.",
        }
    }
}

impl fmt::Display for Protocol {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_those_of_the_files() {
        for protocol in Protocol::ALL {
            let json = serde_json::to_value(protocol).unwrap();
            assert_eq!(json, protocol.to_string());
        }
    }
}
