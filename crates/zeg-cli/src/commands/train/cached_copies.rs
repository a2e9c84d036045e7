//! Augmented copies of the training images, encoded once by a frozen encoder and cached in a file.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::UNIX_EPOCH,
};
use zeg::model::method::Architecture;
use zeg_train::experiment::Experiment;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use zeg::data::{Item, OpenSet, Pipeline, SampleSource as _};
use zeg_base::hex;
use zeg_train::{TrainError, checkpoint::CheckpointInfo, features::FeatureCache, trainer::Trainer};

use crate::progress::Verbosity;

/// Everything that encoded augmented copies depend on, and the folder that keeps them.
pub(super) struct CopiesInput<'a> {
    pub(super) info: &'a CheckpointInfo,
    pub(super) experiment: &'a Experiment,
    pub(super) architecture: &'a dyn Architecture,
    pub(super) trainer: &'a Trainer,
    pub(super) dataset: &'a OpenSet,
    pub(super) pipeline: &'a Pipeline,
    /// Number of augmented copies of every image.
    pub(super) copies: usize,
    /// Folder that keeps the encoded copies.
    pub(super) folder: Option<&'a Path>,
    pub(super) verbosity: Verbosity,
}

/// Reads the encoded augmented copies of an earlier run, or encodes them.
///
/// Returns `None` if the user stopped it.
pub(super) fn features(
    input: &CopiesInput,
    stop: &AtomicBool,
) -> anyhow::Result<Option<FeatureCache>> {
    let CopiesInput {
        info,
        experiment,
        architecture,
        trainer,
        dataset,
        pipeline,
        copies,
        folder,
        verbosity,
    } = *input;
    let seed = experiment.training.seed;
    let origin = json!({
        // Another version of the program may preprocess images differently.
        "program": env!("CARGO_PKG_VERSION"),
        "encoder": info.base.sha256,
        "model": architecture.encoder(),
        "preprocess": experiment.training.preprocess,
        "data": { "set": dataset.name(), "classes": dataset.classes(), "items": dataset.len(),
            "files": images_digest(dataset) },
        "copies": copies,
        "seed": seed,
    });
    let file = folder.map(|folder| {
        let digest = Sha256::digest(origin.to_string());
        let name = hex::encode(&digest[..8]);
        folder.join(format!("features-{name}.safetensors"))
    });
    if let Some(cache) = file
        .as_ref()
        .and_then(|file| FeatureCache::open(file, &origin))
    {
        verbosity.notice(format_args!(
            "encoded augmented copies read from {}",
            file.unwrap_or_default().display()
        ));
        return Ok(Some(cache));
    }
    let bar = verbosity.progress(
        "encoding",
        "augmented copies",
        (copies * dataset.len()) as u64,
    );
    let cache = FeatureCache::build(
        &*trainer.inference_model(),
        trainer.criterion(),
        dataset,
        pipeline,
        (copies, seed),
        rayon::current_num_threads(),
        || {
            bar.inc();
            if stop.load(Ordering::SeqCst) {
                Err(TrainError::Interrupted)
            } else {
                Ok(())
            }
        },
    );
    bar.finish();
    match cache {
        Err(TrainError::Interrupted) => Ok(None),
        Err(error) => Err(error.into()),
        Ok(cache) => {
            if let Some(file) = &file {
                cache.save(file, &origin)?;
            }
            Ok(Some(cache))
        }
    }
}

/// Returns the SHA-256 of the images and label maps: for files, of their paths, sizes and modification times.
fn images_digest(dataset: &OpenSet) -> String {
    let mut digest = Sha256::new();
    let dataset = match dataset {
        OpenSet::Files(dataset) => dataset,
        OpenSet::World(set) => {
            let (part, images) = set.images();
            let world = json!([set.world().config(), part, images]);
            digest.update(world.to_string());
            return hex::encode(digest.finalize());
        }
    };
    digest.update(dataset.labelling());
    for path in dataset.items.iter().flat_map(Item::files) {
        digest.update(path.as_os_str().as_encoded_bytes());
        if let Ok(found) = std::fs::metadata(path) {
            let changed = found.modified().ok();
            let since = changed.and_then(|time| time.duration_since(UNIX_EPOCH).ok());
            digest.update(found.len().to_le_bytes());
            digest.update(since.unwrap_or_default().as_nanos().to_le_bytes());
        }
    }
    hex::encode(digest.finalize())
}
