//! Values of a graph: their names, element types and shapes.

use std::fmt;

use crate::proto::{DimensionProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto};

/// The type of the elements of a tensor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kind {
    /// 32-bit floats
    Float,
    /// 16-bit floats
    Half,
    /// 64-bit integers
    Int,
    /// Truth values
    Bool,
    /// Unsigned bytes
    Byte,
    /// Signed bytes
    SignedByte,
}

impl Kind {
    /// Returns ONNX's number of the type (`TensorProto.DataType`).
    pub fn number(self) -> i32 {
        match self {
            Self::Float => 1,
            Self::Byte => 2,
            Self::SignedByte => 3,
            Self::Int => 7,
            Self::Bool => 9,
            Self::Half => 10,
        }
    }
}

/// The length of an axis.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dim {
    /// A number that the file fixes.
    Known(usize),
    /// A number that is known when the model runs; equal names are equal numbers.
    Named(String),
}

impl Dim {
    /// Returns a named length.
    pub fn named(name: impl Into<String>) -> Self {
        Self::Named(name.into())
    }

    /// Returns the number, if the file fixes it.
    pub fn known(&self) -> Option<usize> {
        match self {
            Self::Known(length) => Some(*length),
            Self::Named(_) => None,
        }
    }

    /// Returns the sum of lengths.
    pub fn sum<'a>(dims: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut fixed = 0;
        let mut names: Vec<&str> = Vec::new();
        for dim in dims {
            match dim {
                Self::Known(length) => fixed += length,
                Self::Named(name) => names.push(name),
            }
        }
        if names.is_empty() {
            return Self::Known(fixed);
        }
        if fixed == 0 {
            return Self::Named(names.join("+"));
        }
        Self::Named(format!("{}+{fixed}", names.join("+")))
    }

    /// Returns the product of lengths.
    pub fn product<'a>(dims: impl IntoIterator<Item = &'a Self>) -> Self {
        let mut fixed = 1;
        let mut names: Vec<String> = Vec::new();
        for dim in dims {
            match dim {
                Self::Known(length) => fixed *= length,
                Self::Named(name) if name.contains(['+', '*', '-']) => {
                    names.push(format!("({name})"));
                }
                Self::Named(name) => names.push(name.clone()),
            }
        }
        if names.is_empty() {
            return Self::Known(fixed);
        }
        if fixed == 1 {
            return Self::Named(names.join("*"));
        }
        Self::Named(format!("{fixed}*{}", names.join("*")))
    }

    fn proto(&self) -> DimensionProto {
        match self {
            Self::Known(length) => DimensionProto {
                dim_value: Some(*length as i64),
                dim_param: None,
            },
            Self::Named(name) => DimensionProto {
                dim_value: None,
                dim_param: Some(name.clone()),
            },
        }
    }
}

impl From<usize> for Dim {
    fn from(length: usize) -> Self {
        Self::Known(length)
    }
}

impl fmt::Display for Dim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Known(length) => length.fmt(f),
            Self::Named(name) => name.fmt(f),
        }
    }
}

/// A value of the graph: an input, a constant or the output of a node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Value {
    /// Name in the graph.
    pub name: String,
    /// Type of the elements.
    pub kind: Kind,
    /// Lengths of the axes, slowest first.
    pub shape: Vec<Dim>,
}

impl Value {
    /// Returns the number of axes.
    pub fn rank(&self) -> usize {
        self.shape.len()
    }

    /// Returns the length of an axis; negative axes count from the last.
    pub fn dim(&self, axis: i64) -> Dim {
        let rank = self.shape.len() as i64;
        let index = if axis < 0 { axis + rank } else { axis };
        let found = usize::try_from(index)
            .ok()
            .and_then(|at| self.shape.get(at));
        found.cloned().unwrap_or(Dim::Known(0))
    }

    /// Returns the value's name and type as they stand in a file.
    pub(crate) fn proto(&self, description: Option<&str>) -> ValueInfoProto {
        ValueInfoProto {
            name: Some(self.name.clone()),
            r#type: Some(TypeProto {
                tensor_type: Some(TensorTypeProto {
                    elem_type: Some(self.kind.number()),
                    shape: Some(TensorShapeProto {
                        dim: self.shape.iter().map(Dim::proto).collect(),
                    }),
                }),
            }),
            doc_string: description.map(str::to_owned),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_are_added_and_multiplied_by_number_or_by_name() {
        let (h, two, three) = (Dim::named("h"), Dim::Known(2), Dim::Known(3));
        assert_eq!(Dim::sum([&two, &three]), Dim::Known(5));
        assert_eq!(Dim::sum([&two, &h, &three]), Dim::named("h+5"));
        assert_eq!(Dim::product([&two, &three]), Dim::Known(6));
        assert_eq!(
            Dim::product([&Dim::sum([&h, &two]), &three]),
            Dim::named("3*(h+2)")
        );
    }
}
