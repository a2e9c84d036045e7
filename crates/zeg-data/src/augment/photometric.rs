//! Photometric distortion: random small changes of brightness, contrast, saturation and hue.
//!
//! This is mmsegmentation's `PhotoMetricDistortion`. As there, the image is stored as bytes that are clipped and
//! truncated after every operation, and saturation and hue are each changed with a conversion to HSV and back.

use rand_chacha::ChaCha8Rng;
use zeg_image::RgbImage;

use super::hsv::{HUES, hsv_to_rgb, rgb_to_hsv};
use crate::chance::{below, happens, uniform};

/// Ranges of a random distortion. Each of the four changes happens with probability ½.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct PhotometricDistortion {
    /// Largest amount added to or taken from every value, in units of 0..=255.
    pub(crate) brightness: f64,
    /// Lower and upper bound of the factor on every value.
    pub(crate) contrast: (f64, f64),
    /// Lower and upper bound of the factor on the saturation.
    pub(crate) saturation: (f64, f64),
    /// Hue shifts are within `−hue..hue`, in half degrees.
    pub(crate) hue: u8,
}

impl Default for PhotometricDistortion {
    /// Returns mmsegmentation's ranges: ±32, 0.5..1.5, 0.5..1.5, −18..18.
    fn default() -> Self {
        Self {
            brightness: 32.0,
            contrast: (0.5, 1.5),
            saturation: (0.5, 1.5),
            hue: 18,
        }
    }
}

/// A drawn distortion. Changes are applied in the order of the fields; `None` means no change.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub(crate) struct Distortion {
    /// Amount added to every value, in units of 0..=255.
    pub(crate) brightness: Option<f32>,
    /// Factor on every value, applied before saturation and hue change.
    pub(crate) contrast_before: Option<f32>,
    /// Factor on the saturation.
    pub(crate) saturation: Option<f32>,
    /// Amount added to the hue, in half degrees.
    pub(crate) hue: Option<i32>,
    /// Factor on every value, applied after saturation and hue changed.
    pub(crate) contrast_after: Option<f32>,
}

impl PhotometricDistortion {
    /// Draws a distortion; contrast comes before or after saturation and hue with equal probability.
    pub(crate) fn draw(&self, rng: &mut ChaCha8Rng) -> Distortion {
        let brightness = sometimes(rng, (-self.brightness, self.brightness));
        let contrast_comes_first = happens(rng, 0.5);
        let contrast = sometimes(rng, self.contrast);
        let saturation = sometimes(rng, self.saturation);
        let hue = happens(rng, 0.5)
            .then(|| below(rng, 2 * usize::from(self.hue)) as i32 - i32::from(self.hue));
        Distortion {
            brightness,
            contrast_before: contrast.filter(|_| contrast_comes_first),
            saturation,
            hue,
            contrast_after: contrast.filter(|_| !contrast_comes_first),
        }
    }

    /// Distorts the image in place.
    pub(crate) fn apply(&self, image: &mut RgbImage, rng: &mut ChaCha8Rng) {
        self.draw(rng).apply(image);
    }
}

fn sometimes(rng: &mut ChaCha8Rng, (low, high): (f64, f64)) -> Option<f32> {
    happens(rng, 0.5).then(|| uniform(rng, low, high) as f32)
}

impl Distortion {
    /// Distorts the image, RGB bytes, in place.
    pub(crate) fn apply(&self, image: &mut RgbImage) {
        if let Some(amount) = self.brightness {
            map_bytes(image, &table(|value| value + amount));
        }
        if let Some(factor) = self.contrast_before {
            map_bytes(image, &table(|value| value * factor));
        }
        if let Some(factor) = self.saturation {
            let table = table(|saturation| saturation * factor);
            map_colours(image, |[hue, saturation, value]| {
                [hue, table[usize::from(saturation)], value]
            });
        }
        if let Some(shift) = self.hue {
            map_colours(image, |[hue, saturation, value]| {
                let hue = (i32::from(hue) + shift).rem_euclid(HUES);
                [hue as u8, saturation, value]
            });
        }
        if let Some(factor) = self.contrast_after {
            map_bytes(image, &table(|value| value * factor));
        }
    }
}

