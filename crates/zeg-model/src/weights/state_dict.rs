//! Named tensors of a safetensors file, read on demand as `f32`.
//!
//! Only the tensors that a model asks for are read and converted. Stored as `f32`, `f16`,
//! `bf16`, or compact: `int8` rows with a `float32` scale a row beside them in `<key>.scale`, where
//! value = int8 × scale rounded to `f16`.

use std::{collections::BTreeMap, fmt::Write as _, fs::File, io::Read, path::Path, sync::Arc};

use half::{bf16, f16};
use safetensors::{Dtype, tensor::TensorInfo};
use sha2::{Digest, Sha256};

use super::{families::KeyRules, file::WeightFile};
use crate::ModelError;

/// Suffix of the row scales that stand beside a compact matrix.
const SCALE_SUFFIX: &str = ".scale";

/// Matrices that the reference applies as `x @ M`: stored `[in, out]`, but compact rows are output channels, so
/// their compact form is the transpose.
const COMPACT_TRANSPOSED: [&str; 3] = ["visual.proj", "backbone.proj", "text_projection"];

/// A tensor in main memory, row-major.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Sizes, slowest first.
    pub shape: Vec<usize>,
    /// `shape.product()` values.
    pub values: Vec<f32>,
}

/// Where one tensor is.
#[derive(Debug, Clone)]
enum Stored {
    File(Entry),
    Memory(Arc<HostTensor>),
}

/// Where one tensor stands in one file.
#[derive(Debug, Clone)]
struct Entry {
    file: usize,
    /// Name inside the file.
    name: String,
    info: TensorInfo,
}

/// Named tensors of one or several files; later files win.
#[derive(Debug, Clone, Default)]
pub struct StateDict {
    files: Vec<Arc<WeightFile>>,
    entries: BTreeMap<String, Stored>,
    metadata: BTreeMap<String, String>,
    family: Option<&'static str>,
}

impl StateDict {
    /// Opens a safetensors file and names its tensors as the reference checkpoints do.
    ///
    /// # Errors
    /// The file cannot be read, is no safetensors file, or is shorter than its header says.
    pub fn open(path: &Path) -> Result<Self, ModelError> {
        let mut dict = Self::default();
        dict.add(path)?;
        Ok(dict)
    }

    /// Adds a file's tensors, replacing those of the same name.
    ///
    /// # Errors
    /// As [`StateDict::open`].
    pub fn add(&mut self, path: &Path) -> Result<(), ModelError> {
        let file = WeightFile::open(path)?;
        let metadata = file.metadata();
        let tensors = metadata.tensors();
        let rules = KeyRules::detect(tensors.keys().map(String::as_str));
        let index = self.files.len();
        for (name, info) in &tensors {
            // The scales of a compact matrix are read with it.
            if name
                .strip_suffix(SCALE_SUFFIX)
                .is_some_and(|matrix| tensors.contains_key(matrix))
            {
                continue;
            }
            let Some(key) = rules.rename(name) else {
                continue;
            };
            self.entries.insert(
                key,
                Stored::File(Entry {
                    file: index,
                    name: name.clone(),
                    info: TensorInfo::clone(info),
                }),
            );
        }
        if let Some(pairs) = metadata.metadata() {
            self.metadata.extend(
                pairs
                    .iter()
                    .map(|(key, value)| (key.clone(), value.clone())),
            );
        }
        self.family = Some(rules.family);
        self.files.push(Arc::new(file));
        Ok(())
    }

    /// Adds a tensor that is in memory, such as a generated one, replacing that of the same name.
    pub fn insert(&mut self, key: String, tensor: HostTensor) {
        self.entries.insert(key, Stored::Memory(Arc::new(tensor)));
    }

    /// Names of all tensors, sorted.
    pub fn keys(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Free text that the files carry in their headers.
    pub fn metadata(&self) -> &BTreeMap<String, String> {
        &self.metadata
    }

    /// The family of the file opened last, such as `"OpenAI CLIP"`.
    pub fn family(&self) -> &'static str {
        self.family.unwrap_or("no weights")
    }

    /// The files, in words.
    pub fn origin(&self) -> String {
        let names: Vec<_> = self
            .files
            .iter()
            .map(|file| file.path().display().to_string())
            .collect();
        if names.is_empty() && !self.entries.is_empty() {
            "weights in memory".to_owned()
        } else if names.is_empty() {
            "no weight file".to_owned()
        } else {
            names.join(" + ")
        }
    }

    /// Whether a tensor of this name is there.
    pub fn contains(&self, key: &str) -> bool {
        self.entries.contains_key(key)
    }

