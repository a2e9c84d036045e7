//! Patch features of an example image, inside its mask and outside.

use burn::tensor::Device;
use zeg_image::{LabelMap, RgbImage};

use crate::{
    ModelError,
    encoded::EncodedWindows,
    inference::{Inference, PlannedWindow},
    method::Model,
    scores::host,
    stop::StopSign,
};

/// Most patches inside the mask that are kept of an example.
pub const PATCHES_INSIDE: usize = 128;
/// Most patches outside the mask that are kept of an example.
pub const PATCHES_OUTSIDE: usize = 64;
/// Share of a patch's pixels that the mask must cover for the patch to be inside.
const COVERED: f64 = 0.5;

/// Patch features of an example image, in the joint image-text space.
#[derive(Debug, Clone, PartialEq)]
pub struct ExampleFeatures {
    dim: usize,
    /// Unit patches inside the mask: `[patches, dim]`
    inside: Vec<f32>,
    /// Unit patches that the mask does not touch: `[patches, dim]`
    outside: Vec<f32>,
}

impl ExampleFeatures {
    /// Returns the features of an example.
    ///
    /// - `inside`, `outside`: unit rows, `[patches, dim]`
    pub fn new(dim: usize, inside: Vec<f32>, outside: Vec<f32>) -> Self {
        Self {
            dim,
            inside,
            outside,
        }
    }

    /// Encodes an example image with the windows of the settings and keeps the patches inside its mask, and some of those
    /// outside: at most [`PATCHES_INSIDE`] and [`PATCHES_OUTSIDE`], evenly spaced over all windows.
    ///
    /// A patch is inside if the mask covers half of it. A mask too small for that gives the patch that it covers most.
    ///
    /// - `mask`: of the image's size; 0 outside
    ///
    /// # Errors
    /// Returns an error if the mask has another size or no pixel, if the model's method has no patch features, or the
    /// settings do not suit the image.
    pub fn of(
        model: &dyn Model,
        image: &RgbImage,
        mask: &LabelMap,
        settings: &Inference,
        device: &Device,
        stop: StopSign<'_>,
    ) -> Result<Self, ModelError> {
        let (width, height) = (image.width() as usize, image.height() as usize);
        if (mask.width(), mask.height()) != (width, height) {
            return Err(ModelError::Config(format!(
                "the mask has {}×{} pixels, but its image has {width}×{height}",
                mask.width(),
                mask.height()
            )));
        }
        let area = Area::of(mask);
        if area.sum([0, 0, height, width]) == 0 {
            return Err(ModelError::Config("the mask has no pixel".into()));
        }
        let encoded = EncodedWindows::unless_stopped(model, image, settings, device, stop)?;
        let (mut patches, mut covers, mut dim) = (Vec::new(), Vec::new(), 0);
        for window in &encoded.windows {
            let Some(tower) = model.patches(&window.encoding)? else {
                return Err(ModelError::Config(
                    "the model has no patch features, which examples need".into(),
                ));
            };
            [_, _, dim] = tower.patches.dims();
            patches.extend(host(tower.patches.clone())?); // [1, rows · columns, dim]
            let grid = Grid {
                cells: tower.grid,
                covered: window.planned.covered_size(model.stride()),
                canvas: encoded.canvas,
            };
            covers.extend(grid.covers(&area, &window.planned, [height, width]));
        }
        let most = covers.iter().copied().fold(0.0, f64::max);
        let enough = COVERED.min(most);
        let rows = |keep: &dyn Fn(f64) -> bool, most: usize| {
            let kept: Vec<usize> = (0..covers.len())
                .filter(|&index| keep(covers[index]))
                .collect();
            let rows = spaced(&kept, most).flat_map(|index| &patches[index * dim..][..dim]);
            rows.copied().collect()
        };
        Ok(Self {
            dim,
            inside: rows(&|cover| cover >= enough && cover > 0.0, PATCHES_INSIDE),
            outside: rows(&|cover| cover == 0.0, PATCHES_OUTSIDE),
        })
    }

    /// Returns the number of channels.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Returns the patches inside the mask, `[dim]` each.
    pub fn inside(&self) -> impl Iterator<Item = &[f32]> {
        self.inside.chunks_exact(self.dim.max(1))
    }

    /// Returns the patches outside the mask, `[dim]` each.
    pub fn outside(&self) -> impl Iterator<Item = &[f32]> {
        self.outside.chunks_exact(self.dim.max(1))
    }
}