/// Returns the changed value of each byte, clipped to 0..=255 and truncated.
fn table(change: impl Fn(f32) -> f32) -> [u8; 256] {
    // The cast saturates and truncates.
    std::array::from_fn(|byte| change(byte as f32) as u8)
}

fn map_bytes(image: &mut RgbImage, table: &[u8; 256]) {
    for byte in image.iter_mut() {
        *byte = table[usize::from(*byte)];
    }
}

/// Converts every pixel to HSV, changes it and converts it back.
fn map_colours(image: &mut RgbImage, change: impl Fn([u8; 3]) -> [u8; 3]) {
    let (pixels, _) = image.as_chunks_mut::<3>();
    for pixel in pixels {
        *pixel = hsv_to_rgb(change(rgb_to_hsv(*pixel)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::{Purpose, stream};

    /// Made by `python reference/hsv_golden.py`; the head of the file explains its lines.
    const GOLDEN: &str = include_str!("../../tests/golden/photometric.csv");

    fn sample_image() -> RgbImage {
        RgbImage::from_fn(64, 4, |x, y| {
            image::Rgb([
                (x * 4) as u8,
                (y * 85) as u8,
                ((x * 7 + y * 11) % 256) as u8,
            ])
        })
    }

    #[test]
    fn distorted_images_match_opencv_and_numpy_within_two_levels() {
        let mut lines = GOLDEN.lines().filter(|line| !line.starts_with('#'));
        let mut cases = 0;
        while let (Some(settings), Some(bytes)) = (lines.next(), lines.next()) {
            let settings: Vec<&str> = settings.split(',').collect();
            let number = |at: usize| settings[at].parse::<f32>().ok();
            let distortion = Distortion {
                brightness: number(0),
                contrast_before: number(1),
                saturation: number(2),
                hue: settings[3].parse().ok(),
                contrast_after: number(4),
            };
            let expected: Vec<u8> = bytes.split(',').map(|text| text.parse().unwrap()).collect();
            let mut image = sample_image();
            distortion.apply(&mut image);
            assert_eq!(image.as_raw().len(), expected.len());
            let off = image.iter().zip(&expected).map(|(a, b)| a.abs_diff(*b));
            let (worst, wrong) = off.fold((0, 0), |(worst, wrong), off| {
                (worst.max(off), wrong + usize::from(off > 0))
            });
            assert!(worst <= 2, "{distortion:?}: off by {worst}");
            assert!(wrong <= 8, "{distortion:?}: {wrong} of 768 values differ");
            cases += 1;
        }
        assert_eq!(cases, 8);
    }

    #[test]
    fn the_same_stream_gives_the_same_distortion() {
        let distorted = |counter| {
            let mut image = sample_image();
            let mut rng = stream(9, Purpose::Sample, counter);
            PhotometricDistortion::default().apply(&mut image, &mut rng);
            image
        };
        assert_eq!(distorted(3), distorted(3));
        assert!((0..8).any(|counter| distorted(counter) != distorted(counter + 1)));
    }

    #[test]
    fn draws_have_the_published_ranges_and_frequencies() {
        let mut rng = stream(10, Purpose::Sample, 0);
        let drawn: Vec<Distortion> = (0..4000)
            .map(|_| PhotometricDistortion::default().draw(&mut rng))
            .collect();
        let share = |has: fn(&Distortion) -> bool| {
            drawn.iter().filter(|one| has(one)).count() as f64 / drawn.len() as f64
        };
        assert!((share(|one| one.brightness.is_some()) - 0.5).abs() < 0.03);
        assert!((share(|one| one.contrast_before.is_some()) - 0.25).abs() < 0.03);
        assert!((share(|one| one.contrast_after.is_some()) - 0.25).abs() < 0.03);
        assert!((share(|one| one.saturation.is_some()) - 0.5).abs() < 0.03);
        assert!((share(|one| one.hue.is_some()) - 0.5).abs() < 0.03);
        let hues = || drawn.iter().filter_map(|one| one.hue);
        assert_eq!((hues().min(), hues().max()), (Some(-18), Some(17)));
        assert!(
            drawn
                .iter()
                .filter_map(|one| one.brightness)
                .all(|amount| amount.abs() <= 32.0)
        );
    }
}
