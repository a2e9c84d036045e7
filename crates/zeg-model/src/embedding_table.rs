//! Files of class embeddings: a NumPy matrix without class names, or named tensors with them.

mod npy;

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use serde_json::json;
use zeg_vocab::classes::ClassSet;

use self::npy::read_npy;
use crate::{
    ModelError, checkpoint,
    embeddings::ClassEmbeddings,
    weights::{HostTensor, StateDict},
};

/// Name of the matrix in a `.safetensors` table.
const TENSOR: &str = "embeddings";
/// The first bytes of a `.npy` file.
const NPY_MAGIC: &[u8] = b"\x93NUMPY";
/// The first bytes of a zip file, and the end of the names of a NumPy archive's entries.
const ZIP_MAGIC: &[u8] = b"PK\x03\x04";
const NPZ_ENTRY: &[u8] = b".npy";
/// Number of first bytes that show the format.
const START: usize = 64;
/// Keys of the class names in a `.safetensors` table's metadata, the first one ours.
const NAMES: [&str; 3] = ["classes", "class_names", "names"];
/// Largest difference of a row's length from 1 that the precision of the stored numbers explains.
const STORED_PRECISION: f64 = 1e-3;

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
        let read =
            File::open(path).and_then(|file| file.take(START as u64).read_to_end(&mut start));
        read.map_err(|error| ModelError::Read {
            path: path.to_owned(),
            source: zeg_base::file::read_error(path, error),
        })?;
        if start.starts_with(NPY_MAGIC) {
            return Ok(Self::Npy);
        }
        // The name of the first entry stands in the first bytes of an archive.
        let names_array = start
            .windows(NPZ_ENTRY.len())
            .any(|bytes| bytes == NPZ_ENTRY);
        if start.starts_with(ZIP_MAGIC) && names_array {
            return Err(layout(
                path,
                "is an archive of several arrays (.npz); save the one array of class embeddings as .npy".into(),
            ));
        }
        Ok(Self::Weights)
    }
}

/// Returns the error for a file that is intact, but is no table of class embeddings.
fn layout(path: &Path, reason: String) -> ModelError {
    ModelError::Table {
        path: path.to_owned(),
        reason,
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
    /// Type of the stored numbers, such as `f32`.
    dtype: String,
    /// Lengths of the shortest and the longest row in the file.
    lengths: [f64; 2],
    path: PathBuf,
}

impl EmbeddingTable {
    /// Reads a table.
    ///
    /// - `.npy`: a matrix `[rows, dim]` of `f16`, `f32` or `f64`, without class names
    /// - `.safetensors`: the matrix `embeddings`; the metadata can hold the class names under `classes`, as a JSON list
    ///   or as the name of a built-in class list; the keys `class_names` and `names` of other programs count, too
    ///
    /// Rows that do not have unit length are normalised, because models are trained with unit rows.
    ///
    /// # Errors
    /// Returns an error if the file cannot be read, holds no matrix, or has another
    /// number of rows than class names.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let (matrix, dtype, names) = match TableFormat::of(path)? {
            TableFormat::Npy => {
                let (matrix, dtype) = read_npy(path)?;
                (matrix, dtype.to_owned(), None)
            }
            TableFormat::Weights => {
                let dict = StateDict::open(path, &[])?;
                let matrix = dict
                    .read(TENSOR)?
                    .ok_or_else(|| layout(path, other_tensors(&dict)))?;
                let names = NAMES.iter().find_map(|key| {
                    let text = dict.metadata().get(*key)?;
                    Some(names_in(key, text).map_err(|reason| layout(path, reason)))
                });
                let dtype = dict.stored_type(TENSOR).unwrap_or_default();
                (matrix, dtype, names.transpose()?)
            }
        };
        let HostTensor { shape, mut values } = matrix;
        let [rows, dim] = shape[..] else {
            let reason =
                format!("holds an array of shape {shape:?}, not a matrix of shape [classes, dim]");
            return Err(layout(path, reason));
        };
        let table = Self {
            names: None,
            lengths: normalise(&mut values, dim),
            values,
            rows,
            dim,
            dtype,
            path: path.to_owned(),
        };
        if let Some(names) = &names {
            table.check_count(names)?;
        }
        Ok(Self { names, ..table })
    }

    /// Returns whether a file is a NumPy array, or an archive of arrays, by its first bytes.
    pub fn is_array(path: &Path) -> bool {
        matches!(
            TableFormat::of(path),
            Ok(TableFormat::Npy) | Err(ModelError::Table { .. })
        )
    }

    /// Returns whether weights are a table of class embeddings.
    pub fn is_in(weights: &StateDict) -> bool {
        weights.shape(TENSOR).is_some_and(|shape| shape.len() == 2)
    }

    /// Returns the class names of the rows, if the file holds them.
    pub fn names(&self) -> Option<&[String]> {
        self.names.as_deref()
    }

    /// Returns the number of rows.
    pub fn rows(&self) -> usize {
        self.rows
    }

    /// Returns the length of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Returns the type of the stored numbers, such as `f32`.
    pub fn dtype(&self) -> &str {
        &self.dtype
    }

    /// Returns the Euclidean lengths of the shortest and the longest row in the file, before they are normalised.
    pub fn lengths(&self) -> [f64; 2] {
        self.lengths
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
        Err(layout(
            &self.path,
            format!("has {} rows for {} class names", self.rows, names.len()),
        ))
    }
}

