//! Passes over the scores of an image once, a strip of rows at a time, averaged over test-time augmentation.

use std::{
    io,
    ops::Range,
    time::{Duration, Instant},
};

use zeg_model::{
    ModelError,
    inference::{Inference, Scan, Source, Stages},
    method::Model,
    scores::{MOST_ROWS, MeanScores},
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
    /// Time spent on scores at the image's size.
    scores: Duration,
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
            scores: Duration::ZERO,
        })
    }

    /// Returns the strips of rows, top to bottom, for a reader of all scores: the thinnest that any scale needs to keep
    /// memory small.
    pub(super) fn strips(&self) -> Vec<Range<usize>> {
        let strips = self.scans.iter().map(|(_, scan)| scan.strips());
        strips.max_by_key(Vec::len).unwrap_or_default()
    }

    /// Returns the strips of rows, top to bottom, for labels, which need no memory for scores.
    pub(super) fn label_strips(&self) -> Vec<Range<usize>> {
        let rows = self.scans.first().map_or(0, |(_, scan)| scan.size()[0]);
        let strips = (0..rows).step_by(MOST_ROWS);
        strips
            .map(|first| first..(first + MOST_ROWS).min(rows))
            .collect()
    }

    /// Returns the bytes that the scores of the largest strip need.
    pub(super) fn strip_bytes(&self) -> u64 {
        let rows = self.strips().iter().map(ExactSizeIterator::len).max();
        let of_scan = |(_, scan): &(bool, Scan)| scan.bytes_of_rows(rows.unwrap_or(0));
        self.scans.iter().map(of_scan).max().unwrap_or(0)
    }

    /// Passes the mean of the scores to `read`, once all windows that some rows need are scored.
    pub(super) fn read<T>(
        &mut self,
        rows: &Range<usize>,
        read: impl FnOnce(&MeanScores) -> T,
    ) -> Result<T, ModelError> {
        for (_, scan) in &mut self.scans {
            scan.field_of(rows)?;
        }
        let started = Instant::now();
        let fields: Vec<_> = self
            .scans
            .iter()
            .map(|(mirrored, scan)| (*mirrored, scan.field()))
            .collect();
        let Some((_, first)) = self.scans.first() else {
            return Err(ModelError::Config(
                "test-time scales: the list is empty; give at least one".into(),
            ));
        };
        let result = read(&MeanScores::new(&fields, first.size()));
        self.scores += started.elapsed();
        Ok(result)
    }

    /// Returns the times of the stages so far.
    pub(super) fn stages(&self) -> Stages {
        let mut stages = Stages {
            scores: self.scores,
            ..Stages::default()
        };
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

impl ScoredStrip<'_> {
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
