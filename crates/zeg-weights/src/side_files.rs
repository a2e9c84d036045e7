//! Reads the configuration files beside the weights: `config.json` and `preprocessor_config.json` (Hugging Face), and
//! `open_clip_config.json` (open_clip).
//!
//! A file is read only beside weights of its own family, because a folder of downloads may contain a `config.json` of
//! anything. The fields and their defaults are those of the configuration classes in `transformers` (`CLIPConfig`) and
//! `open_clip` (`CLIPVisionCfg`, `CLIPTextCfg`).

mod open_clip;

use std::{fs::File, io::Read as _, path::Path};

use serde::{Deserialize, de::DeserializeOwned};
use serde_json::Value;
use zeg_base::content::{StandIn, stand_in};

use self::open_clip::open_clip;
use crate::{
    WeightsError,
    architecture::{Architecture, Basis, StatedActivation},
    families::clip::{HUGGING_FACE_CLIP, OPEN_CLIP_CUSTOM_TEXT, OPENAI_CLIP},
    state_dict::Opened,
};

/// Name of the file with the preprocessing of images of a model of Hugging Face.
const PREPROCESSOR: &str = "preprocessor_config.json";
/// The largest size of a configuration file, in bytes.
const MOST_BYTES: u64 = 1 << 20;

/// The statements of the configuration files; `None` for values that are not stated.
#[derive(Debug, Clone, Default, PartialEq)]
pub(crate) struct SideFiles {
    /// The source of the statements, for messages.
    pub(crate) origin: String,
    pub(crate) patch: Option<usize>,
    pub(crate) vision_width: Option<usize>,
    pub(crate) vision_layers: Option<usize>,
    pub(crate) vision_heads: Option<usize>,
    pub(crate) text_width: Option<usize>,
    pub(crate) text_layers: Option<usize>,
    pub(crate) text_heads: Option<usize>,
    pub(crate) context_length: Option<usize>,
    pub(crate) vocabulary: Option<usize>,
    pub(crate) embed_dim: Option<usize>,
    pub(crate) activation: Option<StatedActivation>,
    pub(crate) layer_norm_epsilon: Option<f64>,
    pub(crate) image_mean: Option<[f32; 3]>,
    pub(crate) image_std: Option<[f32; 3]>,
}

impl SideFiles {
    /// Reads the configuration files beside opened weights.
    pub(crate) fn beside(opened: &Opened) -> Result<Self, WeightsError> {
        let family = opened.table.family;
        let read = if family == HUGGING_FACE_CLIP.family {
            hugging_face
        } else if family == OPENAI_CLIP.family || family == OPEN_CLIP_CUSTOM_TEXT.family {
            open_clip
        } else {
            return Ok(Self::default());
        };
        for folder in &opened.folders {
            let stated = read(folder)?;
            if stated != Self::default() {
                return Ok(stated);
            }
        }
        Ok(Self::default())
    }

    /// Returns the statements in the metadata of an imported file.
    pub(crate) fn of_architecture(own: &Architecture) -> Self {
        let (vision, text) = (own.vision.as_ref(), own.text.as_ref());
        Self {
            origin: "its own metadata".into(),
            patch: vision.map(|vision| vision.patch),
            vision_width: vision.map(|vision| vision.width),
            vision_layers: vision.map(|vision| vision.layers),
            vision_heads: vision
                .filter(|vision| vision.heads_basis == Basis::Stated)
                .map(|vision| vision.heads),
            text_width: text.map(|text| text.width),
            text_layers: text.map(|text| text.layers),
            text_heads: text
                .filter(|text| text.heads_basis == Basis::Stated)
                .map(|text| text.heads),
            context_length: text.map(|text| text.context_length),
            vocabulary: text.map(|text| text.vocabulary),
            embed_dim: vision
                .and_then(|vision| vision.embed_dim)
                .or(text.and_then(|text| text.embed_dim)),
            activation: (own.activation_basis == Basis::Stated).then_some(own.activation),
            layer_norm_epsilon: Some(own.layer_norm_epsilon),
            image_mean: own.image_mean,
            image_std: own.image_std,
        }
    }
}

