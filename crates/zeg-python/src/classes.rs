//! Class lists: what users write becomes the class list of the library.

use pyo3::prelude::*;
use zeg::vocab::classes::{
    ClassArgumentError, ClassQuery, ClassSet, Role, parse_class_list, parse_classes_argument,
};

use crate::errors::{Kind, exception, of_library};

/// A class list as Python passes it.
#[derive(FromPyObject)]
pub(crate) enum ClassList {
    /// Text as after `--classes`: names separated by commas, the path of a class file, or the name of a list.
    #[pyo3(transparent)]
    Text(String),
    /// One entry for each class.
    #[pyo3(transparent)]
    Entries(Vec<Entry>),
}

/// A class: all its names, whether it is background, colour and threshold.
type Entry = (Vec<String>, bool, Option<[u8; 3]>, Option<f32>);

/// Returns a class list, followed by the background classes.
///
/// # Errors
/// Returns an exception that names the first entry that cannot be used.
pub(crate) fn read(
    py: Python<'_>,
    classes: ClassList,
    background: Option<ClassList>,
) -> PyResult<Vec<ClassQuery>> {
    let mut read = queries(classes, parse_classes_argument)
        .map_err(|error| of_library(py, &error.context("classes"), Kind::Classes))?;
    if let Some(background) = background {
        let background = queries(background, |text| Ok(parse_class_list(text)?))
            .map_err(|error| of_library(py, &error.context("background"), Kind::Classes))?;
        read.extend(background.into_iter().map(|class| ClassQuery {
            role: Role::Background,
            ..class
        }));
    }
    if !read.iter().any(|class| class.role.is_foreground()) {
        let message = "the class list names no class besides the background";
        let hint = "name what to segment: classes=[\"dog\", \"sofa\"]";
        return Err(exception(py, Kind::Classes, message, Some(hint)));
    }
    checked(read).map_err(|error| of_library(py, &error, Kind::Classes))
}

fn queries(
    list: ClassList,
    parse: impl FnOnce(&str) -> Result<Vec<ClassQuery>, ClassArgumentError>,
) -> anyhow::Result<Vec<ClassQuery>> {
    match list {
        ClassList::Text(text) => Ok(parse(&text)?),
        ClassList::Entries(entries) => Ok(entries.into_iter().map(query).collect()),
    }
}

fn query((names, is_background, colour, threshold): Entry) -> ClassQuery {
    let mut names = names.into_iter().map(|name| name.trim().to_owned());
    ClassQuery {
        name: names.next().unwrap_or_default(),
        synonyms: names.collect(),
        role: if is_background {
            Role::Background
        } else {
            Role::Foreground
        },
        colour,
        threshold,
    }
}

/// Checks the names of all classes together, so that no name is empty or occurs twice.
fn checked(classes: Vec<ClassQuery>) -> anyhow::Result<Vec<ClassQuery>> {
    let names = classes.iter().map(|class| class.name.clone()).collect();
    let synonyms = classes.iter().map(|class| class.synonyms.clone()).collect();
    let set = ClassSet::custom("classes", names, synonyms, Vec::new())?;
    let pairs = classes.into_iter().enumerate();
    let checked = pairs.map(|(label, class)| ClassQuery {
        name: set.classes.get(label).cloned().unwrap_or(class.name),
        synonyms: set.synonyms.get(label).cloned().unwrap_or_default(),
        ..class
    });
    Ok(checked.collect())
}
