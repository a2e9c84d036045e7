//! Sine position embeddings of map cells: rows in the first half of the channels, columns in the second.

use std::f64::consts::TAU;

use burn::tensor::{Device, Tensor, TensorData};

/// Base of the wavelengths.
const TEMPERATURE: f64 = 10_000.0;
/// Epsilon that keeps the scale of positions finite.
const EPSILON: f64 = 1e-6;

/// Returns the position embedding of a map: `[1, height·width, channels]`, row-major; `channels` must be a multiple of
/// 4.
pub fn sine_positions(channels: usize, [height, width]: [usize; 2], device: &Device) -> Tensor<3> {
    let half = channels / 2;
    let (rows, columns) = (axis(height, half), axis(width, half));
    let mut values = Vec::with_capacity(height * width * channels);
    for row in rows.chunks_exact(half.max(1)) {
        for column in columns.chunks_exact(half.max(1)) {
            values.extend_from_slice(row);
            values.extend_from_slice(column);
        }
    }
    Tensor::from_data(
        TensorData::new(values, [1, height * width, channels]),
        device,
    )
}

/// Returns the embedding along one axis: `[length, half]`. Position r, counted from 1, is r/length of a full turn.
fn axis(length: usize, half: usize) -> Vec<f32> {
    let mut values = Vec::with_capacity(length * half);
    for place in 1..=length {
        let turn = place as f64 / (length as f64 + EPSILON) * TAU;
        for channel in 0..half {
            let exponent = 2.0 * (channel / 2) as f64 / half as f64;
            let angle = turn / TEMPERATURE.powf(exponent);
            let value = if channel % 2 == 0 {
                angle.sin()
            } else {
                angle.cos()
            };
            values.push(value as f32);
        }
    }
    values
}
