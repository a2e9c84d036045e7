//! Opens the data set that a user selects: its entry or description, its folder, its split and its unseen classes.

use std::path::Path;

use zeg_vocab::classes::ClassSet;

use crate::data_config::is_description;
use crate::dataset::check_files_exist;
use crate::datasets::{self, DatasetEntry};
use crate::folder::Description;
use crate::listing::Listing;
use crate::part::SplitPart;
use crate::{DataError, Dataset, LabelRule, Metric};

/// The data set, folder, split and classes that a command line or a configuration names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection<'a> {
    /// A name in [`datasets`], or the path of a `.toml` that describes a data set
    /// ([`folder`](crate::folder)).
    pub dataset: &'a str,
    /// The data set's folder, or a folder above it. For a `.toml` it may be empty, which means the file's own `root`.
    pub root: &'a Path,
    /// The split: a name such as `train` or `val`, or the path of a text file with one id per line. Appended to either,
    /// `:1/5` selects every fifth image and `:not-1/5` all others.
    pub split: &'a str,
    /// The class list to read label files with; `None` means the data set's default.
    pub classes: Option<&'a str>,
    /// The unseen classes, in the form [`ClassSet::with_split`] accepts; `None` means the published ones.
    pub unseen: Option<&'a str>,
}

/// Opens a data set and checks that every file of the split exists.
///
/// # Errors
/// Returns the errors of [`list`], and [`DataError::MissingFiles`] if a file does not exist.
pub fn open(selection: &Selection) -> Result<Dataset, DataError> {
    let dataset = list(selection)?;
    check_files_exist(&dataset.title, selection.split, &dataset.items)?;
    Ok(dataset)
}

/// Opens a data set without checking that every file exists.
///
/// # Errors
/// Returns an error:
/// - [`DataError::UnknownDataset`], [`DataError::Description`], [`DataError::ClassList`], [`DataError::Classes`] or
///   [`DataError::Unseen`] if the selection names something that does not exist or is invalid
/// - [`DataError::RootNotFound`] or [`DataError::SplitNotFound`] if the data set or the split is not in the folder
/// - [`DataError::Unreadable`], [`DataError::Text`], [`DataError::IllegalId`], [`DataError::DuplicateId`],
///   [`DataError::SameId`] or [`DataError::Empty`] if a list or folder cannot be used
/// - [`DataError::RawCocoLabels`] or [`DataError::UnconvertedLabels`] if the label maps are not converted
pub fn list(selection: &Selection) -> Result<Dataset, DataError> {
    let Found {
        mut listing,
        dataset,
        ..
    } = find(selection)?;
    if listing.defects.is_empty() {
        Ok(dataset)
    } else {
        Err(listing.defects.swap_remove(0))
    }
}

/// A data set with its listing and its source.
pub(crate) struct Found {
    pub(crate) dataset: Dataset,
    /// The listing; its items were moved to `dataset`.
    pub(crate) listing: Listing,
    pub(crate) source: Source,
}

/// The description of a data set: a built-in entry or a TOML file.
pub(crate) enum Source {
    BuiltIn(&'static DatasetEntry),
    Described(Box<Description>),
}

impl Source {
    /// Returns the source of the data set with this name or `.toml` path.
    pub(crate) fn of(dataset: &str) -> Result<Self, DataError> {
        if let Some(entry) = datasets::find(dataset) {
            return Ok(Self::BuiltIn(entry));
        }
        if is_description(dataset) {
            let description = Description::read(Path::new(dataset))?;
            return Ok(Self::Described(Box::new(description)));
        }
        Err(DataError::UnknownDataset {
            name: dataset.to_owned(),
        })
    }

    /// Lists the pairs of a split.
    pub(crate) fn list(&self, root: &Path, split: &str) -> Result<Listing, DataError> {
        match self {
            Self::BuiltIn(entry) => entry.list(root, split),
            Self::Described(description) => description.list(root, split),
        }
    }

    fn title(&self) -> &str {
        match self {
            Self::BuiltIn(entry) => entry.title,
            Self::Described(description) => &description.title,
        }
    }

    /// Returns the classes of a class list, and the rule that converts label files to them.
    pub(crate) fn classes(&self, list: Option<&str>) -> Result<(ClassSet, LabelRule), DataError> {
        let refused = |list: &str, known: Vec<String>| DataError::ClassList {
            dataset: self.title().to_owned(),
            list: list.to_owned(),
            known,
        };
        match self {
            Self::BuiltIn(entry) => {
                let mut lists = entry.class_lists.iter();
                let found = match list {
                    Some(name) => lists.find(|list| list.name == name),
                    None => lists.next(),
                };
                let Some(found) = found else {
                    let known = entry.class_lists.iter().map(|list| list.name.to_owned());
                    return Err(refused(list.unwrap_or_default(), known.collect()));
                };
                Ok((ClassSet::by_name(found.name)?, found.rule()))
            }
            Self::Described(description) => {
                let own = &description.classes;
                let classes = match list {
                    Some(list) if list != own.name => {
                        let other = ClassSet::by_name(list)?;
                        if other.len() != own.len() {
                            return Err(refused(list, vec![own.name.clone()]));
                        }
                        other
                    }
                    _ => own.clone(),
                };
                Ok((classes, description.rule.clone()))
            }
        }
    }
}

/// Finds the data set and lists the split, with its defects.
pub(crate) fn find(selection: &Selection) -> Result<Found, DataError> {
    let source = Source::of(selection.dataset)?;
    let (mut classes, label_rule) = source.classes(selection.classes)?;
    if let Some(unseen) = selection.unseen {
        classes = classes.with_split(unseen)?;
    }
    let part = SplitPart::parse(selection.split);
    let mut listing = source.list(selection.root, part.split)?;
    part.keep(&mut listing.items);
    let (name, metric) = match &source {
        Source::BuiltIn(entry) => (entry.name.to_owned(), Metric::MeanIou),
        Source::Described(description) => (description.name.clone(), description.metric),
    };
    let dataset = Dataset {
        name,
        title: source.title().to_owned(),
        items: std::mem::take(&mut listing.items),
        label_rule,
        classes,
        metric,
    };
    Ok(Found {
        dataset,
        listing,
        source,
    })
}
