//! Finds the named tensors in the values of a pickle, for all of PyTorch's file formats.
//!
//! A file contains a state dict (a dict of tensors), a checkpoint with a state dict inside (mmcv, detectron2, training
//! scripts), or a module as an object (`torch.save` of a whole module, TorchScript). The tensors of a module get the
//! names that they have in PyTorch's state dicts, such as `visual.conv1.weight`.

use std::collections::BTreeMap;

use safetensors::Dtype;

use super::{SELF_TRAINING_KEY, StoredTensor, state_dict_of};
use crate::{
    error::Defect,
    pickle::{Document, Id, StorageRef, TensorRef, Value, value::Object},
};

/// Attributes in which a pickled module stores its parts.
const MODULE_PARTS: [&str; 3] = ["_parameters", "_buffers", "_modules"];
/// The largest depth of nested modules.
const MOST_DEPTH: usize = 64;
/// The largest number of attributes that are visited; the same object may be an attribute of many others.
const MOST_VISITS: usize = 1 << 20;
/// The largest number of tensors in a file.
const MOST_TENSORS: usize = 1 << 16;
/// The largest number of elements of a view that repeats elements of its storage.
const MOST_REPEATED: u64 = 1 << 20;
/// The largest length of a tensor's name, in bytes.
const MOST_NAME_BYTES: usize = 512;

/// A range of bytes in the file.
#[derive(Debug, Clone, Copy)]
pub(super) struct Extent {
    pub(super) start: u64,
    pub(super) bytes: u64,
}

/// A tensor as a view of a storage.
#[derive(Debug, Clone)]
pub(super) struct View {
    pub(super) dtype: Dtype,
    /// The bytes of the storage; nothing outside of them may be read.
    pub(super) extent: Extent,
    /// Index of the first element in the storage.
    pub(super) offset: u64,
    pub(super) shape: Vec<u64>,
    /// Strides in elements.
    pub(super) strides: Vec<u64>,
}

/// The tensors of a file.
pub(super) struct Tensors {
    /// The tensors by their names in a state dict.
    pub(super) named: BTreeMap<String, StoredTensor>,
    /// Keys that hold other weights of the same model, which are not read.
    pub(super) passed_over: Vec<String>,
    /// What the file says about the training, by the keys of metadata.
    pub(super) metadata: BTreeMap<String, String>,
}

/// Returns all tensors of a file under their names in a state dict.
pub(super) fn tensors(
    document: &Document<'_>,
    mut locate: impl FnMut(&TensorRef) -> Result<View, Defect>,
) -> Result<Tensors, Defect> {
    let state_dict = state_dict_of::find(document)?;
    let mut walk = Walk {
        document,
        found: Vec::new(),
        visits: 0,
    };
    walk.module(state_dict.id, "", 0)?;
    let found = walk.found;
    if found.is_empty() {
        return Err(Defect::format("the PyTorch file contains no named tensors"));
    }
    let mut named = BTreeMap::new();
    for (name, tensor) in found {
        let located = tensor
            .ok_or_else(|| Defect::format("the values are in another file"))
            .and_then(&mut locate);
        let stored = located
            .and_then(|view| stored(&view))
            .map_err(|defect| match defect {
                Defect::Format(reason) => Defect::Format(format!("tensor {name:?}: {reason}")),
                other => other,
            })?;
        named.insert(name, stored);
    }
    Ok(Tensors {
        named,
        passed_over: state_dict.passed_over,
        metadata: training(document),
    })
}

/// Returns what the configuration in a checkpoint of mmcv, the text `meta.config`, says about the training.
fn training(document: &Document<'_>) -> BTreeMap<String, String> {
    let entry = |id, key| document.entry(document.pairs(id)?, key);
    let config = entry(document.root, "meta").and_then(|meta| entry(meta, "config"));
    let config = config.and_then(|config| document.text(config));
    let stated = config.and_then(|text| self_training(&String::from_utf8_lossy(text)));
    let pair = |stated: bool| (SELF_TRAINING_KEY.to_owned(), stated.to_string());
    stated.map(pair).into_iter().collect()
}

/// Returns the value of `self_training` in a configuration in Python; if there are several, whether one is true.
fn self_training(config: &str) -> Option<bool> {
    let rests = config.split("self_training").skip(1);
    let values = rests.filter_map(|rest| {
        let rest = rest.trim_start_matches(['"', '\'', ' ']);
        let value = rest.strip_prefix(['=', ':'])?.trim_start();
        match (value.starts_with("True"), value.starts_with("False")) {
            (false, false) => None,
            (stated, _) => Some(stated),
        }
    });
    values.reduce(|one, other| one || other)
}

