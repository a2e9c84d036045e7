//! The inert values that a pickle describes.
//!
//! All values are in one table and refer to each other by index. A pickle can describe values that contain themselves
//! and values that are nested very deeply. A table can represent both, while dropping a deep tree of owned values would
//! overflow the stack.

use std::fmt;

use safetensors::Dtype;

/// Index of a value in its [`Document`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) u32);

/// The name of a class or function, which is never looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Global<'a> {
    pub(crate) module: &'a str,
    pub(crate) name: &'a str,
}

impl fmt::Display for Global<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names come from the file, so they are escaped and shortened, to keep control characters off the terminal.
        let shown = |text: &str| text.chars().take(100).collect::<String>();
        write!(
            f,
            "{}.{}",
            shown(self.module).escape_debug(),
            shown(self.name).escape_debug()
        )
    }
}

/// A value of a pickle.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// An integer of more than 64 bits, in two's complement, little-endian.
    LongInt(&'a [u8]),
    Float,
    /// Text, not necessarily UTF-8.
    Text(&'a [u8]),
    Bytes(&'a [u8]),
    List(Vec<Id>),
    Tuple(Vec<Id>),
    Set,
    Dict(Vec<(Id, Id)>),
    Global(Global<'a>),
    Storage(Box<StorageRef<'a>>),
    /// A persistent id that is not a storage.
    Reference,
    Tensor(Box<TensorRef>),
    Object(Box<Object>),
}

/// An opaque object, whose class has no meaning for the parser.
#[derive(Debug, Default)]
pub(crate) struct Object {
    /// The state that `BUILD` has set, usually a dict of attributes.
    pub(crate) state: Option<Id>,
    /// The items that `SETITEM` has set, if the class is a kind of dict.
    pub(crate) items: Vec<(Id, Id)>,
    /// The arguments of the call that made the object.
    pub(crate) arguments: Vec<Id>,
}

/// The element type of a storage.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elements {
    /// Untyped bytes, whose type is stated by the tensor.
    Bytes,
    /// Elements of this type.
    Of(Dtype),
}

impl Elements {
    /// Returns the element type, if the storage states it.
    pub(crate) fn dtype(self) -> Option<Dtype> {
        match self {
            Self::Bytes => None,
            Self::Of(dtype) => Some(dtype),
        }
    }
}

/// A reference to a storage, which is outside of the pickle.
#[derive(Debug, Clone)]
pub(crate) struct StorageRef<'a> {
    pub(crate) holds: Elements,
    /// Key of the storage in the file.
    pub(crate) key: &'a [u8],
    /// Number of elements.
    pub(crate) elements: u64,
    /// First element and number of elements, if it is a part of the storage `key`.
    pub(crate) view: Option<(u64, u64)>,
}

/// A tensor: a view of a storage.
#[derive(Debug, Clone)]
pub(crate) struct TensorRef {
    /// Index of a [`Value::Storage`].
    pub(crate) storage: Id,
    /// Index of the first element in the storage.
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    /// Strides in elements, one per dimension.
    pub(crate) strides: Vec<u64>,
    /// Element type, if it differs from that of the storage.
    pub(crate) dtype: Option<Dtype>,
}

/// The values of one pickle.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    pub(crate) values: Vec<Value<'a>>,
    pub(crate) root: Id,
    /// Length of the pickle in bytes.
    pub(crate) length: usize,
}

impl<'a> Document<'a> {
    /// Returns a value, or `None` if the index is not of this document.
    pub(crate) fn get(&self, id: Id) -> Option<&Value<'a>> {
        self.values.get(id.0 as usize)
    }

    /// Returns the outermost value.
    pub(crate) fn root(&self) -> Option<&Value<'a>> {
        self.get(self.root)
    }

    /// Returns the value as an integer.
    pub(crate) fn int(&self, id: Id) -> Option<i64> {
        match self.get(id)? {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// Returns the value as a non-negative integer.
    pub(crate) fn count(&self, id: Id) -> Option<u64> {
        u64::try_from(self.int(id)?).ok()
    }

    /// Returns the value as text.
    pub(crate) fn text(&self, id: Id) -> Option<&'a [u8]> {
        match self.get(id)? {
            Value::Text(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// Returns the elements of a tuple or list.
    pub(crate) fn elements(&self, id: Id) -> Option<&[Id]> {
        match self.get(id)? {
            Value::Tuple(items) | Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// Returns the pairs of a dict or of an object that is a kind of dict.
    pub(crate) fn pairs(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id)? {
            Value::Dict(pairs) => Some(pairs),
            Value::Object(object) if !object.items.is_empty() => Some(&object.items),
            _ => None,
        }
    }

    /// Returns the value for a text key.
    pub(crate) fn entry(&self, pairs: &[(Id, Id)], key: &str) -> Option<Id> {
        // If a key occurs more than once, the last value counts, as in a dict that is filled in order.
        pairs
            .iter()
            .rev()
            .find(|(k, _)| self.text(*k) == Some(key.as_bytes()))
            .map(|(_, value)| *value)
    }
}
