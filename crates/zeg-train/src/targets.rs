//! Turns the label maps of a data set into the targets of the loss (specification of the reference, sections 5.1 and
//! 6).

use burn::tensor::{Bool, Device, Int, Tensor, TensorData};
use zeg_image::IGNORE_LABEL;

use crate::TrainError;

/// The part of a data set's class list that the inductive setting may use: its seen classes.
///
/// The type holds no name, embedding or index of an unseen class; its pixels are treated as ignored pixels.
#[derive(Debug, Clone, PartialEq)]
pub struct SeenClasses {
    names: Vec<String>,
    /// Class indices of the seen classes.
    classes: Vec<usize>,
    /// For each class index of the data set, its index among the seen classes, or [`IGNORE_LABEL`].
    training_index: Vec<u16>,
}

impl SeenClasses {
    /// Creates the list of seen classes.
    ///
    /// - `classes`: number of classes of the data set
    /// - `seen`: class indices and names of the seen ones, in the order of the class embeddings
    ///
    /// # Errors
    /// Returns an error if there is no seen class, or if an index is not below `classes`.
    pub fn new(classes: usize, seen: &[(usize, String)]) -> Result<Self, TrainError> {
        if seen.is_empty() {
            return Err(TrainError::Config(
                "the split has no seen class to train on".into(),
            ));
        }
        let mut training_index = vec![IGNORE_LABEL; classes];
        for (position, (class, name)) in seen.iter().enumerate() {
            *training_index.get_mut(*class).ok_or_else(|| {
                TrainError::Config(format!(
                    "seen class {name:?}: index {class} is not below the number of classes, {classes}"
                ))
            })? = position as u16;
        }
        Ok(Self {
            names: seen.iter().map(|(_, name)| name.clone()).collect(),
            classes: seen.iter().map(|(class, _)| *class).collect(),
            training_index,
        })
    }

    /// Returns the names of the seen classes.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the class indices of the seen classes, in the order of their embeddings.
    pub fn classes(&self) -> &[usize] {
        &self.classes
    }

    /// Replaces class indices of the data set by indices of the seen classes, in place.
    ///
    /// All other labels become [`IGNORE_LABEL`], which is a negative for every class in the loss.
    pub fn map(&self, labels: &mut [u16]) {
        for label in labels {
            *label = self
                .training_index
                .get(usize::from(*label))
                .copied()
                .unwrap_or(IGNORE_LABEL);
        }
    }
}

/// Logit of a class at a pixel that has no part in its loss: the score is 0 to single precision, and so are the terms.
const LEFT_OUT_LOGIT: f32 = -50.0;

/// Pixels at which some classes have no loss.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct LeftOut {
    /// Positions of the pixels in the labels, `[batch, height, width]`.
    pub pixels: Vec<usize>,
    /// Whether each class has no loss at these pixels, `[classes]`.
    pub classes: Vec<bool>,
}

impl LeftOut {
    /// Returns whether the pixel belongs to `pixels` and the class has no loss there: `[batch, classes, pixels]`.
    fn mask(&self, [batch, classes, pixels]: [usize; 3], device: &Device) -> Tensor<3, Bool> {
        let mut is_left_out = vec![false; batch * pixels];
        for &position in &self.pixels {
            if let Some(value) = is_left_out.get_mut(position) {
                *value = true;
            }
        }
        let pixel = TensorData::new(is_left_out, [batch, 1, pixels]);
        let pixel = Tensor::<3, Bool>::from_data(pixel, device);
        let class = TensorData::new(self.classes.clone(), [1, classes, 1]);
        let class = Tensor::<3, Bool>::from_data(class, device);
        let shape = [batch, classes, pixels];
        pixel.expand(shape).bool_and(class.expand(shape))
    }
}

/// Labels of a batch as indices of the training classes, with values that the loss derives from them on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Targets {
    /// Labels, `[batch, height, width]`, row-major: a class index or [`IGNORE_LABEL`].
    labels: Vec<u16>,
    batch: usize,
    size: [usize; 2],
    classes: usize,
    /// Whether the class occurs in the image, `[batch, classes]`.
    present: Vec<bool>,
    left_out: LeftOut,
}

impl Targets {
    /// Checks labels against the number of classes and records which classes occur in each image.
    ///
    /// # Errors
    /// Returns an error if the labels are not `batch` maps of `size`, or if one is neither below `classes` nor
    /// [`IGNORE_LABEL`].
    pub fn new(
        labels: Vec<u16>,
        batch: usize,
        size: [usize; 2],
        classes: usize,
    ) -> Result<Self, TrainError> {
        let pixels = size[0] * size[1];
        if labels.len() != batch * pixels {
            return Err(TrainError::Config(format!(
                "{} labels are not {batch} maps of {}×{}",
                labels.len(),
                size[0],
                size[1]
            )));
        }
        let mut present = vec![false; batch * classes];
        for (position, &label) in labels.iter().enumerate() {
            if label == IGNORE_LABEL {
                continue;
            }
            if usize::from(label) >= classes {
                return Err(TrainError::Label {
                    value: label,
                    image: position / pixels,
                    classes,
                });
            }
            present[position / pixels * classes + usize::from(label)] = true;
        }
        Ok(Self {
            labels,
            batch,
            size,
            classes,
            present,
            left_out: LeftOut::default(),
        })
    }

