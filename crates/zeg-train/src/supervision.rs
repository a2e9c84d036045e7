//! What a setting lets training know: names and labels of which classes.
//!
//! | setting | names | labels |
//! |---|---|---|
//! | inductive | seen classes | of seen classes |
//! | transductive | all classes | of seen classes; a pixel of an unseen one is known to be unseen, not which |
//! | fully supervised | all classes | of all classes |
//!
//! Each is a type of its own, and what it must not know is not in it: [`SeenClasses`] holds no unseen name, and
//! [`PartlyLabelled`] forgets the label of an unseen pixel as soon as it sees it. The inductive setting takes the former
//! alone:
//!
//! ```
//! use zeg_train::{supervision::Supervision, targets::SeenClasses};
//!
//! let seen = SeenClasses::new(3, &[(0, "cat".to_owned()), (2, "dog".to_owned())])?;
//! assert_eq!(Supervision::Inductive(seen).names(), ["cat", "dog"]);
//! # Ok::<(), zeg_train::TrainError>(())
//! ```
//!
//! and nothing that knows the name of an unseen class (class 1 here) can take its place, which the compiler refuses:
//!
//! ```compile_fail,E0308
//! use zeg_train::supervision::{PartlyLabelled, PseudoLabels, Supervision};
//!
//! let classes = [("cat", true), ("cow", false), ("dog", true)].map(|(name, seen)| (name.to_owned(), seen));
//! let all = PartlyLabelled::new(classes.to_vec(), PseudoLabels::default())?;
//! let inductive = Supervision::Inductive(all);
//! # Ok::<(), zeg_train::TrainError>(())
//! ```

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use zeg_image::{IGNORE_LABEL, PADDING_LABEL};
use zeg_model::resize::bilinear;

use crate::{
    TrainError,
    targets::{SeenClasses, pseudo_label},
};

/// Marks a pixel that waits for its pseudo label.
const WAITING: u16 = u16::MAX - 2;

/// Which pixels get pseudo labels in the transductive setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PseudoLabels {
    /// Those whose true class is unseen: where they are is taken from the truth, which class they have is not. The
    /// released procedure, "†ST".
    #[default]
    UnseenPixels,
    /// All without the label of a seen class, those that people left out too: "ST". A reconstruction; what was released
    /// does not run (specification of the reference, section 6).
    UnlabelledPixels,
}

impl PseudoLabels {
    /// For leaving the usual value out of files.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// What training knows of a data set's classes.
#[derive(Debug, Clone, PartialEq)]
pub enum Supervision {
    /// Names and labels of the seen classes.
    Inductive(SeenClasses),
    /// Names of all classes, labels of the seen ones.
    Transductive(PartlyLabelled),
    /// Names and labels of all classes.
    FullySupervised(AllClasses),
}

impl From<SeenClasses> for Supervision {
    fn from(seen: SeenClasses) -> Self {
        Self::Inductive(seen)
    }
}

impl Supervision {
    /// Names of the classes that are trained, in the order of their embeddings.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Inductive(seen) => seen.names(),
            Self::Transductive(classes) => &classes.names,
            Self::FullySupervised(classes) => &classes.names,
        }
    }

    /// Turns class indices of the data set into those of training, in place.
    pub(crate) fn map(&self, labels: &mut [u16]) {
        match self {
            Self::Inductive(seen) => seen.map(labels),
            Self::Transductive(classes) => classes.hide(labels),
            // Padding is like everything that has no class: a negative for all of them.
            Self::FullySupervised(_) => replace(labels, PADDING_LABEL, IGNORE_LABEL),
        }
    }

    /// The classes whose pixels wait for pseudo labels, where there are any.
    pub(crate) fn pseudo_labels(&self) -> Option<&PartlyLabelled> {
        match self {
            Self::Transductive(classes) => Some(classes),
            Self::Inductive(_) | Self::FullySupervised(_) => None,
        }
    }
}

fn replace(labels: &mut [u16], from: u16, to: u16) {
    for label in labels.iter_mut().filter(|label| **label == from) {
        *label = to;
    }
}

/// All classes of a data set, of which some have labels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PartlyLabelled {
    names: Vec<String>,
    seen: Vec<bool>,
    pixels: PseudoLabels,
}

