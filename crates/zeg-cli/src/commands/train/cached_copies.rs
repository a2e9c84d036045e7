//! Encoded augmented copies of a frozen encoder: from a file that an earlier run kept, or computed and kept.

use std::{
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::UNIX_EPOCH,
};
use zeg::model::method::Architecture;
use zeg_train::experiment::Experiment;

use serde_json::json;
use sha2::{Digest as _, Sha256};
use zeg::data::{OpenSet, Pipeline, SampleSource as _};
use zeg_base::hex;
use zeg_train::{TrainError, checkpoint::CheckpointInfo, features::FeatureCache, trainer::Trainer};

use crate::progress;

/// What encoded augmented copies depend on, and where they are kept.
pub(super) struct CopiesInput<'a> {
    pub(super) info: &'a CheckpointInfo,
    pub(super) experiment: &'a Experiment,
    pub(super) architecture: &'a dyn Architecture,
    pub(super) trainer: &'a Trainer,
    pub(super) dataset: &'a OpenSet,
    pub(super) pipeline: &'a Pipeline,
    /// Augmented copies of every image.
    pub(super) copies: usize,
    /// Folder to keep them in.
    pub(super) folder: Option<&'a Path>,
}

/// Encoded augmented copies, from the file of an earlier run or computed; `None` when the user stopped it.
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
    } = *input;
    let seed = experiment.training.seed;
    let origin = json!({
        // Another version may prepare images in another way.
        "program": env!("CARGO_PKG_VERSION"),
        "encoder": info.base.sha256,
        "model": architecture.encoder(),
        "preprocess": experiment.training.preprocess,
        "data": { "set": dataset.name(), "classes": dataset.classes(), "items": dataset.len(),
            "files": images_of(dataset) },
        "views": copies,
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
        eprintln!(
            "encoded augmented copies from {}",
            file.unwrap_or_default().display()
        );
        return Ok(Some(cache));
    }
    let bar = progress::bar((copies * dataset.len()) as u64, "encoding");
    let cache = FeatureCache::build(
        &*trainer.inference_model(),
        trainer.criterion(),
        dataset,
        pipeline,
        (copies, seed),
        rayon::current_num_threads(),
        || {
            bar.inc(1);
            if stop.load(Ordering::SeqCst) {
                Err(TrainError::Interrupted)
            } else {
                Ok(())
            }
        },
    );
    bar.finish_and_clear();
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

/// Digest of the images and label maps: of files names, sizes and times of change.
fn images_of(dataset: &OpenSet) -> String {
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
    for path in dataset
        .items
        .iter()
        .flat_map(|item| [&item.image, &item.labels])
    {
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
