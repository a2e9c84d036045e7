//! Lists the pairs of image and label files of a split; all data sets share this code.
//!
//! A listing is made without opening an image. Its defects are part of it, so that opening a data set can return an
//! error, while the doctor can continue and report all of them.

use std::collections::HashSet;
use std::path::{Path, PathBuf};

use crate::pattern::Pattern;
use crate::split::{IdForm, available_splits, is_path, read_split};
use crate::{DataError, Item};

/// The file pairs of a split, and the defects of its lists and folders.
#[derive(Debug, Default)]
pub(crate) struct Listing {
    /// The pairs, in the order of the split's list; each id once.
    pub(crate) items: Vec<Item>,
    /// Errors because of which the split must not be used.
    pub(crate) defects: Vec<DataError>,
    /// The folder that the patterns are relative to.
    pub(crate) root: PathBuf,
    /// The places of the files.
    pub(crate) places: Vec<Place>,
}

/// The path patterns of the images and label files of a split, or of a part of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Place {
    /// Pattern of the images.
    pub(crate) images: Pattern,
    /// Patterns of the label files; the first pattern with an existing file is used.
    pub(crate) labels: Vec<Pattern>,
}

impl Place {
    /// Parses the patterns of a built-in layout; returns `None` if one is invalid, which the tests would find.
    pub(crate) fn new(images: &str, labels: &[&str]) -> Option<Self> {
        let labels = labels.iter().map(|labels| Pattern::parse(labels).ok());
        Some(Self {
            images: Pattern::parse(images).ok()?,
            labels: labels.collect::<Option<_>>()?,
        })
    }

    /// Returns the pair of an id.
    pub(crate) fn item(&self, root: &Path, id: String) -> Item {
        let files = || self.labels.iter().map(|labels| labels.file(root, &id));
        let first = || files().next().unwrap_or_else(|| root.to_owned());
        let labels = if self.labels.len() == 1 {
            first()
        } else {
            files().find(|path| path.is_file()).unwrap_or_else(first)
        };
        Item {
            image: self.images.file(root, &id),
            labels,
            id,
        }
    }
}

/// Returns a [`DataError::LeftOut`] if a folder holds files like those of `images` that are in no pair of the split.
///
/// Their names differ from the pattern in upper and lower case, or another image has the same id.
///
/// - `items`: the pairs of all images in the folder
/// - `is_excluded`: whether an id is left out on purpose
pub(crate) fn left_out(
    root: &Path,
    images: &Pattern,
    items: &[Item],
    is_excluded: impl Fn(&str) -> bool,
) -> Result<Vec<DataError>, DataError> {
    // The label file of an image may be in the same folder.
    let files = items.iter().flat_map(|item| [&item.image, &item.labels]);
    let used: HashSet<&Path> = files.map(PathBuf::as_path).collect();
    let found = images.scan_in_any_case(root)?.into_iter();
    let files: Vec<PathBuf> = found
        .filter(|(path, id)| !used.contains(path.as_path()) && !is_excluded(id))
        .map(|(path, _)| path)
        .collect();
    let folder = images.folder(root);
    let error = (!files.is_empty()).then_some(DataError::LeftOut { folder, files });
    Ok(error.into_iter().collect())
}

/// Finds the folder that holds all of `markers`.
///
/// - `below`: the folders to search, relative to `given`, that archives may be unpacked to
pub(crate) fn find_root(
    title: &str,
    given: &Path,
    below: &[&str],
    markers: &[&str],
) -> Result<PathBuf, DataError> {
    let roots = || below.iter().map(|below| given.join(below));
    let complete = |root: &PathBuf| markers.iter().all(|marker| root.join(marker).is_dir());
    roots()
        .find(complete)
        .ok_or_else(|| DataError::RootNotFound {
            dataset: title.to_owned(),
            root: given.to_owned(),
            looked_for: roots()
                .flat_map(|root| markers.iter().map(move |marker| root.join(marker)))
                .collect(),
        })
}

