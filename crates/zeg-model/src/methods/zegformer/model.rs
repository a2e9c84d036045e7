//! One image through both stages: regions and what CLIP says of them, then any classes.

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

/// What both stages know of an image before classes are asked for.
#[derive(Debug, Clone)]
pub struct RegionEncoding {
    /// `[1, queries, dim]`
    vectors: Tensor<3>,
    masks: QueryMasks,
    /// CLIP's vectors of the queries' crops, `[queries, dim]`; `None` where it is not asked.
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

    /// The whole image, whatever the settings say of windows: the first stage is convolutional.
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
            let crops = self.look(windows.pixels.get(index), [height, width], &masks)?;
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

    fn class_needs(&self) -> ClassNeeds {
        ClassNeeds {
            each_template: false,
            crop_templates: self.options.crop_templates.clone(),
        }
    }

    fn set_options(&mut self, options: &Section) -> Result<(), ModelError> {
        self.options = options.read::<ZegFormerOptions>("`inference.method`")?;
        Ok(())
    }
}

impl ZegFormer {
    /// CLIP's vectors of the queries' crops, `[queries, dim]`; `None` where CLIP is not asked.
    ///
    /// - `image`: the window before normalisation
    /// - `padded`: height and width of the window with padding
    fn look(
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
            ModelError::Config("CLIP's scores of crops need the image's own pixels".into())
        })?;
        let clip_image = ClipImage {
            values: Normalization::CLIP.to_chw_padded(image, padded[1], padded[0]),
            size: padded,
        };
        classifier
            .look(&clip_image, masks, self.options.crops)
            .map(Some)
    }
}
