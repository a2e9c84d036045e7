//! The scores of all classes at every pixel, in memory.

use std::io;

use zeg::session::{ScoredStrip, StripVisitor};
use zeg_base::memory;

/// Collects the scores of an image, one plane for each class.
pub(super) struct ScorePlanes {
    height: usize,
    width: usize,
    /// `[classes, height, width]`, from 0 to 1.
    values: Vec<f32>,
}

impl ScorePlanes {
    /// Creates planes of zeros.
    ///
    /// # Errors
    /// Returns an error if they do not fit into memory.
    pub(super) fn new(classes: usize, [height, width]: [usize; 2]) -> anyhow::Result<Self> {
        let needed = memory::product(&[classes, height, width, size_of::<f32>()]);
        if let Err(error) = memory::check(needed) {
            return Err(zeg::session::SessionError::Memory {
                width,
                height,
                source: error,
            }
            .into());
        }
        Ok(Self {
            height,
            width,
            values: vec![0.0; classes * height * width],
        })
    }

    pub(super) fn into_values(self) -> Vec<f32> {
        self.values
    }
}

impl StripVisitor for ScorePlanes {
    fn visit(&mut self, strip: &ScoredStrip) -> io::Result<()> {
        let (width, plane) = (self.width, self.height * self.width);
        for (y, (_, scores)) in (strip.first_row..).zip(strip.rows()) {
            for (class, row) in scores.chunks_exact(width.max(1)).enumerate() {
                let start = class * plane + y * width;
                if let Some(target) = self.values.get_mut(start..start + width) {
                    target.copy_from_slice(row);
                }
            }
        }
        Ok(())
    }
}
