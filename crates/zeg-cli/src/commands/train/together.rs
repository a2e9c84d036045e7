//! A training that several ranks share: what they agree on before the first step and in every one.

use std::{
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use zeg::model::{methods::Methods, params::kept_values, weights::file_sha256};
use zeg_base::{
    fingerprint::{Fingerprint, Mismatch},
    hex,
    ranks::Ranks,
};
use zeg_train::{
    TrainError,
    checkpoint::Checkpoint,
    experiment::{Experiment, TrainingConfig},
    trainer::Trainer,
};

use super::{args::TrainSettings, init::Init, start::Start};

/// Ranks that have no part of the batches.
#[derive(Debug, thiserror::Error)]
#[error(
    "{ranks} processes cannot share batches of {} in {} of {} images",
    batch, zeg_base::plural::counted(*parts, "micro-batch"), micro_batch
)]
pub(crate) struct TooManyRanks {
    ranks: usize,
    parts: usize,
    batch: usize,
    micro_batch: usize,
}

impl TooManyRanks {
    pub(crate) fn hint(&self) -> String {
        if self.batch < self.ranks {
            return format!("start at most {} processes", self.batch);
        }
        format!(
            "set training.micro-batch to at most {}: --set training.micro-batch={}",
            self.batch / self.ranks,
            self.batch / self.ranks
        )
    }
}

/// Ranks that would not compute the same.
#[derive(Debug, thiserror::Error)]
#[error("{name} has other inputs than the first one: {mismatch}")]
pub(crate) struct RanksDiffer {
    /// Rank and host.
    name: String,
    mismatch: Mismatch,
}

/// Ranks whose models have become different.
#[derive(Debug, thiserror::Error)]
#[error(
    "after {step} steps, the parameters of {name} differ from those of the first one; nothing is written"
)]
pub(crate) struct ParametersDiffer {
    step: u64,
    /// Rank and host.
    name: String,
}

/// Checks that every rank has a part of every batch.
///
/// # Errors
/// Returns [`TooManyRanks`].
pub(super) fn check_micro_batches(
    training: &TrainingConfig,
    ranks: &Ranks,
) -> Result<(), TooManyRanks> {
    let (batch, micro_batch) = (training.batch, training.micro_batch());
    let parts = batch.div_ceil(micro_batch);
    if ranks.size() <= parts {
        return Ok(());
    }
    Err(TooManyRanks {
        ranks: ranks.size(),
        parts,
        batch,
        micro_batch,
    })
}

/// Where a run starts, as the first rank tells it to the others.
#[derive(Serialize, Deserialize)]
struct StartMessage {
    /// The checkpoint of this run that it continues from.
    resumed: Option<PathBuf>,
    /// The checkpoint of another run whose weights it starts from now.
    begins: bool,
    /// The checkpoint of another run that it began with.
    init: Option<PathBuf>,
}

/// Returns where the first rank starts, on all ranks.
///
/// - `own`: what the first rank has found in the folder of the run
///
/// # Errors
/// Returns an error if a rank cannot read the checkpoint, or another rank has failed.
pub(super) fn start_of_first(
    ranks: &Ranks,
    own: (Option<Init>, Start),
    methods: &Methods,
) -> anyhow::Result<(Option<Init>, Start)> {
    if ranks.is_single() {
        return Ok(own);
    }
    let absolute = |path: &std::path::Path| std::path::absolute(path).ok();
    let message = || {
        let (init, start) = &own;
        let resumed = match start {
            Start::Resumed(checkpoint) => absolute(checkpoint.path()),
            Start::Fresh | Start::Init(_) => None,
        };
        let message = StartMessage {
            resumed,
            begins: matches!(start, Start::Init(_)),
            init: init.as_ref().map(|init| init.path.clone()),
        };
        serde_json::to_vec(&message).unwrap_or_default()
    };
    let told = ranks.of_first("where the run starts", message)?;
    if ranks.is_first() {
        return Ok(own);
    }
    let StartMessage {
        resumed,
        begins,
        init,
    } = serde_json::from_slice(&told)?;
    let init = init.as_deref().map(Init::of_file);
    let start = match (resumed, &init) {
        (Some(path), _) => Start::Resumed(Box::new(Checkpoint::open(&path, methods)?)),
        (None, Some(init)) if begins => {
            Start::Init(Box::new(Checkpoint::open(&init.path, methods)?))
        }
        _ => Start::Fresh,
    };
    Ok((init, start))
}

