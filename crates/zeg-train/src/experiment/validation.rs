//! When and on what a run is validated.

use serde::{Deserialize, Serialize};
use zeg_model::inference::TestTime;

use super::is_default_value;

/// Validation during training: scores go to `scores.jsonl`, one line each, and the best model to `best.safetensors`.
///
/// The best model is the one with the highest hIoU if the class split has unseen classes, and the highest mIoU
/// otherwise. Choosing it on the images that are reported at the end makes those scores optimistic; use a separate
/// split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Validation {
    /// Number of steps between validations; the model is always validated after the last step.
    pub every: u64,
    /// Split to validate on: one of the data set, or a text file with one id per line; `None`: `data.eval-split`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub split: Option<String>,
    /// Number of the split's first images to use; `None`: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub limit: Option<usize>,
    /// Test-time augmentation: scales and flip that scores are averaged over.
    #[serde(default, skip_serializing_if = "is_default_value")]
    pub test_time: TestTime,
}
