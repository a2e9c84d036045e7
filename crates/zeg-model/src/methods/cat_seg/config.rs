//! CAT-Seg's configuration.

use serde::{Deserialize, Serialize};
use zeg_image::normalize::Normalization;
use zeg_weights::StateDict;

use super::class_attention::ClassAttentionKind;
use crate::{
    ModelError,
    config::{Activation, TextConfig, VisionConfig},
    recognize::{prompted_tower, text_config},
};

/// Windows are padded to sides that are multiples of this, in pixels, before they are resized for CLIP.
pub const STRIDE: usize = 32;
/// Rows and columns of patches of the published models.
const PUBLISHED_GRID: usize = 24;
/// Side in pixels of the published windows and training crops.
const PUBLISHED_CROP: usize = 384;
/// Upper limit on the layers that are counted in weights.
const MOST: usize = 1024;
/// Prefix of the aggregator's tensors.
const AGGREGATOR: &str = "sem_seg_head.predictor.transformer.";
/// Tokens of CLIP's longest text.
const CONTEXT_LENGTH: usize = 77;
/// Token ids of CLIP's tokenizer.
const VOCABULARY: usize = 49_408;

/// The parts of CLIP that are fine-tuned.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Tuning {
    /// The projections of queries and values in every block of both towers, as released.
    #[default]
    Attention,
    /// Everything inside the blocks of both towers.
    Blocks,
    /// Nothing: both towers stay as pre-trained.
    None,
}

impl Tuning {
    /// Returns whether a parameter of a tower is fine-tuned, by its name without the tower's prefix.
    ///
    /// Positions are not, although the paper says so: the release's rule for them matches no name.
    pub fn trains(self, name: &str) -> bool {
        match self {
            Self::Attention => {
                name.ends_with(".attn.q_proj_weight") || name.ends_with(".attn.v_proj_weight")
            }
            Self::Blocks => {
                name.starts_with("transformer.resblocks.") && !name.ends_with(".in_proj_weight")
            }
            Self::None => false,
        }
    }
}

/// The statistics that pixels are normalised with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum PixelStatistics {
    /// CLIP's own, as released.
    #[default]
    Clip,
    /// ImageNet's, for an encoder that was pre-trained with them, as MiniCLIP.
    Imagenet,
}

impl PixelStatistics {
    /// Returns mean and standard deviation.
    pub fn normalization(self) -> Normalization {
        match self {
            Self::Clip => Normalization::CLIP,
            Self::Imagenet => Normalization::IMAGENET,
        }
    }
}

/// The sizes of CLIP's text tower that no weights are needed for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct TextSizes {
    /// Channels of a token.
    pub width: usize,
    /// Number of residual blocks.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
}

impl TextSizes {
    /// Returns the text tower of CLIP's published models for a joint space of `dim` channels.
    pub fn published(dim: usize) -> Self {
        Self {
            width: dim,
            layers: 12,
            heads: (dim / 64).max(1),
        }
    }

    /// Returns the configuration of the tower; context and vocabulary are those of the weights, if they hold a tower.
    pub(super) fn tower(
        self,
        weights: &StateDict,
        dim: usize,
        activation: Activation,
    ) -> TextConfig {
        let rows = |name: &str| Some(*weights.shape(&format!("text_encoder.{name}"))?.first()?);
        TextConfig {
            width: self.width,
            layers: self.layers,
            heads: self.heads,
            embed_dim: dim,
            context_length: rows("positional_embedding").unwrap_or(CONTEXT_LENGTH),
            vocabulary: rows("token_embedding.weight").unwrap_or(VOCABULARY),
            activation,
        }
    }
}

/// The configuration of the aggregator; [`AggregatorConfig::default`] is as released.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct AggregatorConfig {
    /// Number of channels of a class at a position.
    pub width: usize,
    /// Number of layers of spatial and class aggregation.
    pub layers: usize,
    /// Number of attention heads; divides `width`.
    pub heads: usize,
    /// Side of the windows of spatial aggregation, in patches; divides the patch grid.
    pub window: usize,
    /// Channels of the guidance of spatial aggregation by image features; 0 for none.
    pub appearance: usize,
    /// Channels of the guidance of class aggregation by class embeddings; 0 for none.
    pub text: usize,
    /// Channels after each stage of the decoder, multiples of 16.
    pub decoder: [usize; 2],
    /// Channels to which the features of middle blocks are upsampled, for each stage of the decoder.
    pub decoder_features: [usize; 2],
    /// Channels of the guidance of each stage of the decoder by these features.
    pub decoder_guidance: [usize; 2],
    /// Most classes that are aggregated; of more, those with the highest cosines are. The class axis is filled up to this
    /// length with a trained token. 0: no limit and no filling.
    pub classes: usize,
    /// Rows and columns that class aggregation averages in training; in inference, it averages none.
    pub pooling: [usize; 2],
    /// Kind of attention among classes.
    pub attention: ClassAttentionKind,
    /// Number of class embeddings per class; channels of the cost volume.
    #[serde(skip, default = "one")]
    pub templates: usize,
}

