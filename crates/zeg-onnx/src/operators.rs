//! The operators of a graph: arithmetic, products, reductions and comparisons.

use zeg_model::config::HeadConfig;

use crate::{
    graph::{Attribute, Graph},
    value::{Dim, Kind, Value},
};

/// A reduction along axes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reduction {
    Mean,
    Sum,
    Max,
    /// The Euclidean length.
    Length,
}

/// Returns the shape of an element-wise operation; `None` if the shapes do not fit.
fn broadcast(a: &[Dim], b: &[Dim]) -> Option<Vec<Dim>> {
    let rank = a.len().max(b.len());
    let one = Dim::Known(1);
    let at = |dims: &[Dim], index: usize| {
        let missing = rank - dims.len();
        index
            .checked_sub(missing)
            .map_or(one.clone(), |at| dims[at].clone())
    };
    (0..rank)
        .map(|index| match (at(a, index), at(b, index)) {
            (x, y) if x == y => Some(x),
            (Dim::Known(1), other) | (other, Dim::Known(1)) => Some(other),
            (Dim::Known(_), Dim::Known(_)) => None,
            // A named length can be anything, but both must be equal when the model runs.
            (known @ Dim::Known(_), _) | (_, known @ Dim::Known(_)) => Some(known),
            (named, _) => Some(named),
        })
        .collect()
}

