//! Augmentation: converts a sample of any size to two buffers of one size.
//!
//! The training pipeline of ZegCLIP and CLIP-RC is, in the order of mmsegmentation 0.24: `resize` by a random ratio →
//! `crop` with a limit on the largest class → `flip` → `photometric` distortion → normalise → `pad`. ZegFormer's
//! pipeline takes sizes from a list and pads with grey. Each step has its own file; a random step first draws its
//! parameters and then applies them.
//!
//! [`Preprocess`] holds the settings of a configuration; [`Pipeline`] holds the checked settings and the normalisation
//! of the model.

mod crop;
mod flip;
mod hsv;
mod pad;
mod photometric;
pub mod resize;

mod settings;

pub use settings::{Preprocess, RandomCrop, ShortSides, Whole};

use rand_chacha::ChaCha8Rng;
use zeg_image::{LabelMap, Normalization, RgbImage};

use crate::{DataError, Sample};
use crop::CategoryLimitedCrop;
use flip::Flip;
use photometric::PhotometricDistortion;
use resize::{Resize, ShortSide};

/// A preprocessed sample, ready for a model.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainSample {
    /// The sample's [`Item::id`](crate::Item::id).
    pub id: String,
    /// The normalised image, `[3, size, size]`; padding is 0.
    pub image: Vec<f32>,
    /// Class indices, [`IGNORE_LABEL`](zeg_image::IGNORE_LABEL) or [`PADDING_LABEL`](zeg_image::PADDING_LABEL),
    /// `[size, size]`.
    pub labels: Vec<u16>,
}

/// Preprocessing pipeline with checked settings.
#[derive(Debug, Clone, PartialEq)]
pub struct Pipeline {
    preprocess: Preprocess,
    normalization: Normalization,
}

impl Pipeline {
    /// Checks the settings and returns the pipeline.
    ///
    /// # Errors
    /// Returns [`DataError::Setting`] if a value is out of range.
    pub fn new(preprocess: Preprocess, normalization: Normalization) -> Result<Self, DataError> {
        preprocess.check()?;
        Ok(Self {
            preprocess,
            normalization,
        })
    }

    /// Returns the width and height of every training sample.
    pub fn size(&self) -> usize {
        self.preprocess.size()
    }

    /// Converts a sample to a training sample; all random numbers come from `rng`.
    pub fn apply(&self, sample: Sample, rng: &mut ChaCha8Rng) -> TrainSample {
        let Sample { id, image, labels } = sample;
        let (image, labels) = match &self.preprocess {
            Preprocess::RandomCrop(settings) => random_crop(settings, &image, &labels, rng),
            Preprocess::ShortSides(settings) => short_sides(settings, &image, &labels, rng),
            Preprocess::Whole(settings) => whole(settings, &image, &labels, rng),
        };
        let size = self.size();
        TrainSample {
            id,
            image: self.normalization.to_chw_padded(&image, size, size), // [3, size, size]
            labels: pad::pad_labels(&labels, size, size),                // [size, size]
        }
    }
}

/// Applies ZegCLIP's steps; the result has at most `crop`×`crop` pixels.
fn random_crop(
    settings: &RandomCrop,
    image: &RgbImage,
    labels: &LabelMap,
    rng: &mut ChaCha8Rng,
) -> (RgbImage, LabelMap) {
    let resize = Resize {
        base_scale: settings.base_scale,
        ratio: settings.ratio,
    };
    let (image, labels) = resize.apply(image, labels, rng);
    let crop = CategoryLimitedCrop {
        size: settings.crop,
        max_category_ratio: settings.max_category_ratio,
    };
    let (mut image, mut labels) = crop.apply(&image, &labels, rng);
    let flip = Flip {
        probability: settings.flip,
    };
    flip.apply(&mut image, &mut labels, rng);
    if settings.photometric {
        PhotometricDistortion::default().apply(&mut image, rng);
    }
    (image, labels)
}

/// Applies ZegFormer's steps; the image has `crop`×`crop` pixels, padded with grey, and the labels at most as many.
fn short_sides(
    settings: &ShortSides,
    image: &RgbImage,
    labels: &LabelMap,
    rng: &mut ChaCha8Rng,
) -> (RgbImage, LabelMap) {
    let resize = ShortSide {
        base: settings.base,
        tenths: settings.tenths,
        longest: settings.longest,
    };
    let (image, labels) = resize.apply(image, labels, rng);
    let crop = CategoryLimitedCrop {
        size: settings.crop,
        max_category_ratio: 1.0,
    };
    let (mut image, mut labels) = crop.apply(&image, &labels, rng);
    if settings.photometric {
        PhotometricDistortion::default().apply(&mut image, rng);
    }
    let flip = Flip {
        probability: settings.flip,
    };
    flip.apply(&mut image, &mut labels, rng);
    (pad::pad_grey(&image, settings.crop), labels)
}

/// Resizes the whole image; the result has `size`×`size` pixels.
fn whole(
    settings: &Whole,
    image: &RgbImage,
    labels: &LabelMap,
    rng: &mut ChaCha8Rng,
) -> (RgbImage, LabelMap) {
    let (mut image, mut labels) = resize::resize_pair(image, labels, settings.size, settings.size);
    let flip = Flip {
        probability: settings.flip,
    };
    flip.apply(&mut image, &mut labels, rng);
    if settings.photometric {
        PhotometricDistortion::default().apply(&mut image, rng);
    }
    (image, labels)
}

#[cfg(test)]
mod tests;
