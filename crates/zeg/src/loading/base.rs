//! Finds the frozen weights of a checkpoint, and checks that they are those of its training.

use std::path::{Path, PathBuf};

use zeg_model::{
    checkpoint::Checkpoint,
    weights::{StateDict, StatedActivation, WeightFiles, text_facts},
};

use super::{LoadError, ModelOptions};
use crate::mini::{is_mini, weights_sha256};

/// The frozen weights of a checkpoint of an earlier version are in several files, of which it recorded the index alone.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{}: an earlier version of the program recorded only the SHA-256 of the index {}, so it could not be verified that \
     the files that it lists are those of the training",
    checkpoint.display(),
    index.display()
)]
pub struct UnverifiedBase {
    /// The checkpoint.
    pub checkpoint: PathBuf,
    /// The index.
    pub index: PathBuf,
}

/// The frozen weights of a checkpoint, as they were found.
pub(super) struct FoundBase {
    pub(super) path: PathBuf,
    /// SHA-256 of all files.
    pub(super) sha256: String,
    pub(super) unverified: Option<UnverifiedBase>,
}

/// Finds the frozen weights of a checkpoint: at the given path, at the path that the checkpoint names, or beside the
/// checkpoint.
///
/// # Errors
/// Returns an error if there are no such weights, or if their SHA-256 is not the one in the checkpoint.
pub(super) fn find_base(
    checkpoint: &Checkpoint,
    given: Option<&Path>,
) -> anyhow::Result<FoundBase> {
    let stored = &checkpoint.info.base;
    let folder = checkpoint.path().parent().unwrap_or(Path::new(""));
    let beside = stored.path.file_name().map(|name| folder.join(name));
    let candidates = match given {
        Some(given) => vec![given.to_owned()],
        None => [
            Some(stored.path.clone()),
            Some(folder.join(&stored.path)),
            // The weights can have the name of the checkpoint itself.
            beside.filter(|path| path != checkpoint.path()),
        ]
        .into_iter()
        .flatten()
        .collect(),
    };
    let Some(path) = candidates
        .iter()
        .find(|path| is_mini(path) || path.is_file() || holds_weights(path))
        .or(given.map(|_| &candidates[0]))
    else {
        return Err(LoadError::BaseMissing {
            checkpoint: checkpoint.path().to_owned(),
            wanted: stored.path.clone(),
        }
        .into());
    };
    let sha256 = weights_sha256(path)?;
    let unverified = check_base(checkpoint, path, &sha256)?;
    Ok(FoundBase {
        path: path.clone(),
        sha256,
        unverified,
    })
}

/// Returns whether a path is a folder with weights.
fn holds_weights(path: &Path) -> bool {
    path.is_dir() && WeightFiles::of(path).is_ok()
}

/// Checks that weights are those that a checkpoint was trained on.
///
/// - `path`: the weights: a file, an index of several files, a folder, or [`NAME`](crate::mini::NAME)
/// - `sha256`: their digest, as [`weights_sha256`] returns it
///
/// Returns what could not be verified.
///
/// # Errors
/// Returns [`LoadError::OtherBase`] if they are others, and an error if a file cannot be read.
pub fn check_base(
    checkpoint: &Checkpoint,
    path: &Path,
    sha256: &str,
) -> anyhow::Result<Option<UnverifiedBase>> {
    let expected = &checkpoint.info.base.sha256;
    if sha256 == expected {
        return Ok(None);
    }
    // Earlier versions, which wrote no fingerprint, recorded the digest of an index without the files that it lists.
    if checkpoint.info.fingerprint.is_empty() && !is_mini(path) {
        let files = WeightFiles::of(path)?;
        if files.is_sharded() && files.first_sha256()? == *expected {
            return Ok(Some(UnverifiedBase {
                checkpoint: checkpoint.path().to_owned(),
                index: path.to_owned(),
            }));
        }
    }
    Err(LoadError::OtherBase {
        file: path.to_owned(),
        checkpoint: checkpoint.path().to_owned(),
        found: sha256.to_owned(),
        expected: expected.clone(),
    }
    .into())
}

/// Checks that an activation that the user states is the one that the model was trained with.
///
/// # Errors
/// Returns [`LoadError::OtherActivation`] if it is another one.
pub(super) fn check_activation(
    checkpoint: &Checkpoint,
    options: &ModelOptions,
) -> Result<(), LoadError> {
    let trained = checkpoint.info.activation.map(StatedActivation::from);
    match (options.activation, trained) {
        (Some(stated), Some(trained)) if stated != trained => Err(LoadError::OtherActivation {
            checkpoint: checkpoint.path().to_owned(),
            trained: activation_name(trained),
            stated: activation_name(stated),
        }),
        _ => Ok(()),
    }
}

/// Returns the value of `--activation` that states an activation.
fn activation_name(activation: StatedActivation) -> &'static str {
    match activation {
        StatedActivation::QuickGelu => "quick-gelu",
        StatedActivation::Gelu => "gelu",
    }
}

/// Checks that the files beside the frozen weights state what they stated in the training.
///
/// An activation that the user states, for a checkpoint that records none, need not be that of the training.
pub(super) fn check_side_files(
    checkpoint: &Checkpoint,
    path: &Path,
    weights: &StateDict,
    options: &ModelOptions,
) -> Result<(), LoadError> {
    let mut now = text_facts(weights);
    if options.activation.is_some() {
        now = now.only(|name| !name.ends_with("activation"));
    }
    let checked = checkpoint.info.fingerprint.check(&now);
    checked.map_err(|mismatch| LoadError::OtherSideFiles {
        file: path.to_owned(),
        checkpoint: checkpoint.path().to_owned(),
        mismatch,
    })
}
