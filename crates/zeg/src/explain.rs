//! Why a region has its name: which class names compete where.
//!
//! For every large region of an image, the mean score of each class over the region's pixels; the best of them say what
//! else the region might have been. Pixels without a class are a region of their own.
//!
//! Regions are found while the scores go by (`growth`): a row's pixels join the regions that they touch in the row above,
//! and their scores join the regions' sums. Scores are neither kept nor computed again.

mod growth;

use std::io;

use serde::Serialize;

use self::growth::{GrownRegion, Growth};
use crate::session::{ScoredStrip, StripVisitor};

/// Regions smaller than this share of the image are not explained.
const LEAST_SHARE: f64 = 0.005;
/// The largest regions that are explained.
const MOST_REGIONS: usize = 24;

/// How many class names to give, and of which regions.
#[derive(Debug, Clone, Copy)]
pub struct ExplainOptions {
    /// Candidates that are named for each region.
    pub candidates: usize,
}

/// What competes for one region.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Explanation {
    /// The class it was given; `None` for the pixels without one.
    pub class: Option<String>,
    /// Share of the image's pixels, 0 to 1.
    pub share: f64,
    /// Smallest rectangle around it: x, y, width, height in pixels.
    pub bounding_box: [u32; 4],
    /// Best classes by their mean score over the region, best first.
    pub candidates: Vec<Candidate>,
}

/// A class that competes for a region.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Candidate {
    /// The class's name.
    pub class: String,
    /// Mean score over the region, 0 to 1.
    pub score: f64,
}

/// Explains the regions of an image whose scores it is shown.
#[derive(Debug)]
pub struct Explainer {
    names: Vec<String>,
    options: ExplainOptions,
    pixels: u64,
    growth: Growth,
}

impl Explainer {
    /// Waits for the first row.
    ///
    /// - `names`: `[classes]`
    /// - `size`: height and width of the image
    pub fn new(names: Vec<String>, [height, width]: [usize; 2], options: ExplainOptions) -> Self {
        let pixels = (height * width) as u64;
        let least = (pixels as f64 * LEAST_SHARE).ceil() as u64;
        Self {
            growth: Growth::new(names.len(), least.max(1)),
            names,
            options,
            pixels: pixels.max(1),
        }
    }

    /// Explains the regions, largest first.
    pub fn finish(self) -> Vec<Explanation> {
        let mut regions = self.growth.finish();
        regions.truncate(MOST_REGIONS);
        let explain = |region: &GrownRegion| {
            let sums = &region.sums;
            let mut order: Vec<usize> = (0..sums.len()).collect();
            order.sort_by(|&a, &b| sums[b].total_cmp(&sums[a]).then(a.cmp(&b)));
            let name = |class: usize| self.names.get(class).cloned().unwrap_or_default();
            let best = order.into_iter().take(self.options.candidates);
            Explanation {
                class: region.class().map(|class| name(usize::from(class))),
                share: region.pixels as f64 / self.pixels as f64,
                bounding_box: region.bounding_box(),
                candidates: best
                    .map(|class| Candidate {
                        class: name(class),
                        score: sums[class] / region.pixels.max(1) as f64,
                    })
                    .collect(),
            }
        };
        regions.iter().map(explain).collect()
    }
}

impl StripVisitor for Explainer {
    fn visit(&mut self, strip: &ScoredStrip) -> io::Result<()> {
        for (index, (labels, scores)) in strip.rows().enumerate() {
            self.growth.add_row(strip.first_row + index, labels, scores);
        }
        Ok(())
    }
}
