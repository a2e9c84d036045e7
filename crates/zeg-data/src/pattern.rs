//! Path patterns with a placeholder for the id, which describe where the files of a data set are.
//!
//! `leftImg8bit/train/**/{id}_leftImg8bit.png` stands for all images of a split of Cityscapes. A pattern lists the ids
//! of a folder, and it gives the file of an id; the images and label files of a data set are two patterns with the
//! same ids.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::DataError;

/// File name endings of images, tried in this order if a pattern is only the name of a folder.
const IMAGE_ENDINGS: [&str; 11] = [
    ".jpg", ".png", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".qoi",
];
/// Largest depth of nested folders that are searched; it ends the search where links form a cycle.
const MAX_DEPTH: usize = 8;
/// The placeholder of the id.
const ID: &str = "{id}";
/// The mark of a pattern whose ids may contain folder names.
const NESTED: &str = "**";

/// A path with a placeholder for the id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// The folder below which all files are, relative to the data set's root or absolute.
    folder: PathBuf,
    /// The text before the id in a file name.
    before: String,
    /// The alternatives for the text after the id, in order of preference; at least one.
    after: Vec<String>,
    /// Whether ids may contain folder names: `aachen/aachen_000000_000019`.
    nested: bool,
}

/// The reason why a text is not a valid pattern.
pub(crate) type Refusal = &'static str;

impl Pattern {
    /// Parses `folder`, `folder/before{id}after` or `folder/**/before{id}after`; `after` may have alternatives, as in
    /// `{id}.{png,tif}`.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let path = Path::new(text);
        if text.trim().is_empty() {
            return Err("the path is empty");
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err("`..` leads out of the data set's folder; set `root` instead");
        }
        let Some((head, after)) = text.split_once(ID) else {
            if text.contains(['{', '}', '*']) {
                return Err(
                    "the path has `{`, `}` or `*` but no `{id}`; write `{id}` for the id of an image",
                );
            }
            return Ok(Self {
                folder: path.to_owned(),
                before: String::new(),
                after: IMAGE_ENDINGS.map(str::to_owned).to_vec(),
                nested: false,
            });
        };
        if after.contains('/') {
            return Err("`{id}` must be in the last part of the path");
        }
        let (folder, before) = head.rsplit_once('/').unwrap_or(("", head));
        let (folder, nested) = match folder.strip_suffix(NESTED) {
            Some(folder) => (folder.trim_end_matches('/'), true),
            None => (folder, false),
        };
        if after.contains(ID) {
            return Err("`{id}` must occur only once");
        }
        let after = alternatives(after)?;
        let wild = |text: &str| text.contains(['{', '}', '*']);
        if wild(folder) || wild(before) || after.iter().any(|after| wild(after)) {
            return Err(
                "only `{id}`, `**/` before the file name and `{…,…}` after `{id}` may use `{`, `}` and `*`",
            );
        }
        let absolute = head.starts_with('/') && folder.is_empty();
        Ok(Self {
            folder: PathBuf::from(if absolute { "/" } else { folder }),
            before: before.to_owned(),
            after,
            nested,
        })
    }

    /// Returns the folder below which all files are.
    pub(crate) fn folder(&self, root: &Path) -> PathBuf {
        root.join(&self.folder)
    }

    /// Returns whether ids may contain folder names.
    pub(crate) fn is_nested(&self) -> bool {
        self.nested
    }

    /// Returns the file of an id: the first that exists, or the preferred one if none exists.
    pub(crate) fn file(&self, root: &Path, id: &str) -> PathBuf {
        let folder = self.folder(root);
        let (inner, name) = id.rsplit_once('/').unwrap_or(("", id));
        let folder = if inner.is_empty() {
            folder
        } else {
            folder.join(inner)
        };
        let files = || {
            let names = self.after.iter();
            names.map(|after| folder.join(format!("{}{name}{after}", self.before)))
        };
        let preferred = || files().next().unwrap_or_else(|| folder.join(name));
        if self.after.len() == 1 {
            return preferred();
        }
        files()
            .find(|path| path.is_file())
            .unwrap_or_else(preferred)
    }

    /// Returns the id of a file name (for nested patterns, without the folders), or `None` if the name does not match.
    pub(crate) fn id_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let rest = name.strip_prefix(self.before.as_str())?;
        let fits = |after: &String| rest.strip_suffix(after.as_str());
        self.after.iter().find_map(fits).filter(|id| !id.is_empty())
    }

    /// Returns the ids of all matching files, sorted so that the order does not depend on the file system.
    pub(crate) fn scan(&self, root: &Path) -> Result<Vec<String>, DataError> {
        let mut ids = Vec::new();
        self.scan_folder(&self.folder(root), "", 0, &mut ids)?;
        ids.sort();
        ids.dedup(); // a.jpg and a.png have one id
        Ok(ids)
    }

    fn scan_folder(
        &self,
        folder: &Path,
        inner: &str,
        depth: usize,
        ids: &mut Vec<String>,
    ) -> Result<(), DataError> {
        for path in entries(folder)? {
            let Some(name) = path.file_name().and_then(OsStr::to_str) else {
                continue;
            };
            if self.nested && depth < MAX_DEPTH && path.is_dir() {
                self.scan_folder(&path, &format!("{inner}{name}/"), depth + 1, ids)?;
            } else if let Some(id) = self.id_of(name) {
                ids.push(format!("{inner}{id}"));
            }
        }
        Ok(())
    }
}

