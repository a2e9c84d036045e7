//! Returns the classes and splits of a data set without needing its files.

use zeg_vocab::classes::ClassSet;

use crate::DataError;
use crate::selection::Source;

/// Returns the classes of a data set.
///
/// - `dataset`, `list`, `unseen`: as in a [`Selection`](crate::Selection)
///
/// # Errors
/// Returns [`DataError::UnknownDataset`] or [`DataError::Description`] if the data set is unknown or its description is
/// invalid, [`DataError::ClassList`] or [`DataError::Classes`] if the class list cannot be used, and
/// [`DataError::Unseen`] if the unseen classes are not a split of it.
pub fn classes(
    dataset: &str,
    list: Option<&str>,
    unseen: Option<&str>,
) -> Result<ClassSet, DataError> {
    let (classes, _) = Source::of(dataset)?.classes(list)?;
    match unseen {
        Some(unseen) => Ok(classes.with_split(unseen)?),
        None => Ok(classes),
    }
}

/// Returns the names of a data set's splits.
///
/// # Errors
/// Returns [`DataError::UnknownDataset`] or [`DataError::Description`] if the data set is unknown or its description is
/// invalid.
pub fn splits(dataset: &str) -> Result<Vec<String>, DataError> {
    Ok(match Source::of(dataset)? {
        Source::BuiltIn(entry) => entry
            .splits
            .iter()
            .map(|split| split.name.to_owned())
            .collect(),
        Source::Described(description) => description.splits().map(str::to_owned).collect(),
    })
}
