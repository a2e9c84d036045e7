//! Reads the description of a CAT-Seg, its weights and its images.

use std::collections::HashMap;

use burn::tensor::{Device, Tensor, TensorData};
use safetensors::{Dtype, tensor::TensorView};
use zeg_image::{RgbImage, Window, normalize::Normalization};
use zeg_model::{
    Precision,
    config::{Activation, TextConfig, VisionConfig},
    encoded::stretched,
    inference::{Inference, InferenceMode, StretchedPart},
    method::{Architecture as _, Model},
    methods::cat_seg::{
        AggregatorConfig, CatSeg, CatSegConfig, Tuning,
        class_attention::ClassAttentionKind,
        config::{PixelStatistics, STRIDE, TextSizes},
        keys,
    },
    text::TextTower,
    weights::{HostTensor, ParamBuilder, StateDict},
};

use super::{ACTIVATION, SENSITIVE};
use crate::{
    ParityError, array::Array, check::Check, file::Meta, limit::Limit, planted::PlantedError,
};

/// Prefix of the text tower's tensors.
const TEXT_TOWER: &str = "text_encoder";

/// A model and its settings.
pub(super) struct Case {
    pub(super) config: CatSegConfig,
    pub(super) weights: StateDict,
    /// Limit of activations and scores in inference.
    pub(super) limit: Limit,
    /// Settings of windows and whole image.
    pub(super) slide: Inference,
    /// Settings of the whole image alone.
    pub(super) whole: Inference,
    /// Pooling of class aggregation in inference.
    pub(super) pooling: [usize; 2],
    pub(super) planted: Option<PlantedError>,
}

impl Case {
    /// Reads a small model with its weights.
    pub(super) fn small(check: &Check) -> Result<Self, ParityError> {
        let file = check.file();
        let stored: Vec<(String, HostTensor)> = file
            .tensors
            .iter()
            .filter_map(|(name, array)| {
                Some((name.strip_prefix("state.")?.to_owned(), array.to_host()))
            })
            .collect();
        let weights = published_weights(&stored)?;
        Self::new(&file.meta().at("config")?, weights, check.planted())
    }

    /// Reads the settings of a model with these weights.
    pub(super) fn new(
        config: &Meta,
        mut weights: StateDict,
        planted: Option<PlantedError>,
    ) -> Result<Self, ParityError> {
        let count = |name: &str| config.at(name)?.count();
        let head = count("head_dim")?;
        let encoder = VisionConfig {
            patch: count("patch")?,
            width: count("vis_width")?,
            layers: count("vis_layers")?,
            heads: count("vis_width")? / head.max(1),
            embed_dim: count("embed")?,
            input_resolution: count("stored_grid")? * count("patch")?,
            double_class_embedding: false,
            activation: Activation::default(),
            prompts: None,
            regions: None,
        };
        if let Some(error) = planted {
            error.alter_class_token(&mut weights)?;
            error.alter_weights(&mut weights, encoder.heads)?;
        }
        let aggregator = AggregatorConfig {
            width: count("hidden")?,
            layers: count("agg_layers")?,
            heads: count("agg_heads")?,
            window: count("window")?,
            appearance: count("app_proj")?,
            text: count("text_proj")?,
            decoder: config.at("dec_dims")?.pair()?,
            decoder_features: config.at("dec_guid_dims")?.pair()?,
            decoder_guidance: config.at("dec_guid_proj")?.pair()?,
            classes: count("pad_len")?,
            pooling: config.at("pool_train")?.pair()?,
            attention: ClassAttentionKind::default(),
            templates: 1,
        };
        let crop = count("kernel")?;
        let stride = config.at("out_res")?.pair()?[0].saturating_sub(crop);
        let slide = Inference {
            short_side: 0,
            crop,
            stride,
            seen_offset: 0.0,
            ..Inference::default()
        };
        let config_of_model = CatSegConfig {
            text: TextSizes {
                width: count("text_width")?,
                layers: count("text_layers")?,
                heads: count("text_width")? / head.max(1),
            },
            side: count("clip_res")?,
            crop: crop.next_multiple_of(STRIDE),
            taps: config.at("taps")?.pair()?,
            encoder,
            aggregator,
            tuning: Tuning::default(),
            statistics: PixelStatistics::default(),
        };
        Ok(Self {
            limit: match config.find("shrink") {
                Some(_) => SENSITIVE,
                None => ACTIVATION,
            },
            whole: Inference {
                mode: InferenceMode::Whole,
                ..slide.clone()
            },
            slide,
            pooling: config.at("pool_eval")?.pair()?,
            config: config_of_model,
            weights,
            planted,
        })
    }

    /// Builds the model for inference, with packed linear layers.
    pub(super) fn packed(&self, device: &Device) -> Result<Box<dyn Model>, ParityError> {
        Ok(self
            .config
            .build_packed(&self.weights, device, Precision::Float)?)
    }

    /// Builds the model for training.
    pub(super) fn trained(&self, device: &Device) -> Result<CatSeg, ParityError> {
        Ok(CatSeg::build(&self.weights, &self.config, device, 0)?.0)
    }

