//! Optimises named parameters with AdamW, or with gradient descent that has a momentum.
//!
//! burn's [`AdamW`] does the arithmetic. This module keeps its state as flat vectors under the parameters' names, so
//! that a checkpoint can store it beside the weights and a resumed run continues exactly.

use std::collections::BTreeMap;

use burn::{
    optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer},
    tensor::{Device, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};
use zeg_model::{params::Parameters, prompts::is_prompt};

use crate::TrainError;

/// Settings of AdamW.
///
/// The multipliers by name in the released recipes have the same effect on every trained parameter, including norms and
/// biases, so there is one group of parameters; a fine-tuned encoder is a second one. A method with other groups
/// defines them in its recipe.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AdamWSettings {
    /// Decoupled weight decay.
    pub weight_decay: f64,
    /// Decay rates of the two moments.
    pub betas: (f64, f64),
    /// Added to the root of the second moment.
    pub epsilon: f64,
    /// Factor on the learning rate of the encoder's own weights, if they are fine-tuned.
    #[serde(skip_serializing_if = "is_tenth")]
    pub encoder_lr: f64,
    /// Share of the last step that plain gradient descent repeats, which then replaces AdamW; weight decay is a part of
    /// its gradient. `None`: AdamW.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub momentum: Option<f64>,
    /// Largest norm of all gradients as one vector; larger ones are scaled down to it. `None`: no clipping.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
}

/// Settings of one group of parameters.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParamGroup {
    /// Factor on the learning rate.
    pub lr: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// A function from a parameter's name to its group.
type GroupOf = Box<dyn Fn(&str) -> ParamGroup + Send + Sync>;

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_tenth(factor: &f64) -> bool {
    (factor - 0.1).abs() < f64::EPSILON
}

/// Returns whether a parameter belongs to the encoder and is not a prompt.
fn is_encoder(name: &str) -> bool {
    name.strip_prefix("backbone.")
        .is_some_and(|rest| !is_prompt(rest))
}

/// Returns the default group of a parameter: one group for all, and a second one for a fine-tuned encoder.
pub fn usual_group(settings: &AdamWSettings, name: &str) -> ParamGroup {
    ParamGroup {
        lr: if is_encoder(name) {
            settings.encoder_lr
        } else {
            1.0
        },
        weight_decay: settings.weight_decay,
    }
}

/// The released recipe.
impl Default for AdamWSettings {
    fn default() -> Self {
        Self {
            weight_decay: 0.01,
            betas: (0.9, 0.999),
            epsilon: 1e-8,
            encoder_lr: 0.1,
            momentum: None,
            clip_norm: None,
        }
    }
}

impl AdamWSettings {
    fn rule(&self, weight_decay: f64) -> AdamW {
        AdamWConfig::new()
            .with_beta_1(self.betas.0 as f32)
            .with_beta_2(self.betas.1 as f32)
            .with_epsilon(self.epsilon as f32)
            .with_weight_decay(weight_decay as f32)
            .build()
    }
}

/// The two moments of one parameter as flat vectors, with the number of steps behind them.
#[derive(Debug, Clone, PartialEq)]
pub struct Moments {
    /// Number of steps with a gradient.
    pub time: u64,
    /// Running mean of the gradients.
    pub first: Vec<f32>,
    /// Running mean of the squared gradients.
    pub second: Vec<f32>,
}

/// An AdamW optimiser with one state per named parameter.
pub struct NamedAdamW {
    settings: AdamWSettings,
    group_of: GroupOf,
    states: BTreeMap<String, AdamWState<1>>,
}

impl NamedAdamW {
    /// Creates an optimiser without state and with the default groups.
    pub fn new(settings: &AdamWSettings) -> Self {
        let own = *settings;
        Self::with_groups(settings, move |name| usual_group(&own, name))
    }

    /// Creates an optimiser without state and with the given groups.
    pub fn with_groups(
        settings: &AdamWSettings,
        group_of: impl Fn(&str) -> ParamGroup + Send + Sync + 'static,
    ) -> Self {
        Self {
            settings: *settings,
            group_of: Box::new(group_of),
            states: BTreeMap::new(),
        }
    }

