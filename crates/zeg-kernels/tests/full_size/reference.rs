//! The operations in plain double precision: the documented formulas, as loops over whole matrices.
//!
//! Matrices are row-major `Vec<f64>`; every function states its shapes.

use rayon::prelude::*;
use zeg_kernels::Activation;

/// Converts values to double precision.
pub(crate) fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&value| f64::from(value)).collect()
}

/// Computes the product of `left` `[rows, depth]` and `right` `[depth, columns]`: `[rows, columns]`.
pub(crate) fn product(left: &[f64], right: &[f64], depth: usize) -> Vec<f64> {
    /// Number of rows that share the loads of `right`.
    const ROWS: usize = 4;
    /// Number of columns of a block, which stays in the first-level cache.
    const COLUMNS: usize = 512;
    let columns = right.len() / depth;
    let mut out = vec![0.0; left.len() / depth * columns];
    let rows = out.par_chunks_mut(ROWS * columns);
    rows.zip(left.par_chunks(ROWS * depth))
        .for_each(|(out, left)| {
            for first in (0..columns).step_by(COLUMNS) {
                let width = COLUMNS.min(columns - first);
                for (index, line) in right.chunks_exact(columns).enumerate() {
                    let line = &line[first..][..width];
                    for (out, left) in out.chunks_exact_mut(columns).zip(left.chunks_exact(depth)) {
                        let x = left[index];
                        for (sum, value) in out[first..][..width].iter_mut().zip(line) {
                            *sum += x * value;
                        }
                    }
                }
            }
        });
    out
}

/// Transposes a matrix: `[rows, columns]` → `[columns, rows]`
pub(crate) fn transposed(matrix: &[f64], columns: usize) -> Vec<f64> {
    let rows = matrix.len() / columns;
    (0..matrix.len())
        .map(|i| matrix[i % rows * columns + i / rows])
        .collect()
}

/// Adds the second values to the first.
pub(crate) fn add(to: &mut [f64], values: &[f64]) {
    assert_eq!(to.len(), values.len());
    to.iter_mut()
        .zip(values)
        .for_each(|(to, value)| *to += value);
}

/// A linear layer's weight `[outputs, inputs]` and bias `[outputs]`.
pub(crate) struct Linear {
    pub(crate) inputs: usize,
    pub(crate) outputs: usize,
    /// `[outputs, inputs]`
    weight: Vec<f64>,
    bias: Vec<f64>,
}

impl Linear {
    pub(crate) fn new(weight: &[f32], bias: &[f32]) -> Self {
        Self {
            inputs: weight.len() / bias.len(),
            outputs: bias.len(),
            weight: wide(weight),
            bias: wide(bias),
        }
    }

    /// Computes x·Wᵀ + b: `[rows, inputs]` → `[rows, outputs]`
    pub(crate) fn forward(&self, x: &[f64]) -> Vec<f64> {
        let right = transposed(&self.weight, self.inputs); // [inputs, outputs]
        let mut out = product(x, &right, self.inputs);
        for row in out.chunks_exact_mut(self.outputs) {
            add(row, &self.bias);
        }
        out
    }

    /// Computes ∂x = ∂y·W: `[rows, outputs]` → `[rows, inputs]`
    pub(crate) fn backward(&self, gradient: &[f64]) -> Vec<f64> {
        product(gradient, &self.weight, self.outputs)
    }
}

