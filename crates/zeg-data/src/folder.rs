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
//! `labels` may also be a table that names COCO annotations ([`coco`](crate::coco)):
//!
//! ```toml
//! labels = { format = "coco-instances", file = "instances_val.json" }
//! ```
//!
//! `configs/datasets/folder-template.toml` explains every key. Nothing is guessed: an unknown key, a missing colour or
//! two classes with one value are errors that name the line.

mod classes;
mod labels;
mod written;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeg_vocab::classes::ClassSet;
use zeg_vocab::text_file;

use crate::coco::{CocoFile, CocoRule};
use crate::listing::{Listing, Place, left_out, listed_items, split_off_same_ids};
use crate::split::{Entry, IdForm, SplitList, is_path, read_split};
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
    place: WrittenPlace,
    /// The rule of COCO annotations, if the labels are such.
    coco: Option<CocoRule>,
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
    Elsewhere(WrittenPlace),
}

/// The place of files as the description names it.
#[derive(Debug, Clone)]
struct WrittenPlace {
    /// The patterns of the files.
    files: Place,
    /// The file of COCO annotations, which is read when a split is listed.
    annotations: Option<Annotations>,
}

/// A file of COCO annotations.
#[derive(Debug, Clone)]
struct Annotations {
    file: PathBuf,
    /// The folder of the PNGs of panoptic annotations.
    folder: Option<PathBuf>,
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
            Some(SplitSource::All) => self.scan(root, &self.place),
            Some(SplitSource::Elsewhere(place)) => self.scan(root, place),
            Some(SplitSource::Ids(ids)) => {
                let entries = ids.iter().cloned().map(Entry::Id).collect();
                let found = SplitList {
                    entries,
                    repeated: Vec::new(),
                };
                self.named(root, Path::new(""), found)
            }
            Some(SplitSource::List(list)) => {
                let list = self.below_or_beside(&root, list);
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

    /// Returns the path of a file that may be in the data set's folder or beside the description.
    fn below_or_beside(&self, root: &Path, file: &Path) -> PathBuf {
        let (below, beside) = (root.join(file), self.home.join(file));
        if !below.is_file() && beside.is_file() {
            beside
        } else {
            below
        }
    }

    /// Returns a place with its annotations, if its labels are such.
    ///
    /// # Errors
    /// Returns an error if the file of annotations cannot be used, or if the description names none.
    fn open(&self, root: &Path, place: &WrittenPlace) -> Result<Place, DataError> {
        let Some(rule) = &self.coco else {
            return Ok(place.files.clone());
        };
        let Some(annotations) = &place.annotations else {
            return Err(DataError::NoAnnotations {
                dataset: self.title.clone(),
            });
        };
        let path = self.below_or_beside(root, &annotations.file);
        let folder = annotations.folder.as_deref().unwrap_or(Path::new(""));
        let coco = CocoFile::read(&path, root.join(folder), rule)?;
        // Of several files, each may have some of the categories.
        if self.places().filter(|p| p.annotations.is_some()).count() == 1 {
            coco.check_names(rule)?;
        }
        Ok(Place {
            coco: Some(Arc::new(coco)),
            ..place.files.clone()
        })
    }

    /// Returns the place of the description and those of its splits.
    fn places(&self) -> impl Iterator<Item = &WrittenPlace> {
        let elsewhere = self.splits.values().filter_map(|split| match split {
            SplitSource::Elsewhere(place) => Some(place),
            _ => None,
        });
        std::iter::once(&self.place).chain(elsewhere)
    }

    fn listed(&self, root: PathBuf, list: &Path) -> Result<Listing, DataError> {
        let found = read_split(list, IdForm::Path)?;
        self.named(root, list, found)
    }

    /// Returns the pairs of a list, each in the folders where its image exists.
    fn named(&self, root: PathBuf, list: &Path, found: SplitList) -> Result<Listing, DataError> {
        let places = self
            .places()
            // With COCO annotations, the splits may name files and the description none.
            .filter(|place| self.coco.is_none() || place.annotations.is_some())
            .map(|place| self.open(&root, place))
            .collect::<Result<Vec<Place>, _>>()?;
        if places.is_empty() {
            return Err(DataError::NoAnnotations {
                dataset: self.title.clone(),
            });
        }
        let items = listed_items((list, found.entries), &places, &root)?;
        let (items, same_id) = split_off_same_ids(items);
        Ok(Listing {
            items,
            defects: found.repeated.into_iter().chain(same_id).collect(),
            root,
            places,
        })
    }

    /// Lists all pairs of the folders.
    fn scan(&self, root: PathBuf, place: &WrittenPlace) -> Result<Listing, DataError> {
        let place = self.open(&root, place)?;
        let is_excluded = |id: &str| self.exclude.iter().any(|text| id.contains(text.as_str()));
        if let Some(coco) = &place.coco {
            let mut items = place.annotated_items(&root, coco);
            items.retain(|item| !is_excluded(&item.id));
            if items.is_empty() {
                return Err(DataError::Empty {
                    path: place.images.folder(&root),
                });
            }
            let (items, defects) = split_off_same_ids(items);
            return Ok(Listing {
                items,
                defects,
                places: vec![place],
                root,
            });
        }
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

#[cfg(test)]
mod tests;
