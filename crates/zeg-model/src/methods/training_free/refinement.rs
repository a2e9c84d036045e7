//! MaskCLIP's two refinements of class scores, prompt denoising and key smoothing (section 3.3; details from the released
//! code).

use burn::tensor::{Tensor, activation::softmax};

/// CLIP's scale of cosine similarities.
const SCALE: f32 = 100.0;
/// Score of a class that prompt denoising suppresses.
const SUPPRESSED: f32 = -100.0;
/// Smallest length that keys are divided by.
const LEAST_LENGTH: f32 = 1e-12;

/// The thresholds of the refinements; 0 leaves one out.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct MaskClipRefinement {
    /// Prompt denoising: a class is suppressed in an image if its probability is below this threshold everywhere.
    pub prompt_denoising: f32,
    /// Key smoothing: where the highest probability is below this threshold, scores are sums over all places, weighted
    /// by the similarity of keys.
    pub key_smoothing: f32,
}

impl MaskClipRefinement {
    /// Returns whether anything is refined.
    pub fn is_on(self) -> bool {
        self.prompt_denoising > 0.0 || self.key_smoothing > 0.0
    }

    /// Refines cosine similarities: `[batch, classes, places]` → the same shape.
    ///
    /// After key smoothing, the scores are probabilities or weighted sums of them, which may exceed 1 or be negative.
    ///
    /// - `keys`: keys of the last attention, `[batch, places, width]`; without them, scores are not smoothed
    pub fn apply(self, cosines: Tensor<3>, keys: Option<&Tensor<3>>) -> Tensor<3> {
        let mut scores = cosines;
        if self.prompt_denoising > 0.0 {
            let probabilities = softmax(scores.clone() * SCALE, 1);
            let suppressed = probabilities
                .max_dim(2) // [batch, classes, 1]
                .lower_elem(self.prompt_denoising)
                .expand(scores.dims());
            scores = scores.mask_fill(suppressed, SUPPRESSED);
        }
        match keys {
            Some(keys) if self.key_smoothing > 0.0 => self.smooth(scores, keys.clone()),
            _ => scores,
        }
    }

    fn smooth(self, scores: Tensor<3>, keys: Tensor<3>) -> Tensor<3> {
        let probabilities = softmax(scores * SCALE, 1);
        // As released, a channel has length 1 over all places, instead of a place over all channels.
        let length = keys.clone().square().sum_dim(1).sqrt(); // [batch, 1, width]
        let keys = keys / length.clamp_min(LEAST_LENGTH);
        // The similarities of places, keys · keysᵀ, are never stored: there can be millions.
        let smoothed = probabilities
            .clone()
            .matmul(keys.clone()) // [batch, classes, width]
            .matmul(keys.swap_dims(1, 2)); // [batch, classes, places]
        let unsure = probabilities
            .clone()
            .max_dim(1) // [batch, 1, places]
            .lower_elem(self.key_smoothing)
            .expand(probabilities.dims());
        probabilities.mask_where(unsure, smoothed)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    fn refined(refinement: MaskClipRefinement) -> Vec<f32> {
        // Two classes at two places: the first is certain at the first place, and both are equal at the second.
        let cosines = Tensor::<3>::from_floats([[[1.0, 0.2], [0.0, 0.2]]], &Device::flex());
        let keys = Tensor::<3>::from_floats([[[3.0, 0.0], [4.0, 2.0]]], &Device::flex());
        let scores = refinement.apply(cosines, Some(&keys));
        scores.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn a_class_that_is_probable_nowhere_is_suppressed() {
        let refinement = |prompt_denoising| MaskClipRefinement {
            prompt_denoising,
            key_smoothing: 0.0,
        };
        assert_eq!(refined(refinement(0.0)), [1.0, 0.2, 0.0, 0.2]);
        assert_eq!(refined(refinement(0.4)), [1.0, 0.2, 0.0, 0.2]);
        assert_eq!(refined(refinement(0.6)), [1.0, 0.2, -100.0, -100.0]);
    }

    /// The keys' channels have the lengths 5 and 2, so that they become [0.6, 0] and [0.8, 1].
    #[test]
    fn an_unsure_place_sums_over_all_places() {
        let refinement = MaskClipRefinement {
            prompt_denoising: 0.0,
            key_smoothing: 1.0,
        };
        let expected = [1.0, 0.48 + 1.64 * 0.5, 0.0, 1.64 * 0.5];
        for (found, expected) in refined(refinement).iter().zip(expected) {
            assert!((found - expected).abs() < 1e-5, "{found} {expected}");
        }
    }
}
