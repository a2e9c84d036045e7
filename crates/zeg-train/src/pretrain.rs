//! Pre-trains a pair of image and text towers by contrastive learning on images and captions.
//!
//! The loss is CLIP's symmetric InfoNCE with a learned temperature (Radford et al., 2021, figure 3). The caller
//! supplies the images and captions of every step.

use std::{collections::BTreeMap, path::Path};

use burn::{
    module::Module as _,
    tensor::{Device, Tensor, TensorData, activation::log_softmax},
};
use half::f16;
use safetensors::{Dtype, tensor::TensorView};
use serde::{Deserialize, Serialize};
use zeg_model::{
    clip::Clip,
    params::{Parameters as _, flat_gradients, trained_values},
    text::pad,
};

use crate::{
    TrainError,
    batch::images_tensor,
    checkpoint::write_atomically,
    optimizer::{AdamWSettings, Moments, NamedAdamW},
    pretrain_checkpoint::PretrainCheckpoint,
};

/// Settings of the pre-training.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct PretrainConfig {
    /// Number of optimiser steps.
    pub steps: u64,
    /// Number of (image, caption) pairs per step.
    pub batch: usize,
    /// Peak learning rate.
    pub learning_rate: f64,
    /// Number of steps of linear warm-up.
    pub warmup_steps: u64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Seed for initialisation and for the images.
    pub seed: u64,
}

/// The recipe of the committed MiniCLIP.
impl Default for PretrainConfig {
    fn default() -> Self {
        Self {
            steps: 3200,
            batch: 128,
            learning_rate: 1.5e-3,
            warmup_steps: 100,
            weight_decay: 0.01,
            seed: 0,
        }
    }
}

impl PretrainConfig {
    /// Returns the learning rate of step `step` (from 0): half a cosine down to zero, with linear warm-up.
    pub fn learning_rate_at(&self, step: u64) -> f64 {
        let warm = ((step + 1) as f64 / self.warmup_steps.max(1) as f64).min(1.0);
        let done = step as f64 / self.steps.max(1) as f64;
        self.learning_rate * warm * 0.5 * (1.0 + (std::f64::consts::PI * done).cos())
    }
}

/// Images and captions of one step.
#[derive(Debug, Clone)]
pub struct Pairs {
    /// Normalised images: `[batch, 3, size, size]`, row-major.
    pub images: Vec<f32>,
    /// Side of the images in pixels.
    pub size: usize,
    /// Captions as token ids, including start and end tokens.
    pub captions: Vec<Vec<u32>>,
}

/// The report of one pre-training step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct PretrainReport {
    /// Number of the step, from 0.
    pub step: u64,
    /// Learning rate of the step.
    pub lr: f64,
    /// Loss, averaged over both directions; ln(batch) for an untrained model.
    pub loss: f32,
    /// Share of images whose own caption is the nearest in the batch, 0 to 1.
    pub retrieval: f64,
    /// Factor on the cosine similarities (inverse temperature).
    pub scale: f32,
}

/// A pre-training run: a pair of towers with its optimiser.
pub struct Pretrainer {
    model: Clip,
    optimizer: NamedAdamW,
    config: PretrainConfig,
    device: Device,
    step: u64,
}

impl Pretrainer {
    /// Creates a trainer at step 0.
    ///
    /// - `model`: the towers, on `device`
    /// - `device`: a device with autodiff
    pub fn new(model: Clip, config: PretrainConfig, device: Device) -> Self {
        let optimizer = NamedAdamW::new(&AdamWSettings {
            weight_decay: config.weight_decay,
            betas: (0.9, 0.98), // as in CLIP
            epsilon: 1e-6,
            encoder_lr: 1.0,
            momentum: None,
            clip_norm: None,
        });
        Self {
            model,
            optimizer,
            config,
            device,
            step: 0,
        }
    }

    /// Returns the settings of the run.
    pub fn config(&self) -> &PretrainConfig {
        &self.config
    }

    /// Returns the optimiser's state.
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub fn moments(&self) -> Result<BTreeMap<String, Moments>, TrainError> {
        self.optimizer.export()
    }

