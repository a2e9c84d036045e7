//! Tables of class embeddings: one row per class name, computed once by a text encoder.

use std::{
    fs::File,
    io::{BufReader, Read as _},
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor, TensorData};
use npyz::half::f16;
use zeg_vocab::classes::ClassSet;

use crate::{
    ModelError,
    weights::{HostTensor, StateDict, first_not_finite},
};

/// Name of the matrix in a `.safetensors` table.
const TENSOR: &str = "embeddings";
/// The first bytes of a `.npy` file.
const NPY_MAGIC: &[u8] = b"\x93NUMPY";
/// Key of the JSON list of names in a `.safetensors` table's metadata.
const NAMES: &str = "classes";

/// The formats of a table's file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum TableFormat {
    /// NumPy's format for one array.
    Npy,
    /// Named tensors, in any format of weights.
    Weights,
}

impl TableFormat {
    /// Recognises the format from the first bytes, whatever the extension is.
    fn of(path: &Path) -> Result<Self, ModelError> {
        let mut start = Vec::new();
        let read = File::open(path)
            .and_then(|file| file.take(NPY_MAGIC.len() as u64).read_to_end(&mut start));
        read.map_err(|source| ModelError::Read {
            path: path.to_owned(),
            source,
        })?;
        Ok(if start == NPY_MAGIC {
            Self::Npy
        } else {
            Self::Weights
        })
    }
}

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
    /// Reads a table, whose format is recognised from its contents.
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
        let (matrix, stored_names) = match TableFormat::of(path)? {
            TableFormat::Npy => (read_npy(path)?, None),
            TableFormat::Weights => {
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
        Self::new(names, matrix.values, dim, path.to_owned())
    }

    /// Returns a table from given rows.
    ///
    /// # Errors
    /// Returns an error if the values are not `names.len()` rows of `dim` numbers, or if a row has no direction, because
    /// it holds a value that is not finite or nothing but zeros.
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
        let defect = |row: &[f32]| match first_not_finite(row) {
            Some(index) => Some(format!("holds the value {}", row[index])),
            None => row
                .iter()
                .all(|value| *value == 0.0)
                .then(|| "holds nothing but zeros".to_owned()),
        };
        let mut rows = values.chunks_exact(dim.max(1)).zip(&names).enumerate();
        let bad = rows.find_map(|(number, (row, name))| Some((number, name, defect(row)?)));
        if let Some((number, name, defect)) = bad {
            let reason = format!("row {number} ({name}) of the class embeddings {defect}");
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

#[cfg(test)]
mod tests {
    use super::*;

    fn table(values: Vec<f32>) -> Result<ClassEmbeddings, ModelError> {
        let names = vec!["cat".to_owned(), "dog".to_owned()];
        ClassEmbeddings::new(names, values, 2, "table".into())
    }

    #[test]
    fn rows_without_a_direction_are_errors_that_name_the_class() {
        for (bad, reason) in [
            ([f32::NAN, 1.0], "holds the value NaN"),
            ([1.0, f32::INFINITY], "holds the value inf"),
            ([0.0, 0.0], "holds nothing but zeros"),
        ] {
            let error = table([[1.0, 0.0], bad].concat()).unwrap_err().to_string();
            assert!(error.contains("row 1 (dog)"), "{error}");
            assert!(error.contains(reason), "{error}");
        }
        assert!(table(vec![1.0, 0.0, 0.0, 1.0]).is_ok());
    }

    #[test]
    fn the_format_of_a_table_is_that_of_its_contents_not_of_its_name() {
        let folder = tempfile::tempdir().unwrap();
        let mut npy = b"\x93NUMPY\x01\x00\x76\x00".to_vec();
        let header = "{'descr': '<f4', 'fortran_order': False, 'shape': (2, 2), }";
        npy.extend(format!("{header:<117}\n").bytes());
        npy.extend(
            [1.0_f32, 0.0, 0.0, 1.0]
                .iter()
                .flat_map(|v| v.to_le_bytes()),
        );
        let path = folder.path().join("table.safetensors");
        std::fs::write(&path, npy).unwrap();
        let names = ["cat".to_owned(), "dog".to_owned()];
        let table = ClassEmbeddings::open(&path, Some(&names)).unwrap();
        assert_eq!(table.values(), [1.0, 0.0, 0.0, 1.0]);
    }
}
