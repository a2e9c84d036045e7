//! The metrics of generalised zero-shot segmentation, as numbers, as JSON and as a table.
//!
//! Predictions range over all classes, seen and unseen. Definitions follow mmsegmentation 0.24 (`mean_iou`): if the
//! divisor of a metric is 0 for a class, the class has no value and means leave it out. [`NanRule`] also offers the
//! other convention of published numbers. hIoU, the harmonic mean of both mIoU, follows the papers.

use crate::reliability::ConfidenceReport;
use serde::{Deserialize, Serialize};

use crate::{ConfusionMatrix, EvalError};

/// Whether a class had labelled pixels in training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "lowercase")]
pub enum Split {
    /// The class had labelled pixels in training.
    Seen,
    /// The class is known by name only.
    Unseen,
}

impl Split {
    fn of(unseen: bool) -> Self {
        if unseen { Self::Unseen } else { Self::Seen }
    }
}

/// The main metric of a data set; all metrics are always computed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Metric {
    /// Mean intersection over union, and hIoU where there are unseen classes.
    #[default]
    MeanIou,
    /// Mean Dice coefficient, the usual metric of medical data sets.
    Dice,
}

/// Rule for classes without true or without predicted pixels.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum NanRule {
    /// The rule of mmsegmentation, used for most published numbers: a class has an IoU if it is in the ground truth or
    /// in the prediction, so a class that is only predicted has an IoU of 0. Means leave out classes without a value.
    #[default]
    Mmseg,
    /// The rule of ZegFormer's evaluation: a class has an IoU (and Dice) if it is in the ground truth. mIoU is the sum
    /// of these divided by the number of classes in the ground truth or in the prediction. The means over seen and over
    /// unseen classes are undefined if one of their classes has no value.
    TruthOnly,
    /// The rule of detectron2 since 2022: a class has an IoU (and Dice) if it is in the ground truth, and means are over
    /// these classes.
    TruthMean,
}

impl NanRule {
    /// Returns whether this is the default, which is omitted from records.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns a sentence on the classes that means are over.
    pub(crate) fn explanation(self) -> &'static str {
        match self {
            Self::Mmseg => {
                "Means are over the classes in the ground truth or in the prediction (rule mmseg)."
            }
            Self::TruthOnly => {
                "IoU is counted for classes in the ground truth and divided by those in the ground truth or in the \
                 prediction (rule truth-only)."
            }
            Self::TruthMean => "Means are over the classes in the ground truth (rule truth-mean).",
        }
    }
}

/// The metrics of one class, 0..=1; `None` (JSON `null`) where the divisor is 0.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct ClassReport {
    /// Class name.
    pub name: String,
    /// Seen or unseen.
    pub split: Split,
    /// Intersection over union.
    pub iou: Option<f64>,
    /// Share of the class's true pixels that were predicted as this class (recall).
    pub acc: Option<f64>,
    /// Twice the intersection over the sum of true and predicted pixels.
    pub dice: Option<f64>,
    /// Number of true pixels of the class.
    pub pixels: u64,
}

/// The metrics of a data set, 0..=1; `None` (JSON `null`) where undefined.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Report {
    /// Pixel accuracy: share of all pixels whose predicted class is right.
    pub p_acc: Option<f64>,
    /// Mean IoU of all classes.
    pub miou: Option<f64>,
    /// Mean IoU of the seen classes.
    pub miou_seen: Option<f64>,
    /// Mean IoU of the unseen classes.
    pub miou_unseen: Option<f64>,
    /// Harmonic mean of `miou_seen` and `miou_unseen`; see [`harmonic_mean`].
    pub hiou: Option<f64>,
    /// Mean accuracy of all classes.
    pub macc: Option<f64>,
    /// Mean Dice coefficient of all classes.
    pub mdice: Option<f64>,
    /// Main metric of the data set; tables show it first.
    #[serde(default)]
    pub metric: Metric,
    /// Rule for classes without pixels.
    #[serde(default)]
    pub nan_rule: NanRule,
    /// Number of scored images.
    pub images: u64,
    /// Number of images in which all classes have the same score at every pixel, so that their labels mean nothing;
    /// `None` if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tied_images: Option<u64>,
    /// How far the confidence is right, if it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confidence: Option<ConfidenceReport>,
    /// Number of scored pixels.
    pub pixels: u64,
    /// One entry per class, in label order.
    pub classes: Vec<ClassReport>,
}

