//! What a pickle describes, as inert values.
//!
//! Values stand in one table and refer to each other by index. A pickle can describe values that hold themselves and
//! values nested without end; a table has no trouble with either, where owned trees would overflow the stack when
//! they are dropped.

use std::fmt;

use safetensors::Dtype;

/// Index of a value in its [`Document`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Id(pub(crate) u32);

/// A class or function by name. Nothing is ever looked up under it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Global<'a> {
    pub(crate) module: &'a str,
    pub(crate) name: &'a str,
}

impl fmt::Display for Global<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Names come from the file: escaped, so that they cannot write control characters to a terminal, and cut.
        let shown = |text: &str| text.chars().take(100).collect::<String>();
        write!(
            f,
            "{}.{}",
            shown(self.module).escape_debug(),
            shown(self.name).escape_debug()
        )
    }
}

/// One value.
#[derive(Debug)]
pub(crate) enum Value<'a> {
    None,
    Bool(bool),
    Int(i64),
    /// A whole number beyond 64 bits: two's complement, little-endian.
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
    /// A persistent id that is no storage.
    Reference,
    Tensor(Box<TensorRef>),
    Object(Box<Object>),
}

/// An object of a class that means nothing here: its parts, uninterpreted.
#[derive(Debug, Default)]
pub(crate) struct Object {
    /// What `BUILD` set, usually a dict of attributes.
    pub(crate) state: Option<Id>,
    /// What `SETITEM` set, where the class is a kind of dict.
    pub(crate) items: Vec<(Id, Id)>,
    /// What it was called with.
    pub(crate) arguments: Vec<Id>,
}

/// What a storage holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Elements {
    /// Bytes; the tensor says what they are.
    Bytes,
    /// Numbers of a type.
    Of(Dtype),
}

impl Elements {
    /// The type of the numbers, where the storage says it.
    pub(crate) fn dtype(self) -> Option<Dtype> {
        match self {
            Self::Bytes => None,
            Self::Of(dtype) => Some(dtype),
        }
    }
}

/// A storage that stands elsewhere in the file.
#[derive(Debug, Clone)]
pub(crate) struct StorageRef<'a> {
    pub(crate) holds: Elements,
    /// Name inside the file.
    pub(crate) key: &'a [u8],
    /// Number of elements.
    pub(crate) elements: u64,
    /// First element and number of elements, where it is a part of the storage `key`.
    pub(crate) view: Option<(u64, u64)>,
}

/// A tensor: a view of a storage.
#[derive(Debug, Clone)]
pub(crate) struct TensorRef {
    /// A [`Value::Storage`].
    pub(crate) storage: Id,
    /// First element.
    pub(crate) offset: u64,
    pub(crate) shape: Vec<u64>,
    /// In elements, as many as `shape` has.
    pub(crate) strides: Vec<u64>,
    /// Where it differs from the storage's.
    pub(crate) dtype: Option<Dtype>,
}

/// The values of one pickle.
#[derive(Debug)]
pub(crate) struct Document<'a> {
    pub(crate) values: Vec<Value<'a>>,
    pub(crate) root: Id,
    /// Bytes that the pickle takes.
    pub(crate) length: usize,
}

impl<'a> Document<'a> {
    /// A value; `None` for an index of another document.
    pub(crate) fn get(&self, id: Id) -> Option<&Value<'a>> {
        self.values.get(id.0 as usize)
    }

    /// The outermost value.
    pub(crate) fn root(&self) -> Option<&Value<'a>> {
        self.get(self.root)
    }

    /// A whole number.
    pub(crate) fn int(&self, id: Id) -> Option<i64> {
        match self.get(id)? {
            Value::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// A whole number that counts something.
    pub(crate) fn count(&self, id: Id) -> Option<u64> {
        u64::try_from(self.int(id)?).ok()
    }

    /// A text.
    pub(crate) fn text(&self, id: Id) -> Option<&'a [u8]> {
        match self.get(id)? {
            Value::Text(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The elements of a tuple or list.
    pub(crate) fn elements(&self, id: Id) -> Option<&[Id]> {
        match self.get(id)? {
            Value::Tuple(items) | Value::List(items) => Some(items),
            _ => None,
        }
    }

    /// The pairs of a dict or of an object that is a kind of dict.
    pub(crate) fn pairs(&self, id: Id) -> Option<&[(Id, Id)]> {
        match self.get(id)? {
            Value::Dict(pairs) => Some(pairs),
            Value::Object(object) if !object.items.is_empty() => Some(&object.items),
            _ => None,
        }
    }

    /// The value under a text key.
    pub(crate) fn entry(&self, pairs: &[(Id, Id)], key: &str) -> Option<Id> {
        // The last one of a key wins, as in a dict that is filled in order.
        pairs
            .iter()
            .rev()
            .find(|(k, _)| self.text(*k) == Some(key.as_bytes()))
            .map(|(_, value)| *value)
    }
}
