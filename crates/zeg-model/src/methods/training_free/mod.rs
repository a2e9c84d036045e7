//! Training-free segmentation: a plain CLIP image tower whose last block is changed so that patch tokens stay local.
//!
//! CLIP was trained on its class token only; in the last block its patch tokens collect information about the whole
//! image. Each mode here replaces that block's attention, and the patch tokens are compared with class embeddings
//! directly. In this table, `x` are the tokens that enter the block, `q`, `k`, `v` are the projections of `ln_1(x)`,
//! and a head has `d` channels:
//!
//! | mode | attention | source |
//! |---|---|---|
//! | [`DenseAttention::Plain`] | softmax(q·kᵀ/√d)·v | CLIP itself |
//! | [`DenseAttention::MaskClip`] | v | MaskCLIP, Zhou, Loy, Dai, ECCV 2022, section 3.2 |
//! | [`DenseAttention::Sclip`] | (softmax(q·qᵀ/√d) + softmax(k·kᵀ/√d))·v | SCLIP, Wang, Mei, Yuille, ECCV 2024, eq. 3 |
//! | [`DenseAttention::Naclip`] | softmax(k·kᵀ/√d + ω)·v, ω a Gaussian of the patches' distance | NACLIP, Hajimiri, Ben Ayed, Dolz, WACV 2025, section 3 |
//! | [`DenseAttention::ClearClip`] | softmax(q·qᵀ/√d)·v | ClearCLIP, Lan et al., ECCV 2024 |

mod entry;

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};
use zeg_image::normalize::Normalization;
use zeg_kernels::softmax;

#[cfg(feature = "schema")]
pub use self::entry::section_schema;
pub use self::entry::{CLEAR_CLIP, FAMILY, TrainingFreeMethod};
use crate::{
    ModelError, Precision,
    classes::ClassQueries,
    config::VisionConfig,
    inference::{Inference, InferenceMode},
    layers::l2_normalize,
    method::{ModelFacts, Scoring, SegmentationModel, WindowBatch},
    scores::WindowScores,
    trace::Trace,
    transformer::ResidualBlock,
    vision::{Encoded, EncoderHooks, TokenPlan, VisionTransformer},
    weights::{ParamBuilder, StateDict},
};

/// Standard deviation of NACLIP's Gaussian, in patches (the paper's setting).
const NEIGHBOUR_SIGMA: f32 = 5.0;

/// The attention of the last block.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum DenseAttention {
    /// CLIP's own attention; the baseline that the other modes improve on.
    Plain,
    /// Value path only: every token keeps its own value (MaskCLIP).
    MaskClip,
    /// Correlative self-attention: queries to queries plus keys to keys (SCLIP).
    Sclip,
    /// Neighbour-aware attention: keys to keys, with a preference for near patches (NACLIP).
    Naclip,
    /// Queries to queries (ClearCLIP).
    ClearClip,
}

/// The parts of the last block that are used besides its attention.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum LastBlock {
    /// The attention only, without residual and MLP, which add noise (ClearCLIP; NACLIP does the same).
    #[default]
    AttentionOnly,
    /// Residual and MLP as well, as in SCLIP's released code.
    Full,
}

/// The configuration of a training-free model.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TrainingFreeConfig {
    /// Attention of the last block.
    pub attention: DenseAttention,
    /// Parts of the last block that are used besides its attention.
    #[serde(default)]
    pub last_block: LastBlock,
    /// Scale of cosine similarities before the softmax over classes; CLIP's trained value is 100. It does not change
    /// which class is best, only the confidence.
    #[serde(default = "hundred")]
    pub logit_scale: f32,
}

fn hundred() -> f32 {
    100.0
}

impl TrainingFreeConfig {
    /// Returns a mode with its default settings.
    pub fn new(attention: DenseAttention) -> Self {
        Self {
            attention,
            last_block: LastBlock::default(),
            logit_scale: hundred(),
        }
    }

    /// Returns the default inference settings of this mode: a short side and windows near the size that CLIP was
    /// trained on (docs/src/project/decisions.md has the measurements).
    pub fn default_inference(&self) -> Inference {
        Inference {
            short_side: 336,
            crop: 224,
            stride: 112,
            seen_offset: 0.0,
            threshold: None,
            mode: InferenceMode::Slide,
            ..Inference::default()
        }
    }
}

/// A CLIP image tower that segments without further training.
#[derive(Module, Debug)]
pub struct TrainingFree {
    /// The image tower.
    pub backbone: VisionTransformer,
    #[module(skip)]
    config: TrainingFreeConfig,
    #[module(skip)]
    normalization: Normalization,
}

impl TrainingFree {
    /// Reads the image tower under `backbone.` of the weights.
    ///
    /// # Errors
    /// Returns an error if the tower is missing from the weights or does not match `encoder`, or if `encoder` has
    /// prompts or region tokens.
    pub fn build(
        weights: &StateDict,
        encoder: &VisionConfig,
        config: TrainingFreeConfig,
        normalization: Normalization,
        device: &Device,
        precision: Precision,
    ) -> Result<Self, ModelError> {
        let params = ParamBuilder::packed(weights, device, 0, precision)?;
        Self::from_params(&params, encoder, config, normalization)
    }

    pub(super) fn from_params(
        params: &ParamBuilder,
        encoder: &VisionConfig,
        config: TrainingFreeConfig,
        normalization: Normalization,
    ) -> Result<Self, ModelError> {
        if encoder.prompts.is_some() || encoder.regions.is_some() {
            return Err(ModelError::Config(
                "a training-free method needs CLIP's own image tower, without prompts and region tokens".into(),
            ));
        }
        Ok(Self {
            backbone: VisionTransformer::build(&params.at("backbone"), encoder)?,
            config,
            normalization,
        })
    }

