//! Computes the scores of an image strip by strip, from top to bottom, at the image's own size.
//!
//! A window is encoded when a strip first needs it and dropped once no later strip does, so memory grows with the
//! image's width and not with its area. Scores of overlapping windows are averaged and interpolated bilinearly.

use std::{
    ops::{AddAssign, Range},
    time::{Duration, Instant},
};

use burn::tensor::Device;
use zeg_image::RgbImage;

use crate::{
    ModelError,
    classes::ClassQueries,
    encoded::{EncodedWindow, EncodedWindows, Pixels, layers},
    inference::Inference,
    method::Model,
    score_map::ScoreMap,
    scores::{ScoreField, Strip},
    stop::StopSign,
};

/// The input of a [`Scan`].
pub enum Source<'a> {
    /// An image; its windows are encoded during the scan.
    Image(&'a RgbImage, &'a Device),
    /// An image whose windows are already encoded.
    Encoded(&'a EncodedWindows),
}

/// The time spent on an image, by stage.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// Time for resizing, cutting and normalising windows.
    pub prepare: Duration,
    /// Time for the encoder and the masks.
    pub model: Duration,
    /// Time for interpolating masks on the patch grid to pixel scores at the image's size.
    pub scores: Duration,
}

impl AddAssign for Stages {
    fn add_assign(&mut self, other: Self) {
        self.prepare += other.prepare;
        self.model += other.model;
        self.scores += other.scores;
    }
}

/// A scan over an image, from top to bottom.
pub struct Scan<'a> {
    model: &'a dyn Model,
    queries: &'a ClassQueries,
    /// Height and width of the image.
    size: [usize; 2],
    field: ScoreField,
    pixels: Option<Pixels<'a>>,
    /// Encoded windows that no strip has used yet.
    ready: &'a [EncodedWindow],
    stop: StopSign<'a>,
    stages: Stages,
}

impl<'a> Scan<'a> {
    /// Starts a scan at the top of the image.
    ///
    /// A model with a second pass, or settings that refine scores, encode and score all windows here; the scores of the whole image are then held in
    /// memory.
    ///
    /// # Errors
    /// Returns an error if the settings do not suit the image size, or the device cannot be read.
    pub fn new(
        model: &'a dyn Model,
        source: Source<'a>,
        queries: &'a ClassQueries,
        settings: &Inference,
    ) -> Result<Self, ModelError> {
        Self::unless_stopped(model, source, queries, settings, StopSign::default())
    }

    /// Starts a scan as [`Scan::new`] does, which ends with an error when a stop is requested: here, or in a later
    /// [`Scan::strip`].
    ///
    /// # Errors
    /// Returns the errors of [`Scan::new`], and [`ModelError::Stopped`].
    pub fn unless_stopped(
        model: &'a dyn Model,
        source: Source<'a>,
        queries: &'a ClassQueries,
        settings: &Inference,
        stop: StopSign<'a>,
    ) -> Result<Self, ModelError> {
        let mut image = None;
        let (size, canvas, pixels, ready) = match source {
            Source::Image(input, device) => {
                let pixels = Pixels::new(model, input, settings, device, stop)?;
                (pixels.size, pixels.canvas, Some(pixels), [].as_slice())
            }
            Source::Encoded(input) => {
                image = input.image.as_deref();
                (input.size, input.canvas, None, &input.windows[..])
            }
        };
        let layers = match &pixels {
            Some(pixels) => pixels.layers(),
            None => layers(ready.iter().map(|encoded| &encoded.planned)),
        };
        let mut scan = Self {
            model,
            queries,
            size,
            field: empty_field(model, queries, canvas, settings).with_layers(layers),
            pixels,
            ready,
            stop,
            stages: Stages::default(),
        };
        let second = model.second_pass();
        if second.is_some() || !settings.refine.is_none() {
            scan.score_up_to(usize::MAX)?;
            let started = Instant::now();
            let offsets = scan.field.take_offsets();
            let resized_image = scan.pixels.as_ref().map(|pixels| &pixels.image);
            let image = resized_image.or(image).ok_or_else(|| {
                ModelError::Config(
                    "the image was encoded without its pixels, which the second pass over its scores needs".into(),
                )
            })?;
            if let Some(second) = second {
                let first = ScoreMap::of_field(&scan.field);
                let refined = second.refine(first, image, queries)?;
                scan.field = refined.into_field(model.scoring(), Vec::new());
            }
            if !settings.refine.is_none() {
                let refined = settings.refine.apply(&scan.field, image, model.scoring())?;
                scan.field = refined.into_field(model.scoring(), Vec::new());
            }
            scan.field.set_offsets(offsets);
            scan.stages.model += started.elapsed();
        }
        Ok(scan)
    }

