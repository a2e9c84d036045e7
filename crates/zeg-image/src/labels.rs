//! The label map: what a model answers, and what a data set's mask says.

use crate::ImageError;

/// Label of a pixel that counts neither in training targets nor in scores.
///
/// Files write it as 255; in memory it is the largest `u16` so that data sets with more than 255 classes
/// share the type.
pub const IGNORE_LABEL: u16 = u16::MAX;

/// Label of what was added around an image to fill a batch; no pixel of a file has it.
///
/// Self-training tells it from [`IGNORE_LABEL`]: what people left without a label may get one, padding never.
pub const PADDING_LABEL: u16 = u16::MAX - 1;

/// A map of class indices, row-major, one `u16` a pixel; [`IGNORE_LABEL`] marks pixels without a class.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelMap {
    width: usize,
    height: usize,
    labels: Vec<u16>,
}

impl LabelMap {
    /// Wraps `labels`, row-major, `width · height` of them.
    ///
    /// # Errors
    /// [`ImageError::LabelCount`] when the number of labels is not `width · height`.
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

    /// A map of one label everywhere.
    pub fn filled(width: usize, height: usize, label: u16) -> Self {
        Self {
            width,
            height,
            labels: vec![label; width * height],
        }
    }

    /// Number of columns.
    pub fn width(&self) -> usize {
        self.width
    }

    /// Number of rows.
    pub fn height(&self) -> usize {
        self.height
    }

    /// All labels, row-major: the label of `(x, y)` stands at `y · width + x`.
    pub fn labels(&self) -> &[u16] {
        &self.labels
    }

    /// All labels, row-major, to be changed in place; the size stays.
    pub fn labels_mut(&mut self) -> &mut [u16] {
        &mut self.labels
    }

    /// The label at column `x` and row `y`; `None` outside the map.
    pub fn get(&self, x: usize, y: usize) -> Option<u16> {
        if x >= self.width {
            return None;
        }
        self.labels.get(y.checked_mul(self.width)? + x).copied()
    }

    /// Gives the labels away, row-major.
    pub fn into_labels(self) -> Vec<u16> {
        self.labels
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_map_knows_its_pixels_by_column_and_row() {
        let map = LabelMap::new(3, 2, vec![0, 1, 2, 3, 4, 5]).unwrap();
        assert_eq!((map.width(), map.height()), (3, 2));
        assert_eq!(map.get(2, 0), Some(2));
        assert_eq!(map.get(0, 1), Some(3));
        assert_eq!(map.get(3, 0), None);
        assert_eq!(map.get(0, 2), None);
        assert_eq!(map.get(1, usize::MAX), None);
    }

    #[test]
    fn the_number_of_labels_must_fit_the_size() {
        assert!(matches!(
            LabelMap::new(3, 2, vec![0; 5]),
            Err(ImageError::LabelCount { labels: 5, .. })
        ));
        assert!(LabelMap::new(usize::MAX, 2, vec![]).is_err());
    }
}