impl PartlyLabelled {
    /// All classes by index, with which of them are seen, and which pixels get pseudo labels.
    ///
    /// # Errors
    /// No class is seen, or none is unseen: there would be nothing to learn from, or nothing to label.
    pub fn new(classes: Vec<(String, bool)>, pixels: PseudoLabels) -> Result<Self, TrainError> {
        let (names, seen): (Vec<_>, Vec<_>) = classes.into_iter().unzip();
        let count = seen.iter().filter(|&&seen| seen).count();
        if count == 0 || count == seen.len() {
            return Err(TrainError::Config(format!(
                "the transductive setting needs seen and unseen classes; {count} of {} are seen",
                seen.len()
            )));
        }
        Ok(Self {
            names,
            seen,
            pixels,
        })
    }

    /// Forgets which unseen class a pixel has; padding, and as released ignored pixels, wait for no label.
    fn hide(&self, labels: &mut [u16]) {
        for label in labels {
            let is_seen = self.seen.get(usize::from(*label)) == Some(&true);
            *label = match (*label, self.pixels) {
                (seen, _) if is_seen => seen,
                (PADDING_LABEL, _) | (IGNORE_LABEL, PseudoLabels::UnseenPixels) => IGNORE_LABEL,
                _ => WAITING,
            };
        }
    }

    /// Gives every pixel that waits the unseen class with the highest score.
    ///
    /// - `masks`: the model's logits of all classes, `[batch, classes, h, w]`
    /// - `labels`: `[batch, height, width]`
    pub(crate) fn fill(
        &self,
        masks: Tensor<4>,
        labels: &mut [u16],
        size: [usize; 2],
    ) -> Result<(), TrainError> {
        let masks = bilinear(masks.detach(), size);
        pseudo_label(masks, labels, WAITING, &self.seen)
    }
}

/// All classes of a data set, all labelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllClasses {
    names: Vec<String>,
}

impl AllClasses {
    /// All classes, by index.
    pub fn new(names: Vec<String>) -> Self {
        Self { names }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn partly(pixels: PseudoLabels) -> PartlyLabelled {
        let class = |name: &str, seen| (name.to_owned(), seen);
        let classes = vec![
            class("a", true),
            class("b", false),
            class("c", true),
            class("d", false),
        ];
        PartlyLabelled::new(classes, pixels).unwrap()
    }

    #[test]
    fn the_label_of_an_unseen_pixel_is_forgotten() {
        let (mut first, mut second) = ([0, 1, 2, IGNORE_LABEL, 1], [0, 3, 2, IGNORE_LABEL, 1]);
        let classes = partly(PseudoLabels::UnseenPixels);
        classes.hide(&mut first);
        classes.hide(&mut second);
        assert_eq!(first, second);
        assert_eq!(first, [0, WAITING, 2, IGNORE_LABEL, WAITING]);
    }

    #[test]
    fn what_people_left_out_may_get_a_label_but_padding_never() {
        let pixels = [0, 1, IGNORE_LABEL, PADDING_LABEL];
        let hidden = |rule| {
            let mut labels = pixels;
            partly(rule).hide(&mut labels);
            labels
        };
        assert_eq!(
            hidden(PseudoLabels::UnseenPixels),
            [0, WAITING, IGNORE_LABEL, IGNORE_LABEL]
        );
        assert_eq!(
            hidden(PseudoLabels::UnlabelledPixels),
            [0, WAITING, WAITING, IGNORE_LABEL]
        );
    }

    #[test]
    fn a_waiting_pixel_takes_the_best_unseen_class() {
        let device = burn::tensor::Device::flex();
        // Class 2 scores most everywhere, but it is seen; of the unseen ones 3 wins left and 1 right.
        let masks = Tensor::<4>::from_floats(
            [[[[0.0, 0.0]], [[1.0, 3.0]], [[9.0, 9.0]], [[2.0, 2.0]]]],
            &device,
        );
        let mut labels = [WAITING, WAITING];
        let classes = partly(PseudoLabels::default());
        classes.fill(masks, &mut labels, [1, 2]).unwrap();
        assert_eq!(labels, [3, 1]);
    }

    #[test]
    fn without_unseen_classes_there_is_nothing_to_label() {
        let error =
            PartlyLabelled::new(vec![("a".into(), true)], PseudoLabels::default()).unwrap_err();
        assert!(error.to_string().contains("1 of 1"), "{error}");
    }
}
