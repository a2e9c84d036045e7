//! Checks the numbers of the training settings, and that a batch fits into memory.

use zeg_base::{
    memory::{check, product},
    numbers::Legal,
};

use crate::{TrainError, experiment::TrainingConfig};

impl TrainingConfig {
    /// Checks the range of the rates and factors.
    pub(crate) fn check_numbers(&self) -> Result<(), TrainError> {
        let (schedule, optimizer) = (&self.schedule, &self.optimizer);
        let limit = self
            .evaluation
            .as_ref()
            .and_then(|validation| validation.limit);
        for (setting, count) in [
            ("micro-batch", self.micro_batch),
            ("evaluation.limit", limit),
        ] {
            if count == Some(0) {
                return Err(TrainError::Config(format!(
                    "training.{setting} = 0: must be at least 1, or be left out"
                )));
            }
        }
        for (setting, value, legal) in [
            ("schedule.base", Some(schedule.base), Legal::NotNegative),
            (
                "schedule.minimum",
                Some(schedule.minimum),
                Legal::NotNegative,
            ),
            ("schedule.power", Some(schedule.power), Legal::NotNegative),
            (
                "schedule.warmup-ratio",
                Some(schedule.warmup_ratio),
                Legal::NotNegative,
            ),
            (
                "optimizer.weight-decay",
                Some(optimizer.weight_decay),
                Legal::NotNegative,
            ),
            ("optimizer.betas", Some(optimizer.betas.0), Legal::BelowOne),
            ("optimizer.betas", Some(optimizer.betas.1), Legal::BelowOne),
            (
                "optimizer.epsilon",
                Some(optimizer.epsilon),
                Legal::Positive,
            ),
            (
                "optimizer.encoder-lr",
                Some(optimizer.encoder_lr),
                Legal::NotNegative,
            ),
            ("optimizer.momentum", optimizer.momentum, Legal::BelowOne),
            ("optimizer.clip-norm", optimizer.clip_norm, Legal::Positive),
        ] {
            if let Some(value) = value.filter(|value| !legal.accepts(*value)) {
                return Err(TrainError::Setting {
                    setting: format!("training.{setting}"),
                    value,
                    legal: legal.text(),
                });
            }
        }
        Ok(())
    }

    /// Checks that a batch of images and the masks of a micro-batch fit into the memory of the machine.
    ///
    /// The estimate is a lower bound: it counts the images, their labels, and the logits of all classes at the targets'
    /// size with their gradients, but not what the encoder keeps.
    ///
    /// - `classes`: number of training classes
    ///
    /// # Errors
    /// Returns an error with the estimate if they do not.
    pub fn check_memory(&self, classes: usize) -> Result<(), TrainError> {
        let size = self.preprocess.size();
        let target = size / self.loss_stride.max(1);
        let micro_batch = self.micro_batch();
        let images = product(&[
            self.batch,
            size,
            size,
            3 * size_of::<f32>() + size_of::<u16>(),
        ]);
        let masks = product(&[micro_batch, target, target, classes, 2 * size_of::<f32>()]);
        check(images.saturating_add(masks)).map_err(|source| TrainError::Memory {
            what: format!(
                "training.batch = {}, {micro_batch} images of {size}×{size} pixels at once, {classes} classes",
                self.batch
            ),
            source,
        })
    }
}
