//! Protocols: what a model knew about the unseen classes in training.

use std::fmt;

use serde::{Deserialize, Serialize};

/// What a model knew about the unseen classes in training. Scores of different protocols are not comparable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Protocol {
    /// Neither names nor pixels of unseen classes were used in training.
    Inductive,
    /// Names of unseen classes were known in training; all unlabelled pixels got pseudo labels (self-training, "+ST").
    Transductive,
    /// As [`Transductive`](Self::Transductive), but with pseudo labels only on pixels of unseen classes ("†"), whose
    /// locations were taken from the ground truth.
    TransductiveUnseen,
    /// All classes had labelled pixels in training: the upper bound for zero-shot methods.
    FullySupervised,
    /// The model was trained on another data set.
    CrossDataset,
    /// The model was scored on a class list that it was not trained for, without a split into seen and unseen classes.
    OpenVocabulary,
    /// The model was not trained for segmentation.
    TrainingFree,
}

impl Protocol {
    /// All protocols.
    pub const ALL: [Self; 7] = [
        Self::Inductive,
        Self::Transductive,
        Self::TransductiveUnseen,
        Self::FullySupervised,
        Self::CrossDataset,
        Self::OpenVocabulary,
        Self::TrainingFree,
    ];

    /// Returns the name in files and arguments, such as `transductive-unseen`.
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

    /// Returns the name in text, as the papers write it.
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

    /// Returns a sentence that explains the protocol.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Inductive => {
                "The unseen classes were unknown in training: neither their names nor labelled pixels were used."
            }
            Self::Transductive => {
                "The names of the unseen classes were known in training; all unlabelled pixels got pseudo labels from \
                 the model itself."
            }
            Self::TransductiveUnseen => {
                "The names of the unseen classes and the locations of their pixels were known in training; these \
                 pixels got pseudo labels from the model itself."
            }
            Self::FullySupervised => {
                "All classes had labelled pixels in training, the \"unseen\" ones too: an upper bound, not a zero-shot \
                 result."
            }
            Self::CrossDataset => "The model was trained on another data set.",
            Self::OpenVocabulary => {
                "The classes are given by name; the model was not trained for this class list."
            }
            Self::TrainingFree => "The model was not trained for segmentation.",
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
