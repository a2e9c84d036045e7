//! The operators that change shapes: reshaping, cutting, joining, and sizes that are known only when the model runs.

use crate::{
    graph::{Attribute, Graph},
    value::{Dim, Kind, Value},
};

/// A size: fixed, or that of a value's axis when the model runs.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Size<'a> {
    Is(i64),
    Of(&'a Value, i64),
    /// Computed numbers, `[count]`
    Computed(&'a Value),
}

impl Graph<'_> {
    /// Returns sizes as one vector of integers; a constant if all of them are fixed.
    pub(crate) fn sizes(&mut self, sizes: &[Size]) -> Value {
        let mut parts: Vec<Value> = Vec::new();
        let mut fixed: Vec<i64> = Vec::new();
        for size in sizes {
            let number = match size {
                Size::Is(number) => Some(vec![*number]),
                Size::Of(value, axis) => value.dim(*axis).known().map(|known| vec![known as i64]),
                Size::Computed(value) => self.numbers_of(value).map(<[i64]>::to_vec),
            };
            if let Some(numbers) = number {
                fixed.extend(numbers);
                continue;
            }
            if !fixed.is_empty() {
                parts.push(self.integers(&std::mem::take(&mut fixed)));
            }
            match size {
                Size::Of(value, axis) => parts.push(self.length(value, *axis)),
                Size::Computed(value) => parts.push((*value).clone()),
                Size::Is(_) => {}
            }
        }
        if parts.is_empty() {
            return self.integers(&fixed);
        }
        if !fixed.is_empty() {
            parts.push(self.integers(&fixed));
        }
        match &parts[..] {
            [one] => one.clone(),
            _ => self.concat(&parts.iter().collect::<Vec<_>>(), 0),
        }
    }

    /// Returns the length of an axis when the model runs: `[1]`
    fn length(&mut self, value: &Value, axis: i64) -> Value {
        let rank = value.rank() as i64;
        let start = axis.rem_euclid(rank.max(1));
        let attributes = vec![
            Attribute::Int("start", start),
            Attribute::Int("end", start + 1),
        ];
        self.node(
            "Shape",
            &[value],
            attributes,
            Kind::Int,
            vec![Dim::Known(1)],
        )
    }

    /// Reshapes a value.
    ///
    /// - `spec`: 0 keeps the length of the same axis, −1 takes what remains, other numbers are lengths
    pub(crate) fn reshape(&mut self, x: &Value, spec: &[i64]) -> Value {
        let mut shape: Vec<Dim> = Vec::with_capacity(spec.len());
        let mut kept = vec![false; x.rank()];
        for (axis, length) in spec.iter().enumerate() {
            shape.push(match length {
                0 => {
                    if let Some(kept) = kept.get_mut(axis) {
                        *kept = true;
                    }
                    x.dim(axis as i64)
                }
                -1 => Dim::Known(1),
                length => Dim::Known(*length as usize),
            });
        }
        if let Some(rest) = spec.iter().position(|length| *length == -1) {
            let dims = x.shape.iter().zip(&kept);
            let source: Vec<&Dim> = dims
                .filter(|(_, kept)| !**kept)
                .map(|(dim, _)| dim)
                .collect();
            let taken: usize = spec
                .iter()
                .filter(|n| **n > 0)
                .map(|n| *n as usize)
                .product();
            shape[rest] = quotient(&source, taken.max(1));
        }
        let spec = self.integers(spec);
        self.node("Reshape", &[x, &spec], vec![], x.kind, shape)
    }

    /// Reshapes a value to computed sizes.
    ///
    /// - `shape`: the lengths, as far as they are known
    pub(crate) fn reshape_to(&mut self, x: &Value, sizes: &[Size], shape: Vec<Dim>) -> Value {
        let sizes = self.sizes(sizes);
        self.node("Reshape", &[x, &sizes], vec![], x.kind, shape)
    }

    /// Exchanges axes.
    pub(crate) fn transpose(&mut self, x: &Value, order: &[i64]) -> Value {
        let shape = order.iter().map(|axis| x.dim(*axis)).collect();
        let order = vec![Attribute::Ints("perm", order.to_vec())];
        self.node("Transpose", &[x], order, x.kind, shape)
    }

    /// Joins values along an axis.
    pub(crate) fn concat(&mut self, parts: &[&Value], axis: i64) -> Value {
        let Some(first) = parts.first() else {
            self.misfit("Concat", parts);
            return self.integers(&[]);
        };
        let at = axis.rem_euclid((first.rank() as i64).max(1)) as usize;
        let mut shape = first.shape.clone();
        if parts
            .iter()
            .any(|part| part.rank() != first.rank() || part.kind != first.kind)
        {
            self.misfit("Concat", parts);
        }
        let lengths: Vec<Dim> = parts.iter().map(|part| part.dim(axis)).collect();
        if let Some(dim) = shape.get_mut(at) {
            *dim = Dim::sum(&lengths);
        }
        let axis = vec![Attribute::Int("axis", axis)];
        self.node("Concat", parts, axis, first.kind, shape)
    }

    /// Splits an axis into equal parts.
    pub(crate) fn split(&mut self, x: &Value, axis: i64, count: usize) -> Vec<Value> {
        let length = x.dim(axis).known().unwrap_or(0) / count.max(1);
        let lengths = vec![length as i64; count];
        let lengths = self.integers(&lengths);
        let at = axis.rem_euclid((x.rank() as i64).max(1)) as usize;
        let mut shape = x.shape.clone();
        if let Some(dim) = shape.get_mut(at) {
            *dim = Dim::Known(length);
        }
        let outputs = vec![(x.kind, shape); count];
        let axis = vec![Attribute::Int("axis", axis)];
        self.node_of_several("Split", &[x, &lengths], axis, outputs)
    }

    /// Cuts `[start, end)` out of an axis; without an end, everything from `start` on.
    pub(crate) fn slice(&mut self, x: &Value, axis: i64, start: i64, end: Option<i64>) -> Value {
        let length = match (x.dim(axis), end) {
            (Dim::Known(length), None) => Dim::Known((length as i64 - start).max(0) as usize),
            (_, Some(end)) => Dim::Known((end - start).max(0) as usize),
            (Dim::Named(name), None) if start == 0 => Dim::Named(name),
            (Dim::Named(name), None) => less(&name, start),
        };
        let end = match end {
            Some(end) => self.integers(&[end]),
            None => self.integers(&[i64::MAX]),
        };
        self.slice_to(x, axis, start, &end, length)
    }

    /// Cuts `[start, end)` out of an axis with a computed end, `[1]`.
    pub(crate) fn slice_to(
        &mut self,
        x: &Value,
        axis: i64,
        start: i64,
        end: &Value,
        length: Dim,
    ) -> Value {
        let at = axis.rem_euclid((x.rank() as i64).max(1)) as usize;
        let mut shape = x.shape.clone();
        if let Some(dim) = shape.get_mut(at) {
            *dim = length;
        }
        let (start, axes) = (self.integers(&[start]), self.integers(&[axis]));
        self.node("Slice", &[x, &start, end, &axes], vec![], x.kind, shape)
    }

    /// Returns the last place of an axis, which stays with length 1.
    pub(crate) fn slice_to_end(&mut self, x: &Value, axis: i64) -> Value {
        let end = self.integers(&[i64::MAX]);
        self.slice_to(x, axis, -1, &end, Dim::Known(1))
    }

    /// Repeats axes of length 1.
    pub(crate) fn expand(&mut self, x: &Value, sizes: &[Size], shape: Vec<Dim>) -> Value {
        if x.shape == shape {
            return x.clone();
        }
        let sizes = self.sizes(sizes);
        self.node("Expand", &[x, &sizes], vec![], x.kind, shape)
    }

    /// Repeats the first axis, of length 1, for every image of the batch.
    pub(crate) fn for_batch(&mut self, x: &Value, batch: &Value) -> Value {
        let mut shape = x.shape.clone();
        let mut sizes = vec![Size::Of(batch, 0)];
        sizes.extend(
            shape
                .iter()
                .skip(1)
                .enumerate()
                .map(|(axis, dim)| match dim {
                    Dim::Known(length) => Size::Is(*length as i64),
                    Dim::Named(_) => Size::Of(x, axis as i64 + 1),
                }),
        );
        if let Some(first) = shape.first_mut() {
            *first = batch.dim(0);
        }
        self.expand(x, &sizes, shape)
    }

    /// Adds an axis of length 1.
    pub(crate) fn unsqueeze(&mut self, x: &Value, axis: i64) -> Value {
        let mut shape = x.shape.clone();
        shape.insert((axis.max(0) as usize).min(shape.len()), Dim::Known(1));
        let axes = self.integers(&[axis]);
        self.node("Unsqueeze", &[x, &axes], vec![], x.kind, shape)
    }

    /// Removes an axis of length 1.
    pub(crate) fn squeeze(&mut self, x: &Value, axis: i64) -> Value {
        let mut shape = x.shape.clone();
        let at = axis.rem_euclid((shape.len() as i64).max(1)) as usize;
        if at < shape.len() {
            shape.remove(at);
        }
        let axes = self.integers(&[axis]);
        self.node("Squeeze", &[x, &axes], vec![], x.kind, shape)
    }

    /// Picks places of an axis, `[count]`.
    pub(crate) fn gather(&mut self, x: &Value, places: &Value, axis: i64) -> Value {
        let at = axis.rem_euclid((x.rank() as i64).max(1)) as usize;
        let mut shape = x.shape.clone();
        shape.splice(at..=at, places.shape.iter().cloned());
        let axis = vec![Attribute::Int("axis", axis)];
        self.node("Gather", &[x, places], axis, x.kind, shape)
    }

    /// Adds a row of zeros in front of each of the last axes.
    pub(crate) fn padded_in_front(&mut self, x: &Value, axes: usize) -> Value {
        let rank = x.rank();
        let first = rank.saturating_sub(axes);
        let mut pads = vec![0; 2 * rank];
        for before in &mut pads[first..rank] {
            *before = 1;
        }
        let mut shape = x.shape.clone();
        for dim in &mut shape[first..] {
            *dim = Dim::sum([&*dim, &Dim::Known(1)]);
        }
        let pads = self.integers(&pads);
        self.node("Pad", &[x, &pads], vec![], x.kind, shape)
    }

    /// Returns the numbers from 0 up to an end, of rank 0 or `[1]`: `[end]`
    pub(crate) fn range(&mut self, end: &Value, length: Dim) -> Value {
        let end = if end.rank() == 0 {
            end.clone()
        } else {
            self.squeeze(end, 0)
        };
        let (zero, one) = (self.integer(0), self.integer(1));
        self.node(
            "Range",
            &[&zero, &end, &one],
            vec![],
            Kind::Int,
            vec![length],
        )
    }
}

