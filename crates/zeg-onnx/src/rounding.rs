//! Rounds a matrix to 8 bits so that the errors of a row's values cancel on typical inputs.
//!
//! Rounding to nearest treats the inputs of a layer as independent. Here a row's values are rounded one after the other, and
//! the error of each moves those that are not rounded yet, by as much as the inputs are correlated (GPTQ, Frantar et al.
//! 2023, eq. 2 and 3, with the order by variance of its code). The mean of the inputs is left to the bias.

use rayon::prelude::*;

use crate::params::Parameter;

/// Most inputs that are balanced with each other; the time grows with the square.
pub(crate) const MOST: usize = 768;
/// Share of the mean variance that is added to every variance, as in the paper.
const DAMPING: f64 = 0.01;
/// Largest integer of the grid.
const LARGEST: f32 = 127.0;

/// The inputs of a layer: mean, and covariance of groups of up to [`MOST`] neighbours.
#[derive(Debug, Clone)]
pub(crate) struct Inputs {
    /// `[inputs]`
    pub(crate) mean: Vec<f32>,
    /// One `[group, group]` after the other, row-major
    pub(crate) covariances: Vec<Vec<f32>>,
}

/// What rounding takes from the inputs of a group.
#[derive(Debug)]
struct Plan {
    /// Inputs in the order of rounding.
    order: Vec<usize>,
    /// Row `i`: the shares of the error of input `i` for those after it, `[group, group]`
    shares: Vec<f64>,
}

/// Rounds a weight to the grid of its rows, `row maximum / 127`, and moves the mean of the error to the bias.
///
/// - `weight`: `[outputs, inputs]`
/// - `bias`: `[outputs]`
///
/// The largest value of a row stays as it is, so that the grid of the result is the same. A group whose covariance is not
/// positive is rounded to nearest.
pub(crate) fn round(weight: &mut Parameter, bias: &mut Parameter, inputs: &Inputs) {
    let width = inputs.mean.len().max(1);
    let plans: Vec<Option<Plan>> = inputs.covariances.par_iter().map(|c| plan(c)).collect();
    let rows = weight.values.par_chunks_exact_mut(width);
    rows.zip(bias.values.par_iter_mut())
        .for_each(|(row, bias)| {
            let rounded = rounded(row, &plans);
            let moved = row.iter().zip(&rounded).zip(&inputs.mean);
            let moved: f64 = moved
                .map(|((value, rounded), mean)| f64::from(value - rounded) * f64::from(*mean))
                .sum();
            *bias = (f64::from(*bias) + moved) as f32;
            row.copy_from_slice(&rounded);
        });
}

/// Returns the values of a row on its grid.
fn rounded(row: &[f32], plans: &[Option<Plan>]) -> Vec<f32> {
    let largest = row
        .iter()
        .fold(0.0_f32, |most, value| most.max(value.abs()));
    if largest == 0.0 || !largest.is_finite() {
        return row.to_vec();
    }
    let scale = largest / LARGEST;
    let on_grid = |value: f64| (value / f64::from(scale)).round().clamp(-127.0, 127.0) as f32;
    let mut found = Vec::with_capacity(row.len());
    for (group, plan) in row.chunks(MOST).zip(plans) {
        let mut steps: Vec<f32> = group
            .iter()
            .map(|&value| on_grid(f64::from(value)))
            .collect();
        if let Some(plan) = plan {
            let mut values: Vec<f64> = plan.order.iter().map(|&i| f64::from(group[i])).collect();
            let count = values.len();
            for (place, &input) in plan.order.iter().enumerate() {
                let is_largest = group[input].abs() >= largest;
                if !is_largest {
                    steps[input] = on_grid(values[place]);
                }
                let error = values[place] - f64::from(steps[input] * scale);
                let shares = &plan.shares[place * count..(place + 1) * count];
                for (value, share) in values.iter_mut().zip(shares).skip(place + 1) {
                    *value -= error * share;
                }
            }
        }
        found.extend(steps.into_iter().map(|step| step * scale));
    }
    found
}