/// A data set whose splits are text files in a folder.
pub(crate) struct Listed<'a> {
    pub(crate) title: &'a str,
    pub(crate) root: PathBuf,
    /// The folder of the lists, relative to the root.
    pub(crate) lists: &'a str,
    pub(crate) place: Place,
}

impl Listed<'_> {
    /// Lists a split that is given by the name of a list in the folder or by the path of a text file.
    pub(crate) fn list(self, split: &str) -> Result<Listing, DataError> {
        let list = if is_path(split) {
            PathBuf::from(split)
        } else {
            self.file(split)
        };
        if !list.is_file() {
            return Err(self.not_found(split));
        }
        let found = read_split(&list, IdForm::Name)?;
        Ok(self.of(found.ids, found.repeated))
    }

    /// Returns the pairs of these ids.
    pub(crate) fn of(self, ids: Vec<String>, defects: Vec<DataError>) -> Listing {
        let ids = ids.into_iter();
        Listing {
            items: ids.map(|id| self.place.item(&self.root, id)).collect(),
            defects,
            root: self.root,
            places: vec![self.place],
        }
    }

    /// Returns the path of the list with this name.
    pub(crate) fn file(&self, name: &str) -> PathBuf {
        self.root.join(self.lists).join(format!("{name}.txt"))
    }

    fn not_found(&self, split: &str) -> DataError {
        let folder = self.root.join(self.lists);
        DataError::SplitNotFound {
            dataset: self.title.to_owned(),
            split: split.to_owned(),
            available: available_splits(&folder),
            folder,
        }
    }
}

/// A data set whose splits are folders.
pub(crate) struct Scanned<'a> {
    pub(crate) title: &'a str,
    pub(crate) root: PathBuf,
    /// For each split its names, the main one first, and the place of its files.
    pub(crate) parts: Vec<(&'a [&'a str], Place)>,
}

impl Scanned<'_> {
    /// Lists all images of a split's folder, sorted, or the images that a text file names, in the folder of any split.
    pub(crate) fn list(self, split: &str) -> Result<Listing, DataError> {
        if is_path(split) && Path::new(split).is_file() {
            return self.named_in(Path::new(split));
        }
        let root = self.root.clone();
        let named = |(names, place): &&(&[&str], Place)| {
            names.contains(&split) && place.images.folder(&root).is_dir()
        };
        let Some((_, place)) = self.parts.iter().find(named) else {
            return Err(self.not_found(split));
        };
        let ids = place.images.scan(&root)?;
        if ids.is_empty() {
            return Err(DataError::Empty {
                path: place.images.folder(&root),
            });
        }
        let items: Vec<Item> = ids.into_iter().map(|id| place.item(&root, id)).collect();
        Ok(Listing {
            defects: left_out(&root, &place.images, &items, |_| false)?,
            items,
            places: vec![place.clone()],
            root,
        })
    }

    fn named_in(self, list: &Path) -> Result<Listing, DataError> {
        let nested = self.parts.iter().any(|(_, place)| place.images.is_nested());
        let form = if nested { IdForm::Path } else { IdForm::Name };
        let found = read_split(list, form)?;
        let item = |id: String| {
            let items = || {
                let places = self.parts.iter().map(|(_, place)| place);
                places.map(|place| place.item(&self.root, id.clone()))
            };
            let existing = items().find(|item| item.image.is_file());
            existing.or_else(|| items().next())
        };
        Ok(Listing {
            items: found.ids.into_iter().filter_map(item).collect(),
            defects: found.repeated,
            places: self.parts.iter().map(|(_, place)| place.clone()).collect(),
            root: self.root,
        })
    }

    fn not_found(&self, split: &str) -> DataError {
        let exists = |(_, place): &&(&[&str], Place)| place.images.folder(&self.root).is_dir();
        let names = self.parts.iter().filter(exists);
        DataError::SplitNotFound {
            dataset: self.title.to_owned(),
            split: split.to_owned(),
            folder: self.root.clone(),
            available: names
                .filter_map(|(names, _)| names.first())
                .map(ToString::to_string)
                .collect(),
        }
    }
}
