//! The checkpoint that a run starts from (`--init`); a run that continues keeps that of its beginning.

use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::Value;
use zeg::model::weights::file_sha256;

/// The checkpoint of another run whose weights a run starts from.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(super) struct Init {
    /// Absolute path of the file.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    pub(super) path: PathBuf,
    /// SHA-256 of the file; `None` in manifests of earlier versions, and if the file cannot be read.
    sha256: Option<String>,
}

/// The error for a run that would continue with another checkpoint to start from than it began with.
#[derive(Debug, thiserror::Error)]
#[error("--init {}: the run in {} began {}", asked.display(), folder.display(), of(before.as_deref()))]
pub(crate) struct OtherInit {
    /// The file that is named now.
    asked: PathBuf,
    /// Folder of the run.
    folder: PathBuf,
    /// The file that the run began with.
    before: Option<PathBuf>,
}

fn of(before: Option<&Path>) -> String {
    match before {
        Some(before) => format!("with the weights of {}", before.display()),
        None => "without --init".to_owned(),
    }
}

/// The error for a checkpoint that has changed since a run began with it.
#[derive(Debug, thiserror::Error)]
#[error("{}: has changed since the run in {} began with its weights (--init)", file.display(), folder.display())]
pub(crate) struct ChangedInit {
    file: PathBuf,
    /// Folder of the run.
    folder: PathBuf,
}

/// The error for a run that continues with pseudo labels of a starting checkpoint that is not known.
#[derive(Debug, thiserror::Error)]
#[error(
    "{}: the pseudo labels come from the checkpoint that the run began with (training.self-training.teacher = \"start\"), \
     and no run.json says which it was", folder.display()
)]
pub(crate) struct TeacherUnknown {
    /// Folder of the run.
    pub(super) folder: PathBuf,
}

impl Init {
    /// Returns the checkpoint in a file.
    pub(super) fn of_file(path: &Path) -> Self {
        Self {
            path: absolute(path),
            sha256: file_sha256(path).ok(),
        }
    }

    /// Returns the checkpoint that a manifest names; earlier versions wrote the path only.
    pub(super) fn of_manifest(value: &Value) -> Option<Self> {
        let path = value.as_str().or_else(|| value.get("path")?.as_str())?;
        let sha256 = value.get("sha256").and_then(Value::as_str);
        Some(Self {
            path: absolute(Path::new(path)),
            sha256: sha256.map(str::to_owned),
        })
    }

    /// Returns the checkpoint of a run that continues.
    ///
    /// - `before`: the checkpoint that the run began with
    /// - `asked`: the file that is named now
    /// - `folder`: folder of the run, for messages
    ///
    /// # Errors
    /// Returns an error if another checkpoint is named than the run began with.
    pub(super) fn of_continued(
        before: Option<&Self>,
        asked: Option<&Path>,
        folder: &Path,
    ) -> Result<Option<Self>, OtherInit> {
        let Some(asked) = asked else {
            return Ok(before.cloned());
        };
        // The file may have moved since, so it is read where it is now.
        let now = Self::of_file(asked);
        if before.is_some_and(|before| before.is_same(&now)) {
            return Ok(Some(now));
        }
        Err(OtherInit {
            asked: asked.to_owned(),
            folder: folder.to_owned(),
            before: before.map(|before| before.path.clone()),
        })
    }

    /// Whether two checkpoints have the same content, or the same path if the content of one is not known.
    fn is_same(&self, other: &Self) -> bool {
        match (&self.sha256, &other.sha256) {
            (Some(one), Some(other)) => one == other,
            _ => self.path == other.path,
        }
    }

    /// Checks that the file still has the content that the run began with.
    ///
    /// # Errors
    /// Returns an error if it has another one. A file that cannot be read is left to its reader.
    pub(super) fn check(&self, folder: &Path) -> Result<(), ChangedInit> {
        if self.is_same(&Self::of_file(&self.path)) {
            return Ok(());
        }
        Err(ChangedInit {
            file: self.path.clone(),
            folder: folder.to_owned(),
        })
    }
}

/// Returns a path that does not depend on the folder that the program runs in.
fn absolute(path: &Path) -> PathBuf {
    std::path::absolute(path).unwrap_or_else(|_| path.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_that_continues_keeps_the_checkpoint_that_it_began_with() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, content).unwrap();
            path
        };
        let (first, copy) = (file("first", "one"), file("copy", "one"));
        let other = file("other", "two");
        let before = Init::of_file(&first);
        let stored = serde_json::to_value(&before).unwrap();
        assert_eq!(Init::of_manifest(&stored), Some(before.clone()));
        assert_eq!(Init::of_manifest(&Value::Null), None);
        let continued = |before: Option<&Init>, asked: Option<&PathBuf>| {
            let asked = asked.map(PathBuf::as_path);
            Init::of_continued(before, asked, Path::new("run")).map_err(|error| error.to_string())
        };
        assert_eq!(continued(Some(&before), None), Ok(Some(before.clone())));
        assert_eq!(
            continued(Some(&before), Some(&copy)),
            Ok(Some(Init::of_file(&copy)))
        );
        let text = continued(Some(&before), Some(&other)).unwrap_err();
        assert!(
            text.contains("the run in run began with the weights of "),
            "{text}"
        );
        let text = continued(None, Some(&first)).unwrap_err();
        assert!(
            text.ends_with("the run in run began without --init"),
            "{text}"
        );
        // Earlier versions wrote the path only.
        let path = first.to_str().unwrap();
        let old = Init::of_manifest(&Value::from(path));
        assert!(continued(old.as_ref(), Some(&first)).is_ok());
        assert!(continued(old.as_ref(), Some(&copy)).is_err());
        assert!(before.check(Path::new("run")).is_ok());
        file("first", "two");
        assert!(before.check(Path::new("run")).is_err());
    }
}
