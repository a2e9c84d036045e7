//! Builds parameters from named tensors: it decides whether a parameter is read or initialised, and whether it is
//! trained.

use std::{cell::RefCell, rc::Rc};

use burn::{
    module::{Param, ParamId},
    tensor::{Device, Tensor, TensorData},
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;

use super::{HostTensor, StateDict, ValueDefect, value_defect};
use crate::{ModelError, packing::Packing};
use zeg_kernels::Precision;

/// The initialisation of a parameter that is not read from a file.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Init {
    /// No initialisation: the parameter must be read.
    Required,
    /// The same value everywhere.
    Constant(f32),
    /// Uniform in ±bound.
    Uniform(f64),
    /// Normal with mean 0 and this standard deviation.
    Normal(f64),
}

/// The origin of each parameter of a model.
#[derive(Debug, Clone, Default)]
pub struct Provenance {
    /// Parameters read from the weights.
    pub read: Vec<String>,
    /// Parameters that the weights lack, which were initialised.
    pub initialized: Vec<String>,
}

struct Shared<'a> {
    weights: &'a StateDict,
    device: Device,
    seed: u64,
    trained: &'a dyn Fn(&str) -> bool,
    /// Parameters that are constants or have no effect, which no checkpoint stores.
    unused: &'a dyn Fn(&str) -> bool,
    blueprint: bool,
    /// Packing of linear layers for inference.
    packing: Option<Packing>,
    /// Packing of frozen blocks that have a trained part before them.
    frozen_packing: Option<Packing>,
    /// What becomes of a parameter that the weights lack.
    missing: Missing,
    provenance: RefCell<Provenance>,
}

/// What becomes of a parameter that the weights lack.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    /// It is initialised, unless it is [`Init::Required`].
    Initialize,
    /// The model is not whole, which is an error: nothing trains the parameter before it is used.
    Refuse,
}

/// A builder that reads or initialises the parameters of a model, each under its full name.
#[derive(Clone)]
pub struct ParamBuilder<'a> {
    shared: Rc<Shared<'a>>,
    prefix: String,
    /// `(prefix, prefix)`: initial values under the first prefix are those under the second.
    twin: Option<(String, String)>,
}

