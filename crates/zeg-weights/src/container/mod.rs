//! Recognises the format of a weight file and lists its tensors.
//!
//! The format is recognised from the first bytes, never from the name: released weights have the extensions `.pt`,
//! `.pth`, `.bin` and `.safetensors`, of which the first three do not determine the format. Every reader returns names,
//! types, shapes and positions of the tensors; the values are read later, on demand.

mod index;
mod legacy;
mod numpy;
mod record;
mod safetensors;
mod state_dict_of;
mod torch;
mod zip;

pub(crate) use self::record::Record;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ::safetensors::Dtype;
use serde::Serialize;

use zeg_base::content::{StandIn, stand_in};

use crate::{
    WeightsError,
    error::Defect,
    pickle::{self, Document, PickleError},
    source::Source,
};

/// Metadata key of a checkpoint of mmcv, and of a file imported from one, whose value is `true` if the model was trained
/// on its own labels for unseen classes, else `false`.
pub const SELF_TRAINING_KEY: &str = "mmcv.self-training";
/// The largest size of a pickle, in bytes; those of released checkpoints have well under a megabyte.
const MOST_PICKLE_BYTES: usize = 64 << 20;
/// Number of bytes that are read at first from a pickle of unknown length.
const FIRST_PICKLE_BYTES: usize = 1 << 12;
/// Number of bytes that are enough to recognise every format; the signature of a tar file is at 257.
const FORMAT_BYTES: usize = 512;
/// The largest size of the directory of a zip file, in bytes.
const MOST_DIRECTORY_BYTES: u64 = 8 << 20;

/// The container format of a weight file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ContainerFormat {
    /// A safetensors file.
    Safetensors,
    /// Several files with an index, in the form of Hugging Face.
    Sharded,
    /// The zip format of `torch.save` (PyTorch 1.6 and later).
    TorchZip,
    /// TorchScript, the format of `torch.jit.save`.
    TorchScript,
    /// The stream format of `torch.save` (before PyTorch 1.6).
    TorchLegacy,
    /// A pickled dict of NumPy arrays, the format of detectron2's model zoo.
    Numpy,
}

impl std::fmt::Display for ContainerFormat {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Safetensors => "safetensors",
            Self::Sharded => "sharded (Hugging Face index)",
            Self::TorchZip => "PyTorch (zip)",
            Self::TorchScript => "TorchScript",
            Self::TorchLegacy => "PyTorch (legacy stream)",
            Self::Numpy => "pickled NumPy arrays",
        })
    }
}

/// The position, type and layout of a tensor in a file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredTensor {
    pub(crate) dtype: Dtype,
    /// Sizes of the dimensions, outermost first.
    pub(crate) shape: Vec<usize>,
    /// Strides in elements; `None` if the elements are contiguous in row-major order.
    pub(crate) strides: Option<Vec<usize>>,
    /// Position in the file of the first byte of the first element.
    pub(crate) start: u64,
    /// Number of elements from the first to the last one, both included; all of them lie inside the file.
    pub(crate) span: usize,
}

/// The format, tensors and metadata of a file.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) format: ContainerFormat,
    pub(crate) tensors: BTreeMap<String, StoredTensor>,
    /// Metadata in the header.
    pub(crate) metadata: BTreeMap<String, String>,
    /// Keys of a checkpoint that hold other weights of the same model, which are not read.
    pub(crate) passed_over: Vec<String>,
    /// Records of an archive that hold values of tensors, with their checksums; none for other formats.
    pub(crate) records: Vec<Record>,
}

/// Names that Hugging Face and open_clip give to the weights of a model, in order of preference.
const FILES_OF_A_FOLDER: [&str; 7] = [
    "model.safetensors",
    "open_clip_model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "open_clip_pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "model.pt",
];

/// Opens a file, the files that an index lists, or the weights of a model's folder.
pub(crate) fn open(path: &Path) -> Result<Vec<(Source, Contents)>, WeightsError> {
    let path = &weights_of(path)?;
    let source = Source::open(path)?;
    if index::is_index(&source).map_err(|defect| defect.of(path))? {
        return index::open(&source);
    }
    let contents = recognise(&source).map_err(|defect| defect.of(path))?;
    Ok(vec![(source, contents)])
}

