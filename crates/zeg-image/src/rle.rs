//! COCO's run-length encoding of masks.
//!
//! The pixels of a mask are numbered by columns, from top to bottom, then from left to right. The counts are the
//! lengths of runs that lie outside, inside, outside, … of the mask, beginning with a run outside, even if its length
//! is 0.
//!
//! The compressed form stores each count from the fourth on as the difference to the count two places before it. Each
//! number is split into groups of five bits, the lowest first, and each group becomes one ASCII character from 48 on; a
//! sixth bit says that another group follows. The definition is in `common/maskApi.c` of the COCO API.

use thiserror::Error;

use crate::decode::MAX_PIXELS;

/// The character of the value 0 in the compressed form.
const ZERO: u8 = 48;
/// Number of bits of a count in each character.
const GROUP_BITS: u32 = 5;
/// The bit that says that another group of the same count follows.
const MORE: i64 = 1 << GROUP_BITS;
/// The highest bit of a group, which is the sign bit in the last group of a count.
const SIGN: i64 = 1 << (GROUP_BITS - 1);
/// Number of groups that are enough for every difference of two 32-bit counts.
const MOST_GROUPS: u32 = 7;

/// A run-length encoded mask of `width`×`height` pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rle {
    width: u32,
    height: u32,
    counts: Vec<u32>,
}

/// Reason why run lengths are not a valid mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum RleError {
    /// The sum of the counts differs from the number of pixels.
    #[error("the run lengths add up to {sum}; a mask of {width}×{height} has {pixels} pixels")]
    Sum {
        /// The sum of the counts, or the first partial sum that exceeds the number of pixels.
        sum: u64,
        /// Number of pixels, `width · height`.
        pixels: u64,
        /// Number of columns.
        width: u32,
        /// Number of rows.
        height: u32,
    },
    /// The mask has more than [`MAX_PIXELS`] pixels.
    #[error("the mask has {width}×{height} pixels; the limit is {MAX_PIXELS} pixels")]
    TooLarge {
        /// Number of columns.
        width: u32,
        /// Number of rows.
        height: u32,
    },
    /// A byte is not legal in the compressed form, or it continues a count that is too long already.
    #[error("byte {byte} at position {position} of the compressed run lengths is not legal there")]
    Character {
        /// The byte.
        byte: u8,
        /// The position of the byte, from 0.
        position: usize,
    },
    /// The compressed form ends within a count.
    #[error("the compressed run lengths end within run length {index}")]
    CutOff {
        /// The index of the count, from 0.
        index: usize,
    },
    /// A count of the compressed form is negative or larger than the mask.
    #[error(
        "run length {index} is {length}; in a mask of {pixels} pixels it must be within 0..={pixels}"
    )]
    Length {
        /// The index of the count, from 0.
        index: usize,
        /// The value of the count.
        length: i64,
        /// Number of pixels, `width · height`.
        pixels: u64,
    },
}

impl Rle {
    /// Encodes a mask that is given as ranges of pixels inside it.
    ///
    /// - `stretches`: for each range, its first pixel and the pixel after its last one, numbered by columns
    ///   (`x · height + y`); ranges are ascending and within `width · height`
    pub fn from_stretches(
        width: u32,
        height: u32,
        stretches: impl IntoIterator<Item = (u64, u64)>,
    ) -> Self {
        let mut counts: Vec<u32> = Vec::new();
        let mut end = 0;
        for (first, after) in stretches {
            let length = after.saturating_sub(first) as u32;
            match counts.last_mut() {
                Some(last) if first == end => *last += length,
                _ => counts.extend([first.saturating_sub(end) as u32, length]),
            }
            end = after;
        }
        let rest = (u64::from(width) * u64::from(height)).saturating_sub(end);
        // If the last pixel is inside, no count follows. A mask without pixels has the single count 0.
        if rest > 0 || counts.is_empty() {
            counts.push(rest as u32);
        }
        Self {
            width,
            height,
            counts,
        }
    }

    /// Builds a mask from uncompressed counts.
    ///
    /// # Errors
    /// Returns [`RleError::Sum`] if the counts do not add up to `width · height`, and [`RleError::TooLarge`] if the
    /// mask has more than [`MAX_PIXELS`] pixels.
    pub fn from_counts(width: u32, height: u32, counts: Vec<u32>) -> Result<Self, RleError> {
        let pixels = pixels(width, height)?;
        let mut sum = 0_u64;
        for &count in &counts {
            sum = sum.saturating_add(u64::from(count));
            if sum > pixels {
                break;
            }
        }
        if sum != pixels {
            return Err(RleError::Sum {
                sum,
                pixels,
                width,
                height,
            });
        }
        Ok(Self {
            width,
            height,
            counts,
        })
    }

