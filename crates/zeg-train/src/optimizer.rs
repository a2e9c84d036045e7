//! AdamW over named parameters.
//!
//! burn's [`AdamW`] does the arithmetic; this keeps its state under the parameters' names, flat, so that a checkpoint
//! can hold it beside the weights and a resumed run continues exactly.

use std::collections::BTreeMap;

use burn::{
    optim::{AdamW, AdamWConfig, AdamWState, AdaptiveMomentumState, Optimizer},
    tensor::{Device, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};
use zeg_model::{params::Parameters, prompts::is_prompt};

use crate::TrainError;

/// Settings of AdamW. The released recipes have multipliers by name that come to the same for every
/// trained parameter, norms and biases included, so there is one group; an encoder that is tuned is another. A method
/// with other groups names them in its recipe.
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
    /// Factor on the learning rate of the encoder's own weights, where they are tuned.
    #[serde(skip_serializing_if = "is_tenth")]
    pub encoder_lr: f64,
    /// Longest length of all gradients together; longer ones are shortened to it. Without, they stay as they are.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clip_norm: Option<f64>,
}

/// What a group of parameters has of its own.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParamGroup {
    /// Factor on the learning rate.
    pub lr: f64,
    /// Decoupled weight decay.
    pub weight_decay: f64,
}

/// The group of a parameter, by its name.
type GroupOf = Box<dyn Fn(&str) -> ParamGroup + Send + Sync>;

#[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
fn is_tenth(factor: &f64) -> bool {
    (factor - 0.1).abs() < f64::EPSILON
}

/// Whether a parameter is the encoder's own, and no prompt.
fn is_encoder(name: &str) -> bool {
    name.strip_prefix("backbone.")
        .is_some_and(|rest| !is_prompt(rest))
}

/// The group of a parameter where the method has no groups of its own: one for all, and one for a tuned encoder.
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
    settings: AdamWSettings,
    group_of: GroupOf,
    states: BTreeMap<String, AdamWState<1>>,
}

impl NamedAdamW {
    /// An optimiser that has seen no gradient, with one group and a second one of a tuned encoder.
    pub fn new(settings: &AdamWSettings) -> Self {
        let own = *settings;
        Self::with_groups(settings, move |name| usual_group(&own, name))
    }

    /// An optimiser that has seen no gradient, with groups of one's own.
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

    /// One step: parameters without a gradient stay as they are, without decay.
    ///
    /// - `gradients`: flat, by name
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
            let rule = self.settings.rule(group.weight_decay);
            // The optimiser works outside of the graph, on the flat values.
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

/// The length of all gradients as one vector.
pub fn global_norm<'a>(gradients: impl IntoIterator<Item = &'a Tensor<1>>) -> f64 {
    let squares = gradients
        .into_iter()
        .map(|gradient| f64::from(gradient.clone().square().sum().into_scalar::<f32>()));
    squares.sum::<f64>().sqrt()
}

/// Shortens gradients whose length together exceeds `longest`, as PyTorch's `clip_grad_norm_` does.
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

    #[test]
    fn long_gradients_are_shortened_together_and_short_ones_stay() {
        let device = Device::flex();
        let tensor = |values: [f32; 1]| Tensor::<1>::from_floats(values, &device);
        let gradients =
            || BTreeMap::from([("a".into(), tensor([3.0])), ("b".into(), tensor([-4.0]))]);
        let clipped = clip_to_norm(gradients(), 1.0);
        assert!((values(&clipped["a"])[0] - 0.6).abs() < 1e-5);
        assert!((values(&clipped["b"])[0] + 0.8).abs() < 1e-5);
        let kept = clip_to_norm(gradients(), 5.1);
        assert_eq!(
            (values(&kept["a"]), values(&kept["b"])),
            (vec![3.0], vec![-4.0])
        );
    }
}
