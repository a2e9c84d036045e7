//! Computes the loss of all methods whose models predict one mask per class.

use burn::tensor::Tensor;
use zeg_model::method::Architecture;

use crate::{
    TrainError, experiment::TrainingConfig, labels::PartLabels, loss::MaskLoss,
    objective::Objective, recipe::PartTerms,
};

/// An objective on class masks with the weights of its terms.
#[derive(Debug, Clone, Copy)]
pub struct MaskObjective {
    /// The objective that is minimised.
    pub objective: Objective,
    /// Weights of the focal and dice terms.
    pub weights: MaskLoss,
    /// Whether pixels without the label of a training class are negatives for every class.
    pub unlabelled_negatives: bool,
}

impl MaskObjective {
    /// Creates the objective of an experiment.
    ///
    /// # Errors
    /// Returns an error if the model's scoring (sigmoid or softmax) is not the one that the objective trains.
    pub fn new(
        training: &TrainingConfig,
        weights: MaskLoss,
        architecture: &dyn Architecture,
    ) -> Result<Self, TrainError> {
        let scoring = training.objective.scoring();
        if architecture.scoring() != scoring {
            return Err(TrainError::Config(format!(
                "training.objective = {:?} needs model.head.scoring = {scoring:?}, but it is {:?}",
                training.objective,
                architecture.scoring()
            )));
        }
        if training.objective == Objective::CrossEntropy && !training.unlabelled_negatives {
            return Err(TrainError::Config(
                "training.unlabelled-negatives = false: with training.objective = \"cross-entropy\" a pixel without a \
                 label has no part in the loss of any class; leave it out"
                    .into(),
            ));
        }
        Ok(Self {
            objective: training.objective,
            weights,
            unlabelled_negatives: training.unlabelled_negatives,
        })
    }

    /// Computes the loss of class masks.
    ///
    /// - `masks`: logits `[batch, classes, h, w]`
    /// - `normalizer`: that of the whole batch; if `None`, the terms are not divided and their count is returned
    ///
    /// # Errors
    /// Returns an error if the device cannot be read or a label is not a class.
    pub fn terms(
        &self,
        masks: Tensor<4>,
        labels: PartLabels,
        normalizer: Option<f64>,
    ) -> Result<PartTerms, TrainError> {
        let targets = labels.with_logits(&masks)?;
        let targets = if self.unlabelled_negatives {
            targets
        } else {
            targets.without_unlabelled()
        };
        let (divisor, count) = match normalizer {
            Some(known) => (known, 0),
            None => (1.0, self.objective.count(&targets)),
        };
        let named = self
            .objective
            .forward(masks, &targets, &self.weights, divisor);
        Ok(PartTerms {
            named,
            count,
            observed: Vec::new(),
        })
    }
}