fn one() -> usize {
    1
}

impl Default for AggregatorConfig {
    fn default() -> Self {
        Self {
            width: 128,
            layers: 2,
            heads: 4,
            window: 12,
            appearance: 128,
            text: 128,
            decoder: [64, 32],
            decoder_features: [256, 128],
            decoder_guidance: [32, 16],
            classes: 256,
            pooling: [2, 2],
            attention: ClassAttentionKind::default(),
            templates: one(),
        }
    }
}

impl AggregatorConfig {
    /// Checks that the sizes are consistent.
    ///
    /// - `grid`: rows and columns of patches
    ///
    /// # Errors
    /// Returns an error that names the setting and its value.
    pub fn check(&self, grid: [usize; 2]) -> Result<(), ModelError> {
        let fail = |text: String| Err(ModelError::Config(format!("model.aggregator.{text}")));
        let sizes = [
            ("width", self.width),
            ("layers", self.layers),
            ("heads", self.heads),
            ("window", self.window),
            ("decoder", self.decoder[0].min(self.decoder[1])),
            ("pooling", self.pooling[0].min(self.pooling[1])),
        ];
        if let Some((name, _)) = sizes.iter().find(|(_, size)| *size == 0) {
            return fail(format!("{name} = 0: it must be at least 1"));
        }
        if !self.width.is_multiple_of(self.heads) {
            return fail(format!(
                "width = {}: it must be a multiple of the {} heads",
                self.width, self.heads
            ));
        }
        let window = super::swin::Windows::side(grid, self.window);
        if grid.iter().any(|side| !side.is_multiple_of(window)) {
            return fail(format!(
                "window = {}: it must divide the sides of the grid of {}×{} patches",
                self.window, grid[0], grid[1]
            ));
        }
        if self
            .decoder
            .iter()
            .any(|channels| !channels.is_multiple_of(16))
        {
            return fail(format!(
                "decoder = {:?}: both numbers must be multiples of 16",
                self.decoder
            ));
        }
        let inputs = [self.width, self.decoder[0]];
        for stage in [0, 1] {
            if self.decoder_guidance[stage] >= inputs[stage] {
                return fail(format!(
                    "decoder-guidance = {:?}: stage {stage} has {} channels in all, so its guidance must have fewer",
                    self.decoder_guidance, inputs[stage]
                ));
            }
        }
        if (0..2).any(|axis| self.pooling[axis] > grid[axis]) {
            return fail(format!(
                "pooling = {:?}: it must not exceed the grid of {}×{} patches",
                self.pooling, grid[0], grid[1]
            ));
        }
        Ok(())
    }

    /// Infers the sizes from tensors under `prefix`; what no shape tells is as released. `None` if there is no aggregator.
    pub fn from_weights(weights: &StateDict, prefix: &str) -> Option<Self> {
        let shape = |name: &str| weights.shape(&format!("{prefix}{name}"));
        let rows = |name: &str| shape(name).and_then(|shape| shape.first().copied());
        let [width, templates, _, _] = shape("conv1.weight")?[..] else {
            return None;
        };
        let is_layer =
            |layer: &usize| shape(&format!("layers.{layer}.attention.norm1.weight")).is_some();
        let projection =
            |stage: usize| shape(&format!("decoder_guidance_projection.{stage}.0.weight"));
        let guidance = [0, 1].map(projection);
        let channels = |axis: usize| {
            [0, 1].map(|stage: usize| {
                let shape = guidance[stage].as_ref();
                shape
                    .and_then(|shape| shape.get(axis).copied())
                    .unwrap_or(0)
            })
        };
        let released = Self::default();
        Some(Self {
            width,
            templates,
            layers: (0..MOST).take_while(is_layer).count(),
            appearance: rows("guidance_projection.0.weight").unwrap_or(0),
            text: rows("text_guidance_projection.0.weight").unwrap_or(0),
            decoder: [
                rows("decoder1.conv.double_conv.0.weight")?,
                rows("decoder2.conv.double_conv.0.weight")?,
            ],
            decoder_features: channels(1),
            decoder_guidance: channels(0),
            // A model that was trained without filling the class axis has no limit either.
            classes: match shape("layers.0.attention.padding_tokens") {
                Some(_) => released.classes,
                None => 0,
            },
            ..released
        })
    }
}

