//! The configuration file of open_clip.

use std::path::Path;

use serde::Deserialize;
use serde_json::Value;

use super::{SideFiles, epsilon, number, read, statistics, unsupported, wrong};
use crate::{WeightsError, architecture::StatedActivation};

#[derive(Deserialize)]
struct OpenClip {
    model_cfg: Model,
    preprocess_cfg: Option<Images>,
}

#[derive(Deserialize)]
struct Model {
    embed_dim: Option<usize>,
    quick_gelu: Option<bool>,
    #[serde(default)]
    vision_cfg: serde_json::Map<String, Value>,
    #[serde(default)]
    text_cfg: serde_json::Map<String, Value>,
}

#[derive(Deserialize)]
struct Images {
    mean: Option<[f32; 3]>,
    std: Option<[f32; 3]>,
}

/// Settings of open_clip that change the computation, with the values for which it equals that of CLIP.
const OPEN_CLIP_VARIANTS: [(&str, &[&str]); 15] = [
    ("timm_model_name", &["null", "\"\""]),
    ("attentional_pool", &["false", "null"]),
    ("global_average_pool", &["false"]),
    ("pool_type", &["\"tok\"", "\"argmax\""]),
    ("no_ln_pre", &["false"]),
    ("ls_init_value", &["null"]),
    ("pos_embed_type", &["\"learnable\""]),
    ("act_kwargs", &["null", "{}"]),
    ("hf_model_name", &["null"]),
    ("embed_cls", &["false"]),
    ("no_causal_mask", &["false"]),
    ("proj_type", &["\"linear\""]),
    ("proj_bias", &["false"]),
    ("attn_type", &["null"]),
    ("block_type", &["null"]),
];

/// Default number of channels of an image head in open_clip.
const OPEN_CLIP_HEAD_WIDTH: usize = 64;
/// Default number of text heads in open_clip.
pub(super) const OPEN_CLIP_TEXT_HEADS: usize = 8;

pub(super) fn open_clip(folder: &Path) -> Result<SideFiles, WeightsError> {
    let path = folder.join("open_clip_config.json");
    let Some(mut file) = read::<Value>(&path)? else {
        return Ok(SideFiles::default());
    };
    // A file of open_clip's own `model_configs` has the same content without its name.
    if file.get("model_cfg").is_none() && file.get("vision_cfg").is_some() {
        file = serde_json::json!({ "model_cfg": file });
    }
    let OpenClip {
        model_cfg: model,
        preprocess_cfg: images,
    } = serde_json::from_value(file).map_err(|error| WeightsError::Format {
        path: path.clone(),
        reason: format!("not a valid configuration of a CLIP model: {error}"),
    })?;
    let (vision, text) = (&model.vision_cfg, &model.text_cfg);
    for (name, usual) in OPEN_CLIP_VARIANTS {
        for tower in [vision, text] {
            let found = tower.get(name).map(Value::to_string);
            if let Some(found) = found.filter(|found| !usual.contains(&found.as_str())) {
                let found: String = found.chars().take(60).collect();
                return Err(unsupported(
                    &path,
                    format!("{name} is {found}; supported: {}", usual.join(", ")),
                ));
            }
        }
    }
    let of_vision = |key: &str| number(&path, "vision_cfg", vision, key);
    let of_text = |key: &str| number(&path, "text_cfg", text, key);
    let mut epsilons = Vec::new();
    for tower in [vision, text] {
        let stated = tower.get("norm_kwargs").and_then(|it| it.get("eps"));
        if let Some(value) = stated.filter(|value| !value.is_null()) {
            let not_a_number = || wrong(&path, "norm_kwargs.eps", value, "a number");
            epsilons.push(value.as_f64().ok_or_else(not_a_number)?);
        }
    }
    let mut epsilons = epsilons.into_iter();
    let layer_norm_epsilon = epsilon(&path, epsilons.next())?;
    if epsilons.any(|other| layer_norm_epsilon.map(f64::to_bits) != Some(other.to_bits())) {
        return Err(unsupported(
            &path,
            "the towers differ in LayerNorm epsilon, which is not supported".into(),
        ));
    }
    let head_width = of_vision("head_width")?.unwrap_or(OPEN_CLIP_HEAD_WIDTH);
    let vision_width = of_vision("width")?;
    let images = images.unwrap_or(Images {
        mean: None,
        std: None,
    });
    statistics(&path, images.mean, images.std)?;
    Ok(SideFiles {
        origin: path.display().to_string(),
        patch: of_vision("patch_size")?,
        vision_width,
        vision_layers: of_vision("layers")?,
        vision_heads: vision_width.and_then(|width| width.checked_div(head_width)),
        text_width: of_text("width")?,
        text_layers: of_text("layers")?,
        text_heads: Some(of_text("heads")?.unwrap_or(OPEN_CLIP_TEXT_HEADS)),
        context_length: of_text("context_length")?,
        vocabulary: of_text("vocab_size")?,
        embed_dim: model.embed_dim,
        activation: Some(match model.quick_gelu {
            Some(true) => StatedActivation::QuickGelu,
            _ => StatedActivation::Gelu,
        }),
        layer_norm_epsilon,
        image_mean: images.mean,
        image_std: images.std,
    })
}
