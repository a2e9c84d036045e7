//! AdamW over named parameters.
//!
//! burn's [`AdamW`] does the arithmetic; this keeps its state under the parameters' names, flat, so that a checkpoint
//! can hold it beside the weights and a resumed run continues exactly.

use std::collections::BTreeMap;

use burn::{
    module::{Module, Param},
    optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer},
    tensor::{Device, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};
use zeg_model::params::{ParamMapper, map_params};

use crate::TrainError;

/// Settings of AdamW. The released recipe's multipliers by name come to the same for every trained parameter, norms
/// and biases included, so there is one group; an encoder that is tuned is another.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AdamWSettings {
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay rates of the two moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Factor on the learning rate of the encoder's own weights, where they are tuned.
    #[serde(skip_serializing_if = "is_tenth")]
    pub encoder_lr: f64,
}

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_tenth(factor: &f64) -> bool {
    (factor - 0.1).abs() < f64::EPSILON
}

/// Whether a parameter is the encoder's own, and no prompt.
fn is_encoder(name: &str) -> bool {
    name.strip_prefix("backbone.")
        .is_some_and(|rest| !rest.starts_with("prompt") && !rest.starts_with("deep_prompt"))
}

/// The released recipe.
impl Default for AdamWSettings {
    fn default() -> Self {
        Self {
            weight_decay: 0.01,
            betas: (0.9, 0.999),
            epsilon: 1e-8,
            encoder_lr: 0.1,
        }
    }
}

/// The two moments of one parameter, flat, and how many steps they have seen.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Steps with a gradient.
    pub time: u64,
    /// Mean of gradients.
    pub first: Vec<f32>,
    /// Mean of squared gradients.
    pub second: Vec<f32>,
}

/// AdamW with a state for each named parameter.
pub struct NamedAdamW {
    rule: AdamW,
    encoder_lr: f64,
    states: BTreeMap<String, AdamWState<1>>,
}

impl NamedAdamW {
    /// An optimiser that has seen no gradient.
    pub fn new(settings: &AdamWSettings) -> Self {
        let rule = AdamWConfig::new()
            .with_beta_1(settings.betas.0 as f32)
            .with_beta_2(settings.betas.1 as f32)
            .with_epsilon(settings.epsilon as f32)
            .with_weight_decay(settings.weight_decay as f32)
            .build();
        Self {
            rule,
            encoder_lr: settings.encoder_lr,
            states: BTreeMap::new(),
        }
    }

    /// One step: parameters without a gradient stay as they are, without decay.
    ///
    /// - `gradients`: flat, by name
    pub fn step<M: Module>(
        &mut self,
        model: M,
        gradients: BTreeMap<String, Tensor<1>>,
        learning_rate: f64,
    ) -> M {
        map_params(
            model,
            &mut Step {
                optimizer: self,
                gradients,
                learning_rate,
            },
        )
    }

    /// The state, for a checkpoint.
    ///
    /// # Errors
    /// The device could not be read.
    pub fn export(&self) -> Result<BTreeMap<String, Moments>, TrainError> {
        let read = |tensor: &Tensor<1>| {
            let data = tensor.clone().into_data().convert::<f32>();
            data.try_into_vec()
                .map_err(|error| TrainError::Backend(format!("{error:?}")))
        };
        self.states
            .iter()
            .map(|(name, state)| {
                let momentum = &state.momentum;
                let moments = Moments {
                    time: momentum.time as u64,
                    first: read(&momentum.moment_1)?,
                    second: read(&momentum.moment_2)?,
                };
                Ok((name.clone(), moments))
            })
            .collect()
    }

    /// Takes a state from a checkpoint.
    pub fn import(&mut self, states: BTreeMap<String, Moments>, device: &Device) {
        let tensor = |values: Vec<f32>| {
            let count = values.len();
            Tensor::<1>::from_data(TensorData::new(values, [count]), device)
        };
        self.states = states
            .into_iter()
            .map(|(name, m)| {
                let momentum =
                    AdaptiveMomentumState::new(m.time as usize, tensor(m.first), tensor(m.second));
                (name, AdamWState::new(momentum))
            })
            .collect();
    }
}

struct Step<'a> {
    optimizer: &'a mut NamedAdamW,
    gradients: BTreeMap<String, Tensor<1>>,
    learning_rate: f64,
}

impl ParamMapper for Step<'_> {
    fn map<const D: usize>(&mut self, name: &str, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let Some(gradient) = self.gradients.remove(name) else {
            return param;
        };
        let state = self.optimizer.states.remove(name);
        let rule = &self.optimizer.rule;
        let factor = if is_encoder(name) {
            self.optimizer.encoder_lr
        } else {
            1.0
        };
        let learning_rate = self.learning_rate * factor;
        let mut next = None;
        let param = param.map(|value| {
            let shape = value.shape();
            // The optimiser works outside of the graph, on the flat values.
            let flat = value.without_autodiff().flatten(0, D - 1);
            let (flat, state) = rule.step(learning_rate, flat, gradient.without_autodiff(), state);
            next = state;
            Tensor::<D>::from_inner(flat.reshape(shape)).require_grad()
        });
        if let Some(state) = next {
            self.optimizer.states.insert(name.to_owned(), state);
        }
        param
    }
}
