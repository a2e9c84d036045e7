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
//! | [`DenseAttention::ScClip`] | anomalies repaired, middle blocks used (`calibrated`) | SC-CLIP, Bai et al., arXiv 2411.15869 |
//! | [`DenseAttention::Pearl`] | softmax(q·(k·R)ᵀ/√d)·v, R a rotation of keys towards queries (`calibrated`) | PEARL, Pei et al., CVPR 2026, first step |
//! | [`DenseAttention::Combined`] | softmax(q·qᵀ/√d)·v, with the steps below | measured, docs/src/project/training-free.md |
//!
//! [`DenseAttention::Combined`] adds to the cosine of a patch and a class that of the window's image embedding and the
//! class, with a weight; encodes the whole image as a small square beside the windows and averages the scores of both;
//! and refines the class shares by the colours of the image (PAMR, [`crate::inference::Refinement`]).
//!
//! With every mode, the scores of a window can be refined by MaskCLIP's prompt denoising and key smoothing
//! ([`refinement`]), the cosine of the window's image embedding included.

pub mod anomaly;
pub mod calibrated;
mod encoding;
mod entry;
pub mod refinement;

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use serde::{Deserialize, Serialize};
use zeg_image::normalize::Normalization;
use zeg_kernels::softmax;

#[cfg(feature = "schema")]
pub use self::entry::section_schema;
use self::{calibrated::Steps, refinement::MaskClipRefinement};
pub use self::{
    encoding::DenseEncoding,
    entry::{CLEAR_CLIP, COMBINED, FAMILY, TrainingFreeMethod},
};
use crate::{
    ModelError, Precision,
    classes::ClassQueries,
    config::VisionConfig,
    inference::{Inference, InferenceMode, PlannedWindow, Refinement},
    layers::l2_normalize,
    method::{ModelFacts, Scoring, SegmentationModel, WindowBatch},
    scores::WindowScores,
    transformer::ResidualBlock,
    vision::{Encoded, VisionTransformer},
    weights::{ParamBuilder, StateDict},
};

/// Standard deviation of NACLIP's Gaussian, in patches (the paper's setting).
pub const NEIGHBOUR_SIGMA: f32 = 5.0;

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
    /// Self-calibration by anomaly tokens and middle blocks (SC-CLIP).
    ScClip,
    /// Queries to keys that are rotated towards them (PEARL).
    Pearl,
    /// Queries to queries, with the vote of image embeddings, the scores of the whole image and refined scores.
    Combined,
}

impl DenseAttention {
    /// Returns the steps of the later methods; `None` if the attention alone is changed.
    pub fn steps(self) -> Option<&'static Steps> {
        match self {
            Self::ScClip => Some(&calibrated::SC_CLIP),
            Self::Pearl => Some(&calibrated::PEARL),
            Self::Combined => Some(&calibrated::COMBINED),
            Self::Plain | Self::MaskClip | Self::Sclip | Self::Naclip | Self::ClearClip => None,
        }
    }
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
    /// Threshold of prompt denoising, 0 to 1; 0 leaves it out ([`refinement`]).
    #[serde(default)]
    pub prompt_denoising: f32,
    /// Threshold of key smoothing, 0 to 1; 0 leaves it out ([`refinement`]).
    #[serde(default)]
    pub key_smoothing: f32,
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
            prompt_denoising: 0.0,
            key_smoothing: 0.0,
        }
    }

    /// Returns MaskCLIP's refinement of scores.
    pub fn refinement(&self) -> MaskClipRefinement {
        MaskClipRefinement {
            prompt_denoising: self.prompt_denoising,
            key_smoothing: self.key_smoothing,
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
            refine: match self.attention {
                DenseAttention::Combined => Refinement::Pamr,
                _ => Refinement::None,
            },
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
        if config.attention.steps().is_some() {
            if encoder.layers < 2 {
                return Err(ModelError::Config(format!(
                    "this training-free method needs a tower of at least 2 blocks, not {}",
                    encoder.layers
                )));
            }
            if config.last_block == LastBlock::Full {
                return Err(ModelError::Config(
                    "last-block full: this training-free method uses the attention only".into(),
                ));
            }
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
            // The later methods have steps of their own and do not come here.
            DenseAttention::MaskClip
            | DenseAttention::ScClip
            | DenseAttention::Pearl
            | DenseAttention::Combined => v,
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

impl SegmentationModel for TrainingFree {
    type Encoding = DenseEncoding;

    fn facts(&self) -> ModelFacts {
        ModelFacts {
            stride: self.backbone.config().patch,
            embed_dim: self.backbone.config().embed_dim,
            normalization: self.normalization,
            scoring: Scoring::Softmax,
        }
    }

    /// Plans windows as the settings say, and one of the whole image if the method uses it.
    fn plan(
        &self,
        size: [usize; 2],
        settings: &Inference,
    ) -> Result<Vec<PlannedWindow>, ModelError> {
        let stride = self.facts().stride;
        let mut planned = settings.plan(size, stride)?;
        let steps = self.config.attention.steps();
        let side = self.backbone.config().input_resolution;
        let whole = PlannedWindow::whole(size);
        let is_there = |it: &PlannedWindow| {
            it.window == whole.window && it.encoded_size(stride) == [side, side]
        };
        if steps.is_some_and(|steps| steps.whole_image) && !planned.iter().any(is_there) {
            // Windows are planned from top to bottom, and this one starts at the top.
            planned.insert(
                0,
                PlannedWindow {
                    resized: Some([side, side]),
                    layer: 1,
                    ..whole
                },
            );
        }
        Ok(planned)
    }

    fn encode(&self, windows: &WindowBatch) -> Result<Vec<DenseEncoding>, ModelError> {
        self.encode_windows(windows)
    }

    fn score(
        &self,
        encoding: &DenseEncoding,
        classes: &ClassQueries,
    ) -> Result<WindowScores, ModelError> {
        let DenseEncoding { encoded, keys } = encoding;
        let count = classes.len();
        let (cosines, text) = match &classes.examples {
            None => {
                let text = l2_normalize(classes.text.clone()).transpose(); // [dim, classes]
                let cosines = encoded.patches.clone().matmul(text.clone().unsqueeze()); // [1, h·w, classes]
                (cosines, text)
            }
            Some(examples) => {
                let rows = examples.patch_rows.clone().transpose(); // [dim, classes]
                let products = encoded.patches.clone().matmul(rows.unsqueeze()); // [1, h·w, classes]
                (
                    products + examples.bias.clone(),
                    examples.image_rows.clone().transpose(),
                )
            }
        };
        let vote = self
            .config
            .attention
            .steps()
            .map_or(0.0, |steps| steps.vote);
        let cosines = if vote > 0.0 {
            let of_window = encoded.global.clone().matmul(text); // [1, classes]
            cosines + of_window.reshape([1, 1, count]) * vote
        } else {
            cosines
        };
        let [h, w] = encoded.grid;
        let refinement = self.config.refinement();
        let scores = refinement.apply(cosines.swap_dims(1, 2), keys.as_ref()); // [1, classes, h·w]
        let logits = (scores * self.config.logit_scale).reshape([1, count, h, w]);
        Ok(WindowScores::Logits(logits))
    }

    fn uses_examples(&self) -> bool {
        true
    }

    fn patches<'a>(&self, encoding: &'a DenseEncoding) -> Option<&'a Encoded> {
        Some(&encoding.encoded)
    }

    fn encoding_bytes(&self, encoding: &DenseEncoding) -> u64 {
        encoding.bytes()
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
