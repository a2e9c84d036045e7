//! The loss of models that give every class a mask, whatever the method.

use burn::tensor::Tensor;
use zeg_model::method::Architecture;

use crate::{
    TrainError, experiment::TrainingConfig, labels::PartLabels, loss::MaskLoss,
    objective::Objective, recipe::PartTerms,
};

/// An objective on class masks with the weights of its terms.
#[derive(Debug, Clone, Copy)]
pub struct MaskObjective {
    /// What is minimised.
    pub objective: Objective,
    /// Weights of the focal and dice terms.
    pub weights: MaskLoss,
}

impl MaskObjective {
    /// The objective of an experiment.
    ///
    /// # Errors
    /// The model's scores are of another kind than the objective trains.
    pub fn new(
        training: &TrainingConfig,
        weights: MaskLoss,
        architecture: &dyn Architecture,
    ) -> Result<Self, TrainError> {
        let scoring = training.objective.scoring();
        if architecture.scoring() != scoring {
            return Err(TrainError::Config(format!(
                "training.objective = {:?} needs model.head.scoring = {scoring:?}, which is {:?}",
                training.objective,
                architecture.scoring()
            )));
        }
        Ok(Self {
            objective: training.objective,
            weights,
        })
    }

    /// The loss of class masks.
    ///
    /// - `masks`: logits `[batch, classes, h, w]`
    /// - `normalizer`: of the whole batch; without, the terms are not divided and their count is told
    ///
    /// # Errors
    /// The device could not be read, or a label is no class.
    pub fn terms(
        &self,
        masks: Tensor<4>,
        labels: PartLabels,
        normalizer: Option<f64>,
    ) -> Result<PartTerms, TrainError> {
        let targets = labels.with_logits(&masks)?;
        let (divisor, count) = match normalizer {
            Some(known) => (known, 0),
            None => (1.0, self.objective.count(&targets)),
        };
        let named = self
            .objective
            .forward(masks, &targets, &self.weights, divisor);
        Ok(PartTerms { named, count })
    }
}
