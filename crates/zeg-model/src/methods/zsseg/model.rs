//! Runs one image through both stages: encodes regions and their crops, then scores any classes.

use burn::tensor::Tensor;
use zeg_image::{RgbImage, normalize::Normalization};

use super::{
    Stage, Zsseg, ZssegOptions,
    classifier::RegionClassifier,
    config::STRIDE,
    ensemble::{Ensemble, RegionLogits},
    regions::{RegionImage, RegionMasks},
};
use crate::{
    ModelError,
    classes::{ClassNeeds, ClassQueries},
    inference::{Inference, PlannedWindow},
    mask_transformer::Regions,
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
    /// CLIP's vectors of the crops; `None` if CLIP is not used.
    crops: Option<CropEncoding>,
}

/// CLIP's vectors of the crops of masks that are not empty.
#[derive(Debug, Clone)]
struct CropEncoding {
    /// The queries that have a crop, in ascending order.
    valid: Vec<usize>,
    /// Unit rows `[valid queries, dim]`.
    features: Vec<f32>,
}

impl SegmentationModel for Zsseg {
    type Encoding = RegionEncoding;

    fn facts(&self) -> ModelFacts {
        let (stride, normalization) = match self.config.stage {
            // Regions are cut out of the image, of whatever size it is.
            Stage::Prompts => (1, Normalization::CLIP),
            Stage::Segmenter => (STRIDE, Normalization::IMAGENET),
        };
        ModelFacts {
            stride,
            embed_dim: self.config.embed_dim,
            normalization,
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
            let Regions { vectors, masks } = self.regions(image, &mut Trace::off())?;
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
        let own = self.class_logits(encoding.vectors.clone(), classes.text.clone())?;
        let mut logits = RegionLogits {
            own: host(own)?, // [queries, classes + 1], "no object" last
            crops: None,
            valid: Vec::new(),
            classes: classes.len(),
        };
        if let (Some(crops), Some(classifier)) = (&encoding.crops, &self.classifier) {
            let text = classes.crop_text.as_ref().unwrap_or(&classes.text).clone();
            logits.valid.clone_from(&crops.valid);
            logits.crops = Some(if crops.valid.is_empty() {
                Vec::new()
            } else {
                let features = classifier.upload(&crops.features);
                host(RegionClassifier::logits(features, text))?
            });
        }
        let options = &self.options;
        Ok(WindowScores::Masks {
            masks: encoding.masks.clone(),
            scores: logits.scores(options.fusion, options.ensemble_weight, &classes.seen),
        })
    }

    fn encoding_bytes(&self, encoding: &RegionEncoding) -> u64 {
        let crops = encoding.crops.as_ref();
        let values = encoding.masks.values.len()
            + encoding.vectors.shape().num_elements()
            + crops.map_or(0, |crops| crops.features.len());
        (values * size_of::<f32>()) as u64
    }

    fn class_needs(&self) -> ClassNeeds {
        ClassNeeds {
            crop_templates: self.options.crop_templates.clone(),
            first_name_only: true,
            ..ClassNeeds::default()
        }
    }

    fn set_options(&mut self, options: &Section) -> Result<(), ModelError> {
        let options: ZssegOptions = options.read("`inference.method`")?;
        options.check()?;
        self.options = options;
        Ok(())
    }
}

impl Zsseg {
    /// Returns CLIP's vectors of the crops; `None` if CLIP is not used.
    ///
    /// - `image`: the window before normalisation
    /// - `padded`: height and width of the window including padding
    fn encode_crops(
        &self,
        image: Option<&RgbImage>,
        padded: [usize; 2],
        masks: &QueryMasks,
    ) -> Result<Option<CropEncoding>, ModelError> {
        let Some(classifier) = self
            .classifier
            .as_ref()
            .filter(|_| self.options.fusion != Ensemble::QueriesAlone)
        else {
            return Ok(None);
        };
        let image = image.ok_or_else(|| {
            ModelError::Config(
                "CLIP's scores of crops need the image's pixels before normalisation".into(),
            )
        })?;
        let size = [image.height() as usize, image.width() as usize];
        let masks = RegionMasks::new(masks, padded, size, self.options.mask_threshold);
        let features = classifier.encode(&RegionImage::new(image, &self.options), &masks)?;
        Ok(Some(CropEncoding {
            valid: masks.valid(),
            features,
        }))
    }
}
