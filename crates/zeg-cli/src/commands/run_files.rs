//! What the files of a run have in common, in the commands that train: their owner, their log and their settings.

use std::{
    collections::BTreeSet,
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use anyhow::Context as _;
use zeg_base::{file, lock::Lock};
use zeg_train::{TrainError, checkpoint::write_atomically};

/// Makes a folder the only one of this process; without it, the folder is created.
///
/// Temporary files that a killed process left in it are removed.
///
/// # Errors
/// Returns an error if another process uses the folder, or if it cannot be written.
pub(super) fn claim_folder(folder: &Path) -> anyhow::Result<Lock> {
    let lock = noted(folder, Lock::of_folder(folder)?);
    file::remove_leftovers(folder);
    Ok(lock)
}

/// Makes folders the only ones of this process; a folder may be named more than once.
pub(super) fn claim_folders(folders: &[PathBuf]) -> anyhow::Result<Vec<Lock>> {
    let different: BTreeSet<&PathBuf> = folders.iter().collect();
    let locks = different.into_iter().map(|folder| claim_folder(folder));
    locks.collect()
}

/// Makes a file and those beside it the only ones of this process; see [`claim_folder`].
pub(super) fn claim_file(file: &Path) -> anyhow::Result<Lock> {
    Ok(noted(file, Lock::of_file(file)?))
}

/// Says whose lock was taken over.
fn noted(place: &Path, lock: Lock) -> Lock {
    if let Some(owner) = lock.left_by() {
        print_notice!(
            "warning: {}: {owner} ended without a word, so its lock is taken over",
            place.display()
        );
    }
    lock
}

/// The error for a place that holds a run already.
#[derive(Debug, thiserror::Error)]
#[error("{} holds a run already ({found})", place.display())]
pub(crate) struct RunExists {
    /// Folder or file.
    pub(super) place: PathBuf,
    /// The files that were found, such as `2 checkpoints`.
    pub(super) found: String,
    /// Whether `--resume` would continue it.
    pub(super) can_continue: bool,
}

impl RunExists {
    pub(crate) fn hint(&self) -> String {
        let others = "replace it with --overwrite, or choose another place with -o";
        if self.can_continue {
            format!("continue the run with --resume, {others}")
        } else {
            others.to_owned()
        }
    }
}

/// The error for `--resume` where nothing is to be resumed.
#[derive(Debug, thiserror::Error)]
#[error("{}: no checkpoint to continue from{}", place.display(), of_finished(finished.as_deref()))]
pub(crate) struct NoCheckpoint {
    /// Folder or file.
    pub(super) place: PathBuf,
    /// The model, if the run has finished.
    pub(super) finished: Option<PathBuf>,
}

fn of_finished(model: Option<&Path>) -> String {
    model.map_or_else(String::new, |model| {
        format!("; the run has finished with {}", model.display())
    })
}

impl NoCheckpoint {
    pub(crate) fn hint(&self) -> &'static str {
        if self.finished.is_some() {
            "use its model, or start another run in another place with -o"
        } else {
            "check the name after -o, or leave --resume out to start a new run"
        }
    }
}

/// A JSON Lines file that is appended to.
pub(super) struct Log {
    file: File,
    path: PathBuf,
}

impl Log {
    /// Opens a log for appending and returns the lines that it keeps.
    ///
    /// For a run that continues, the lines of steps that will be repeated are removed, and so is a line that a crash
    /// cut off.
    ///
    /// - `keep`: whether a line belongs to a step that is not repeated
    pub(super) fn open(
        path: PathBuf,
        keep: impl Fn(&serde_json::Value) -> bool,
    ) -> anyhow::Result<(Self, Vec<serde_json::Value>)> {
        let kept = keep_lines(&path, keep)?;
        let file = OpenOptions::new().create(true).append(true).open(&path);
        match file {
            Ok(file) => Ok((Self { file, path }, kept)),
            Err(source) => Err(TrainError::Write { path, source }.into()),
        }
    }

    pub(super) fn write(&mut self, line: &impl serde::Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        let written = self.file.write_all(text.as_bytes());
        written.map_err(|source| {
            let path = self.path.clone();
            TrainError::Write { path, source }.into()
        })
    }
}

/// Removes all lines of a JSON Lines file that `keep` rejects, and returns the others.
fn keep_lines(
    path: &Path,
    keep: impl Fn(&serde_json::Value) -> bool,
) -> anyhow::Result<Vec<serde_json::Value>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let old = std::fs::read(path).with_context(|| path.display().to_string())?;
    let old = String::from_utf8_lossy(&old);
    let (mut lines, mut kept) = (Vec::new(), String::new());
    for line in old.lines() {
        if let Ok(value) = serde_json::from_str(line)
            && keep(&value)
        {
            kept.push_str(line);
            kept.push('\n');
            lines.push(value);
        }
    }
    if kept != old {
        write_atomically(path, kept.as_bytes())?;
    }
    Ok(lines)
}

/// Describes the first setting in which two experiments, or parts of them, differ.
///
/// - `path`: key of the part
pub(super) fn differing<T: serde::Serialize>(path: &str, old: &T, new: &T) -> String {
    fn walk(path: &str, old: &serde_json::Value, new: &serde_json::Value) -> Option<String> {
        let (Some(a), Some(b)) = (old.as_object(), new.as_object()) else {
            return (old != new).then(|| format!("{path} was {old}, now {new}"));
        };
        let absent = serde_json::Value::Null;
        a.keys().chain(b.keys()).find_map(|key| {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            walk(
                &path,
                a.get(key).unwrap_or(&absent),
                b.get(key).unwrap_or(&absent),
            )
        })
    }
    let value = |part: &T| serde_json::to_value(part).unwrap_or_default();
    walk(path, &value(old), &value(new)).unwrap_or_else(|| "no setting differs".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_keeps_the_steps_before_a_checkpoint_and_no_cut_line() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        std::fs::write(&path, "{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n{\"st").unwrap();
        let is_before = |line: &serde_json::Value| line["step"].as_u64() < Some(2);
        let (mut log, kept) = Log::open(path.clone(), is_before).unwrap();
        assert_eq!(kept.len(), 2);
        log.write(&serde_json::json!({ "step": 2 })).unwrap();
        assert_eq!(
            std::fs::read_to_string(&path).unwrap(),
            "{\"step\":0}\n{\"step\":1}\n{\"step\":2}\n"
        );
    }

    #[test]
    fn the_first_setting_that_differs_is_named() {
        let value = |steps: u64| serde_json::json!({ "training": { "steps": steps } });
        assert_eq!(
            differing("", &value(3), &value(4)),
            "training.steps was 3, now 4"
        );
    }
}
