//! The calls that a pickle may ask for, and what each means here.
//!
//! The list holds what `torch.save` and TorchScript write for tensors and plain values, and what the `meta` part of
//! mmcv's checkpoints holds besides. None of it is called: a maker of tensors becomes a description of a tensor, a
//! maker of dicts a dict, and the rest an object without meaning.

use safetensors::Dtype;

use super::{
    PickleError,
    value::{Elements, Global, Id, Object, TensorRef, Value},
};

/// Most dimensions of a tensor; PyTorch's own limit is 64, weights have at most 5.
const MOST_DIMENSIONS: usize = 16;

/// What a call gives.
pub(super) enum Outcome<'a> {
    /// A new value.
    Value(Value<'a>),
    /// One of its arguments.
    Same(Id),
}

/// What a call means.
#[derive(Clone, Copy)]
enum Meaning {
    /// `(storage, offset, shape, strides, …)`.
    Tensor,
    /// As [`Meaning::Tensor`]; the seventh argument is the type of the elements.
    TypedTensor,
    /// `(function, class, arguments, state)`: a tensor with attributes, made by the inner function.
    AttributedTensor,
    /// The first argument.
    First,
    /// A dict; of the first argument's pairs, where that is a list.
    Dict,
    /// A set; its elements do not matter.
    Set,
    /// An object without meaning, but with its arguments: NumPy's arrays are read from theirs.
    Opaque,
}

/// `(module, name, meaning)`.
const CALLS: &[(&str, &str, Meaning)] = &[
    // Tensors, as `torch.save` and TorchScript write them.
    ("torch._utils", "_rebuild_tensor", Meaning::Tensor),
    ("torch._utils", "_rebuild_tensor_v2", Meaning::Tensor),
    ("torch._utils", "_rebuild_tensor_v3", Meaning::TypedTensor),
    (
        "torch._tensor",
        "_rebuild_from_type_v2",
        Meaning::AttributedTensor,
    ),
    ("torch._utils", "_rebuild_parameter", Meaning::First),
    (
        "torch._utils",
        "_rebuild_parameter_with_state",
        Meaning::First,
    ),
    ("torch.nn.parameter", "Parameter", Meaning::First),
    ("torch.jit._pickle", "build_intlist", Meaning::First),
    ("torch.jit._pickle", "build_doublelist", Meaning::First),
    ("torch.jit._pickle", "build_boollist", Meaning::First),
    ("torch.jit._pickle", "build_tensorlist", Meaning::First),
    ("torch.jit._pickle", "restore_type_tag", Meaning::First),
    // Tensors that are no weights: quantised and sparse ones.
    ("torch._utils", "_rebuild_qtensor", Meaning::Opaque),
    ("torch._utils", "_rebuild_sparse_tensor", Meaning::Opaque),
    ("torch", "device", Meaning::Opaque),
    ("torch", "Size", Meaning::First),
    ("torch.serialization", "_get_layout", Meaning::Opaque),
    // Python's collections and numbers, under the module names of Python 2 and 3.
    ("collections", "OrderedDict", Meaning::Dict),
    ("collections", "defaultdict", Meaning::Dict),
    ("collections", "Counter", Meaning::Dict),
    ("collections", "deque", Meaning::Opaque),
    ("builtins", "set", Meaning::Set),
    ("builtins", "frozenset", Meaning::Set),
    ("builtins", "bytearray", Meaning::Opaque),
    ("builtins", "complex", Meaning::Opaque),
    ("builtins", "slice", Meaning::Opaque),
    ("builtins", "range", Meaning::Opaque),
    ("__builtin__", "set", Meaning::Set),
    ("__builtin__", "frozenset", Meaning::Set),
    ("__builtin__", "bytearray", Meaning::Opaque),
    ("__builtin__", "complex", Meaning::Opaque),
    ("__builtin__", "slice", Meaning::Opaque),
    ("__builtin__", "xrange", Meaning::Opaque),
    ("__builtin__", "range", Meaning::Opaque),
    // How protocol 2 writes bytes.
    ("_codecs", "encode", Meaning::Opaque),
    // Objects of ordinary classes, as protocols below 2 write them.
    ("copyreg", "_reconstructor", Meaning::Opaque),
    ("copy_reg", "_reconstructor", Meaning::Opaque),
    // Times and paths of training logs.
    ("datetime", "datetime", Meaning::Opaque),
    ("datetime", "date", Meaning::Opaque),
    ("datetime", "time", Meaning::Opaque),
    ("datetime", "timedelta", Meaning::Opaque),
    ("datetime", "timezone", Meaning::Opaque),
    ("pathlib", "PosixPath", Meaning::Opaque),
    ("pathlib", "WindowsPath", Meaning::Opaque),
    ("pathlib", "PurePosixPath", Meaning::Opaque),
    ("pathlib", "PureWindowsPath", Meaning::Opaque),
    // NumPy's numbers and arrays, before and after version 2 renamed its modules.
    ("numpy", "dtype", Meaning::Opaque),
    ("numpy", "ndarray", Meaning::Opaque),
    ("numpy.core.multiarray", "scalar", Meaning::Opaque),
    ("numpy.core.multiarray", "_reconstruct", Meaning::Opaque),
    ("numpy._core.multiarray", "scalar", Meaning::Opaque),
    ("numpy._core.multiarray", "_reconstruct", Meaning::Opaque),
];

