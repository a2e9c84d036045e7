//! From what a user names to a data set: which entry or description, where it lies, which part of it, and which of
//! its classes are unseen.

use std::path::Path;

use zeg_vocab::classes::ClassSet;

use crate::dataset::check_files_exist;
use crate::datasets::{self, DatasetEntry};
use crate::folder::Description;
use crate::listing::Listing;
use crate::part::SplitPart;
use crate::{DataError, Dataset, LabelRule, Metric};

/// A part of a data set, as a command line or a configuration names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Selection<'a> {
    /// A name in [`datasets`], or the path of a `.toml` that describes a data set
    /// ([`folder`](crate::folder)).
    pub dataset: &'a str,
    /// The data set's folder, or one above it. For a `.toml` it may be empty, which leaves the choice to the file.
    pub root: &'a Path,
    /// The split: a name such as `train` or `val`, or the path of a text file with one id a line. Behind either,
    /// `:1/5` takes every fifth image and `:not-1/5` all others.
    pub split: &'a str,
    /// The class list to read label files with; `None` for the data set's usual one.
    pub classes: Option<&'a str>,
    /// The unseen classes, as [`ClassSet::with_split`] takes them; `None` for the published ones.
    pub unseen: Option<&'a str>,
}

/// Opens a data set and checks that every file of the split exists.
///
/// # Errors
/// Those of [`list`], and [`DataError::MissingFiles`].
pub fn open(selection: &Selection) -> Result<Dataset, DataError> {
    let dataset = list(selection)?;
    check_files_exist(&dataset.title, selection.split, &dataset.items)?;
    Ok(dataset)
}

/// Opens a data set without asking for every file.
///
/// # Errors
/// - [`DataError::UnknownDataset`], [`DataError::Description`], [`DataError::ClassList`], [`DataError::Classes`],
///   [`DataError::Unseen`] for what was named
/// - [`DataError::RootNotFound`], [`DataError::SplitNotFound`]: with the folders looked for, the splits there are
/// - [`DataError::Unreadable`], [`DataError::Text`], [`DataError::IllegalId`], [`DataError::DuplicateId`],
///   [`DataError::Empty`] for lists and folders
/// - [`DataError::RawCocoLabels`], [`DataError::UnconvertedLabels`] for label maps in the numbers of the download
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

/// A data set with everything that is known of it.
pub(crate) struct Found {
    pub(crate) dataset: Dataset,
    /// What is where; its items were moved to `dataset`.
    pub(crate) listing: Listing,
    pub(crate) source: Source,
}

/// Where a data set is described.
pub(crate) enum Source {
    BuiltIn(&'static DatasetEntry),
    Described(Box<Description>),
}

impl Source {
    /// The data set that a selection names.
    pub(crate) fn of(dataset: &str) -> Result<Self, DataError> {
        if let Some(entry) = datasets::find(dataset) {
            return Ok(Self::BuiltIn(entry));
        }
        let path = Path::new(dataset);
        if path
            .extension()
            .is_some_and(|ending| ending.eq_ignore_ascii_case("toml"))
        {
            return Ok(Self::Described(Box::new(Description::read(path)?)));
        }
        Err(DataError::UnknownDataset {
            name: dataset.to_owned(),
        })
    }

    /// The pairs of a split.
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

    /// The classes, and how label files lead to them.
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

/// Finds a data set's split, with its defects.
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
