//! Palettes of class colours: the colours of PASCAL VOC, and well-separated colours for any number of classes.

/// Number of levels per channel of the candidate colours.
const LEVELS: usize = 16;
/// Range of lightness in which a colour stands out on an image and on the dark background of the legend.
const LIGHTNESS: std::ops::RangeInclusive<i32> = OKLAB_ONE / 2..=OKLAB_ONE * 7 / 8;
/// Range of chroma in which a colour is neither greyish nor glaring.
const CHROMA: std::ops::RangeInclusive<i32> = OKLAB_ONE * 9 / 100..=OKLAB_ONE * 22 / 100;
/// The integer that represents 1.0 in Oklab coordinates.
///
/// With integers, every comparison and thus the palette is the same on all machines, however they round cube roots.
const OKLAB_ONE: i32 = 4096;

/// Returns the colours of PASCAL VOC for labels `0..n`: black, maroon, green, …
///
/// The bits of the label are assigned to red, green and blue in turn, starting with the highest bit of each channel
/// (`VOCcolormap` of the VOC development kit). Entry 255 is the cream of ignored pixels; the colours repeat after 256.
pub fn voc_palette(n: usize) -> Vec<[u8; 3]> {
    (0..n).map(voc_colour).collect()
}

fn voc_colour(label: usize) -> [u8; 3] {
    let label = label % 256;
    let mut colour = [0; 3];
    for round in 0..3 {
        for (channel, value) in colour.iter_mut().enumerate() {
            let bit = (label >> (3 * round + channel)) & 1;
            *value |= (bit as u8) << (7 - round);
        }
    }
    colour
}

/// Returns `n` colours that are as distinguishable as possible, vivid ones first; the result is deterministic.
///
/// Each colour is the candidate that is farthest from all earlier ones in Oklab. A shorter palette is therefore a
/// prefix of a longer one, and adding a class does not change the colours of the others. The colours repeat after all
/// 4096 candidates.
pub fn distinct_palette(n: usize) -> Vec<[u8; 3]> {
    let (vivid, dull): (Vec<_>, Vec<_>) = candidates().into_iter().partition(Candidate::is_vivid);
    let mut chosen = Vec::new();
    for pool in [vivid, dull] {
        choose_farthest(pool, n, &mut chosen);
    }
    let colours = chosen.iter().map(|candidate| candidate.rgb);
    colours.cycle().take(n).collect()
}

/// Returns the colour of a class; a short palette repeats, and an empty one gives grey.
pub(crate) fn class_colour(label: u16, palette: &[[u8; 3]]) -> [u8; 3] {
    let index = usize::from(label).checked_rem(palette.len());
    index.map_or([128; 3], |index| palette[index])
}

/// Moves colours from `pool` to `chosen`, the farthest first, until `n` are chosen or the pool is empty.
fn choose_farthest(mut pool: Vec<Candidate>, n: usize, chosen: &mut Vec<Candidate>) {
    // The distance of every candidate to the nearest chosen colour.
    let mut distances: Vec<i32> = pool
        .iter()
        .map(|candidate| {
            let to_chosen = chosen.iter().map(|other| candidate.distance(other));
            to_chosen.min().unwrap_or(i32::MAX)
        })
        .collect();
    while chosen.len() < n {
        let best = if chosen.is_empty() {
            // The first colour determines all others. A clear blue is rare in photos.
            let blue = Candidate::new([51, 136, 255]);
            nearest(&pool, &blue)
        } else {
            farthest(&distances)
        };
        let Some(best) = best else { return };
        let colour = pool.swap_remove(best);
        distances.swap_remove(best);
        for (candidate, distance) in pool.iter().zip(&mut distances) {
            *distance = (*distance).min(candidate.distance(&colour));
        }
        chosen.push(colour);
    }
}

fn nearest(pool: &[Candidate], wanted: &Candidate) -> Option<usize> {
    (0..pool.len()).min_by_key(|&index| pool[index].distance(wanted))
}

fn farthest(distances: &[i32]) -> Option<usize> {
    (0..distances.len()).max_by_key(|&index| distances[index])
}

/// A candidate colour with its Oklab coordinates.
struct Candidate {
    rgb: [u8; 3],
    /// Lightness, green–red axis and blue–yellow axis, in units of 1/[`OKLAB_ONE`].
    oklab: [i32; 3],
}

