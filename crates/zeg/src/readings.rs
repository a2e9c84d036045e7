//! What is read from the scores of an image besides its labels: they are stored, and its regions are explained.
//!
//! The order matters: regions that change after the scores were computed are explained with the stored scores.

use std::sync::atomic::AtomicBool;

use anyhow::Context as _;
use zeg_export::absorb_small_regions;
use zeg_image::LabelMap;

use crate::{
    explain::{ExplainOptions, Explainer, Explanation},
    session::StripVisitor,
    spool::{ScoreSpool, SpooledScores},
};

/// What is wanted of the scores of an image.
#[derive(Debug, Clone, Copy)]
pub struct ReadingOptions {
    /// Whether the scores are stored for a later reader.
    pub keeps_scores: bool,
    /// How regions are explained; `None` if they are not.
    pub explain: Option<ExplainOptions>,
    /// Size in pixels below which a region takes the label of another one; `None` for no change.
    pub absorbed_area: Option<u64>,
}

/// The readers of the scores of one image.
#[derive(Debug)]
pub struct Readings {
    spool: Option<ScoreSpool>,
    explainer: Option<Explainer>,
    absorbed_area: Option<u64>,
}

/// What was read from the scores of an image.
#[derive(Debug)]
pub struct Read {
    /// The stored scores.
    pub scores: Option<SpooledScores>,
    /// The explained regions, largest first.
    pub regions: Option<Vec<Explanation>>,
}

impl ReadingOptions {
    /// Whether the scores of all classes at every pixel go to a temporary file.
    pub fn stores_scores(&self) -> bool {
        self.keeps_scores || self.is_explained_later()
    }

    fn is_explained_later(&self) -> bool {
        self.explain.is_some() && self.absorbed_area.is_some()
    }
}

impl Readings {
    /// Creates the readers of an image.
    ///
    /// - `names`: class names, `[classes]`
    /// - `size`: height and width of the image
    ///
    /// # Errors
    /// Returns an error if no temporary file can be created.
    pub fn new(
        names: &[String],
        [height, width]: [usize; 2],
        options: ReadingOptions,
    ) -> std::io::Result<Self> {
        let spool = options
            .stores_scores()
            .then(|| ScoreSpool::new(names.len(), width));
        let explainer = |options| Explainer::new(names.to_vec(), [height, width], options);
        Ok(Self {
            spool: spool.transpose()?,
            explainer: options.explain.map(explainer),
            absorbed_area: options.absorbed_area,
        })
    }

    /// Returns the visitors of the score strips.
    pub fn visitors(&mut self) -> Vec<&mut dyn StripVisitor> {
        let mut visitors: Vec<&mut dyn StripVisitor> = Vec::new();
        visitors.extend(self.spool.as_mut().map(|it| it as &mut dyn StripVisitor));
        if self.absorbed_area.is_none() {
            let explainer = self.explainer.as_mut();
            visitors.extend(explainer.map(|it| it as &mut dyn StripVisitor));
        }
        visitors
    }

    /// Gives small regions another label, and returns what was read.
    ///
    /// - `stop`: ends the reading of stored scores early, with an error
    ///
    /// # Errors
    /// Returns an error if there are too many regions, or the scores cannot be written or read back.
    pub fn finish(self, labels: &mut LabelMap, stop: &AtomicBool) -> anyhow::Result<Read> {
        if let Some(area) = self.absorbed_area {
            absorb_small_regions(labels, area)?;
        }
        let scores = self.spool.map(ScoreSpool::finish).transpose()?;
        let mut explainer = self.explainer;
        if let (Some(explainer), Some(scores), Some(_)) =
            (&mut explainer, &scores, self.absorbed_area)
        {
            let read = explainer.visit_stored(scores, labels, stop);
            read.context("reading scores back from the temporary file")?;
        }
        Ok(Read {
            scores,
            regions: explainer.map(Explainer::finish),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::session::ScoredStrip;

    /// Visits an image of two rows and two classes, and finishes with the flag.
    fn read(options: ReadingOptions, stop: &AtomicBool) -> anyhow::Result<Read> {
        let names = ["a", "b"].map(str::to_owned);
        let mut readings = Readings::new(&names, [2, 3], options).unwrap();
        for visitor in readings.visitors() {
            let strip = ScoredStrip {
                first_row: 0,
                classes: 2,
                width: 3,
                labels: &[0, 0, 1, 0, 0, 0],
                scores: vec![
                    0.9, 0.8, 0.3, 0.1, 0.2, 0.7, //
                    0.6, 0.7, 0.8, 0.4, 0.3, 0.2,
                ],
            };
            visitor.visit(&strip).unwrap();
        }
        let mut labels = LabelMap::new(3, 2, vec![0, 0, 1, 0, 0, 0]).unwrap();
        readings.finish(&mut labels, stop)
    }

    fn options(absorbed_area: Option<u64>) -> ReadingOptions {
        ReadingOptions {
            keeps_scores: false,
            explain: Some(ExplainOptions { candidates: 2 }),
            absorbed_area,
        }
    }

    #[test]
    fn absorbed_regions_are_explained_with_the_stored_scores() {
        let go = AtomicBool::new(false);
        let at_once = read(options(None), &go).unwrap();
        assert!(at_once.scores.is_none());
        assert_eq!(at_once.regions.unwrap().len(), 2);
        let later = read(options(Some(2)), &go).unwrap();
        assert!(later.scores.is_some());
        let regions = later.regions.unwrap();
        assert_eq!(regions.len(), 1);
        let mean = regions[0].candidates[0].score;
        assert!((mean - 4.1 / 6.0).abs() < 1e-6, "{mean}");
    }

    #[test]
    fn reading_stored_scores_ends_when_nobody_waits() {
        let stop = AtomicBool::new(true);
        assert!(read(options(Some(2)), &stop).is_err());
        assert!(read(options(None), &stop).is_ok());
    }
}
