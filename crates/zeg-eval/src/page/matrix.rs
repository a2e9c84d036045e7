//! The confusion matrix as an image with one pixel per cell, so that it is a small file even for 847 classes.
//!
//! Rows are true classes, each normalised to 1; columns are predicted classes. Seen classes come first, so that pixels
//! of unseen classes that are predicted as seen ones form one block. Correct cells are blue, wrong cells are orange.
//! The share only changes the opacity of a cell, so the image fits a light and a dark page.

use std::io::{self, Cursor};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use image::{ExtendedColorType, ImageEncoder as _, codecs::png::PngEncoder};

use crate::{ClassRef, ConfusionMatrix};

/// RGB colour of cells on the diagonal.
pub(super) const RIGHT: [u8; 3] = [38, 107, 214];
/// RGB colour of the other cells.
pub(super) const WRONG: [u8; 3] = [224, 92, 26];

/// Largest number of classes for which rows and columns have names.
const NAMED: usize = 32;
/// Number of classes from which on cells would be too small in half the width of a page.
const LARGE: usize = 256;

/// The image of a confusion matrix with its labels.
pub(super) struct Matrix {
    /// `data:` URL of the PNG.
    pub(super) address: String,
    /// Number of rows and of columns.
    pub(super) side: usize,
    /// Position of the first unseen class, in percent of the side; `None` without a split.
    pub(super) border: Option<String>,
    /// Class names of rows and columns; empty for many classes.
    pub(super) names: Vec<String>,
}

/// Returns the opacity of a cell, 0..=1. The square root makes errors of a few percent visible.
pub(super) fn opacity(share: f64) -> f64 {
    share.sqrt()
}

impl Matrix {
    /// Returns true if the image needs the whole width of the page.
    pub(super) fn is_large(&self) -> bool {
        self.side >= LARGE
    }

    pub(super) fn of(confusion: &ConfusionMatrix, classes: &[ClassRef]) -> io::Result<Self> {
        let (seen, unseen): (Vec<usize>, Vec<usize>) = (0..classes.len())
            .partition(|&class| classes.get(class).is_some_and(|class| !class.unseen));
        let order: Vec<usize> = seen.iter().chain(&unseen).copied().collect();
        let side = order.len();
        let mut pixels = Vec::with_capacity(side * side * 4);
        for &truth in &order {
            let all: u64 = confusion.row(truth).iter().sum();
            for &prediction in &order {
                let [r, g, b] = if truth == prediction { RIGHT } else { WRONG };
                let share = confusion.count(truth, prediction) as f64 / all.max(1) as f64;
                pixels.extend([r, g, b, (255.0 * opacity(share)).round() as u8]);
            }
        }
        let mut png = Cursor::new(Vec::new());
        let sides = u32::try_from(side).map_err(io::Error::other)?;
        PngEncoder::new(&mut png)
            .write_image(&pixels, sides, sides, ExtendedColorType::Rgba8)
            .map_err(io::Error::other)?;
        let names = order.iter().filter_map(|class| classes.get(*class));
        Ok(Self {
            address: format!(
                "data:image/png;base64,{}",
                BASE64_STANDARD.encode(png.into_inner())
            ),
            side,
            border: (!seen.is_empty() && !unseen.is_empty())
                .then(|| format!("{:.4}", 100.0 * seen.len() as f64 / side as f64)),
            names: if side <= NAMED {
                names.map(|class| class.name.clone()).collect()
            } else {
                Vec::new()
            },
        })
    }
}