/// Returns the bytes of a `.safetensors` table, which [`EmbeddingTable::open`] reads.
///
/// - `names`: class names of the rows
/// - `templates`: name of the prompt templates, for the metadata
pub fn table_bytes(embeddings: &ClassEmbeddings, names: &[String], templates: &str) -> Vec<u8> {
    let values = embeddings.values();
    let header = json!({
        "__metadata__": { NAMES[0]: json!(names).to_string(), "templates": templates },
        TENSOR: {
            "dtype": "F32",
            "shape": [embeddings.names().len(), embeddings.dim()],
            "data_offsets": [0, size_of_val(values)],
        },
    });
    let mut header = header.to_string().into_bytes();
    header.resize(header.len().next_multiple_of(8), b' ');
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header);
    bytes.extend(values.iter().flat_map(|value| value.to_le_bytes()));
    bytes
}

/// Divides every row by its length, unless it has unit length up to the precision of stored numbers.
///
/// A row without a direction stays as it is; [`ClassEmbeddings::new`] refuses it.
///
/// Returns the lengths of the shortest and the longest row.
fn normalise(values: &mut [f32], dim: usize) -> [f64; 2] {
    let mut lengths: Option<[f64; 2]> = None;
    for row in values.chunks_exact_mut(dim.max(1)) {
        let squares = row.iter().map(|value| f64::from(*value).powi(2));
        let length = squares.sum::<f64>().sqrt();
        let [shortest, longest] = lengths.unwrap_or([length; 2]);
        lengths = Some([shortest.min(length), longest.max(length)]);
        if length > 0.0 && length.is_finite() && (length - 1.0).abs() > STORED_PRECISION {
            for value in row {
                *value = (f64::from(*value) / length) as f32;
            }
        }
    }
    lengths.unwrap_or([1.0; 2])
}

/// Says what a file of weights without the matrix of a table holds instead.
fn other_tensors(weights: &StateDict) -> String {
    const SHOWN: usize = 3;
    if weights.contains(checkpoint::EMBEDDINGS) {
        return "is a checkpoint, not a table of class embeddings; a checkpoint holds its class embeddings itself"
            .into();
    }
    let all: Vec<&str> = weights.keys().collect();
    let shown = all.iter().take(SHOWN).map(|key| {
        let shape = weights.shape(key).unwrap_or_default();
        format!("{key:?} {shape:?}")
    });
    let mut shown: Vec<String> = shown.collect();
    if all.len() > SHOWN {
        shown.push(format!("… ({} in all)", all.len()));
    }
    format!(
        "holds no matrix {TENSOR:?} [classes, dim]; its tensors are {}",
        shown.join(", ")
    )
}

