//! Lists the pairs of image and label files of a split; all data sets share this code.
//!
//! A listing is made without opening an image. Its defects are part of it, so that opening a data set can return an
//! error, while the doctor can continue and report all of them.

use std::collections::{HashMap, HashSet, hash_map};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::coco::CocoFile;
use crate::pattern::{Pattern, Refusal};
use crate::split::{
    Entry, IdForm, ListedFiles, SplitList, available_splits, illegal, is_path, read_split,
};
use crate::{DataError, Item, LabelSource};

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
    /// Further masks of an image.
    pub(crate) further: Option<FurtherMasks>,
    /// The annotations that take the place of label files.
    pub(crate) coco: Option<Arc<CocoFile>>,
}

/// Path of further masks of an image, such as `{id}_mask_{n}.png` with a number for `{n}`.
#[derive(Debug, Clone)]
pub(crate) struct FurtherMasks(String);

impl FurtherMasks {
    /// The placeholder of the number.
    const NUMBER: &str = "{n}";
    /// Largest number of further masks that are looked for.
    const MOST: usize = 1000;

    /// Parses a pattern with `{id}` and `{n}`.
    pub(crate) fn parse(text: &str) -> Result<Self, Refusal> {
        if text.matches(Self::NUMBER).count() != 1 {
            return Err("write `{n}` once, for the number of the mask");
        }
        Pattern::parse(&text.replace(Self::NUMBER, "1"))?;
        Ok(Self(text.to_owned()))
    }

    /// Returns the files that exist, numbered from 0 or from 1 without a gap.
    fn files(&self, root: &Path, id: &str) -> Vec<PathBuf> {
        let file = |number: usize| {
            let text = self.0.replace(Self::NUMBER, &number.to_string());
            let file = Pattern::parse(&text).ok()?.file(root, id);
            file.is_file().then_some(file)
        };
        let numbered = (1..Self::MOST).map_while(file);
        file(0).into_iter().chain(numbered).collect()
    }
}

impl Place {
    /// Parses the patterns of a built-in layout; returns `None` if one is invalid, which the tests would find.
    pub(crate) fn new(images: &str, labels: &[&str]) -> Option<Self> {
        let labels = labels.iter().map(|labels| Pattern::parse(labels).ok());
        Some(Self {
            images: Pattern::parse(images).ok()?,
            labels: labels.collect::<Option<_>>()?,
            ..Self::default()
        })
    }

    /// Returns the pair of an id.
    pub(crate) fn item(&self, root: &Path, id: String) -> Item {
        if let Some(coco) = &self.coco {
            let image = self.images.file(root, &id);
            return self.annotated(root, coco, image, id);
        }
        let files = || self.labels.iter().map(|labels| labels.file(root, &id));
        let first = || files().next().unwrap_or_else(|| root.to_owned());
        let labels = if self.labels.len() == 1 {
            first()
        } else {
            files().find(|path| path.is_file()).unwrap_or_else(first)
        };
        let further = self.further.as_ref();
        let further = further.map_or_else(Vec::new, |masks| masks.files(root, &id));
        Item {
            image: self.images.file(root, &id),
            labels,
            id,
            source: if further.is_empty() {
                LabelSource::File
            } else {
                LabelSource::Union(further)
            },
        }
    }

    /// Returns the pair of an image whose labels are COCO annotations.
    fn annotated(&self, root: &Path, coco: &Arc<CocoFile>, image: PathBuf, id: String) -> Item {
        let folder = self.images.folder(root);
        let name = image.strip_prefix(&folder).unwrap_or(&image);
        let annotations = coco.of_image(name);
        Item {
            labels: annotations.file(),
            source: LabelSource::Coco(annotations),
            image,
            id,
        }
    }

    /// Returns the pairs of all images of the annotations, in the order of their file.
    ///
    /// A name in the file is relative to the folder of images or to the data set's folder, or begins with folders that
    /// do not exist here.
    pub(crate) fn annotated_items(&self, root: &Path, coco: &Arc<CocoFile>) -> Vec<Item> {
        let folder = self.images.folder(root);
        let item = |(index, name): (usize, &str)| {
            let image = located(&folder, name)
                .or_else(|| located(root, name))
                .unwrap_or_else(|| folder.join(name));
            let id = self.images.id_of(root, &image);
            let annotations = coco.image(index);
            Item {
                id: id.unwrap_or_else(|| without_extension(name).to_owned()),
                labels: annotations.file(),
                source: LabelSource::Coco(annotations),
                image,
            }
        };
        coco.names().enumerate().map(item).collect()
    }
}

/// Returns the file of a path below `root`, or of the path without its first folders, as in a list with absolute paths.
fn located(root: &Path, path: &str) -> Option<PathBuf> {
    let folders = path.match_indices('/').map(|(place, _)| place + 1);
    std::iter::once(0)
        .chain(folders)
        .filter_map(|start| path.get(start..))
        .map(|rest| root.join(rest))
        .find(|file| file.is_file())
}