    /// Decodes the compressed form of the counts.
    ///
    /// # Errors
    /// Returns [`RleError`] if the bytes are not a mask of that size.
    pub fn from_coco_string(
        width: u32,
        height: u32,
        text: impl AsRef<[u8]>,
    ) -> Result<Self, RleError> {
        let pixels = pixels(width, height)?;
        let mut counts: Vec<u32> = Vec::new();
        let (mut value, mut shift) = (0_i64, 0);
        for (position, &byte) in text.as_ref().iter().enumerate() {
            let index = counts.len();
            let group = i64::from(byte) - i64::from(ZERO);
            if !(0..2 * MORE).contains(&group) || shift >= MOST_GROUPS * GROUP_BITS {
                return Err(RleError::Character { byte, position });
            }
            value |= (group & (MORE - 1)) << shift;
            shift += GROUP_BITS;
            if group & MORE != 0 {
                continue;
            }
            if group & SIGN != 0 {
                value -= 1 << shift;
            }
            if index > 2 {
                value += i64::from(counts[index - 2]);
            }
            if !(0..=pixels as i64).contains(&value) {
                return Err(RleError::Length {
                    index,
                    length: value,
                    pixels,
                });
            }
            counts.push(value as u32);
            (value, shift) = (0, 0);
        }
        if shift != 0 {
            return Err(RleError::CutOff {
                index: counts.len(),
            });
        }
        Self::from_counts(width, height, counts)
    }

    /// Returns the counts in the compressed form.
    pub fn to_coco_string(&self) -> String {
        let mut text = String::new();
        for (index, &count) in self.counts.iter().enumerate() {
            let mut value = i64::from(count);
            if index > 2 {
                value -= i64::from(self.counts[index - 2]);
            }
            loop {
                let group = value & (MORE - 1);
                value >>= GROUP_BITS;
                // The number is complete when all remaining bits equal the sign bit of the group.
                let done = value == if group & SIGN == 0 { 0 } else { -1 };
                let more = if done { 0 } else { MORE };
                text.push(char::from(ZERO + (group | more) as u8));
                if done {
                    break;
                }
            }
        }
        text
    }

    /// Returns the run lengths, alternately outside and inside of the mask.
    pub fn counts(&self) -> &[u32] {
        &self.counts
    }

    /// Returns the pixels inside the mask as `(x, y)`, column by column.
    pub fn pixels(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        let height = self.height;
        let mut position = 0;
        let stretches = self.counts.iter().enumerate().map(move |(index, &count)| {
            let first = position;
            position += count; // at most `MAX_PIXELS`, which the constructors have checked
            if index % 2 == 1 {
                first..position
            } else {
                0..0
            }
        });
        stretches
            .flatten()
            .map(move |index| (index / height, index % height))
    }
}

