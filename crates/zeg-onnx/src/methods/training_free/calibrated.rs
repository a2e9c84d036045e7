//! The last block with the steps of the later methods: repaired anomalies, middle blocks, rotated keys.

use zeg_model::methods::training_free::{
    anomaly::{EPSILON, NEIGHBOURS, SHARE},
    calibrated::{Attention, POLAR_STEPS, Steps},
};

use crate::{
    graph::{Attribute, Graph},
    layers::Heads,
    operators::Reduction,
    shapes::Size,
    tower::{Tokens, Tower},
    value::{Dim, Kind, Value},
};

/// The last block.
pub(super) struct Block<'a> {
    pub(super) tower: Tower<'a>,
    /// Index of the block.
    pub(super) last: usize,
    /// Output of the penultimate block.
    pub(super) tokens: &'a Tokens,
    pub(super) steps: &'a Steps,
}

impl Block<'_> {
    /// Computes the patches after the block: `[batch, h·w, width]`
    ///
    /// - `middle`: outputs of the middle blocks
    pub(super) fn patches(&self, g: &mut Graph, middle: &[Value]) -> Value {
        let similar = self
            .steps
            .needs_similarity()
            .then(|| similarity(g, middle))
            .flatten();
        let output = self.pass(g, &self.tokens.sequence, similar.as_ref());
        let mut sum: Option<Value> = None;
        for tokens in middle {
            sum = Some(match sum {
                Some(sum) => g.add(&sum, tokens),
                None => tokens.clone(),
            });
        }
        match sum.filter(|_| self.steps.levels) {
            Some(sum) => {
                let levels = g.scope("levels", |g| self.pass(g, &sum, similar.as_ref()));
                g.add(&output, &levels)
            }
            None => output,
        }
    }

    fn pass(&self, g: &mut Graph, x: &Value, similar: Option<&Value>) -> Value {
        let x = if self.steps.repair {
            g.scope("repair", |g| self.repaired(g, x))
        } else {
            x.clone()
        };
        let normed = self.tower.first_norm(g, self.last, &x);
        let Heads { q, k, v } = self.tower.project(g, self.last, &normed);
        let mut attended: Option<Value> = None;
        for term in self.steps.attention {
            let part = match *term {
                Attention::Queries => weighted(g, &q, &q, &v),
                Attention::Keys => weighted(g, &k, &k, &v),
                Attention::RotatedKeys => {
                    let rotated = rotated(g, &k, &q);
                    weighted(g, &q, &rotated, &v)
                }
                Attention::Middle(temperature) => {
                    let Some(similar) = similar else { continue };
                    let weights = middle_attention(g, similar, temperature);
                    let weights = g.unsqueeze(&weights, 1);
                    let class = g.slice(&v, 2, 0, Some(1));
                    let patches = g.slice(&v, 2, 1, None);
                    let patches = g.product(&weights, &patches);
                    let joined = g.concat(&[&class, &patches], 2);
                    Value {
                        shape: v.shape.clone(),
                        ..joined
                    }
                }
            };
            attended = Some(match attended {
                Some(sum) => g.add(&sum, &part),
                None => part,
            });
        }
        let attended = g.join_heads(&attended.unwrap_or(v));
        let y = self.tower.output(g, self.last, &attended);
        let y = g.slice(&y, 1, 1, None);
        match (self.steps.aggregate, similar) {
            (Some(temperature), Some(similar)) => {
                let weights = middle_attention(g, similar, temperature);
                g.product(&weights, &y)
            }
            _ => y,
        }
    }

    /// Replaces anomaly tokens by the mean of their sound neighbours: `[batch, 1 + h·w, width]` → the same shape
    fn repaired(&self, g: &mut Graph, x: &Value) -> Value {
        let kind = x.kind;
        let tokens = g.cast(x, Kind::Float);
        let class = g.slice(&tokens, 1, 0, Some(1));
        let patches = g.slice(&tokens, 1, 1, None);
        let factors = outlier_factors(g, &patches); // [batch, h·w]
        let anomalies = largest(g, &factors); // [batch, h·w], 0 or 1
        let [rows, columns] = self.tokens.grid.sizes();
        let [h, w] = self.tokens.grid.shape();
        let as_maps = |g: &mut Graph, cells: &Value| {
            let sizes = [Size::Of(cells, 0), Size::Of(cells, 1), rows, columns];
            let shape = vec![cells.dim(0), cells.dim(1), h.clone(), w.clone()];
            g.reshape_to(cells, &sizes, shape)
        };
        let cells = g.transpose(&patches, &[0, 2, 1]);
        let maps = as_maps(g, &cells); // [batch, width, h, w]
        let flags = g.unsqueeze(&anomalies, 1);
        let flags = as_maps(g, &flags); // [batch, 1, h, w]
        let negative = g.negate(&flags);
        let sound = g.shift(&negative, 1.0);
        let kept = g.multiply(&maps, &sound);
        let (sum, count) = (sum_of_neighbours(g, &kept), sum_of_neighbours(g, &sound));
        let half = g.number(0.5, Kind::Float);
        let one = g.number(1.0, Kind::Float);
        let divisor = g.larger(&count, &one);
        let mean = g.divide(&sum, &divisor);
        let (is_anomaly, has_neighbour) = (g.greater(&flags, &half), g.greater(&count, &half));
        let replace = g.and(&is_anomaly, &has_neighbour);
        let repaired = g.choose(&replace, &mean, &maps);
        let cells = g.reshape(&repaired, &[0, 0, -1]);
        let patches = g.transpose(&cells, &[0, 2, 1]);
        let joined = g.concat(&[&class, &patches], 1);
        let joined = g.cast(&joined, kind);
        Value {
            shape: x.shape.clone(),
            ..joined
        }
    }
}

