//! The crops of mask queries' masks that CLIP encodes.

use burn::tensor::{Device, Tensor, TensorData};
use rayon::prelude::*;
use serde::{Deserialize, Serialize};

pub use crate::scores::QueryMasks;

use super::{
    foreground::{bounding_box, enlarge, foreground},
    roi_align::Sampling,
};

/// The conversion of a mask to a CLIP input image; the reference's `CLIP_CLS_STYLE`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum CropStyle {
    /// The bounding box of the mask, with everything outside of the mask in CLIP's mean colour ("cropmask").
    #[default]
    MaskedCrop,
    /// The bounding box of the mask, unchanged ("crop").
    Crop,
    /// The whole image, with everything outside of the mask in CLIP's mean colour ("mask").
    Mask,
}

/// An image normalised for CLIP and padded; 0 is the mean colour.
#[derive(Debug, Clone)]
pub struct ClipImage {
    /// `[3, height, width]`
    pub values: Vec<f32>,
    /// Height and width including padding.
    pub size: [usize; 2],
}

impl CropStyle {
    /// Cuts the crops of some mask queries: `[queries, 3, side, side]`.
    pub fn crops(
        self,
        image: &ClipImage,
        masks: &QueryMasks,
        queries: &[usize],
        side: usize,
        device: &Device,
    ) -> Tensor<4> {
        let crops: Vec<Vec<f32>> = queries
            .par_iter()
            .map(|&query| self.crop(image, masks.of(query), masks.grid, side))
            .collect();
        let shape = [queries.len(), 3, side, side];
        Tensor::from_data(TensorData::new(crops.concat(), shape), device)
    }

    /// Cuts the crop of one mask, given by its logits on `grid`: `[3, side, side]`.
    pub fn crop(self, image: &ClipImage, mask: &[f32], grid: [usize; 2], side: usize) -> Vec<f32> {
        let logits = enlarge(mask, grid, image.size); // [height, width]
        match self {
            Self::MaskedCrop => align(image, &foreground(&logits), Outside::Mean, side),
            Self::Crop => align(image, &foreground(&logits), Outside::Kept, side),
            Self::Mask => {
                let inside = foreground(&enlarge(&logits, image.size, [side, side]));
                let pixels = image.size[0] * image.size[1];
                let channels = image.values.chunks_exact(pixels.max(1));
                channels
                    .flat_map(|channel| enlarge(channel, image.size, [side, side]))
                    .zip(inside.iter().cycle())
                    .map(|(value, &inside)| if inside { value } else { 0.0 })
                    .collect()
            }
        }
    }
}

/// Resizes the bounding box of a mask `[height, width]` to `[3, side, side]`; `outside` sets the pixels outside of the
/// mask.
pub fn align(image: &ClipImage, mask: &[bool], outside: Outside, side: usize) -> Vec<f32> {
    let [height, width] = image.size;
    let sampling = Sampling::new(bounding_box(mask, image.size), image.size, side);
    let mut values = Vec::with_capacity(3 * side * side);
    for channel in image.values.chunks_exact((height * width).max(1)) {
        let row = |y: usize, row: &mut [f32]| {
            let place = y * width..(y + 1) * width;
            row.copy_from_slice(&channel[place.clone()]);
            if outside == Outside::Mean {
                for (value, &inside) in row.iter_mut().zip(&mask[place]) {
                    if !inside {
                        *value = 0.0;
                    }
                }
            }
        };
        sampling.apply(width, row, &mut values);
    }
    values
}

/// The treatment of pixels outside of the mask.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outside {
    /// The pixels stay unchanged.
    Kept,
    /// The pixels get CLIP's mean colour.
    Mean,
}