fn without_extension(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(stem, _)| stem)
}

/// Returns the pairs of the lines of a split list, each in the place where its image exists.
///
/// # Errors
/// Returns [`DataError::IllegalId`] for the path of an image without that of its labels, if no place has such images.
pub(crate) fn listed_items(
    (list, entries): (&Path, Vec<Entry>),
    places: &[Place],
    root: &Path,
) -> Result<Vec<Item>, DataError> {
    let of_id = |id: String| {
        if let [only] = places {
            return Some(only.item(root, id));
        }
        let items = || places.iter().map(|place| place.item(root, id.clone()));
        let existing = items().find(|item| item.image.is_file());
        existing.or_else(|| items().next())
    };
    let items = entries.into_iter().map(|entry| match entry {
        Entry::Id(id) => Ok(of_id(id)),
        Entry::Files(files) => item_of_files(&files, places, root)
            .map(Some)
            .ok_or_else(|| illegal(list, files.line, &files.image)),
    });
    Ok(items
        .collect::<Result<Vec<_>, _>>()?
        .into_iter()
        .flatten()
        .collect())
}

/// Returns the pairs without those whose id an earlier pair has, and a [`DataError::SameId`] for each of these.
///
/// A list may name an image by its id and by its path, and COCO annotations may hold `a.png` and `a.jpg`.
pub(crate) fn split_off_same_ids(items: Vec<Item>) -> (Vec<Item>, Vec<DataError>) {
    let mut first: HashMap<String, PathBuf> = HashMap::with_capacity(items.len());
    let (mut kept, mut repeated) = (Vec::with_capacity(items.len()), Vec::new());
    for item in items {
        match first.entry(item.id.clone()) {
            hash_map::Entry::Occupied(known) => repeated.push(DataError::SameId {
                id: item.id,
                first: known.get().clone(),
                second: item.image,
            }),
            hash_map::Entry::Vacant(place) => {
                place.insert(item.image.clone());
                kept.push(item);
            }
        }
    }
    (kept, repeated)
}

/// Returns the pair of an image that a list names by its path.
fn item_of_files(files: &ListedFiles, places: &[Place], root: &Path) -> Option<Item> {
    let image = located(root, &files.image).unwrap_or_else(|| root.join(&files.image));
    let in_place = places
        .iter()
        .find_map(|place| Some((place, place.images.id_of(root, &image)?)))
        .or_else(|| {
            let named = |place: &Place| place.images.id_of_name(&files.image);
            let mut found = places
                .iter()
                .filter_map(|place| Some((place, named(place)?)));
            found.find(|(place, id)| place.images.file(root, id).is_file())
        });
    let usual = in_place.map(|(place, id)| place.item(root, id));
    let Some(labels) = &files.labels else {
        return usual;
    };
    let (id, usual_image, usual_labels) = match usual {
        Some(item) => (item.id, Some(item.image), Some(item.labels)),
        None => (without_extension(&files.image).to_owned(), None, None),
    };
    // A name without a folder means the file of this name in the usual folder.
    let named = |usual: Option<PathBuf>, text: &str| {
        let same = |file: &PathBuf| file.file_name().is_some_and(|name| name == text);
        usual.filter(same)
    };
    Some(Item {
        id,
        image: named(usual_image, &files.image).unwrap_or(image),
        labels: located(root, labels)
            .or_else(|| named(usual_labels, labels))
            .unwrap_or_else(|| root.join(labels)),
        source: LabelSource::File,
    })
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
    let files = items.iter().flat_map(Item::files);
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
        let (items, defects) = self.read(&list)?;
        Ok(self.of(items, defects))
    }

    /// Returns the pairs of a list, and the defects of the list.
    pub(crate) fn read(&self, list: &Path) -> Result<(Vec<Item>, Vec<DataError>), DataError> {
        let SplitList { entries, repeated } = read_split(list, IdForm::Name)?;
        let places = std::slice::from_ref(&self.place);
        let items = listed_items((list, entries), places, &self.root)?;
        let (items, same_id) = split_off_same_ids(items);
        Ok((items, repeated.into_iter().chain(same_id).collect()))
    }

    /// Returns the listing of these pairs.
    pub(crate) fn of(self, items: Vec<Item>, defects: Vec<DataError>) -> Listing {
        Listing {
            items,
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
        let SplitList { entries, repeated } = read_split(list, form)?;
        let places: Vec<Place> = self.parts.iter().map(|(_, place)| place.clone()).collect();
        let items = listed_items((list, entries), &places, &self.root)?;
        let (items, same_id) = split_off_same_ids(items);
        Ok(Listing {
            items,
            defects: repeated.into_iter().chain(same_id).collect(),
            places,
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