/// Returns the order of rounding and the shares of each error; `None` if the covariance is not positive.
///
/// The shares of input `i` are row `i` of the upper Cholesky factor of the inverse, divided by its diagonal. With the order
/// turned round, that factor is the inverse of the lower factor of the covariance itself.
fn plan(covariance: &[f32]) -> Option<Plan> {
    let count = covariance.len().isqrt();
    let variance = |i: usize| f64::from(covariance[i * count + i]);
    let damping = DAMPING * (0..count).map(variance).sum::<f64>() / count.max(1) as f64;
    let mut order: Vec<usize> = (0..count).collect();
    order.sort_by(|&a, &b| variance(b).total_cmp(&variance(a)).then(a.cmp(&b)));
    let turned: Vec<usize> = order.iter().rev().copied().collect();

    let mut lower = vec![0.0_f64; count * count];
    for i in 0..count {
        for j in 0..=i {
            let [row, above] = [i, j].map(|k| &lower[k * count..k * count + j]);
            let sum: f64 = row.iter().zip(above).map(|(a, b)| a * b).sum();
            let own = f64::from(covariance[turned[i] * count + turned[j]]);
            lower[i * count + j] = if i == j {
                let rest = own + damping - sum;
                if rest.is_nan() || rest <= 0.0 {
                    return None;
                }
                rest.sqrt()
            } else {
                (own - sum) / lower[j * count + j]
            };
        }
    }
    let mut inverse = vec![0.0_f64; count * count];
    for i in 0..count {
        let (before, rest) = inverse.split_at_mut(i * count);
        let row = &mut rest[..count];
        let own = lower[i * count + i];
        for k in 0..i {
            let factor = lower[i * count + k];
            let other = &before[k * count..=k * count + k];
            for (value, other) in row.iter_mut().zip(other) {
                *value -= factor * other;
            }
        }
        for value in &mut row[..i] {
            *value /= own;
        }
        row[i] = 1.0 / own;
    }
    let mut shares = vec![0.0_f64; count * count];
    for place in 0..count {
        let i = count - 1 - place;
        for after in place + 1..count {
            let j = count - 1 - after;
            shares[place * count + after] = inverse[i * count + j] / inverse[i * count + i];
        }
    }
    Some(Plan { order, shares })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns numbers from -1 to 1 by rule.
    fn numbers(count: usize, seed: u64) -> Vec<f32> {
        let mut state = seed;
        let next = || {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            (state >> 40) as f32 / (1u64 << 23) as f32 - 1.0
        };
        std::iter::repeat_with(next).take(count).collect()
    }

    /// Returns samples of `width` inputs that depend on a few factors, and a mean: `[samples, width]`
    fn samples(count: usize, width: usize) -> Vec<Vec<f32>> {
        let directions: Vec<Vec<f32>> = (0..4).map(|k| numbers(width, 10 + k)).collect();
        let draw = |sample: usize| {
            let factors = numbers(4, 100 + sample as u64);
            let noise = numbers(width, 9_000 + sample as u64);
            let of = |i: usize| {
                let sum: f32 = factors.iter().zip(&directions).map(|(f, d)| f * d[i]).sum();
                0.5 + sum + 0.1 * noise[i]
            };
            (0..width).map(of).collect()
        };
        (0..count).map(draw).collect()
    }

    fn inputs(samples: &[Vec<f32>]) -> Inputs {
        let (count, width) = (samples.len() as f32, samples[0].len());
        let mean = |i: usize| samples.iter().map(|s| s[i]).sum::<f32>() / count;
        let mean: Vec<f32> = (0..width).map(mean).collect();
        let mut covariance = Vec::with_capacity(width * width);
        for i in 0..width {
            for j in 0..width {
                let product = samples.iter().map(|s| (s[i] - mean[i]) * (s[j] - mean[j]));
                covariance.push(product.sum::<f32>() / count);
            }
        }
        Inputs {
            mean,
            covariances: vec![covariance],
        }
    }

    /// Returns the mean square of the output's error.
    fn error(
        samples: &[Vec<f32>],
        [weight, bias]: [&Parameter; 2],
        [rounded, moved]: [&Parameter; 2],
    ) -> f64 {
        let of = |sample: &[f32], weight: &Parameter, bias: &Parameter| {
            let row = Parameter {
                shape: vec![1, sample.len()],
                values: sample.to_vec(),
            };
            row.linear(weight, bias).values
        };
        let squares = samples.iter().flat_map(|sample| {
            let pairs = of(sample, weight, bias)
                .into_iter()
                .zip(of(sample, rounded, moved));
            pairs
                .map(|(a, b)| f64::from(a - b).powi(2))
                .collect::<Vec<_>>()
        });
        squares.sum::<f64>() / samples.len() as f64
    }

    #[test]
    fn errors_cancel_on_correlated_inputs() {
        let (outputs, width) = (6, 48);
        let weight = Parameter {
            shape: vec![outputs, width],
            values: numbers(outputs * width, 1),
        };
        let bias = Parameter {
            shape: vec![outputs],
            values: numbers(outputs, 2),
        };
        let samples = samples(300, width);
        let inputs = inputs(&samples[..200]);
        let [mut nearest, mut balanced] = [weight.clone(), weight.clone()];
        let mut moved = bias.clone();
        let without = Inputs {
            mean: vec![0.0; width],
            covariances: vec![vec![f32::NAN; width * width]],
        };
        round(&mut nearest, &mut bias.clone(), &without);
        round(&mut balanced, &mut moved, &inputs);
        let before = error(&samples[200..], [&weight, &bias], [&nearest, &bias]);
        let after = error(&samples[200..], [&weight, &bias], [&balanced, &moved]);
        assert!(after < before / 4.0, "{after} of {before}");
        for (row, rounded) in weight
            .values
            .chunks(width)
            .zip(balanced.values.chunks(width))
        {
            let largest = |row: &[f32]| row.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
            let scale = largest(row) / LARGEST;
            assert!((largest(rounded) - largest(row)).abs() <= 1e-6 * largest(row));
            for value in rounded {
                let steps = value / scale;
                assert!((steps - steps.round()).abs() < 1e-3, "{steps}");
            }
        }
    }

    #[test]
    fn rows_without_values_stay() {
        let mut weight = Parameter {
            shape: vec![1, 2],
            values: vec![0.0; 2],
        };
        let mut bias = Parameter {
            shape: vec![1],
            values: vec![0.5],
        };
        let inputs = Inputs {
            mean: vec![1.0; 2],
            covariances: vec![vec![1.0, 0.0, 0.0, 1.0]],
        };
        round(&mut weight, &mut bias, &inputs);
        assert_eq!((weight.values, bias.values), (vec![0.0; 2], vec![0.5]));
    }
}