    /// Sets height and width that scores are computed at, instead of the image's own.
    #[must_use]
    pub fn at_size(mut self, size: [usize; 2]) -> Self {
        self.size = size;
        self
    }

    /// Returns the row ranges of the strips, from top to bottom; their height limits the memory used.
    pub fn strips(&self) -> Vec<Range<usize>> {
        self.field.strips(self.size).collect()
    }

    /// Returns the bytes of the scores of some rows.
    pub fn bytes_of_rows(&self, rows: usize) -> u64 {
        self.field.bytes_of_rows(rows, self.size[1])
    }

    /// Computes the scores of some rows of the image. Ask for rows from top to bottom: windows above the rows of
    /// earlier calls are dropped.
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub fn strip(&mut self, rows: Range<usize>) -> Result<Strip, ModelError> {
        let size = self.size;
        let field = self.field_of(&rows)?;
        let started = Instant::now();
        let strip = field.strip(rows, size);
        self.stages.scores += started.elapsed();
        Ok(strip)
    }

    /// Encodes and scores the windows that some rows of the image need, drops those above them, and returns the field.
    /// Ask for rows from top to bottom.
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub fn field_of(&mut self, rows: &Range<usize>) -> Result<&ScoreField, ModelError> {
        let needed = self.field.source_rows(rows, self.size[0]);
        self.field.forget_above(needed.start);
        self.score_up_to(needed.end.saturating_sub(1))?;
        Ok(&self.field)
    }

    /// Returns the field with the windows of the rows that were asked for last.
    pub fn field(&self) -> &ScoreField {
        &self.field
    }

    /// Returns height and width that scores are computed at.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Encodes and scores the windows that start at or above a row and are not scored yet.
    fn score_up_to(&mut self, row: usize) -> Result<(), ModelError> {
        let mut windows = match &mut self.pixels {
            Some(pixels) => pixels.encode_up_to(self.model, row)?,
            None => Vec::new(),
        };
        while let [first, rest @ ..] = self.ready
            && first.planned.window.y <= row
        {
            windows.push(first.clone());
            self.ready = rest;
        }
        let started = Instant::now();
        for encoded in &windows {
            self.stop.check()?;
            push_scores(&mut self.field, self.model, encoded, self.queries)?;
        }
        self.stages.model += started.elapsed();
        Ok(())
    }

    /// Returns the time spent so far, by stage.
    pub fn stages(&self) -> Stages {
        let mut stages = self.stages;
        if let Some(pixels) = &self.pixels {
            stages += pixels.stages;
        }
        stages
    }
}

/// Calls `visit` on every strip of an image's scores, from top to bottom.
///
/// # Errors
/// Returns an error if the settings do not suit the image size, the device cannot be read, or `visit` fails.
pub fn scan<E: From<ModelError>>(
    model: &dyn Model,
    source: Source,
    queries: &ClassQueries,
    settings: &Inference,
    mut visit: impl FnMut(&Strip) -> Result<(), E>,
) -> Result<(), E> {
    let mut scan = Scan::new(model, source, queries, settings)?;
    for rows in scan.strips() {
        visit(&scan.strip(rows)?)?;
    }
    Ok(())
}

/// Returns a score field without windows, calibrated for the seen classes.
pub(crate) fn empty_field(
    model: &dyn Model,
    queries: &ClassQueries,
    size: [usize; 2],
    settings: &Inference,
) -> ScoreField {
    let offset = |&seen: &bool| if seen { settings.seen_offset } else { 0.0 };
    let offsets = queries.seen.iter().map(offset).collect();
    ScoreField::new(queries.len(), size, model.scoring(), offsets)
}

/// Scores an encoded window and adds the scores to a field.
pub(crate) fn push_scores(
    field: &mut ScoreField,
    model: &dyn Model,
    encoded: &EncodedWindow,
    queries: &ClassQueries,
) -> Result<(), ModelError> {
    let scores = model.score(&encoded.encoding, queries)?;
    let covered = encoded.planned.covered_size(model.stride());
    field.push_window(&encoded.planned, scores, covered)
}
