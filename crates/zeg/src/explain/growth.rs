//! Finds the connected regions of a label map row by row, with the sums of their scores.
//!
//! A run of equal labels joins the regions of the runs that it touches in the row above, at an edge or a corner. Only
//! regions that reach the last row are open; of those that ended, the small ones are dropped. Memory grows with the
//! image's width and the number of classes, not with its area.

use zeg_image::IGNORE_LABEL;

/// A region: connected pixels of one class, or all unlabelled pixels.
#[derive(Debug, Clone)]
pub(super) struct GrownRegion {
    label: u16,
    pub(super) pixels: u64,
    /// Scores summed over the pixels, `[classes]`.
    pub(super) sums: Vec<f64>,
    /// Row and column of the first pixel in reading order.
    first: [usize; 2],
    left: usize,
    right: usize,
    bottom: usize,
}

impl GrownRegion {
    fn new(label: u16, classes: usize, first: [usize; 2]) -> Self {
        Self {
            label,
            pixels: 0,
            sums: vec![0.0; classes],
            first,
            left: usize::MAX,
            right: 0,
            bottom: 0,
        }
    }

    /// Returns the class; `None` for the unlabelled pixels.
    pub(super) fn class(&self) -> Option<u16> {
        (self.label != IGNORE_LABEL).then_some(self.label)
    }

    /// Returns the smallest rectangle around the region: x, y, width, height in pixels.
    pub(super) fn bounding_box(&self) -> [u32; 4] {
        let [top, _] = self.first;
        let sides = [self.right - self.left, self.bottom - top];
        [self.left, top, sides[0], sides[1]].map(|side| side as u32)
    }

    /// Adds pixels `from..to` of a row; `scores` is `[classes, width]`.
    fn add(&mut self, [row, from, to]: [usize; 3], scores: &[f32], width: usize) {
        self.pixels += (to - from) as u64;
        self.left = self.left.min(from);
        self.right = self.right.max(to);
        self.bottom = row + 1;
        for (sum, scores) in self.sums.iter_mut().zip(scores.chunks_exact(width)) {
            let part = &scores[from..to];
            *sum += part.iter().map(|&score| f64::from(score)).sum::<f64>();
        }
    }

    fn absorb(&mut self, other: Self) {
        self.pixels += other.pixels;
        self.first = self.first.min(other.first);
        self.left = self.left.min(other.left);
        self.right = self.right.max(other.right);
        self.bottom = self.bottom.max(other.bottom);
        for (sum, other) in self.sums.iter_mut().zip(other.sums) {
            *sum += other;
        }
    }
}

/// A run of pixels `from..to` of the last row that belongs to an open region.
#[derive(Debug, Clone, Copy)]
struct OpenRun {
    from: usize,
    to: usize,
    label: u16,
    region: usize,
}

/// An open region, or a reference to the region that absorbed it.
#[derive(Debug)]
enum Slot {
    Open(Box<GrownRegion>),
    /// The region was joined to the one in another slot.
    Joined(usize),
}

/// Regions while they grow.
#[derive(Debug)]
pub(super) struct Growth {
    classes: usize,
    least: u64,
    slots: Vec<Slot>,
    above: Vec<OpenRun>,
    ended: Vec<GrownRegion>,
    /// All unlabelled pixels.
    unlabelled: Option<GrownRegion>,
}

impl Growth {
    /// Starts without any row.
    ///
    /// - `least`: pixels of the smallest region that is returned
    pub(super) fn new(classes: usize, least: u64) -> Self {
        Self {
            classes,
            least,
            slots: Vec::new(),
            above: Vec::new(),
            ended: Vec::new(),
            unlabelled: None,
        }
    }

    /// Adds the next row: labels `[width]`, scores `[classes, width]`.
    pub(super) fn add_row(&mut self, row: usize, labels: &[u16], scores: &[f32]) {
        let above = std::mem::take(&mut self.above);
        let mut ahead = &above[..];
        let mut runs: Vec<OpenRun> = Vec::new();
        let mut from = 0;
        for run in labels.chunk_by(|a, b| a == b) {
            let (label, to) = (run[0], from + run.len());
            let place = [row, from, to];
            if label == IGNORE_LABEL {
                let new = || GrownRegion::new(label, self.classes, [row, from]);
                let unlabelled = self.unlabelled.get_or_insert_with(new);
                unlabelled.add(place, scores, labels.len());
            } else {
                // Runs above that end before the corner of this run cannot touch a later run either.
                let passed = ahead.partition_point(|run| run.to < from);
                ahead = &ahead[passed..];
                let region = self.join(ahead, label, place);
                if let Slot::Open(open) = &mut self.slots[region] {
                    open.add(place, scores, labels.len());
                }
                runs.push(OpenRun {
                    from,
                    to,
                    label,
                    region,
                });
            }
            from = to;
        }
        self.above = runs;
        if self.slots.len() > 2 * self.above.len() + 64 {
            self.close();
        }
    }

    /// Joins the regions that a run touches, or opens a new region; returns its slot.
    fn join(&mut self, above: &[OpenRun], label: u16, [row, from, to]: [usize; 3]) -> usize {
        let touches = |run: &&OpenRun| run.from <= to;
        let mut found: Option<usize> = None;
        for run in above
            .iter()
            .take_while(touches)
            .filter(|run| run.label == label)
        {
            let other = self.root(run.region);
            match found {
                None => found = Some(other),
                Some(region) if region == other => {}
                Some(region) => {
                    let joined = std::mem::replace(&mut self.slots[other], Slot::Joined(region));
                    if let (Slot::Open(open), Slot::Open(joined)) =
                        (&mut self.slots[region], joined)
                    {
                        open.absorb(*joined);
                    }
                }
            }
        }
        found.unwrap_or_else(|| {
            let region = GrownRegion::new(label, self.classes, [row, from]);
            self.slots.push(Slot::Open(Box::new(region)));
            self.slots.len() - 1
        })
    }

