//! The windows of an image and their encodings.
//!
//! Windows are encoded a few at a time, when their first row is needed, so an image of any size needs only the memory
//! of its widest row of windows.

use std::{sync::Arc, time::Instant};

use burn::tensor::{Device, Tensor, TensorData};
use zeg_image::{RgbImage, Window, normalize::Normalization, resize_bilinear};

use crate::{
    ModelError,
    inference::{Inference, PlannedWindow, StretchedPart},
    method::{Encoding, Model, WindowBatch},
    resize::taps,
    scan::Stages,
    stop::StopSign,
};

/// Number of windows of one size that are encoded together.
const BATCH: usize = 4;

/// A window with its encoding.
#[derive(Debug, Clone)]
pub(crate) struct EncodedWindow {
    pub(crate) planned: PlannedWindow,
    pub(crate) encoding: Encoding,
}

/// An image whose windows are all encoded; [`crate::scan::scan`] scores any classes on it.
#[derive(Debug, Clone)]
pub struct EncodedWindows {
    /// Height and width of the image.
    pub(crate) size: [usize; 2],
    /// Height and width of the canvas that the windows are placed on.
    pub(crate) canvas: [usize; 2],
    pub(crate) windows: Vec<EncodedWindow>,
    /// The resized image, if the model needs it in a second pass, or scores are refined by it.
    pub(crate) image: Option<Arc<RgbImage>>,
    stages: Stages,
}

impl EncodedWindows {
    /// Encodes all windows of an image; the result takes about 2 MB for a window of 512×512.
    ///
    /// # Errors
    /// Returns an error if the settings do not suit the image size.
    pub fn new(
        model: &dyn Model,
        image: &RgbImage,
        settings: &Inference,
        device: &Device,
    ) -> Result<Self, ModelError> {
        Self::unless_stopped(model, image, settings, device, StopSign::default())
    }

    /// Encodes all windows of an image as [`EncodedWindows::new`] does, unless a stop is requested meanwhile.
    ///
    /// # Errors
    /// Returns the errors of [`EncodedWindows::new`], and [`ModelError::Stopped`].
    pub fn unless_stopped(
        model: &dyn Model,
        image: &RgbImage,
        settings: &Inference,
        device: &Device,
        stop: StopSign<'_>,
    ) -> Result<Self, ModelError> {
        let mut source = Pixels::new(model, image, settings, device, stop)?;
        let windows = source.encode_up_to(model, usize::MAX)?;
        let keeps_image = model.second_pass().is_some() || !settings.refine.is_none();
        Ok(Self {
            size: source.size,
            canvas: source.canvas,
            windows,
            image: keeps_image.then(|| Arc::new(source.image)),
            stages: source.stages,
        })
    }

    /// Returns the time spent on encoding, by stage.
    pub fn stages(&self) -> Stages {
        self.stages
    }

    /// Returns height and width of the image.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }

    /// Returns the memory that the encodings of all windows take, in bytes.
    ///
    /// - `model`: the model that made them
    ///
    /// # Errors
    /// Returns an error if a model of another method made them.
    pub fn bytes(&self, model: &dyn Model) -> Result<u64, ModelError> {
        let image = self.image.as_ref().map_or(0, |image| image.as_raw().len());
        self.windows.iter().try_fold(image as u64, |sum, window| {
            let own = size_of::<EncodedWindow>() as u64;
            Ok(sum + own + model.encoding_bytes(&window.encoding)?)
        })
    }
}

/// An image whose windows are encoded on demand.
pub(crate) struct Pixels<'a> {
    pub(crate) size: [usize; 2],
    /// Height and width of the canvas that the windows are placed on.
    pub(crate) canvas: [usize; 2],
    /// The resized image.
    pub(crate) image: RgbImage,
    plan: Vec<PlannedWindow>,
    next: usize,
    device: &'a Device,
    stop: StopSign<'a>,
    /// Time spent so far.
    pub(crate) stages: Stages,
}

impl<'a> Pixels<'a> {
    pub(crate) fn new(
        model: &dyn Model,
        image: &RgbImage,
        settings: &Inference,
        device: &'a Device,
        stop: StopSign<'a>,
    ) -> Result<Self, ModelError> {
        settings.check()?;
        let (width, height) = (image.width() as usize, image.height() as usize);
        settings.check_resized(width, height)?;
        let (resized_width, resized_height) = settings.resized(width, height);
        let resized = [resized_height, resized_width];
        let plan = model.plan(resized, settings)?;
        let stride = model.stride();
        settings.check_windows(&plan, stride)?;
        let is_not_multiple = |planned: &&PlannedWindow| {
            let [height, width] = planned.encoded_size(stride);
            !height.is_multiple_of(stride) || !width.is_multiple_of(stride)
        };
        if let Some(planned) = plan.iter().find(is_not_multiple) {
            return Err(ModelError::Config(format!(
                "window size {:?} pixels is not a multiple of the model's stride, {stride}",
                planned.encoded_size(stride)
            )));
        }
        let started = Instant::now();
        let image = model
            .resampling()
            .resize(image, resized_width, resized_height);
        let stages = Stages {
            prepare: started.elapsed(),
            ..Stages::default()
        };
        Ok(Self {
            size: [height, width],
            canvas: model.canvas(resized, settings),
            image,
            plan,
            next: 0,
            device,
            stop,
            stages,
        })
    }

