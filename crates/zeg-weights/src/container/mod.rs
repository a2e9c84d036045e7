//! Files of named tensors, whatever their format.
//!
//! A format is told from a file's first bytes, never from its name: released weights come as `.pt`, `.pth`, `.bin` and
//! `.safetensors`, and the first three say nothing. Each reader gives the same thing: names, types, shapes and
//! places of tensors; the bytes stay in the file until they are asked for.

mod index;
mod legacy;
mod numpy;
mod safetensors;
mod torch;
mod zip;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
};

use ::safetensors::Dtype;
use serde::Serialize;

use crate::{
    WeightsError,
    error::Defect,
    pickle::{self, Document, PickleError},
    source::Source,
};

/// Most bytes of one pickle. Those of released checkpoints have well under a megabyte.
const MOST_PICKLE_BYTES: usize = 64 << 20;
/// Bytes of a pickle of unknown length that are read at first.
const FIRST_PICKLE_BYTES: usize = 1 << 12;
/// Bytes that tell the format; the mark of a tar file stands at 257.
const FORMAT_BYTES: usize = 512;
/// Most bytes that the directory of a zip file may take.
const MOST_DIRECTORY_BYTES: u64 = 8 << 20;

/// How a file holds its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum ContainerFormat {
    /// safetensors.
    Safetensors,
    /// Several files, listed in an index as Hugging Face writes it.
    Sharded,
    /// `torch.save`, the zip form (PyTorch 1.6 and later).
    TorchZip,
    /// `torch.jit.save`: TorchScript.
    TorchScript,
    /// `torch.save`, the stream form (before PyTorch 1.6).
    TorchLegacy,
    /// A pickled dict of NumPy arrays, as detectron2's model zoo has.
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

/// Where one tensor is, and how its numbers stand there.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct StoredTensor {
    pub(crate) dtype: Dtype,
    /// Sizes, slowest first.
    pub(crate) shape: Vec<usize>,
    /// Steps in elements, where the elements do not stand one after the other in the shape's order.
    pub(crate) strides: Option<Vec<usize>>,
    /// Position of the first element's first byte.
    pub(crate) start: u64,
    /// Elements from the first to the last one, both included; they all stand inside the file.
    pub(crate) span: usize,
}

/// What one file holds.
#[derive(Debug)]
pub(crate) struct Contents {
    pub(crate) format: ContainerFormat,
    pub(crate) tensors: BTreeMap<String, StoredTensor>,
    /// Free text of the header.
    pub(crate) metadata: BTreeMap<String, String>,
}

/// Files that Hugging Face and open_clip call a model's weights, the best first.
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

/// The file itself, or the weights of a folder as Hugging Face's programs write them.
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
                "a folder without weights under one of the names {}",
                FILES_OF_A_FOLDER.join(", ")
            ),
        })
}

/// Tells the format from the contents and reads the directory of tensors.
pub(crate) fn recognise(source: &Source) -> Result<Contents, Defect> {
    let start = source.up_to(0, FORMAT_BYTES)?;
    if start.starts_with(b"PK\x03\x04") {
        zip::read(source)
    } else if start.get(257..262) == Some(b"ustar") {
        Err(Defect::Tar)
    } else if start.first() == Some(&0x80) && start.get(1).is_some_and(|version| *version <= 5) {
        if legacy::begins(&start) {
            legacy::read(source)
        } else {
            numpy::read(source)
        }
    } else if start.get(8) == Some(&b'{') {
        safetensors::read(source)
    } else {
        Err(Defect::Format(format!(
            "neither safetensors nor a PyTorch file{} ({} bytes)",
            what_else(&start),
            source.length()
        )))
    }
}

/// What people have instead of weights: downloads that went wrong.
fn what_else(start: &[u8]) -> &'static str {
    let text = start.trim_ascii_start();
    if start.is_empty() {
        ", but empty"
    } else if text.starts_with(b"version https://git-lfs") {
        ", but a Git LFS pointer that stands for one"
    } else if text.starts_with(b"<") {
        ", but a web page"
    } else if start.starts_with(b"\x1f\x8b") {
        ", but something packed with gzip"
    } else {
        ""
    }
}

/// Reads the pickle at a position, whose length is known only when it has been read.
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
