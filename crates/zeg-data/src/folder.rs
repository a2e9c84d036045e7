//! A user's own data sets: a TOML file describes where the images and label files are and what their pixels mean.
//!
//! ```toml
//! name = "kvasir-seg"
//! images = "images/{id}.jpg"
//! labels = "masks/{id}.jpg"
//! kind = "binary"                    # or "index", "palette"
//! classes = ["background", { name = "polyp", synonyms = ["colon polyp"] }]
//! unseen = ["polyp"]
//! metric = "dice"
//!
//! [splits]
//! train = "train.txt"                # a text file with one id per line
//! all = "all"                        # every image in the folder
//! ```
//!
//! `configs/datasets/folder-template.toml` explains every key. Nothing is guessed: an unknown key, a missing colour or
//! two classes with one value are errors that name the line.

mod classes;
mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use zeg_vocab::classes::ClassSet;
use zeg_vocab::text_file;

use crate::listing::{Listing, Place, left_out};
use crate::split::{IdForm, is_path, read_split};
use crate::{DataError, Item, LabelRule, Metric};

/// Largest size of a description, in bytes.
const MAX_BYTES: u64 = 1 << 22;

/// A data set that is described by a TOML file.
#[derive(Debug)]
pub(crate) struct Description {
    pub(crate) name: String,
    pub(crate) title: String,
    pub(crate) classes: ClassSet,
    pub(crate) rule: LabelRule,
    pub(crate) metric: Metric,
    /// The folder that paths are relative to if the selection gives none.
    root: PathBuf,
    /// The folder of the description, where lists may be, too.
    home: PathBuf,
    place: Place,
    /// Texts that exclude an image if its id contains one of them.
    exclude: Vec<String>,
    splits: BTreeMap<String, SplitSource>,
}

/// The source of a split's images.
#[derive(Debug)]
enum SplitSource {
    /// All images of the data set's folder.
    All,
    /// The images whose ids a text file lists.
    List(PathBuf),
    /// The images whose ids the description lists.
    Ids(Vec<String>),
    /// All images of the split's own folders.
    Elsewhere(Place),
}

impl Description {
    /// Reads a description.
    ///
    /// # Errors
    /// Returns [`DataError::Text`] if the file cannot be read as text, and [`DataError::Description`] with the line if
    /// it is not a valid description.
    pub(crate) fn read(path: &Path) -> Result<Self, DataError> {
        let text = text_file::read(path, MAX_BYTES)?;
        written::parse(&text, path)
    }

    /// Returns the names of the splits.
    pub(crate) fn splits(&self) -> impl Iterator<Item = &str> {
        self.splits.keys().map(String::as_str)
    }

    /// Returns the names of the splits other than those of all images.
    pub(crate) fn proper_splits(&self) -> impl Iterator<Item = &str> {
        let proper = |(_, source): &(&String, &SplitSource)| !matches!(source, SplitSource::All);
        self.splits
            .iter()
            .filter(proper)
            .map(|(name, _)| name.as_str())
    }

    /// Lists the pairs of a split.
    ///
    /// - `given`: the folder that paths are relative to; empty means the description's `root`
    /// - `split`: a name from the description, or the path of a text file with one id per line
    pub(crate) fn list(&self, given: &Path, split: &str) -> Result<Listing, DataError> {
        let root = if given.as_os_str().is_empty() {
            self.root.clone()
        } else {
            given.to_owned()
        };
        if !root.is_dir() {
            return Err(DataError::RootNotFound {
                dataset: self.title.clone(),
                root: given.to_owned(),
                looked_for: vec![root],
            });
        }
        match self.splits.get(split) {
            Some(SplitSource::All) => self.scan(root, self.place.clone()),
            Some(SplitSource::Elsewhere(place)) => self.scan(root, place.clone()),
            Some(SplitSource::Ids(ids)) => Ok(self.named(root, ids.clone(), Vec::new())),
            Some(SplitSource::List(list)) => {
                // A list may be in the data set's folder or beside the description.
                let (below, beside) = (root.join(list), self.home.join(list));
                let list = if !below.is_file() && beside.is_file() {
                    beside
                } else {
                    below
                };
                self.listed(root, &list)
            }
            None if is_path(split) && Path::new(split).is_file() => {
                self.listed(root, Path::new(split))
            }
            None => Err(DataError::SplitNotFound {
                dataset: self.title.clone(),
                split: split.to_owned(),
                folder: root,
                available: self.splits().map(str::to_owned).collect(),
            }),
        }
    }

    fn listed(&self, root: PathBuf, list: &Path) -> Result<Listing, DataError> {
        let found = read_split(list, IdForm::Path)?;
        Ok(self.named(root, found.ids, found.repeated))
    }

    /// Returns the pairs of these ids, each in the folders where its image exists.
    fn named(&self, root: PathBuf, ids: Vec<String>, defects: Vec<DataError>) -> Listing {
        let elsewhere = self.splits.values().filter_map(|split| match split {
            SplitSource::Elsewhere(place) => Some(place),
            _ => None,
        });
        let places: Vec<Place> = std::iter::once(&self.place)
            .chain(elsewhere)
            .cloned()
            .collect();
        let item = |id: String| {
            let items = || places.iter().map(|place| place.item(&root, id.clone()));
            let existing = items().find(|item| item.image.is_file());
            existing.or_else(|| items().next())
        };
        Listing {
            items: ids.into_iter().filter_map(item).collect(),
            defects,
            root,
            places,
        }
    }

    /// Lists all pairs of the folders.
    fn scan(&self, root: PathBuf, place: Place) -> Result<Listing, DataError> {
        let is_excluded = |id: &str| self.exclude.iter().any(|text| id.contains(text.as_str()));
        let mut ids = place.images.scan(&root)?;
        ids.retain(|id| !is_excluded(id));
        if ids.is_empty() {
            return Err(DataError::Empty {
                path: place.images.folder(&root),
            });
        }
        let items: Vec<Item> = ids.into_iter().map(|id| place.item(&root, id)).collect();
        Ok(Listing {
            defects: left_out(&root, &place.images, &items, is_excluded)?,
            items,
            places: vec![place],
            root,
        })
    }
}
