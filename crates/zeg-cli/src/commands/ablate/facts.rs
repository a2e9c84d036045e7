//! What the runs of a suite follow from besides their experiments, as it is now.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use zeg::mini::weights_sha256;
use zeg_base::fingerprint::Fingerprint;
use zeg_train::experiment::Experiment;

use super::AblateSettings;
use crate::{
    commands::{
        data_folder,
        file_contents::{self, FileContents},
    },
    progress::Verbosity,
};

/// What the runs of a suite follow from besides their experiments, each found once.
///
/// Data set and weights of finished runs need not be on this machine any more; then there is nothing to compare.
pub(super) struct Facts<'a> {
    /// Folder of the data set.
    data: Option<&'a Path>,
    /// Facts of a data set, by its section of the experiment.
    datasets: HashMap<String, Fingerprint>,
    /// SHA-256 of weights, by their path.
    weights: HashMap<PathBuf, Fingerprint>,
    /// Facts of the images that are scored, by the data set's section of the experiment.
    scored: HashMap<String, Fingerprint>,
    /// Digests of the files of these images.
    files: FileContents,
    verbosity: Verbosity,
}

impl<'a> Facts<'a> {
    pub(super) fn new(settings: &'a AblateSettings) -> Self {
        Self {
            data: settings.data.as_deref(),
            datasets: HashMap::new(),
            weights: HashMap::new(),
            scored: HashMap::new(),
            files: FileContents::default(),
            verbosity: settings.verbosity,
        }
    }

    /// Returns the facts that a run with this experiment and these weights follows from, as far as the files are there.
    pub(super) fn of(&mut self, experiment: &Experiment, weights: &Path) -> Fingerprint {
        let data = &experiment.data;
        let folder = self.data;
        let open = || {
            let root = data_folder(folder, &data.dataset)?;
            let dataset = data.open(root, &data.train_split)?;
            let files = dataset.sizes().and(dataset.label_content());
            anyhow::Ok(dataset.fingerprint().and(files))
        };
        let hash = || {
            let sha256 = weights_sha256(weights)?;
            anyhow::Ok(Fingerprint::new().with("weights: SHA-256", sha256))
        };
        let key = serde_json::to_string(data).unwrap_or_default();
        let dataset = self.datasets.entry(key);
        let dataset = dataset.or_insert_with(|| open().unwrap_or_default());
        let weights = self.weights.entry(weights.to_owned());
        let weights = weights.or_insert_with(|| hash().unwrap_or_default());
        dataset.clone().and(weights.clone())
    }

    /// Returns the facts that the scores of an experiment follow from, as far as the files are there.
    pub(super) fn of_scores(&mut self, experiment: &Experiment) -> Fingerprint {
        let data = &experiment.data;
        let key = serde_json::to_string(data).unwrap_or_default();
        if let Some(known) = self.scored.get(&key) {
            return known.clone();
        }
        let folder = self.data;
        let open = || anyhow::Ok(data.open(data_folder(folder, &data.dataset)?, &data.eval_split)?);
        let facts = open().map_or_else(
            |_| Fingerprint::new(),
            |dataset| {
                let samples = self.files.of_samples(&dataset, self.verbosity);
                dataset
                    .fingerprint()
                    .and(file_contents::fingerprint(&samples))
            },
        );
        self.scored.insert(key, facts.clone());
        facts
    }
}