struct Walk<'d, 'a> {
    document: &'d Document<'a>,
    /// Names and tensors; `None` for a tensor whose values are not in the file.
    found: Vec<(String, Option<&'d TensorRef>)>,
    visits: usize,
}

impl Walk<'_, '_> {
    /// Visits the parts of a dict or object; `prefix` is empty or ends with a dot.
    fn module(&mut self, id: Id, prefix: &str, depth: usize) -> Result<(), Defect> {
        if depth > MOST_DEPTH {
            return Err(Defect::Format(format!(
                "modules are nested more than {MOST_DEPTH} deep"
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
            Some(Value::Object(object)) if is_tensor_of_another_kind(key, object) => {
                return Err(Defect::NumberType {
                    key: joined(prefix, key, "")?,
                    dtype: "a sparse or quantised tensor".to_owned(),
                });
            }
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
            return Err(Defect::Format(format!(
                "the file has more than {MOST_TENSORS} tensors"
            )));
        }
        let name = joined(prefix, key, "")?;
        self.found.push((name, tensor));
        Ok(())
    }

    fn visit(&mut self) -> Result<(), Defect> {
        self.visits += 1;
        if self.visits > MOST_VISITS {
            return Err(Defect::format(
                "the same modules are nested in each other too many times",
            ));
        }
        Ok(())
    }
}

/// Returns whether an object with a weight's name in a state dict is a sparse or quantised tensor: an opaque call.
fn is_tensor_of_another_kind(key: &[u8], object: &Object) -> bool {
    let is_weight = key.ends_with(b".weight") || key.ends_with(b".bias");
    is_weight && object.state.is_none() && object.items.is_empty() && !object.arguments.is_empty()
}

/// Returns the name of a part: prefix, key and suffix.
fn joined(prefix: &str, key: &[u8], suffix: &str) -> Result<String, Defect> {
    if prefix.len().saturating_add(key.len()) > MOST_NAME_BYTES {
        return Err(Defect::Format(format!(
            "the name of a tensor has more than {MOST_NAME_BYTES} bytes"
        )));
    }
    Ok(format!("{prefix}{}{suffix}", String::from_utf8_lossy(key)))
}

/// Returns the view that a tensor of the pickle describes; `storage` locates the bytes of a storage in the file.
pub(super) fn view(
    document: &Document<'_>,
    tensor: &TensorRef,
    storage: impl FnOnce(&StorageRef<'_>) -> Result<Extent, Defect>,
) -> Result<View, Defect> {
    let Some(Value::Storage(reference)) = document.get(tensor.storage) else {
        return Err(Defect::format("the tensor has no storage"));
    };
    let dtype = tensor
        .dtype
        .or(reference.holds.dtype())
        .ok_or_else(|| Defect::format("the element type is not stated"))?;
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
            "the {elements} elements from {first} on do not fit into the storage of {} bytes",
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

/// Returns the size of an element in bytes.
pub(super) fn element_bytes(dtype: Dtype) -> Result<u64, Defect> {
    let bits = dtype.bitsize() as u64;
    if bits == 0 || !bits.is_multiple_of(8) {
        return Err(Defect::Format(format!(
            "the elements have {bits} bits; they must have whole bytes"
        )));
    }
    Ok(bits / 8)
}

/// Checks that a view lies inside its storage and returns its position.
fn stored(view: &View) -> Result<StoredTensor, Defect> {
    let outside = || {
        Defect::Format(format!(
            "the shape {:?} with strides {:?} from element {} on does not fit into a storage of {} bytes",
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
    // A view with a stride of 0 repeats elements, and PyTorch saves such views. Their number is limited, because the
    // size of the file does not bound the memory that they need.
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
    let is_contiguous = contiguous(&shape, &strides);
    Ok(StoredTensor {
        dtype: view.dtype,
        shape,
        strides: (!is_contiguous && elements > 0).then_some(strides),
        start,
        span: span as usize,
    })
}

/// Returns whether the elements are contiguous in row-major order.
fn contiguous(shape: &[usize], strides: &[usize]) -> bool {
    let mut expected = 1_usize;
    shape.iter().zip(strides).rev().all(|(&size, &stride)| {
        let fits = size == 1 || stride == expected;
        expected = expected.saturating_mul(size);
        fits
    })
}

#[cfg(test)]
mod tests {
    use super::self_training;

    #[test]
    fn a_configuration_says_whether_the_model_trained_itself() {
        for (config, expected) in [
            (
                "model = dict(type='FewSegViT', self_training=True, num_classes=20)",
                Some(true),
            ),
            (
                "decode_head=dict(self_training = False),\nself_training=True",
                Some(true),
            ),
            ("{'self_training': False}", Some(false)),
            ("self_training_steps=3", None),
            ("lr = 0.1", None),
        ] {
            assert_eq!(self_training(config), expected, "{config}");
        }
    }
}
