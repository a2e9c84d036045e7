//! Connected runs of equal labels, found by union-find.

use std::collections::BTreeMap;

use zeg_image::decode::MAX_PIXELS;
use zeg_image::{IGNORE_LABEL, LabelMap};

use super::{Connectivity, Grouping, RegionError, Run};

/// The runs of a map, and for each run a parent: an earlier run of its region, or the run itself.
pub(super) struct Forest {
    /// Runs in reading order; those of [`IGNORE_LABEL`] only with [`Unlabelled::Keep`].
    pub(super) runs: Vec<Run>,
    pub(super) parents: Vec<u32>,
}

/// What becomes of the pixels of [`IGNORE_LABEL`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Unlabelled {
    /// They belong to no run.
    Skip,
    /// They form runs like those of a class.
    Keep,
}

impl Forest {
    /// Finds the regions of the classes.
    pub(super) fn grow(labels: &LabelMap, grouping: Grouping) -> Result<Self, RegionError> {
        Self::grow_with(labels, grouping, Unlabelled::Skip)
    }

    pub(super) fn grow_with(
        labels: &LabelMap,
        grouping: Grouping,
        unlabelled: Unlabelled,
    ) -> Result<Self, RegionError> {
        let (width, height) = (labels.width(), labels.height());
        if labels.labels().len() > MAX_PIXELS {
            return Err(RegionError::TooLarge { width, height });
        }
        let mut forest = Self {
            runs: Vec::new(),
            parents: Vec::new(),
        };
        if width == 0 {
            return Ok(forest);
        }
        let mut first_of_label = BTreeMap::new();
        let mut above = 0..0; // runs of the row above
        for (y, row) in labels.labels().chunks_exact(width).enumerate() {
            let begin = forest.runs.len();
            forest.add_row(y as u32, row, unlabelled);
            let current = begin..forest.runs.len();
            match grouping {
                Grouping::Class => {
                    for run in current.clone() {
                        let label = forest.label(labels, run as u32);
                        forest.parents[run] = *first_of_label.entry(label).or_insert(run as u32);
                    }
                }
                Grouping::Connected(connectivity) => {
                    forest.join_rows(labels, above, current.clone(), connectivity);
                }
            }
            above = current;
        }
        Ok(forest)
    }

    fn add_row(&mut self, y: u32, row: &[u16], unlabelled: Unlabelled) {
        let mut x = 0;
        for pixels in row.chunk_by(PartialEq::eq) {
            let length = pixels.len() as u32;
            if unlabelled == Unlabelled::Keep || pixels.first() != Some(&IGNORE_LABEL) {
                self.parents.push(self.runs.len() as u32);
                self.runs.push(Run { x, y, length });
            }
            x += length;
        }
    }

    /// Joins the runs of a row with the runs of the same label above that touch them.
    fn join_rows(
        &mut self,
        labels: &LabelMap,
        mut above: std::ops::Range<usize>,
        current: std::ops::Range<usize>,
        connectivity: Connectivity,
    ) {
        // Largest gap in columns between two runs that touch.
        let reach = match connectivity {
            Connectivity::Four => 0,
            Connectivity::Eight => 1,
        };
        for run in current {
            let lower = self.runs[run];
            // Runs above that end before this run begins do not touch later runs either.
            while above.start < above.end && self.runs[above.start].end() + reach <= lower.x {
                above.start += 1;
            }
            for other in above.clone() {
                let upper = self.runs[other];
                if upper.x >= lower.end() + reach {
                    break;
                }
                if self.label(labels, other as u32) == self.label(labels, run as u32) {
                    self.join(other as u32, run as u32);
                }
            }
        }
    }

    /// Merges the regions of two runs; the earlier root represents the merged region.
    fn join(&mut self, one: u32, other: u32) {
        let (one, other) = (self.find(one), self.find(other));
        self.parents[one.max(other) as usize] = one.min(other);
    }

    /// Returns the root of a run and halves the path to it.
    fn find(&mut self, mut run: u32) -> u32 {
        while self.parents[run as usize] != run {
            let parent = self.parents[run as usize];
            self.parents[run as usize] = self.parents[parent as usize];
            run = self.parents[run as usize];
        }
        run
    }

    /// Makes the root the parent of every run, and returns the number of pixels of each root.
    pub(super) fn flatten(&mut self) -> Vec<u32> {
        let mut areas = vec![0; self.runs.len()];
        for run in 0..self.runs.len() {
            // A parent comes before its children, so its own parent is its root already.
            let root = self.parents[self.parents[run] as usize];
            self.parents[run] = root;
            areas[root as usize] += self.runs[run].length;
        }
        areas
    }

    pub(super) fn roots(&self) -> impl Iterator<Item = u32> + '_ {
        (0..)
            .zip(&self.parents)
            .filter_map(|(run, &parent)| (run == parent).then_some(run))
    }

    pub(super) fn label(&self, labels: &LabelMap, run: u32) -> u16 {
        let run = self.runs[run as usize];
        let label = labels.get(run.x as usize, run.y as usize);
        label.unwrap_or(IGNORE_LABEL)
    }
}
