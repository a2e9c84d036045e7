//! Files of class embeddings: a NumPy matrix without class names, or named tensors with them.

use std::{
    fs::File,
    io::{BufReader, Read as _},
    path::{Path, PathBuf},
};

use npyz::half::f16;
use zeg_vocab::classes::ClassSet;

use crate::{
    ModelError,
    embeddings::ClassEmbeddings,
    weights::{HostTensor, StateDict},
};

/// Name of the matrix in a `.safetensors` table.
const TENSOR: &str = "embeddings";
/// The first bytes of a `.npy` file.
const NPY_MAGIC: &[u8] = b"\x93NUMPY";
/// Number of first bytes that hold the whole header of every usual `.npy` file.
const MOST_HEADER_BYTES: u64 = 1 << 16;
/// Largest number of values in a table; larger ones fit into no memory.
const MOST_VALUES: u64 = 1 << 40;
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
        read.map_err(|error| ModelError::Read {
            path: path.to_owned(),
            source: zeg_base::file::read_error(path, error),
        })?;
        Ok(if start == NPY_MAGIC {
            Self::Npy
        } else {
            Self::Weights
        })
    }
}

/// A table of class embeddings as its file holds it, with or without class names.
#[derive(Debug, Clone, PartialEq)]
pub struct EmbeddingTable {
    /// Class names of the rows, if the file holds them.
    names: Option<Vec<String>>,
    /// `[rows, dim]`, row-major.
    values: Vec<f32>,
    rows: usize,
    dim: usize,
    path: PathBuf,
}

impl EmbeddingTable {
    /// Reads a table.
    ///
    /// - `.npy`: a matrix `[rows, dim]` of `f16`, `f32` or `f64`, without class names
    /// - `.safetensors`: the matrix `embeddings`; the metadata can hold the class names under `classes`, as a JSON list
    ///   or as the name of a built-in class list
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, holds no matrix, or has another
    /// number of rows than class names.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let format = |reason: String| ModelError::Format {
            path: path.to_owned(),
            reason,
        };
        let (matrix, names) = match TableFormat::of(path)? {
            TableFormat::Npy => (read_npy(path)?, None),
            TableFormat::Weights => {
                let dict = StateDict::open(path, &[])?;
                let matrix = dict
                    .read(TENSOR)?
                    .ok_or_else(|| format(format!("holds no tensor {TENSOR:?}")))?;
                let names = dict.metadata().get(NAMES).map(|text| names_in(text));
                (matrix, names.transpose().map_err(format)?)
            }
        };
        let [rows, dim] = matrix.shape[..] else {
            return Err(format(format!(
                "holds an array of shape {:?}, not a matrix [classes, dim]",
                matrix.shape
            )));
        };
        let table = Self {
            names: None,
            values: matrix.values,
            rows,
            dim,
            path: path.to_owned(),
        };
        if let Some(names) = &names {
            table.check_count(names)?;
        }
        Ok(Self { names, ..table })
    }

    /// Returns the class names of the rows, if the file holds them.
    pub fn names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the rows with the names in the file, or with the given names if the file holds none.
    ///
    /// # Errors
    /// Returns an error if the names are not as many as the rows.
    pub fn named(self, names: &[String]) -> Result<ClassEmbeddings, ModelError> {
        if self.names.is_none() {
            self.check_count(names)?;
        }
        let names = self.names.unwrap_or_else(|| names.to_vec());
        ClassEmbeddings::new(names, self.values, self.dim, self.path)
    }

    fn check_count(&self, names: &[String]) -> Result<(), ModelError> {
        if names.len() == self.rows {
            return Ok(());
        }
        Err(ModelError::Format {
            path: self.path.clone(),
            reason: format!("has {} rows for {} class names", self.rows, names.len()),
        })
    }
}

/// Returns the class names in the metadata of a table: a JSON list, or the name of a built-in class list.
fn names_in(text: &str) -> Result<Vec<String>, String> {
    if let Ok(set) = ClassSet::by_name(text.trim().trim_matches('"')) {
        return Ok(set.classes);
    }
    serde_json::from_str(text).map_err(|error| {
        format!("metadata {NAMES:?} is neither a JSON list nor the name of a class list: {error}")
    })
}

/// Returns whether the product of the sizes in the header of a `.npy` file is a possible number of bytes.
///
/// The library multiplies them without a check.
fn has_possible_shape(header: &[u8]) -> bool {
    let header = String::from_utf8_lossy(header);
    let Some((_, shape)) = header.split_once("shape") else {
        return true; // the library refuses the header
    };
    let shape = shape.split_once(')').map_or(shape, |(shape, _)| shape);
    let mut sizes = shape
        .split(|c: char| !c.is_ascii_digit())
        .filter(|size| !size.is_empty());
    let bytes = sizes.try_fold(1_u64, |product, size| {
        product.checked_mul(size.parse::<u64>().ok()?.max(1))
    });
    bytes.is_some_and(|bytes| bytes <= MOST_VALUES)
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
    let mut reader = BufReader::new(file);
    let mut header = Vec::new();
    let head = reader
        .by_ref()
        .take(MOST_HEADER_BYTES)
        .read_to_end(&mut header);
    head.map_err(format)?;
    if !has_possible_shape(&header) {
        return Err(ModelError::Format {
            path: path.to_owned(),
            reason: "the header states a shape that is larger than any memory".into(),
        });
    }
    let reader = std::io::Cursor::new(header).chain(reader);
    let npy = npyz::NpyFile::new(reader).map_err(format)?;
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
        let impossible = b"\x93NUMPY\x01\x00\x76\x00{'shape': (9223372036854775808, 4), }";
        assert!(!has_possible_shape(impossible) && has_possible_shape(b"{'shape': (2, 2)}"));
        let names = ["cat".to_owned(), "dog".to_owned()];
        let table = EmbeddingTable::open(&path).unwrap().named(&names).unwrap();
        assert_eq!(table.values(), [1.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn the_metadata_name_the_classes_or_their_list() {
        assert_eq!(names_in(r#"["a", "b"]"#).unwrap(), ["a", "b"]);
        assert_eq!(names_in("voc20").unwrap().len(), 20);
        assert_eq!(names_in("\"voc20\"").unwrap().len(), 20);
        assert!(names_in("voc22").is_err());
    }
}
