//! Reads weights in several files, with a JSON index in the form of Hugging Face (`model.safetensors.index.json`).
//!
//! The field `weight_map` maps every tensor to the file that contains it.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsStr,
    path::{Path, PathBuf},
};

use serde::Deserialize;

use super::{ContainerFormat, Contents, recognise};
use crate::{WeightsError, error::Defect, source::Source};

/// The largest size of an index, in bytes.
const MOST_INDEX_BYTES: usize = 16 << 20;
/// The largest number of files of one model.
const MOST_FILES: usize = 1000;

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

impl Index {
    /// Returns the names of the files, each once.
    fn names(&self) -> BTreeSet<&str> {
        self.weight_map.values().map(String::as_str).collect()
    }
}

/// Returns whether the file is JSON.
pub(super) fn is_index(source: &Source) -> Result<bool, Defect> {
    let start = source.up_to(0, 16)?;
    // A safetensors file with a header of 123 bytes begins with the same byte, 123 = `{`, but zeros follow.
    Ok(start.trim_ascii_start().first() == Some(&b'{') && !start.contains(&0))
}

/// Reads an index and checks the names in it.
fn read(source: &Source) -> Result<Index, WeightsError> {
    let path = source.path();
    let format = |reason: String| WeightsError::Format {
        path: path.to_owned(),
        reason,
    };
    let json = source
        .up_to(0, MOST_INDEX_BYTES)
        .map_err(|defect| defect.of(path))?;
    let index: Index = serde_json::from_slice(&json)
        .map_err(|error| format(format!("JSON, but not a valid index of weights: {error}")))?;
    let names = index.names();
    if names.len() > MOST_FILES {
        return Err(format(format!(
            "the index lists {} files; the limit is {MOST_FILES}",
            names.len()
        )));
    }
    for name in names {
        if Path::new(name).file_name() != Some(OsStr::new(name)) {
            return Err(format(format!(
                "the index lists the file {name:?}, which is not a plain file name"
            )));
        }
    }
    Ok(index)
}

/// Returns the paths of the files of an index, sorted by name.
pub(super) fn files(source: &Source) -> Result<Vec<PathBuf>, WeightsError> {
    let index = read(source)?;
    let names = index.names().into_iter();
    Ok(names
        .map(|name| source.path().with_file_name(name))
        .collect())
}

/// Opens the files of an index, which are in the same folder.
pub(super) fn open(source: &Source) -> Result<Vec<(Source, Contents)>, WeightsError> {
    let path = source.path();
    let format = |reason: String| WeightsError::Format {
        path: path.to_owned(),
        reason,
    };
    let index = read(source)?;
    index
        .names()
        .into_iter()
        .map(|name| {
            let file = Source::open(&path.with_file_name(name))?;
            let mut contents = recognise(&file).map_err(|defect| defect.of(file.path()))?;
            contents
                .tensors
                .retain(|tensor, _| index.weight_map.get(tensor).map(String::as_str) == Some(name));
            let missing = index
                .weight_map
                .iter()
                .find(|(tensor, file)| *file == name && !contents.tensors.contains_key(*tensor));
            if let Some((tensor, _)) = missing {
                return Err(format(format!(
                    "the index lists the tensor {tensor:?} in {name:?}, but that file does not have it"
                )));
            }
            contents.format = ContainerFormat::Sharded;
            Ok((file, contents))
        })
        .collect()
}
