//! Compares the aggregator alone in several configurations: other limits of classes, attention, windows, pooling and
//! guidance, several templates, and grids that are not square.

use burn::tensor::{Device, Tensor};
use zeg_model::{
    Precision,
    methods::cat_seg::{
        AggregatorConfig, aggregator::Aggregator, class_attention::ClassAttentionKind,
    },
    trace::Trace,
    weights::{HostTensor, ParamBuilder},
};

use super::{
    case::{joined, published_weights, reordered},
    compare_logits,
    inference::compare_kept,
};
use crate::{ParityError, array::Array, check::Check, file::Meta, limit::Limit};

/// Prefix of the aggregator's tensors in a model.
const AGGREGATOR: &str = "sem_seg_head.predictor.transformer.";
/// Limit of everything in the file.
const LIMIT: Limit = Limit::OfRms(5e-5);

/// Compares every variant.
pub(super) fn compare(check: &mut Check, device: &Device) -> Result<(), ParityError> {
    let variants = check.file().meta().at("variants")?.entries();
    for (name, variant) in &variants {
        compare_variant(check, name, variant, device)?;
    }
    Ok(())
}

/// Reads an input of a variant as a tensor; `None` if the file does not have it.
fn input<const D: usize>(
    check: &mut Check,
    name: &str,
    device: &Device,
) -> Result<Option<Tensor<D>>, ParityError> {
    if !check.has(name) {
        return Ok(None);
    }
    let array = check.input(name)?;
    let found = array.to_tensor(device);
    let found = found.ok_or_else(|| check.tensor_error(name, &format!("does not have {D} axes")));
    found.map(Some)
}

fn compare_variant(
    check: &mut Check,
    name: &str,
    variant: &Meta,
    device: &Device,
) -> Result<(), ParityError> {
    let (config, dim) = configuration(variant)?;
    let prefix = format!("{name}.state.");
    let stored: Vec<(String, HostTensor)> = check
        .file()
        .tensors
        .iter()
        .filter_map(|(key, array)| {
            let key = key.strip_prefix(&prefix)?;
            Some((format!("{AGGREGATOR}{key}"), array.to_host()))
        })
        .collect();
    for key in check.file().tensors.keys().cloned().collect::<Vec<_>>() {
        if key.starts_with(&prefix) {
            check.input(&key)?;
        }
    }
    let mut weights = published_weights(&stored)?;
    if let Some(error) = check.planted() {
        error.alter_weights(&mut weights, config.heads)?;
    }
    let key = |what: &str| format!("{name}.{what}");
    let Some(features) = input::<4>(check, &key("in.img_feats"), device)? else {
        return Err(check.tensor_error(&key("in.img_feats"), "is missing"));
    };
    let Some(text) = input::<4>(check, &key("in.text_feats"), device)? else {
        return Err(check.tensor_error(&key("in.text_feats"), "is missing"));
    };
    let appearance = input::<4>(check, &key("in.guid0"), device)?;
    let mut middle = Vec::new();
    for index in 1..=2 {
        middle.extend(input::<4>(check, &key(&format!("in.guid{index}")), device)?);
    }
    let [batch, _, h, w] = features.dims();
    config.check([h, w])?;
    // What the weights lack is not used: tokens that fill an axis which is full.
    let unused = |key: &str| key.contains("padding_");
    let params = ParamBuilder::packed(&weights, device, 0, Precision::Float)?.without(&unused);
    let params = params.at("sem_seg_head").at("predictor").at("transformer");
    let aggregator = Aggregator::build(&params, &config, dim)?;
    let appearance = appearance.unwrap_or_else(|| features.clone());
    let guides = aggregator.guides(&appearance, &middle, &mut Trace::off());
    let (mut outputs, mut logits, mut kept) = (Vec::new(), Vec::new(), Vec::new());
    let last = format!("layer{}.out", config.layers.saturating_sub(1));
    let [_, classes, templates, channels] = text.dims();
    for index in 0..batch {
        let mut trace = Trace::on();
        let found = aggregator.forward(
            features.clone().narrow(0, index, 1),
            &guides.image(index),
            text.clone()
                .narrow(0, index, 1)
                .reshape([classes, templates, channels]),
            config.pooling,
            &mut trace,
        )?;
        logits.push(Array::of(found)?);
        let mut recorded = trace.into_recorded();
        let order = match recorded.remove("topk_classes") {
            Some(data) => {
                let own = Array::of_data(data)?;
                let order = order(check, &key("topk_classes"), index, &own);
                kept.push(own);
                order
            }
            None => None,
        };
        if let Some(data) = recorded.remove(&last) {
            let found = Array::of_data(data)?;
            outputs.push(match order {
                Some(order) => reordered(&found, 2, &order),
                None => found,
            });
        }
    }
    check.compare(&key("layers_out"), &joined(&outputs), LIMIT);
    compare_logits(check, &key("logits"), &joined(&logits), LIMIT);
    if !kept.is_empty() {
        compare_kept(check, &key("topk_classes"), &joined(&kept));
    }
    Ok(())
}

/// Returns the place of each class that the reference keeps for an image among those kept here.
fn order(check: &Check, name: &str, image: usize, own: &Array) -> Option<Vec<usize>> {
    let reference = check.file().tensors.get(name)?;
    let (own, all) = (own.to_u32(), reference.to_u32());
    let row = all.chunks_exact(own.len().max(1)).nth(image)?;
    let place = |class: &u32| own.binary_search(class).unwrap_or(0);
    Some(row.iter().map(place).collect())
}

/// Returns the configuration of a variant, and the channels of the joint space.
fn configuration(variant: &Meta) -> Result<(AggregatorConfig, usize), ParityError> {
    let count = |name: &str| variant.at(name)?.count();
    let kind = variant.at("attention_type")?;
    let config = AggregatorConfig {
        width: count("hidden_dim")?,
        layers: count("num_layers")?,
        heads: count("nheads")?,
        window: variant.at("window_size")?.count()?,
        appearance: count("appearance_guidance_proj_dim")?,
        text: count("text_guidance_proj_dim")?,
        decoder: variant.at("decoder_dims")?.pair()?,
        decoder_features: variant.at("decoder_guidance_dims")?.pair()?,
        decoder_guidance: variant.at("decoder_guidance_proj_dims")?.pair()?,
        classes: count("pad_len")?,
        pooling: variant.at("pooling_size")?.pair()?,
        attention: match kind.text()? {
            "linear" => ClassAttentionKind::Linear,
            "full" => ClassAttentionKind::Softmax,
            _ => return Err(kind.error("is neither linear nor full")),
        },
        templates: count("prompt_channel")?,
    };
    Ok((config, count("D")?))
}
