//! Finding the parts of a download, however deep its archives were unpacked.
//!
//! Archives bring folders of their own (`benchmark_RELEASE/dataset/cls`, `VOCdevkit/VOC2012`), unpacking into a
//! folder of the archive's name adds another. So the folders below the given one are listed once, and each part is
//! recognised by its name and content. The shallowest comes first, then the alphabet decides, so that the answer
//! does not depend on the file system.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use super::PrepareError;

/// How deep below the given folder a part may lie.
const DEPTH: usize = 5;
/// Most folders that are looked at; a data set has some hundreds.
const MAX_FOLDERS: usize = 20_000;

/// The folders of a download, the shallowest first.
pub(crate) struct Tree {
    folders: Vec<PathBuf>,
}

impl Tree {
    /// Lists the folders below `from`, and `from` itself.
    pub(crate) fn scan(from: &Path) -> Result<Self, PrepareError> {
        let mut folders = vec![from.to_owned()];
        let mut level =
            subfolders(from).map_err(|source| PrepareError::unreadable(from, source))?;
        for _ in 0..DEPTH {
            // What cannot be listed further down cannot hold a part; reading a part says so later.
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

    /// The folders that `accept` takes, the shallowest first.
    pub(crate) fn all(&self, accept: impl Fn(&Path) -> bool) -> impl Iterator<Item = &Path> {
        self.folders
            .iter()
            .map(PathBuf::as_path)
            .filter(move |folder| accept(folder))
    }

    /// The folders of this name.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &Path> {
        self.all(move |folder| folder.file_name().is_some_and(|found| found == name))
    }

    /// The first file of this name in any of the folders.
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

/// The files of a folder whose names end in `ending`, by their names without it.
///
/// Hidden files are left out: `._a.png` is what one system leaves beside `a.png` in archives.
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

/// The same, and nothing where there is no such folder.
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

/// Whether a folder holds a file with one of the endings, none of which is `but`.
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

/// The ids of a list, one a line; only the first word of a line counts, as in VOC's lists of one class.
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
