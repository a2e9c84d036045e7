//! Where the files of a data set lie: a path with a place for the id.
//!
//! `leftImg8bit/train/**/{id}_leftImg8bit.png` stands for all images of a split of Cityscapes. Read one way it lists
//! the ids of a folder, read the other it gives the file of an id; images and label files of a data set are two
//! patterns with the same ids.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use crate::DataError;

/// Endings of images, tried in this order where a pattern names a folder alone.
const IMAGE_ENDINGS: [&str; 11] = [
    ".jpg", ".png", ".jpeg", ".tif", ".tiff", ".bmp", ".webp", ".gif", ".ppm", ".pgm", ".qoi",
];
/// Folders in folders that are looked through; a link may lead in circles.
const MAX_DEPTH: usize = 8;
/// The place of the id.
const ID: &str = "{id}";
/// Marks a pattern whose ids may name folders.
const NESTED: &str = "**";

/// A path with a place for the id.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Pattern {
    /// The folder below which all files lie, relative to the data set's root or absolute.
    folder: PathBuf,
    /// What stands before the id in a file's name.
    before: String,
    /// What may stand after it, in the order of preference; at least one.
    after: Vec<String>,
    /// Whether ids may name folders: `aachen/aachen_000000_000019`.
    nested: bool,
}

/// Why a text is no pattern, in words.
pub(crate) type Refusal = &'static str;

impl Pattern {
    /// Reads `folder`, `folder/before{id}after` or `folder/**/before{id}after`; `after` may offer a choice, as in
    /// `{id}.{png,tif}`.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        let path = Path::new(text);
        if text.trim().is_empty() {
            return Err("it is empty");
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err("`..` leads out of the data set's folder; set `root`");
        }
        let Some((head, after)) = text.split_once(ID) else {
            if text.contains(['{', '}', '*']) {
                return Err("the place of the id is written `{id}`");
            }
            return Ok(Self {
                folder: path.to_owned(),
                before: String::new(),
                after: IMAGE_ENDINGS.map(str::to_owned).to_vec(),
                nested: false,
            });
        };
        if after.contains('/') {
            return Err("`{id}` must stand in the last part of the path");
        }
        let (folder, before) = head.rsplit_once('/').unwrap_or(("", head));
        let (folder, nested) = match folder.strip_suffix(NESTED) {
            Some(folder) => (folder.trim_end_matches('/'), true),
            None => (folder, false),
        };
        if after.contains(ID) {
            return Err("`{id}` must stand once");
        }
        let after = alternatives(after)?;
        let wild = |text: &str| text.contains(['{', '}', '*']);
        if wild(folder) || wild(before) || after.iter().any(|after| wild(after)) {
            return Err("only one `{id}`, and `**/` before the name, stand for something else");
        }
        let absolute = head.starts_with('/') && folder.is_empty();
        Ok(Self {
            folder: PathBuf::from(if absolute { "/" } else { folder }),
            before: before.to_owned(),
            after,
            nested,
        })
    }

    /// The folder below which all files lie.
    pub(crate) fn folder(&self, root: &Path) -> PathBuf {
        root.join(&self.folder)
    }

    /// Whether ids may name folders.
    pub(crate) fn is_nested(&self) -> bool {
        self.nested
    }

    /// The file of an id: the first that exists, or the preferred one where none does.
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

    /// The id of a file name (for nested patterns, without the folders), if the name fits.
    pub(crate) fn id_of<'a>(&self, name: &'a str) -> Option<&'a str> {
        let rest = name.strip_prefix(self.before.as_str())?;
        let fits = |after: &String| rest.strip_suffix(after.as_str());
        self.after.iter().find_map(fits).filter(|id| !id.is_empty())
    }

    /// The ids of all files that fit, sorted: the order must not depend on the file system.
    pub(crate) fn scan(&self, root: &Path) -> Result<Vec<String>, DataError> {
        let mut ids = Vec::new();
        self.scan_folder(&self.folder(root), "", 0, &mut ids)?;
        ids.sort();
        ids.dedup(); // a.jpg beside a.png
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

/// `.{png,tif}` is `.png` or `.tif`.
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

/// What lies in a folder, in the order of the file system.
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
    fn files_and_ids_lead_to_each_other() {
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
    fn what_cannot_be_followed_is_refused() {
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
    fn folders_are_listed_in_order_and_only_what_fits() {
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
    fn a_link_in_a_circle_ends() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.png"), "").unwrap();
        std::os::unix::fs::symlink(folder.path(), folder.path().join("again")).unwrap();
        let ids = Pattern::parse("**/{id}.png").unwrap().scan(folder.path());
        assert_eq!(ids.unwrap().len(), MAX_DEPTH + 1);
    }
}