/// The configuration of a CAT-Seg model.
#[derive(Debug, Clone, PartialEq)]
pub struct CatSegConfig {
    /// CLIP's image tower, with the position table of its weights.
    pub encoder: VisionConfig,
    /// CLIP's text tower.
    pub text: TextSizes,
    /// Side in pixels of the images that CLIP encodes; windows of another size are resized.
    pub side: usize,
    /// Side in pixels of a window, for which the cost is computed.
    pub crop: usize,
    /// Indices of the two middle blocks of the image tower that guide the decoder, from 0, the earlier one first.
    pub taps: [usize; 2],
    /// The aggregator.
    pub aggregator: AggregatorConfig,
    /// The parts of CLIP that are fine-tuned.
    pub tuning: Tuning,
    /// The statistics that pixels are normalised with.
    pub statistics: PixelStatistics,
}

impl CatSegConfig {
    /// Returns the middle blocks of the published models: the last ones of the first and of the second third.
    pub fn published_taps(layers: usize) -> [usize; 2] {
        [1, 2].map(|third| (third * layers / 3).saturating_sub(1))
    }

    /// Returns the rows and columns of patches.
    pub fn grid(&self) -> [usize; 2] {
        [self.side / self.encoder.patch.max(1); 2]
    }

    /// Returns the step between windows: two thirds of their side.
    pub fn step(&self) -> usize {
        (self.crop as f64 * (1.0 - 0.333)) as usize
    }

    /// Infers a published model from its weights; `None` if they are something else.
    ///
    /// # Errors
    /// Returns an error if the weights are a CAT-Seg of the first version, or if the towers are inconsistent.
    pub fn from_weights(weights: &StateDict) -> Result<Option<Self>, ModelError> {
        let Some(aggregator) = AggregatorConfig::from_weights(weights, AGGREGATOR) else {
            return Ok(None);
        };
        if !weights.contains("upsample1.weight") {
            return Err(ModelError::Config(format!(
                "{}: a CAT-Seg of the first version (2023), with a backbone beside CLIP; only models of the second \
                 version (2024) are supported",
                weights.origin()
            )));
        }
        let encoder = VisionConfig {
            double_class_embedding: false,
            prompts: None,
            regions: None,
            ..prompted_tower(weights)?
        };
        let text = text_config(weights)?.ok_or_else(|| ModelError::MissingTensor {
            key: "text_encoder.token_embedding.weight".into(),
            origin: weights.origin(),
        })?;
        Ok(Some(Self {
            text: TextSizes {
                width: text.width,
                layers: text.layers,
                heads: text.heads,
            },
            side: PUBLISHED_GRID * encoder.patch,
            crop: PUBLISHED_CROP,
            taps: Self::published_taps(encoder.layers),
            encoder,
            aggregator,
            tuning: Tuning::default(),
            statistics: PixelStatistics::default(),
        }))
    }

    /// Checks that the sizes are consistent.
    ///
    /// # Errors
    /// Returns an error that names the setting and its value.
    pub fn check(&self) -> Result<(), ModelError> {
        let fail = |text: String| Err(ModelError::Config(text));
        self.encoder.check()?;
        let TextSizes {
            width,
            layers,
            heads,
        } = self.text;
        if width == 0 || layers == 0 || heads == 0 || !width.is_multiple_of(heads) {
            return fail(format!(
                "model.text-encoder: {layers} layers of width {width} with {heads} heads: no size may be 0, and the heads \
                 must divide the width"
            ));
        }
        if self.side == 0 || !self.side.is_multiple_of(self.encoder.patch) {
            return fail(format!(
                "model.input-resolution = {}: it must be a multiple of the patch size, {}",
                self.side, self.encoder.patch
            ));
        }
        if self.crop == 0 || !self.crop.is_multiple_of(STRIDE) {
            return fail(format!(
                "model.crop = {}: it must be a multiple of {STRIDE}",
                self.crop
            ));
        }
        let [early, late] = self.taps;
        if early > late || late + 1 >= self.encoder.layers {
            return fail(format!(
                "model.taps = [{early}, {late}]: they must be two blocks before the last of {}, counted from 0, the \
                 earlier one first",
                self.encoder.layers
            ));
        }
        let aggregator = &self.aggregator;
        if aggregator.templates != 1 {
            return fail(format!(
                "the aggregator takes {} embeddings a class (conv1.weight); only models with 1 are supported",
                aggregator.templates
            ));
        }
        if aggregator.decoder_guidance.contains(&0) || aggregator.decoder_features.contains(&0) {
            return fail(format!(
                "model.aggregator.decoder-guidance = {:?}, decoder-features = {:?}: all must be at least 1",
                aggregator.decoder_guidance, aggregator.decoder_features
            ));
        }
        aggregator.check(self.grid())
    }
}
