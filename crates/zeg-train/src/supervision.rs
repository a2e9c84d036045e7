//! Restricts training to the class names and labels that its setting allows.
//!
//! | setting | names | labels |
//! |---|---|---|
//! | inductive | seen classes | seen classes |
//! | transductive | all classes | seen classes; a pixel of an unseen class is known to be unseen, but not its class |
//! | fully supervised | all classes | all classes |
//!
//! Each setting has its own type, which does not contain what training must not use: [`SeenClasses`] holds no unseen
//! name, and [`PartlyLabelled`] discards the label of an unseen pixel as soon as it reads it. The inductive setting
//! accepts only [`SeenClasses`]:
//!
//! ```
//! use zeg_train::{supervision::Supervision, targets::SeenClasses};
//!
//! let seen = SeenClasses::new(3, &[(0, "cat".to_owned()), (2, "dog".to_owned())])?;
//! assert_eq!(Supervision::Inductive(seen).names(), ["cat", "dog"]);
//! # Ok::<(), zeg_train::TrainError>(())
//! ```
//!
//! A type that holds the name of an unseen class (class 1 here) is rejected by the compiler:
//!
//! ```compile_fail,E0308
//! use zeg_train::{pseudo_labels::PseudoLabelRule, supervision::{PartlyLabelled, PseudoLabels, Supervision}};
//!
//! let classes = [("cat", true), ("cow", false), ("dog", true)].map(|(name, seen)| (name.to_owned(), seen));
//! let all = PartlyLabelled::new(classes.to_vec(), PseudoLabels::default(), PseudoLabelRule::default())?;
//! let inductive = Supervision::Inductive(all);
//! # Ok::<(), zeg_train::TrainError>(())
//! ```

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use zeg_image::{IGNORE_LABEL, PADDING_LABEL};
use zeg_model::resize::bilinear;

use crate::{
    TrainError,
    pseudo_labels::PseudoLabelRule,
    targets::{LeftOut, SeenClasses},
};

/// Label value of a pixel that waits for its pseudo label.
pub const WAITING: u16 = u16::MAX - 2;

/// The pixels that get pseudo labels in the transductive setting.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PseudoLabels {
    /// Pixels whose true class is unseen: their positions come from the ground truth, their classes do not. This is the
    /// released procedure, "†ST".
    #[default]
    UnseenPixels,
    /// All pixels without the label of a seen class, including those that the annotators left unlabelled: "ST". This is
    /// a reconstruction, because the released code for it does not run (specification of the reference, section 6).
    UnlabelledPixels,
}

impl PseudoLabels {
    /// Returns whether this is the default, which is left out of files.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// The names and labels of a data set's classes that training may use.
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
    /// Returns the names of the training classes, in the order of their embeddings.
    pub fn names(&self) -> &[String] {
        match self {
            Self::Inductive(seen) => seen.names(),
            Self::Transductive(classes) => &classes.names,
            Self::FullySupervised(classes) => &classes.names,
        }
    }

    /// Returns the class indices of the training classes in the data set, in the order of their embeddings.
    ///
    /// Classes are identified by their indices, because several may have one name.
    pub fn classes(&self) -> Vec<usize> {
        match self {
            Self::Inductive(seen) => seen.classes().to_vec(),
            Self::Transductive(_) | Self::FullySupervised(_) => (0..self.names().len()).collect(),
        }
    }

    /// Replaces class indices of the data set by indices of the training classes, in place; a pixel that is to get a
    /// pseudo label becomes [`WAITING`].
    pub fn map(&self, labels: &mut [u16]) {
        match self {
            Self::Inductive(seen) => seen.map(labels),
            Self::Transductive(classes) => classes.hide(labels),
            // Padding is treated as unlabelled: a negative for every class.
            Self::FullySupervised(_) => replace(labels, PADDING_LABEL, IGNORE_LABEL),
        }
    }

