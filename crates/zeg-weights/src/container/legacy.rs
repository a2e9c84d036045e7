//! Reads the format of `torch.save` before PyTorch 1.6: a stream of pickles, followed by the storages.
//!
//! The pickles are a magic number, the version of the protocol, properties of the machine, the saved object, and the
//! keys of the storages in the order in which they follow. A storage is its number of elements in 8 bytes, then the
//! elements. The lengths of the pickles are not stated; each ends with its last opcode.

use std::collections::HashMap;

use super::{ContainerFormat, Contents, pickle_at, torch};
use crate::{
    error::Defect,
    pickle::{Document, StorageRef, Value},
    source::Source,
};

/// The magic number 0x1950a86a20f9469cfc6c in the first pickle, little-endian.
const MAGIC: [u8; 10] = [0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];
/// The only version of the protocol.
const VERSION: i64 = 1001;

/// Returns whether the first bytes are those of this format: the magic number after its opcode and length.
pub(super) fn begins(start: &[u8]) -> bool {
    start.get(4..14) == Some(&MAGIC)
}

pub(super) fn read(source: &Source) -> Result<Contents, Defect> {
    let mut at = 0;
    let mut next = |interpret: &mut dyn FnMut(&Document<'_>) -> Result<(), Defect>| {
        let length = pickle_at(source, at, |document| {
            interpret(document)?;
            Ok(document.length)
        })?;
        let start = at;
        at = at.saturating_add(length as u64);
        Ok::<u64, Defect>(start)
    };
    next(&mut |document| match document.root() {
        Some(Value::LongInt(bytes)) if bytes.starts_with(&MAGIC) => Ok(()),
        _ => Err(Defect::format(
            "a pickle that torch.save has not written; save the state dict with torch.save or as safetensors",
        )),
    })?;
    next(&mut |document| match document.int(document.root) {
        Some(VERSION) => Ok(()),
        Some(other) => Err(Defect::Format(format!(
            "version {other} of PyTorch's legacy format is not supported; only {VERSION} is"
        ))),
        None => Err(Defect::format(
            "the version of PyTorch's legacy format is not a number",
        )),
    })?;
    next(&mut little_endian)?;
    // The object is interpreted only after the storages have been located, for which its element types are needed.
    let mut types = HashMap::new();
    let object = next(&mut |document| {
        types = element_sizes(document)?;
        Ok(())
    })?;
    let mut keys = Vec::new();
    next(&mut |document| {
        keys = document
            .elements(document.root)
            .and_then(|ids| ids.iter().map(|id| key_of(document, *id)).collect())
            .ok_or_else(|| Defect::format("the list of storages is damaged"))?;
        Ok(())
    })?;
    let extents = extents(source, at, &keys, &types)?;
    let tensors = pickle_at(source, object, |document| {
        torch::tensors(document, |tensor| {
            torch::view(document, tensor, |storage| locate(&extents, storage))
        })
    })?;
    Ok(Contents {
        format: ContainerFormat::TorchLegacy,
        tensors: tensors.named,
        metadata: tensors.metadata,
        passed_over: tensors.passed_over,
        records: Vec::new(),
    })
}

/// Returns an error if the file was written on a big-endian machine.
fn little_endian(document: &Document<'_>) -> Result<(), Defect> {
    let order = document
        .pairs(document.root)
        .and_then(|pairs| document.entry(pairs, "little_endian"))
        .and_then(|id| document.get(id));
    match order {
        Some(Value::Bool(true)) => Ok(()),
        Some(Value::Bool(false)) => Err(Defect::format(
            "the values are big-endian; save the file again on a little-endian machine",
        )),
        _ => Err(Defect::format("the file does not state its byte order")),
    }
}

fn key_of(document: &Document<'_>, id: crate::pickle::Id) -> Option<Vec<u8>> {
    document.text(id).map(<[u8]>::to_vec)
}

/// Returns the size in bytes of an element, for every storage that the object refers to.
fn element_sizes(document: &Document<'_>) -> Result<HashMap<Vec<u8>, u64>, Defect> {
    let mut sizes = HashMap::new();
    for value in &document.values {
        if let Value::Storage(storage) = value {
            let size = storage.holds.dtype().map_or(Ok(1), torch::element_bytes)?;
            sizes.insert(storage.key.to_vec(), size);
        }
    }
    Ok(sizes)
}

/// Returns the extents of the storages, which follow each other from position `at` on.
fn extents(
    source: &Source,
    mut at: u64,
    keys: &[Vec<u8>],
    sizes: &HashMap<Vec<u8>, u64>,
) -> Result<HashMap<Vec<u8>, torch::Extent>, Defect> {
    let mut extents = HashMap::new();
    for key in keys {
        let size = sizes.get(key).copied().ok_or_else(|| {
            Defect::Format(format!(
                "the element type of the storage {:?} is not stated",
                String::from_utf8_lossy(key)
            ))
        })?;
        let extent = counted(source, at, size)?;
        at = extent.start.saturating_add(extent.bytes);
        extents.insert(key.clone(), extent);
    }
    Ok(extents)
}

/// Returns the extent of the storage at a position: its number of elements in 8 bytes, then the elements.
fn counted(source: &Source, at: u64, element: u64) -> Result<torch::Extent, Defect> {
    let mut count = [0; 8];
    source.fill(at, &mut count)?;
    let count = u64::from_le_bytes(count);
    let start = at.saturating_add(8);
    let bytes = count
        .checked_mul(element)
        .filter(|bytes| *bytes <= source.length().saturating_sub(start))
        .ok_or_else(|| {
            Defect::Format(format!(
                "the file is truncated: a storage of {count} elements begins at byte {start} of {}",
                source.length()
            ))
        })?;
    Ok(torch::Extent { start, bytes })
}

fn locate(
    extents: &HashMap<Vec<u8>, torch::Extent>,
    storage: &StorageRef<'_>,
) -> Result<torch::Extent, Defect> {
    extents
        .get(storage.key)
        .copied()
        .ok_or_else(|| Defect::format("the storage of the tensor is not in the file"))
}
