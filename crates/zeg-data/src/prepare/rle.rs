//! COCO's run lengths: how `trainval_merged.json` of PASCAL in Detail stores its masks.
//!
//! A mask is a list of run lengths down the columns, alternately outside and inside, beginning outside. In the
//! compressed form each length is written in base 32, six bits a character from `0` (48) on, the lowest digit first:
//! 0x20 says that more follow, 0x10 of the last digit is the sign. From the fourth length on, the difference to the
//! length two before is written instead. Source of the format: `common/maskApi.h` of the COCO API.

use zeg_image::LabelMap;

/// Why run lengths are no mask.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum RleError {
    /// A character outside the alphabet, or a number without end.
    #[error("byte {byte} at {at} is not part of a run length")]
    Character {
        /// The byte.
        byte: u8,
        /// Its place in the text.
        at: usize,
    },
    /// The text ends within a number.
    #[error("the run lengths are cut off")]
    CutOff,
    /// A run of a negative length.
    #[error("run {run} has the length {length}")]
    Negative {
        /// Number of the run, from 0.
        run: usize,
        /// Its length.
        length: i64,
    },
    /// The runs do not fill the mask.
    #[error("runs of {pixels} pixels for a mask of {width}×{height}")]
    Sum {
        /// Pixels of all runs.
        pixels: u64,
        /// Columns of the mask.
        width: usize,
        /// Rows of the mask.
        height: usize,
    },
}

/// Run lengths as a file gives them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Counts {
    /// The compressed text.
    Text(Box<[u8]>),
    /// Plain numbers.
    Numbers(Box<[u32]>),
}

impl Counts {
    /// Bytes this takes in memory.
    pub(crate) fn bytes(&self) -> usize {
        match self {
            Self::Text(text) => text.len(),
            Self::Numbers(numbers) => 4 * numbers.len(),
        }
    }

    /// Sets every pixel inside the mask to `value`.
    ///
    /// Runs past the end leave what they painted; the error says that the whole is not to be used.
    pub(crate) fn paint(&self, map: &mut LabelMap, value: u16) -> Result<(), RleError> {
        let mut painter = Painter { map, value, at: 0 };
        match self {
            Self::Numbers(numbers) => {
                for (run, &length) in numbers.iter().enumerate() {
                    painter.run(run, i64::from(length))?;
                }
            }
            Self::Text(text) => decode(text, |run, length| painter.run(run, length))?,
        }
        painter.finish()
    }
}

struct Painter<'a> {
    map: &'a mut LabelMap,
    value: u16,
    /// Pixels passed, down the columns.
    at: u64,
}

impl Painter<'_> {
    fn run(&mut self, run: usize, length: i64) -> Result<(), RleError> {
        let Ok(pixels) = u64::try_from(length) else {
            return Err(RleError::Negative { run, length });
        };
        let (width, height) = (self.map.width(), self.map.height());
        let end = self.at.saturating_add(pixels);
        if end > width as u64 * height as u64 {
            return Err(self.wrong_sum(end));
        }
        if run % 2 == 1 && pixels > 0 {
            let mut x = self.at as usize / height;
            let mut y = self.at as usize % height;
            for _ in 0..pixels {
                if let Some(label) = self.map.labels_mut().get_mut(y * width + x) {
                    *label = self.value;
                }
                y += 1;
                if y == height {
                    (x, y) = (x + 1, 0);
                }
            }
        }
        self.at = end;
        Ok(())
    }

    fn finish(self) -> Result<(), RleError> {
        if self.at == self.map.width() as u64 * self.map.height() as u64 {
            Ok(())
        } else {
            Err(self.wrong_sum(self.at))
        }
    }

    fn wrong_sum(&self, pixels: u64) -> RleError {
        RleError::Sum {
            pixels,
            width: self.map.width(),
            height: self.map.height(),
        }
    }
}

/// Gives every run length of a compressed text to `each`, with its number.
fn decode(
    text: &[u8],
    mut each: impl FnMut(usize, i64) -> Result<(), RleError>,
) -> Result<(), RleError> {
    let mut before = [0; 2]; // the last two lengths, the older first
    let mut run = 0;
    let mut digits = text.iter().copied().enumerate();
    while let Some(first) = digits.next() {
        let mut number = 0_i64;
        let mut shift = 0;
        let mut next = Some(first);
        loop {
            let Some((at, byte)) = next else {
                return Err(RleError::CutOff);
            };
            // Seven digits hold every length that fits 32 bits.
            if !(48..112).contains(&byte) || shift > 30 {
                return Err(RleError::Character { byte, at });
            }
            let digit = i64::from(byte - 48);
            number |= (digit & 0x1f) << shift;
            shift += 5;
            if digit & 0x20 == 0 {
                if digit & 0x10 != 0 {
                    number -= 1 << shift;
                }
                break;
            }
            next = digits.next();
        }
        let [older, newer] = before;
        if run > 2 {
            number += older;
        }
        each(run, number)?;
        before = [newer, number];
        run += 1;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn paint(counts: &Counts, width: usize, height: usize) -> Result<Vec<u16>, RleError> {
        let mut map = LabelMap::filled(width, height, 0);
        counts.paint(&mut map, 7).map(|()| map.into_labels())
    }

    fn text(text: &str) -> Counts {
        Counts::Text(text.as_bytes().into())
    }

    /// `pycocotools.mask.encode` of the columns 0 1 0 | 1 1 0 | 0 0 1: `{"size": [3, 3], "counts": b"11112O"}`.
    #[test]
    fn runs_go_down_the_columns() {
        let expected = [0, 7, 0, 7, 7, 0, 0, 0, 7];
        assert_eq!(paint(&text("11112O"), 3, 3).unwrap(), expected);
        let numbers = Counts::Numbers([1, 1, 1, 2, 3, 1].into());
        assert_eq!(paint(&numbers, 3, 3).unwrap(), expected);
    }

    #[test]
    fn what_is_no_mask_is_refused() {
        assert!(matches!(
            paint(&text("1"), 3, 3),
            Err(RleError::Sum { pixels: 1, .. })
        ));
        assert!(matches!(
            paint(&text("99"), 3, 3),
            Err(RleError::Sum { pixels: 18, .. })
        ));
        assert_eq!(paint(&text("1Q"), 3, 3), Err(RleError::CutOff));
        assert!(matches!(
            paint(&text("1 1"), 3, 3),
            Err(RleError::Character { byte: b' ', at: 1 })
        ));
        assert!(matches!(
            paint(&text("1O"), 3, 3),
            Err(RleError::Negative { run: 1, length: -1 })
        ));
        assert!(matches!(
            paint(&text("ooooooooooooo1"), 3, 3),
            Err(RleError::Character { byte: b'o', at: 7 })
        ));
        let numbers = Counts::Numbers([u32::MAX, u32::MAX].into());
        assert!(matches!(paint(&numbers, 3, 3), Err(RleError::Sum { .. })));
    }

    proptest! {
        #[test]
        fn any_text_does_no_harm(bytes in prop::collection::vec(40_u8..120, 0..40), w in 0_usize..9, h in 0_usize..9) {
            let _ = paint(&Counts::Text(bytes.into()), w, h);
        }
    }
}
