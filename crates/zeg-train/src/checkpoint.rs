//! Writes checkpoints; `zeg_model::checkpoint` defines their layout and reads them.
//!
//! A file is written under a temporary name and then renamed, so that a full disk or a crash leaves the previous file.

use std::{
    collections::{BTreeMap, HashMap},
    path::Path,
};

use safetensors::{Dtype, tensor::TensorView};
use zeg_base::file::{self, Overwrite};
pub use zeg_model::checkpoint::{BaseWeights, Checkpoint, CheckpointInfo, StoredClass};
use zeg_model::{
    checkpoint::{EMBEDDINGS, FORMAT, INFO_KEY},
    embeddings::ClassEmbeddings,
    method::{Architecture, Model},
    params::{ParamValues, kept_values},
};

use crate::{TrainError, optimizer::Moments};

const FIRST: &str = "optimizer.first.";
const SECOND: &str = "optimizer.second.";

/// The contents of a checkpoint.
pub struct Contents<'a> {
    /// Everything except the tensors; [`save`] fills in `format`, `writer` and `optimizer_time`.
    pub info: CheckpointInfo,
    /// Architecture of the model, which decides which parameters are stored.
    pub architecture: &'a dyn Architecture,
    /// The model.
    pub model: &'a dyn Model,
    /// Class embeddings for use after training.
    pub embeddings: &'a ClassEmbeddings,
    /// State of the optimiser; `None` after training has ended.
    pub moments: Option<BTreeMap<String, Moments>>,
}

/// Writes a checkpoint atomically.
///
/// # Errors
/// Returns an error if the file cannot be written; a previous file is then unchanged.
pub fn save(path: &Path, contents: Contents) -> Result<(), TrainError> {
    let Contents {
        mut info,
        architecture,
        model,
        embeddings,
        moments,
    } = contents;
    let mut tensors = kept_values(model, |key| architecture.keeps(key));
    let shape = vec![embeddings.names().len(), embeddings.dim()];
    tensors.push(ParamValues {
        name: EMBEDDINGS.to_owned(),
        shape,
        values: embeddings.values().to_vec(),
    });
    info.format = FORMAT;
    concat!("zeg ", env!("CARGO_PKG_VERSION")).clone_into(&mut info.writer);
    info.optimizer_time.clear();
    for (name, moments) in moments.into_iter().flatten() {
        info.optimizer_time.insert(name.clone(), moments.time);
        tensors.push(ParamValues {
            name: format!("{FIRST}{name}"),
            shape: vec![moments.first.len()],
            values: moments.first,
        });
        tensors.push(ParamValues {
            name: format!("{SECOND}{name}"),
            shape: vec![moments.second.len()],
            values: moments.second,
        });
    }
    let invalid = |reason: String| TrainError::Checkpoint {
        path: path.to_owned(),
        reason,
    };
    for tensor in &tensors {
        if let Some(value) = tensor.values.iter().find(|value| !value.is_finite()) {
            return Err(TrainError::NotFiniteWeight {
                step: info.step,
                name: tensor.name.clone(),
                value: *value,
            });
        }
    }
    let json = serde_json::to_string(&info).map_err(|error| invalid(error.to_string()))?;
    let metadata = HashMap::from([(INFO_KEY.to_owned(), json)]);
    let bytes: Vec<(String, Vec<usize>, Vec<u8>)> = tensors
        .into_iter()
        .map(|tensor| {
            let bytes = tensor.values.iter().flat_map(|v| v.to_le_bytes());
            (tensor.name, tensor.shape, bytes.collect())
        })
        .collect();
    let views = bytes
        .iter()
        .map(|(name, shape, bytes)| {
            Ok((
                name.as_str(),
                TensorView::new(Dtype::F32, shape.clone(), bytes)?,
            ))
        })
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(|error| invalid(error.to_string()))?;
    let file = safetensors::serialize(views, Some(metadata))
        .map_err(|error| invalid(error.to_string()))?;
    write_atomically(path, &file)
}

/// Writes a file atomically, and creates its folder if needed.
///
/// # Errors
/// Returns an error if the file cannot be written; a previous file is then unchanged.
pub fn write_atomically(path: &Path, bytes: &[u8]) -> Result<(), TrainError> {
    file::make_folder_of(path)
        .and_then(|()| file::write(path, bytes, Overwrite::Replace))
        .map_err(|source| TrainError::Write {
            path: path.to_owned(),
            source,
        })
}

/// Reads the optimiser's state from a checkpoint; empty if the file has none.
///
/// # Errors
/// Returns an error if a tensor that the metadata name is missing.
pub fn read_moments(checkpoint: &Checkpoint) -> Result<BTreeMap<String, Moments>, TrainError> {
    let times = checkpoint.info.optimizer_time.iter();
    times
        .map(|(name, &time)| {
            let first = checkpoint.read(&format!("{FIRST}{name}"))?.values;
            let second = checkpoint.read(&format!("{SECOND}{name}"))?.values;
            let moments = Moments {
                time,
                first,
                second,
            };
            Ok((name.clone(), moments))
        })
        .collect()
}
