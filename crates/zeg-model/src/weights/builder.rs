//! From named tensors to parameters: one place decides whether a parameter is read or initialised, and whether it
//! is trained.

use std::{cell::RefCell, rc::Rc};

use burn::{
    module::{Param, ParamId},
    tensor::{Device, Tensor, TensorData},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::{HostTensor, StateDict};
use crate::{ModelError, packing::Packing};
use zeg_kernels::Precision;

/// How a parameter starts that is not read from a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// Must be read: there is no sensible start.
    Required,
    /// Every value the same.
    Constant(f32),
    /// Uniform in ±bound.
    Uniform(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
}

/// What became of the parameters of a model.
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    /// Read from the weights.
    pub read: Vec<String>,
    /// Not in the weights, initialised.
    pub initialized: Vec<String>,
}

struct Shared<'a> {
    weights: &'a StateDict,
    device: Device,
    seed: u64,
    trained: &'a dyn Fn(&str) -> bool,
    blueprint: bool,
    /// For inference.
    packing: Option<Packing>,
    /// Of frozen blocks, where something before them is trained.
    frozen_packing: Option<Packing>,
    provenance: RefCell<Provenance>,
}

/// Hands out the parameters of a model, each under its full name.
#[derive(Clone)]
pub struct ParamBuilder<'a> {
    shared: Rc<Shared<'a>>,
    prefix: String,
    /// `(prefix, prefix)`: initial values under the first are those of the second.
    twin: Option<(String, String)>,
}

impl<'a> ParamBuilder<'a> {
    /// A builder at the root of the names.
    ///
    /// - `seed`: of the initial values; each parameter draws from a stream of its own, so that adding a parameter
    ///   does not change the others.
    /// - `trained`: whether the parameter of that full name is trained; the others are frozen.
    pub fn new(
        weights: &'a StateDict,
        device: &Device,
        seed: u64,
        trained: &'a dyn Fn(&str) -> bool,
    ) -> Self {
        let shared = Shared {
            weights,
            device: device.clone(),
            seed,
            trained,
            blueprint: false,
            packing: None,
            frozen_packing: Packing::of_frozen(device),
            provenance: RefCell::new(Provenance::default()),
        };
        Self {
            shared: Rc::new(shared),
            prefix: String::new(),
            twin: None,
        }
    }

    /// A builder of a model's shape alone: every parameter is left without values, for counting.
    pub fn blueprint(
        weights: &'a StateDict,
        device: &Device,
        trained: &'a dyn Fn(&str) -> bool,
    ) -> Self {
        let shared = Shared {
            weights,
            device: device.clone(),
            seed: 0,
            trained,
            blueprint: true,
            packing: None,
            frozen_packing: None,
            provenance: RefCell::new(Provenance::default()),
        };
        Self {
            shared: Rc::new(shared),
            prefix: String::new(),
            twin: None,
        }
    }

    /// A builder, at the root of the names, of a model for inference alone: on the CPU its linear layers hold packed
    /// weights, which cannot be trained or written to a file.
    ///
    /// # Errors
    /// The device has no kernels for integers, or is one for training.
    pub fn packed(
        weights: &'a StateDict,
        device: &Device,
        seed: u64,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        let packing = Packing::new(precision, device)?;
        Ok(Self::for_inference(weights, device, seed, packing))
    }

    /// A builder, at the root of the names, of the part of a model that no gradient passes: on a device for training,
    /// it is packed as [`ParamBuilder::packed`] does in floats.
    pub(crate) fn apart(weights: &'a StateDict, device: &Device, seed: u64) -> Self {
        Self::for_inference(weights, device, seed, Packing::of_frozen(device))
    }

    fn for_inference(
        weights: &'a StateDict,
        device: &Device,
        seed: u64,
        packing: Option<Packing>,
    ) -> Self {
        let shared = Shared {
            weights,
            device: device.clone(),
            seed,
            trained: &|_| false,
            blueprint: false,
            packing,
            frozen_packing: None,
            provenance: RefCell::new(Provenance::default()),
        };
        Self {
            shared: Rc::new(shared),
            prefix: String::new(),
            twin: None,
        }
    }

    /// How linear layers are packed for inference, if they are.
    pub fn packing(&self) -> Option<&Packing> {
        self.shared.packing.as_ref()
    }

    /// How the linear layers at this level are packed in a model that is trained: `None` if one of these parameters is
    /// trained itself, or on a device that has no use for it.
    pub(crate) fn frozen_packing(&self, names: &[&str]) -> Option<&Packing> {
        let packing = self.shared.frozen_packing.as_ref()?;
        let frozen = |name: &&str| !(self.shared.trained)(&self.key(name));
        names.iter().all(frozen).then_some(packing)
    }

