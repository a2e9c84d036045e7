//! Defines the loss of MaskCLIP+: the cross-entropy of every pixel, where pixels of unseen classes have pseudo labels.
//!
//! A pseudo label is the unseen class with the highest score. In the first steps the scores are those of the guide,
//! CLIP's frozen image tower; afterwards they are the student's own (section 4 of the paper; details from the released
//! code).

use burn::tensor::{Int, Tensor, TensorData, activation::log_softmax};
use serde::{Deserialize, Serialize};
use zeg_image::IGNORE_LABEL;
use zeg_model::{
    classes::BACKGROUND,
    method::{Architecture, Method as _},
    methods::{
        maskclip_plus::{
            MaskClipPlus, MaskClipPlusMethod, StudentHead, batch_norm::Statistics, products,
        },
        training_free::refinement::MaskClipRefinement,
    },
    resize::bilinear,
    trace::Trace,
};

use crate::{
    TrainError,
    experiment::{Setting, TrainingConfig},
    optimizer::{AdamWSettings, ParamGroup},
    recipe::{Criterion, LossPart, MethodLoss, PartTerms, Recipe, read_loss},
    supervision::PseudoLabels,
    targets::Targets,
};

/// Share of the steps with labels from the guide, unless the settings say otherwise.
const GUIDED_SHARE: u64 = 10;

/// Settings of MaskCLIP+'s pseudo labels.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct MaskClipPlusLoss {
    /// Number of first steps with pseudo labels from the guide; the others have those of the student. `None`: one less
    /// than a tenth of the run. If it is not below the number of steps, the student never labels.
    pub guided_steps: Option<u64>,
    /// Threshold of prompt denoising in the guide's scores, 0 to 1; 0 leaves it out.
    pub prompt_denoising: f32,
    /// Threshold of key smoothing in the guide's scores, 0 to 1; 0 leaves it out.
    pub key_smoothing: f32,
}

impl MaskClipPlusLoss {
    /// Returns whether the guide labels in a step.
    ///
    /// - `step`: number of the step, from 0
    /// - `steps`: number of steps of the run
    pub fn is_guided(&self, step: u64, steps: u64) -> bool {
        let usual = (steps / GUIDED_SHARE).saturating_sub(1);
        step < self.guided_steps.unwrap_or(usual)
    }

    /// Returns the refinement of the guide's scores.
    pub fn refinement(&self) -> MaskClipRefinement {
        MaskClipRefinement {
            prompt_denoising: self.prompt_denoising,
            key_smoothing: self.key_smoothing,
        }
    }

    fn check(&self) -> Result<(), TrainError> {
        for (key, value) in [
            ("prompt-denoising", self.prompt_denoising),
            ("key-smoothing", self.key_smoothing),
        ] {
            if !(0.0..=1.0).contains(&value) {
                return Err(TrainError::Setting {
                    setting: format!("training.loss.{key}"),
                    value: f64::from(value),
                    legal: "must be a number from 0 to 1",
                });
            }
        }
        Ok(())
    }
}

/// The training recipe of MaskCLIP+.
pub struct MaskClipPlusRecipe;

impl Recipe for MaskClipPlusRecipe {
    fn method(&self) -> &'static str {
        MaskClipPlusMethod.name()
    }

    fn criterion(
        &self,
        training: &TrainingConfig,
        _architecture: &dyn Architecture,
    ) -> Result<Box<dyn Criterion>, TrainError> {
        let fail = |text: &str| Err(TrainError::Config(text.to_owned()));
        training.check_no_class_masks("MaskCLIP+ has one loss")?;
        let transductive = training.setting == Setting::Transductive;
        if transductive && training.pseudo_labels != PseudoLabels::UnseenPixels {
            return fail(
                "training.pseudo-labels = \"unlabelled-pixels\": MaskCLIP+ labels the pixels of unseen classes only",
            );
        }
        if !training.self_training.is_default() {
            return fail(
                "training.self-training: MaskCLIP+ always takes the best unseen class; its settings are in training.loss",
            );
        }
        let settings: MaskClipPlusLoss = read_loss(&training.loss)?;
        settings.check()?;
        Ok(Box::new(StudentLoss {
            settings,
            steps: training.steps,
        }))
    }

    /// The guide labels in the first steps.
    fn labels_untrained(&self) -> bool {
        true
    }

    fn group(&self, settings: &AdamWSettings, _name: &str) -> ParamGroup {
        ParamGroup {
            lr: 1.0,
            weight_decay: settings.weight_decay,
        }
    }
}

/// The loss of the student.
struct StudentLoss {
    settings: MaskClipPlusLoss,
    steps: u64,
}

impl MethodLoss for StudentLoss {
    type Model = MaskClipPlus;

