//! Passes over the scores of an image once, a strip of rows at a time, averaged over test-time augmentation.

use std::{io, ops::Range};

use rayon::prelude::*;
use zeg_model::{
    ModelError,
    inference::{Inference, Scan, Source, Stages},
    method::Model,
    scores::Strip,
    stop::StopSign,
};

use super::Question;

/// One input of test-time augmentation: the image at one scale, mirrored or not.
#[derive(Debug, Clone)]
pub(super) struct TestTimeInput<T> {
    pub(super) mirrored: bool,
    pub(super) content: T,
    /// Inference settings at this scale.
    pub(super) inference: Inference,
}

/// The score fields that are averaged, each with whether it is mirrored.
pub(super) struct Pass<'a> {
    scans: Vec<(bool, Scan<'a>)>,
}

impl<'a> Pass<'a> {
    /// Starts at the top of the image.
    ///
    /// If the question names seen offsets, scores are calibrated afterwards, once per offset.
    pub(super) fn new<'l, T: 'l>(
        inputs: impl Iterator<Item = (&'l TestTimeInput<T>, Source<'a>)>,
        model: &'a dyn Model,
        question: &Question<'a>,
        stop: StopSign<'a>,
    ) -> Result<Self, ModelError> {
        let scans = inputs.map(|(input, source)| {
            let mut inference = input.inference.clone();
            if !question.seen_offsets.is_empty() {
                inference.seen_offset = 0.0;
            }
            let scan = Scan::unless_stopped(model, source, question.classes, &inference, stop)?;
            Ok((input.mirrored, scan))
        });
        Ok(Self {
            scans: scans.collect::<Result<_, ModelError>>()?,
        })
    }

    /// Returns the strips of rows, top to bottom: the thinnest that any scale needs to keep memory small.
    pub(super) fn strips(&self) -> Vec<Range<usize>> {
        let strips = self.scans.iter().map(|(_, scan)| scan.strips());
        strips.max_by_key(Vec::len).unwrap_or_default()
    }

    /// Returns the bytes that the scores of the largest strip need at least, while they are computed and afterwards.
    ///
    /// - `copies`: number of copies of the strip beside it afterwards
    pub(super) fn strip_bytes(&self, copies: u64) -> u64 {
        let rows = self.strips().iter().map(ExactSizeIterator::len).max();
        let of_scan = |(_, scan): &(bool, Scan)| {
            let [strip, source] = scan.bytes_of_rows(rows.unwrap_or(0));
            let computing = strip.saturating_add(source);
            computing.max(strip.saturating_mul(1 + copies))
        };
        self.scans.iter().map(of_scan).max().unwrap_or(0)
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
                "test-time scales: the list is empty; give at least one".into(),
            ));
        };
        mean.divide(self.scans.len());
        Ok(mean)
    }

    /// Returns the times of the stages so far.
    pub(super) fn stages(&self) -> Stages {
        let mut stages = Stages::default();
        for (_, scan) in &self.scans {
            stages += scan.stages();
        }
        stages
    }
}

/// A strip of rows of an image with their labels and the scores of all classes.
#[derive(Debug)]
pub struct ScoredStrip<'a> {
    /// Number of the first row in the image.
    pub first_row: usize,
    /// Number of classes.
    pub classes: usize,
    /// Number of columns.
    pub width: usize,
    /// Class indices, `[rows, width]`; [`zeg_image::IGNORE_LABEL`] where no class reaches its threshold.
    pub labels: &'a [u16],
    /// Scores from 0 to 1, `[rows, classes, width]`.
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

    /// Returns the rows from top to bottom: labels `[width]` and scores `[classes, width]` of each.
    pub fn rows(&self) -> impl Iterator<Item = (&[u16], &[f32])> {
        let scores = self.scores.chunks_exact((self.classes * self.width).max(1));
        self.labels.chunks_exact(self.width.max(1)).zip(scores)
    }
}

/// A receiver of the scores of an image while they are computed.
pub trait StripVisitor {
    /// Receives the next rows; they come from top to bottom without a gap.
    ///
    /// # Errors
    /// Returns an error if the visitor cannot store what it needs.
    fn visit(&mut self, strip: &ScoredStrip) -> io::Result<()>;
}
