//! How linear layers that do not learn are held: packed for the kernels of the CPU.
//!
//! [`ParamBuilder::packed`] decides it before a model is built for inference; the layers then keep packed weights alone,
//! an empty tensor stands where the weight was, and no copy is held twice. In a model that is trained, the towers'
//! frozen blocks are packed for both directions. On other devices nothing changes.

use std::sync::Arc;

use burn::{
    module::{Param, ParamId},
    tensor::Tensor,
};
use zeg_kernels::{PackedLinear, Precision, Workspace};

use crate::{ModelError, weights::ParamBuilder};

/// Names of the layers that 8 bits are enough for: those of the towers' blocks, where nearly all the work is.
const BLOCKS: &str = "resblocks.";

/// What layers are packed with.
#[derive(Debug, Clone)]
pub struct Packing {
    precision: Precision,
    /// Buffers of the blocks.
    pub(crate) workspace: Workspace,
}

impl Packing {
    /// Packing for this precision; `None` on a device that has no use for it.
    ///
    /// # Errors
    /// Integers were asked for on a device that has no kernels for them.
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
            Precision::Int8 => Err(ModelError::Config(
                "8-bit integers are for inference on the CPU; other devices compute with floats"
                    .into(),
            )),
        }
    }

    /// Packing of frozen blocks on a device for training; `None` where it has no use for it.
    pub(crate) fn of_frozen(device: &burn::tensor::Device) -> Option<Self> {
        let on_cpu = zeg_kernels::runs_on(&device.clone().without_autodiff());
        (device.is_autodiff() && on_cpu).then(|| Self {
            precision: Precision::Float,
            workspace: Workspace::default(),
        })
    }

    /// The precision of the layer of that name.
    fn precision_of(&self, key: &str) -> Precision {
        if key.contains(BLOCKS) {
            self.precision
        } else {
            Precision::Float
        }
    }
}

/// A weight `[out, in]` and its bias `[out]`, packed if the builder says so; then an empty tensor stands for the
/// weight.
///
/// - `names`: of the two
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
    } else if level.contains(BLOCKS) && params.frozen_packing(&names).is_some() {
        let (id, weight) = (weight.id, weight.into_value());
        let packed = PackedLinear::with_gradient(&host(weight), &host(bias.val()));
        (id, packed)
    } else {
        return (weight, None);
    };
    let empty = Param::initialized(id, Tensor::empty([0, 0], params.device()));
    let empty = empty.set_require_grad(false);
    (empty, Some(Arc::new(packed)))
}

/// As [`pack`], for a matrix `[in, out]` that is applied as `x @ m`, always in floats.
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

/// The values of a tensor, row-major.
pub(crate) fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    let data = tensor.into_data().convert::<f32>();
    // Only a tensor of another type could refuse, and it was just converted.
    data.try_into_vec().unwrap_or_default()
}
