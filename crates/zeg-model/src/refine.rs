//! Refinement of the scores of the whole image once all windows are scored: by the method, or by the colours.

mod pamr;

use rayon::prelude::*;
use serde::{Deserialize, Serialize};
use zeg_base::memory::{check, product};
use zeg_image::{RgbImage, resize_bilinear};

use self::pamr::Pamr;
use crate::{
    ModelError, classes::ClassQueries, method::Scoring, score_map::ScoreMap, scores::ScoreField,
};

/// Side of a cell of the grid that scores are refined on, in pixels of the resized image.
const CELL: usize = 2;
/// Score that a class must have at some cell to be refined, unless a uniform share is less; the others have no part in
/// the result.
const COMPETES: f32 = 0.02;
/// Part of the largest share of any class that a class must reach somewhere in the image to be taken for present; chosen
/// on `train` of VOC 2012 (docs/src/project/training-free.md).
const PRESENT: f32 = 0.7;
/// Number of classes that are refined at once; more would need more memory.
const REFINED_TOGETHER: usize = 32;
/// Smallest share of a class, so that its logarithm is finite.
const LEAST: f32 = 1e-6;

/// A second pass that refines the scores of the first.
///
/// It gets the scores of the whole resized image at once: classes × height × width numbers in main memory.
pub trait SecondPass {
    /// Returns the refined scores.
    ///
    /// - `first`: `[classes, height, width]`, as computed from the windows, before offsets: scores, or logits with
    ///   [`crate::model::Scoring::Softmax`]
    /// - `image`: the resized image that the windows were cut from
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    fn refine(
        &self,
        first: ScoreMap,
        image: &RgbImage,
        classes: &ClassQueries,
    ) -> Result<ScoreMap, ModelError>;
}

/// How scores are refined by the colours of the image, with any method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Refinement {
    /// Scores stay as the model gives them.
    #[default]
    None,
    /// Pixel-adaptive mask refinement (PAMR): every pixel repeatedly takes the mean of the scores around it, weighted by
    /// likeness of colour.
    Pamr,
    /// Classes that are likely nowhere in the image are left out, then [`Refinement::Pamr`].
    PresentPamr,
}

impl Refinement {
    /// Returns whether scores stay as they are.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    pub fn is_none(&self) -> bool {
        *self == Self::None
    }

    /// Returns the refined scores of a field, before offsets, on a grid of half the field's size; logits with
    /// [`Scoring::Softmax`]. The shares of classes are refined, not their logits.
    ///
    /// - `image`: the resized image, of the field's size
    ///
    /// # Errors
    /// Returns an error if the scores of the whole image cannot be held in memory.
    pub(crate) fn apply(
        self,
        field: &ScoreField,
        image: &RgbImage,
        scoring: Scoring,
    ) -> Result<ScoreMap, ModelError> {
        if self.is_none() {
            return Ok(ScoreMap::of_field(field));
        }
        let [height, width] = field.size().map(|side| side.div_ceil(CELL));
        let classes = field.classes();
        let maps = classes.saturating_add(2 * REFINED_TOGETHER);
        let floats = maps.saturating_add(Pamr::NUMBERS_A_PIXEL);
        check(product(&[height, width, floats, size_of::<f32>()])).map_err(|source| {
            ModelError::Memory {
                what: format!("refining the scores of {classes} classes on {width}×{height} cells"),
                source,
            }
        })?;
        let mut shares = shares(field, [height, width]); // [classes, height, width]
        let cells = (height * width).max(1);
        if self == Self::PresentPamr && scoring == Scoring::Softmax {
            leave_out_absent(&mut shares, cells);
        }
        // Among many classes that are alike, the best may have a small share.
        let competes = COMPETES.min(1.0 / classes.max(1) as f32);
        let competing: Vec<usize> = shares
            .par_chunks_exact(cells)
            .enumerate()
            .filter(|(_, share)| share.iter().any(|&share| share >= competes))
            .map(|(class, _)| class)
            .collect();
        let pamr = Pamr::new(&resize_bilinear(image, width, height));
        for classes in competing.chunks(REFINED_TOGETHER) {
            let maps: Vec<f32> = classes
                .iter()
                .flat_map(|&class| &shares[class * cells..][..cells])
                .copied()
                .collect();
            let refined = pamr.refine(&maps);
            for (&class, refined) in classes.iter().zip(refined.chunks_exact(cells)) {
                shares[class * cells..][..cells].copy_from_slice(refined);
            }
        }
        if scoring == Scoring::Softmax {
            shares
                .par_iter_mut()
                .for_each(|share| *share = share.max(LEAST).ln());
        }
        Ok(ScoreMap {
            classes,
            height,
            width,
            values: shares,
        })
    }
}

/// Leaves out the classes whose share is nowhere [`PRESENT`] of the largest share of any class: their shares become 0, and
/// those of the others add up to 1 again. The class with the largest share always stays.
///
/// - `shares`: `[classes, cells]`
fn leave_out_absent(shares: &mut [f32], cells: usize) {
    let peaks: Vec<f32> = shares
        .par_chunks_exact(cells)
        .map(|share| share.iter().copied().fold(0.0, f32::max))
        .collect();
    let least = PRESENT * peaks.iter().copied().fold(0.0, f32::max);
    for (share, &peak) in shares.chunks_exact_mut(cells).zip(&peaks) {
        if peak < least {
            share.fill(0.0);
        }
    }
    let mut sums = vec![0.0_f32; cells];
    for share in shares.chunks_exact(cells) {
        for (sum, share) in sums.iter_mut().zip(share) {
            *sum += share;
        }
    }
    for share in shares.chunks_exact_mut(cells) {
        for (share, &sum) in share.iter_mut().zip(&sums) {
            // Where the classes that stay have no share that a number can hold, all stay at 0.
            *share /= sum.max(f32::MIN_POSITIVE);
        }
    }
}

