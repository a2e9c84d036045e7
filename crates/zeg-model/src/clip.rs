//! CLIP as a whole, for contrastive pre-training: both towers and the temperature (Radford et al., 2021, section 2.3).
//!
//! Elsewhere the towers are read one at a time from a weight file; here they start from random values, are trained
//! together, and are written as such a file.

use burn::{
    module::{Module, Param},
    tensor::{Device, Tensor},
};
use rand::{RngExt as _, SeedableRng as _};
use rand_chacha::ChaCha8Rng;
use rand_distr::StandardNormal;
use zeg_image::normalize::Normalization;

use crate::{
    ModelError,
    config::{Activation, TextConfig, VisionConfig},
    layers::l2_normalize,
    params::{ParamInfo, list_params},
    text::TextTower,
    vision::VisionTransformer,
    weights::{
        Architecture, Basis, HostTensor, Init, ParamBuilder, StateDict, TextShape, VisionShape,
    },
};

/// Initial logarithm of CLIP's logit scale, ln(1 / 0.07).
const FIRST_LOGIT_SCALE: f32 = 2.659_26;
/// Upper limit of the logarithm of CLIP's logit scale, ln 100.
const MOST_LOGIT_SCALE: f64 = 4.605_17;

/// Normalisation of images in pre-training: the same as in ZegCLIP's training, so that the encoder gets the same values
/// in both.
pub const NORMALIZATION: Normalization = Normalization::IMAGENET;

/// The sizes of both towers.
#[derive(Debug, Clone, PartialEq)]
pub struct ClipConfig {
    /// The image tower, without prompts and region tokens.
    pub vision: VisionConfig,
    /// The text tower, with the same `embed_dim` as the image tower.
    pub text: TextConfig,
}

impl ClipConfig {
    /// Returns MiniCLIP, which is small enough to be pre-trained on a CPU within an hour.
    ///
    /// - `vocabulary`: rows of the token table
    pub fn mini(vocabulary: usize) -> Self {
        Self {
            vision: VisionConfig {
                patch: 8,
                width: 96,
                layers: 4,
                heads: 3,
                embed_dim: 64,
                input_resolution: 64,
                double_class_embedding: false,
                activation: Activation::default(),
                prompts: None,
                regions: None,
            },
            text: TextConfig {
                width: 96,
                layers: 2,
                heads: 3,
                embed_dim: 64,
                context_length: 40,
                vocabulary,
                activation: Activation::default(),
            },
        }
    }

    /// Returns the same sizes in the form that weight files state them.
    pub fn architecture(&self) -> Architecture {
        let (vision, text) = (&self.vision, &self.text);
        Architecture {
            vision: Some(VisionShape {
                patch: vision.patch,
                width: vision.width,
                layers: vision.layers,
                heads: vision.heads,
                heads_basis: Basis::Stated,
                embed_dim: Some(vision.embed_dim),
                input_resolution: vision.input_resolution,
            }),
            text: Some(TextShape {
                width: text.width,
                layers: text.layers,
                heads: text.heads,
                heads_basis: Basis::Stated,
                embed_dim: Some(text.embed_dim),
                context_length: text.context_length,
                vocabulary: text.vocabulary,
            }),
            activation: vision.activation.into(),
            activation_basis: Basis::Stated,
            layer_norm_epsilon: crate::layers::LAYER_NORM_EPSILON,
            image_mean: Some(NORMALIZATION.mean.map(|value| value / 255.0)),
            image_std: Some(NORMALIZATION.std.map(|value| value / 255.0)),
        }
    }
}

/// CLIP's two towers, with the names of the reference checkpoints.
#[derive(Module, Debug)]
pub struct Clip {
    /// The image tower.
    pub backbone: VisionTransformer,
    /// The text tower.
    pub text_encoder: TextTower,
    /// Logarithm of the scale of cosine similarities: `[1]`
    pub logit_scale: Param<Tensor<1>>,
}

impl Clip {
    /// Returns a model with random values, all of them trained.
    ///
    /// # Errors
    /// Returns an error if the configuration is inconsistent.
    pub fn fresh(config: &ClipConfig, device: &Device, seed: u64) -> Result<Self, ModelError> {
        if config.vision.embed_dim != config.text.embed_dim {
            return Err(ModelError::Config(format!(
                "the image tower projects to {} channels, but the text tower to {}; both must be equal",
                config.vision.embed_dim, config.text.embed_dim
            )));
        }
        let nothing = StateDict::default();
        let all = |_: &str| true;
        let shapes = Self::build(&ParamBuilder::blueprint(&nothing, device, &all), config)?;
        let mut values = StateDict::default();
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        for ParamInfo { name, shape, .. } in list_params(&shapes, |_| true) {
            let values_of = first_values(&name, &shape, config, &mut rng);
            values.insert(
                name,
                HostTensor {
                    shape,
                    values: values_of,
                },
            );
        }
        Self::build(&ParamBuilder::new(&values, device, seed, &all), config)
    }

