//! What is known of a data set without looking for its files.

use zeg_vocab::classes::ClassSet;

use crate::DataError;
use crate::selection::Source;

/// The classes of a data set.
///
/// - `dataset`, `list`, `unseen`: as in a [`Selection`](crate::Selection)
///
/// # Errors
/// [`DataError::UnknownDataset`], [`DataError::Description`], [`DataError::ClassList`], [`DataError::Classes`],
/// [`DataError::Unseen`].
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

/// Names of a data set's splits.
///
/// # Errors
/// [`DataError::UnknownDataset`], [`DataError::Description`].
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