    /// Returns the configuration.
    pub fn config(&self) -> TrainingFreeConfig {
        self.config
    }

    /// Computes the last block: `[batch, 1 + h·w, width]` → the same shape.
    fn last_block(&self, block: &ResidualBlock, x: Tensor<3>, grid: [usize; 2]) -> Tensor<3> {
        let [q, k, v] = block.attn.project(block.ln_1.forward(x.clone())); // [batch, heads, tokens, d] each
        let attended = match self.config.attention {
            DenseAttention::Plain => similarity(q, k, None).matmul(v),
            DenseAttention::MaskClip => v,
            DenseAttention::Sclip => {
                (similarity(q.clone(), q, None) + similarity(k.clone(), k, None)).matmul(v)
            }
            DenseAttention::ClearClip => similarity(q.clone(), q, None).matmul(v),
            DenseAttention::Naclip => {
                let nearness = neighbourhood(grid, NEIGHBOUR_SIGMA, &k.device());
                similarity(k.clone(), k, Some(nearness)).matmul(v)
            }
        };
        let y = block.attn.merge(attended); // [batch, tokens, width]
        match self.config.last_block {
            LastBlock::AttentionOnly => y,
            LastBlock::Full => block.feed_forward(x + y),
        }
    }
}

/// Computes softmax(a·bᵀ/√d + bias): `[batch, heads, tokens, d]` twice → `[batch, heads, tokens, tokens]`
fn similarity(a: Tensor<4>, b: Tensor<4>, bias: Option<Tensor<4>>) -> Tensor<4> {
    let scale = (a.dims()[3] as f64).powf(-0.5);
    let logits = (a * scale).matmul(b.swap_dims(2, 3));
    let logits = match bias {
        Some(bias) => logits + bias,
        None => logits,
    };
    softmax(logits)
}

/// Returns NACLIP's Gaussian of the distance between patches, exp(−‖p − p′‖²/2σ²): `[1, 1, 1 + h·w, 1 + h·w]`; 0 in the
/// class token's row and column.
fn neighbourhood([h, w]: [usize; 2], sigma: f32, device: &Device) -> Tensor<4> {
    let tokens = 1 + h * w;
    // The Gaussian is separable: one table of row distances times one of column distances.
    let bell: Vec<f32> = (0..h.max(w))
        .map(|distance| (-((distance * distance) as f32) / (2.0 * sigma * sigma)).exp())
        .collect();
    let mut values = vec![0.0_f32; tokens * tokens];
    for (from, row) in values.chunks_exact_mut(tokens).skip(1).enumerate() {
        let (y, x) = (from / w, from % w);
        for (to, value) in row[1..].iter_mut().enumerate() {
            *value = bell[y.abs_diff(to / w)] * bell[x.abs_diff(to % w)];
        }
    }
    Tensor::from_data(TensorData::new(values, [1, 1, tokens, tokens]), device)
}

/// The hook that replaces the last block.
struct LastBlockHook<'a> {
    model: &'a TrainingFree,
    last: usize,
}

impl EncoderHooks for LastBlockHook<'_> {
    fn replace(
        &self,
        layer: usize,
        block: &ResidualBlock,
        tokens: &Tensor<3>,
        plan: TokenPlan,
    ) -> Option<Tensor<3>> {
        (layer == self.last).then(|| self.model.last_block(block, tokens.clone(), plan.grid))
    }
}

impl SegmentationModel for TrainingFree {
    type Encoding = Encoded;

    fn facts(&self) -> ModelFacts {
        ModelFacts {
            stride: self.backbone.config().patch,
            embed_dim: self.backbone.config().embed_dim,
            normalization: self.normalization,
            scoring: Scoring::Softmax,
        }
    }

    fn encode(&self, windows: &WindowBatch) -> Result<Vec<Encoded>, ModelError> {
        let hooks = LastBlockHook {
            model: self,
            last: self.backbone.transformer.resblocks.len().saturating_sub(1),
        };
        let images = windows.images.clone();
        let features = self
            .backbone
            .forward_with(images, &hooks, &mut Trace::off());
        let [count, _, _, _] = windows.images.dims();
        Ok((0..count)
            .map(|index| features.encoded.image(index))
            .collect())
    }

    fn score(
        &self,
        encoding: &Encoded,
        classes: &ClassQueries,
    ) -> Result<WindowScores, ModelError> {
        let text = classes.text.clone(); // [classes, dim]
        let [count, _] = text.dims();
        let cosines = encoding
            .patches
            .clone()
            .matmul(l2_normalize(text).transpose().unsqueeze()); // [1, h·w, classes]
        let [h, w] = encoding.grid;
        let logits = (cosines * self.config.logit_scale)
            .swap_dims(1, 2)
            .reshape([1, count, h, w]);
        Ok(WindowScores::Logits(logits))
    }

    fn patches<'a>(&self, encoding: &'a Encoded) -> Option<&'a Encoded> {
        Some(encoding)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_patches_are_favoured_and_the_class_token_is_unaffected() {
        let device = Device::flex();
        let values: Vec<f32> = neighbourhood([2, 3], 5.0, &device)
            .into_data()
            .try_to_vec()
            .unwrap();
        let at = |from: usize, to: usize| values[from * 7 + to];
        assert!((0..7).all(|i| at(0, i) == 0.0 && at(i, 0) == 0.0));
        assert!((at(1, 1) - 1.0).abs() < 1e-6);
        // Patch (0, 0) to (1, 2): squared distance 5.
        assert!((at(1, 6) - (-5.0_f32 / 50.0).exp()).abs() < 1e-6);
        assert!((at(6, 1) - at(1, 6)).abs() < 1e-7);
    }
}