/// Returns the class names in the metadata of a table: a JSON list, or the name of a built-in class list.
///
/// - `key`: the metadata's key
fn names_in(key: &str, text: &str) -> Result<Vec<String>, String> {
    if let Ok(set) = ClassSet::by_name(text.trim().trim_matches('"')) {
        return Ok(set.classes);
    }
    serde_json::from_str(text).map_err(|error| {
        format!("metadata {key:?} is neither a JSON list of class names nor the name of a class list: {error}")
    })
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
        let names = ["cat".to_owned(), "dog".to_owned()];
        let table = EmbeddingTable::open(&path).unwrap().named(&names).unwrap();
        assert_eq!(table.values(), [1.0, 0.0, 0.0, 1.0]);
    }

    #[test]
    fn the_metadata_name_the_classes_or_their_list() {
        assert_eq!(names_in("classes", r#"["a", "b"]"#).unwrap(), ["a", "b"]);
        assert_eq!(names_in("classes", "voc20").unwrap().len(), 20);
        assert_eq!(names_in("classes", "\"voc20\"").unwrap().len(), 20);
        assert!(names_in("classes", "voc22").is_err());
    }

    fn table(names: &[&str], values: Vec<f32>, dim: usize) -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.safetensors");
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let embeddings = ClassEmbeddings::new(names.clone(), values, dim, path.clone()).unwrap();
        std::fs::write(&path, table_bytes(&embeddings, &names, "single")).unwrap();
        (folder, path)
    }

    #[test]
    fn a_written_table_is_read_with_its_names_and_unit_rows() {
        let (_folder, path) = table(&["cat", "tv, television"], vec![3.0, 4.0, 0.0, 1.0], 2);
        let found = EmbeddingTable::open(&path).unwrap();
        assert_eq!(found.names().unwrap(), ["cat", "tv, television"]);
        assert_eq!((found.rows(), found.dim()), (2, 2));
        assert_eq!(found.dtype(), "f32");
        assert_eq!(found.lengths().as_slice(), [1.0, 5.0]);
        let rows = found.named(&[]).unwrap();
        assert_eq!(rows.values(), [0.6, 0.8, 0.0, 1.0]);
    }

    #[test]
    fn names_of_other_programs_count_and_must_be_as_many_as_the_rows() {
        let (_folder, path) = table(&["cat", "dog"], vec![1.0, 0.0, 0.0, 1.0], 2);
        let text = std::fs::read(&path).unwrap();
        // The key keeps its length, because the header states it.
        let other = replaced(&text, b"\"classes\":", b"\"names\":  ");
        std::fs::write(&path, other).unwrap();
        let found = EmbeddingTable::open(&path).unwrap();
        assert_eq!(found.names().unwrap(), ["cat", "dog"]);
        let other = replaced(
            &text,
            b"[\\\"cat\\\",\\\"dog\\\"]",
            b"[\\\"cat_____dog\\\"]",
        );
        std::fs::write(&path, other).unwrap();
        let error = EmbeddingTable::open(&path).unwrap_err().to_string();
        assert!(error.contains("2 rows for 1 class names"), "{error}");
    }

    /// Returns bytes with a part replaced by another of the same length.
    fn replaced(bytes: &[u8], from: &[u8], to: &[u8]) -> Vec<u8> {
        assert_eq!(from.len(), to.len());
        let at = bytes.windows(from.len()).position(|part| part == from);
        let at = at.unwrap();
        [&bytes[..at], to, &bytes[at + from.len()..]].concat()
    }

    #[test]
    fn a_file_that_is_no_table_is_told_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("table.npz");
        std::fs::write(&path, b"PK\x03\x04 an entry text.npy and its array").unwrap();
        let error = EmbeddingTable::open(&path).unwrap_err();
        assert!(
            matches!(&error, ModelError::Table { reason, .. } if reason.contains(".npz")),
            "{error}"
        );
        let mut weights = StateDict::default();
        let matrix = HostTensor {
            shape: vec![2, 1],
            values: vec![1.0; 2],
        };
        weights.insert("text.weight".into(), matrix.clone());
        assert!(!EmbeddingTable::is_in(&weights));
        assert!(other_tensors(&weights).contains("\"text.weight\" [2, 1]"));
        weights.insert(checkpoint::EMBEDDINGS.into(), matrix.clone());
        assert!(other_tensors(&weights).contains("is a checkpoint"));
        weights.insert(TENSOR.into(), matrix);
        assert!(EmbeddingTable::is_in(&weights));
    }
}