/// Returns the alternatives of a text: `.{png,tif}` is `.png` or `.tif`.
fn alternatives(after: &str) -> Result<Vec<String>, Refusal> {
    let Some((before, rest)) = after.split_once('{') else {
        return Ok(vec![after.to_owned()]);
    };
    let Some((choice, after)) = rest.split_once('}') else {
        return Err("a `{` is not closed");
    };
    let choices = choice.split(',').map(str::trim);
    Ok(choices.map(|one| format!("{before}{one}{after}")).collect())
}

/// Returns the paths of all entries of a folder, in the order of the file system.
pub(crate) fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataError> {
    let unreadable = |source| DataError::Unreadable {
        path: folder.to_owned(),
        source,
    };
    fs::read_dir(folder)
        .map_err(unreadable)?
        .map(|entry| entry.map(|entry| entry.path()).map_err(unreadable))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_converts_between_files_and_ids() {
        let root = Path::new("root");
        for (pattern, id, file) in [
            ("images/{id}.jpg", "a", "root/images/a.jpg"),
            ("{id}_mask.png", "benign (1)", "root/benign (1)_mask.png"),
            ("a/b/ISIC_{id}_seg.png", "7", "root/a/b/ISIC_7_seg.png"),
            ("**/{id}.png", "x/y", "root/x/y.png"),
            ("gt/**/{id}_t.png", "aachen/a_1", "root/gt/aachen/a_1_t.png"),
            ("masks", "a", "root/masks/a.jpg"),
            ("m/{id}.{tif,png}", "a", "root/m/a.tif"),
            ("/data/{id}.png", "a", "/data/a.png"),
            ("/{id}.png", "a", "/a.png"),
        ] {
            let pattern = Pattern::parse(pattern).unwrap();
            assert_eq!(pattern.file(root, id), Path::new(file), "{pattern:?}");
            let name = Path::new(file).file_name().unwrap().to_str().unwrap();
            assert_eq!(pattern.id_of(name), id.rsplit('/').next(), "{pattern:?}");
        }
    }

    #[test]
    fn invalid_patterns_are_refused() {
        for text in [
            "",
            " ",
            "../images/{id}.jpg",
            "{id}/image.jpg",
            "images/*.jpg",
            "images/{name}.jpg",
            "im*ges/{id}.jpg",
            "images/{id}{id}.jpg",
            "images/{id}.{png",
            "a/**/b/{id}.png",
        ] {
            assert!(Pattern::parse(text).is_err(), "{text}");
        }
    }

    #[test]
    fn only_matching_files_are_listed_and_in_order() {
        let folder = tempfile::tempdir().unwrap();
        for file in ["b/2_t.png", "b/1_t.png", "b/1_x.png", "a/_t.png", "0_t.png"] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, "").unwrap();
        }
        let ids = |pattern: &str| Pattern::parse(pattern).unwrap().scan(folder.path());
        assert_eq!(ids("**/{id}_t.png").unwrap(), ["0", "b/1", "b/2"]);
        assert_eq!(ids("b/{id}_t.png").unwrap(), ["1", "2"]);
        assert_eq!(ids("b").unwrap(), ["1_t", "1_x", "2_t"]);
        assert!(matches!(ids("c"), Err(DataError::Unreadable { .. })));
    }

    #[cfg(unix)]
    #[test]
    fn a_cycle_of_links_ends() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.png"), "").unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
        let ids = Pattern::parse("**/{id}.png").unwrap().scan(folder.path());
        assert_eq!(ids.unwrap().len(), MAX_DEPTH + 1);
    }
}