    /// Restores the state of a checkpoint.
    ///
    /// # Errors
    /// Returns an error if the checkpoint lacks a parameter of the model or has one of another size.
    pub fn resume(&mut self, checkpoint: PretrainCheckpoint) -> Result<(), TrainError> {
        let mut checked = Ok(());
        self.model.each(&mut |name, param| {
            if checked.is_ok() {
                checked = checkpoint.check(name, param.shape().iter().product());
            }
        });
        checked?;
        let device = self.device.clone().without_autodiff();
        let PretrainCheckpoint {
            step,
            mut values,
            moments,
            ..
        } = checkpoint;
        self.model.replace(&mut |name, _| {
            let values = values.remove(name)?;
            let count = values.len();
            Some(Tensor::<1>::from_data(
                TensorData::new(values, [count]),
                &device,
            ))
        });
        self.optimizer.import(moments, &device);
        self.step = step;
        Ok(())
    }

    /// Returns the number of steps done so far, which is the number of the next step.
    pub fn step_number(&self) -> u64 {
        self.step
    }

    /// Returns the model in training.
    pub fn model(&self) -> &Clip {
        &self.model
    }

    /// Returns the model for inference, without an autodiff graph.
    pub fn inference_model(&self) -> Clip {
        self.model.valid()
    }

    /// Trains on one batch.
    ///
    /// # Errors
    /// Returns an error if the loss is not finite; the model is then unchanged.
    pub fn train_step(&mut self, mut pairs: Pairs) -> Result<PretrainReport, TrainError> {
        pad(&mut pairs.captions);
        let images = images_tensor(pairs.images, pairs.size, &self.device);
        let [batch, _, _, _] = images.dims();
        let images = self.model.encode_images(images); // [batch, dim]
        let captions = self.model.encode_texts(&pairs.captions); // [batch, dim]
        let scale = self.model.scale(); // [1]
        let logits = images.matmul(captions.transpose()) * scale.clone().unsqueeze(); // [batch, batch]
        let loss = contrastive_loss(logits.clone());
        let value = loss.clone().into_scalar::<f32>();
        if !value.is_finite() {
            return Err(TrainError::NotFinite {
                step: self.step,
                value,
                terms: BTreeMap::from([("contrastive".to_owned(), value)]),
                images: Vec::new(),
            });
        }
        let mut gradients = loss.backward();
        let gradients = flat_gradients(&self.model, &mut gradients);
        let lr = self.config.learning_rate_at(self.step);
        let report = PretrainReport {
            step: self.step,
            lr,
            loss: value,
            retrieval: retrieval(&logits, batch)?,
            scale: scale.into_scalar::<f32>(),
        };
        let gradients = gradients.into_iter().collect();
        self.optimizer.step(&mut self.model, gradients, lr);
        self.step += 1;
        Ok(report)
    }
}

/// Writes both towers as a weights file in `f16`; the temperature is left out, because only pre-training uses it.
///
/// - `model`: the result of [`Pretrainer::model`]
/// - `metadata`: texts for the file's header, such as the architecture and the vocabulary
///
/// # Errors
/// Returns an error if the file cannot be written; a previous file is then unchanged.
pub fn save_towers(
    path: &Path,
    model: &Clip,
    metadata: BTreeMap<String, String>,
) -> Result<(), TrainError> {
    let invalid = |error: safetensors::SafeTensorError| TrainError::Checkpoint {
        path: path.to_owned(),
        reason: error.to_string(),
    };
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = trained_values(model)
        .into_iter()
        .filter(|tensor| tensor.name != "logit_scale")
        .map(|tensor| {
            let narrow = tensor.values.iter().map(|&value| f16::from_f32(value));
            let bytes = narrow.flat_map(f16::to_le_bytes).collect();
            (tensor.name, tensor.shape, bytes)
        })
        .collect();
    let views = tensors
        .iter()
        .map(|(name, shape, bytes)| {
            let view = TensorView::new(Dtype::F16, shape.clone(), bytes)?;
            Ok((name.as_str(), view))
        })
        .collect::<Result<Vec<_>, _>>()
        .map_err(invalid)?;
    let file = safetensors::serialize(views, None).map_err(invalid)?;
    let file = with_metadata(&file, &metadata).ok_or_else(|| TrainError::Checkpoint {
        path: path.to_owned(),
        reason: "the metadata cannot be written".to_owned(),
    })?;
    write_atomically(path, &file)
}

