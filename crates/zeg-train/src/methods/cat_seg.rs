//! Defines the loss of CAT-Seg: binary cross-entropy of every class at every pixel, ignored pixels included.

use burn::tensor::{Tensor, activation};
use serde::{Deserialize, Serialize};
use zeg_model::{
    method::{Architecture, Method as _},
    methods::cat_seg::{CatSeg, CatSegMethod},
    trace::Trace,
};

use crate::{
    TrainError,
    batch::Inputs,
    experiment::TrainingConfig,
    objective::at_target_size,
    optimizer::{AdamWSettings, ParamGroup},
    recipe::{Criterion, LossPart, MethodLoss, PartTerms, Recipe, read_loss},
    targets::Targets,
};

/// The weight of CAT-Seg's loss (`[training.loss]`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct CatSegLossWeights {
    /// Weight of the binary cross-entropy, the mean over all pixels and classes.
    pub bce: f64,
}

/// The released weight.
impl Default for CatSegLossWeights {
    fn default() -> Self {
        Self { bce: 1.0 }
    }
}

/// The training recipe of CAT-Seg.
pub struct CatSegRecipe;

impl Recipe for CatSegRecipe {
    fn method(&self) -> &'static str {
        CatSegMethod.name()
    }

    fn criterion(
        &self,
        training: &TrainingConfig,
        _architecture: &dyn Architecture,
    ) -> Result<Box<dyn Criterion>, TrainError> {
        training.check_no_class_masks("CAT-Seg is trained with binary cross-entropy")?;
        let weights = read_loss(&training.loss)?;
        Ok(Box::new(CatSegLoss { weights }))
    }

    fn group(&self, settings: &AdamWSettings, name: &str) -> ParamGroup {
        group(settings, name)
    }
}

/// Returns the optimiser's group of a parameter.
///
/// CLIP's towers have the learning rate factor [`AdamWSettings::encoder_lr`]. Norms have no weight decay; all other biases
/// do.
pub fn group(settings: &AdamWSettings, name: &str) -> ParamGroup {
    let is_norm =
        |part: &str| part.starts_with("ln_") || part.starts_with("norm") || part.ends_with("_norm");
    let is_group_norm = [".double_conv.1.", ".double_conv.4."]
        .iter()
        .any(|part| name.contains(part));
    let is_clip = name.starts_with("backbone.") || name.starts_with("text_encoder.");
    ParamGroup {
        lr: if is_clip { settings.encoder_lr } else { 1.0 },
        weight_decay: if is_group_norm || name.split('.').any(is_norm) {
            0.0
        } else {
            settings.weight_decay
        },
    }
}

/// Computes the mean binary cross-entropy over all pixels and classes: `[1]`
///
/// A pixel without a label is a negative of every class. A pixel that is left out of the loss of a class counts in the mean,
/// but adds nothing to it.
///
/// - `logits`: `[batch, classes, h, w]`, resized to the targets' size
pub fn binary_cross_entropy(logits: Tensor<4>, targets: &Targets) -> Tensor<1> {
    let (z, truth) = at_target_size(logits, targets);
    // −ln σ(z) for positives and −ln σ(−z) for negatives.
    let signed = z * (truth * 2.0 - 1.0); // [batch, classes, pixels]
    -activation::log_sigmoid(signed).mean()
}

/// The loss of CAT-Seg.
struct CatSegLoss {
    weights: CatSegLossWeights,
}

impl MethodLoss for CatSegLoss {
    type Model = CatSeg;

    fn terms(&self, model: &CatSeg, part: LossPart) -> Result<PartTerms, TrainError> {
        let images = part.inputs.images(part.size, &part.text.device())?;
        let logits = model.forward(images, part.text, &mut Trace::off())?; // [batch, classes, h, w]
        let targets = part.labels.with_logits(&logits)?;
        let bce = binary_cross_entropy(logits, &targets);
        Ok(PartTerms {
            named: vec![("bce", bce * (self.weights.bce * part.share))],
            count: 0, // a mean needs no normaliser
            observed: Vec::new(),
        })
    }

    fn class_logits(
        &self,
        model: &CatSeg,
        inputs: Inputs,
        size: usize,
        text: Tensor<2>,
    ) -> Result<Option<Tensor<4>>, TrainError> {
        let images = inputs.images(size, &text.device())?;
        Ok(Some(model.forward(images, text, &mut Trace::off())?))
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use zeg_image::IGNORE_LABEL;

    use super::*;
    use crate::targets::LeftOut;

    /// The expected value is the mean of `binary_cross_entropy_with_logits` over two classes and two pixels.
    #[test]
    fn every_pixel_counts_for_every_class() {
        let logits = Tensor::from_floats([[[[0.5, 2.0]], [[-1.0, 0.25]]]], &Device::flex());
        let targets = Targets::new(vec![1, IGNORE_LABEL], 1, [1, 2], 2).unwrap();
        let negative_log = |z: f64| (1.0 + (-z).exp()).ln();
        let terms = [-0.5, -2.0, -1.0, -0.25].map(negative_log);
        let found = binary_cross_entropy(logits, &targets).into_scalar::<f32>();
        let expected = terms.iter().sum::<f64>() / 4.0;
        assert!(
            (f64::from(found) - expected).abs() < 1e-6,
            "{found} {expected}"
        );
    }

    /// Self-training withholds the loss of unseen classes at pixels of uncertain labels.
    #[test]
    fn pixels_that_are_left_out_have_no_loss() {
        let logits = Tensor::from_floats([[[[0.5, 2.0]], [[-1.0, 0.25]]]], &Device::flex());
        let targets = Targets::new(vec![1, IGNORE_LABEL], 1, [1, 2], 2).unwrap();
        let targets = targets.without(LeftOut {
            pixels: vec![1],
            classes: vec![false, true],
        });
        let negative_log = |z: f64| (1.0 + (-z).exp()).ln();
        // The second class has no loss at the second pixel.
        let expected = [-0.5, -2.0, -1.0].map(negative_log).iter().sum::<f64>() / 4.0;
        let found = binary_cross_entropy(logits, &targets).into_scalar::<f32>();
        assert!(
            (f64::from(found) - expected).abs() < 1e-6,
            "{found} {expected}"
        );
    }

    #[test]
    fn norms_do_not_decay_and_clip_is_slow() {
        let settings = AdamWSettings {
            weight_decay: 1e-4,
            encoder_lr: 0.01,
            ..AdamWSettings::default()
        };
        let head = "sem_seg_head.predictor.transformer.";
        for (name, lr, decays) in [
            (
                "backbone.transformer.resblocks.0.attn.q_proj_weight".into(),
                0.01,
                true,
            ),
            (
                format!("{head}layers.0.swin_block.guidance_norm.bias"),
                1.0,
                false,
            ),
            (format!("{head}layers.0.attention.norm1.weight"), 1.0, false),
            (
                format!("{head}decoder1.conv.double_conv.4.bias"),
                1.0,
                false,
            ),
            (
                format!("{head}decoder1.conv.double_conv.3.weight"),
                1.0,
                true,
            ),
            (
                format!("{head}layers.0.attention.padding_tokens"),
                1.0,
                true,
            ),
            ("upsample1.bias".into(), 1.0, true),
        ] {
            let group = group(&settings, &name);
            assert!((group.lr - lr).abs() < 1e-12, "{name}");
            assert_eq!(group.weight_decay > 0.0, decays, "{name}");
        }
    }
}
