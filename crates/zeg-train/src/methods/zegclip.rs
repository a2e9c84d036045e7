//! Defines the loss of ZegCLIP: focal and dice of independent class masks (section 3.4), or a loss of its ablation.

use burn::tensor::Tensor;
use half::f16;
use zeg_model::{
    method::{Architecture, Method as _},
    methods::zegclip::{ZegClip, ZegClipMethod},
    trace::Trace,
    vision::Encoded,
};

use crate::{
    TrainError,
    batch::{Features, Inputs, features_tensor, images_tensor},
    experiment::TrainingConfig,
    mask_loss::MaskObjective,
    recipe::{Criterion, LossPart, MethodLoss, PartTerms, Recipe, read_loss},
    targets::Targets,
};

/// The training recipe of ZegCLIP.
pub struct ZegClipRecipe;

impl Recipe for ZegClipRecipe {
    fn method(&self) -> &'static str {
        ZegClipMethod.name()
    }

    fn criterion(
        &self,
        training: &TrainingConfig,
        architecture: &dyn Architecture,
    ) -> Result<Box<dyn Criterion>, TrainError> {
        let weights = read_loss(&training.loss)?;
        let masks = MaskObjective::new(training, weights, architecture)?;
        Ok(Box::new(ZegClipLoss { masks }))
    }
}

/// The loss of ZegCLIP.
struct ZegClipLoss {
    masks: MaskObjective,
}

/// Encodes the images of a micro-batch, or returns their cached features.
fn encode(model: &ZegClip, inputs: Inputs, size: usize, text: &Tensor<2>) -> Encoded {
    let device = text.device();
    match inputs {
        Inputs::Images(values) => {
            model.encode(images_tensor(values, size, &device), &mut Trace::off())
        }
        Inputs::Features(features) => features_tensor(&features, &device),
    }
}

impl MethodLoss for ZegClipLoss {
    type Model = ZegClip;

    fn terms(&self, model: &ZegClip, part: LossPart) -> Result<PartTerms, TrainError> {
        let encoded = encode(model, part.inputs, part.size, &part.text);
        let masks = model
            .decode_head
            .forward(encoded, part.text, &mut Trace::off()); // [batch, classes, h, w]
        self.masks.terms(masks, part.labels, part.normalizer)
    }

    fn class_logits(
        &self,
        model: &ZegClip,
        inputs: Inputs,
        size: usize,
        text: Tensor<2>,
    ) -> Result<Option<Tensor<4>>, TrainError> {
        let encoded = encode(model, inputs, size, &text);
        let masks = model.decode_head.forward(encoded, text, &mut Trace::off());
        Ok(Some(masks))
    }

    fn count(&self, targets: &Targets) -> usize {
        self.masks.objective.count(targets)
    }

    fn features(&self, model: &ZegClip, images: Tensor<4>) -> Result<Option<Features>, TrainError> {
        let encoded = model.encode(images, &mut Trace::off());
        Ok(Some(Features {
            grid: encoded.grid,
            patches: halves(encoded.patches)?,
            global: halves(encoded.global)?,
        }))
    }
}

/// Reads a tensor into main memory, rounded to `f16`.
fn halves<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f16>, TrainError> {
    let values: Vec<f32> = tensor
        .into_data()
        .convert::<f32>()
        .try_into_vec()
        .map_err(|error| TrainError::Backend(format!("{error:?}")))?;
    Ok(values.into_iter().map(f16::from_f32).collect())
}