    /// Returns the classes if some of their pixels get pseudo labels.
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

/// All classes of a data set, of which only the seen ones have labels.
#[derive(Debug, Clone, PartialEq)]
pub struct PartlyLabelled {
    names: Vec<String>,
    seen: Vec<bool>,
    pixels: PseudoLabels,
    rule: PseudoLabelRule,
}

impl PartlyLabelled {
    /// Creates the supervision of the transductive setting.
    ///
    /// - `classes`: names by class index, each with whether the class is seen
    /// - `pixels`: which pixels get pseudo labels
    /// - `rule`: how scores become pseudo labels
    ///
    /// # Errors
    /// Returns an error if no class is seen, if none is unseen, or if a value of the rule is out of range.
    pub fn new(
        classes: Vec<(String, bool)>,
        pixels: PseudoLabels,
        rule: PseudoLabelRule,
    ) -> Result<Self, TrainError> {
        rule.check()?;
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
            rule,
        })
    }

    /// Discards which unseen class a pixel has. Padding gets no pseudo label; as released, ignored pixels get none
    /// either.
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

    /// Returns whether a pixel waits for its pseudo label.
    pub(crate) fn has_waiting(labels: &[u16]) -> bool {
        labels.contains(&WAITING)
    }

    /// Returns the classes without labels.
    pub(crate) fn unlabelled(&self) -> Vec<usize> {
        let classes = self.seen.iter().enumerate();
        classes
            .filter_map(|(class, seen)| (!seen).then_some(class))
            .collect()
    }

    /// Gives every waiting pixel the class with the highest score; the first of equal ones wins.
    ///
    /// - `scores`: `[batch, candidates, h, w]`
    /// - `candidates`: class indices
    /// - `labels`: labels to fill in, `[batch, height, width]`
    pub(crate) fn rank(
        scores: Tensor<4>,
        candidates: &[usize],
        labels: &mut [u16],
        size: [usize; 2],
    ) -> Result<(), TrainError> {
        let [batch, count, ..] = scores.dims();
        let pixels = size[0] * size[1];
        if count != candidates.len() || labels.len() != batch * pixels {
            return Err(TrainError::Config(format!(
                "scores of {count} classes in {batch} images do not fit {} candidates and {} labels",
                candidates.len(),
                labels.len()
            )));
        }
        let scores = bilinear(scores.detach().without_autodiff(), size);
        let scores: Vec<f32> = (scores.into_data().convert::<f32>())
            .try_into_vec()
            .map_err(|error| TrainError::Backend(format!("{error:?}")))?;
        let waiting = labels.iter_mut().enumerate();
        for (position, label) in waiting.filter(|(_, label)| **label == WAITING) {
            let (image, pixel) = (position / pixels, position % pixels);
            let at = |index: usize| scores[(image * count + index) * pixels + pixel];
            let best = (1..count).fold(
                0,
                |best, index| if at(index) > at(best) { index } else { best },
            );
            *label = candidates
                .get(best)
                .map_or(IGNORE_LABEL, |&class| class as u16);
        }
        Ok(())
    }

    /// Gives every waiting pixel the pseudo label of the rule, and returns the pixels that some classes have no loss at.
    ///
    /// - `masks`: the model's logits of all classes, `[batch, classes, h, w]`
    /// - `labels`: labels to fill in, `[batch, height, width]`
    pub(crate) fn fill(
        &self,
        masks: Tensor<4>,
        labels: &mut [u16],
        size: [usize; 2],
    ) -> Result<LeftOut, TrainError> {
        let masks = bilinear(masks.detach(), size);
        let pixels = self.rule.fill(masks, labels, WAITING, &self.seen)?;
        let classes = self.rule.left_out_classes(&self.seen);
        Ok(LeftOut { pixels, classes })
    }
}

/// All classes of a data set, all labelled.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AllClasses {
    names: Vec<String>,
}

impl AllClasses {
    /// Creates the supervision of the fully supervised setting; `names` are in the order of class indices.
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
        PartlyLabelled::new(classes, pixels, PseudoLabelRule::default()).unwrap()
    }

    #[test]
    fn the_label_of_an_unseen_pixel_is_discarded() {
        let (mut first, mut second) = ([0, 1, 2, IGNORE_LABEL, 1], [0, 3, 2, IGNORE_LABEL, 1]);
        let classes = partly(PseudoLabels::UnseenPixels);
        classes.hide(&mut first);
        classes.hide(&mut second);
        assert_eq!(first, second);
        assert_eq!(first, [0, WAITING, 2, IGNORE_LABEL, WAITING]);
    }

    #[test]
    fn unlabelled_pixels_may_get_a_pseudo_label_but_padding_never_does() {
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
        // Class 2 has the highest score everywhere, but it is seen. Of the unseen classes, 3 wins on the left and 1 on
        // the right.
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
    fn a_waiting_pixel_takes_the_best_candidate_however_large_the_scores_are() {
        let device = burn::tensor::Device::flex();
        // After a sigmoid, all of these scores would be 1 in single precision.
        let scores =
            Tensor::<4>::from_floats([[[[200.0, 300.0, 9.0]], [[201.0, 299.0, 8.0]]]], &device);
        let mut labels = [WAITING, WAITING, 0];
        let classes = partly(PseudoLabels::default());
        assert_eq!(classes.unlabelled(), [1, 3]);
        PartlyLabelled::rank(scores, &[1, 3], &mut labels, [1, 3]).unwrap();
        assert_eq!(labels, [3, 1, 0]);
    }

    #[test]
    fn the_transductive_setting_needs_unseen_classes() {
        let (pixels, rule) = (PseudoLabels::default(), PseudoLabelRule::default());
        let error = PartlyLabelled::new(vec![("a".into(), true)], pixels, rule).unwrap_err();
        assert!(error.to_string().contains("1 of 1"), "{error}");
    }
}
