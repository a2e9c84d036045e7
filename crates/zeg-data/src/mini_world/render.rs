//! Renders an image: clutter, then the objects from back to front, then light, noise and conversion to bytes.
//!
//! A pixel belongs to the topmost object that covers at least half of it, so the label map is exact to the pixel.

use rand::Rng as _;
use rand_chacha::ChaCha8Rng;
use zeg_image::RgbImage;

use super::scene::Object;
use super::shape::REACH;
use crate::chance::{uniform, unit};

/// Number of cells along a side, and strength, of the two layers of clutter.
const LAYERS: [(usize, f32); 2] = [(4, 1.0), (9, 0.55)];
/// Largest change of the brightness and of a single channel through full clutter, in levels.
const CLUTTER: (f32, f32) = (90.0, 45.0);
/// Grey level of the background before clutter.
const GREY: (f64, f64) = (80.0, 175.0);
/// Standard deviation of the sum of four random bytes, √(4 · (256² − 1) / 12).
const FOUR_BYTES_DEVIATION: f32 = 147.8;
/// Mean of that sum.
const FOUR_BYTES_MEAN: f32 = 510.0;

/// Strength of clutter, noise and lighting.
#[derive(Debug, Clone, Copy)]
pub(super) struct RenderSettings {
    /// Strength of the background's clutter, 0..=1.
    pub(super) clutter: f64,
    /// Standard deviation of the noise, as a share of all levels.
    pub(super) noise: f64,
    /// Largest share of its brightness that the darkest corner loses.
    pub(super) lighting: f64,
}

/// An image while it is rendered.
pub(super) struct Canvas {
    size: usize,
    /// `[size, size, 3]`, in levels of 0..=255, but not clipped.
    pixels: Vec<[f32; 3]>,
    /// The topmost object of each pixel, `[size, size]`: 0 for the background, `n` for object `n − 1`.
    owners: Vec<u8>,
}

impl Canvas {
    /// Returns a canvas of this width and height with a random background.
    pub(super) fn with_background(size: usize, clutter: f64, rng: &mut ChaCha8Rng) -> Self {
        let grey = uniform(rng, GREY.0, GREY.1) as f32;
        let mut canvas = Self {
            size,
            pixels: vec![[grey; 3]; size * size],
            owners: vec![0; size * size],
        };
        for (cells, strength) in LAYERS {
            canvas.add_layer(cells, strength * clutter as f32, rng);
        }
        canvas
    }

    /// Adds random values at the corners of `cells` × `cells` cells, interpolated bilinearly between them.
    fn add_layer(&mut self, cells: usize, strength: f32, rng: &mut ChaCha8Rng) {
        let corners = cells + 1;
        let mut signed = || (unit(rng) * 2.0 - 1.0) as f32 * strength;
        let nodes: Vec<[f32; 3]> = (0..corners * corners)
            .map(|_| {
                let brightness = signed() * CLUTTER.0;
                std::array::from_fn(|_| brightness + signed() * CLUTTER.1)
            })
            .collect();
        // The cell of every column and the position in the cell; rows have the same, because the image is a square.
        let positions: Vec<(usize, f32)> = (0..self.size)
            .map(|pixel| {
                let at = (pixel as f32 + 0.5) * cells as f32 / self.size as f32;
                let cell = (at as usize).min(cells - 1);
                (cell, at - cell as f32)
            })
            .collect();
        let mut line = vec![[0.0; 3]; corners]; // the values of the corners, interpolated for one row of pixels
        let rows = self.pixels.chunks_exact_mut(self.size);
        for (row, &(cell, share)) in rows.zip(&positions) {
            let upper = &nodes[cell * corners..(cell + 1) * corners];
            let lower = &nodes[(cell + 1) * corners..(cell + 2) * corners];
            for ((value, upper), lower) in line.iter_mut().zip(upper).zip(lower) {
                *value = mix(upper, lower, share);
            }
            for (pixel, &(cell, share)) in row.iter_mut().zip(&positions) {
                let added = mix(&line[cell], &line[cell + 1], share);
                for (channel, added) in pixel.iter_mut().zip(added) {
                    *channel += added;
                }
            }
        }
    }

    /// Paints an object over the image; `number` is its position among the objects, from 1.
    pub(super) fn paint(&mut self, object: &Object, number: u8) {
        let reach = object.radius * f64::from(REACH) + 1.0;
        let span = |centre: f64| {
            let first = (centre - reach).max(0.0) as usize;
            let last = (centre + reach).max(0.0) as usize;
            first.min(self.size)..(last + 1).min(self.size)
        };
        let (columns, rows) = (span(object.centre.0), span(object.centre.1));
        let radius = object.radius as f32;
        let (cosine, sine) = (object.rotation.0 as f32, object.rotation.1 as f32);
        let (centre_x, centre_y) = (object.centre.0 as f32, object.centre.1 as f32);
        for y in rows {
            let down = y as f32 + 0.5 - centre_y;
            let line = y * self.size + columns.start..y * self.size + columns.end;
            let pixels = self.pixels[line.clone()].iter_mut();
            for ((pixel, owner), x) in pixels.zip(&mut self.owners[line]).zip(columns.clone()) {
                let right = x as f32 + 0.5 - centre_x;
                // The pixel's position along the object's own axes.
                let (across, along) = (cosine * right + sine * down, cosine * down - sine * right);
                let distance = object.shape.distance(across / radius, along / radius) * radius;
                let cover = (0.5 - distance).clamp(0.0, 1.0);
                if cover <= 0.0 {
                    continue;
                }
                *pixel = mix(pixel, &object.surface.colour_at(across, along), cover);
                if cover >= 0.5 {
                    *owner = number;
                }
            }
        }
    }