/// PyTorch's classes of storages, all of module `torch`.
const STORAGES: &[(&str, Dtype)] = &[
    ("FloatStorage", Dtype::F32),
    ("HalfStorage", Dtype::F16),
    ("BFloat16Storage", Dtype::BF16),
    ("DoubleStorage", Dtype::F64),
    ("LongStorage", Dtype::I64),
    ("IntStorage", Dtype::I32),
    ("ShortStorage", Dtype::I16),
    ("CharStorage", Dtype::I8),
    ("ByteStorage", Dtype::U8),
    ("BoolStorage", Dtype::BOOL),
    ("ComplexFloatStorage", Dtype::C64),
];

/// PyTorch's element types, all of module `torch`, as [`Meaning::TypedTensor`] names them.
const ELEMENTS: &[(&str, Dtype)] = &[
    ("float32", Dtype::F32),
    ("float16", Dtype::F16),
    ("bfloat16", Dtype::BF16),
    ("float64", Dtype::F64),
    ("int64", Dtype::I64),
    ("int32", Dtype::I32),
    ("int16", Dtype::I16),
    ("int8", Dtype::I8),
    ("uint8", Dtype::U8),
    ("uint16", Dtype::U16),
    ("uint32", Dtype::U32),
    ("uint64", Dtype::U64),
    ("bool", Dtype::BOOL),
];

/// Modules of Python that act on the machine or run code. No object of theirs belongs into a weight file, so that a
/// file that makes one is refused, although nothing of it would be run here.
const ACTING_MODULES: &[&str] = &[
    "__builtin__",
    "_io",
    "_pickle",
    "_posixsubprocess",
    "_thread",
    "asyncio",
    "bdb",
    "builtins",
    "code",
    "codeop",
    "commands",
    "concurrent",
    "ctypes",
    "fcntl",
    "ftplib",
    "functools",
    "gc",
    "http",
    "imp",
    "importlib",
    "inspect",
    "io",
    "marshal",
    "mmap",
    "multiprocessing",
    "nt",
    "operator",
    "os",
    "pdb",
    "pickle",
    "pip",
    "pkgutil",
    "platform",
    "popen2",
    "posix",
    "posixpath",
    "profile",
    "pty",
    "pydoc",
    "resource",
    "runpy",
    "shutil",
    "signal",
    "site",
    "smtplib",
    "socket",
    "socketserver",
    "subprocess",
    "sys",
    "tempfile",
    "threading",
    "timeit",
    "trace",
    "types",
    "urllib",
    "urllib2",
    "webbrowser",
    "xmlrpc",
];

/// Checks a class whose object is made without a call.
///
/// # Errors
/// It is of a module that acts on the machine.
pub(super) fn construct(class: Global<'_>) -> Result<(), PickleError> {
    let module = class.module.split('.').next().unwrap_or_default();
    if ACTING_MODULES.contains(&module) {
        return Err(PickleError::Call(class.to_string()));
    }
    Ok(())
}

/// What a class of storages holds; `None` for other classes.
pub(crate) fn storage_elements(class: Global<'_>) -> Option<Elements> {
    match (class.module, class.name) {
        ("torch.storage", "UntypedStorage" | "_UntypedStorage") | ("torch", "UntypedStorage") => {
            Some(Elements::Bytes)
        }
        ("torch" | "torch.cuda", name) => find(STORAGES, name).map(Elements::Of),
        _ => None,
    }
}

fn find(table: &[(&str, Dtype)], name: &str) -> Option<Dtype> {
    table
        .iter()
        .find(|(known, _)| *known == name)
        .map(|(_, dtype)| *dtype)
}

