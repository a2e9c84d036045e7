//! The manifest of a run that has begun in a folder, as a run that continues reads it.

use std::path::Path;

use anyhow::Context as _;
use zeg::data::is_same_dataset;
use zeg_base::fingerprint::Fingerprint;
use zeg_train::{checkpoint::BaseWeights, experiment::Experiment};

use super::{checkpoint_files::checkpoints, init::Init};

/// Name of the manifest.
pub(super) const MANIFEST: &str = "run.json";

/// Whether a run has begun in a folder, so that `--resume` continues it.
pub(crate) fn is_begun(folder: &Path) -> bool {
    folder.join(MANIFEST).is_file() || checkpoints(folder).is_ok_and(|found| !found.is_empty())
}

/// Returns the experiment of an earlier run with the path of the data set as it is now, if it is the same data set.
///
/// A description may have been moved; earlier versions kept its path as it was typed.
pub(super) fn with_dataset_of(mut before: Experiment, now: &Experiment) -> Experiment {
    if is_same_dataset(&before.data.dataset, &now.data.dataset) {
        before.data.dataset.clone_from(&now.data.dataset);
    }
    before
}

/// What the manifest tells of a run that has begun in a folder.
pub(crate) struct BegunRun {
    pub(crate) experiment: Experiment,
    /// The frozen weights.
    pub(crate) weights: Option<BaseWeights>,
    /// What the run follows from besides its experiment; empty in manifests of earlier versions.
    pub(crate) fingerprint: Fingerprint,
    /// The checkpoint that the run started from.
    pub(super) init: Option<Init>,
}

impl BegunRun {
    /// Whether the run had the settings of an experiment.
    pub(crate) fn is_of(&self, experiment: &Experiment) -> bool {
        with_dataset_of(self.experiment.clone(), experiment) == *experiment
    }

    /// Opens the manifest in a folder; returns `None` if there is none.
    ///
    /// # Errors
    /// Returns an error if the manifest cannot be read.
    pub(crate) fn open(folder: &Path) -> anyhow::Result<Option<Self>> {
        let manifest = folder.join(MANIFEST);
        let name = || manifest.display().to_string();
        if !manifest.is_file() {
            return Ok(None);
        }
        let text = std::fs::read_to_string(&manifest).with_context(name)?;
        let mut document: serde_json::Value = serde_json::from_str(&text).with_context(name)?;
        let mut part = |key: &str| {
            let part = document.get_mut(key).map(serde_json::Value::take);
            part.unwrap_or_default()
        };
        let weights = serde_json::from_value(part("weights")).ok();
        let fingerprint = serde_json::from_value(part("fingerprint")).unwrap_or_default();
        let init = Init::of_manifest(&part("init"));
        let experiment = serde_json::from_value(part("experiment")).with_context(name)?;
        Ok(Some(Self {
            experiment,
            weights,
            fingerprint,
            init,
        }))
    }
}