impl Report {
    /// Computes all metrics by mmsegmentation's rule.
    ///
    /// - `names`, `unseen`: one entry per class, in label order
    /// - `images`: number of images that were counted
    ///
    /// # Errors
    /// Returns [`EvalError::Classes`] if the length of `names` or `unseen` is not the number of classes of the matrix.
    pub fn new(
        confusion: &ConfusionMatrix,
        names: &[impl AsRef<str>],
        unseen: &[bool],
        images: u64,
    ) -> Result<Self, EvalError> {
        Self::with_rule(confusion, names, unseen, images, NanRule::Mmseg)
    }

    /// Computes all metrics by the given rule for classes without pixels.
    ///
    /// - `names`, `unseen`: one entry per class, in label order
    /// - `images`: number of images that were counted
    ///
    /// # Errors
    /// Returns [`EvalError::Classes`] if the length of `names` or `unseen` is not the number of classes of the matrix.
    pub fn with_rule(
        confusion: &ConfusionMatrix,
        names: &[impl AsRef<str>],
        unseen: &[bool],
        images: u64,
        rule: NanRule,
    ) -> Result<Self, EvalError> {
        let expected = confusion.classes();
        for found in [names.len(), unseen.len()] {
            if found != expected {
                return Err(EvalError::Classes { expected, found });
            }
        }
        let mut right = 0;
        // Number of classes in the ground truth or in the prediction.
        let mut present = 0_u64;
        let mut classes = Vec::with_capacity(expected);
        for (class, (name, unseen)) in names.iter().zip(unseen).enumerate() {
            let both = confusion.intersect(class);
            let (label, pred) = (confusion.label(class), confusion.pred(class));
            right += both;
            present += u64::from(label + pred > 0);
            let counts = rule == NanRule::Mmseg || label > 0;
            let of = |part, whole| ratio(part, whole).filter(|_| counts);
            classes.push(ClassReport {
                name: name.as_ref().to_owned(),
                split: Split::of(*unseen),
                iou: of(both, label + pred - both),
                acc: ratio(both, label),
                dice: of(2 * both, label + pred),
                pixels: label,
            });
        }
        let of_split = |split| {
            let of_split = classes.iter().filter(|class| class.split == split);
            let values: Vec<_> = of_split.map(|class| class.iou).collect();
            let whole = rule != NanRule::TruthOnly || values.iter().all(Option::is_some);
            mean(values.into_iter()).filter(|_| whole)
        };
        let over_all = |value: fn(&ClassReport) -> Option<f64>| match rule {
            NanRule::Mmseg | NanRule::TruthMean => mean(classes.iter().map(value)),
            NanRule::TruthOnly => {
                let sum: f64 = classes.iter().filter_map(value).sum();
                (present > 0).then(|| sum / present as f64)
            }
        };
        let (miou_seen, miou_unseen) = (of_split(Split::Seen), of_split(Split::Unseen));
        Ok(Self {
            p_acc: ratio(right, confusion.total()),
            miou: over_all(|class| class.iou),
            miou_seen,
            miou_unseen,
            hiou: miou_seen.zip(miou_unseen).map(|(s, u)| harmonic_mean(s, u)),
            macc: mean(classes.iter().map(|class| class.acc)),
            mdice: over_all(|class| class.dice),
            metric: Metric::default(),
            nan_rule: rule,
            confidence: None,
            images,
            tied_images: None,
            pixels: confusion.total(),
            classes,
        })
    }
}

/// Returns the harmonic mean 2su/(s+u) of two fractions, which is high only if both are high; 0 if both are 0.
pub fn harmonic_mean(s: f64, u: f64) -> f64 {
    if s + u == 0.0 {
        0.0
    } else {
        2.0 * s * u / (s + u)
    }
}

fn ratio(part: u64, whole: u64) -> Option<f64> {
    (whole > 0).then(|| part as f64 / whole as f64)
}