    fn terms(&self, model: &MaskClipPlus, part: LossPart) -> Result<PartTerms, TrainError> {
        let device = part.device();
        let LossPart {
            inputs,
            size,
            text,
            names,
            labels,
            share,
            step,
            ..
        } = part;
        let images = inputs.images(size, &device)?;
        let [batch, ..] = images.dims();
        if batch == 1 && model.config().head == StudentHead::DeeplabV3Plus {
            return Err(TrainError::Config(
                "model.head = \"deeplab-v3-plus\" normalises the mean of an image over the images that go through the \
                 model at once, so that there must be at least 2; set training.micro-batch"
                    .into(),
            ));
        }
        let background = names.iter().position(|name| name == BACKGROUND);
        let mut statistics = Statistics::of_batch();
        let features = model.features(images.clone(), &mut statistics, &mut Trace::off());
        let logits = model.logits(features.clone(), text.clone(), background);
        let guided = self.settings.is_guided(step, self.steps);
        let targets = labels.ranked(|classes| {
            let text = rows(&text, classes);
            if guided {
                guide_scores(model, images, text, &self.settings.refinement())
            } else {
                Ok(student_scores(features, text))
            }
        })?;
        Ok(PartTerms {
            named: vec![("class", pixel_cross_entropy(logits, &targets) * share)],
            count: 0,
            observed: statistics.collected(),
        })
    }
}

/// Returns rows of class embeddings, without a gradient: `[classes, dim]` → `[rows, dim]`
pub fn rows(text: &Tensor<2>, classes: &[usize]) -> Tensor<2> {
    let text = text.clone().detach().without_autodiff();
    let indices: Vec<i32> = classes.iter().map(|&class| class as i32).collect();
    let count = indices.len();
    let indices = Tensor::<1, Int>::from_data(TensorData::new(indices, [count]), &text.device());
    text.select(0, indices)
}

/// Computes the guide's scores of classes in images `[batch, 3, height, width]`: `[batch, classes, h, w]`
///
/// # Errors
/// Returns an error if the model has no guide, because the weights hold none.
pub fn guide_scores(
    model: &MaskClipPlus,
    images: Tensor<4>,
    text: Tensor<2>,
    refinement: &MaskClipRefinement,
) -> Result<Tensor<4>, TrainError> {
    let guide = model.decode_head.clip.as_ref().ok_or_else(|| {
        TrainError::Config(
            "the weights hold no image tower of the kind that model.encoder names, which labels pixels of unseen classes"
                .into(),
        )
    })?;
    Ok(guide
        .forward(images, &mut Trace::off())
        .scores(text, refinement))
}

/// Computes the student's own scores of classes from its features `[batch, dim, h, w]`, without a gradient: `[batch,
/// classes, h, w]`
pub fn student_scores(features: Tensor<4>, text: Tensor<2>) -> Tensor<4> {
    products(features.detach().without_autodiff(), text)
}

/// Computes the cross-entropy of every pixel, averaged over all pixels, of which ignored ones count as 0: `[1]`
///
/// - `logits`: `[batch, classes, h, w]`, resized to the targets' size
pub fn pixel_cross_entropy(logits: Tensor<4>, targets: &Targets) -> Tensor<1> {
    let [batch, classes, ..] = logits.dims();
    let size = targets.size();
    let pixels = size[0] * size[1];
    let device = logits.device();
    let logs = log_softmax(bilinear(logits, size).reshape([batch, classes, pixels]), 1);
    let labelled = |label: u16| label != IGNORE_LABEL;
    let labels = targets.labels().iter().copied();
    let index = |label: u16| if labelled(label) { i32::from(label) } else { 0 };
    let indices: Vec<i32> = labels.clone().map(index).collect();
    let counted: Vec<f32> = labels
        .map(|label| f32::from(u8::from(labelled(label))))
        .collect();
    let shape = [batch, 1, pixels];
    let indices = Tensor::<3, Int>::from_data(TensorData::new(indices, shape), &device);
    let counted = Tensor::<3>::from_data(TensorData::new(counted, shape), &device);
    (logs.gather(1, indices) * counted).sum() * (-1.0 / (batch * pixels).max(1) as f64)
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;

    #[test]
    fn ignored_pixels_count_in_the_mean() {
        let logits = Tensor::<4>::from_floats([[[[0.0, 5.0]], [[0.0, 1.0]]]], &Device::flex());
        let targets = Targets::new(vec![1, IGNORE_LABEL], 1, [1, 2], 2).unwrap();
        let loss: f32 = pixel_cross_entropy(logits, &targets).into_scalar();
        assert!((loss - 2.0_f32.ln() / 2.0).abs() < 1e-6, "{loss}");
    }

    /// The released counter is 1 in the first step, and the guide labels up to 1,999 of 20,000.
    #[test]
    fn the_guide_labels_in_the_first_tenth() {
        let guided = |settings: MaskClipPlusLoss, steps| {
            (0..steps)
                .filter(|&step| settings.is_guided(step, steps))
                .count()
        };
        for (steps, expected) in [(20_000, 1999), (80_000, 7999), (40_000, 3999), (5, 0)] {
            assert_eq!(guided(MaskClipPlusLoss::default(), steps), expected);
        }
        let always = MaskClipPlusLoss {
            guided_steps: Some(30),
            ..MaskClipPlusLoss::default()
        };
        assert_eq!(guided(always, 30), 30);
    }
}