    /// Adds light and noise and rounds to bytes; returns the image and the topmost object of each pixel.
    pub(super) fn finish(
        mut self,
        settings: &RenderSettings,
        rng: &mut ChaCha8Rng,
    ) -> (RgbImage, Vec<u8>) {
        self.light(settings.lighting, rng);
        let noise = settings.noise as f32 * 255.0 / FOUR_BYTES_DEVIATION;
        let mut bytes = Vec::with_capacity(3 * self.pixels.len());
        for channel in self.pixels.as_flattened() {
            let disturbance = if noise > 0.0 {
                (four_bytes(rng.next_u32()) - FOUR_BYTES_MEAN) * noise
            } else {
                0.0
            };
            bytes.push((channel + disturbance + 0.5).clamp(0.0, 255.0) as u8);
        }
        let side = self.size as u32;
        // The buffer always has the right length, so the default is never used.
        let image = RgbImage::from_raw(side, side, bytes).unwrap_or_default();
        (image, self.owners)
    }

    /// Darkens the image along a random direction, from 0 to a random share of at most `lighting`.
    fn light(&mut self, lighting: f64, rng: &mut ChaCha8Rng) {
        let loss = uniform(rng, 0.0, lighting) as f32;
        let (x, y) = (
            uniform(rng, -1.0, 1.0) as f32,
            uniform(rng, -1.0, 1.0) as f32,
        );
        // Scaled so that the two farthest corners are at ±1.
        let scale = 1.0 / (x.abs() + y.abs()).max(1e-6);
        let size = self.size as f32;
        let at = |pixel: usize| (2.0 * pixel as f32 + 1.0) / size - 1.0;
        for (row, pixels) in self.pixels.chunks_exact_mut(self.size).enumerate() {
            for (column, pixel) in pixels.iter_mut().enumerate() {
                let along = (x * at(column) + y * at(row)) * scale; // −1..=1
                let light = 1.0 - loss * (0.5 + 0.5 * along);
                for channel in pixel {
                    *channel *= light;
                }
            }
        }
    }
}

/// Returns the sum of the four bytes of a number, which is nearly normally distributed.
fn four_bytes(number: u32) -> f32 {
    let sum: u32 = number.to_le_bytes().into_iter().map(u32::from).sum();
    sum as f32
}

/// Interpolates linearly: returns `from` for a share of 0 and `to` for a share of 1.
fn mix(from: &[f32; 3], to: &[f32; 3], share: f32) -> [f32; 3] {
    std::array::from_fn(|channel| from[channel] + (to[channel] - from[channel]) * share)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::{Purpose, stream};

    #[test]
    fn noise_has_the_requested_deviation() {
        let mut rng = stream(5, Purpose::Sample, 0);
        let canvas = Canvas::with_background(128, 0.0, &mut rng);
        let grey = canvas.pixels[0][0];
        let settings = RenderSettings {
            clutter: 0.0,
            noise: 0.04,
            lighting: 0.0,
        };
        let (image, owners) = canvas.finish(&settings, &mut rng);
        assert!(owners.iter().all(|owner| *owner == 0));
        let values: Vec<f64> = image.as_raw().iter().map(|byte| f64::from(*byte)).collect();
        let count = values.len() as f64;
        let mean = values.iter().sum::<f64>() / count;
        let square = values.iter().map(|value| (value - mean).powi(2));
        let deviation = (square.sum::<f64>() / count).sqrt();
        assert!((mean - f64::from(grey)).abs() < 0.3, "{mean} {grey}");
        assert!((deviation - 0.04 * 255.0).abs() < 0.2, "{deviation}");
    }

    #[test]
    fn without_clutter_noise_and_lighting_the_background_is_one_grey() {
        let mut rng = stream(5, Purpose::Sample, 1);
        let canvas = Canvas::with_background(20, 0.0, &mut rng);
        let settings = RenderSettings {
            clutter: 0.0,
            noise: 0.0,
            lighting: 0.0,
        };
        let (image, _) = canvas.finish(&settings, &mut rng);
        let first = image.as_raw()[0];
        assert!(image.as_raw().iter().all(|byte| *byte == first));
        let cluttered = Canvas::with_background(20, 1.0, &mut rng);
        let (image, _) = cluttered.finish(&settings, &mut rng);
        assert!(image.as_raw().iter().any(|byte| *byte != image.as_raw()[0]));
    }
}
