//! Runs one image through both stages: encodes regions and their crops, then scores any classes.

use burn::tensor::Tensor;
use zeg_image::{RgbImage, normalize::Normalization};

use super::{
    Regions, ZegFormer, ZegFormerOptions,
    config::STRIDE,
    crops::ClipImage,
    fusion::{ClassLogits, Fusion},
};
use crate::{
    ModelError,
    classes::{ClassNeeds, ClassQueries},
    inference::{Inference, PlannedWindow},
    method::{ModelFacts, Scoring, SegmentationModel, WindowBatch},
    scores::{QueryMasks, WindowScores, host},
    section::Section,
    trace::Trace,
};

/// The output of both stages for one image, independent of the classes.
#[derive(Debug, Clone)]
pub struct RegionEncoding {
    /// Queries' own vectors: `[1, queries, dim]`
    vectors: Tensor<3>,
    masks: QueryMasks,
    /// CLIP's vectors of the queries' crops, `[queries, dim]`; `None` if CLIP is not used.
    crops: Option<Vec<f32>>,
}

impl SegmentationModel for ZegFormer {
    type Encoding = RegionEncoding;

    fn facts(&self) -> ModelFacts {
        ModelFacts {
            stride: STRIDE,
            embed_dim: self.config.embed_dim,
            normalization: Normalization::IMAGENET,
            scoring: Scoring::MaskSum,
        }
    }

    /// Plans the whole image as one window, regardless of the settings: the first stage is convolutional.
    fn plan(
        &self,
        size: [usize; 2],
        settings: &Inference,
    ) -> Result<Vec<PlannedWindow>, ModelError> {
        let _ = settings;
        Ok(vec![PlannedWindow::whole(size)])
    }

    fn encode(&self, windows: &WindowBatch) -> Result<Vec<RegionEncoding>, ModelError> {
        let [count, _, height, width] = windows.images.dims();
        let mut encodings = Vec::with_capacity(count);
        for index in 0..count {
            let image = windows.images.clone().narrow(0, index, 1);
            let Regions { vectors, masks } = self.regions(image, &mut Trace::off());
            let [_, queries, h, w] = masks.dims();
            let masks = QueryMasks {
                values: host(masks)?,
                queries,
                grid: [h, w],
            };
            let crops = self.encode_crops(windows.pixels.get(index), [height, width], &masks)?;
            encodings.push(RegionEncoding {
                vectors,
                masks,
                crops,
            });
        }
        Ok(encodings)
    }

    fn score(
        &self,
        encoding: &RegionEncoding,
        classes: &ClassQueries,
    ) -> Result<WindowScores, ModelError> {
        let predictor = &self.sem_seg_head.predictor;
        let own = predictor.class_logits(encoding.vectors.clone(), classes.text.clone());
        let mut logits = ClassLogits {
            own: host(own)?, // [queries, classes + 1], "no object" last
            clip: None,
            classes: classes.len(),
        };
        if let (Some(crops), Some(classifier)) = (&encoding.crops, &self.classifier) {
            let text = classes.crop_text.as_ref().unwrap_or(&classes.text).clone();
            let features = classifier.upload(crops.clone());
            logits.clip = Some(host(classifier.logits(features, text))?);
        }
        Ok(WindowScores::Masks {
            masks: encoding.masks.clone(),
            scores: logits.scores(self.options.fusion, &classes.seen),
        })
    }

    fn encoding_bytes(&self, encoding: &RegionEncoding) -> u64 {
        let crops = encoding.crops.as_ref().map_or(0, Vec::len);
        let vectors = encoding.vectors.shape().num_elements();
        ((encoding.masks.values.len() + crops + vectors) * size_of::<f32>()) as u64
    }

    fn class_needs(&self) -> ClassNeeds {
        ClassNeeds {
            crop_templates: self.options.crop_templates.clone(),
            ..ClassNeeds::default()
        }
    }

    fn set_options(&mut self, options: &Section) -> Result<(), ModelError> {
        self.options = options.read::<ZegFormerOptions>("`inference.method`")?;
        Ok(())
    }
}

impl ZegFormer {
    /// Returns CLIP's vectors of the queries' crops, `[queries, dim]`; `None` if CLIP is not used.
    ///
    /// - `image`: the window before normalisation
    /// - `padded`: height and width of the window including padding
    fn encode_crops(
        &self,
        image: Option<&RgbImage>,
        padded: [usize; 2],
        masks: &QueryMasks,
    ) -> Result<Option<Vec<f32>>, ModelError> {
        let Some(classifier) = self
            .classifier
            .as_ref()
            .filter(|_| self.options.fusion != Fusion::QueryAlone)
        else {
            return Ok(None);
        };
        let image = image.ok_or_else(|| {
            ModelError::Config(
                "CLIP's scores of crops need the image's pixels before normalisation".into(),
            )
        })?;
        let clip_image = ClipImage {
            values: Normalization::CLIP.to_chw_padded(image, padded[1], padded[0]),
            size: padded,
        };
        classifier
            .encode_crops(&clip_image, masks, self.options.crops)
            .map(Some)
    }
}
