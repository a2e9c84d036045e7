//! Infers the architecture of a CLIP model from the shapes of its tensors and from configuration files.
//!
//! The shapes determine everything except the number of attention heads, the activation, the epsilon of LayerNorm, and
//! the statistics that images are normalised with. These are stated in `config.json` (Hugging Face) or
//! `open_clip_config.json` beside the weights (module `side_files`); the metadata in files that `zeg` has written take
//! precedence over both, and the user over all. Without a statement, the heads are those of the published tower of the
//! same size (module `published`), the activation is OpenAI's, QuickGELU, and both count as assumed.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::{
    StateDict, WeightsError,
    published::published_name,
    side_files::SideFiles,
    towers::{text, unsupported, vision},
};

/// Metadata key of an imported file whose value is its architecture, as JSON.
pub const ARCHITECTURE_KEY: &str = "zeg.architecture";
/// Epsilon of LayerNorm in OpenAI's CLIP.
const LAYER_NORM_EPSILON: f64 = 1e-5;

/// The activation function in a block's MLP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum StatedActivation {
    /// x · sigmoid(1.702 x): OpenAI's models and those derived from them.
    QuickGelu,
    /// GELU with the error function: most models trained with open_clip.
    Gelu,
}

/// Whether a value is stated in a file or assumed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Basis {
    /// A file states the value.
    Stated,
    /// No file states the value, so that of OpenAI's models is assumed.
    Assumed,
}

/// The numbers of attention heads that a user or a checkpoint states; `None` for what is left to the files.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct StatedHeads {
    /// Number of heads of the image tower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub image: Option<usize>,
    /// Number of heads of the text tower.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub text: Option<usize>,
}

/// A property of weights that nothing states, with the value that is assumed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Assumption {
    /// The activation of both towers.
    Activation(StatedActivation),
    /// The number of heads of the image tower.
    ImageHeads {
        /// The assumed number.
        heads: usize,
        /// The published tower of the same size, such as `ViT-B/16`, if there is one.
        published: Option<String>,
    },
    /// The number of heads of the text tower.
    TextHeads {
        /// The assumed number.
        heads: usize,
    },
}

/// The sizes of the image tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all(deserialize = "kebab-case"), deny_unknown_fields)]
pub struct VisionShape {
    /// Side of a patch in pixels.
    pub patch: usize,
    /// Number of channels of a token.
    pub width: usize,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Whether the number of heads is stated or assumed.
    #[serde(alias = "heads_basis")]
    pub heads_basis: Basis,
    /// Number of channels of the joint embedding space; `None` if the projection is not in the file.
    #[serde(alias = "embed_dim")]
    pub embed_dim: Option<usize>,
    /// Side in pixels of the square images that the positional embedding is made for.
    #[serde(alias = "input_resolution")]
    pub input_resolution: usize,
}

impl VisionShape {
    /// Returns the name of the published tower of the same sizes, such as `ViT-B/16`; `None` if there is none.
    pub fn published_name(&self) -> Option<String> {
        published_name(self.width, self.layers, self.heads, self.patch)
    }
}

/// The sizes of the text tower.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all(deserialize = "kebab-case"), deny_unknown_fields)]
pub struct TextShape {
    /// Number of channels of a token.
    pub width: usize,
    /// Number of transformer blocks.
    pub layers: usize,
    /// Number of attention heads.
    pub heads: usize,
    /// Whether the number of heads is stated or assumed.
    #[serde(alias = "heads_basis")]
    pub heads_basis: Basis,
    /// Number of channels of the joint embedding space; `None` if the projection is not in the file.
    #[serde(alias = "embed_dim")]
    pub embed_dim: Option<usize>,
    /// Number of tokens of the longest text.
    #[serde(alias = "context_length")]
    pub context_length: usize,
    /// Number of token ids.
    pub vocabulary: usize,
}

/// The architecture of a CLIP model, as far as its files state it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all(deserialize = "kebab-case"), deny_unknown_fields)]
pub struct Architecture {
    /// The image tower, if there is one.
    pub vision: Option<VisionShape>,
    /// The text tower, if there is one.
    pub text: Option<TextShape>,
    /// The activation function of both towers.
    pub activation: StatedActivation,
    /// Whether the activation is stated or assumed.
    #[serde(alias = "activation_basis")]
    pub activation_basis: Basis,
    /// Epsilon of every LayerNorm.
    #[serde(alias = "layer_norm_epsilon")]
    pub layer_norm_epsilon: f64,
    /// Mean of red, green and blue in units of 0..=1, if stated.
    #[serde(alias = "image_mean")]
    pub image_mean: Option<[f32; 3]>,
    /// Standard deviation of red, green and blue in units of 0..=1, if stated.
    #[serde(alias = "image_std")]
    pub image_std: Option<[f32; 3]>,
}

impl Architecture {
    /// Infers the architecture of opened weights.
    ///
    /// # Errors
    /// Returns an error if a tower does not have CLIP's form, if a configuration file contradicts the tensors or states
    /// something that `zeg` does not support, or if nothing states the number of heads and there is no usual one.
    pub fn infer(weights: &StateDict) -> Result<Self, WeightsError> {
        let stated = stated(weights)?;
        let activation = weights.activation().or(stated.activation);
        let (vision, text) = (vision(weights, &stated)?, text(weights, &stated)?);
        Ok(Self {
            vision,
            text,
            activation: activation.unwrap_or(StatedActivation::QuickGelu),
            activation_basis: match activation {
                Some(_) => Basis::Stated,
                None => Basis::Assumed,
            },
            layer_norm_epsilon: stated.layer_norm_epsilon.unwrap_or(LAYER_NORM_EPSILON),
            image_mean: stated.image_mean,
            image_std: stated.image_std,
        })
    }