/// Reads a JSON file, or returns `None` if it does not exist.
fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<T>, WeightsError> {
    let failed = |source| WeightsError::Read {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut json = Vec::new();
    file.take(MOST_BYTES)
        .read_to_end(&mut json)
        .map_err(failed)?;
    serde_json::from_slice(&json)
        .map(Some)
        .map_err(|error| WeightsError::Format {
            path: path.to_owned(),
            reason: match stand_in(&json).filter(|found| *found != StandIn::Json) {
                Some(found) => format!("not a configuration of a CLIP model, but {found}"),
                None => format!("not a valid configuration of a CLIP model: {error}"),
            },
        })
}

fn unsupported(path: &Path, reason: String) -> WeightsError {
    WeightsError::Unsupported {
        path: path.to_owned(),
        reason,
    }
}

/// Returns the error for a value that a configuration states and that is not what it must be.
///
/// - `expected`: what it must be, such as `a number`
fn wrong(path: &Path, key: &str, value: &Value, expected: &str) -> WeightsError {
    let value: String = value.to_string().chars().take(60).collect();
    unsupported(path, format!("{key} is {value}; it must be {expected}"))
}

/// Returns the size that a part of open_clip's configuration states under a key; `None` if it states none.
///
/// # Errors
/// Returns an error if the value is not a whole number of at least 1.
fn number(
    path: &Path,
    part: &str,
    config: &serde_json::Map<String, Value>,
    key: &str,
) -> Result<Option<usize>, WeightsError> {
    let Some(value) = config.get(key).filter(|value| !value.is_null()) else {
        return Ok(None);
    };
    let size = value
        .as_u64()
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| *size > 0);
    let expected = "a whole number of at least 1";
    let not_a_size = || wrong(path, &format!("{part}.{key}"), value, expected);
    size.map(Some).ok_or_else(not_a_size)
}

/// Returns the epsilon of LayerNorm, or an error if it is not between 0 and 1.
fn epsilon(path: &Path, value: Option<f64>) -> Result<Option<f64>, WeightsError> {
    match value {
        Some(value) if !(value > 0.0 && value < 1.0) => {
            let reason = format!("the LayerNorm epsilon is {value}; it must be between 0 and 1");
            Err(unsupported(path, reason))
        }
        value => Ok(value),
    }
}

/// Returns an error unless the means of images are between 0 and 1 and the standard deviations finite and positive.
fn statistics(
    path: &Path,
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
) -> Result<(), WeightsError> {
    let is_invalid = mean
        .iter()
        .flatten()
        .any(|value| !(0.0..=1.0).contains(value))
        || std
            .iter()
            .flatten()
            .any(|value| !(value.is_finite() && *value > 0.0));
    if is_invalid {
        return Err(unsupported(
            path,
            format!(
                "the images have the mean {mean:?} and the standard deviation {std:?}; of values from 0 to 1, the mean \
                 must be between 0 and 1, and the deviation finite and positive"
            ),
        ));
    }
    Ok(())
}

#[derive(Deserialize)]
struct HuggingFace {
    model_type: Option<String>,
    projection_dim: Option<usize>,
    vision_config: Option<Tower>,
    text_config: Option<Tower>,
    /// The fields of the tower, if the file describes a single tower.
    #[serde(flatten)]
    alone: Tower,
}

#[derive(Deserialize, Default)]
struct Tower {
    hidden_size: Option<usize>,
    num_hidden_layers: Option<usize>,
    num_attention_heads: Option<usize>,
    hidden_act: Option<String>,
    layer_norm_eps: Option<f64>,
    patch_size: Option<usize>,
    max_position_embeddings: Option<usize>,
    vocab_size: Option<usize>,
}

#[derive(Deserialize)]
struct Preprocessor {
    image_mean: Option<[f32; 3]>,
    image_std: Option<[f32; 3]>,
    do_rescale: Option<bool>,
    do_normalize: Option<bool>,
}

/// Describes what the configuration of the images beside opened weights states and is not followed, for warnings.
pub(crate) fn notices(opened: &Opened) -> Option<String> {
    if opened.table.family != HUGGING_FACE_CLIP.family {
        return None;
    }
    let paths = opened.folders.iter();
    let mut paths = paths.map(|folder| folder.join(PREPROCESSOR));
    // A file that cannot be read is an error where its values are needed.
    let (path, images) = paths.find_map(|path| {
        let images = read::<Preprocessor>(&path).ok()??;
        Some((path, images))
    })?;
    let steps = [
        ("do_rescale", images.do_rescale),
        ("do_normalize", images.do_normalize),
    ];
    let off: Vec<&str> = steps
        .into_iter()
        .filter(|(_, stated)| *stated == Some(false))
        .map(|(name, _)| name)
        .collect();
    (!off.is_empty()).then(|| {
        format!(
            "{}: states {} = false, but images are normalised all the same",
            path.display(),
            off.join(" and ")
        )
    })
}

/// Default number of image and text heads in `transformers`.
const HUGGING_FACE_HEADS: [usize; 2] = [12, 8];