    /// Returns the number of layers of windows.
    pub(crate) fn layers(&self) -> usize {
        layers(self.plan.iter())
    }

    /// Encodes the windows that start at or above a row and are not encoded yet.
    pub(crate) fn encode_up_to(
        &mut self,
        model: &dyn Model,
        row: usize,
    ) -> Result<Vec<EncodedWindow>, ModelError> {
        let stride = model.stride();
        let mut encoded = Vec::new();
        while let Some(first) = self.plan.get(self.next).copied() {
            let pixels = |planned: &PlannedWindow| (planned.window.width, planned.window.height);
            let same = |planned: &&PlannedWindow| {
                planned.window.y <= row
                    && planned.encoded_size(stride) == first.encoded_size(stride)
                    && pixels(planned) == pixels(&first)
                    && planned.input.is_some() == first.input.is_some()
            };
            let count = self.plan[self.next..]
                .iter()
                .take(BATCH)
                .take_while(same)
                .count();
            if count == 0 {
                break;
            }
            self.stop.check()?;
            let windows = self.plan[self.next..self.next + count].to_vec();
            encoded.extend(self.encode(model, &windows)?);
            self.next += count;
        }
        Ok(encoded)
    }

    /// Encodes windows of one size. A window whose sides are not multiples of the stride is padded with zeros at the
    /// right and at the bottom, after normalisation.
    fn encode(
        &mut self,
        model: &dyn Model,
        windows: &[PlannedWindow],
    ) -> Result<Vec<EncodedWindow>, ModelError> {
        let started = Instant::now();
        let facts = model.facts();
        let Some([height, width]) = windows
            .first()
            .map(|planned| planned.encoded_size(facts.stride))
        else {
            return Ok(Vec::new());
        };
        let mut pixels = Vec::with_capacity(windows.len());
        let mut values = Vec::with_capacity(windows.len() * 3 * height * width);
        for planned in windows {
            if let Some(input) = &planned.input {
                values.extend(stretched(
                    &self.image,
                    input,
                    &facts.normalization,
                    [height, width],
                ));
                continue;
            }
            let mut part = crop(&self.image, &planned.window);
            if let Some([height, width]) = planned.resized {
                part = resize_bilinear(&part, width, height);
            }
            values.extend(facts.normalization.to_chw_padded(&part, width, height));
            pixels.push(part);
        }
        let shape = [windows.len(), 3, height, width];
        let batch = WindowBatch {
            images: Tensor::from_data(TensorData::new(values, shape), self.device),
            pixels: &pixels,
        };
        let prepared = Instant::now();
        let encodings = model.encode(&batch)?;
        self.stages.prepare += prepared - started;
        self.stages.model += prepared.elapsed();
        let encoded = windows.iter().zip(encodings);
        Ok(encoded
            .map(|(&planned, encoding)| EncodedWindow { planned, encoding })
            .collect())
    }
}

/// Returns the number of layers of some windows, at least 1.
pub(crate) fn layers<'a>(windows: impl Iterator<Item = &'a PlannedWindow>) -> usize {
    1 + windows.map(|planned| planned.layer).max().unwrap_or(0)
}

/// Interpolates a part of a stretched image, normalises it, and pads it with zeros at the right and at the bottom:
/// `[3, height, width]`.
///
/// - `padded`: height and width with padding
pub fn stretched(
    image: &RgbImage,
    input: &StretchedPart,
    normalization: &Normalization,
    [padded_height, padded_width]: [usize; 2],
) -> Vec<f32> {
    let StretchedPart { image: size, part } = input;
    let (height, width) = (image.height() as usize, image.width() as usize);
    let mut values = vec![0.0_f32; 3 * padded_height * padded_width];
    if height == 0 || width == 0 || size.contains(&0) {
        return values;
    }
    let (rows, columns) = (taps(height, size[0]), taps(width, size[1]));
    let rows = rows
        .iter()
        .skip(part.y)
        .take(part.height.min(padded_height));
    let columns: Vec<_> = columns
        .iter()
        .skip(part.x)
        .take(part.width.min(padded_width))
        .collect();
    let pixels = image.as_raw();
    for (y, &(top, bottom, down)) in rows.enumerate() {
        for (x, &&(left, right, across)) in columns.iter().enumerate() {
            for channel in 0..3 {
                let at = |y: usize, x: usize| f32::from(pixels[(y * width + x) * 3 + channel]);
                let upper = at(top, left) * (1.0 - across) + at(top, right) * across;
                let lower = at(bottom, left) * (1.0 - across) + at(bottom, right) * across;
                let value = upper * (1.0 - down) + lower * down;
                values[(channel * padded_height + y) * padded_width + x] =
                    (value - normalization.mean[channel]) / normalization.std[channel];
            }
        }
    }
    values
}

/// Cuts a window out of an image.
fn crop(image: &RgbImage, window: &Window) -> RgbImage {
    let line = image.width() as usize * 3;
    let bytes = image
        .as_raw()
        .chunks_exact(line.max(1))
        .skip(window.y)
        .take(window.height)
        .flat_map(|row| &row[window.x * 3..(window.x + window.width) * 3])
        .copied()
        .collect();
    RgbImage::from_raw(window.width as u32, window.height as u32, bytes).unwrap_or_default()
}