    /// Lists what nothing states about the towers.
    pub fn assumptions(&self) -> Vec<Assumption> {
        let mut found = Vec::new();
        if self.activation_basis == Basis::Assumed {
            found.push(Assumption::Activation(self.activation));
        }
        let image = self.vision.as_ref();
        if let Some(tower) = image.filter(|tower| tower.heads_basis == Basis::Assumed) {
            found.push(Assumption::ImageHeads {
                heads: tower.heads,
                published: tower.published_name(),
            });
        }
        let text = self.text.as_ref();
        if let Some(tower) = text.filter(|tower| tower.heads_basis == Basis::Assumed) {
            found.push(Assumption::TextHeads { heads: tower.heads });
        }
        found
    }

    /// Returns the numbers of heads that the user, the metadata or a configuration file beside the weights states.
    ///
    /// # Errors
    /// Returns an error if the metadata or a configuration file cannot be read, or states what is not supported.
    pub fn stated_heads(weights: &StateDict) -> Result<StatedHeads, WeightsError> {
        let (own, files) = (weights.heads(), stated(weights)?);
        Ok(StatedHeads {
            image: own.image.or(files.vision_heads),
            text: own.text.or(files.text_heads),
        })
    }

    /// Returns the activation that the user, the metadata or a configuration file beside the weights states; `None` if
    /// nothing states it.
    ///
    /// # Errors
    /// Returns an error if the metadata or a configuration file cannot be read, or states an activation that is not
    /// supported.
    pub fn stated_activation(
        weights: &StateDict,
    ) -> Result<Option<StatedActivation>, WeightsError> {
        match weights.activation() {
            Some(activation) => Ok(Some(activation)),
            None => Ok(stated(weights)?.activation),
        }
    }
}

/// Returns the statements of the metadata of an imported file, or of the configuration files beside the weights.
fn stated(weights: &StateDict) -> Result<SideFiles, WeightsError> {
    // The metadata of an imported file state everything, and they are compared with the tensors all the same.
    let own = weights
        .metadata()
        .get(ARCHITECTURE_KEY)
        .map(|json| {
            of_metadata(json).map_err(|error| {
                unsupported(weights, format!("metadata {ARCHITECTURE_KEY:?}: {error}"))
            })
        })
        .transpose()?;
    let mut stated = match own {
        Some(own) => SideFiles::of_architecture(&own),
        None => SideFiles::default(),
    };
    let opened = weights.opened().iter().rev();
    for opened in opened.filter(|_| !weights.metadata().contains_key(ARCHITECTURE_KEY)) {
        stated = SideFiles::beside(opened)?;
        if stated != SideFiles::default() {
            break;
        }
    }
    Ok(stated)
}

/// Parses the architecture in the metadata of an imported file.
///
/// Files of earlier versions have hyphens in their keys, and do not say whether the heads are stated; they are if the
/// activation is, because both stood in the same configuration.
fn of_metadata(json: &str) -> serde_json::Result<Architecture> {
    let mut value: Value = serde_json::from_str(json)?;
    let basis = value.get("activation-basis").cloned();
    for tower in ["vision", "text"] {
        let tower = value.get_mut(tower).and_then(Value::as_object_mut);
        if let (Some(tower), Some(basis)) = (tower, &basis) {
            tower.entry("heads-basis").or_insert_with(|| basis.clone());
        }
    }
    serde_json::from_value(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The metadata of an imported file of version 0.1, whose heads are a guess if its activation is.
    fn earlier(basis: &str) -> Architecture {
        let json = format!(
            r#"{{"vision":{{"patch":14,"width":1280,"layers":32,"heads":20,"embed-dim":1024,"input-resolution":224}},
                "text":null,"activation":"quick-gelu","activation-basis":"{basis}","layer-norm-epsilon":1e-5,
                "image-mean":null,"image-std":null}}"#
        );
        of_metadata(&json).unwrap()
    }

    #[test]
    fn a_guess_of_an_earlier_import_is_no_fact() {
        let basis = |basis| earlier(basis).vision.unwrap().heads_basis;
        assert_eq!(basis("stated"), Basis::Stated);
        assert_eq!(basis("assumed"), Basis::Assumed);
        let stated = SideFiles::of_architecture(&earlier("assumed"));
        assert_eq!((stated.vision_heads, stated.activation), (None, None));
        let stated = SideFiles::of_architecture(&earlier("stated"));
        assert_eq!(stated.vision_heads, Some(20));
    }

    #[test]
    fn what_is_written_is_read_back() {
        let own = earlier("stated");
        let json = serde_json::to_string(&own).unwrap();
        assert!(json.contains(r#""heads_basis":"stated""#), "{json}");
        assert!(!json.contains("embed-dim"), "{json}");
        assert_eq!(of_metadata(&json).unwrap(), own);
    }

    #[test]
    fn assumptions_name_the_value_and_the_published_tower() {
        let mut found = earlier("assumed");
        if let Some(tower) = &mut found.vision {
            tower.heads = 16;
        }
        let heads = Assumption::ImageHeads {
            heads: 16,
            published: Some("ViT-H/14".into()),
        };
        let activation = Assumption::Activation(StatedActivation::QuickGelu);
        assert_eq!(found.assumptions(), [activation, heads]);
        assert_eq!(earlier("stated").assumptions(), []);
    }
}