/// Returns the scores of all pixels at a size, those of a softmax from 0 to 1: `[classes, height, width]`. Other scores
/// stay as they are compared, since sums of masks can exceed 1.
fn shares(field: &ScoreField, [height, width]: [usize; 2]) -> Vec<f32> {
    let mut shares = vec![0.0; field.classes() * height * width];
    field.each_strip([height, width], |strip| match strip.scoring {
        Scoring::Softmax => {
            let rows: Vec<Vec<f32>> = (0..strip.rows())
                .into_par_iter()
                .map(|row| strip.scores(row))
                .collect();
            strip.copy_into(&rows.concat(), &mut shares, height);
        }
        Scoring::Sigmoid | Scoring::MaskSum => {
            strip.copy_into(strip.values(), &mut shares, height);
        }
    });
    shares
}

#[cfg(test)]
mod tests {
    use zeg_image::Window;

    use super::*;
    use crate::scores::WindowLogits;

    #[test]
    fn refined_shares_add_up_to_one_on_half_the_size() {
        let window = Window {
            x: 0,
            y: 0,
            width: 8,
            height: 5,
        };
        let logits = vec![2.0, -2.0, -2.0, 2.0, -30.0, -30.0]; // [3, 1, 2]
        let mut field = ScoreField::new(3, [5, 8], Scoring::Softmax, Vec::new());
        field.push(WindowLogits::new(window, logits, [1, 2], [5, 8]));
        let image = RgbImage::new(8, 5);
        let refined = Refinement::Pamr
            .apply(&field, &image, Scoring::Softmax)
            .unwrap();
        assert_eq!((refined.classes, refined.height, refined.width), (3, 3, 4));
        for cell in 0..12 {
            let sum: f32 = (0..3)
                .map(|class| refined.values[class * 12 + cell].exp())
                .sum();
            assert!((sum - 1.0).abs() < 1e-4, "{sum}");
        }
        // Left and right halves of one colour come closer to each other.
        assert!(refined.values[0].exp() < 0.98 && refined.values[0] > refined.values[3]);
        let same = Refinement::None
            .apply(&field, &image, Scoring::Softmax)
            .unwrap();
        assert_eq!(same, ScoreMap::of_field(&field));
    }

    #[test]
    fn a_class_that_is_likely_nowhere_is_left_out() {
        // Shares of three classes at two cells; the second is at most 0.3, less than 0.7 of 0.9.
        let mut shares = vec![0.9, 0.2, 0.1, 0.3, 0.0, 0.5];
        shares[5] = 0.75;
        leave_out_absent(&mut shares, 2);
        assert_eq!(&shares[2..4], [0.0, 0.0]);
        assert!((shares[0] - 1.0).abs() < 1e-6 && (shares[1] + shares[5] - 1.0).abs() < 1e-6);
        let mut only = vec![0.4, 0.4, 0.39, 0.39];
        leave_out_absent(&mut only, 2);
        assert!(only.iter().all(|&share| share > 0.4), "{only:?}");
    }

    /// Sums of masks can exceed 1, where the larger one must still win.
    #[test]
    fn sums_of_masks_keep_their_order_above_one() {
        let window = Window {
            x: 0,
            y: 0,
            width: 8,
            height: 4,
        };
        let logits = vec![1.2, 1.2, 1.6, 1.6]; // [2, 1, 2]
        let mut field = ScoreField::new(2, [4, 8], Scoring::MaskSum, Vec::new());
        field.push(WindowLogits::new(window, logits, [1, 2], [4, 8]));
        let image = RgbImage::new(8, 4);
        let refined = Refinement::Pamr
            .apply(&field, &image, Scoring::MaskSum)
            .unwrap();
        let (first, second) = refined.values.split_at(8); // [height · width] each
        assert!(
            first.iter().zip(second).all(|(one, two)| two - one > 0.3),
            "{refined:?}"
        );
    }

    /// With a small logit scale every share is small, and the colours still count.
    #[test]
    fn many_classes_that_are_alike_are_refined() {
        let window = Window {
            x: 0,
            y: 0,
            width: 8,
            height: 4,
        };
        let classes = 100;
        let logits: Vec<f32> = (0..2 * classes).map(|i| 0.1 * (i % 3) as f32).collect(); // [100, 1, 2]
        let mut field = ScoreField::new(classes, [4, 8], Scoring::Softmax, Vec::new());
        field.push(WindowLogits::new(window, logits, [1, 2], [4, 8]));
        let image = RgbImage::new(8, 4);
        let refined = Refinement::Pamr
            .apply(&field, &image, Scoring::Softmax)
            .unwrap();
        let size = [refined.height, refined.width];
        let plain = shares(&field, size);
        let largest = plain
            .iter()
            .zip(&refined.values)
            .map(|(plain, refined)| (plain.ln() - refined).abs());
        assert!(largest.fold(0.0, f32::max) > 1e-3);
    }
}