/// Computes softmax(a·bᵀ/√d)·v.
fn weighted(g: &mut Graph, a: &Value, b: &Value, v: &Value) -> Value {
    let weights = g.similarity(a, b, None);
    g.product(&weights, v)
}

/// Rotates centred keys towards centred queries.
fn rotated(g: &mut Graph, k: &Value, q: &Value) -> Value {
    g.scope("rotation", |g| {
        let centred = |g: &mut Graph, x: &Value| {
            let mean = g.reduce(Reduction::Mean, x, &[2]);
            g.subtract(x, &mean)
        };
        let (k, q) = (centred(g, k), centred(g, q));
        let turned = g.transpose(&k, &[0, 1, 3, 2]);
        let product = g.product(&turned, &q); // [batch, heads, d, d]
        let length = g.reduce(Reduction::Length, &product, &[2, 3]);
        let mut rotation = g.divide(&product, &length);
        for _ in 0..POLAR_STEPS {
            let turned = g.transpose(&rotation, &[0, 1, 3, 2]);
            let square = g.product(&rotation, &turned);
            let cube = g.product(&square, &rotation);
            let (once, cube) = (g.scale(&rotation, 1.5), g.scale(&cube, 0.5));
            rotation = g.subtract(&once, &cube);
        }
        g.product(&k, &rotation)
    })
}

/// Returns the mean over middle blocks of the cosine similarity between patches: `[batch, h·w, h·w]`
fn similarity(g: &mut Graph, middle: &[Value]) -> Option<Value> {
    g.scope("middle", |g| {
        let mut sum: Option<Value> = None;
        for tokens in middle {
            let patches = g.slice(tokens, 1, 1, None);
            let patches = g.unit(&patches);
            let turned = g.transpose(&patches, &[0, 2, 1]);
            let similar = g.product(&patches, &turned);
            sum = Some(match sum {
                Some(sum) => g.add(&sum, &similar),
                None => similar,
            });
        }
        let sum = sum?;
        Some(g.scale(&sum, 1.0 / middle.len() as f64))
    })
}

/// Returns softmax(similarity/τ) between patches: `[batch, h·w, h·w]`
fn middle_attention(g: &mut Graph, similar: &Value, temperature: f64) -> Value {
    let scaled = g.scale(similar, 1.0 / temperature);
    g.softmax(&scaled, -1)
}

