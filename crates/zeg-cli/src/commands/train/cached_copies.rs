//! Augmented copies of the training images, encoded once by a frozen encoder and cached in a file.

use std::{
    collections::BTreeSet,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};
use zeg::model::method::Architecture;
use zeg_train::experiment::{Experiment, TrainingPrecision};

use serde_json::json;
use zeg::{
    data::{OnBadSample, OpenSet, Pipeline, SampleSource as _},
    device::DeviceChoice,
};
use zeg_base::{fingerprint::Fingerprint, ranks::Ranks};
use zeg_train::{
    TrainError,
    checkpoint::CheckpointInfo,
    features::{CopyOptions, FeatureCache},
    trainer::Trainer,
};

use crate::progress::Verbosity;

/// Everything that encoded augmented copies depend on, and the folder that keeps them.
pub(super) struct CopiesInput<'a> {
    pub(super) info: &'a CheckpointInfo,
    pub(super) experiment: &'a Experiment,
    pub(super) architecture: &'a dyn Architecture,
    pub(super) trainer: &'a Trainer,
    /// The processes that train together, each of which encodes some of the copies.
    pub(super) ranks: &'a Ranks,
    pub(super) dataset: &'a OpenSet,
    pub(super) pipeline: &'a Pipeline,
    /// Number of augmented copies of every image.
    pub(super) copies: usize,
    /// Folder that keeps the encoded copies.
    pub(super) folder: Option<&'a Path>,
    pub(super) device: DeviceChoice,
    pub(super) verbosity: Verbosity,
}

/// Reads the encoded augmented copies of an earlier run, or encodes them.
///
/// Returns `None` if the user stopped it.
pub(super) fn features(
    input: &CopiesInput,
    stop: &AtomicBool,
) -> anyhow::Result<Option<FeatureCache>> {
    let origin = origin(input);
    let CopiesInput {
        experiment,
        trainer,
        ranks,
        dataset,
        pipeline,
        copies,
        folder,
        verbosity,
        ..
    } = *input;
    let seed = experiment.training.seed;
    let file = folder.map(|folder| {
        let digest = origin.digest();
        let name = digest.get(..16).unwrap_or(&digest);
        folder.join(format!("features-{name}.safetensors"))
    });
    let first_file = file.as_deref().filter(|_| ranks.is_first());
    let found = first_file.and_then(|file| intact(file, &origin, verbosity));
    if ranks.any(
        "encoded augmented copies of an earlier run",
        found.is_some(),
    )? {
        let (images, size) = (dataset.len(), pipeline.size());
        let cache = FeatureCache::of_first(ranks, found, images, size, seed)?;
        return Ok(Some(cache));
    }
    let bar = verbosity.progress(
        "encoding",
        "augmented copies",
        (copies * dataset.len()).div_ceil(ranks.size()) as u64,
    );
    // Every copy of a bad image is skipped, and told of once.
    let mut told = BTreeSet::new();
    let cache = FeatureCache::build(
        ranks,
        &*trainer.inference_model(),
        trainer.criterion(),
        dataset,
        pipeline,
        CopyOptions {
            copies,
            seed,
            threads: rayon::current_num_threads(),
            on_bad_sample: experiment.training.on_bad_sample,
        },
        |skipped| {
            for (id, reason) in skipped {
                if told.insert(id.clone()) {
                    bar.suspend(|| print_notice!("warning: image {id} is skipped: {reason}"));
                }
            }
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
            if let Some(file) = first_file {
                cache.save(file, &origin)?;
            }
            Ok(Some(cache))
        }
    }
}

/// Reads the copies in a file, if all their values are finite.
fn intact(file: &Path, origin: &Fingerprint, verbosity: Verbosity) -> Option<FeatureCache> {
    let cache = FeatureCache::open(file, origin)?;
    let Some(image) = cache.not_finite() else {
        verbosity.notice(format_args!(
            "encoded augmented copies read from {}",
            file.display()
        ));
        return Some(cache);
    };
    print_notice!(
        "warning: {}: is damaged: the encoded copy of {image} holds a value that is not finite, so all copies are \
         encoded again",
        file.display()
    );
    None
}

/// Returns everything that the encoded copies depend on.
fn origin(input: &CopiesInput) -> Fingerprint {
    let CopiesInput {
        info,
        experiment,
        architecture,
        trainer,
        dataset,
        copies,
        device,
        ..
    } = *input;
    let training = &experiment.training;
    // Another version of the program may preprocess images differently.
    let origin = dataset
        .fingerprint()
        .and(dataset.states())
        .with("program", env!("CARGO_PKG_VERSION"))
        .with("device", device)
        .with("weights: SHA-256", &info.base.sha256)
        .with("model: method", architecture.method())
        .with("model: encoder", json!(architecture.encoder()))
        .with(
            "model: normalisation",
            format_args!("{:?}", trainer.model().normalization()),
        )
        .with("training: preprocess", json!(training.preprocess))
        .with("training: cached-copies", copies)
        .with("training: seed", training.seed);
    let origin = match training.precision {
        TrainingPrecision::F32 => origin,
        precision @ TrainingPrecision::Bf16 => origin.with("training: precision", json!(precision)),
    };
    match training.on_bad_sample {
        OnBadSample::Stop => origin,
        // The copies of a bad image are those of another one, which a run that stops at it must not use.
        OnBadSample::Skip => origin.with("training: on-bad-sample", "skip"),
    }
}
