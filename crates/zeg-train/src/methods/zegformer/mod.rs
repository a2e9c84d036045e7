//! Defines the loss of ZegFormer: mask queries are matched to target masks and trained on class and mask of their
//! match.

pub mod mask_targets;
pub mod matching;
pub mod set_criterion;

use zeg_model::{
    method::{Architecture, Method as _},
    methods::zegformer::{ZegFormer, ZegFormerMethod},
    trace::Trace,
};

use self::{
    mask_targets::MaskTargets,
    set_criterion::{SetLoss, SetTerms},
};
use crate::{
    TrainError,
    experiment::{Setting, TrainingConfig},
    optimizer::{AdamWSettings, ParamGroup},
    recipe::{Criterion, LossPart, MethodLoss, PartTerms, Recipe, read_loss},
};

/// The training recipe of ZegFormer.
pub struct ZegFormerRecipe;

impl Recipe for ZegFormerRecipe {
    fn method(&self) -> &'static str {
        ZegFormerMethod.name()
    }

    fn criterion(
        &self,
        training: &TrainingConfig,
        _architecture: &dyn Architecture,
    ) -> Result<Box<dyn Criterion>, TrainError> {
        if training.setting == Setting::Transductive {
            return Err(TrainError::Config(
                "training.setting = \"transductive\" needs class masks for pseudo labels; ZegFormer has none".into(),
            ));
        }
        if !training.objective.is_default() {
            return Err(TrainError::Config(format!(
                "training.objective = {:?} is for methods with class masks; set ZegFormer's loss weights in training.loss",
                training.objective
            )));
        }
        Ok(Box::new(ZegFormerLoss {
            set_loss: read_loss(&training.loss)?,
        }))
    }

    fn group(&self, settings: &AdamWSettings, name: &str) -> ParamGroup {
        group(settings, name)
    }
}

/// Returns the optimiser's group of a parameter.
///
/// The backbone has the learning rate factor [`AdamWSettings::encoder_lr`]. Norms and the mask query embeddings have no
/// weight decay; biases and the "no object" embedding do.
pub fn group(settings: &AdamWSettings, name: &str) -> ParamGroup {
    let is_norm = |part: &str| {
        let number = part.strip_prefix("norm");
        number.is_some_and(|rest| rest.chars().all(|c| c.is_ascii_digit()))
    };
    let undecayed = name.split('.').any(is_norm) || name.contains(".query_embed.");
    ParamGroup {
        lr: if name.starts_with("backbone.") {
            settings.encoder_lr
        } else {
            1.0
        },
        weight_decay: if undecayed {
            0.0
        } else {
            settings.weight_decay
        },
    }
}

/// The loss of ZegFormer, summed over the decoder layers.
struct ZegFormerLoss {
    set_loss: SetLoss,
}

impl MethodLoss for ZegFormerLoss {
    type Model = ZegFormer;

    fn terms(&self, model: &ZegFormer, part: LossPart) -> Result<PartTerms, TrainError> {
        let device = part.device();
        let images = part.inputs.images(part.size, &device)?;
        let targets = MaskTargets::from_labels(&part.labels.known()?);
        let outputs = model.forward_all(images, part.text, &mut Trace::off());
        let queries = model.config().queries;
        let normalizer = self.set_loss.normalizer(part.batch_masks, queries);
        let mut sum: Option<SetTerms> = None;
        for output in outputs {
            let terms = self.set_loss.forward(output, &targets, normalizer)?;
            sum = Some(match sum {
                Some(sum) => sum.plus(terms),
                None => terms,
            });
        }
        let named = sum.into_iter().flat_map(|terms| {
            [
                ("class", terms.class),
                ("focal", terms.focal),
                ("dice", terms.dice),
            ]
        });
        Ok(PartTerms {
            named: named.collect(),
            count: 0,
        })
    }
}