/// Returns what remains of a product of lengths after a division.
fn quotient(dims: &[&Dim], divisor: usize) -> Dim {
    match Dim::product(dims.iter().copied()) {
        Dim::Known(all) => Dim::Known(all / divisor),
        Dim::Named(name) if divisor == 1 => Dim::Named(name),
        Dim::Named(_) => {
            // A fixed factor may cancel.
            let fixed: usize = dims.iter().filter_map(|dim| dim.known()).product();
            let named = dims.iter().copied().filter(|dim| dim.known().is_none());
            let mut all: Vec<Dim> = named.cloned().collect();
            if fixed.is_multiple_of(divisor) {
                all.push(Dim::Known(fixed / divisor));
                return Dim::product(&all);
            }
            Dim::Named(format!("{}/{divisor}", Dim::product(dims.iter().copied())))
        }
    }
}

/// Returns the name of a length from which a number is taken.
fn less(name: &str, number: i64) -> Dim {
    match name.rsplit_once('+') {
        Some((rest, last)) if last.parse() == Ok(number) => Dim::named(rest),
        Some((rest, last)) => match last.parse::<i64>() {
            Ok(last) if last > number => Dim::named(format!("{rest}+{}", last - number)),
            _ => Dim::named(format!("{name}-{number}")),
        },
        None => Dim::named(format!("{name}-{number}")),
    }
}
