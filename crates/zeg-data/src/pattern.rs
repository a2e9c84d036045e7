//! Path patterns with a placeholder for the id, which describe where the files of a data set are.
//!
//! `leftImg8bit/train/**/{id}_leftImg8bit.png` stands for all images of a split of Cityscapes. A pattern lists the ids
//! of a folder, and it gives the file of an id; the images and label files of a data set are two patterns with the
//! same ids.

use std::ffi::OsStr;
use std::fs;
use std::path::{Component, Path, PathBuf};

use zeg_image::IMAGE_EXTENSIONS;

use crate::DataError;

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
    /// The text after the id in a file name.
    after: After,
    /// Whether ids may contain folder names: `aachen/aachen_000000_000019`.
    nested: bool,
}

/// The text after the id in a file name.
#[derive(Debug, Clone, PartialEq, Eq)]
enum After {
    /// Alternatives, in order of preference; at least one.
    Texts(Vec<String>),
    /// An extension of an image ([`IMAGE_EXTENSIONS`]) in upper or lower case: the pattern is the name of a folder.
    AnyImage,
}

impl Default for After {
    fn default() -> Self {
        Self::Texts(Vec::new())
    }
}

impl After {
    /// Returns all texts after the id that may occur, in order of preference.
    fn texts(&self) -> Box<dyn Iterator<Item = String> + '_> {
        match self {
            Self::Texts(texts) => Box::new(texts.iter().cloned()),
            Self::AnyImage => {
                let extensions = IMAGE_EXTENSIONS.into_iter().flat_map(in_every_case);
                Box::new(extensions.map(|extension| format!(".{extension}")))
            }
        }
    }

    /// Returns the part of a file name before this text.
    ///
    /// The case of the extension never matters for [`After::AnyImage`].
    fn id_of<'a>(&self, name: &'a str, case: Case) -> Option<&'a str> {
        let strip = |text: &str| {
            let start = name.len().checked_sub(text.len())?;
            let (id, rest) = name.split_at_checked(start)?;
            let fits = match case {
                Case::Exact => rest == text,
                Case::Any => rest.eq_ignore_ascii_case(text),
            };
            fits.then_some(id)
        };
        match self {
            Self::Texts(texts) => texts.iter().find_map(|text| strip(text)),
            Self::AnyImage => {
                let (id, extension) = name.rsplit_once('.')?;
                let fits = |image: &str| extension.eq_ignore_ascii_case(image);
                IMAGE_EXTENSIONS
                    .iter()
                    .any(|image| fits(image))
                    .then_some(id)
            }
        }
    }
}

/// Whether upper and lower case are told apart.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Case {
    Exact,
    Any,
}