/// Returns a safetensors file with metadata in the order of their keys, so that equal weights have equal bytes.
///
/// The safetensors crate keeps metadata in a hash map, whose order differs from process to process.
///
/// - `file`: a file without metadata
fn with_metadata(file: &[u8], metadata: &BTreeMap<String, String>) -> Option<Vec<u8>> {
    let (length, rest) = file.split_first_chunk::<8>()?;
    let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
    let (header, data) = rest.split_at_checked(length)?;
    let tensors = str::from_utf8(header).ok()?.trim_end().strip_prefix('{')?;
    let metadata = serde_json::to_string(metadata).ok()?;
    let comma = if tensors == "}" { "" } else { "," };
    let mut header = format!("{{\"__metadata__\":{metadata}{comma}{tensors}");
    while !header.len().is_multiple_of(8) {
        header.push(' '); // the data are aligned
    }
    let length = (header.len() as u64).to_le_bytes();
    Some([&length[..], header.as_bytes(), data].concat())
}

/// Computes the symmetric InfoNCE loss: each image against all captions, and each caption against all images.
///
/// - `logits`: scaled cosine similarities, `[batch, batch]`, images by captions
///
/// Returns `[1]`.
fn contrastive_loss(logits: Tensor<2>) -> Tensor<1> {
    let [batch, _] = logits.dims();
    let pairs = Tensor::<2>::eye(batch, &logits.device());
    let of_images = log_softmax(logits.clone(), 1);
    let of_captions = log_softmax(logits, 0);
    ((of_images + of_captions) * pairs).sum() * (-0.5 / batch as f64)
}

/// Returns the share of rows whose diagonal value is the highest.
fn retrieval(logits: &Tensor<2>, batch: usize) -> Result<f64, TrainError> {
    let data = logits.clone().without_autodiff().into_data();
    let values: Vec<f32> = data
        .convert::<f32>()
        .try_into_vec()
        .map_err(|error| TrainError::Backend(format!("{error:?}")))?;
    let rows = values.chunks_exact(batch.max(1)).enumerate();
    let found = rows.filter(|(index, row)| row.iter().all(|value| *value <= row[*index]));
    Ok(found.count() as f64 / batch.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The PyTorch expression is, with logits = [[2, 0], [1, 1]]:
    /// (cross_entropy(logits, [0, 1]) + cross_entropy(logits.T, [0, 1])) / 2
    #[test]
    fn the_loss_is_the_mean_of_both_directions() {
        let logits = Tensor::<2>::from_floats([[2.0, 0.0], [1.0, 1.0]], &Device::flex());
        let e = std::f64::consts::E;
        let rows = (1.0 + e.powi(-2)).ln() + 2.0_f64.ln();
        let columns = (1.0 + e.powi(-1)).ln() * 2.0;
        let loss = f64::from(contrastive_loss(logits.clone()).into_scalar::<f32>());
        assert!((loss - (rows + columns) / 4.0).abs() < 1e-6, "{loss}");
        assert!(retrieval(&logits, 2).unwrap() > 0.99);
    }

    #[test]
    fn metadata_have_one_order() {
        let view = TensorView::new(Dtype::F32, vec![1], &[0, 0, 128, 63]).unwrap();
        let file = safetensors::serialize([("weight", view)], None).unwrap();
        let pairs = [("b", "2"), ("a", "\"1\"")];
        let metadata = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
        let metadata = BTreeMap::from(metadata);
        let file = with_metadata(&file, &metadata).unwrap();
        let (_, header) = safetensors::SafeTensors::read_metadata(&file).unwrap();
        let read = header.metadata().clone().unwrap();
        assert_eq!(read.into_iter().collect::<BTreeMap<_, _>>(), metadata);
        let tensors = safetensors::SafeTensors::deserialize(&file).unwrap();
        assert_eq!(tensors.tensor("weight").unwrap().data(), [0, 0, 128, 63]);
        assert!(String::from_utf8_lossy(&file[8..]).starts_with("{\"__metadata__\":{\"a\":"));
    }

    #[test]
    fn the_learning_rate_rises_and_falls_to_zero() {
        let config = PretrainConfig {
            steps: 1000,
            ..PretrainConfig::default()
        };
        assert!(config.learning_rate_at(0) < 2e-5);
        assert!(config.learning_rate_at(99) > 1.4e-3);
        assert!(config.learning_rate_at(999) < 1e-7);
    }
}