/// Returns the mean of the values that are defined; `None` if there are none.
fn mean(values: impl Iterator<Item = Option<f64>>) -> Option<f64> {
    let (sum, count) = values
        .flatten()
        .fold((0.0, 0_u64), |(sum, count), value| (sum + value, count + 1));
    (count > 0).then(|| sum / count as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(truth: &[u16], prediction: &[u16], unseen: &[bool]) -> Report {
        let mut confusion = ConfusionMatrix::new(unseen.len());
        confusion.add(truth, prediction, 255).unwrap();
        let names: Vec<String> = (0..unseen.len()).map(|class| format!("c{class}")).collect();
        Report::new(&confusion, &names, unseen, 1).unwrap()
    }

    #[test]
    fn undefined_values_are_null() {
        let report = report(&[0, 0, 255], &[0, 1, 2], &[false, true, true]);
        let values = |class: usize| {
            let class = &report.classes[class];
            (class.iou, class.acc, class.dice)
        };
        assert_eq!(values(0), (Some(0.5), Some(0.5), Some(2.0 / 3.0)));
        // The class is predicted but not in the ground truth: it has no accuracy and an IoU of 0.
        assert_eq!(values(1), (Some(0.0), None, Some(0.0)));
        assert_eq!(values(2), (None, None, None));
        assert_eq!(
            (report.miou_seen, report.miou_unseen),
            (Some(0.5), Some(0.0))
        );
        assert_eq!((report.hiou, report.miou), (Some(0.0), Some(0.25)));
    }

    #[test]
    fn without_unseen_classes_there_is_no_harmonic_mean() {
        let report = report(&[0, 1], &[0, 1], &[false, false]);
        assert_eq!(
            (report.miou_seen, report.miou_unseen, report.hiou),
            (Some(1.0), None, None)
        );
        let empty = self::report(&[], &[], &[false, true]);
        assert_eq!((empty.p_acc, empty.miou, empty.hiou), (None, None, None));
    }

    #[test]
    fn harmonic_mean_of_zeros_is_zero() {
        assert!(harmonic_mean(0.0, 0.0).abs() < f64::EPSILON);
        assert!((harmonic_mean(0.919, 0.778) - 0.84264).abs() < 1e-5);
    }

    #[test]
    fn json_has_a_field_for_every_metric() {
        let report = report(&[0, 1], &[0, 0], &[false, true]);
        let json: serde_json::Value = serde_json::to_value(&report).unwrap();
        for field in [
            "p_acc",
            "miou",
            "miou_seen",
            "miou_unseen",
            "hiou",
            "images",
            "pixels",
            "macc",
            "mdice",
        ] {
            assert!(
                json.get(field).is_some_and(serde_json::Value::is_number),
                "{field}"
            );
        }
        assert_eq!(json["classes"][1]["split"], "unseen");
        assert_eq!(json["classes"][1]["acc"], 0.0);
        assert_eq!(serde_json::from_value::<Report>(json).unwrap(), report);
    }

    #[test]
    fn the_number_of_names_must_be_the_number_of_classes() {
        let confusion = ConfusionMatrix::new(2);
        let error = Report::new(&confusion, &["a"], &[false, true], 0).unwrap_err();
        assert_eq!(error.to_string(), "1 classes, expected 2");
    }

    #[test]
    fn a_rule_leaves_out_classes_without_truth() {
        // Half of class 0 is found, class 1 is only predicted, class 2 does not occur, class 3 is found.
        let mut confusion = ConfusionMatrix::new(4);
        confusion.add(&[0, 0, 3], &[0, 1, 3], 255).unwrap();
        let of = |unseen: [bool; 4]| {
            let names = ["a", "b", "c", "d"];
            Report::with_rule(&confusion, &names, &unseen, 1, NanRule::TruthOnly).unwrap()
        };
        let report = of([false, true, true, false]);
        let ious: Vec<_> = report.classes.iter().map(|class| class.iou).collect();
        assert_eq!(ious, [Some(0.5), None, None, Some(1.0)]);
        // Three classes are in the ground truth or in the prediction.
        assert_eq!((report.miou, report.macc), (Some(0.5), Some(0.75)));
        assert_eq!(
            (report.miou_seen, report.miou_unseen, report.hiou),
            (Some(0.75), None, None)
        );
        let report = of([false, true, false, true]);
        assert_eq!((report.miou_seen, report.miou_unseen), (None, None));
        assert_eq!(report.nan_rule, NanRule::TruthOnly);
    }
}