impl<'a> ParamBuilder<'a> {
    /// Returns a builder rooted at the top-level prefix.
    ///
    /// - `seed`: seed of the initial values; each parameter draws from its own stream, so that adding a parameter does
    ///   not change the others.
    /// - `trained`: returns whether the parameter of a full name is trained; the others are frozen.
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
            unused: &|_| false,
            blueprint: false,
            packing: None,
            frozen_packing: Packing::of_frozen(device),
            missing: Missing::Initialize,
            provenance: RefCell::new(Provenance::default()),
        };
        Self {
            shared: Rc::new(shared),
            prefix: String::new(),
            twin: None,
        }
    }

    /// Returns a builder of a model's shape only: every parameter is left without values, for counting.
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
            unused: &|_| false,
            blueprint: true,
            packing: None,
            frozen_packing: None,
            missing: Missing::Initialize,
            provenance: RefCell::new(Provenance::default()),
        };
        Self {
            shared: Rc::new(shared),
            prefix: String::new(),
            twin: None,
        }
    }

    /// Returns a builder, rooted at the top-level prefix, of a model for inference only: on the CPU its linear layers
    /// hold packed weights, which cannot be trained or written to a file. Every parameter must be in the weights.
    ///
    /// # Errors
    /// Returns an error if 8-bit integers are requested on a device without kernels for them, or on a device for
    /// training.
    pub fn packed(
        weights: &'a StateDict,
        device: &Device,
        seed: u64,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        let packing = Packing::new(precision, device)?;
        Ok(Self::for_inference(weights, device, seed, packing))
    }

    /// Returns a builder, rooted at the top-level prefix, for the part of a model that no gradient passes: on a device
    /// for training, that part is packed as [`ParamBuilder::packed`] does, in floating point.
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
            unused: &|_| false,
            blueprint: false,
            packing,
            frozen_packing: None,
            missing: Missing::Refuse,
            provenance: RefCell::new(Provenance::default()),
        };
        Self {
            shared: Rc::new(shared),
            prefix: String::new(),
            twin: None,
        }
    }

    /// Returns this builder, which accepts that parameters are missing that no checkpoint stores.
    ///
    /// - `unused`: returns whether the parameter of a full name is a constant or has no effect
    #[must_use]
    pub fn without(mut self, unused: &'a dyn Fn(&str) -> bool) -> Self {
        if let Some(shared) = Rc::get_mut(&mut self.shared) {
            shared.unused = unused;
        }
        self
    }

    /// Returns this builder, which packs frozen layers in another precision than 32-bit floats where a device packs them
    /// at all.
    ///
    /// # Errors
    /// Returns an error for 8-bit integers, and for bf16 on a device that does not pack the layers of a model that is
    /// trained.
    pub(crate) fn freezing_in(mut self, precision: Precision) -> Result<Self, ModelError> {
        let Some(shared) = Rc::get_mut(&mut self.shared) else {
            return Ok(self);
        };
        if precision == Precision::Float || shared.blueprint {
            return Ok(self);
        }
        if shared.frozen_packing.is_none() && shared.packing.is_none() {
            return Err(ModelError::Config(format!(
                "training.precision = \"{precision}\" is only supported on the CPU; take \"f32\" on other devices"
            )));
        }
        for packing in [&mut shared.frozen_packing, &mut shared.packing] {
            let changed = packing.take().map(|it| it.of_precision(precision));
            *packing = changed.transpose()?;
        }
        Ok(self)
    }

    /// Returns whether parameters are left without values.
    pub(crate) fn is_blueprint(&self) -> bool {
        self.shared.blueprint
    }

    /// Returns the packing of linear layers for inference, if they are packed.
    pub fn packing(&self) -> Option<&Packing> {
        self.shared.packing.as_ref()
    }

    /// Returns the packing of the linear layers at this level in a model that is trained; `None` if one of these
    /// parameters is trained itself, or if the device does not use packed weights.
    pub(crate) fn frozen_packing(&self, names: &[&str]) -> Option<&Packing> {
        let packing = self.shared.frozen_packing.as_ref()?;
        let frozen = |name: &&str| !(self.shared.trained)(&self.key(name));
        names.iter().all(frozen).then_some(packing)
    }

    /// Returns whether the parameter `name` at this level is trained.
    pub fn trains(&self, name: &str) -> bool {
        (self.shared.trained)(&self.key(name))
    }

    /// Returns the builder of the prefix `name` below this one.
    #[must_use]
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self {
            prefix: format!("{}{name}.", self.prefix),
            ..self.clone()
        }
    }

    /// Returns this builder with a twin: its initialised parameters get the initial values that `other` would give
    /// them.
    #[must_use]
    pub fn starting_as(&self, other: Self) -> Self {
        Self {
            twin: Some((self.prefix.clone(), other.prefix)),
            ..self.clone()
        }
    }

    /// Returns the full name of a parameter at this level.
    pub fn key(&self, name: &str) -> String {
        format!("{}{name}", self.prefix)
    }

    /// Returns the weights that parameters are read from.
    pub fn weights(&self) -> &'a StateDict {
        self.shared.weights
    }

    /// Returns the device on which parameters are created.
    pub fn device(&self) -> &Device {
        &self.shared.device
    }

    /// Returns which parameters were read and which were initialised so far.
    pub fn provenance(&self) -> Provenance {
        self.shared.provenance.borrow().clone()
    }

    /// Returns the parameter `name` at this level, read if the weights hold it, otherwise initialised.
    ///
    /// # Errors
    /// Returns an error if the parameter is missing and [`Init::Required`] or the model is for inference only, if it is
    /// stored with the wrong shape, if a value is not finite, or if a matrix holds nothing but zeros.
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
            if init == Init::Required || self.must_be_read(name) {
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

    /// Returns whether the parameter `name` at this level may not start fresh, because nothing trains it before it is used.
    pub(crate) fn must_be_read(&self, name: &str) -> bool {
        self.shared.missing == Missing::Refuse && !(self.shared.unused)(&self.key(name))
    }

    /// Returns the parameter `name` at this level, which the weights lack, with initial values that the caller computed.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::given`].
    pub(crate) fn starting_from<const D: usize>(
        &self,
        name: &str,
        shape: [usize; D],
        tensor: HostTensor,
    ) -> Result<Param<Tensor<D>>, ModelError> {
        let param = self.given(name, shape, tensor)?;
        if !(self.shared.trained)(&self.key(name)) {
            return Ok(param); // a constant that follows from the weights
        }
        let mut provenance = self.shared.provenance.borrow_mut();
        let name = provenance.read.pop();
        provenance.initialized.extend(name);
        Ok(param)
    }

    /// Returns the parameter `name` at this level, with values that the caller computed from the weights.
    ///
    /// # Errors
    /// Returns an error if the values have the wrong shape, one of them is not finite, or a matrix holds nothing but
    /// zeros.
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
        self.check_values(&key, &tensor)?;
        self.shared.provenance.borrow_mut().read.push(key.clone());
        Ok(self.make(&key, tensor))
    }

    /// Checks that values can be those of a model: one that is not finite spreads to every score, and a matrix of zeros
    /// makes all of them equal. Vectors of zeros, such as biases, are common.
    fn check_values(&self, key: &str, tensor: &HostTensor) -> Result<(), ModelError> {
        let (key, origin) = (|| key.to_owned(), || self.shared.weights.origin());
        match value_defect(&tensor.shape, &tensor.values) {
            None => Ok(()),
            Some(ValueDefect::NotFinite { index, value }) => Err(ModelError::NotFiniteTensor {
                key: key(),
                origin: origin(),
                index,
                value,
            }),
            Some(ValueDefect::AllZero) => Err(ModelError::ZeroTensor {
                key: key(),
                origin: origin(),
            }),
        }
    }

    /// Returns the name of the stream from which a parameter's initial values are drawn.
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

