//! Reads a pickled dict of NumPy arrays, the format of weights in detectron2's model zoo (`.pkl`).
//!
//! An array is an object with the state `(version, shape, type, is column-major, bytes)`. The bytes are in the pickle
//! itself, and their position is recorded, so that they are read on demand like those of every other format.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::{ContainerFormat, Contents, StoredTensor, torch};
use crate::{
    error::Defect,
    pickle::{self, Document, Id, Value},
    source::Source,
};

/// The largest size of such a file, in bytes; ResNet-152 has 240 MB.
const MOST_BYTES: u64 = 1 << 30;
/// Keys under which the dict of arrays may be; otherwise it is the outermost value.
const WRAPPERS: [&str; 2] = ["model", "blobs"];
/// NumPy's names of the supported element types.
const TYPES: [(&[u8], Dtype); 6] = [
    (b"f4", Dtype::F32),
    (b"f2", Dtype::F16),
    (b"f8", Dtype::F64),
    (b"i8", Dtype::I64),
    (b"i4", Dtype::I32),
    (b"u1", Dtype::U8),
];

pub(super) fn read(source: &Source) -> Result<Contents, Defect> {
    let length = source.length();
    if length > MOST_BYTES {
        return Err(Defect::Format(format!(
            "the pickle has {length} bytes; the limit is {MOST_BYTES} bytes"
        )));
    }
    let bytes = source.exactly(0, length as usize)?;
    let document = pickle::read(&bytes)?;
    let tensors = arrays(&document, &bytes)?;
    if tensors.is_empty() {
        return Err(Defect::format(
            "a pickle that torch.save has not written and that is not a dict of NumPy arrays; save the state dict with \
             torch.save or as safetensors",
        ));
    }
    Ok(Contents {
        format: ContainerFormat::Numpy,
        tensors,
        metadata: BTreeMap::new(),
        passed_over: Vec::new(),
        records: Vec::new(),
    })
}

/// Returns the arrays by name.
fn arrays(document: &Document<'_>, bytes: &[u8]) -> Result<BTreeMap<String, StoredTensor>, Defect> {
    let mut found = BTreeMap::new();
    let Some(root) = document.pairs(document.root) else {
        return Ok(found);
    };
    let wrapped = WRAPPERS.iter().find_map(|key| {
        let id = document.entry(root, key)?;
        document.pairs(id)
    });
    for (key, value) in wrapped.unwrap_or(root) {
        let (Some(name), Some(Value::Object(object))) = (document.text(*key), document.get(*value))
        else {
            continue;
        };
        let Some(state) = object.state else { continue };
        let name = String::from_utf8_lossy(name).into_owned();
        if let Some(array) = array(document, state, bytes)
            .map_err(|reason| Defect::Format(format!("array {name:?}: {reason}")))?
        {
            found.insert(name, array);
        }
    }
    Ok(found)
}

/// Returns the array with this state, or `None` if the state is not that of an array.
fn array(document: &Document<'_>, state: Id, bytes: &[u8]) -> Result<Option<StoredTensor>, String> {
    let Some(&[version, shape, kind, columns_first, data]) = document.elements(state) else {
        return Ok(None);
    };
    let (Some(_), Some(shape)) = (document.int(version), document.elements(shape)) else {
        return Ok(None);
    };
    let shape: Option<Vec<usize>> = shape
        .iter()
        .map(|id| usize::try_from(document.count(*id)?).ok())
        .collect();
    let shape = shape.ok_or("the shape is damaged")?;
    let dtype = element_type(document, kind)?;
    let elements = shape
        .iter()
        .try_fold(1_usize, |product, &side| product.checked_mul(side))
        .ok_or("the shape is damaged")?;
    let strides = match document.get(columns_first) {
        Some(Value::Bool(true)) if shape.len() > 1 => Some(column_strides(&shape)),
        _ => None,
    };
    let stored = match document.get(data) {
        Some(Value::Bytes(stored) | Value::Text(stored)) => *stored,
        _ => {
            return Err(
                "the values are stored as text (protocol 2 of Python 3); save the file with protocol 4"
                    .into(),
            );
        }
    };
    let size =
        torch::element_bytes(dtype).map_err(|_| "the element type has no size".to_owned())?;
    if (elements as u64).checked_mul(size) != Some(stored.len() as u64) {
        return Err(format!(
            "there are {} bytes for the shape {shape:?} with {size} bytes per element",
            stored.len()
        ));
    }
    // The bytes are borrowed from the pickle, so the distance from its start is their position in the file.
    let start = (stored.as_ptr() as usize).saturating_sub(bytes.as_ptr() as usize) as u64;
    Ok(Some(StoredTensor {
        dtype,
        shape,
        strides,
        start,
        span: elements,
    }))
}

/// Returns the strides of a column-major array, whose first index changes fastest.
fn column_strides(shape: &[usize]) -> Vec<usize> {
    let mut step = 1_usize;
    shape
        .iter()
        .map(|&side| {
            let own = step;
            step = step.saturating_mul(side);
            own
        })
        .collect()
}

/// Returns the type of a `numpy.dtype`, whose argument is the name and whose state contains the byte order.
fn element_type(document: &Document<'_>, kind: Id) -> Result<Dtype, String> {
    let Some(Value::Object(object)) = document.get(kind) else {
        return Err("the element type is not stated".into());
    };
    let name = object.arguments.first().and_then(|id| document.text(*id));
    let name = name.ok_or("the element type is not stated")?;
    let order = object
        .state
        .and_then(|state| document.elements(state))
        .and_then(|state| document.text(*state.get(1)?));
    if order == Some(b">") {
        return Err("the values are big-endian".into());
    }
    let known = TYPES.iter().find(|(known, _)| *known == name);
    known.map(|(_, dtype)| *dtype).ok_or_else(|| {
        format!(
            "the element type {:?} is not supported",
            String::from_utf8_lossy(name)
        )
    })
}