/// What a call means, told from its name and arguments.
///
/// # Errors
/// It is not on the list, or its arguments do not fit.
pub(super) fn call<'a>(
    values: &[Value<'a>],
    callee: Global<'a>,
    arguments: &[Id],
    at: usize,
) -> Result<Outcome<'a>, PickleError> {
    let meaning = CALLS
        .iter()
        .find(|(module, name, _)| *module == callee.module && *name == callee.name)
        .map(|(_, _, meaning)| *meaning)
        .ok_or_else(|| PickleError::Call(callee.to_string()))?;
    let misfit = || PickleError::Damaged {
        at,
        reason: format!("{callee} with other arguments than PyTorch's"),
    };
    Ok(match meaning {
        Meaning::Tensor => Outcome::Value(tensor(values, arguments).ok_or_else(misfit)?),
        Meaning::TypedTensor => {
            let dtype = arguments.get(6).and_then(|id| element_type(values, *id));
            match tensor(values, arguments).ok_or_else(misfit)? {
                Value::Tensor(mut tensor) => {
                    tensor.dtype = Some(dtype.ok_or_else(misfit)?);
                    Outcome::Value(Value::Tensor(tensor))
                }
                other => Outcome::Value(other),
            }
        }
        Meaning::AttributedTensor => {
            let inner = match arguments.first().and_then(|id| get(values, *id)) {
                Some(Value::Global(inner)) if *inner != callee => *inner,
                _ => return Err(misfit()),
            };
            let Some(Value::Tuple(inner_arguments)) =
                arguments.get(2).and_then(|id| get(values, *id))
            else {
                return Err(misfit());
            };
            call(values, inner, inner_arguments, at)?
        }
        Meaning::First => match arguments.first() {
            Some(first) => Outcome::Same(*first),
            None => Outcome::Value(Value::Tuple(Vec::new())),
        },
        Meaning::Dict => Outcome::Value(Value::Dict(pairs(values, arguments))),
        Meaning::Set => Outcome::Value(Value::Set),
        Meaning::Opaque => Outcome::Value(Value::Object(Box::new(Object {
            arguments: arguments.to_vec(),
            ..Object::default()
        }))),
    })
}

fn get<'v, 'a>(values: &'v [Value<'a>], id: Id) -> Option<&'v Value<'a>> {
    values.get(id.0 as usize)
}

fn element_type(values: &[Value<'_>], id: Id) -> Option<Dtype> {
    match get(values, id)? {
        Value::Global(global) if global.module == "torch" => find(ELEMENTS, global.name),
        _ => None,
    }
}

fn tensor<'a>(values: &[Value<'a>], arguments: &[Id]) -> Option<Value<'a>> {
    let [storage, offset, shape, strides, ..] = arguments else {
        return None;
    };
    let storage = match get(values, *storage)? {
        Value::Storage(_) => *storage,
        // A tensor that is made of a reference to elsewhere is none that can be read.
        _ => return None,
    };
    let (shape, strides) = (counts(values, *shape)?, counts(values, *strides)?);
    if shape.len() != strides.len() {
        return None;
    }
    Some(Value::Tensor(Box::new(TensorRef {
        storage,
        offset: count(values, *offset)?,
        shape,
        strides,
        dtype: None,
    })))
}

fn count(values: &[Value<'_>], id: Id) -> Option<u64> {
    match get(values, id)? {
        Value::Int(value) => u64::try_from(*value).ok(),
        _ => None,
    }
}

fn counts(values: &[Value<'_>], id: Id) -> Option<Vec<u64>> {
    match get(values, id)? {
        Value::Tuple(items) | Value::List(items) if items.len() <= MOST_DIMENSIONS => {
            items.iter().map(|id| count(values, *id)).collect()
        }
        _ => None,
    }
}

/// The pairs that a dict is made of, as Python 2 wrote them: a list of lists or tuples of two.
fn pairs(values: &[Value<'_>], arguments: &[Id]) -> Vec<(Id, Id)> {
    let list = match arguments.first().and_then(|id| get(values, *id)) {
        Some(Value::List(items)) => items.as_slice(),
        _ => &[],
    };
    list.iter()
        .filter_map(|id| match get(values, *id)? {
            Value::Tuple(pair) | Value::List(pair) => match pair[..] {
                [key, value] => Some((key, value)),
                _ => None,
            },
            _ => None,
        })
        .collect()
}
