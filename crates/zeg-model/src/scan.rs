//! Goes down a picture strip by strip, at the picture's own size.
//!
//! Windows are encoded when the first strip reaches them and dropped behind the last, so that memory follows the
//! picture's width and not its area. Scores of overlapping windows are averaged and interpolated bilinearly.

use std::{
    ops::{AddAssign, Range},
    time::{Duration, Instant},
};

use burn::tensor::{Device, Tensor};
use zeg_image::RgbImage;

use crate::{
    ModelError,
    dense::{ClassQueries, DenseModel},
    encoded::{EncodedPicture, EncodedWindow, Pixels},
    inference::Inference,
    scores::{ScoreField, Strip, WindowLogits},
    zegformer::{ZegFormer, view::RegionView},
};

/// What a [`Scan`] goes over.
pub enum Source<'a> {
    /// A picture; its windows are encoded on the way.
    Picture(&'a RgbImage, &'a Device),
    /// A picture that was encoded before.
    Encoded(&'a EncodedPicture),
}

/// Where the time of a picture went.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stages {
    /// Resizing, cutting and normalising windows.
    pub prepare: Duration,
    /// The encoder and the masks.
    pub model: Duration,
    /// From masks on the patch grid to scores of pixels at the picture's size.
    pub scores: Duration,
}

impl AddAssign for Stages {
    fn add_assign(&mut self, other: Self) {
        self.prepare += other.prepare;
        self.model += other.model;
        self.scores += other.scores;
    }
}

/// A picture that is being worked through from top to bottom.
pub struct Scan<'a> {
    model: &'a dyn DenseModel,
    queries: &'a ClassQueries,
    /// Height and width of the picture.
    size: [usize; 2],
    field: ScoreField,
    pixels: Option<Pixels<'a>>,
    /// Encoded windows that no strip has reached.
    ready: &'a [EncodedWindow],
    stages: Stages,
}

impl<'a> Scan<'a> {
    /// Starts at the top.
    ///
    /// # Errors
    /// The settings do not fit the picture.
    pub fn new(
        model: &'a dyn DenseModel,
        source: Source<'a>,
        queries: &'a ClassQueries,
        settings: &Inference,
    ) -> Result<Self, ModelError> {
        if let Some(two_stage) = model.two_stage() {
            return Self::of_regions(model, two_stage, source, queries, settings);
        }
        let (size, resized, pixels, ready) = match source {
            Source::Picture(picture, device) => {
                let pixels = Pixels::new(model, picture, settings, device)?;
                (pixels.size, pixels.resized, Some(pixels), [].as_slice())
            }
            Source::Encoded(picture) => (picture.size, picture.resized, None, &picture.windows[..]),
        };
        Ok(Self {
            model,
            queries,
            size,
            field: empty_field(model, queries, resized, settings),
            pixels,
            ready,
            stages: Stages::default(),
        })
    }

    /// Starts at the top of a picture that a model of two stages looks at as a whole.
    fn of_regions(
        model: &'a dyn DenseModel,
        two_stage: &ZegFormer,
        source: Source<'a>,
        queries: &'a ClassQueries,
        settings: &Inference,
    ) -> Result<Self, ModelError> {
        let looked;
        let (view, mut stages) = match &source {
            Source::Picture(picture, device) => {
                looked = RegionView::new(two_stage, picture, settings, Some(queries), device)?;
                (&looked, looked.stages())
            }
            Source::Encoded(picture) => {
                let view = picture.regions.as_deref();
                let view = view.ok_or_else(|| {
                    ModelError::Config("the picture was encoded by a model of one stage".into())
                })?;
                (view, Stages::default())
            }
        };
        let started = Instant::now();
        let field = view.field(two_stage, queries, settings)?;
        stages.model += started.elapsed();
        Ok(Self {
            model,
            queries,
            size: view.picture_size(),
            field,
            pixels: None,
            ready: &[],
            stages,
        })
    }

    /// The strips that keep memory small, top to bottom.
    pub fn strips(&self) -> Vec<Range<usize>> {
        self.field.strips(self.size).collect()
    }

    /// Scores of rows of the picture. Rows that lie above those asked for before may be gone.
    ///
    /// # Errors
    /// The device could not be read.
    pub fn strip(&mut self, rows: Range<usize>) -> Result<Strip, ModelError> {
        let needed = self.field.source_rows(&rows, self.size[0]);
        self.field.forget_above(needed.start);
        let last = needed.end.saturating_sub(1);
        let mut windows = match &mut self.pixels {
            Some(pixels) => pixels.encode_up_to(self.model, last),
            None => Vec::new(),
        };
        while let [first, rest @ ..] = self.ready
            && first.window.y <= last
        {
            windows.push(first.clone());
            self.ready = rest;
        }
        let started = Instant::now();
        for window in &windows {
            self.field.push(logits(self.model, window, self.queries)?);
        }
        let asked = Instant::now();
        let strip = self.field.strip(rows, self.size);
        self.stages.model += asked - started;
        self.stages.scores += asked.elapsed();
        Ok(strip)
    }

    /// Where the time went so far.
    pub fn stages(&self) -> Stages {
        let mut stages = self.stages;
        if let Some(pixels) = &self.pixels {
            stages += pixels.stages;
        }
        stages
    }
}

/// Shows every strip of a picture's scores, from top to bottom.
///
/// # Errors
/// The settings do not fit the picture, the device could not be read, or `visit` failed.
pub fn scan<E: From<ModelError>>(
    model: &dyn DenseModel,
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

/// A field that waits for the windows' logits.
pub(crate) fn empty_field(
    model: &dyn DenseModel,
    queries: &ClassQueries,
    size: [usize; 2],
    settings: &Inference,
) -> ScoreField {
    let offset = |&seen: &bool| if seen { settings.seen_offset } else { 0.0 };
    let offsets = queries.seen.iter().map(offset).collect();
    ScoreField::new(queries.seen.len(), size, model.scoring(), offsets)
}

pub(crate) fn logits(
    model: &dyn DenseModel,
    window: &EncodedWindow,
    queries: &ClassQueries,
) -> Result<WindowLogits, ModelError> {
    let masks = model.masks(window.encoded.clone(), queries.text.clone()); // [1, classes, h, w]
    let [_, _, h, w] = masks.dims();
    Ok(WindowLogits::new(
        window.window,
        host(masks)?,
        [h, w],
        window.padded,
    ))
}

fn host<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, ModelError> {
    tensor
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .map_err(|error| ModelError::Config(format!("{error:?}")))
}