/// Returns at most `most` of some indices, evenly spaced from the first to the last.
fn spaced(indices: &[usize], most: usize) -> impl Iterator<Item = usize> {
    let count = indices.len().min(most);
    (0..count).filter_map(move |number| {
        let place = if indices.len() <= most {
            number
        } else {
            number * (indices.len() - 1) / (count - 1).max(1)
        };
        indices.get(place).copied()
    })
}

/// Sums of a mask over rectangles.
struct Area {
    width: usize,
    /// Number of mask pixels above and to the left, `[height + 1, width + 1]`
    sums: Vec<u64>,
}

impl Area {
    fn of(mask: &LabelMap) -> Self {
        let width = mask.width();
        let mut sums = vec![0_u64; width + 1];
        for row in mask.labels().chunks_exact(width.max(1)) {
            let above = sums.len() - (width + 1);
            let mut left = 0;
            sums.push(0);
            for (x, &label) in row.iter().enumerate() {
                left += u64::from(label != 0);
                sums.push(sums[above + x + 1] + left);
            }
        }
        Self { width, sums }
    }

    /// Returns the number of mask pixels in a rectangle, `[top, left, bottom, right]`.
    fn sum(&self, [top, left, bottom, right]: [usize; 4]) -> u64 {
        let at = |y: usize, x: usize| self.sums[y * (self.width + 1) + x];
        at(bottom, right) + at(top, left) - at(top, right) - at(bottom, left)
    }
}

/// The patch grid of a window.
struct Grid {
    /// Rows and columns of patches.
    cells: [usize; 2],
    /// Height and width in canvas pixels that the patches cover.
    covered: [usize; 2],
    /// Height and width of the canvas.
    canvas: [usize; 2],
}

impl Grid {
    /// Returns the share of every patch that the mask covers, row-major; the part of a patch outside the image counts as
    /// not covered.
    fn covers(&self, area: &Area, planned: &PlannedWindow, size: [usize; 2]) -> Vec<f64> {
        let place = [planned.window.y, planned.window.x];
        // The position of a cell's edge in image pixels, along one axis.
        let edge = |axis: usize, cell: usize| {
            let canvas = place[axis] as f64
                + cell as f64 * self.covered[axis] as f64 / self.cells[axis].max(1) as f64;
            canvas * size[axis] as f64 / self.canvas[axis].max(1) as f64
        };
        let pixel = |axis: usize, cell: usize| (edge(axis, cell).round() as usize).min(size[axis]);
        let mut covers = Vec::with_capacity(self.cells[0] * self.cells[1]);
        for row in 0..self.cells[0] {
            for column in 0..self.cells[1] {
                let inside = area.sum([
                    pixel(0, row),
                    pixel(1, column),
                    pixel(0, row + 1),
                    pixel(1, column + 1),
                ]);
                let height = edge(0, row + 1) - edge(0, row);
                let width = edge(1, column + 1) - edge(1, column);
                covers.push(inside as f64 / (height * width).max(1.0));
            }
        }
        covers
    }
}

#[cfg(test)]
mod tests {
    use zeg_image::Window;

    use super::*;

    #[test]
    fn covers_are_shares_of_patches() {
        // A mask over the left half of the upper half of an image of 8×8.
        let labels = (0..64)
            .map(|index| u16::from(index / 8 < 4 && index % 8 < 4))
            .collect();
        let area = Area::of(&LabelMap::new(8, 8, labels).unwrap());
        let planned = PlannedWindow::from(Window {
            x: 0,
            y: 0,
            width: 16,
            height: 16,
        });
        let grid = Grid {
            cells: [2, 4],
            covered: [16, 16],
            canvas: [16, 16],
        };
        let covers = grid.covers(&area, &planned, [8, 8]);
        assert_eq!(covers, [1.0, 1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    }

    #[test]
    fn kept_patches_are_spaced_evenly() {
        let all: Vec<usize> = (0..10).collect();
        assert_eq!(spaced(&all, 4).collect::<Vec<_>>(), [0, 3, 6, 9]);
        assert_eq!(spaced(&all, 1).collect::<Vec<_>>(), [0]);
        assert_eq!(spaced(&all[..3], 4).collect::<Vec<_>>(), [0, 1, 2]);
        assert_eq!(spaced(&[], 4).count(), 0);
    }
}
