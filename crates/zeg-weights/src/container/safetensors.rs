//! Reads safetensors files: a JSON header with the name of every tensor, followed by the values.
//!
//! The `safetensors` crate parses and validates the header: tensors follow each other without gaps, and the length of
//! each is that of its type and shape.

use std::collections::BTreeMap;

use ::safetensors::tensor::Metadata;

use super::{ContainerFormat, Contents, StoredTensor};
use crate::{error::Defect, source::Source};

/// Number of bytes of the header's length.
const LENGTH_BYTES: u64 = 8;
/// The largest size of a header, in bytes. CLIP's header has 50 kB; the format allows 100 MB.
const MOST_HEADER_BYTES: u64 = 16 << 20;

/// Returns whether the first bytes are those of this format: a possible length, then the `{` of the header.
///
/// Of the eight bytes of the length only the lowest four can differ from 0, and no other format has zeros there.
pub(super) fn begins(start: &[u8]) -> bool {
    let size = start.first_chunk().copied().map(u64::from_le_bytes);
    size.is_some_and(|size| size <= MOST_HEADER_BYTES) && start.get(8) == Some(&b'{')
}

pub(super) fn read(source: &Source) -> Result<Contents, Defect> {
    let length = source.length();
    let incomplete = |reason: String| {
        Defect::Format(format!(
            "not a complete safetensors file of {length} bytes: {reason}"
        ))
    };
    let mut size = [0; LENGTH_BYTES as usize];
    source.fill(0, &mut size)?;
    let size = u64::from_le_bytes(size);
    if size > MOST_HEADER_BYTES.min(length.saturating_sub(LENGTH_BYTES)) {
        return Err(incomplete(format!("the header would have {size} bytes")));
    }
    let header = source.exactly(LENGTH_BYTES, size as usize)?;
    let metadata: Metadata =
        serde_json::from_slice(&header).map_err(|error| incomplete(error.to_string()))?;
    let data_start = LENGTH_BYTES + size;
    let expected = data_start.saturating_add(metadata.data_len() as u64);
    if expected != length {
        return Err(incomplete(format!(
            "according to the header, the file has {expected} bytes"
        )));
    }
    let mut tensors = BTreeMap::new();
    for (name, info) in metadata.tensors() {
        let elements = info
            .shape
            .iter()
            .try_fold(1_usize, |product, &size| product.checked_mul(size))
            .ok_or_else(|| {
                incomplete(format!(
                    "tensor {name:?} has the impossible shape {:?}",
                    info.shape
                ))
            })?;
        let stored = StoredTensor {
            dtype: info.dtype,
            shape: info.shape.clone(),
            strides: None,
            start: data_start.saturating_add(info.data_offsets.0 as u64),
            span: elements,
        };
        tensors.insert(name, stored);
    }
    let entries = metadata.metadata().iter().flatten();
    Ok(Contents {
        format: ContainerFormat::Safetensors,
        tensors,
        metadata: entries
            .map(|(key, value)| (key.clone(), value.clone()))
            .collect(),
        passed_over: Vec::new(),
        records: Vec::new(),
    })
}
