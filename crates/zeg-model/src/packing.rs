//! Packs the weights of linear layers that are not trained for the CPU kernels.
//!
//! [`ParamBuilder::packed`] decides about packing before a model is built for inference. The layers then hold packed
//! weights only: an empty tensor takes the place of the weight, so that no copy is stored twice. In a model that is
//! trained, the frozen blocks of the towers are packed for the forward and the backward pass. On other devices nothing
//! changes.

use std::sync::Arc;

use burn::{
    module::{Param, ParamId},
    tensor::Tensor,
};
use zeg_kernels::{PackedLinear, Precision, Workspace};

use crate::{ModelError, weights::ParamBuilder};

/// Part of the names of the layers that may be packed in bf16 or 8 bits: those of the towers' blocks, where nearly all the work
/// is.
const BLOCKS: &str = "resblocks.";

/// The settings with which layers are packed.
#[derive(Debug, Clone)]
pub struct Packing {
    precision: Precision,
    /// Buffers that the blocks share.
    pub(crate) workspace: Workspace,
}

impl Packing {
    /// Returns the packing for a precision; `None` on a device that does not use packed weights.
    ///
    /// # Errors
    /// Returns an error if bf16 or 8-bit integers are requested on a device without kernels for them.
    pub(crate) fn new(
        precision: Precision,
        device: &burn::tensor::Device,
    ) -> Result<Option<Self>, ModelError> {
        if zeg_kernels::runs_on(device) {
            return Ok(Some(Self {
                precision,
                workspace: Workspace::default(),
            }));
        }
        match precision {
            Precision::Float => Ok(None),
            Precision::Bf16 | Precision::Int8 => Err(ModelError::Config(format!(
                "{precision} is only supported for inference on the CPU; other devices compute with 32-bit floats"
            ))),
        }
    }

    /// Returns the packing of frozen blocks on a device for training; `None` on a device that does not use packed
    /// weights.
    pub(crate) fn of_frozen(device: &burn::tensor::Device) -> Option<Self> {
        let on_cpu = zeg_kernels::runs_on(&device.clone().without_autodiff());
        (device.is_autodiff() && on_cpu).then(|| Self {
            precision: Precision::Float,
            workspace: Workspace::default(),
        })
    }

    /// Returns this packing in another precision.
    ///
    /// # Errors
    /// Returns an error for 8-bit integers: their steps are too coarse for gradients.
    pub(crate) fn of_precision(self, precision: Precision) -> Result<Self, ModelError> {
        if precision == Precision::Int8 {
            return Err(ModelError::Config(
                "int8 is for inference only; train in f32 or bf16".to_owned(),
            ));
        }
        Ok(Self { precision, ..self })
    }

    /// Returns the precision of the layer of that name.
    fn precision_of(&self, key: &str) -> Precision {
        if key.contains(BLOCKS) {
            self.precision
        } else {
            Precision::Float
        }
    }
}

/// Packs a weight `[out, in]` and its bias `[out]` if the builder says so, and replaces the weight by an empty tensor.
///
/// - `names`: names of weight and bias
pub(crate) fn pack(
    params: &ParamBuilder,
    names: [&str; 2],
    weight: Param<Tensor<2>>,
    bias: &Param<Tensor<1>>,
) -> (Param<Tensor<2>>, Option<Arc<PackedLinear>>) {
    let level = params.key("");
    let (id, packed) = if let Some(packing) = params.packing() {
        let precision = packing.precision_of(&level);
        let (id, weight) = (weight.id, weight.into_value());
        let packed = PackedLinear::new(&host(weight), &host(bias.val()), precision);
        (id, packed)
    } else if let (true, Some(packing)) = (level.contains(BLOCKS), params.frozen_packing(&names)) {
        let (id, weight) = (weight.id, weight.into_value());
        let (weight, bias) = (host(weight), host(bias.val()));
        let packed = PackedLinear::with_gradient(&weight, &bias, packing.precision);
        (id, packed)
    } else {
        return (weight, None);
    };
    let empty = Param::initialized(id, Tensor::empty([0, 0], params.device()));
    let empty = empty.set_require_grad(false);
    (empty, Some(Arc::new(packed)))
}

/// Packs a matrix `[in, out]` that is applied as `x @ m`, always in floating point; otherwise like [`pack`].
pub(crate) fn pack_transposed(
    params: &ParamBuilder,
    matrix: Param<Tensor<2>>,
) -> (Param<Tensor<2>>, Option<Arc<PackedLinear>>) {
    if params.packing().is_none() {
        return (matrix, None);
    }
    let matrix = matrix.into_value();
    let [_, outputs] = matrix.dims();
    let packed = PackedLinear::new(
        &host(matrix.transpose()),
        &vec![0.0; outputs],
        Precision::Float,
    );
    let empty = Param::initialized(ParamId::new(), Tensor::empty([0, 0], params.device()));
    (empty, Some(Arc::new(packed)))
}

/// Copies the values of a tensor to main memory, row-major.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    // The conversion can only fail for another type, and the data were just converted.
    data.try_into_vec().unwrap_or_default()
}
