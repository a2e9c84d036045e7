//! The checkpoints in the folder of a run, which are those files whose names a run gives to them.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use zeg::model::{ModelError, methods::Methods};
use zeg_train::{TrainError, checkpoint::Checkpoint};

/// The error for a newest checkpoint that cannot be read, beside an older one that can.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub(crate) struct DamagedCheckpoint {
    damaged: PathBuf,
    /// The newest checkpoint that can be read.
    intact: PathBuf,
    source: ModelError,
}

impl DamagedCheckpoint {
    pub(crate) fn hint(&self) -> String {
        format!(
            "{} is intact; remove {}, and --resume continues from there",
            self.intact.display(),
            self.damaged.display()
        )
    }
}

/// The error for a file of a run that cannot be written.
#[derive(Debug, thiserror::Error)]
#[error("{source}")]
pub(crate) struct NotWritten {
    /// The newest checkpoint of the run.
    checkpoint: Option<PathBuf>,
    source: TrainError,
}

impl NotWritten {
    /// Adds what is left of the run in a folder to an error, if a file could not be written.
    pub(super) fn explain(error: anyhow::Error, folder: &Path) -> anyhow::Error {
        match error.downcast::<TrainError>() {
            Ok(source @ TrainError::Write { .. }) => Self {
                checkpoint: checkpoints(folder).ok().and_then(|mut found| found.pop()),
                source,
            }
            .into(),
            Ok(other) => other.into(),
            Err(error) => error,
        }
    }

    pub(crate) fn hint(&self) -> String {
        let space = "free some disk space, or choose another folder";
        match &self.checkpoint {
            Some(checkpoint) => format!(
                "{space}; {} is intact, and --resume continues from it",
                checkpoint.display()
            ),
            None => {
                format!("{space}; there is no checkpoint yet, so the run starts again at step 0")
            }
        }
    }
}

/// Returns the name of the checkpoint after a step.
pub(super) fn name_of(step: u64) -> String {
    format!("checkpoint-{step:08}.safetensors")
}

/// Returns the step in the name of a checkpoint; `None` for all other files, which belong to the user.
fn step_of(path: &Path) -> Option<u64> {
    let name = path.file_name()?.to_str()?;
    let digits = name.strip_prefix("checkpoint-")?;
    let digits = digits.strip_suffix(".safetensors")?;
    let is_number = digits.bytes().all(|byte| byte.is_ascii_digit());
    digits.parse().ok().filter(|_| is_number)
}

/// Returns the checkpoints in a folder, the oldest first.
pub(super) fn checkpoints(folder: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(folder).with_context(|| folder.display().to_string())?;
    let paths = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let mut found: Vec<(u64, PathBuf)> = paths
        .filter_map(|path| Some((step_of(&path)?, path)))
        .collect();
    found.sort();
    Ok(found.into_iter().map(|(_, path)| path).collect())
}

/// Opens the newest checkpoint; returns `None` if there is none.
///
/// - `checkpoints`: the checkpoints, the oldest first
///
/// # Errors
/// Returns an error if it cannot be read; it names the newest checkpoint that can, if there is one.
pub(super) fn open_newest(
    checkpoints: &[PathBuf],
    methods: &Methods,
) -> anyhow::Result<Option<Checkpoint>> {
    let Some((newest, older)) = checkpoints.split_last() else {
        return Ok(None);
    };
    let source = match Checkpoint::open(newest, methods) {
        Ok(checkpoint) => return Ok(Some(checkpoint)),
        Err(error) => error,
    };
    let mut older = older.iter().rev();
    match older.find(|path| Checkpoint::open(path, methods).is_ok()) {
        Some(intact) => Err(DamagedCheckpoint {
            damaged: newest.clone(),
            intact: intact.clone(),
            source,
        }
        .into()),
        None => Err(source.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A copy that the user made is neither resumed from nor removed.
    #[test]
    fn only_names_with_a_number_are_checkpoints_and_they_are_ordered_by_it() {
        let folder = tempfile::tempdir().unwrap();
        let large = name_of(123_456_789);
        let own = [
            "checkpoint-00000010.safetensors",
            "checkpoint-00000002.safetensors",
            large.as_str(),
        ];
        let others = [
            "checkpoint-backup.safetensors",
            "checkpoint-00000002-before-change.safetensors",
            "checkpoint-.safetensors",
            "checkpoint-+5.safetensors",
            "checkpoint-00000004.safetensors.bak",
            "checkpoint-99999999999999999999999.safetensors",
            "my-checkpoint-00000004.safetensors",
        ];
        for name in own.iter().chain(&others) {
            std::fs::write(folder.path().join(name), "").unwrap();
        }
        let found = checkpoints(folder.path()).unwrap();
        let names: Vec<&str> = found
            .iter()
            .filter_map(|path| path.file_name()?.to_str())
            .collect();
        let expected = [
            "checkpoint-00000002.safetensors",
            "checkpoint-00000010.safetensors",
            "checkpoint-123456789.safetensors",
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn a_full_disk_is_explained_by_the_checkpoints_that_are_there() {
        let folder = tempfile::tempdir().unwrap();
        let hint = || {
            let error = TrainError::Write {
                path: folder.path().join("log.jsonl"),
                source: std::io::ErrorKind::StorageFull.into(),
            };
            let error = NotWritten::explain(error.into(), folder.path());
            error.downcast::<NotWritten>().unwrap().hint()
        };
        assert!(hint().contains("there is no checkpoint yet"));
        std::fs::write(folder.path().join(name_of(4)), "").unwrap();
        assert!(hint().contains("checkpoint-00000004.safetensors is intact, and --resume"));
        let other = NotWritten::explain(TrainError::Interrupted.into(), folder.path());
        assert!(other.is::<TrainError>());
    }
}
