//! The result of a training, as `--json` writes it.

use std::path::PathBuf;

use serde::Serialize;

/// The result of a training.
#[derive(Debug, Default, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct TrainOutput {
    /// Folder of the run.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    pub(super) folder: PathBuf,
    /// The trained model; null if the run was stopped.
    #[serde(serialize_with = "zeg_base::paths::serialize_option")]
    pub(super) model: Option<PathBuf>,
    /// The model with the best score on the way; null if the run is not scored on the way.
    #[serde(serialize_with = "zeg_base::paths::serialize_option")]
    pub(super) best: Option<PathBuf>,
    /// The method, as `ZegCLIP`.
    pub(super) method: String,
    /// Name of the data set.
    pub(super) dataset: String,
    /// Number of images of the training split.
    pub(super) images: usize,
    /// Seed of the training.
    pub(super) seed: u64,
    /// Step that this process started from: 0, or that of the checkpoint it continued.
    pub(super) first_step: u64,
    /// Number of steps that are done.
    pub(super) step: u64,
    /// Number of steps of the experiment.
    pub(super) steps: u64,
    /// Whether all steps are done; false if the user stopped the run, which `--resume` continues.
    pub(super) finished: bool,
    /// Wall time of this process in seconds.
    pub(super) seconds: f64,
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    crate::commands::json::schema_of::<TrainOutput>("train")
}
