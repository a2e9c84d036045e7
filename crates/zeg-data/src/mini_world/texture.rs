//! The surface of an object: one colour, or that colour and a second tone in a pattern that rotates with the object.

use rand_chacha::ChaCha8Rng;

use super::names::{Name, Texture};
use crate::chance::uniform;

/// Range of the period of a pattern, as a share of the object's radius.
const PERIOD: (f64, f64) = (0.48, 0.56);
/// Smallest period in pixels; the pattern would blur to one colour with a shorter one.
const MIN_PERIOD: f64 = 5.5;
/// Radius of a dot as a share of the period.
const DOT: f32 = 0.33;
/// Share of white or black in the second tone; the rest is the object's colour.
const CONTRAST: f32 = 0.8;
/// Luma, 0..=255, above which a colour gets a dark second tone instead of a light one.
const LIGHT: f32 = 125.0;
/// Range of the brightness of an object.
const BRIGHTNESS: (f64, f64) = (0.86, 1.0);
/// Largest random change of every channel in either direction, in levels.
const TINT: f64 = 6.0;

/// An object's surface.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surface {
    texture: Texture,
    /// The named colour, `[red, green, blue]`, 0..=255.
    colour: [f32; 3],
    /// The second tone, in the same form.
    second: [f32; 3],
    /// Period of the pattern in pixels.
    period: f32,
    /// Offset of the pattern in pixels.
    offset: (f32, f32),
}

impl Surface {
    /// Draws a surface for an object of this name and radius (in pixels).
    pub(super) fn draw(name: Name, radius: f64, rng: &mut ChaCha8Rng) -> Self {
        let brightness = uniform(rng, BRIGHTNESS.0, BRIGHTNESS.1);
        let colour = name.colour.rgb().map(|channel| {
            let value = f64::from(channel) * brightness + uniform(rng, -TINT, TINT);
            value.clamp(0.0, 255.0) as f32
        });
        let [red, green, blue] = name.colour.rgb().map(f32::from);
        let luma = 0.299 * red + 0.587 * green + 0.114 * blue;
        let far = if luma > LIGHT { 12.0 } else { 250.0 };
        let period = (radius * uniform(rng, PERIOD.0, PERIOD.1)).max(MIN_PERIOD);
        let offset = (uniform(rng, 0.0, period), uniform(rng, 0.0, period));
        Self {
            texture: name.texture,
            colour,
            second: colour.map(|channel| channel + (far - channel) * CONTRAST),
            period: period as f32,
            offset: (offset.0 as f32, offset.1 as f32),
        }
    }

    /// Returns the colour at a point, in pixels from the object's centre along its own axes.
    pub(super) fn colour_at(&self, x: f32, y: f32) -> [f32; 3] {
        let share = self.second_tone(x, y);
        std::array::from_fn(|channel| {
            self.colour[channel] + (self.second[channel] - self.colour[channel]) * share
        })
    }

    /// Returns the share of the second tone at a point, 0..=1, with edges as wide as a pixel.
    fn second_tone(&self, x: f32, y: f32) -> f32 {
        let (x, y) = (x + self.offset.0, y + self.offset.1);
        match self.texture {
            Texture::Plain => 0.0,
            Texture::Striped => self.wave(y),
            Texture::Checked => {
                let (across, down) = (self.wave(x), self.wave(y));
                across + down - 2.0 * across * down
            }
            Texture::Dotted => {
                let (x, y) = (self.beyond_middle(x), self.beyond_middle(y));
                let distance = (x * x + y * y).sqrt() - DOT * self.period;
                (0.5 - distance).clamp(0.0, 1.0)
            }
        }
    }

    /// Returns a square wave of 0 and 1 with edges as wide as a pixel.
    fn wave(&self, at: f32) -> f32 {
        (self.beyond_middle(at).abs() - self.period / 4.0 + 0.5).clamp(0.0, 1.0)
    }

    /// Returns the signed distance in pixels to the middle of the period, within ± half a period.
    fn beyond_middle(&self, at: f32) -> f32 {
        let repeats = at / self.period;
        (repeats - repeats.floor() - 0.5) * self.period
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::{Purpose, stream};
    use crate::mini_world::names::Colour;

    /// The mean share of the second tone over a whole period is 0, a half or that of a disc.
    #[test]
    fn patterns_cover_the_expected_share() {
        for texture in Texture::ALL {
            let name = Name {
                texture,
                colour: Colour::Red,
            };
            let surface = Surface::draw(name, 20.0, &mut stream(3, Purpose::Sample, 0));
            let steps = 200_u16;
            let mut sum = 0.0;
            for row in 0..steps {
                for column in 0..steps {
                    let at = |step: u16| f32::from(step) / f32::from(steps) * surface.period;
                    sum += surface.second_tone(at(column), at(row));
                }
            }
            let mean = sum / f32::from(steps).powi(2);
            let expected = match texture {
                Texture::Plain => 0.0,
                Texture::Dotted => std::f32::consts::PI * DOT * DOT,
                Texture::Striped | Texture::Checked => 0.5,
            };
            assert!((mean - expected).abs() < 0.02, "{texture:?}: {mean}");
        }
    }

    /// Stripes do not change along the object's x axis; checks do in both directions.
    #[test]
    fn stripes_run_along_the_object() {
        let surface = |texture| {
            let name = Name {
                texture,
                colour: Colour::Blue,
            };
            Surface::draw(name, 16.0, &mut stream(1, Purpose::Sample, 0))
        };
        let stripes = surface(Texture::Striped);
        let checks = surface(Texture::Checked);
        let half = stripes.period / 2.0;
        for step in 0..40_u8 {
            let at = f32::from(step) * 0.37;
            let along = stripes.second_tone(at, 2.0) - stripes.second_tone(0.0, 2.0);
            assert!(along.abs() < 1e-6);
            let opposite = checks.second_tone(at + half, 2.0) + checks.second_tone(at, 2.0);
            assert!((opposite - 1.0).abs() < 1e-3, "{opposite}");
        }
        assert!(
            (stripes.second_tone(0.0, 2.0) + stripes.second_tone(0.0, 2.0 + half) - 1.0).abs()
                < 1e-3
        );
    }
}
