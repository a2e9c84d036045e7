//! The calls that a pickle may request, and the value that each results in.
//!
//! The list contains the calls that `torch.save` and TorchScript write for tensors and plain values, and those in the
//! `meta` part of mmcv's checkpoints. Nothing is ever called: a constructor of tensors becomes a description of a
//! tensor, a constructor of dicts becomes a dict, and all others become opaque objects.

use safetensors::Dtype;

use super::{
    PickleError,
    value::{Elements, Global, Id, Object, TensorRef, Value},
};

/// The largest number of dimensions of a tensor; PyTorch's own limit is 64, and weights have at most 5.
const MOST_DIMENSIONS: usize = 16;

/// The result of a call.
pub(super) enum Outcome<'a> {
    /// A new value.
    Value(Value<'a>),
    /// One of the arguments.
    Same(Id),
}

/// The meaning of a call.
#[derive(Clone, Copy)]
enum Meaning {
    /// A tensor from the arguments `(storage, offset, shape, strides, …)`.
    Tensor,
    /// A tensor as in [`Meaning::Tensor`], with the element type as seventh argument.
    TypedTensor,
    /// A tensor with attributes from `(function, class, arguments, state)`, where the function makes the tensor.
    AttributedTensor,
    /// The first argument.
    First,
    /// A dict, with the pairs of the first argument if that is a list.
    Dict,
    /// A set, whose elements are ignored.
    Set,
    /// An opaque object that keeps its arguments, from which NumPy's arrays are read.
    Opaque,
}

/// `(module, name, meaning)`.
const CALLS: &[(&str, &str, Meaning)] = &[
    // Tensors in files of `torch.save` and TorchScript.
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
    // Quantised and sparse tensors, which are not weights.
    ("torch._utils", "_rebuild_qtensor", Meaning::Opaque),
    ("torch._utils", "_rebuild_sparse_tensor", Meaning::Opaque),
    ("torch", "device", Meaning::Opaque),
    ("torch", "Size", Meaning::First),
    ("torch.serialization", "_get_layout", Meaning::Opaque),
    // Python's collections and numbers, with the module names of Python 2 and 3.
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
    // Bytes in protocol 2.
    ("_codecs", "encode", Meaning::Opaque),
    // Objects of ordinary classes in protocols below 2.
    ("copyreg", "_reconstructor", Meaning::Opaque),
    ("copy_reg", "_reconstructor", Meaning::Opaque),
    // Times and paths in training logs.
    ("datetime", "datetime", Meaning::Opaque),
    ("datetime", "date", Meaning::Opaque),
    ("datetime", "time", Meaning::Opaque),
    ("datetime", "timedelta", Meaning::Opaque),
    ("datetime", "timezone", Meaning::Opaque),
    ("pathlib", "PosixPath", Meaning::Opaque),
    ("pathlib", "WindowsPath", Meaning::Opaque),
    ("pathlib", "PurePosixPath", Meaning::Opaque),
    ("pathlib", "PureWindowsPath", Meaning::Opaque),
    // NumPy's numbers and arrays; version 2 renamed the modules.
    ("numpy", "dtype", Meaning::Opaque),
    ("numpy", "ndarray", Meaning::Opaque),
    ("numpy.core.multiarray", "scalar", Meaning::Opaque),
    ("numpy.core.multiarray", "_reconstruct", Meaning::Opaque),
    ("numpy._core.multiarray", "scalar", Meaning::Opaque),
    ("numpy._core.multiarray", "_reconstruct", Meaning::Opaque),
];

/// PyTorch's storage classes, all in the module `torch`.
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

/// PyTorch's element types in [`Meaning::TypedTensor`], all in the module `torch`.
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

/// Python modules that act on the machine or run code.
///
/// A file that constructs an object from one of them is refused, although nothing would be executed here, because no
/// weight file needs such an object.
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

/// Checks the class of an object that is constructed without a call.
///
/// # Errors
/// Returns an error if the class is in a module that acts on the machine.
pub(super) fn construct(class: Global<'_>) -> Result<(), PickleError> {
    let module = class.module.split('.').next().unwrap_or_default();
    if ACTING_MODULES.contains(&module) {
        return Err(PickleError::Call(class.to_string()));
    }
    Ok(())
}

/// Returns the element type of a storage class, or `None` for other classes.
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

/// Returns the result of a call, from the name of the function and its arguments.
///
/// # Errors
/// Returns an error if the function is not on the list, or if its arguments are invalid.
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
    let invalid = || PickleError::Damaged {
        at,
        reason: format!("the arguments of {callee} are not those that PyTorch writes"),
    };
    Ok(match meaning {
        Meaning::Tensor => Outcome::Value(tensor(values, arguments).ok_or_else(invalid)?),
        Meaning::TypedTensor => {
            let dtype = arguments.get(6).and_then(|id| element_type(values, *id));
            match tensor(values, arguments).ok_or_else(invalid)? {
                Value::Tensor(mut tensor) => {
                    tensor.dtype = Some(dtype.ok_or_else(invalid)?);
                    Outcome::Value(Value::Tensor(tensor))
                }
                other => Outcome::Value(other),
            }
        }
        Meaning::AttributedTensor => {
            let inner = match arguments.first().and_then(|id| get(values, *id)) {
                Some(Value::Global(inner)) if *inner != callee => *inner,
                _ => return Err(invalid()),
            };
            let Some(Value::Tuple(inner_arguments)) =
                arguments.get(2).and_then(|id| get(values, *id))
            else {
                return Err(invalid());
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
        // A tensor without a storage in the file cannot be read.
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

/// Returns the pairs of a dict in the form of Python 2: a list whose elements are lists or tuples of two.
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
