//! The label map: a model's prediction or a data set's ground truth.

use crate::ImageError;

/// The ignore index: the label of a pixel that counts neither in the loss nor in evaluation.
///
/// Files store it as 255. In memory it is the largest `u16`, so that data sets with more than 255 classes can use the
/// same type.
pub const IGNORE_LABEL: u16 = u16::MAX;

/// The label of the padding that fills an image up to the size of a batch; no pixel of a file has it.
///
/// Self-training distinguishes it from [`IGNORE_LABEL`]: an unlabelled pixel may get a pseudo-label, padding never
/// does.
pub const PADDING_LABEL: u16 = u16::MAX - 1;

/// A map of class indices, row-major, with one `u16` per pixel; [`IGNORE_LABEL`] marks unlabelled pixels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMap {
    width: usize,
    height: usize,
    labels: Vec<u16>,
}

impl LabelMap {
    /// Builds a map from `width · height` labels in row-major order.
    ///
    /// # Errors
    /// Returns [`ImageError::LabelCount`] if the number of labels is not `width · height`.
    pub fn new(width: usize, height: usize, labels: Vec<u16>) -> Result<Self, ImageError> {
        if width.checked_mul(height) != Some(labels.len()) {
            return Err(ImageError::LabelCount {
                width,
                height,
                labels: labels.len(),
            });
        }
        Ok(Self {
            width,
            height,
            labels,
        })
    }

    /// Builds a map with the same label at every pixel.
    pub fn filled(width: usize, height: usize, label: u16) -> Self {
        Self {
            width,
            height,
            labels: vec![label; width * height],
        }
    }

    /// Returns the number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Returns the number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// Returns all labels in row-major order: the label of `(x, y)` is at index `y · width + x`.
    pub fn labels(&self) -> &[u16] {
        &self.labels
    }

    /// Returns all labels in row-major order, to be changed in place.
    pub fn labels_mut(&mut self) -> &mut [u16] {
        &mut self.labels
    }

    /// Returns the label at column `x` and row `y`, or `None` outside the map.
    pub fn get(&self, x: usize, y: usize) -> Option<u16> {
        if x >= self.width {
            return None;
        }
        self.labels.get(y.checked_mul(self.width)? + x).copied()
    }

    /// Converts the map into its labels in row-major order.
    pub fn into_labels(self) -> Vec<u16> {
        self.labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn get_takes_column_and_row() {
        let map = LabelMap::new(3, 2, vec![0, 1, 2, 3, 4, 5]).unwrap();
        assert_eq!((map.width(), map.height()), (3, 2));
        assert_eq!(map.get(2, 0), Some(2));
        assert_eq!(map.get(0, 1), Some(3));
        assert_eq!(map.get(3, 0), None);
        assert_eq!(map.get(0, 2), None);
        assert_eq!(map.get(1, usize::MAX), None);
    }

    #[test]
    fn the_number_of_labels_must_equal_the_number_of_pixels() {
        assert!(matches!(
            LabelMap::new(3, 2, vec![0; 5]),
            Err(ImageError::LabelCount { labels: 5, .. })
        ));
        assert!(LabelMap::new(usize::MAX, 2, vec![]).is_err());
    }
}
