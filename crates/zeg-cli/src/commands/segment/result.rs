//! The result of `zeg segment`, as `--json` writes it.

use std::path::PathBuf;

use serde::Serialize;
use zeg::{explain::Explanation, export::Summary};

use crate::commands::json::Failure;

/// The results of all images.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct SegmentResult {
    /// The segmented images.
    pub(super) images: Vec<ImageResult>,
    /// The images that could not be segmented, or whose files could not be written.
    pub(super) failed: Vec<Failure>,
    /// Number of images that were not reached because the run was stopped; left out if there is none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(super) not_reached: Option<usize>,
    /// All files that were written: those of each image, and those that all images share.
    #[serde(serialize_with = "zeg_base::paths::serialize_all")]
    pub(super) files: Vec<PathBuf>,
}

/// The result of one image.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct ImageResult {
    #[serde(flatten)]
    pub(super) summary: Summary,
    /// Files that were written for this image only.
    #[serde(serialize_with = "zeg_base::paths::serialize_all")]
    pub(super) files: Vec<PathBuf>,
    /// Whether all classes have the same score at every pixel, so that the labels mean nothing; left out if not.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(super) tied: bool,
    /// The best classes of its large regions, with `--explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) regions: Option<Vec<Explanation>>,
}

/// Returns the schema of the output of `zeg segment merge`.
#[cfg(feature = "schema")]
pub(crate) fn merge_output_schema() -> (&'static str, schemars::Schema) {
    crate::commands::json::schema_of::<SegmentResult>("segment merge")
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    crate::commands::json::schema_of::<SegmentResult>("segment")
}
