//! Explains a segmentation: which classes have the highest scores in each region.
//!
//! For every large region of an image, the scores of each class are averaged over the region's pixels; the classes with
//! the highest means are the region's candidates. All unlabelled pixels together count as one region.
//!
//! Regions are found while the scores are computed row by row (`growth`): the pixels of a row join the regions that
//! they touch in the row above, and their scores are added to the sums of these regions. Scores are neither stored nor
//! computed a second time.

mod growth;

use std::{
    io,
    sync::atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};
use zeg_export::ProbabilitySource as _;
use zeg_image::LabelMap;

use self::growth::{GrownRegion, Growth};
use crate::{
    session::{ScoredStrip, StripVisitor},
    spool::SpooledScores,
};

/// Smallest region that is explained, as a share of the image.
const LEAST_SHARE: f64 = 0.005;
/// Number of regions that are explained at most, largest first.
const MOST_REGIONS: usize = 24;

/// Settings of an explanation.
#[derive(Debug, Clone, Copy)]
pub struct ExplainOptions {
    /// Number of candidates that are listed for each region.
    pub candidates: usize,
}

/// A region with the classes that have the highest scores in it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Explanation {
    /// Class of the region; `None` for the unlabelled pixels.
    pub class: Option<String>,
    /// Share of the image's pixels, 0 to 1.
    pub share: f64,
    /// Smallest rectangle around it: x, y, width, height in pixels.
    pub bounding_box: [u32; 4],
    /// The classes with the highest mean scores over the region, best first.
    pub candidates: Vec<Candidate>,
}

/// A class with its mean score over a region.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Candidate {
    /// The class's name.
    pub class: String,
    /// Mean score over the region, 0 to 1.
    pub score: f64,
}

/// A visitor of score strips that explains the regions of the image.
#[derive(Debug)]
pub struct Explainer {
    names: Vec<String>,
    options: ExplainOptions,
    pixels: u64,
    growth: Growth,
}

impl Explainer {
    /// Creates an explainer for one image, ready for its first row.
    ///
    /// - `names`: class names, `[classes]`
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

    /// Visits all rows of a label map with scores that were stored, in place of the strips.
    ///
    /// - `stop`: ends the visit early
    ///
    /// # Errors
    /// Returns an error if the scores cannot be read back, or of the kind [`io::ErrorKind::Interrupted`] if the visit
    /// was stopped.
    pub fn visit_stored(
        &mut self,
        scores: &SpooledScores,
        labels: &LabelMap,
        stop: &AtomicBool,
    ) -> io::Result<()> {
        let (width, classes) = (labels.width().max(1), self.names.len());
        for (row, labels) in labels.labels().chunks_exact(width).enumerate() {
            if stop.load(Ordering::Relaxed) {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let mut of_row = vec![0.0; classes * width]; // [classes, width]
            for (class, values) in of_row.chunks_exact_mut(width).enumerate() {
                scores.fill_row(class, row, values);
            }
            self.visit(&ScoredStrip {
                first_row: row,
                classes,
                width,
                labels,
                scores: of_row,
            })?;
        }
        scores.check()
    }

    /// Returns the explained regions, largest first.
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