fn hugging_face(folder: &Path) -> Result<SideFiles, WeightsError> {
    let mut stated = SideFiles::default();
    let path = folder.join("config.json");
    if let Some(config) = read::<HuggingFace>(&path)? {
        let kind = config.model_type.as_deref().unwrap_or("clip");
        let (vision, text) = match kind {
            "clip" => (config.vision_config, config.text_config),
            "clip_vision_model" => (Some(config.vision_config.unwrap_or(config.alone)), None),
            "clip_text_model" => (None, Some(config.text_config.unwrap_or(config.alone))),
            other => {
                return Err(unsupported(
                    &path,
                    format!("the model type is {other:?}, expected \"clip\""),
                ));
            }
        };
        let mut activations = Vec::new();
        let mut epsilons = Vec::new();
        for tower in [&vision, &text].into_iter().flatten() {
            activations.push(match tower.hidden_act.as_deref() {
                None | Some("quick_gelu") => StatedActivation::QuickGelu,
                Some("gelu") => StatedActivation::Gelu,
                Some(other) => {
                    return Err(unsupported(
                        &path,
                        format!(
                            "the activation is {other:?}; \"quick_gelu\" and \"gelu\" are supported"
                        ),
                    ));
                }
            });
            epsilons.extend(epsilon(&path, tower.layer_norm_eps)?);
        }
        let differ = activations.windows(2).any(|pair| pair[0] != pair[1])
            || epsilons
                .windows(2)
                .any(|pair| pair[0].to_bits() != pair[1].to_bits());
        if differ {
            return Err(unsupported(
                &path,
                "the towers differ in activation or LayerNorm epsilon, which is not supported"
                    .into(),
            ));
        }
        let heads = |tower: &Option<Tower>, default| {
            tower
                .as_ref()
                .map(|tower| tower.num_attention_heads.unwrap_or(default))
        };
        let field =
            |tower: &Option<Tower>, get: fn(&Tower) -> Option<usize>| tower.as_ref().and_then(get);
        stated = SideFiles {
            origin: path.display().to_string(),
            patch: field(&vision, |tower| tower.patch_size),
            vision_width: field(&vision, |tower| tower.hidden_size),
            vision_layers: field(&vision, |tower| tower.num_hidden_layers),
            vision_heads: heads(&vision, HUGGING_FACE_HEADS[0]),
            text_width: field(&text, |tower| tower.hidden_size),
            text_layers: field(&text, |tower| tower.num_hidden_layers),
            text_heads: heads(&text, HUGGING_FACE_HEADS[1]),
            context_length: field(&text, |tower| tower.max_position_embeddings),
            vocabulary: field(&text, |tower| tower.vocab_size),
            embed_dim: config.projection_dim,
            activation: activations.first().copied(),
            layer_norm_epsilon: epsilons.first().copied(),
            ..SideFiles::default()
        };
    }
    let path = folder.join(PREPROCESSOR);
    if let Some(images) = read::<Preprocessor>(&path)? {
        statistics(&path, images.image_mean, images.image_std)?;
        (stated.image_mean, stated.image_std) = (images.image_mean, images.image_std);
    }
    Ok(stated)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a folder with one file.
    fn folder(name: &str, json: &str) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join(name), json).unwrap();
        folder
    }

    #[test]
    fn a_number_that_is_stated_and_invalid_is_an_error_with_file_and_key() {
        for (vision, text, says) in [
            ("{}", r#"{"heads": -1}"#, "text_cfg.heads is -1"),
            ("{}", r#"{"heads": 1.0}"#, "text_cfg.heads is 1.0"),
            ("{}", r#"{"layers": "2"}"#, "text_cfg.layers is \"2\""),
            (r#"{"head_width": 0}"#, "{}", "vision_cfg.head_width is 0"),
            (
                r#"{"norm_kwargs": {"eps": "x"}}"#,
                "{}",
                "norm_kwargs.eps is \"x\"",
            ),
        ] {
            let json =
                format!(r#"{{"model_cfg": {{"vision_cfg": {vision}, "text_cfg": {text}}}}}"#);
            let folder = folder("open_clip_config.json", &json);
            let error = open_clip(folder.path()).unwrap_err().to_string();
            assert!(
                error.contains("open_clip_config.json") && error.contains(says),
                "{error}"
            );
        }
        let json = r#"{"model_cfg": {"vision_cfg": {}, "text_cfg": {"heads": null}}}"#;
        let stated = open_clip(folder("open_clip_config.json", json).path()).unwrap();
        assert_eq!(stated.text_heads, Some(open_clip::OPEN_CLIP_TEXT_HEADS));
    }

    #[test]
    fn statistics_of_images_in_units_of_bytes_are_an_error() {
        for (json, is_valid) in [
            (
                r#"{"image_mean": [0.5, 0.0, 1.0], "image_std": [0.5, 0.5, 0.5]}"#,
                true,
            ),
            (r#"{"image_mean": [123.7, 116.3, 103.5]}"#, false),
            (r#"{"image_mean": [-0.1, 0.5, 0.5]}"#, false),
            (r#"{"image_std": [0.5, 0.0, 0.5]}"#, false),
        ] {
            let found = hugging_face(folder(PREPROCESSOR, json).path());
            assert_eq!(found.is_ok(), is_valid, "{json}: {found:?}");
        }
    }
}
