//! The windows of a picture, and what the encoder makes of them.
//!
//! Windows are encoded when somebody reaches their first row, a few at a time, so that a picture of any size needs
//! the memory of its widest row of windows.

use std::time::Instant;

use burn::tensor::{Device, Tensor, TensorData};
use zeg_image::{RgbImage, Window, resize_bilinear};

use crate::{
    ModelError, dense::DenseModel, inference::Inference, scan::Stages, vision::Encoded,
    zegformer::view::RegionView,
};

/// Windows of one size that are encoded together.
const BATCH: usize = 4;

/// An encoded window.
#[derive(Debug, Clone)]
pub(crate) struct EncodedWindow {
    pub(crate) window: Window,
    /// Height and width with padding, multiples of the patch.
    pub(crate) padded: [usize; 2],
    pub(crate) encoded: Encoded,
}

/// A picture as an encoder sees it; ask it about any classes with [`scan`].
#[derive(Debug, Clone)]
pub struct EncodedPicture {
    /// Height and width of the picture.
    pub(crate) size: [usize; 2],
    /// Height and width that it was resized to.
    pub(crate) resized: [usize; 2],
    pub(crate) windows: Vec<EncodedWindow>,
    /// What a model of two stages keeps instead of windows.
    pub(crate) regions: Option<Box<RegionView>>,
    stages: Stages,
}

impl EncodedPicture {
    /// Encodes all windows of a picture, which keeps about 2 MB a window of 512×512; with a model of two stages, the
    /// picture as a whole and every region.
    ///
    /// # Errors
    /// The settings do not fit the picture.
    pub fn new(
        model: &dyn DenseModel,
        picture: &RgbImage,
        settings: &Inference,
        device: &Device,
    ) -> Result<Self, ModelError> {
        if let Some(two_stage) = model.two_stage() {
            let view = RegionView::new(two_stage, picture, settings, None, device)?;
            return Ok(Self {
                size: view.picture_size(),
                resized: view.resized(),
                windows: Vec::new(),
                stages: view.stages(),
                regions: Some(Box::new(view)),
            });
        }
        let mut source = Pixels::new(model, picture, settings, device)?;
        let windows = source.encode_up_to(model, usize::MAX);
        Ok(Self {
            size: source.size,
            resized: source.resized,
            windows,
            regions: None,
            stages: source.stages,
        })
    }

    /// Where the time of encoding it went.
    pub fn stages(&self) -> Stages {
        self.stages
    }

    /// Height and width of the picture.
    pub fn size(&self) -> [usize; 2] {
        self.size
    }
}

/// A picture whose windows are encoded when they are needed.
pub(crate) struct Pixels<'a> {
    pub(crate) size: [usize; 2],
    pub(crate) resized: [usize; 2],
    picture: RgbImage,
    plan: Vec<Window>,
    next: usize,
    device: &'a Device,
    /// Time spent so far.
    pub(crate) stages: Stages,
}

impl<'a> Pixels<'a> {
    pub(crate) fn new(
        model: &dyn DenseModel,
        picture: &RgbImage,
        settings: &Inference,
        device: &'a Device,
    ) -> Result<Self, ModelError> {
        settings.check()?;
        let (width, height) = (picture.width() as usize, picture.height() as usize);
        let (resized_width, resized_height) = settings.resized(width, height);
        let resized = [resized_height, resized_width];
        let plan = settings.windows(resized, model.patch())?;
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

    /// Encodes the windows that start at or above a row and were not encoded yet.
    pub(crate) fn encode_up_to(
        &mut self,
        model: &dyn DenseModel,
        row: usize,
    ) -> Vec<EncodedWindow> {
        let mut encoded = Vec::new();
        while let Some(first) = self.plan.get(self.next).copied() {
            let same =
                |w: &&Window| w.y <= row && (w.width, w.height) == (first.width, first.height);
            let count = self.plan[self.next..]
                .iter()
                .take(BATCH)
                .take_while(same)
                .count();
            if count == 0 {
                break;
            }
            let windows = self.plan[self.next..self.next + count].to_vec();
            encoded.extend(self.encode(model, &windows));
            self.next += count;
        }
        encoded
    }

    /// Encodes windows of one size. A window that is no multiple of the patch is padded at the right and at the
    /// bottom with zeros, after normalisation.
    fn encode(&mut self, model: &dyn DenseModel, windows: &[Window]) -> Vec<EncodedWindow> {
        let started = Instant::now();
        let (patch, normalization) = (model.patch(), model.normalization());
        let Some(Window { width, height, .. }) = windows.first().copied() else {
            return Vec::new();
        };
        let padded = [
            height.next_multiple_of(patch),
            width.next_multiple_of(patch),
        ];
        let mut values = Vec::with_capacity(windows.len() * 3 * padded[0] * padded[1]);
        for window in windows {
            let crop = crop(&self.picture, window);
            values.extend(normalization.to_chw_padded(&crop, padded[1], padded[0]));
        }
        let shape = [windows.len(), 3, padded[0], padded[1]];
        let images = Tensor::from_data(TensorData::new(values, shape), self.device);
        let prepared = Instant::now();
        let encoded = model.encode(images);
        self.stages.prepare += prepared - started;
        self.stages.model += prepared.elapsed();
        windows
            .iter()
            .enumerate()
            .map(|(index, &window)| EncodedWindow {
                window,
                padded,
                encoded: encoded.picture(index),
            })
            .collect()
    }
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