/// Draws the initial values of one parameter, which depend only on the seed and its name.
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

    /// Reads the matrix `m` of a model.
    fn read(
        values: Vec<f32>,
        params: fn(&StateDict) -> ParamBuilder<'_>,
    ) -> Result<(), ModelError> {
        let mut weights = StateDict::default();
        if !values.is_empty() {
            let shape = vec![2, values.len() / 2];
            weights.insert("m".to_owned(), HostTensor { shape, values });
        }
        let read = params(&weights).param("m", [2, 2], Init::Constant(1.0));
        read.map(|_| ())
    }

    fn for_inference(weights: &StateDict) -> ParamBuilder<'_> {
        ParamBuilder::packed(weights, &Device::flex(), 0, Precision::Float).unwrap()
    }

    fn for_training(weights: &StateDict) -> ParamBuilder<'_> {
        ParamBuilder::new(weights, &Device::flex(), 0, &|_| true)
    }

    #[test]
    fn a_model_for_inference_is_whole_or_it_is_not_opened() {
        let error = read(vec![], for_inference).unwrap_err();
        assert!(
            matches!(&error, ModelError::MissingTensor { key, .. } if key == "m"),
            "{error}"
        );
        assert!(read(vec![], for_training).is_ok());
    }

    #[test]
    fn weights_that_are_not_finite_or_all_zero_are_errors_that_name_the_tensor() {
        for params in [for_inference, for_training] {
            for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY] {
                let error = read(vec![1.0, 2.0, bad, 4.0], params).unwrap_err();
                assert!(
                    matches!(&error, ModelError::NotFiniteTensor { key, index: 2, .. } if key == "m"),
                    "{error}"
                );
            }
            let error = read(vec![0.0, -0.0, 0.0, 0.0], params).unwrap_err();
            assert!(
                matches!(&error, ModelError::ZeroTensor { key, .. } if key == "m"),
                "{error}"
            );
            assert!(read(vec![0.0, 0.0, 0.0, 1e-30], params).is_ok());
        }
    }

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