    /// The builder one level down.
    #[must_use]
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self {
            prefix: format!("{}{name}.", self.prefix),
            ..self.clone()
        }
    }

    /// This builder, but fresh parameters start with the values that `other` gives them.
    #[must_use]
    pub fn starting_as(&self, other: Self) -> Self {
        Self {
            twin: Some((self.prefix.clone(), other.prefix)),
            ..self.clone()
        }
    }

    /// Full name of a parameter at this level.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// The weights under this builder.
    pub fn weights(&self) -> &'a StateDict {
        self.shared.weights
    }

    /// The device that parameters are made on.
    pub fn device(&self) -> &Device {
        &self.shared.device
    }

    /// What was read and what was initialised so far.
    pub fn provenance(&self) -> Provenance {
        self.shared.provenance.borrow().clone()
    }

    /// The parameter `name` of this level, read if the weights hold it, otherwise initialised.
    ///
    /// # Errors
    /// It is missing and [`Init::Required`], or stored with another shape.
    pub fn param<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        init: Init,
    ) -> Result<Param<Tensor<D>>, ModelError> {
        let key = self.key(name);
        if self.shared.blueprint {
            return Ok(self.shape_only(&key, shape));
        }
        let Some(tensor) = self.shared.weights.read(&key)? else {
            if init == Init::Required {
                return Err(ModelError::MissingTensor {
                    key,
                    origin: self.shared.weights.origin(),
                });
            }
            let values = initial_values(
                init,
                shape.iter().product(),
                self.shared.seed,
                &self.stream(&key),
            );
            self.shared
                .provenance
                .borrow_mut()
                .initialized
                .push(key.clone());
            return Ok(self.make(
                &key,
                HostTensor {
                    shape: shape.to_vec(),
                    values,
                },
            ));
        };
        self.given(name, shape, tensor)
    }

    /// The parameter `name` of this level with values that the caller prepared from the weights.
    ///
    /// # Errors
    /// The values have another shape.
    pub fn given<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        tensor: HostTensor,
    ) -> Result<Param<Tensor<D>>, ModelError> {
        let key = self.key(name);
        if tensor.shape != shape {
            return Err(ModelError::TensorShape {
                key,
                found: tensor.shape,
                expected: shape.to_vec(),
                origin: self.shared.weights.origin(),
            });
        }
        self.shared.provenance.borrow_mut().read.push(key.clone());
        Ok(self.make(&key, tensor))
    }

    /// Name of the stream that a fresh parameter draws its values from.
    fn stream(&self, key: &str) -> String {
        match &self.twin {
            Some((mine, other)) => key
                .strip_prefix(mine)
                .map_or_else(|| key.to_owned(), |rest| format!("{other}{rest}")),
            None => key.to_owned(),
        }
    }

    fn shape_only<const D: usize>(&self, key: &str, shape: [usize; D]) -> Param<Tensor<D>> {
        let init = move |device: &Device, _| Tensor::zeros(shape, device);
        let trained = (self.shared.trained)(key);
        Param::uninitialized(
            ParamId::new(),
            init,
            self.shared.device.clone(),
            trained,
            shape.into(),
        )
    }

    fn make<const D: usize>(&self, key: &str, tensor: HostTensor) -> Param<Tensor<D>> {
        let data = TensorData::new(tensor.values, tensor.shape);
        let tensor = Tensor::<D>::from_data(data, &self.shared.device);
        Param::initialized(ParamId::new(), tensor).set_require_grad((self.shared.trained)(key))
    }
}

/// Initial values of one parameter: a function of the seed and its name alone.
fn initial_values(init: Init, count: usize, seed: u64, key: &str) -> Vec<f32> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed ^ zeg_base::hash::fnv1a(key));
    match init {
        Init::Required => Vec::new(),
        Init::Constant(value) => vec![value; count],
        Init::Uniform(bound) => (0..count)
            .map(|_| (rng.random_range(-1.0..1.0) * bound) as f32)
            .collect(),
        Init::Normal(std) => (0..count)
            .map(|_| (rng.sample::<f64, _>(StandardNormal) * std) as f32)
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn initial_values_depend_on_seed_and_name_alone_and_have_the_stated_spread() {
        let a = initial_values(Init::Normal(0.05), 20_000, 7, "a.weight");
        assert_eq!(a, initial_values(Init::Normal(0.05), 20_000, 7, "a.weight"));
        assert_ne!(a, initial_values(Init::Normal(0.05), 20_000, 8, "a.weight"));
        assert_ne!(a, initial_values(Init::Normal(0.05), 20_000, 7, "b.weight"));
        let std = (a.iter().map(|v| f64::from(v * v)).sum::<f64>() / a.len() as f64).sqrt();
        assert!((std - 0.05).abs() < 0.002, "{std}");
        let uniform = initial_values(Init::Uniform(0.25), 20_000, 7, "a.weight");
        let largest = uniform.iter().fold(0.0_f32, |m, v| m.max(v.abs()));
        assert!(largest <= 0.25 && largest > 0.249, "{largest}");
    }
}
