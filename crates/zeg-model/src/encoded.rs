//! The windows of a picture, and what the encoder makes of them.
//!
//! Windows are encoded when somebody reaches their first row, a few at a time, so that a picture of any size needs
//! the memory of its widest row of windows.

use std::{sync::Arc, time::Instant};

use burn::tensor::{Device, Tensor, TensorData};
use zeg_image::{RgbImage, Window, resize_bilinear};

use crate::{
    ModelError,
    inference::{Inference, PlannedView},
    method::{Encoding, Model, ViewBatch},
    scan::Stages,
};

/// Views of one size that are encoded together.
const BATCH: usize = 4;

/// An encoded view.
#[derive(Debug, Clone)]
pub(crate) struct EncodedView {
    pub(crate) view: PlannedView,
    pub(crate) encoding: Encoding,
}

/// An image as a model sees it; ask it about any classes with [`crate::scan::scan`].
#[derive(Debug, Clone)]
pub struct EncodedPicture {
    /// Height and width of the image.
    pub(crate) size: [usize; 2],
    /// Height and width that it was resized to.
    pub(crate) resized: [usize; 2],
    pub(crate) views: Vec<EncodedView>,
    /// The resized image, where the model looks at it again in a second pass.
    pub(crate) image: Option<Arc<RgbImage>>,
    stages: Stages,
}

impl EncodedPicture {
    /// Encodes all views of an image, which keeps about 2 MB a window of 512×512.
    ///
    /// # Errors
    /// The settings do not fit the image.
    pub fn new(
        model: &dyn Model,
        picture: &RgbImage,
        settings: &Inference,
        device: &Device,
    ) -> Result<Self, ModelError> {
        let mut source = Pixels::new(model, picture, settings, device)?;
        let views = source.encode_up_to(model, usize::MAX)?;
        Ok(Self {
            size: source.size,
            resized: source.resized,
            views,
            image: model.second_pass().map(|_| Arc::new(source.picture)),
            stages: source.stages,
        })
    }

    /// Where the time of encoding it went.
    pub fn stages(&self) -> Stages {
        self.stages
    }

    /// Height and width of the image.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }
}

/// An image whose views are encoded when they are needed.
pub(crate) struct Pixels<'a> {
    pub(crate) size: [usize; 2],
    pub(crate) resized: [usize; 2],
    /// The resized image.
    pub(crate) picture: RgbImage,
    plan: Vec<PlannedView>,
    next: usize,
    device: &'a Device,
    /// Time spent so far.
    pub(crate) stages: Stages,
}

impl<'a> Pixels<'a> {
    pub(crate) fn new(
        model: &dyn Model,
        picture: &RgbImage,
        settings: &Inference,
        device: &'a Device,
    ) -> Result<Self, ModelError> {
        settings.check()?;
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let (resized_width, resized_height) = settings.resized(width, height);
        let resized = [resized_height, resized_width];
        let plan = model.plan(resized, settings)?;
        let stride = model.stride();
        let misfit = |view: &&PlannedView| {
            let [height, width] = view.encoded_size(stride);
            !height.is_multiple_of(stride) || !width.is_multiple_of(stride)
        };
        if let Some(view) = plan.iter().find(misfit) {
            return Err(ModelError::Config(format!(
                "a view resized to {:?} pixels is no multiple of the stride, {stride}",
                view.encoded_size(stride)
            )));
        }
        let started = Instant::now();
        let picture = resize_bilinear(picture, resized_width, resized_height);
        let stages = Stages {
            prepare: started.elapsed(),
            ..Stages::default()
        };
        Ok(Self {
            size: [height, width],
            resized,
            picture,
            plan,
            next: 0,
            device,
            stages,
        })
    }

    /// Number of layers of views.
    pub(crate) fn layers(&self) -> usize {
        layers(self.plan.iter())
    }

    /// Encodes the views that start at or above a row and were not encoded yet.
    pub(crate) fn encode_up_to(
        &mut self,
        model: &dyn Model,
        row: usize,
    ) -> Result<Vec<EncodedView>, ModelError> {
        let stride = model.stride();
        let mut encoded = Vec::new();
        while let Some(first) = self.plan.get(self.next).copied() {
            let pixels = |view: &PlannedView| (view.window.width, view.window.height);
            let same = |view: &&PlannedView| {
                view.window.y <= row
                    && view.encoded_size(stride) == first.encoded_size(stride)
                    && pixels(view) == pixels(&first)
            };
            let count = self.plan[self.next..]
                .iter()
                .take(BATCH)
                .take_while(same)
                .count();
            if count == 0 {
                break;
            }
            let views = self.plan[self.next..self.next + count].to_vec();
            encoded.extend(self.encode(model, &views)?);
            self.next += count;
        }
        Ok(encoded)
    }

    /// Encodes views of one size. A view that is no multiple of the stride is padded at the right and at the bottom with
    /// zeros, after normalisation.
    fn encode(
        &mut self,
        model: &dyn Model,
        views: &[PlannedView],
    ) -> Result<Vec<EncodedView>, ModelError> {
        let started = Instant::now();
        let facts = model.facts();
        let Some([height, width]) = views.first().map(|view| view.encoded_size(facts.stride))
        else {
            return Ok(Vec::new());
        };
        let mut pixels = Vec::with_capacity(views.len());
        let mut values = Vec::with_capacity(views.len() * 3 * height * width);
        for view in views {
            let mut part = crop(&self.picture, &view.window);
            if let Some([height, width]) = view.resized {
                part = resize_bilinear(&part, width, height);
            }
            values.extend(facts.normalization.to_chw_padded(&part, width, height));
            pixels.push(part);
        }
        let shape = [views.len(), 3, height, width];
        let batch = ViewBatch {
            images: Tensor::from_data(TensorData::new(values, shape), self.device),
            pixels: &pixels,
        };
        let prepared = Instant::now();
        let encodings = model.encode(&batch)?;
        self.stages.prepare += prepared - started;
        self.stages.model += prepared.elapsed();
        let encoded = views.iter().zip(encodings);
        Ok(encoded
            .map(|(&view, encoding)| EncodedView { view, encoding })
            .collect())
    }
}

/// Number of layers of some views, at least 1.
pub(crate) fn layers<'a>(views: impl Iterator<Item = &'a PlannedView>) -> usize {
    1 + views.map(|view| view.layer).max().unwrap_or(0)
}

/// A window's pixels.
fn crop(picture: &RgbImage, window: &Window) -> RgbImage {
    let line = picture.width() as usize * 3;
    let bytes = picture
        .as_raw()
        .chunks_exact(line.max(1))
        .skip(window.y)
        .take(window.height)
        .flat_map(|row| &row[window.x * 3..(window.x + window.width) * 3])
        .copied()
        .collect();
    RgbImage::from_raw(window.width as u32, window.height as u32, bytes).unwrap_or_default()
}