/// Returns a lower-case text in every mixture of cases: first in lower case, then in upper case, then in the others.
fn in_every_case(text: &str) -> impl Iterator<Item = String> {
    let all = (1_usize << text.len()) - 1;
    let mixture = move |upper: usize| -> String {
        let letters = text.chars().enumerate();
        let letter = letters.map(|(place, letter)| match upper >> place & 1 {
            0 => letter,
            _ => letter.to_ascii_uppercase(),
        });
        letter.collect()
    };
    [0, all].into_iter().chain(1..all).map(mixture)
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
                after: After::AnyImage,
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
            after: After::Texts(after),
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
            let texts = self.after.texts();
            texts.map(|after| folder.join(format!("{}{name}{after}", self.before)))
        };
        let preferred = || files().next().unwrap_or_else(|| folder.join(name));
        if matches!(&self.after, After::Texts(texts) if texts.len() == 1) {
            return preferred();
        }
        files()
            .find(|path| path.is_file())
            .unwrap_or_else(preferred)
    }

    /// Returns the id of a file; `None` if the file is not one of this pattern.
    pub(crate) fn id_of(&self, root: &Path, file: &Path) -> Option<String> {
        let inner = file.strip_prefix(self.folder(root)).ok()?;
        let id = self.id_of_name(inner.file_name()?.to_str()?)?;
        let folder = inner.parent()?.to_str()?;
        match (folder.is_empty(), self.nested) {
            (true, _) => Some(id),
            (false, true) => Some(format!("{folder}/{id}")),
            (false, false) => None,
        }
    }

    /// Returns the id of a file name without its folder.
    pub(crate) fn id_of_name(&self, name: &str) -> Option<String> {
        self.id_in_case(name, Case::Exact).map(str::to_owned)
    }

    /// Returns the id of a file name (for nested patterns, without the folders), or `None` if the name does not match.
    fn id_in_case<'a>(&self, name: &'a str, case: Case) -> Option<&'a str> {
        let is_hidden = name.starts_with('.') && !self.before.starts_with('.');
        let start = name.get(..self.before.len())?;
        let fits = match case {
            Case::Exact => start == self.before,
            Case::Any => start.eq_ignore_ascii_case(&self.before),
        };
        let rest = name
            .get(self.before.len()..)
            .filter(|_| fits && !is_hidden)?;
        self.after.id_of(rest, case).filter(|id| !id.is_empty())
    }

    /// Returns the ids of all matching files, sorted so that the order does not depend on the file system.
    ///
    /// Hidden files, whose names begin with a dot, are left out.
    ///
    /// # Errors
    /// Returns [`DataError::Unreadable`], or [`DataError::NameNotUtf8`] if a matching file has no name in UTF-8 and
    /// thus no id.
    pub(crate) fn scan(&self, root: &Path) -> Result<Vec<String>, DataError> {
        let mut ids = Vec::new();
        self.visit(root, Case::Exact, &mut |inner, id, _| {
            ids.push(format!("{inner}{id}"));
        })?;
        ids.sort();
        ids.dedup(); // a.jpg and a.png have one id
        Ok(ids)
    }

    /// Returns the files that match if upper and lower case are not told apart, sorted, each with its id.
    pub(crate) fn scan_in_any_case(
        &self,
        root: &Path,
    ) -> Result<Vec<(PathBuf, String)>, DataError> {
        let mut files = Vec::new();
        self.visit(root, Case::Any, &mut |inner, id, path| {
            files.push((path, format!("{inner}{id}")));
        })?;
        files.sort();
        Ok(files)
    }

    /// Calls `found` with the inner folder, the id and the path of each matching file.
    fn visit(
        &self,
        root: &Path,
        case: Case,
        found: &mut dyn FnMut(&str, &str, PathBuf),
    ) -> Result<(), DataError> {
        self.visit_folder(&self.folder(root), ("", 0), case, found)
    }

    fn visit_folder(
        &self,
        folder: &Path,
        (inner, depth): (&str, usize),
        case: Case,
        found: &mut dyn FnMut(&str, &str, PathBuf),
    ) -> Result<(), DataError> {
        for path in entries(folder)? {
            let name = path.file_name().unwrap_or_default();
            let name = name.to_string_lossy().into_owned();
            let is_folder = self.nested && depth < MAX_DEPTH && path.is_dir();
            let id = self.id_in_case(&name, case);
            if !is_folder && id.is_none() {
                continue;
            }
            if path.file_name().and_then(OsStr::to_str).is_none() {
                return Err(DataError::NameNotUtf8 { path });
            }
            if is_folder {
                let inner = format!("{inner}{name}/");
                self.visit_folder(&path, (&inner, depth + 1), case, found)?;
            } else if let Some(id) = id {
                found(inner, id, path);
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
            assert_eq!(
                pattern.id_in_case(name, Case::Exact),
                id.rsplit('/').next(),
                "{pattern:?}"
            );
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

    /// The extension of an image counts in any case, and `zeg segment` takes the same files of a folder.
    #[test]
    fn a_folder_stands_for_the_images_of_every_extension() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path();
        fs::create_dir(root.join("images")).unwrap();
        let names = [
            "a.jpg", "b.JPG", "c.Jpg", "d.JPEG", "e.png", "f.PNG", "g.jfif", "h.tif", "i.TIF",
            "j.jpe", "k.pbm", "l.dib",
        ];
        for name in names.into_iter().chain([".hidden.jpg", "notes.txt"]) {
            fs::write(root.join("images").join(name), "").unwrap();
        }
        let pattern = Pattern::parse("images").unwrap();
        let ids = pattern.scan(root).unwrap();
        let files: Vec<PathBuf> = ids.iter().map(|id| pattern.file(root, id)).collect();
        assert_eq!(files, names.map(|name| root.join("images").join(name)));
        let taken = zeg_image::expand(&[root.join("images")], zeg_image::Recursion::FolderOnly);
        assert_eq!(taken.unwrap().len(), names.len());
    }

    #[cfg(unix)]
    #[test]
    fn a_file_whose_name_is_not_utf8_is_not_left_out_without_a_word() {
        use std::os::unix::ffi::OsStrExt;
        let folder = tempfile::tempdir().unwrap();
        let name = OsStr::from_bytes(b"latin1_\xe9.jpg");
        fs::write(folder.path().join(name), "").unwrap();
        let scan = |pattern: &str| Pattern::parse(pattern).unwrap().scan(folder.path());
        for pattern in [".", "{id}.jpg", "**/{id}.jpg"] {
            assert!(
                matches!(scan(pattern), Err(DataError::NameNotUtf8 { .. })),
                "{pattern}"
            );
        }
        assert!(scan("{id}.png").unwrap().is_empty());
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