fn candidates() -> Vec<Candidate> {
    let level = |index: usize| (index * 255 / (LEVELS - 1)) as u8;
    (0..LEVELS.pow(3))
        .map(|index| {
            Candidate::new([
                level(index / LEVELS.pow(2)),
                level(index / LEVELS % LEVELS),
                level(index % LEVELS),
            ])
        })
        .collect()
}

impl Candidate {
    fn new(rgb: [u8; 3]) -> Self {
        Self {
            rgb,
            oklab: oklab(rgb).map(|value| (value * OKLAB_ONE as f64).round() as i32),
        }
    }

    fn is_vivid(&self) -> bool {
        let [lightness, a, b] = self.oklab;
        LIGHTNESS.contains(&lightness) && CHROMA.contains(&(a * a + b * b).isqrt())
    }

    /// Returns the squared distance between two colours, in units of 1/[`OKLAB_ONE`]².
    ///
    /// Lightness has half the weight, because under a blended colour it depends on the image.
    fn distance(&self, other: &Self) -> i32 {
        let [lightness, a, b] = std::array::from_fn(|axis| self.oklab[axis] - other.oklab[axis]);
        lightness * lightness / 4 + a * a + b * b
    }
}

/// Converts sRGB bytes to Oklab (B. Ottosson, "A perceptual color space for image processing", 2020).
fn oklab(rgb: [u8; 3]) -> [f64; 3] {
    let [r, g, b] = rgb.map(|byte| {
        let value = f64::from(byte) / 255.0;
        if value <= 0.04045 {
            value / 12.92
        } else {
            ((value + 0.055) / 1.055).powf(2.4)
        }
    });
    let row = |[x, y, z]: [f64; 3], [a, b, c]: [f64; 3]| x * a + y * b + z * c;
    let cones = [
        row([r, g, b], [0.4122214708, 0.5363325363, 0.0514459929]),
        row([r, g, b], [0.2119034982, 0.6806995451, 0.1073969566]),
        row([r, g, b], [0.0883024619, 0.2817188376, 0.6299787005]),
    ]
    .map(f64::cbrt);
    [
        row(cones, [0.2104542553, 0.7936177850, -0.0040720468]),
        row(cones, [1.9779984951, -2.4285922050, 0.4505937099]),
        row(cones, [0.0259040371, 0.7827717662, -0.8086757660]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn voc_colours_equal_the_published_ones() {
        let palette = voc_palette(257);
        assert_eq!(
            palette[..4],
            [[0, 0, 0], [128, 0, 0], [0, 128, 0], [128, 128, 0]]
        );
        assert_eq!(palette[15], [192, 128, 128]); // person
        assert_eq!(palette[20], [0, 64, 128]); // tv/monitor
        assert_eq!(palette[255], [224, 224, 192]);
        assert_eq!(palette[256], palette[0]);
    }

    #[test]
    fn a_shorter_palette_is_a_prefix_of_a_longer_one() {
        let long = distinct_palette(200);
        assert_eq!(distinct_palette(7), long[..7]);
        assert_eq!(long.iter().collect::<HashSet<_>>().len(), 200);
    }

    #[test]
    fn the_first_colours_are_far_apart() {
        let colours: Vec<_> = distinct_palette(21)
            .into_iter()
            .map(Candidate::new)
            .collect();
        let least = (OKLAB_ONE * 9 / 100).pow(2);
        for (index, colour) in colours.iter().enumerate() {
            for other in &colours[..index] {
                assert!(
                    colour.distance(other) > least,
                    "{:?} {:?}",
                    colour.rgb,
                    other.rgb
                );
            }
        }
    }

    #[test]
    fn colours_repeat_if_there_are_more_classes() {
        let palette = distinct_palette(4100);
        assert_eq!(palette.len(), 4100);
        assert_eq!(palette[4096..], palette[..4]);
        assert!(distinct_palette(0).is_empty());
    }

    #[test]
    fn oklab_of_white_and_red() {
        let [lightness, a, b] = oklab([255; 3]);
        assert!((lightness - 1.0).abs() < 1e-4 && a.abs() < 1e-4 && b.abs() < 1e-4);
        let [lightness, a, b] = oklab([255, 0, 0]);
        assert!(
            (lightness - 0.628).abs() < 1e-3
                && (a - 0.2249).abs() < 1e-3
                && (b - 0.1258).abs() < 1e-3
        );
    }
}