impl Graph<'_> {
    /// Adds an element-wise operator of two values.
    fn binary(&mut self, operator: &str, a: &Value, b: &Value, kind: Kind) -> Value {
        let shape = broadcast(&a.shape, &b.shape).filter(|_| a.kind == b.kind);
        if shape.is_none() {
            self.misfit(operator, &[a, b]);
        }
        let shape = shape.unwrap_or_else(|| a.shape.clone());
        self.node(operator, &[a, b], vec![], kind, shape)
    }

    /// Adds an element-wise operator of one value.
    fn unary(&mut self, operator: &str, x: &Value) -> Value {
        self.node(operator, &[x], vec![], x.kind, x.shape.clone())
    }

    pub(crate) fn add(&mut self, a: &Value, b: &Value) -> Value {
        self.binary("Add", a, b, a.kind)
    }

    pub(crate) fn subtract(&mut self, a: &Value, b: &Value) -> Value {
        self.binary("Sub", a, b, a.kind)
    }

    pub(crate) fn multiply(&mut self, a: &Value, b: &Value) -> Value {
        self.binary("Mul", a, b, a.kind)
    }

    pub(crate) fn divide(&mut self, a: &Value, b: &Value) -> Value {
        self.binary("Div", a, b, a.kind)
    }

    pub(crate) fn modulo(&mut self, a: &Value, b: &Value) -> Value {
        self.binary("Mod", a, b, a.kind)
    }

    pub(crate) fn larger(&mut self, a: &Value, b: &Value) -> Value {
        self.binary("Max", a, b, a.kind)
    }

    pub(crate) fn smaller(&mut self, a: &Value, b: &Value) -> Value {
        self.binary("Min", a, b, a.kind)
    }

    pub(crate) fn equal(&mut self, a: &Value, b: &Value) -> Value {
        self.binary("Equal", a, b, Kind::Bool)
    }

    pub(crate) fn less(&mut self, a: &Value, b: &Value) -> Value {
        self.binary("Less", a, b, Kind::Bool)
    }

    pub(crate) fn greater(&mut self, a: &Value, b: &Value) -> Value {
        self.binary("Greater", a, b, Kind::Bool)
    }

    pub(crate) fn and(&mut self, a: &Value, b: &Value) -> Value {
        self.binary("And", a, b, Kind::Bool)
    }

    pub(crate) fn or(&mut self, a: &Value, b: &Value) -> Value {
        self.binary("Or", a, b, Kind::Bool)
    }

    /// Multiplies by a constant; a constant of 1 adds no node.
    pub(crate) fn scale(&mut self, x: &Value, factor: f64) -> Value {
        if (factor - 1.0).abs() < f64::EPSILON {
            return x.clone();
        }
        let factor = self.number(factor, x.kind);
        self.multiply(x, &factor)
    }

    /// Returns the logits of class masks from the products of queries and patches.
    pub(crate) fn mask_logits(&mut self, products: &Value, head: &HeadConfig) -> Value {
        let logits = self.scale(products, head.mask_scale);
        if head.mask_bias == 0.0 {
            logits
        } else {
            self.shift(&logits, head.mask_bias)
        }
    }

    /// Adds a constant.
    pub(crate) fn shift(&mut self, x: &Value, term: f64) -> Value {
        let term = self.number(term, x.kind);
        self.add(x, &term)
    }

    pub(crate) fn relu(&mut self, x: &Value) -> Value {
        self.unary("Relu", x)
    }

    pub(crate) fn sigmoid(&mut self, x: &Value) -> Value {
        self.unary("Sigmoid", x)
    }

    /// Computes σ(−x) as 1/(1 + e^x), as the program does.
    ///
    /// ONNX Runtime's `Sigmoid` is 0 below −18, where all classes of a pixel would be equal.
    pub(crate) fn sigmoid_of_negative(&mut self, x: &Value) -> Value {
        let power = self.exponential(x);
        let sum = self.shift(&power, 1.0);
        self.unary("Reciprocal", &sum)
    }

    pub(crate) fn absolute(&mut self, x: &Value) -> Value {
        self.unary("Abs", x)
    }

    pub(crate) fn negate(&mut self, x: &Value) -> Value {
        self.unary("Neg", x)
    }

    pub(crate) fn exponential(&mut self, x: &Value) -> Value {
        self.unary("Exp", x)
    }

    pub(crate) fn square_root(&mut self, x: &Value) -> Value {
        self.unary("Sqrt", x)
    }

    pub(crate) fn round(&mut self, x: &Value) -> Value {
        self.unary("Round", x)
    }

    pub(crate) fn softmax(&mut self, x: &Value, axis: i64) -> Value {
        let axis = vec![Attribute::Int("axis", axis)];
        self.node("Softmax", &[x], axis, x.kind, x.shape.clone())
    }

    /// Converts the elements; a value of that kind is returned as it is.
    pub(crate) fn cast(&mut self, x: &Value, kind: Kind) -> Value {
        if x.kind == kind {
            return x.clone();
        }
        let to = vec![Attribute::Int("to", i64::from(kind.number()))];
        self.node("Cast", &[x], to, kind, x.shape.clone())
    }

    /// Chooses between two values where a condition holds, and where it does not.
    pub(crate) fn choose(&mut self, condition: &Value, yes: &Value, no: &Value) -> Value {
        let both = broadcast(&yes.shape, &no.shape);
        let shape = both.and_then(|both| broadcast(&condition.shape, &both));
        if shape.is_none() || yes.kind != no.kind {
            self.misfit("Where", &[condition, yes, no]);
        }
        let shape = shape.unwrap_or_else(|| yes.shape.clone());
        self.node("Where", &[condition, yes, no], vec![], yes.kind, shape)
    }

    /// Multiplies matrices: `[…, m, k]` and `[…, k, n]` → `[…, m, n]`
    pub(crate) fn product(&mut self, a: &Value, b: &Value) -> Value {
        let (inner, other) = (a.dim(-1), b.dim(-2));
        let outer = |value: &Value| value.shape[..value.rank().saturating_sub(2)].to_vec();
        let outer = broadcast(&outer(a), &outer(b)).filter(|_| {
            let fit = match (&inner, &other) {
                (Dim::Known(x), Dim::Known(y)) => x == y,
                _ => true,
            };
            fit && a.kind == b.kind && a.rank() > 1 && b.rank() > 1
        });
        if outer.is_none() {
            self.misfit("MatMul", &[a, b]);
        }
        let mut shape = outer.unwrap_or_default();
        shape.extend([a.dim(-2), b.dim(-1)]);
        self.node("MatMul", &[a, b], vec![], a.kind, shape)
    }

    /// Reduces axes, which stay with length 1.
    pub(crate) fn reduce(&mut self, reduction: Reduction, x: &Value, axes: &[i64]) -> Value {
        let operator = match reduction {
            Reduction::Mean => "ReduceMean",
            Reduction::Sum => "ReduceSum",
            Reduction::Max => "ReduceMax",
            Reduction::Length => "ReduceL2",
        };
        let rank = x.rank() as i64;
        let mut shape = x.shape.clone();
        for axis in axes {
            if let Some(dim) = shape.get_mut(axis.rem_euclid(rank.max(1)) as usize) {
                *dim = Dim::Known(1);
            }
        }
        // The axes of sums are an input since version 13, those of the others since version 18.
        if reduction == Reduction::Sum || self.opset() >= 18 {
            let axes = self.integers(axes);
            let keep = vec![Attribute::Int("keepdims", 1)];
            return self.node(operator, &[x, &axes], keep, x.kind, shape);
        }
        let attributes = vec![
            Attribute::Ints("axes", axes.to_vec()),
            Attribute::Int("keepdims", 1),
        ];
        self.node(operator, &[x], attributes, x.kind, shape)
    }

    /// Divides the vectors of the last axis by their lengths.
    pub(crate) fn unit(&mut self, x: &Value) -> Value {
        let length = self.reduce(Reduction::Length, x, &[-1]);
        self.divide(x, &length)
    }

    /// Returns the largest elements along the last axis, and their positions, largest first: `[…, count]` each.
    ///
    /// - `count`: `[1]`
    pub(crate) fn largest(
        &mut self,
        x: &Value,
        count: &Value,
        name: Dim,
        most: bool,
    ) -> [Value; 2] {
        let mut shape = x.shape.clone();
        if let Some(last) = shape.last_mut() {
            *last = name;
        }
        let attributes = vec![
            Attribute::Int("axis", -1),
            Attribute::Int("largest", i64::from(most)),
            Attribute::Int("sorted", 1),
        ];
        let outputs = vec![(x.kind, shape.clone()), (Kind::Int, shape)];
        let mut found = self.node_of_several("TopK", &[x, count], attributes, outputs);
        let positions = found.swap_remove(1);
        [found.swap_remove(0), positions]
    }
}
