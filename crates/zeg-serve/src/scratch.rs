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

/// Removes the folders of servers that were killed.
pub(crate) fn remove_left_behind() {
    for entry in fs::read_dir(env::temp_dir())
        .into_iter()
        .flatten()
        .flatten()
    {
        let name = entry.file_name();
        let process = name.to_str().and_then(|name| name.strip_prefix(PREFIX));
        if process.and_then(number).is_some_and(has_ended) {
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
        // Linux gives out no number this large.
        let left = env::temp_dir().join(format!("{PREFIX}4194999-test"));
        fs::create_dir_all(&left).unwrap();
        let scratch = Scratch::new().unwrap();
        remove_left_behind();
        assert!(scratch.path().exists());
        if Path::new("/proc/self").exists() {
            assert!(!left.exists());
        }
    }
}
