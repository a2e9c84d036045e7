//! One pass down the scores of an image: the mean over its scales and its mirror image, a strip of rows at a time.

use std::{io, ops::Range};

use rayon::prelude::*;
use zeg_model::{
    ModelError,
    inference::{Inference, Scan, Source, Stages},
    method::Model,
    scores::Strip,
};

use super::Question;

/// An image in one scale, straight or mirrored.
#[derive(Debug, Clone)]
pub(super) struct Look<T> {
    pub(super) mirrored: bool,
    pub(super) content: T,
    /// Settings of this scale.
    pub(super) inference: Inference,
}

/// Everything that is averaged, each with whether it is mirrored.
pub(super) struct Pass<'a> {
    scans: Vec<(bool, Scan<'a>)>,
}

impl<'a> Pass<'a> {
    /// Starts at the top.
    ///
    /// Where several seen offsets are asked for, scores are calibrated afterwards, once for each.
    pub(super) fn new<'l, T: 'l>(
        looks: impl Iterator<Item = (&'l Look<T>, Source<'a>)>,
        model: &'a dyn Model,
        question: &Question<'a>,
    ) -> Result<Self, ModelError> {
        let scans = looks.map(|(look, source)| {
            let mut inference = look.inference.clone();
            if !question.seen_offsets.is_empty() {
                inference.seen_offset = 0.0;
            }
            let scan = Scan::new(model, source, question.classes, &inference)?;
            Ok((look.mirrored, scan))
        });
        Ok(Self {
            scans: scans.collect::<Result<_, ModelError>>()?,
        })
    }

    /// Returns the strips that keep memory small, top to bottom: the finest of any scale suit all.
    pub(super) fn strips(&self) -> Vec<Range<usize>> {
        let strips = self.scans.iter().map(|(_, scan)| scan.strips());
        strips.max_by_key(Vec::len).unwrap_or_default()
    }

    /// Returns the mean of the scores of some rows.
    pub(super) fn strip(&mut self, rows: Range<usize>) -> Result<Strip, ModelError> {
        let mut sum: Option<Strip> = None;
        for (mirrored, scan) in &mut self.scans {
            let strip = scan.strip(rows.clone())?;
            let strip = if *mirrored { strip.mirrored() } else { strip };
            match &mut sum {
                Some(sum) => sum.add(&strip),
                None => sum = Some(strip),
            }
        }
        let Some(mut mean) = sum else {
            return Err(ModelError::Config(
                "test-time scales: there are none".into(),
            ));
        };
        mean.divide(self.scans.len());
        Ok(mean)
    }

    /// Returns where the time went so far.
    pub(super) fn stages(&self) -> Stages {
        let mut stages = Stages::default();
        for (_, scan) in &self.scans {
            stages += scan.stages();
        }
        stages
    }
}

/// Some rows of an image with their labels and every class's scores.
#[derive(Debug)]
pub struct ScoredStrip<'a> {
    /// The first row's number in the image.
    pub first_row: usize,
    /// Number of classes.
    pub classes: usize,
    /// Columns.
    pub width: usize,
    /// `[rows, width]`: class indices, [`zeg_image::IGNORE_LABEL`] where no class was admitted.
    pub labels: &'a [u16],
    /// `[rows, classes, width]`: scores from 0 to 1.
    pub scores: Vec<f32>,
}

impl<'a> ScoredStrip<'a> {
    pub(super) fn new(strip: &Strip, labels: &'a [u16]) -> Self {
        let length = strip.classes * strip.width;
        let mut scores = vec![0.0; strip.rows() * length];
        scores
            .par_chunks_mut(length.max(1))
            .enumerate()
            .for_each(|(row, scores)| scores.copy_from_slice(&strip.scores(row)));
        Self {
            first_row: strip.first_row,
            classes: strip.classes,
            width: strip.width,
            labels,
            scores,
        }
    }

    /// Returns the rows from the top: labels `[width]` and scores `[classes, width]` of each.
    pub fn rows(&self) -> impl Iterator<Item = (&[u16], &[f32])> {
        let scores = self.scores.chunks_exact((self.classes * self.width).max(1));
        self.labels.chunks_exact(self.width.max(1)).zip(scores)
    }
}

/// Something that looks at the scores of an image while they are there.
pub trait StripVisitor {
    /// Takes the next rows; they come from top to bottom without a gap.
    ///
    /// # Errors
    /// What it takes could not be kept.
    fn visit(&mut self, strip: &ScoredStrip) -> io::Result<()>;
}
