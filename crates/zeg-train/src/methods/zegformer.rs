//! Defines the loss of ZegFormer: mask queries are matched to target masks and trained on class and mask of their
//! match.

use zeg_model::{
    method::{Architecture, Method as _},
    methods::zegformer::{ZegFormer, ZegFormerMethod},
    trace::Trace,
};

pub use crate::set_loss::{group, mask_targets, matching, set_criterion};
use crate::{
    TrainError,
    experiment::{Setting, TrainingConfig},
    optimizer::{AdamWSettings, ParamGroup},
    recipe::{Criterion, LossPart, MethodLoss, PartTerms, Recipe, read_loss},
    set_loss::{mask_targets::MaskTargets, set_criterion::SetLoss},
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
        training.check_no_class_masks("set ZegFormer's loss weights in training.loss")?;
        Ok(Box::new(ZegFormerLoss {
            set_loss: read_loss(&training.loss)?,
        }))
    }

    fn group(&self, settings: &AdamWSettings, name: &str) -> ParamGroup {
        group(settings, name)
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
        let named = self.set_loss.named(outputs, &targets, part.batch_masks)?;
        Ok(PartTerms {
            named,
            count: 0,
            observed: Vec::new(),
        })
    }
}