    fn build(params: &ParamBuilder, config: &ClipConfig) -> Result<Self, ModelError> {
        Ok(Self {
            backbone: VisionTransformer::build(&params.at("backbone"), &config.vision)?,
            text_encoder: TextTower::build(&params.at("text_encoder"), &config.text)?,
            logit_scale: params.param("logit_scale", [1], Init::Required)?,
        })
    }

    /// Encodes images as unit embeddings: `[batch, 3, height, width]` → `[batch, dim]`.
    pub fn encode_images(&self, images: Tensor<4>) -> Tensor<2> {
        l2_normalize(self.backbone.embed_images(images))
    }

    /// Encodes texts as unit embeddings: `[texts]` rows of the token table, all of the same length → `[texts, dim]`.
    pub fn encode_texts(&self, texts: &[Vec<u32>]) -> Tensor<2> {
        l2_normalize(self.text_encoder.forward_ends(texts))
    }

    /// Returns the scale of cosine similarities: `[1]`, at most 100.
    pub fn scale(&self) -> Tensor<1> {
        self.logit_scale.val().clamp_max(MOST_LOGIT_SCALE).exp()
    }
}

/// Returns OpenAI's initial values, which are published for the text tower and used here for both towers.
fn first_values(
    name: &str,
    shape: &[usize],
    config: &ClipConfig,
    rng: &mut ChaCha8Rng,
) -> Vec<f32> {
    let (width, layers) = if name.starts_with("backbone.") {
        (config.vision.width, config.vision.layers)
    } else {
        (config.text.width, config.text.layers)
    };
    let usual = (width as f64).powf(-0.5);
    let into_residual = usual * (2.0 * layers as f64).powf(-0.5);
    let ends = |ending: &str| name.ends_with(ending);
    let deviation = if ends("token_embedding.weight") {
        0.02
    } else if ends("text_encoder.positional_embedding") {
        0.01
    } else if ends("out_proj.weight") || ends("c_proj.weight") {
        into_residual
    } else if ends("c_fc.weight") {
        (2.0 * width as f64).powf(-0.5)
    } else if ends("conv1.weight") {
        (shape[1..].iter().product::<usize>() as f64).powf(-0.5)
    } else if shape.len() > 1 || ends("class_embedding") {
        usual
    } else {
        let constant = match name {
            "logit_scale" => FIRST_LOGIT_SCALE,
            _ if ends("weight") => 1.0, // weight of a norm
            _ => 0.0,                   // bias
        };
        return vec![constant; shape.iter().product()];
    };
    (0..shape.iter().product())
        .map(|_| (rng.sample::<f64, _>(StandardNormal) * deviation) as f32)
        .collect()
}

#[cfg(test)]
mod tests {
    use burn::tensor::Distribution;

    use super::*;
    use crate::trace::Trace;

    #[test]
    fn shortened_passes_of_pre_training_give_the_towers_own_embeddings() {
        let device = Device::flex();
        let model = Clip::fresh(&ClipConfig::mini(10), &device, 3).unwrap();
        for side in [32, 64] {
            let shape = [2, 3, side, side];
            let images = Tensor::<4>::random(shape, Distribution::Normal(0.0, 1.0), &device);
            let whole = model
                .backbone
                .forward(images.clone(), &mut Trace::off())
                .global;
            assert_close(whole, model.encode_images(images));
        }
        let texts = [vec![8, 1, 2, 9, 0], vec![8, 3, 4, 5, 9]];
        let whole = model.text_encoder.forward(&texts, &mut Trace::off());
        assert_close(l2_normalize(whole), model.encode_texts(&texts));
    }

    fn assert_close(a: Tensor<2>, b: Tensor<2>) {
        let difference = (a - b).abs().max().into_scalar::<f32>();
        assert!(difference < 1e-5, "{difference}");
    }

    #[test]
    fn a_fresh_model_depends_on_its_seed() {
        let device = Device::flex();
        let first = |seed| {
            let model = Clip::fresh(&ClipConfig::mini(10), &device, seed).unwrap();
            model
                .backbone
                .proj
                .val()
                .into_data()
                .try_to_vec::<f32>()
                .unwrap()
        };
        assert_eq!(first(0), first(0));
        assert_ne!(first(0), first(1));
    }
}
