//! Builds the targets of a set criterion: for each image, one mask per class that occurs in it.

use burn::tensor::{Device, Tensor, TensorData};
use zeg_image::IGNORE_LABEL;
use zeg_model::resize::nearest_sources;

use crate::{TrainError, targets::Targets};

/// The target masks of one image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ImageMasks {
    /// Class of each mask.
    pub classes: Vec<usize>,
    /// Mask values, `[masks, height, width]`: 1 inside, 0 outside; unlabelled pixels are outside of every mask.
    pub values: Vec<u8>,
}

/// The target masks of a batch, all of one size.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MaskTargets {
    /// One entry per image.
    pub images: Vec<ImageMasks>,
    /// Height and width of the masks in pixels.
    pub size: [usize; 2],
}

impl MaskTargets {
    /// Builds one mask for each class that occurs in each image, in the order of the classes.
    pub fn from_labels(targets: &Targets) -> Self {
        let size = targets.size();
        let pixels = size[0] * size[1];
        let images = targets.labels().chunks_exact(pixels.max(1));
        let classes = targets.present().len() / images.len().max(1);
        let present = targets.present().chunks_exact(classes.max(1));
        let images = images.zip(present).map(|(labels, present)| {
            let classes: Vec<usize> = (0..classes).filter(|&class| present[class]).collect();
            let mask = |&class: &usize| {
                let inside = move |&label: &u16| {
                    u8::from(label != IGNORE_LABEL && usize::from(label) == class)
                };
                labels.iter().map(inside)
            };
            let values = classes.iter().flat_map(mask).collect();
            ImageMasks { classes, values }
        });
        Self {
            images: images.collect(),
            size,
        }
    }

    /// Creates targets from given masks.
    ///
    /// # Errors
    /// Returns an error if the values of an image are not one mask of `size` per class.
    pub fn new(images: Vec<ImageMasks>, size: [usize; 2]) -> Result<Self, TrainError> {
        for image in &images {
            if image.values.len() != image.classes.len() * size[0] * size[1] {
                return Err(TrainError::Config(format!(
                    "{} values are not {} masks of {}×{}",
                    image.values.len(),
                    image.classes.len(),
                    size[0],
                    size[1]
                )));
            }
        }
        Ok(Self { images, size })
    }

    /// Returns the number of masks of each image.
    pub fn counts(&self) -> Vec<usize> {
        self.images.iter().map(|p| p.classes.len()).collect()
    }

    /// Returns one image's masks at another size, by nearest-neighbour sampling: `[masks, h·w]`.
    pub(crate) fn thinned(&self, image: usize, [h, w]: [usize; 2], device: &Device) -> Tensor<2> {
        let [height, width] = self.size;
        let (rows, columns) = (nearest_sources(height, h), nearest_sources(width, w));
        let ImageMasks { classes, values } = &self.images[image];
        let mut thinned = Vec::with_capacity(classes.len() * h * w);
        for mask in values.chunks_exact((height * width).max(1)) {
            for &row in &rows {
                let line = &mask[row * width..][..width];
                thinned.extend(columns.iter().map(|&column| f32::from(line[column])));
            }
        }
        Tensor::from_data(TensorData::new(thinned, [classes.len(), h * w]), device)
    }

    /// Returns selected masks at full size: `[1, masks, height·width]`.
    ///
    /// - `chosen`: pairs of an image index and a mask index in this image
    pub(crate) fn select(&self, chosen: &[(usize, usize)], device: &Device) -> Tensor<3> {
        let pixels = self.size[0] * self.size[1];
        let mask = |&(image, mask): &(usize, usize)| {
            let values = &self.images[image].values[mask * pixels..][..pixels];
            values.iter().map(|&value| f32::from(value))
        };
        let values: Vec<f32> = chosen.iter().flat_map(mask).collect();
        Tensor::from_data(TensorData::new(values, [1, chosen.len(), pixels]), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_of_an_image_has_a_mask_and_unlabelled_pixels_are_outside() {
        let labels = vec![
            2,
            0,
            IGNORE_LABEL,
            2,
            IGNORE_LABEL,
            IGNORE_LABEL,
            IGNORE_LABEL,
            IGNORE_LABEL,
        ];
        let targets = Targets::new(labels, 2, [2, 2], 3).unwrap();
        let masks = MaskTargets::from_labels(&targets);
        assert_eq!(masks.counts(), [2, 0]);
        assert_eq!(masks.images[0].classes, [0, 2]);
        assert_eq!(masks.images[0].values, [0, 1, 0, 0, 1, 0, 0, 1]);
        assert!(masks.images[1].classes.is_empty());
    }
}
