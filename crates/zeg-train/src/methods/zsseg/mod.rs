//! Defines the losses of zsseg's two stages: the learned prompts, and the segmenter with its self-training.

pub mod prompts;
pub mod regions;

use burn::tensor::{Tensor, activation};
use zeg_model::{
    mask_transformer::QueryOutput,
    method::{Architecture, Method as _},
    methods::zsseg::{Zsseg, ZssegMethod},
    text::CONTEXT_KEY,
    trace::Trace,
};

use self::prompts::PromptLoss;
use crate::{
    TrainError,
    batch::Inputs,
    experiment::{Setting, TrainingConfig},
    optimizer::{AdamWSettings, ParamGroup},
    pseudo_labels::{Candidates, Unlabelled},
    recipe::{Criterion, LossPart, MethodLoss, PartTerms, Recipe, read_loss},
    set_loss::{group, mask_targets::MaskTargets, set_criterion::SetLoss},
};

/// Smallest score and probability whose logarithm is taken.
const SMALLEST: f64 = 1e-12;

/// The training recipe of zsseg.
pub struct ZssegRecipe;

impl Recipe for ZssegRecipe {
    fn method(&self) -> &'static str {
        ZssegMethod.name()
    }

    fn criterion(
        &self,
        training: &TrainingConfig,
        architecture: &dyn Architecture,
    ) -> Result<Box<dyn Criterion>, TrainError> {
        training.check_no_class_masks("set zsseg's loss weights in training.loss")?;
        if architecture.trains(CONTEXT_KEY) {
            return prompt_loss(training);
        }
        if training.self_training.unlabelled != Unlabelled::Negative {
            return Err(TrainError::Config(format!(
                "training.self-training.unlabelled = {:?} leaves pixels out of the loss of single classes; the masks of \
                 zsseg have no such pixels, so leave it out",
                training.self_training.unlabelled
            )));
        }
        Ok(Box::new(SegmenterLoss {
            set_loss: read_loss(&training.loss)?,
            candidates: training.self_training.candidates,
        }))
    }

    fn group(&self, settings: &AdamWSettings, name: &str) -> ParamGroup {
        group(settings, name)
    }
}

/// Checks the settings of the prompt stage, and returns its loss.
fn prompt_loss(training: &TrainingConfig) -> Result<Box<dyn Criterion>, TrainError> {
    training.loss.refuse_all("training.loss")?;
    if training.setting == Setting::Transductive {
        return Err(TrainError::Config(
            "training.setting = \"transductive\" labels pixels with a segmenter; prompts are learned on regions of the ground \
             truth"
                .into(),
        ));
    }
    if training.loss_stride != 1 {
        return Err(TrainError::Config(format!(
            "training.loss-stride = {}: prompts are learned on regions of whole images; leave it out",
            training.loss_stride
        )));
    }
    Ok(Box::new(PromptLoss::default()))
}

/// The loss of the segmenter, summed over the decoder layers.
struct SegmenterLoss {
    set_loss: SetLoss,
    candidates: Candidates,
}

impl MethodLoss for SegmenterLoss {
    type Model = Zsseg;

    fn terms(&self, model: &Zsseg, part: LossPart) -> Result<PartTerms, TrainError> {
        let device = part.device();
        let images = part.inputs.images(part.size, &device)?;
        let outputs = model.forward_all(images, part.text, &mut Trace::off())?;
        let Some(last) = outputs.last() else {
            return Err(TrainError::Backend("the model has no decoder layer".into()));
        };
        let targets = if part.labels.is_known() {
            part.labels.known()?
        } else {
            part.labels
                .with_logits(&pseudo_logits(class_map(last), self.candidates))?
        };
        let targets = MaskTargets::from_labels(&targets);
        let counts = targets.counts();
        // Pseudo labels that follow from this very output are those of the whole batch.
        let batch_masks = match part.batch_masks {
            [] => &counts[..],
            known => known,
        };
        let named = self.set_loss.named(outputs, &targets, batch_masks)?;
        Ok(PartTerms {
            named,
            count: 0,
            observed: Vec::new(),
        })
    }