/// Computes the local outlier factor of every token: `[batch, tokens, width]` → `[batch, tokens]`
fn outlier_factors(g: &mut Graph, tokens: &Value) -> Value {
    let distances = distances(g, tokens); // [batch, tokens, tokens]
    let count = g.sizes(&[Size::Of(tokens, 1)]);
    let numbers = g.range(&count, tokens.dim(1));
    let rows = g.unsqueeze(&numbers, 1);
    let itself = g.equal(&rows, &numbers);
    let never = g.number(f64::INFINITY, Kind::Float);
    let others = g.choose(&itself, &never, &distances);
    let (most, one) = (g.integers(&[NEIGHBOURS as i64]), g.integers(&[1]));
    let without = g.subtract(&count, &one);
    let near = g.smaller(&most, &without);
    let length = match tokens.dim(1) {
        Dim::Known(count) => Dim::Known(NEIGHBOURS.min(count.saturating_sub(1))),
        Dim::Named(_) => Dim::named("neighbours"),
    };
    let [reached, places] = g.largest(&others, &near, length, false);
    // The distance to the farthest of the nearest neighbours.
    let end = g.integers(&[i64::MAX]);
    let reach = g.slice_to(&reached, 2, -1, &end, Dim::Known(1)); // [batch, tokens, 1]
    let of_places = |g: &mut Graph, x: &Value| {
        let row = g.transpose(x, &[0, 2, 1]); // [batch, 1, tokens]
        let sizes = [
            Size::Of(&distances, 0),
            Size::Of(&distances, 1),
            Size::Of(&distances, 2),
        ];
        let table = g.expand(&row, &sizes, distances.shape.clone());
        let axis = vec![Attribute::Int("axis", 2)];
        g.node(
            "GatherElements",
            &[&table, &places],
            axis,
            Kind::Float,
            places.shape.clone(),
        )
    };
    let far = of_places(g, &reach);
    let reached = g.larger(&reached, &far);
    let mean = g.reduce(Reduction::Mean, &reached, &[2]);
    let mean = g.shift(&mean, f64::from(EPSILON));
    let one = g.number(1.0, Kind::Float);
    let density = g.divide(&one, &mean); // [batch, tokens, 1]
    let around = of_places(g, &density);
    let around = g.reduce(Reduction::Mean, &around, &[2]);
    let factors = g.divide(&around, &density);
    g.squeeze(&factors, 2)
}

/// Computes Euclidean distances between tokens: `[batch, tokens, width]` → `[batch, tokens, tokens]`
fn distances(g: &mut Graph, tokens: &Value) -> Value {
    let mean = g.reduce(Reduction::Mean, tokens, &[1]);
    let tokens = g.subtract(tokens, &mean);
    let squares = g.multiply(&tokens, &tokens);
    let squares = g.reduce(Reduction::Sum, &squares, &[2]);
    let turned_squares = g.transpose(&squares, &[0, 2, 1]);
    let turned = g.transpose(&tokens, &[0, 2, 1]);
    let products = g.product(&tokens, &turned);
    let both = g.add(&squares, &turned_squares);
    let products = g.scale(&products, 2.0);
    let squared = g.subtract(&both, &products);
    let squared = g.relu(&squared);
    g.square_root(&squared)
}

/// Returns 1 for the share of tokens with the largest factors, 0 for the others: `[batch, tokens]` → the same shape
fn largest(g: &mut Graph, factors: &Value) -> Value {
    let count = match factors.dim(1) {
        Dim::Known(count) => {
            let share = ((count as f64 * SHARE).round() as i64).max(1);
            g.integers(&[share])
        }
        Dim::Named(_) => {
            // (tokens · 5 + 50) / 100, rounded down, for a share of 5 %.
            let percent = (SHARE * 100.0).round() as i64;
            let all = g.sizes(&[Size::Of(factors, 1)]);
            let (factor, half) = (g.integers(&[percent]), g.integers(&[50]));
            let hundred = g.integers(&[100]);
            let scaled = g.multiply(&all, &factor);
            let shifted = g.add(&scaled, &half);
            let share = g.divide(&shifted, &hundred);
            let one = g.integers(&[1]);
            g.larger(&share, &one)
        }
    };
    let length = match g.numbers_of(&count) {
        Some(numbers) => Dim::Known(numbers.first().copied().unwrap_or(1) as usize),
        None => Dim::named("anomalies"),
    };
    let [_, places] = g.largest(factors, &count, length, true);
    let (zero, one) = (g.number(0.0, Kind::Float), g.number(1.0, Kind::Float));
    let sizes = [Size::Of(factors, 0), Size::Of(factors, 1)];
    let zeros = g.expand(&zero, &sizes, factors.shape.clone());
    let sizes = [Size::Of(&places, 0), Size::Of(&places, 1)];
    let ones = g.expand(&one, &sizes, places.shape.clone());
    let axis = vec![Attribute::Int("axis", 1)];
    let inputs = [&zeros, &places, &ones];
    g.node(
        "ScatterElements",
        &inputs,
        axis,
        Kind::Float,
        factors.shape.clone(),
    )
}

/// Sums the 3×3 neighbourhood of every cell of maps; cells outside count as 0.
fn sum_of_neighbours(g: &mut Graph, maps: &Value) -> Value {
    let attributes = vec![
        Attribute::Ints("kernel_shape", vec![3, 3]),
        Attribute::Ints("pads", vec![1; 4]),
        Attribute::Ints("strides", vec![1, 1]),
        Attribute::Int("count_include_pad", 1),
    ];
    let mean = g.node(
        "AveragePool",
        &[maps],
        attributes,
        maps.kind,
        maps.shape.clone(),
    );
    g.scale(&mean, 9.0)
}
