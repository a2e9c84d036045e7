//! Batch normalisation: with the statistics of the batch in training, with running means of them otherwise.

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};

use crate::{
    ModelError,
    params::RunningValue,
    weights::{Init, ParamBuilder},
};

/// Epsilon added to every variance before the square root.
const EPSILON: f64 = 1e-5;
/// Weight of a batch in the running means.
const MOMENTUM: f64 = 0.1;

/// The statistics that activations are normalised with.
#[derive(Debug)]
pub enum Statistics {
    /// The stored running means.
    Stored,
    /// Those of the batch; they are collected here as new values of the running means.
    Batch(Vec<RunningValue>),
}

impl Statistics {
    /// Returns the statistics of a batch, none of which is collected yet.
    pub fn of_batch() -> Self {
        Self::Batch(Vec::new())
    }

    /// Returns what was collected.
    pub fn collected(self) -> Vec<RunningValue> {
        match self {
            Self::Stored => Vec::new(),
            Self::Batch(values) => values,
        }
    }
}

/// Batch normalisation with a scale and a shift per channel.
#[derive(Module, Debug)]
pub struct BatchNorm {
    /// `[channels]`
    pub weight: Param<Tensor<1>>,
    /// `[channels]`
    pub bias: Param<Tensor<1>>,
    /// `[channels]`
    pub running_mean: Param<Tensor<1>>,
    /// `[channels]`
    pub running_var: Param<Tensor<1>>,
    /// Full names of the two running means.
    #[module(skip)]
    names: [String; 2],
}

impl BatchNorm {
    /// Reads or initialises the layer.
    ///
    /// - `start`: initial scale
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(params: &ParamBuilder, channels: usize, start: f32) -> Result<Self, ModelError> {
        let vector = |name, start| params.param(name, [channels], Init::Constant(start));
        Ok(Self {
            weight: vector("weight", start)?,
            bias: vector("bias", 0.0)?,
            running_mean: vector("running_mean", 0.0)?,
            running_var: vector("running_var", 1.0)?,
            names: ["running_mean", "running_var"].map(|name| params.key(name)),
        })
    }

    /// Returns the scale and shift that the stored statistics amount to, `[channels]` each.
    pub(super) fn factor_and_term(&self) -> (Tensor<1>, Tensor<1>) {
        let factor = self.weight.val() / (self.running_var.val() + EPSILON).sqrt();
        let term = self.bias.val() - self.running_mean.val() * factor.clone();
        (factor, term)
    }

    /// Normalises each channel: `[batch, channels, h, w]` → the same shape
    pub fn forward(&self, x: Tensor<4>, statistics: &mut Statistics) -> Tensor<4> {
        let [batch, channels, h, w] = x.dims();
        let Statistics::Batch(collected) = statistics else {
            let (factor, term) = self.factor_and_term();
            let per_channel = |values: Tensor<1>| values.reshape([1, channels, 1, 1]);
            return x * per_channel(factor) + per_channel(term);
        };
        let count = batch * h * w;
        let flat = x.swap_dims(0, 1).reshape([channels, count]);
        let mean = flat.clone().mean_dim(1); //                        [channels, 1]
        let centred = flat - mean.clone(); //                          [channels, count]
        let variance = centred.clone().square().mean_dim(1); //        [channels, 1]
        // The running variance is that of a sample, the one that is divided by is not.
        let of_sample = count as f64 / count.saturating_sub(1).max(1) as f64;
        let observed = [mean, variance.clone() * of_sample];
        for (name, value) in self.names.iter().zip(observed) {
            collected.push(RunningValue {
                name: name.clone(),
                value: value.reshape([channels]).detach().without_autodiff(),
                momentum: MOMENTUM,
            });
        }
        let column = |param: &Param<Tensor<1>>| param.val().reshape([channels, 1]);
        let normed = centred / (variance + EPSILON).sqrt() * column(&self.weight);
        (normed + column(&self.bias))
            .reshape([channels, batch, h, w])
            .swap_dims(0, 1)
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::weights::StateDict;

    fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
        tensor.into_data().try_to_vec().unwrap()
    }

    #[test]
    fn a_batch_is_normalised_and_its_statistics_are_collected() {
        let weights = StateDict::default();
        let params = ParamBuilder::new(&weights, &Device::flex(), 0, &|_| false);
        let norm = BatchNorm::build(&params.at("bn"), 2, 1.0).unwrap();
        // Values of the first channel: 1, 3, 5, 7; of the second: 0 everywhere.
        let x = Tensor::<4>::from_floats(
            [[[[1.0, 3.0]], [[0.0, 0.0]]], [[[5.0, 7.0]], [[0.0, 0.0]]]],
            &Device::flex(),
        );
        let mut statistics = Statistics::of_batch();
        let y = values(norm.forward(x.clone(), &mut statistics));
        let root = 5.0_f32.sqrt();
        let expected = [
            -3.0 / root,
            -1.0 / root,
            0.0,
            0.0,
            1.0 / root,
            3.0 / root,
            0.0,
            0.0,
        ];
        for (found, expected) in y.iter().zip(expected) {
            assert!((found - expected).abs() < 1e-4, "{y:?}");
        }
        let collected = statistics.collected();
        let names: Vec<&str> = collected.iter().map(|v| v.name.as_str()).collect();
        assert_eq!(names, ["bn.running_mean", "bn.running_var"]);
        assert_eq!(values(collected[0].value.clone()), [4.0, 0.0]);
        let variance = values(collected[1].value.clone());
        assert!((variance[0] - 20.0 / 3.0).abs() < 1e-5, "{variance:?}"); // of a sample: divided by 3
        // With stored statistics (0 and 1), a value stays what it is, up to epsilon.
        let stored = values(norm.forward(x, &mut Statistics::Stored));
        assert!((stored[5] - 7.0).abs() < 1e-3, "{stored:?}");
    }
}