/// Computes the error function by the series 2/√π·e^(−x²)·Σ 2ⁿ·x²ⁿ⁺¹/(1·3·5⋯(2n+1)), whose terms all have the same
/// sign.
fn erf(x: f64) -> f64 {
    if x.abs() > 6.0 {
        return x.signum(); // within 3·10⁻¹⁷
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > 1e-17 * sum.abs() {
        odd += 2.0;
        term *= 2.0 * x * x / odd;
        sum += term;
    }
    2.0 / std::f64::consts::PI.sqrt() * (-x * x).exp() * sum
}

/// Computes 1 / (1 + e⁻ˣ).
pub(crate) fn sigmoid(x: f64) -> f64 {
    1.0 / (1.0 + (-x).exp())
}

/// Returns the function and its derivative at `x`.
pub(crate) fn activation(activation: Activation, x: f64) -> (f64, f64) {
    match activation {
        Activation::Sigmoid => {
            let s = sigmoid(x);
            (s, s * (1.0 - s))
        }
        Activation::QuickGelu => {
            let k = f64::from(1.702_f32);
            let s = sigmoid(k * x);
            (x * s, s + x * k * s * (1.0 - s))
        }
        Activation::Gelu => {
            let distribution = 0.5 * (1.0 + erf(x * std::f64::consts::FRAC_1_SQRT_2));
            let density = (-0.5 * x * x).exp() / (2.0 * std::f64::consts::PI).sqrt();
            (x * distribution, distribution + x * density)
        }
    }
}

/// Computes the softmax of rows of `width` values, in place.
pub(crate) fn softmax(rows: &mut [f64], width: usize) {
    rows.par_chunks_exact_mut(width).for_each(|row| {
        let greatest = row.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        for x in row.iter_mut() {
            *x = (*x - greatest).exp();
        }
        let sum: f64 = row.iter().sum();
        for x in row {
            *x /= sum;
        }
    });
}

/// Turns gradients of probabilities `p` into those of the logits, row by row: p·(g − Σ p·g).
pub(crate) fn through_softmax(gradient: &mut [f64], p: &[f64], width: usize) {
    let rows = gradient.par_chunks_exact_mut(width);
    rows.zip(p.par_chunks_exact(width))
        .for_each(|(gradient, p)| {
            let mean: f64 = gradient.iter().zip(p).map(|(g, p)| g * p).sum();
            gradient
                .iter_mut()
                .zip(p)
                .for_each(|(g, p)| *g = p * (*g - mean));
        });
}

/// A layer normalisation: weight and bias `[width]`, ε.
pub(crate) struct Norm {
    pub(crate) weight: Vec<f64>,
    pub(crate) bias: Vec<f64>,
    pub(crate) epsilon: f64,
}

impl Norm {
    pub(crate) fn new(weight: &[f32], bias: &[f32], epsilon: f32) -> Self {
        Self {
            weight: wide(weight),
            bias: wide(bias),
            epsilon: f64::from(epsilon),
        }
    }

    /// Returns (x − mean) / √(variance + ε) of a row, and 1 / √(variance + ε).
    fn normalised(&self, row: &[f64]) -> (Vec<f64>, f64) {
        let width = row.len() as f64;
        let mean = row.iter().sum::<f64>() / width;
        let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / width;
        let scale = 1.0 / (variance + self.epsilon).sqrt();
        (row.iter().map(|x| (x - mean) * scale).collect(), scale)
    }

    /// Applies the normalisation: `[rows, width]` → the same shape
    pub(crate) fn forward(&self, x: &[f64]) -> Vec<f64> {
        let rows = x.chunks_exact(self.weight.len());
        rows.flat_map(|row| {
            let (n, _) = self.normalised(row);
            let parameters = self.weight.iter().zip(&self.bias);
            n.into_iter()
                .zip(parameters)
                .map(|(n, (weight, bias))| n * weight + bias)
        })
        .collect()
    }

    /// Computes the gradients of the input `[rows, width]`, the weight and the bias `[width]`.
    pub(crate) fn backward(&self, x: &[f64], gradient: &[f64]) -> [Vec<f64>; 3] {
        let width = self.weight.len();
        let mut of_x = Vec::with_capacity(x.len());
        let (mut of_weight, mut of_bias) = (vec![0.0; width], vec![0.0; width]);
        for (row, gradient) in x.chunks_exact(width).zip(gradient.chunks_exact(width)) {
            let (n, scale) = self.normalised(row);
            let u: Vec<f64> = gradient
                .iter()
                .zip(&self.weight)
                .map(|(g, w)| g * w)
                .collect();
            let level = u.iter().sum::<f64>() / width as f64;
            let slope = u.iter().zip(&n).map(|(u, n)| u * n).sum::<f64>() / width as f64;
            of_x.extend(
                u.iter()
                    .zip(&n)
                    .map(|(u, n)| scale * (u - level - n * slope)),
            );
            for (index, (&g, &n)) in gradient.iter().zip(&n).enumerate() {
                of_weight[index] += g * n;
                of_bias[index] += g;
            }
        }
        [of_x, of_weight, of_bias]
    }
}

/// Attention on packed queries, keys and values.
pub(crate) struct Attention {
    pub(crate) tokens: usize,
    pub(crate) heads: usize,
    /// Number of channels of a head.
    pub(crate) head: usize,
    /// Mask `[tokens, tokens]`, added to the logits.
    pub(crate) mask: Option<Vec<f64>>,
}

impl Attention {
    pub(crate) fn width(&self) -> usize {
        self.heads * self.head
    }

    /// Returns query, key and value of a head, `[tokens, head]` each, from an image's `[tokens, 3·width]`.
    fn parts(&self, qkv: &[f64], head: usize) -> [Vec<f64>; 3] {
        [0, 1, 2].map(|part| {
            let first = part * self.width() + head * self.head;
            let rows = qkv.chunks_exact(3 * self.width());
            rows.flat_map(|row| row[first..][..self.head].iter().copied())
                .collect()
        })
    }

    /// Returns a head's columns `[tokens, head]` of `[tokens, width]`.
    fn columns(&self, x: &[f64], head: usize) -> Vec<f64> {
        let rows = x.chunks_exact(self.width());
        rows.flat_map(|row| row[head * self.head..][..self.head].iter().copied())
            .collect()
    }

    /// Computes softmax(q·kᵀ/√head + mask): `[tokens, tokens]`
    fn probabilities(&self, q: &[f64], k: &[f64]) -> Vec<f64> {
        let mut p = product(q, &transposed(k, self.head), self.head);
        let scale = 1.0 / (self.head as f64).sqrt();
        for logit in &mut p {
            *logit *= scale;
        }
        if let Some(mask) = &self.mask {
            add(&mut p, mask);
        }
        softmax(&mut p, self.tokens);
        p
    }

    /// Computes attention: `[batch, tokens, 3·width]` → `[batch, tokens, width]`
    pub(crate) fn forward(&self, qkv: &[f64]) -> Vec<f64> {
        let mut out = Vec::new();
        for qkv in qkv.chunks_exact(self.tokens * 3 * self.width()) {
            let mut image = vec![0.0; self.tokens * self.width()];
            for head in 0..self.heads {
                let [q, k, v] = self.parts(qkv, head);
                let attended = product(&self.probabilities(&q, &k), &v, self.tokens);
                let rows = image.chunks_exact_mut(self.width());
                for (row, attended) in rows.zip(attended.chunks_exact(self.head)) {
                    row[head * self.head..][..self.head].copy_from_slice(attended);
                }
            }
            out.extend(image);
        }
        out
    }

    /// Computes the gradient of the input: `[batch, tokens, width]` → `[batch, tokens, 3·width]`
    pub(crate) fn backward(&self, qkv: &[f64], gradient: &[f64]) -> Vec<f64> {
        let scale = 1.0 / (self.head as f64).sqrt();
        let mut out = Vec::new();
        let images = qkv.chunks_exact(self.tokens * 3 * self.width());
        for (qkv, gradient) in images.zip(gradient.chunks_exact(self.tokens * self.width())) {
            let mut image = vec![0.0; qkv.len()];
            for head in 0..self.heads {
                let [q, k, v] = self.parts(qkv, head);
                let of_out = self.columns(gradient, head);
                let p = self.probabilities(&q, &k);
                let of_v = product(&transposed(&p, self.tokens), &of_out, self.tokens);
                let mut of_logits = product(&of_out, &transposed(&v, self.head), self.head);
                through_softmax(&mut of_logits, &p, self.tokens);
                for g in &mut of_logits {
                    *g *= scale;
                }
                let of_q = product(&of_logits, &k, self.tokens);
                let of_k = product(&transposed(&of_logits, self.tokens), &q, self.tokens);
                for (part, values) in [of_q, of_k, of_v].into_iter().enumerate() {
                    let first = part * self.width() + head * self.head;
                    let rows = image.chunks_exact_mut(3 * self.width());
                    for (row, values) in rows.zip(values.chunks_exact(self.head)) {
                        row[first..][..self.head].copy_from_slice(values);
                    }
                }
            }
            out.extend(image);
        }
        out
    }
}

/// Expected values are from tables of the normal distribution, to 15 digits: Φ(1) = 0.841344746068543, Φ(−2) =
/// 0.022750131948179.
#[test]
fn gelu_uses_the_normal_distribution() {
    for (x, distribution) in [
        (0.0, 0.5),
        (1.0, 0.841_344_746_068_543),
        (-2.0, 0.022_750_131_948_179),
        (3.0, 0.998_650_101_968_370),
    ] {
        let (value, _) = activation(Activation::Gelu, x);
        assert!((value - x * distribution).abs() < 1e-14, "{x}: {value}");
    }
}

/// Compares every derivative of this file with central differences.
#[test]
fn derivatives_agree_with_central_differences() {
    let step = 1e-5;
    for kind in [Activation::Sigmoid, Activation::QuickGelu, Activation::Gelu] {
        for x in [-3.0, -0.4, 0.0, 0.7, 5.0] {
            let slope =
                (activation(kind, x + step).0 - activation(kind, x - step).0) / (2.0 * step);
            assert!((slope - activation(kind, x).1).abs() < 1e-9, "{kind:?} {x}");
        }
    }
    let values = |length, seed| wide(&super::common::values(length, seed));
    // Returns the slope of the sum of products with `weights` along every input.
    let slopes = |x: &[f64], weights: &[f64], f: &dyn Fn(&[f64]) -> Vec<f64>| -> Vec<f64> {
        let sum = |x: &[f64]| -> f64 { f(x).iter().zip(weights).map(|(a, b)| a * b).sum() };
        (0..x.len())
            .map(|index| {
                let (mut low, mut high) = (x.to_vec(), x.to_vec());
                low[index] -= step;
                high[index] += step;
                (sum(&high) - sum(&low)) / (2.0 * step)
            })
            .collect()
    };
    let near = |a: &[f64], b: &[f64], what: &str| {
        assert_eq!(a.len(), b.len(), "{what}");
        let close = a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-7);
        assert!(close, "{what}: {a:?} {b:?}");
    };
    let attention = Attention {
        tokens: 3,
        heads: 2,
        head: 2,
        mask: Some(vec![
            0.0,
            0.5,
            f64::NEG_INFINITY,
            0.0,
            0.0,
            1.0,
            0.0,
            0.0,
            0.0,
        ]),
    };
    let (qkv, weights) = (values(2 * 36, 1), values(2 * 12, 2));
    let found = slopes(&qkv, &weights, &|x| attention.forward(x));
    near(&found, &attention.backward(&qkv, &weights), "attention");

    let norm = Norm {
        weight: values(5, 3),
        bias: values(5, 4),
        epsilon: 1e-5,
    };
    let (x, weights) = (values(15, 5), values(15, 6));
    let [of_x, of_weight, of_bias] = norm.backward(&x, &weights);
    near(&slopes(&x, &weights, &|x| norm.forward(x)), &of_x, "norm");
    let with = |weight: &[f64], bias: &[f64]| {
        let norm = Norm {
            weight: weight.to_vec(),
            bias: bias.to_vec(),
            epsilon: 1e-5,
        };
        norm.forward(&x)
    };
    let found = slopes(&norm.weight, &weights, &|weight| with(weight, &norm.bias));
    near(&found, &of_weight, "norm's weight");
    let found = slopes(&norm.bias, &weights, &|bias| with(&norm.weight, bias));
    near(&found, &of_bias, "norm's bias");

    let layer = Linear::new(&super::common::values(15, 7), &super::common::values(5, 8));
    let (x, weights) = (values(6, 9), values(10, 10));
    let found = slopes(&x, &weights, &|x| layer.forward(x));
    near(&found, &layer.backward(&weights), "linear");
}