    /// Shape of a tensor, in the layout that [`StateDict::read`] returns.
    pub fn shape(&self, key: &str) -> Option<Vec<usize>> {
        let entry = match self.entries.get(key)? {
            Stored::File(entry) => entry,
            Stored::Memory(tensor) => return Some(tensor.shape.clone()),
        };
        let mut shape = entry.info.shape.clone();
        if is_transposed(entry) {
            shape.reverse();
        }
        Some(shape)
    }

    /// Reads a tensor as `f32`; `None` when there is none of this name.
    ///
    /// # Errors
    /// The stored type is not one of `f32`, `f16`, `bf16`, compact `int8`.
    pub fn read(&self, key: &str) -> Result<Option<HostTensor>, ModelError> {
        let entry = match self.entries.get(key) {
            Some(Stored::File(entry)) => entry,
            Some(Stored::Memory(tensor)) => return Ok(Some(HostTensor::clone(tensor))),
            None => return Ok(None),
        };
        let file = &self.files[entry.file];
        let bytes = &file.read(&entry.info)?;
        let values = match entry.info.dtype {
            Dtype::F32 => little_endian::<4, _>(bytes, f32::from_le_bytes),
            Dtype::F16 => little_endian::<2, _>(bytes, |b| f16::from_le_bytes(b).to_f32()),
            Dtype::BF16 => little_endian::<2, _>(bytes, |b| bf16::from_le_bytes(b).to_f32()),
            Dtype::I8 => return read_compact(file, entry, bytes).map(Some),
            other => {
                return Err(ModelError::Format {
                    path: file.path().to_owned(),
                    reason: format!(
                        "tensor {key:?} is stored as {other:?}; weights are F32, F16, BF16 or compact I8"
                    ),
                });
            }
        };
        Ok(Some(HostTensor {
            shape: entry.info.shape.clone(),
            values,
        }))
    }
}

fn read_compact(file: &WeightFile, entry: &Entry, bytes: &[u8]) -> Result<HostTensor, ModelError> {
    let format = |reason: String| ModelError::Format {
        path: file.path().to_owned(),
        reason,
    };
    let scale_name = format!("{}{SCALE_SUFFIX}", entry.name);
    let scale = file.metadata().info(&scale_name).ok_or_else(|| {
        format(format!(
            "compact tensor {:?} has no {scale_name:?} beside it",
            entry.name
        ))
    })?;
    let [rows, columns] = entry.info.shape[..] else {
        return Err(format(format!(
            "compact tensor {:?} has shape {:?}, not a matrix",
            entry.name, entry.info.shape
        )));
    };
    if scale.dtype != Dtype::F32 || scale.shape != [rows] {
        return Err(format(format!(
            "{scale_name:?} is {:?} {:?}, not F32 [{rows}]",
            scale.dtype, scale.shape
        )));
    }
    let scales = little_endian::<4, _>(&file.read(scale)?, f32::from_le_bytes);
    let mut values: Vec<f32> = bytes
        .chunks_exact(columns.max(1))
        .zip(&scales)
        .flat_map(|(row, &scale)| {
            row.iter()
                .map(move |&byte| f16::from_f32(f32::from(byte.cast_signed()) * scale).to_f32())
        })
        .collect(); // [rows, columns]
    let mut shape = entry.info.shape.clone();
    if is_transposed(entry) {
        values = (0..columns)
            .flat_map(|c| (0..rows).map(move |r| r * columns + c))
            .map(|i| values[i])
            .collect();
        shape.reverse();
    }
    Ok(HostTensor { shape, values })
}

fn is_transposed(entry: &Entry) -> bool {
    entry.info.dtype == Dtype::I8 && COMPACT_TRANSPOSED.contains(&entry.name.as_str())
}

fn little_endian<const N: usize, T>(bytes: &[u8], convert: impl Fn([u8; N]) -> T) -> Vec<T> {
    bytes
        .as_chunks::<N>()
        .0
        .iter()
        .map(|chunk| convert(*chunk))
        .collect()
}

/// SHA-256 of a file, in lower-case hexadecimal digits.
///
/// # Errors
/// The file cannot be read.
pub fn file_sha256(path: &Path) -> Result<String, ModelError> {
    let read = |source| ModelError::Read {
        path: path.to_owned(),
        source,
    };
    let mut file = File::open(path).map_err(read)?;
    let mut hasher = Sha256::new();
    let mut buffer = vec![0; 1 << 20];
    loop {
        let count = file.read(&mut buffer).map_err(read)?;
        if count == 0 {
            break;
        }
        hasher.update(&buffer[..count]);
    }
    let mut digits = String::with_capacity(64);
    for byte in hasher.finalize() {
        // Writing to a string cannot fail.
        let _ = write!(digits, "{byte:02x}");
    }
    Ok(digits)
}
