//! Runs windows through the model: encodes them, then scores any classes.

use burn::tensor::Tensor;
use zeg_image::Window;

use super::{CatSeg, ImageFeatures, Tuning, config::STRIDE};
use crate::{
    ModelError,
    classes::{ClassNeeds, ClassQueries},
    inference::{Inference, InferenceMode, PlannedWindow, StretchedPart},
    method::{ModelFacts, Resampling, Scoring, SegmentationModel, WindowBatch},
    scores::WindowScores,
    text::TextTower,
    trace::Trace,
};

/// Class aggregation averages no positions in inference, as in the published evaluation.
const POOLING: [usize; 2] = [1, 1];

impl SegmentationModel for CatSeg {
    type Encoding = ImageFeatures;

    /// Uses CLIP's statistics; those of ImageNet in the released configuration have no effect.
    fn facts(&self) -> ModelFacts {
        ModelFacts {
            stride: STRIDE,
            embed_dim: self.config.encoder.embed_dim,
            normalization: self.config.statistics.normalization(),
            scoring: Scoring::Sigmoid,
        }
    }

    /// Plans four windows on a square canvas and the whole image, or with [`InferenceMode::Whole`] the image alone.
    ///
    /// A window is stretched to CLIP's input after it is padded, so a padded one would shift all of its scores. The image
    /// alone may be padded, as in the release.
    fn plan(
        &self,
        size: [usize; 2],
        settings: &Inference,
    ) -> Result<Vec<PlannedWindow>, ModelError> {
        let canvas = SegmentationModel::canvas(self, size, settings);
        let at = |window: Window, image: [usize; 2], part: Window| PlannedWindow {
            input: Some(StretchedPart { image, part }),
            ..PlannedWindow::from(window)
        };
        let all = |[height, width]: [usize; 2]| Window {
            x: 0,
            y: 0,
            width,
            height,
        };
        if settings.mode == InferenceMode::Whole {
            return Ok(vec![at(all(canvas), size, all(size))]);
        }
        let Inference { crop, stride, .. } = *settings;
        if !crop.is_multiple_of(STRIDE) {
            return Err(ModelError::WindowSide {
                crop,
                multiple: STRIDE,
            });
        }
        let window = |y: usize, x: usize| {
            let window = Window {
                x,
                y,
                width: crop,
                height: crop,
            };
            at(window, canvas, window)
        };
        let whole = PlannedWindow {
            layer: 1,
            scored_at: Some([crop, crop]),
            ..at(all(canvas), [crop, crop], all([crop, crop]))
        };
        // From top to bottom.
        Ok(vec![
            window(0, 0),
            window(0, stride),
            whole,
            window(stride, 0),
            window(stride, stride),
        ])
    }

    /// Returns a square of two overlapping windows a side, to which images are stretched; of the image alone, the grid of
    /// its logits.
    fn canvas(&self, size: [usize; 2], settings: &Inference) -> [usize; 2] {
        let _ = size;
        match settings.mode {
            InferenceMode::Slide => [settings.crop + settings.stride; 2],
            InferenceMode::Whole => self.config.grid().map(|side| 4 * side),
        }
    }

    fn resampling(&self) -> Resampling {
        Resampling::Antialiased
    }

    fn rescales(&self) -> bool {
        false
    }

    fn encode(&self, windows: &WindowBatch) -> Result<Vec<ImageFeatures>, ModelError> {
        let [count, _, _, _] = windows.images.dims();
        let features = self.features(windows.images.clone(), &mut Trace::off());
        Ok((0..count).map(|index| features.image(index)).collect())
    }

    fn score(
        &self,
        encoding: &ImageFeatures,
        classes: &ClassQueries,
    ) -> Result<WindowScores, ModelError> {
        let text: Tensor<2> = classes.text.clone();
        let logits = self.decode(encoding, text, POOLING, &mut Trace::off())?; // [1, classes, 4·h, 4·w]
        Ok(WindowScores::Logits(logits))
    }

    fn encoding_bytes(&self, encoding: &ImageFeatures) -> u64 {
        encoding.bytes()
    }

    /// A class is embedded by its first name alone, by a text tower of the model's own if it was fine-tuned.
    fn class_needs(&self) -> ClassNeeds {
        ClassNeeds {
            first_name_only: true,
            own_text_tower: self.config.tuning != Tuning::None,
            ..ClassNeeds::default()
        }
    }

    fn text_tower(&self) -> Option<&TextTower> {
        self.text_encoder.as_ref()
    }
}
