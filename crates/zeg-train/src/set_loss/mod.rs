//! The loss of mask transformers: mask queries are matched to target masks and trained on class and mask of their match.

pub mod mask_targets;
pub mod matching;
pub mod set_criterion;

use zeg_model::mask_transformer::QueryOutput;

use self::{
    mask_targets::MaskTargets,
    set_criterion::{SetLoss, SetTerms},
};
use crate::{
    TrainError,
    objective::NamedTerms,
    optimizer::{AdamWSettings, ParamGroup},
};

/// Returns the optimiser's group of a mask transformer's parameter.
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

impl SetLoss {
    /// Computes the terms of a micro-batch, summed over the decoder layers.
    ///
    /// - `outputs`: after every decoder layer
    /// - `batch_masks`: number of target masks in each image of the whole batch
    ///
    /// # Errors
    /// Returns an error if the model's outputs are not finite or the device cannot be read.
    pub fn named(
        &self,
        outputs: Vec<QueryOutput>,
        targets: &MaskTargets,
        batch_masks: &[usize],
    ) -> Result<NamedTerms, TrainError> {
        let queries = outputs.first().map_or(0, |output| output.masks.dims()[1]);
        let normalizer = self.normalizer(batch_masks, queries);
        let mut sum: Option<SetTerms> = None;
        for output in outputs {
            let terms = self.forward(output, targets, normalizer)?;
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
        Ok(named.collect())
    }
}