fn pixels(width: u32, height: u32) -> Result<u64, RleError> {
    let pixels = u64::from(width) * u64::from(height);
    if pixels > MAX_PIXELS as u64 {
        return Err(RleError::TooLarge { width, height });
    }
    Ok(pixels)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Encodes a row-major mask.
    fn encode(width: u32, height: u32, mask: &[bool]) -> Rle {
        let columns = (0..width as usize).flat_map(|x| mask.iter().skip(x).step_by(width as usize));
        let inside = (0..).zip(columns).filter(|(_, inside)| **inside);
        Rle::from_stretches(width, height, inside.map(|(index, _)| (index, index + 1)))
    }

    /// Decodes to a row-major mask.
    fn decode(rle: &Rle) -> Vec<bool> {
        let mut mask = vec![false; rle.width as usize * rle.height as usize];
        for (x, y) in rle.pixels() {
            mask[y as usize * rle.width as usize + x as usize] = true;
        }
        mask
    }

    #[test]
    fn pixels_are_numbered_by_columns() {
        // . # .
        // # # .
        let rle = encode(3, 2, &[false, true, false, true, true, false]);
        assert_eq!(rle.counts(), [1, 3, 2]);
        let pixels: Vec<_> = rle.pixels().collect();
        assert_eq!(pixels, [(0, 1), (1, 0), (1, 1)]);
    }

    /// For the columns 0 1 0 | 1 1 0 | 0 0 1, `pycocotools.mask.encode` returns
    /// `{"size": [3, 3], "counts": b"11112O"}`.
    #[test]
    fn the_compressed_form_equals_that_of_the_coco_api() {
        let rle = Rle::from_counts(3, 3, vec![1, 1, 1, 2, 3, 1]).unwrap();
        assert_eq!(rle.to_coco_string(), "11112O");
        assert_eq!(Rle::from_coco_string(3, 3, "11112O"), Ok(rle));
    }

    #[test]
    fn an_invalid_compressed_form_is_refused() {
        let read = |text| Rle::from_coco_string(4, 4, text).unwrap_err();
        let character = |byte, position| RleError::Character { byte, position };
        assert_eq!(read("/"), character(b'/', 0));
        assert_eq!(read("1 1"), character(b' ', 1));
        assert_eq!(read("1é"), character(0xc3, 1));
        assert_eq!(read("ooooooooooooo1"), character(b'o', 7));
        assert_eq!(read("P"), RleError::CutOff { index: 0 });
        assert_eq!(read("1Q"), RleError::CutOff { index: 1 });
        let length = |index, length| RleError::Length {
            index,
            length,
            pixels: 16,
        };
        assert_eq!(read("O"), length(0, -1));
        assert_eq!(read("1O"), length(1, -1));
        assert_eq!(read("TT1"), length(0, 1156));
        let sum = |sum| RleError::Sum {
            sum,
            pixels: 16,
            width: 4,
            height: 4,
        };
        assert_eq!(read("5"), sum(5));
        assert_eq!(read("999"), sum(18));
        let large = Rle::from_counts(u32::MAX, u32::MAX, vec![]).unwrap_err();
        assert!(matches!(large, RleError::TooLarge { .. }));
        let overflowing = Rle::from_counts(4, 4, vec![u32::MAX; 9]).unwrap_err();
        assert!(matches!(overflowing, RleError::Sum { .. }));
    }

    #[test]
    fn masks_without_pixels_are_legal() {
        for (width, height) in [(0, 0), (0, 7), (7, 0)] {
            let rle = encode(width, height, &[]);
            assert_eq!(rle.pixels().count(), 0);
            let text = rle.to_coco_string();
            assert_eq!(Rle::from_coco_string(width, height, text), Ok(rle));
        }
        // A run of length 0 is legal, and with a height of 0 there must be no division by zero.
        let rle = Rle::from_counts(3, 0, vec![0, 0, 0]).unwrap();
        assert_eq!(rle.pixels().count(), 0);
    }

    proptest! {
        #[test]
        fn masks_survive_a_round_trip(
            (width, height, mask) in (0u32..30, 0u32..30).prop_flat_map(|(width, height)| {
                let mask = prop::collection::vec(any::<bool>(), (width * height) as usize);
                (Just(width), Just(height), mask)
            })
        ) {
            let rle = encode(width, height, &mask);
            prop_assert_eq!(&decode(&rle), &mask);
            let again = Rle::from_counts(width, height, rle.counts().to_vec());
            prop_assert_eq!(again.as_ref(), Ok(&rle));
            prop_assert_eq!(Rle::from_coco_string(width, height, rle.to_coco_string()), Ok(rle));
        }

        #[test]
        fn counts_survive_compression(counts in prop::collection::vec(0u32..60_000, 0..40)) {
            let pixels: u32 = counts.iter().sum();
            let rle = Rle::from_counts(1, pixels, counts).unwrap();
            prop_assert_eq!(Rle::from_coco_string(1, pixels, rle.to_coco_string()), Ok(rle));
        }

        #[test]
        fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..60), width in any::<u32>(), height in any::<u32>()) {
            let _ = Rle::from_coco_string(width, height, &bytes);
            let _ = Rle::from_coco_string(width % 100, height % 100, &bytes);
        }

        #[test]
        fn no_text_of_legal_characters_panics(text in "[0-o]{0,40}", width in 0u32..100, height in 0u32..100) {
            if let Ok(rle) = Rle::from_coco_string(width, height, &text) {
                let inside = rle.counts().iter().skip(1).step_by(2).sum::<u32>();
                prop_assert_eq!(rle.pixels().count(), inside as usize);
            }
        }
    }
}
