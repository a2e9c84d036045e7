//! Finds the parts of a download, however deep its archives were unpacked.
//!
//! Archives contain folders of their own (`benchmark_RELEASE/dataset/cls`, `VOCdevkit/VOC2012`), and unpacking into a
//! folder with the archive's name adds another. So the folders below the given one are listed once, and each part is
//! recognised by its name and content. Shallower folders come first, and folders of one depth are in alphabetical
//! order, so that the result does not depend on the file system.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::PrepareError;

/// Largest depth of a part below the given folder.
const DEPTH: usize = 5;
/// Largest number of folders that are listed; a data set has some hundreds.
const MAX_FOLDERS: usize = 20_000;

/// The folders of a download, shallowest first.
pub(crate) struct Tree {
    folders: Vec<PathBuf>,
}

impl Tree {
    /// Lists `from` and the folders below it.
    pub(crate) fn scan(from: &Path) -> Result<Self, PrepareError> {
        let mut folders = vec![from.to_owned()];
        let mut level =
            subfolders(from).map_err(|source| PrepareError::unreadable(from, source))?;
        for _ in 0..DEPTH {
            // A subfolder that cannot be listed is treated as empty; reading its files would fail with its own error.
            let next = level
                .iter()
                .take(MAX_FOLDERS.saturating_sub(folders.len()))
                .flat_map(|folder| subfolders(folder).unwrap_or_default())
                .collect();
            folders.append(&mut level);
            folders.truncate(MAX_FOLDERS);
            level = next;
        }
        Ok(Self { folders })
    }

    /// Returns the folders that `accept` accepts, shallowest first.
    pub(crate) fn all(&self, accept: impl Fn(&Path) -> bool) -> impl Iterator<Item = &Path> {
        self.folders
            .iter()
            .map(PathBuf::as_path)
            .filter(move |folder| accept(folder))
    }

    /// Returns the folders of this name, shallowest first.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &Path> {
        self.all(move |folder| folder.file_name().is_some_and(|found| found == name))
    }

    /// Returns the first file of this name in any of the folders.
    pub(crate) fn file(&self, name: &str) -> Option<PathBuf> {
        self.folders
            .iter()
            .map(|folder| folder.join(name))
            .find(|file| file.is_file())
    }
}

fn subfolders(folder: &Path) -> std::io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let Ok(entry) = entry else { continue };
        let kind = entry.file_type();
        let may_be_folder = kind.is_ok_and(|kind| kind.is_dir() || kind.is_symlink());
        let hidden = entry.file_name().to_string_lossy().starts_with('.');
        if may_be_folder && !hidden && entry.path().is_dir() {
            found.push(entry.path());
        }
    }
    found.sort();
    Ok(found)
}

/// Returns the files of a folder whose names end in `ending`, by their names without it.
///
/// Hidden files are left out, because macOS archives hold a `._a.png` beside each `a.png`.
pub(crate) fn files(
    folder: &Path,
    ending: &str,
) -> Result<BTreeMap<String, PathBuf>, PrepareError> {
    let unreadable = |source| PrepareError::unreadable(folder, source);
    let mut files = BTreeMap::new();
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let stem = name.to_str().and_then(|name| name.strip_suffix(ending));
        if let Some(stem) = stem.filter(|stem| !stem.is_empty() && !stem.starts_with('.')) {
            files.insert(stem.to_owned(), entry.path());
        }
    }
    Ok(files)
}

/// Returns the same as [`files`], or no files if the folder does not exist.
pub(crate) fn files_if_any(
    folder: &Path,
    ending: &str,
) -> Result<BTreeMap<String, PathBuf>, PrepareError> {
    if folder.is_dir() {
        files(folder, ending)
    } else {
        Ok(BTreeMap::new())
    }
}

/// Returns whether a folder holds a file whose name ends in one of `endings` but not in `but` (empty: no exception).
pub(crate) fn holds(folder: &Path, endings: &[&str], but: &str) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            !name.starts_with('.')
                && endings.iter().any(|ending| name.ends_with(ending))
                && (but.is_empty() || !name.ends_with(but))
        })
    })
}

/// Reads the ids of a list, one per line; only the first word of a line is read, as in VOC's lists of single classes.
pub(crate) fn read_ids(list: &Path) -> Result<Vec<String>, PrepareError> {
    let text = fs::read_to_string(list).map_err(|source| PrepareError::unreadable(list, source))?;
    let mut ids = Vec::new();
    for (line, text) in (1..).zip(text.trim_start_matches('\u{feff}').lines()) {
        let Some(id) = text.split_whitespace().next() else {
            continue;
        };
        if id.contains(['/', '\\']) || id.starts_with('.') || id.contains(char::is_control) {
            return Err(PrepareError::IllegalId {
                list: list.into(),
                line,
                text: text.to_owned(),
            });
        }
        ids.push(id.to_owned());
    }
    Ok(ids)
}
