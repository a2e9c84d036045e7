//! Defines the loss of CLIP-RC: that of ZegCLIP plus two recovery terms.

use burn::tensor::Tensor;
use serde::{Deserialize, Serialize};
use zeg_model::{
    method::{Architecture, Method as _},
    methods::clip_rc::{ClipRc, ClipRcMethod, recovery::Recovery},
    trace::Trace,
    vision::Encoded,
};

use crate::{
    TrainError,
    batch::Inputs,
    experiment::TrainingConfig,
    loss::MaskLoss,
    mask_loss::MaskObjective,
    objective::NamedTerms,
    recipe::{Criterion, LossPart, MethodLoss, PartTerms, Recipe, read_loss},
    targets::Targets,
};

/// Default factor of the recovery terms: the one of the VOC experiments.
const RECOVERY: f64 = 2.0;

/// Weights of the loss terms (`[training.loss]`).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct ClipRcLossWeights {
    /// Factor of the focal term.
    pub focal: f64,
    /// Factor of the dice term.
    pub dice: f64,
    /// Factor of the two recovery terms; 0 leaves the recovery decoder untrained.
    pub recovery: f64,
}

/// The released weights.
impl Default for ClipRcLossWeights {
    fn default() -> Self {
        let MaskLoss { focal, dice } = MaskLoss::default();
        Self {
            focal,
            dice,
            recovery: RECOVERY,
        }
    }
}

/// The training recipe of CLIP-RC.
pub struct ClipRcRecipe;

impl Recipe for ClipRcRecipe {
    fn method(&self) -> &'static str {
        ClipRcMethod.name()
    }

    fn criterion(
        &self,
        training: &TrainingConfig,
        architecture: &dyn Architecture,
    ) -> Result<Box<dyn Criterion>, TrainError> {
        let ClipRcLossWeights {
            focal,
            dice,
            recovery,
        } = read_loss(&training.loss)?;
        let masks = MaskObjective::new(training, MaskLoss { focal, dice }, architecture)?;
        Ok(Box::new(ClipRcLoss { masks, recovery }))
    }
}

/// The loss of CLIP-RC.
struct ClipRcLoss {
    masks: MaskObjective,
    recovery: f64,
}

/// Returns the weighted recovery terms of class queries and patches: `[1]` each.
pub fn recovery_terms(recovery: &Recovery, weight: f64) -> NamedTerms {
    let [queries, patches] = recovery.errors().map(|error| error * weight);
    vec![("recovery-queries", queries), ("recovery-patches", patches)]
}

/// Encodes the images of a micro-batch.
fn encode(
    model: &ClipRc,
    inputs: Inputs,
    size: usize,
    text: &Tensor<2>,
) -> Result<Encoded, TrainError> {
    let images = inputs.images(size, &text.device())?;
    Ok(model.encode(images, &mut Trace::off()))
}

impl MethodLoss for ClipRcLoss {
    type Model = ClipRc;

    fn terms(&self, model: &ClipRc, part: LossPart) -> Result<PartTerms, TrainError> {
        let encoded = encode(model, part.inputs, part.size, &part.text)?;
        let (head, text) = (&model.decode_head, part.text);
        if self.recovery <= 0.0 {
            let masks = head.forward(encoded, text, &mut Trace::off()); // [batch, classes, h, w]
            return self.masks.terms(masks, part.labels, part.normalizer);
        }
        let (masks, recovery) = head.forward_with_recovery(encoded, text, &mut Trace::off());
        let mut terms = self.masks.terms(masks, part.labels, part.normalizer)?;
        // The mean over the batch is the sum of the parts' means, weighted by their shares. If the other terms are
        // divided only at the end, the recovery terms are multiplied by their count first, so that the division
        // cancels.
        let undivided = match part.normalizer {
            None => terms.count.max(1) as f64,
            Some(_) => 1.0,
        };
        let factor = part.share * undivided;
        let recovery = recovery_terms(&recovery, self.recovery).into_iter();
        terms
            .named
            .extend(recovery.map(|(name, term)| (name, term * factor)));
        Ok(terms)
    }

    fn class_logits(
        &self,
        model: &ClipRc,
        inputs: Inputs,
        size: usize,
        text: Tensor<2>,
    ) -> Result<Option<Tensor<4>>, TrainError> {
        let encoded = encode(model, inputs, size, &text)?;
        let masks = model.decode_head.forward(encoded, text, &mut Trace::off());
        Ok(Some(masks))
    }

    fn count(&self, targets: &Targets) -> usize {
        self.masks.objective.count(targets)
    }

    fn needs_all_labels(&self) -> bool {
        self.recovery > 0.0
    }
}
