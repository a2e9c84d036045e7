//! The guide: CLIP's frozen image tower, made to describe every place of an image (MaskCLIP, section 3).

use burn::{module::Module, tensor::Tensor};

use super::{config::GuideConfig, guide_transformer::ClipTransformer, residual::ClipResNet};
use crate::{
    ModelError,
    layers::Linear,
    methods::training_free::refinement::MaskClipRefinement,
    packing::{host, pack},
    trace::Trace,
    vision::maps,
    weights::{HostTensor, Init, ParamBuilder},
};

/// Prefixes under which weights hold the tower: in a MaskCLIP+ checkpoint, or in CLIP's own weights.
const PREFIXES: [&str; 2] = ["decode_head.clip", "backbone"];

/// CLIP's image tower with its value path.
#[derive(Module, Debug)]
#[allow(clippy::large_enum_variant)] // handles of tensors; there is one guide
pub enum Guide {
    /// A residual network.
    Residual(ClipResNet),
    /// A vision transformer.
    Transformer(ClipTransformer),
}

/// The projections of an attention pooling, which is left out: places keep their own values. That of the queries is not
/// used.
#[derive(Module, Debug)]
pub struct Projections {
    /// `[width, width]`
    pub k_proj: Linear,
    /// `[width, width]`
    pub v_proj: Linear,
    /// `[dim, width]`
    pub c_proj: Linear,
}

/// What the guide sees at every place of images.
#[derive(Debug, Clone)]
pub struct GuideOutput {
    /// Features of any length in the joint image-text space: `[batch, dim, h, w]`
    pub features: Tensor<4>,
    /// Keys of the last attention: `[batch, h·w, width]`
    pub keys: Tensor<3>,
}

impl GuideOutput {
    /// Returns the refined scores of classes: `[batch, classes, h, w]`
    ///
    /// - `text`: class embeddings, unit rows `[classes, dim]`
    pub fn scores(&self, text: Tensor<2>, refinement: &MaskClipRefinement) -> Tensor<4> {
        let [batch, dim, h, w] = self.features.dims();
        let [classes, _] = text.dims();
        let flat = self.features.clone().reshape([batch, dim, h * w]);
        let length = flat.clone().square().sum_dim(1).sqrt(); // [batch, 1, h·w]
        let cosines = text.unsqueeze::<3>().matmul(flat / length); // [batch, classes, h·w]
        refinement
            .apply(cosines, Some(&self.keys))
            .reshape([batch, classes, h, w])
    }
}

/// Reads a linear layer whose weight is stored as a matrix or as a 1×1 convolution.
fn linear(params: &ParamBuilder, input: usize, output: usize) -> Result<Linear, ModelError> {
    let weight = matrix(params, "weight", [output, input])?;
    let bias = params.param("bias", [output], Init::Required)?;
    let (weight, packed) = pack(params, ["weight", "bias"], weight, &bias);
    Ok(Linear {
        weight,
        bias,
        packed,
    })
}

/// Reads a matrix that may be stored with additional axes of length 1.
pub(super) fn matrix(
    params: &ParamBuilder,
    name: &str,
    shape: [usize; 2],
) -> Result<burn::module::Param<Tensor<2>>, ModelError> {
    let key = params.key(name);
    let has_more_axes = |stored: &Vec<usize>| {
        let longer: Vec<usize> = stored.iter().copied().filter(|axis| *axis != 1).collect();
        stored.len() > 2 && longer == shape
    };
    if params
        .weights()
        .shape(&key)
        .is_some_and(|stored| has_more_axes(&stored))
        && let Some(HostTensor { values, .. }) = params.weights().read(&key)?
    {
        let shape_of_matrix = shape.to_vec();
        return params.given(
            name,
            shape,
            HostTensor {
                shape: shape_of_matrix,
                values,
            },
        );
    }
    params.param(name, shape, Init::Required)
}

impl Guide {
    /// Reads the guide; `None` if the weights hold no tower of the configured kind.
    ///
    /// - `params`: builder rooted at the top-level prefix
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has the wrong shape.
    pub fn open(
        params: &ParamBuilder,
        config: &GuideConfig,
        as_released: bool,
    ) -> Result<Option<Self>, ModelError> {
        let mark = match config {
            GuideConfig::Residual { .. } => "layer1.0.conv1.weight",
            GuideConfig::Transformer(_) => "class_embedding",
        };
        let mut prefixes = PREFIXES.into_iter();
        let found = prefixes.find(|prefix| params.weights().contains(&format!("{prefix}.{mark}")));
        let prefix = match found {
            Some(prefix) => prefix,
            None if params.is_blueprint() => PREFIXES[0],
            None => return Ok(None),
        };
        let mut params = params.clone();
        for part in prefix.split('.') {
            params = params.at(part);
        }
        Self::build(&params, config, as_released).map(Some)
    }

    /// Reads the guide.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has the wrong shape.
    pub fn build(
        params: &ParamBuilder,
        config: &GuideConfig,
        as_released: bool,
    ) -> Result<Self, ModelError> {
        match config {
            GuideConfig::Transformer(tower) => {
                ClipTransformer::build(params, tower, as_released).map(Self::Transformer)
            }
            GuideConfig::Residual { sizes, embed_dim } => {
                ClipResNet::build(params, sizes, *embed_dim).map(Self::Residual)
            }
        }
    }

    /// Computes what the guide sees in normalised images `[batch, 3, height, width]`, without a gradient.
    pub fn forward(&self, images: Tensor<4>, trace: &mut Trace) -> GuideOutput {
        let images = images.without_autodiff();
        match self {
            Self::Residual(tower) => {
                let map = tower.forward(images, trace).without_autodiff();
                tower.attnpool.forward(map, trace)
            }
            Self::Transformer(guide) => guide.forward(images, trace),
        }
    }
}

impl Projections {
    /// Reads the projections.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has the wrong shape.
    pub fn build(params: &ParamBuilder, width: usize, dim: usize) -> Result<Self, ModelError> {
        let projection = |name, output| linear(&params.at(name), width, output);
        Ok(Self {
            k_proj: projection("k_proj", width)?,
            v_proj: projection("v_proj", width)?,
            c_proj: projection("c_proj", dim)?,
        })
    }

    /// Projects every place of a map `[batch, width, h, w]`.
    fn forward(&self, x: Tensor<4>, trace: &mut Trace) -> GuideOutput {
        let [batch, width, h, w] = x.dims();
        let places = x.reshape([batch, width, h * w]).swap_dims(1, 2); // [batch, h·w, width]
        let keys = self.k_proj.forward(places.clone()).without_autodiff();
        let values = self.v_proj.forward(places).without_autodiff();
        trace.record("k_map", &maps(&keys, [h, w]));
        trace.record("v_map", &maps(&values, [h, w]));
        let features = maps(&self.c_proj.forward(values).without_autodiff(), [h, w]);
        trace.record("feature", &features);
        GuideOutput { features, keys }
    }
}

/// Returns the values of a matrix in main memory, transposed: `[rows, columns]` → `[columns, rows]`
pub(super) fn transposed(matrix: Tensor<2>) -> HostTensor {
    let [rows, columns] = matrix.dims();
    HostTensor {
        shape: vec![columns, rows],
        values: host(matrix.transpose()),
    }
}
