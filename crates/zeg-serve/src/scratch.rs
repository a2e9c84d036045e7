//! Folders for the files of export formats, which are read back and removed.
//!
//! A server that is killed cannot remove its folders, so the next one does.

use std::{env, fs, io, path::Path, process};

use tempfile::TempDir;

/// Beginning of the names of the folders; the process's number follows.
const PREFIX: &str = "zeg-serve-";

/// A folder that is removed when it is dropped.
#[derive(Debug)]
pub(crate) struct Scratch {
    folder: TempDir,
}

impl Scratch {
    /// Creates an empty folder.
    ///
    /// # Errors
    /// Returns the system's error if no folder can be created.
    pub(crate) fn new() -> io::Result<Self> {
        let prefix = format!("{PREFIX}{}-", process::id());
        let folder = tempfile::Builder::new().prefix(&prefix).tempdir();
        let folder = folder.map_err(|error| zeg_base::file::temporary_error(&error))?;
        Ok(Self { folder })
    }

    /// Returns the path of the folder.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }
}

/// Removes the folders of servers that were killed; for the start of a server, before it has a folder of its own.
///
/// In a container, every server has the number 1: the folders of this process's number are those of the one before.
pub(crate) fn remove_left_behind() {
    remove_left_in(&env::temp_dir());
}

fn remove_left_in(folder: &Path) {
    let is_over = |number| number == process::id() || has_ended(number);
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if process.and_then(number).is_some_and(is_over) {
            let _ = fs::remove_dir_all(entry.path());
        }
    }
}

/// Returns the number of the process that a name states in front of a hyphen.
fn number(name: &str) -> Option<u32> {
    let (number, _) = name.split_once('-')?;
    number.parse().ok()
}

/// Whether a process has ended; where the system does not tell, none has.
fn has_ended(process: u32) -> bool {
    let processes = Path::new("/proc");
    processes.join("self").exists() && !processes.join(process.to_string()).exists()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn folders_of_ended_processes_are_removed_and_others_stay() {
        let folder = tempfile::tempdir().unwrap();
        let make = |name: String| {
            let path = folder.path().join(name);
            fs::create_dir_all(&path).unwrap();
            path
        };
        // Linux gives out no number this large.
        let left = make(format!("{PREFIX}4194999-test"));
        // The first process, which runs as long as the system does.
        let running = make(format!("{PREFIX}1-test"));
        let other = make("zeg-other-4194999-test".to_owned());
        remove_left_in(folder.path());
        assert!(other.exists());
        if Path::new("/proc/self").exists() {
            assert!(!left.exists());
            assert!(running.exists() || process::id() == 1);
        }
    }

    /// The server of a container that starts again has the number of the one that was killed.
    #[test]
    fn folders_of_the_own_number_are_removed_at_the_start() {
        let folder = tempfile::tempdir().unwrap();
        let left = folder.path().join(format!("{PREFIX}{}-x", process::id()));
        fs::create_dir_all(&left).unwrap();
        remove_left_in(folder.path());
        assert!(!left.exists());
    }
}
