//! Tables of class embeddings: one row per class name, computed once by a text encoder.

use std::{
    fs::File,
    io::BufReader,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor, TensorData};
use npyz::half::f16;
use zeg_vocab::classes::ClassSet;

use crate::{
    ModelError,
    weights::{HostTensor, StateDict},
};

/// Name of the matrix in a `.safetensors` table.
const TENSOR: &str = "embeddings";
/// Key of the JSON list of names in a `.safetensors` table's metadata.
const NAMES: &str = "classes";

/// A table of class embeddings with their class names.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassEmbeddings {
    names: Vec<String>,
    /// `[classes, dim]`, row-major, unit rows up to the precision they were stored in.
    values: Vec<f32>,
    dim: usize,
    origin: PathBuf,
}

impl ClassEmbeddings {
    /// Reads a table.
    ///
    /// - `.npy`: a matrix `[classes, dim]` of `f16`, `f32` or `f64`. The file holds no class names. They come from
    ///   `names`, or, if that is `None`, from the class list of the benchmark with that many classes (20: VOC, 171:
    ///   COCO-Stuff, 59 and 60: PASCAL Context).
    /// - `.safetensors`: the matrix `embeddings`, with the names as a JSON list under `classes` in the metadata
    ///   (or `names`).
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, holds no matrix, or has another number of rows than there are
    /// names.
    pub fn open(path: &Path, names: Option<&[String]>) -> Result<Self, ModelError> {
        let format = |reason: String| ModelError::Format {
            path: path.to_owned(),
            reason,
        };
        let extension = path
            .extension()
            .and_then(|e| e.to_str())
            .unwrap_or_default()
            .to_ascii_lowercase();
        let (matrix, stored_names) = match extension.as_str() {
            "npy" => (read_npy(path)?, None),
            "safetensors" => {
                let dict = StateDict::open(path, &[])?;
                let matrix = dict
                    .read(TENSOR)?
                    .ok_or_else(|| format(format!("holds no tensor {TENSOR:?}")))?;
                let names = dict
                    .metadata()
                    .get(NAMES)
                    .map(|json| serde_json::from_str::<Vec<String>>(json));
                (
                    matrix,
                    names.transpose().map_err(|e| {
                        format(format!("metadata {NAMES:?} is not a JSON list: {e}"))
                    })?,
                )
            }
            _ => {
                return Err(format(
                    "class embeddings must be .npy or .safetensors".into(),
                ));
            }
        };
        let [rows, dim] = matrix.shape[..] else {
            return Err(format(format!(
                "holds an array of shape {:?}, not a matrix [classes, dim]",
                matrix.shape
            )));
        };
        let names = match (names, stored_names) {
            (Some(names), _) => names.to_vec(),
            (None, Some(stored)) => stored,
            (None, None) => names_by_count(rows).ok_or_else(|| {
                format(format!(
                    "has {rows} rows and no class names, and no benchmark has {rows} classes"
                ))
            })?,
        };
        if names.len() != rows {
            return Err(format(format!(
                "has {rows} rows for {} class names",
                names.len()
            )));
        }
        if let Some(position) = matrix.values.iter().position(|v| !v.is_finite()) {
            return Err(format(format!(
                "row {} ({}) holds values that are not finite",
                position / dim,
                names[position / dim]
            )));
        }
        Ok(Self {
            names,
            values: matrix.values,
            dim,
            origin: path.to_owned(),
        })
    }

    /// Returns a table from given rows.
    ///
    /// # Errors
    /// Returns an error if the values are not `names.len()` rows of `dim` numbers.
    pub fn new(
        names: Vec<String>,
        values: Vec<f32>,
        dim: usize,
        origin: PathBuf,
    ) -> Result<Self, ModelError> {
        if values.len() != names.len() * dim {
            let reason = format!(
                "holds {} values, which are not {} rows of {dim}",
                values.len(),
                names.len()
            );
            return Err(ModelError::Format {
                path: origin,
                reason,
            });
        }
        Ok(Self {
            names,
            values,
            dim,
            origin,
        })
    }