/// Returns the paths of all files that weights are read from: of an index, the index first and then the files that it
/// lists, sorted by name; of a folder, those of the weights in it.
pub(crate) fn files(path: &Path) -> Result<Vec<PathBuf>, WeightsError> {
    let path = weights_of(path)?;
    let source = Source::open(&path)?;
    let mut files = vec![path];
    if index::is_index(&source).map_err(|defect| defect.of(source.path()))? {
        files.extend(index::files(&source)?);
    }
    Ok(files)
}

/// Returns the path itself, or the path of the weights if it is a folder.
fn weights_of(path: &Path) -> Result<PathBuf, WeightsError> {
    if !path.is_dir() {
        return Ok(path.to_owned());
    }
    FILES_OF_A_FOLDER
        .iter()
        .map(|name| path.join(name))
        .find(|file| file.is_file())
        .ok_or_else(|| WeightsError::Format {
            path: path.to_owned(),
            reason: format!(
                "the folder has no weights under any of the names {}",
                FILES_OF_A_FOLDER.join(", ")
            ),
        })
}

/// Recognises the format from the contents and reads the list of tensors.
pub(crate) fn recognise(source: &Source) -> Result<Contents, Defect> {
    let start = source.up_to(0, FORMAT_BYTES)?;
    // The length at the start of a safetensors file can look like the start of any other format, so the format with the
    // most evidence is asked for first.
    if safetensors::begins(&start) {
        safetensors::read(source)
    } else if start.starts_with(b"PK\x03\x04") {
        zip::read(source)
    } else if start.get(257..262) == Some(b"ustar") {
        Err(Defect::Tar)
    } else if start.first() == Some(&0x80) && start.get(1).is_some_and(|version| *version <= 5) {
        if legacy::begins(&start) {
            legacy::read(source)
        } else {
            numpy::read(source)
        }
    } else if start.get(8) == Some(&b'{') && stand_in(&start).is_none() {
        safetensors::read(source)
    } else {
        Err(Defect::Format(format!(
            "neither a safetensors nor a PyTorch file{} ({} bytes)",
            but(&start),
            source.length()
        )))
    }
}

/// First bytes of files that people take for weights, with their names.
const OTHER_FILES: [(&[u8], &str); 7] = [
    (b"GGUF", "a GGUF file"),
    (b"\x89HDF\r\n", "an HDF5 file, such as of Keras"),
    (b"\x93NUMPY", "a NumPy array without tensor names"),
    (b"\x89PNG\r\n", "a PNG image"),
    (b"\xFF\xD8\xFF", "a JPEG image"),
    (b"%PDF", "a PDF"),
    (
        b"\0\x05\x16\x07",
        "a resource fork of macOS; the file has the same name without `._`",
    ),
];

/// Names what the file is instead, such as the result of a failed download.
fn but(start: &[u8]) -> String {
    let mut others = OTHER_FILES.iter();
    let other = others.find(|(bytes, _)| start.starts_with(bytes));
    let name = other.map(|(_, name)| *name);
    let name = name.or_else(|| stand_in(start).map(StandIn::name));
    name.map_or_else(String::new, |name| format!(", but {name}"))
}

/// Reads the pickle at a position, with more and more bytes, because its length is known only after reading it.
fn pickle_at<T>(
    source: &Source,
    position: u64,
    interpret: impl FnOnce(&Document<'_>) -> Result<T, Defect>,
) -> Result<T, Defect> {
    let mut size = FIRST_PICKLE_BYTES;
    loop {
        let bytes = source.up_to(position, size)?;
        match pickle::read(&bytes) {
            Err(PickleError::CutOff) if bytes.len() == size && size < MOST_PICKLE_BYTES => {
                size = size.saturating_mul(16).min(MOST_PICKLE_BYTES);
            }
            Err(error) => return Err(error.into()),
            Ok(document) => return interpret(&document),
        }
    }
}
