//! Finds the real weights and class embeddings that files of reference numbers name but do not contain.

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Int, Tensor, TensorData};
use zeg_model::embeddings::ClassEmbeddings;

use super::{Options, ParityError};

/// Finds `folder/name` in the assets folder or, without one, in the folders above the file that names it.
///
/// # Errors
/// Returns an error if there is no such file.
pub(crate) fn find(
    file: &Path,
    folder: &'static str,
    name: &str,
    options: &Options,
) -> Result<PathBuf, ParityError> {
    let around = file.parent().unwrap_or(Path::new(""));
    // The parents of a relative path end at the current folder; those of an absolute path go up to the root.
    let around = std::path::absolute(around).unwrap_or_else(|_| around.to_owned());
    let candidates: Vec<PathBuf> = match &options.assets {
        Some(assets) => vec![assets.join(folder).join(name), assets.join(name)],
        None => around
            .ancestors()
            .map(|a| a.join(folder).join(name))
            .collect(),
    };
    candidates
        .into_iter()
        .find(|path| path.is_file())
        .ok_or_else(|| ParityError::Asset {
            path: file.to_owned(),
            folder,
            name: name.to_owned(),
        })
}

/// Returns the embeddings of the classes with these indices: `[classes.len(), dim]`.
pub(crate) fn class_rows(
    embeddings: &ClassEmbeddings,
    classes: &[usize],
    device: &Device,
) -> Tensor<2> {
    let rows: Vec<i32> = classes.iter().map(|&class| class as i32).collect();
    let rows = Tensor::<1, Int>::from_data(TensorData::new(rows, [classes.len()]), device);
    embeddings.to_tensor(device).select(0, rows)
}