    /// Returns the class names, one per row.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the length of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Returns all rows: `[classes, dim]`, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns the rows of some classes, in the order given. A class with several names gets the mean of their rows,
    /// normalised to unit length.
    ///
    /// Names are compared without regard to case, spaces, hyphens and underscores.
    ///
    /// # Errors
    /// Returns an error if a name has no row.
    pub fn select(&self, classes: &[Vec<String>]) -> Result<Self, ModelError> {
        let mut values = Vec::with_capacity(classes.len() * self.dim);
        for names in classes {
            let rows = names
                .iter()
                .map(|name| self.row(name))
                .collect::<Result<Vec<_>, _>>()?;
            match rows[..] {
                [row] => values.extend_from_slice(row),
                _ => values.extend(mean_direction(&rows, self.dim)),
            }
        }
        let names = classes
            .iter()
            .map(|names| names.first().cloned().unwrap_or_default())
            .collect();
        Ok(Self {
            names,
            values,
            dim: self.dim,
            origin: self.origin.clone(),
        })
    }

    fn row(&self, name: &str) -> Result<&[f32], ModelError> {
        let wanted = folded(name);
        let index = self
            .names
            .iter()
            .position(|n| folded(n) == wanted)
            .ok_or_else(|| ModelError::UnknownClass {
                name: name.to_owned(),
                table: self.origin.display().to_string(),
                known: shortened(&self.names),
            })?;
        Ok(&self.values[index * self.dim..(index + 1) * self.dim])
    }

    /// Copies the rows to a device: `[classes, dim]`.
    pub fn to_tensor(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(
            TensorData::new(self.values.clone(), [self.names.len(), self.dim]),
            device,
        )
    }
}

fn mean_direction(rows: &[&[f32]], dim: usize) -> Vec<f32> {
    let mut mean = vec![0.0_f32; dim];
    for row in rows {
        for (sum, value) in mean.iter_mut().zip(*row) {
            *sum += value;
        }
    }
    let length = mean
        .iter()
        .map(|v| v * v)
        .sum::<f32>()
        .sqrt()
        .max(f32::MIN_POSITIVE);
    mean.into_iter().map(|v| v / length).collect()
}

/// Returns whether two class names are equal, without regard to case, spaces, hyphens and underscores.
pub fn same_name(a: &str, b: &str) -> bool {
    folded(a) == folded(b)
}

fn folded(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, ' ' | '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 24;
    let list = names
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        format!("{list}, … ({} in all)", names.len())
    } else {
        list
    }
}

fn names_by_count(rows: usize) -> Option<Vec<String>> {
    ClassSet::names()
        .iter()
        .filter_map(|name| ClassSet::by_name(name).ok())
        .find(|set| set.len() == rows)
        .map(|set| set.classes.clone())
}

fn read_npy(path: &Path) -> Result<HostTensor, ModelError> {
    let file = File::open(path).map_err(|source| ModelError::Read {
        path: path.to_owned(),
        source,
    })?;
    let format = |error: std::io::Error| ModelError::Format {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let npy = npyz::NpyFile::new(BufReader::new(file)).map_err(format)?;
    if npy.order() == npyz::Order::Fortran {
        return Err(ModelError::Format {
            path: path.to_owned(),
            reason: "is in column-major (Fortran) order; save it in C order".into(),
        });
    }
    let shape = npy.shape().iter().map(|&n| n as usize).collect();
    let dtype = npy.dtype();
    let values = match dtype.descr().trim_matches('\'') {
        "<f2" => npy
            .into_vec::<f16>()
            .map_err(format)?
            .into_iter()
            .map(f16::to_f32)
            .collect(),
        "<f4" => npy.into_vec::<f32>().map_err(format)?,
        "<f8" => npy
            .into_vec::<f64>()
            .map_err(format)?
            .into_iter()
            .map(|v| v as f32)
            .collect(),
        other => {
            let reason =
                format!("holds values of type {other}; class embeddings must be f2, f4 or f8");
            return Err(ModelError::Format {
                path: path.to_owned(),
                reason,
            });
        }
    };
    Ok(HostTensor { shape, values })
}