    /// Builds the text tower for inference.
    pub(super) fn text_tower(&self, device: &Device) -> Result<TextTower, ParityError> {
        let rows = |name: &str| {
            let shape = self.weights.shape(&format!("{TEXT_TOWER}.{name}"));
            shape.and_then(|shape| shape.first().copied()).unwrap_or(0)
        };
        let TextSizes {
            width,
            layers,
            heads,
        } = self.config.text;
        let config = TextConfig {
            width,
            layers,
            heads,
            embed_dim: self.config.encoder.embed_dim,
            context_length: rows("positional_embedding"),
            vocabulary: rows("token_embedding.weight"),
            activation: Activation::default(),
        };
        let params = ParamBuilder::packed(&self.weights, device, 0, Precision::Float)?;
        Ok(TextTower::build(&params.at(TEXT_TOWER), &config)?)
    }
}

/// Returns a model as CAT-Seg.
pub(super) fn as_cat_seg<'a>(
    check: &Check,
    model: &'a dyn Model,
) -> Result<&'a CatSeg, ParityError> {
    let found = model.as_any().downcast_ref::<CatSeg>();
    found.ok_or_else(|| check.tensor_error("state", "is not a CAT-Seg"))
}

/// Gives weights with the published names those of this program, as when a published checkpoint is opened.
pub(super) fn published_weights(stored: &[(String, HostTensor)]) -> Result<StateDict, ParityError> {
    let bytes: Vec<Vec<u8>> = stored
        .iter()
        .map(|(_, tensor)| tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect())
        .collect();
    let views = stored.iter().zip(&bytes).map(|((name, tensor), bytes)| {
        let view = TensorView::new(Dtype::F32, tensor.shape.clone(), bytes)?;
        Ok((name.as_str(), view))
    });
    let damaged = |error: safetensors::SafeTensorError| ParityError::Backend(error.to_string());
    let views = views
        .collect::<Result<Vec<_>, safetensors::SafeTensorError>>()
        .map_err(damaged)?;
    let file = safetensors::serialize(views, None::<HashMap<String, String>>).map_err(damaged)?;
    let opened = StateDict::from_bytes("state", file, &[keys::CAT_SEG])?;
    // Copies in memory, which errors can be planted into.
    let mut weights = StateDict::default();
    for key in opened.keys() {
        if let Some(tensor) = opened.read(key)? {
            weights.insert(key.to_owned(), tensor);
        }
    }
    Ok(weights)
}

/// Returns a whole image as input of the model: `[1, 3, height, width]`, padded to multiples of the stride.
pub(super) fn whole_image(image: &RgbImage, device: &Device) -> Tensor<4> {
    let (height, width) = (image.height() as usize, image.width() as usize);
    let all = StretchedPart {
        image: [height, width],
        part: Window {
            x: 0,
            y: 0,
            width,
            height,
        },
    };
    part_of_image(image, &all, device)
}

/// Returns a part of a stretched image as input of the model: `[1, 3, height, width]`.
pub(super) fn part_of_image(image: &RgbImage, input: &StretchedPart, device: &Device) -> Tensor<4> {
    let padded = [input.part.height, input.part.width].map(|side| side.next_multiple_of(STRIDE));
    let values = stretched(image, input, &Normalization::CLIP, padded);
    let shape = [1, 3, padded[0], padded[1]];
    Tensor::from_data(TensorData::new(values, shape), device)
}

/// Reads images from `[3, height, width]` or `[batch, 3, height, width]` bytes.
pub(super) fn images(check: &mut Check, name: &str) -> Result<Vec<RgbImage>, ParityError> {
    let stored = check.input(name)?;
    let ([3, height, width] | [_, 3, height, width]) = stored.shape[..] else {
        return Err(check.tensor_error(name, "is not [batch, 3, height, width]"));
    };
    let pixels = height * width;
    let bytes = stored.to_u8();
    bytes
        .chunks_exact((3 * pixels).max(1))
        .map(|planes| {
            let bytes = (0..pixels).flat_map(|pixel| [0, 1, 2].map(|c| planes[c * pixels + pixel]));
            RgbImage::from_raw(width as u32, height as u32, bytes.collect())
                .ok_or_else(|| check.tensor_error(name, "is not an image"))
        })
        .collect()
}

/// Reads one image.
pub(super) fn image(check: &mut Check, name: &str) -> Result<RgbImage, ParityError> {
    let first = images(check, name)?.into_iter().next();
    first.ok_or_else(|| check.tensor_error(name, "is empty"))
}

/// Returns an array with one axis more in front.
pub(super) fn in_front(array: &Array) -> Array {
    let mut shape = vec![1];
    shape.extend(&array.shape);
    Array {
        shape,
        values: array.values.clone(),
    }
}

/// Joins arrays along their first axis.
pub(super) fn joined(arrays: &[Array]) -> Array {
    let mut shape = arrays
        .first()
        .map_or_else(Vec::new, |array| array.shape.clone());
    if let Some(first) = shape.first_mut() {
        *first = arrays.iter().map(|array| array.shape[0]).sum();
    }
    Array {
        shape,
        values: arrays
            .iter()
            .flat_map(|array| array.values.clone())
            .collect(),
    }
}

/// Returns the entries of an axis in another order.
pub(super) fn reordered(array: &Array, axis: usize, order: &[usize]) -> Array {
    let inner: usize = array.shape[axis + 1..].iter().product();
    let length = array.shape[axis];
    let chunks = array.values.chunks_exact((inner * length).max(1));
    let values = chunks.flat_map(|outer| {
        order
            .iter()
            .flat_map(move |&entry| outer[entry * inner..][..inner].iter().copied())
    });
    let mut shape = array.shape.clone();
    shape[axis] = order.len();
    Array {
        values: values.collect(),
        shape,
    }
}