    fn class_logits(
        &self,
        model: &Zsseg,
        inputs: Inputs,
        size: usize,
        text: Tensor<2>,
    ) -> Result<Option<Tensor<4>>, TrainError> {
        let images = inputs.images(size, &text.device())?;
        let outputs = model.forward_all(images, text, &mut Trace::off())?;
        let last = outputs.last().map(class_map);
        Ok(last.map(|map| pseudo_logits(map, self.candidates)))
    }

    fn needs_all_labels(&self) -> bool {
        true
    }
}

/// Returns the class map of the queries' own scores, without a gradient: masks times probabilities, summed over the
/// queries, `[batch, classes, h, w]`.
pub fn class_map(output: &QueryOutput) -> Tensor<4> {
    let [batch, queries, h, w] = output.masks.dims();
    let probabilities = activation::softmax(output.classes.clone().detach(), 2);
    let classes = probabilities.dims()[2] - 1;
    let probabilities = probabilities.narrow(2, 0, classes); // [batch, queries, classes]
    let masks = activation::sigmoid(output.masks.clone().detach());
    probabilities
        .transpose()
        .matmul(masks.reshape([batch, queries, h * w]))
        .reshape([batch, classes, h, w])
}

/// Returns the logits of which self-training takes the scores σ(logit): where the unseen classes alone are candidates,
/// the softmax of the map over all classes, and otherwise s/(1 + s) for each score s of the map.
///
/// The order of the classes at a pixel stays that of the map. As in the reference, a minimum score applies to the
/// softmax in the first case; in the second one, its minimum m of the map is m/(1 + m) here.
///
/// - `map`: `[batch, classes, h, w]`
pub fn pseudo_logits(map: Tensor<4>, candidates: Candidates) -> Tensor<4> {
    match candidates {
        Candidates::Unseen => {
            let share = activation::softmax(map, 1);
            let rest = (-share.clone() + 1.0).clamp_min(SMALLEST);
            share.clamp_min(SMALLEST).log() - rest.log()
        }
        Candidates::All | Candidates::UnseenWinners => map.clamp_min(SMALLEST).log(),
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn the_class_map_sums_masks_times_probabilities() {
        let device = Device::flex();
        let two = 2.0_f32.ln();
        let output = QueryOutput {
            // ½, ¼ and no object; then 1/3 each.
            classes: Tensor::from_floats([[[two, 0.0, 0.0], [0.0, 0.0, 0.0]]], &device),
            masks: Tensor::from_floats([[[[0.0, 50.0]], [[50.0, -50.0]]]], &device),
        };
        let found: Vec<f32> = class_map(&output).into_data().try_into_vec().unwrap();
        let third = 1.0 / 3.0;
        for (found, expected) in found.iter().zip([0.25 + third, 0.5, 0.125 + third, 0.25]) {
            assert!((found - expected).abs() < 1e-6, "{found} {expected}");
        }
    }

    #[test]
    fn scores_of_pseudo_labels_keep_the_order_of_the_map() {
        let map = || Tensor::<4>::from_floats([[[[0.5]], [[2.0]], [[1.0]]]], &Device::flex());
        let scores = |candidates| -> Vec<f32> {
            let scores = activation::sigmoid(pseudo_logits(map(), candidates));
            scores.into_data().try_into_vec().unwrap()
        };
        let close = |found: Vec<f32>, expected: [f32; 3]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!((found - expected).abs() < 1e-6, "{found} {expected}");
            }
        };
        close(scores(Candidates::All), [1.0 / 3.0, 2.0 / 3.0, 0.5]);
        let sum = 0.5_f32.exp() + 2.0_f32.exp() + 1.0_f32.exp();
        close(
            scores(Candidates::Unseen),
            [0.5, 2.0, 1.0].map(|score: f32| score.exp() / sum),
        );
    }
}