    /// Returns the slot of the region that finally absorbed this one; shortens the chain of joins on the way.
    fn root(&mut self, mut slot: usize) -> usize {
        while let Slot::Joined(to) = self.slots[slot] {
            if let Slot::Joined(further) = self.slots[to] {
                self.slots[slot] = Slot::Joined(further);
            }
            slot = to;
        }
        slot
    }

    /// Ends the regions that do not reach the last row.
    fn close(&mut self) {
        let mut places = vec![None; self.slots.len()];
        let mut above = std::mem::take(&mut self.above);
        let mut open = 0;
        for run in &mut above {
            let root = self.root(run.region);
            run.region = *places[root].get_or_insert_with(|| {
                open += 1;
                open - 1
            });
        }
        let mut slots: Vec<Option<Slot>> = (0..open).map(|_| None).collect();
        for (slot, place) in std::mem::take(&mut self.slots).into_iter().zip(places) {
            match (slot, place) {
                (slot, Some(place)) => slots[place] = Some(slot),
                (Slot::Open(region), None) if region.pixels >= self.least => {
                    self.ended.push(*region);
                }
                _ => {}
            }
        }
        self.slots = slots.into_iter().flatten().collect();
        self.above = above;
    }

    /// Returns the regions that are large enough, largest first; ties are ordered by class and position, with the
    /// unlabelled pixels last.
    pub(super) fn finish(mut self) -> Vec<GrownRegion> {
        self.above.clear();
        self.close();
        let mut regions = self.ended;
        let large = |region: &GrownRegion| region.pixels >= self.least;
        regions.extend(self.unlabelled.filter(large));
        regions.sort_by_key(|region| {
            let class = region.class();
            let order = (class.is_none(), region.label, region.first);
            (std::cmp::Reverse(region.pixels), order)
        });
        regions
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zeg_export::{Connectivity, Grouping, find_regions};
    use zeg_image::LabelMap;

    use super::*;

    /// Returns a score that depends on class and position, in quarters, so that sums are exact in any order.
    fn score(class: usize, x: usize, y: usize) -> f32 {
        ((x * 3 + y * 5 + class * 7) % 9) as f32 / 4.0
    }

    fn grown(labels: &LabelMap, least: u64) -> Vec<GrownRegion> {
        let mut growth = Growth::new(2, least);
        for (y, row) in labels.labels().chunks_exact(labels.width()).enumerate() {
            let scores: Vec<f32> = (0..2)
                .flat_map(|class| (0..labels.width()).map(move |x| score(class, x, y)))
                .collect();
            growth.add_row(y, row, &scores);
        }
        growth.finish()
    }

    proptest! {
        /// The regions are those of `find_regions` on the whole map, with the scores of their pixels.
        #[test]
        fn regions_are_those_of_the_whole_map(
            width in 1_usize..40, height in 1_usize..40, seed: u64, kinds in 1_u64..4, least in 1_u64..6,
        ) {
            let mut state = seed;
            let labels: Vec<u16> = (0..width * height)
                .map(|_| {
                    state = state.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
                    let kind = (state >> 33) % (kinds + 1);
                    if kind == kinds { IGNORE_LABEL } else { kind as u16 }
                })
                .collect();
            let labels = LabelMap::new(width, height, labels).unwrap();
            let found = grown(&labels, least);
            let connected = Grouping::Connected(Connectivity::Eight);
            let expected = find_regions(&labels, connected, least).unwrap();
            let mut expected: Vec<_> = expected.iter().collect();
            expected.sort_by_key(|region| std::cmp::Reverse(region.area()));
            let labelled: Vec<_> = found.iter().filter(|region| region.class().is_some()).collect();
            prop_assert_eq!(labelled.len(), expected.len());
            for (found, expected) in labelled.iter().zip(&expected) {
                prop_assert_eq!(found.class(), Some(expected.label()));
                prop_assert_eq!(found.pixels, expected.area());
                let b = expected.bounding_box();
                prop_assert_eq!(found.bounding_box(), [b.left, b.top, b.width, b.height]);
                for class in 0..2 {
                    let pixels = expected.runs().iter().flat_map(|run| (run.x..run.end()).map(|x| (x, run.y)));
                    let sum: f64 = pixels.map(|(x, y)| f64::from(score(class, x as usize, y as usize))).sum();
                    prop_assert!((found.sums[class] - sum).abs() < 1e-9);
                }
            }
            let ignored = labels.labels().iter().filter(|&&label| label == IGNORE_LABEL).count() as u64;
            let unlabelled = found.iter().find(|region| region.class().is_none());
            prop_assert_eq!(unlabelled.map_or(0, |region| region.pixels), if ignored >= least { ignored } else { 0 });
        }
    }

    #[test]
    fn unlabelled_pixels_are_one_region() {
        let (a, ignore) = (3, IGNORE_LABEL);
        let labels = LabelMap::new(4, 2, vec![ignore, a, a, ignore, a, a, ignore, ignore]).unwrap();
        let regions = grown(&labels, 1);
        let summary: Vec<_> = regions.iter().map(|r| (r.class(), r.pixels)).collect();
        assert_eq!(summary, [(Some(3), 4), (None, 4)]);
    }
}
