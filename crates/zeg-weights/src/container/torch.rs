//! From a pickle's values to named tensors: what every form of PyTorch's files has in common.
//!
//! A file holds a state dict (a dict of tensors), a checkpoint with a state dict inside (mmcv, detectron2, training
//! scripts), or a module as an object: whole modules of `torch.save` and TorchScript. The parts of an object are
//! named as PyTorch names them in state dicts, `visual.conv1.weight`.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::StoredTensor;
use crate::{
    error::Defect,
    pickle::{Document, Id, StorageRef, TensorRef, Value},
};

/// Where checkpoints keep their state dict.
const WRAPPERS: [&str; 3] = ["state_dict", "model", "model_state_dict"];
/// Attributes in which a pickled module keeps its parts.
const MODULE_PARTS: [&str; 3] = ["_parameters", "_buffers", "_modules"];
/// What training programs put before every name.
const PREFIXES: [&str; 2] = ["module.", "_orig_mod."];
/// Most modules inside each other.
const MOST_DEPTH: usize = 64;
/// Most attributes that are looked at; one object can be an attribute many times.
const MOST_VISITS: usize = 1 << 20;
/// Most tensors of one file.
const MOST_TENSORS: usize = 1 << 16;
/// Most elements of a view that has more of them than its storage.
const MOST_REPEATED: u64 = 1 << 20;
/// Longest name of a tensor, in bytes.
const MOST_NAME_BYTES: usize = 512;

/// A place in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) bytes: u64,
}

/// A tensor as a view of a storage.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) dtype: Dtype,
    /// The storage, of which no element outside may be read.
    pub(super) extent: Extent,
    /// In elements from the storage's start.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    /// In elements.
    pub(super) strides: Vec<u64>,
}

/// All tensors of a file, under their names in a state dict.
pub(super) fn tensors(
    document: &Document<'_>,
    mut locate: impl FnMut(&TensorRef) -> Result<View, Defect>,
) -> Result<BTreeMap<String, StoredTensor>, Defect> {
    let mut walk = Walk {
        document,
        found: Vec::new(),
        visits: 0,
    };
    walk.module(state_dict(document), "", 0)?;
    let mut found = walk.found;
    if found.is_empty() {
        return Err(Defect::format("a PyTorch file without named tensors"));
    }
    for prefix in PREFIXES {
        if found.iter().all(|(name, _)| name.starts_with(prefix)) {
            for (name, _) in &mut found {
                name.drain(..prefix.len());
            }
        }
    }
    let mut tensors = BTreeMap::new();
    for (name, tensor) in found {
        let located = tensor
            .ok_or_else(|| Defect::format("a reference to a tensor of another file"))
            .and_then(&mut locate);
        let stored = located
            .and_then(|view| stored(&view))
            .map_err(|defect| match defect {
                Defect::Format(reason) => Defect::Format(format!("tensor {name:?}: {reason}")),
                other => other,
            })?;
        tensors.insert(name, stored);
    }
    Ok(tensors)
}

/// The value that holds the tensors by name.
fn state_dict(document: &Document<'_>) -> Id {
    let Some(pairs) = document.pairs(document.root) else {
        return document.root;
    };
    WRAPPERS
        .iter()
        .filter_map(|key| document.entry(pairs, key))
        .find(|id| matches!(document.get(*id), Some(Value::Dict(_) | Value::Object(_))))
        .unwrap_or(document.root)
}