    /// Performs one step; parameters without a gradient are unchanged, also by weight decay.
    ///
    /// - `gradients`: flat gradients by parameter name
    pub fn step(
        &mut self,
        model: &mut (impl Parameters + ?Sized),
        mut gradients: BTreeMap<String, Tensor<1>>,
        learning_rate: f64,
    ) {
        if let Some(longest) = self.settings.clip_norm {
            gradients = clip_to_norm(gradients, longest);
        }
        model.replace(&mut |name, param| {
            let gradient = gradients.remove(name)?;
            let state = self.states.remove(name);
            let group = (self.group_of)(name);
            if let Some(momentum) = self.settings.momentum {
                let step = Descent {
                    rate: learning_rate * group.lr,
                    momentum,
                    weight_decay: group.weight_decay,
                };
                let (flat, state) = step.apply(param.flat(), gradient.without_autodiff(), state);
                self.states.insert(name.to_owned(), state);
                return Some(flat);
            }
            let rule = self.settings.rule(group.weight_decay);
            // The optimiser works on flat values outside of the autodiff graph.
            let (flat, state) = rule.step(
                learning_rate * group.lr,
                param.flat(),
                gradient.without_autodiff(),
                state,
            );
            if let Some(state) = state {
                self.states.insert(name.to_owned(), state);
            }
            Some(flat)
        });
    }

    /// Returns the state for a checkpoint.
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
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

    /// Restores a state from a checkpoint.
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

/// A step of gradient descent with momentum, as PyTorch's `SGD` does it.
struct Descent {
    rate: f64,
    momentum: f64,
    weight_decay: f64,
}

impl Descent {
    /// Returns the new values and the state, whose first moment is the last step; its second one is not used.
    fn apply(
        &self,
        values: Tensor<1>,
        gradient: Tensor<1>,
        state: Option<AdamWState<1>>,
    ) -> (Tensor<1>, AdamWState<1>) {
        let gradient = gradient + values.clone() * self.weight_decay;
        let (time, step) = match state {
            Some(state) => {
                let AdaptiveMomentumState { time, moment_1, .. } = state.momentum;
                (time + 1, moment_1 * self.momentum + gradient)
            }
            None => (1, gradient),
        };
        let unused = Tensor::zeros_like(&step);
        let state = AdamWState::new(AdaptiveMomentumState::new(time, step.clone(), unused));
        (values - step * self.rate, state)
    }
}

/// Returns the norm of all gradients as one vector.
pub fn global_norm<'a>(gradients: impl IntoIterator<Item = &'a Tensor<1>>) -> f64 {
    let squares = gradients
        .into_iter()
        .map(|gradient| f64::from(gradient.clone().square().sum().into_scalar::<f32>()));
    squares.sum::<f64>().sqrt()
}

/// Scales gradients down if their joint norm exceeds `longest`, as PyTorch's `clip_grad_norm_` does.
fn clip_to_norm(
    gradients: BTreeMap<String, Tensor<1>>,
    longest: f64,
) -> BTreeMap<String, Tensor<1>> {
    let squares = gradients.values().map(|g| g.clone().square().sum());
    let Some(squares) = squares.reduce(|a, b| a + b) else {
        return gradients;
    };
    let factor = (squares.sqrt() + 1e-6)
        .recip()
        .mul_scalar(longest)
        .clamp_max(1.0); // [1]
    let scaled = gradients.into_iter();
    scaled
        .map(|(name, gradient)| (name, gradient * factor.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn values(tensor: &Tensor<1>) -> Vec<f32> {
        tensor.clone().into_data().try_into_vec().unwrap()
    }

    /// Values computed by hand: the second step repeats 0.9 of the first.
    #[test]
    fn momentum_repeats_the_last_step() {
        let device = Device::flex();
        let tensor = |value: f32| Tensor::<1>::from_floats([value], &device);
        let rule = Descent {
            rate: 0.1,
            momentum: 0.9,
            weight_decay: 0.5,
        };
        let (first, state) = rule.apply(tensor(2.0), tensor(1.0), None);
        assert!((values(&first)[0] - 1.8).abs() < 1e-6);
        let (second, state) = rule.apply(first, tensor(-1.0), Some(state));
        // 0.9·2 + (−1 + 0.9) = 1.7
        assert!((values(&second)[0] - 1.63).abs() < 1e-6);
        assert_eq!(state.momentum.time, 2);
    }

    #[test]
    fn large_gradients_are_clipped_together_and_small_ones_are_unchanged() {
        let device = Device::flex();
        let tensor = |values: [f32; 1]| Tensor::<1>::from_floats(values, &device);
        let gradients =
            || BTreeMap::from([("a".into(), tensor([3.0])), ("b".into(), tensor([-4.0]))]);
        let clipped = clip_to_norm(gradients(), 1.0);
        assert!((values(&clipped["a"])[0] - 0.6).abs() < 1e-5);
        assert!((values(&clipped["b"])[0] + 0.8).abs() < 1e-5);
        let unclipped = clip_to_norm(gradients(), 5.1);
        assert_eq!(
            (values(&unclipped["a"]), values(&unclipped["b"])),
            (vec![3.0], vec![-4.0])
        );
    }
}