    /// Leaves pixels out of the loss of some classes.
    #[must_use]
    pub(crate) fn without(mut self, left_out: LeftOut) -> Self {
        self.left_out = left_out;
        self
    }

    /// Leaves the pixels without a label out of the loss of every class.
    #[must_use]
    pub(crate) fn without_unlabelled(self) -> Self {
        let labels = self.labels.iter().enumerate();
        let unlabelled = labels.filter(|(_, label)| **label == IGNORE_LABEL);
        let left_out = LeftOut {
            pixels: unlabelled.map(|(position, _)| position).collect(),
            classes: vec![true; self.classes],
        };
        self.without(left_out)
    }

    /// Returns logits whose loss has no part of the pixels that are left out, and passes them no gradient:
    /// `[batch, classes, height·width]`.
    pub(crate) fn mask_logits(&self, logits: Tensor<3>) -> Tensor<3> {
        if self.left_out.pixels.is_empty() {
            return logits;
        }
        let mask = self.left_out.mask(logits.dims(), &logits.device());
        logits.mask_fill(mask, LEFT_OUT_LOGIT)
    }

    /// Returns the labels, `[batch, height, width]`, row-major.
    pub fn labels(&self) -> &[u16] {
        &self.labels
    }

    /// Returns height and width of the label maps.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Returns the number of classes.
    pub fn classes(&self) -> usize {
        self.classes
    }

    /// Returns the number of (image, class) pairs in which the class occurs in the image.
    pub fn count(&self) -> usize {
        self.present.iter().filter(|&&p| p).count()
    }

    /// Returns whether each class occurs in each image, `[batch, classes]`.
    pub fn present(&self) -> &[bool] {
        &self.present
    }

    /// Returns the truth of every class at every pixel: `[batch, classes, height·width]`, 0 or 1.
    pub fn one_hot(&self, device: &Device) -> Tensor<3> {
        let pixels = self.size[0] * self.size[1];
        let labels: Vec<i32> = self.labels.iter().map(|&l| i32::from(l)).collect();
        let labels =
            Tensor::<3, Int>::from_data(TensorData::new(labels, [self.batch, 1, pixels]), device)
                .expand([self.batch, self.classes, pixels]);
        let classes = Tensor::<1, Int>::arange(0..self.classes as i64, device)
            .reshape([1, self.classes, 1])
            .expand([self.batch, self.classes, pixels]);
        labels.equal(classes).float()
    }

    /// Returns the number of pixels of each class: `[batch, classes]`.
    pub fn areas(&self, device: &Device) -> Tensor<2> {
        let mut areas = vec![0.0_f32; self.batch * self.classes];
        let pixels = (self.size[0] * self.size[1]).max(1);
        for (image, labels) in self.labels.chunks_exact(pixels).enumerate() {
            let mut counts = vec![0_u32; self.classes];
            for &label in labels {
                if let Some(count) = counts.get_mut(usize::from(label)) {
                    *count += 1;
                }
            }
            let areas = areas[image * self.classes..].iter_mut();
            for (area, count) in areas.zip(counts) {
                *area = count as f32;
            }
        }
        Tensor::from_data(TensorData::new(areas, [self.batch, self.classes]), device)
    }

    /// Returns whether each class occurs in each image as 0 or 1: `[batch, classes]`.
    pub fn present_tensor(&self, device: &Device) -> Tensor<2> {
        let values: Vec<f32> = self
            .present
            .iter()
            .map(|&p| f32::from(u8::from(p)))
            .collect();
        Tensor::from_data(TensorData::new(values, [self.batch, self.classes]), device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn unseen_and_ignored_pixels_get_the_same_label() {
        let seen = SeenClasses::new(4, &[(0, "cat".into()), (2, "dog".into())]).unwrap();
        let mut labels = [0, 1, 2, 3, IGNORE_LABEL, 200];
        seen.map(&mut labels);
        assert_eq!(
            labels,
            [0, IGNORE_LABEL, 1, IGNORE_LABEL, IGNORE_LABEL, IGNORE_LABEL]
        );
    }

    #[test]
    fn a_label_beyond_the_last_class_is_rejected() {
        let error = Targets::new(vec![0, 200], 1, [1, 2], 3).unwrap_err();
        assert!(error.to_string().contains("200"), "{error}");
    }

    #[test]
    fn present_classes_are_counted_per_image() {
        let targets = Targets::new(vec![0, 0, 1, IGNORE_LABEL], 2, [1, 2], 2).unwrap();
        assert_eq!(targets.count(), 2);
        assert_eq!(targets.present(), [true, false, false, true]);
    }
}