struct Walk<'d, 'a> {
    document: &'d Document<'a>,
    /// Names and tensors; `None` for a reference to what is not in the file.
    found: Vec<(String, Option<&'d TensorRef>)>,
    visits: usize,
}

impl Walk<'_, '_> {
    /// The parts of a dict or object; `prefix` is empty or ends with a dot.
    fn module(&mut self, id: Id, prefix: &str, depth: usize) -> Result<(), Defect> {
        if depth > MOST_DEPTH {
            return Err(Defect::Format(format!(
                "more than {MOST_DEPTH} modules inside each other"
            )));
        }
        match self.document.get(id) {
            Some(Value::Dict(pairs)) => {
                for (key, value) in pairs {
                    self.part(*key, *value, prefix, depth)?;
                }
            }
            Some(Value::Object(object)) => {
                for (key, value) in &object.items {
                    self.part(*key, *value, prefix, depth)?;
                }
                if let Some(state) = object.state.filter(|state| *state != id) {
                    self.visit()?;
                    if matches!(self.document.get(state), Some(Value::Dict(_))) {
                        self.module(state, prefix, depth)?;
                    }
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn part(&mut self, key: Id, value: Id, prefix: &str, depth: usize) -> Result<(), Defect> {
        self.visit()?;
        let Some(key) = self.document.text(key) else {
            return Ok(());
        };
        let document = self.document;
        let tensor = match document.get(value) {
            Some(Value::Tensor(tensor)) => Some(&**tensor),
            Some(Value::Reference) => None,
            Some(Value::Object(_)) => {
                let name = joined(prefix, key, ".")?;
                return self.module(value, &name, depth + 1);
            }
            Some(Value::Dict(_)) if MODULE_PARTS.iter().any(|part| part.as_bytes() == key) => {
                return self.module(value, prefix, depth + 1);
            }
            _ => return Ok(()),
        };
        if self.found.len() >= MOST_TENSORS {
            return Err(Defect::Format(format!("more than {MOST_TENSORS} tensors")));
        }
        let name = joined(prefix, key, "")?;
        self.found.push((name, tensor));
        Ok(())
    }

    fn visit(&mut self) -> Result<(), Defect> {
        self.visits += 1;
        if self.visits > MOST_VISITS {
            return Err(Defect::format(
                "the same modules inside each other many times over",
            ));
        }
        Ok(())
    }
}

/// A name behind a prefix.
fn joined(prefix: &str, key: &[u8], suffix: &str) -> Result<String, Defect> {
    if prefix.len().saturating_add(key.len()) > MOST_NAME_BYTES {
        return Err(Defect::Format(format!(
            "the name of a tensor has more than {MOST_NAME_BYTES} bytes"
        )));
    }
    Ok(format!("{prefix}{}{suffix}", String::from_utf8_lossy(key)))
}

/// The view that a tensor of the pickle is, `storage` telling where its numbers stand.
pub(super) fn view(
    document: &Document<'_>,
    tensor: &TensorRef,
    storage: impl FnOnce(&StorageRef<'_>) -> Result<Extent, Defect>,
) -> Result<View, Defect> {
    let Some(Value::Storage(reference)) = document.get(tensor.storage) else {
        return Err(Defect::format("has no storage"));
    };
    let dtype = tensor
        .dtype
        .or(reference.holds.dtype())
        .ok_or_else(|| Defect::format("nothing says what its bytes are"))?;
    let extent = storage(reference)?;
    let size = element_bytes(reference.holds.dtype().unwrap_or(Dtype::U8))?;
    let (first, elements) = reference.view.unwrap_or((0, reference.elements));
    let part = first.checked_mul(size).zip(elements.checked_mul(size));
    let Some((skipped, bytes)) = part.filter(|(skipped, bytes)| {
        skipped
            .checked_add(*bytes)
            .is_some_and(|end| end <= extent.bytes)
    }) else {
        return Err(Defect::Format(format!(
            "its storage would have {elements} elements from {first} in {} bytes",
            extent.bytes
        )));
    };
    Ok(View {
        dtype,
        extent: Extent {
            start: extent.start.saturating_add(skipped),
            bytes,
        },
        offset: tensor.offset,
        shape: tensor.shape.clone(),
        strides: tensor.strides.clone(),
    })
}

/// Bytes of one element.
pub(super) fn element_bytes(dtype: Dtype) -> Result<u64, Defect> {
    let bits = dtype.bitsize() as u64;
    if bits == 0 || !bits.is_multiple_of(8) {
        return Err(Defect::Format(format!("elements of {bits} bits")));
    }
    Ok(bits / 8)
}

/// Checks that a view stays inside its storage.
fn stored(view: &View) -> Result<StoredTensor, Defect> {
    let outside = || {
        Defect::Format(format!(
            "shape {:?} with steps {:?} from element {} does not fit a storage of {} bytes",
            view.shape, view.strides, view.offset, view.extent.bytes
        ))
    };
    let size = element_bytes(view.dtype)?;
    let storage = view.extent.bytes / size;
    let sizes = |values: &[u64]| -> Option<Vec<usize>> {
        values.iter().map(|&v| usize::try_from(v).ok()).collect()
    };
    let (shape, strides) = sizes(&view.shape)
        .zip(sizes(&view.strides))
        .ok_or_else(outside)?;
    let elements = view
        .shape
        .iter()
        .try_fold(1_u64, |product, &size| product.checked_mul(size))
        .ok_or_else(outside)?;
    // A view with a step of 0 repeats elements. PyTorch saves such views; a number that no file pays for with bytes
    // must not ask for memory.
    if elements > storage.max(MOST_REPEATED) {
        return Err(outside());
    }
    let span = if elements == 0 {
        0
    } else {
        view.shape
            .iter()
            .zip(&view.strides)
            .try_fold(1_u64, |span, (&size, &stride)| {
                span.checked_add(size.checked_sub(1)?.checked_mul(stride)?)
            })
            .filter(|span| {
                view.offset
                    .checked_add(*span)
                    .is_some_and(|end| end <= storage)
            })
            .ok_or_else(outside)?
    };
    let start = view
        .offset
        .checked_mul(size)
        .and_then(|skipped| view.extent.start.checked_add(skipped))
        .ok_or_else(outside)?;
    let one_after_the_other = contiguous(&shape, &strides);
    Ok(StoredTensor {
        dtype: view.dtype,
        shape,
        strides: (!one_after_the_other && elements > 0).then_some(strides),
        start,
        span: span as usize,
    })
}

/// Whether elements stand in the shape's order without gaps.
fn contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1_usize;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == expected;
        expected = expected.saturating_mul(size);
        fits
    })
}