/// Checks that all ranks have the same program, experiment, data, weights and starting point.
///
/// # Errors
/// Returns [`RanksDiffer`] for the first rank that differs, or an error if another rank has failed.
pub(super) fn check_same(
    ranks: &Ranks,
    settings: &TrainSettings,
    experiment: &Experiment,
    start: &Start,
    facts: &Fingerprint,
) -> anyhow::Result<()> {
    if ranks.is_single() {
        return Ok(());
    }
    let mut own = facts
        .clone()
        .with("program", env!("CARGO_PKG_VERSION"))
        .with("device", kind_of(&settings.compute.device.to_string()))
        .with("experiment", experiment.to_json()?);
    if let Start::Resumed(checkpoint) | Start::Init(checkpoint) = start {
        let digest = file_sha256(checkpoint.path())?;
        own = own.with("checkpoint: SHA-256", digest);
    }
    same_fingerprints(ranks, &own)
}

/// Returns the kind of a device, without its number.
fn kind_of(device: &str) -> &str {
    device.split(':').next().unwrap_or(device)
}

/// Checks that all ranks have the same fingerprint.
///
/// # Errors
/// Returns [`RanksDiffer`] for the first rank that differs, or an error if another rank has failed.
pub(crate) fn same_fingerprints(ranks: &Ranks, own: &Fingerprint) -> anyhow::Result<()> {
    let message = serde_json::to_vec(own)?;
    let different = ranks.first_different("the comparison of all ranks", &message)?;
    let Some(different) = different else {
        return Ok(());
    };
    let first: Fingerprint = serde_json::from_slice(&different.of_first)?;
    let other: Fingerprint = serde_json::from_slice(&different.own)?;
    match first.check_all(&other) {
        Ok(()) => Ok(()),
        Err(mismatch) => Err(RanksDiffer {
            name: ranks.name(different.rank),
            mismatch,
        }
        .into()),
    }
}

/// Checks that the trained parameters of all ranks are the same to the bit.
///
/// All ranks take the same steps with the same gradients, so other parameters mean other arithmetic.
///
/// # Errors
/// Returns [`ParametersDiffer`], or an error if another rank has failed.
pub(super) fn check_parameters(ranks: &Ranks, trainer: &Trainer) -> anyhow::Result<()> {
    if ranks.is_single() {
        return Ok(());
    }
    let mut hasher = Sha256::new();
    for parameter in kept_values(trainer.model(), |_| false) {
        hasher.update(parameter.name.as_bytes());
        for value in parameter.values {
            hasher.update(value.to_bits().to_le_bytes());
        }
    }
    let digest = hex::encode(hasher.finalize());
    let different = ranks.first_different("the comparison of parameters", digest.as_bytes())?;
    match different {
        None => Ok(()),
        Some(different) => Err(ParametersDiffer {
            step: trainer.step_number(),
            name: ranks.name(different.rank),
        }
        .into()),
    }
}

/// Ends a step: returns whether the run is to stop, and the images that any rank has skipped.
///
/// # Errors
/// Returns an error if another rank has failed or does not answer.
pub(super) fn end_step(
    ranks: &Ranks,
    stop: &AtomicBool,
    skipped: Vec<(String, String)>,
) -> anyhow::Result<(bool, Vec<(String, String)>)> {
    let own = (stop.load(Ordering::SeqCst), skipped);
    if ranks.is_single() {
        return Ok(own);
    }
    let message = serde_json::to_vec(&own)?;
    let (mut stopping, mut skipped) = (false, Vec::new());
    for message in ranks.gather("the end of a step", &message)? {
        let (stop, of_rank): (bool, Vec<(String, String)>) = serde_json::from_slice(&message)
            .map_err(|error| TrainError::Backend(error.to_string()))?;
        stopping |= stop;
        skipped.extend(of_rank);
    }
    Ok((stopping, skipped))
}
