//! Compares image encoders in several configurations: without prompts, with few deep prompts, with prompts at the end.

use burn::tensor::{Device, Tensor};
use zeg_model::{
    Precision,
    config::{Activation, VisionConfig},
    trace::Trace,
    vision::{Encoded, VisionTransformer},
    weights::{ParamBuilder, StateDict},
};

use super::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    file::Meta,
    limit::Limit,
    planted::planted_images,
    small_model::{prompts, schedule, stored_weights},
};

/// Compares every variant.
pub(crate) fn compare(mut check: Check, device: &Device) -> Result<Computed, ParityError> {
    let file = check.file();
    let images = check.input("in.image")?;
    let shared = stored_weights(file, "state.");
    let variants = file.meta().at("configs")?.entries();
    for (name, config) in &variants {
        let mut weights = shared.clone();
        let own = format!("state@{name}.");
        for (key, array) in &file.tensors {
            if let Some(key) = key.strip_prefix(&own) {
                weights.insert(key.to_owned(), array.to_host());
            }
        }
        compare_variant(&mut check, (name, config), weights, images, device)?;
    }
    Ok(check.finish())
}

fn compare_variant(
    check: &mut Check,
    (name, config): (&str, &Meta),
    mut weights: StateDict,
    images: &Array,
    device: &Device,
) -> Result<(), ParityError> {
    let count = |name: &str| config.at(name)?.count();
    let tokens = config.find("num_tokens").map(|m| m.count()).transpose()?;
    let depth = config
        .find("total_d_layer")
        .map(|m| m.integer())
        .transpose()?;
    let encoder = VisionConfig {
        patch: count("patch_size")?,
        width: count("width")?,
        layers: count("layers")?,
        heads: count("heads")?,
        embed_dim: count("output_dim")?,
        input_resolution: count("input_resolution")?,
        double_class_embedding: true,
        activation: Activation::default(),
        prompts: tokens.map(prompts),
        regions: None,
    };
    let schedule = depth.map(|depth| schedule(depth, encoder.layers));
    if let Some(error) = check.planted() {
        error.alter_weights(&mut weights, encoder.heads)?;
    }
    let Some(images) = planted_images(check.planted(), images, encoder.patch).to_tensor(device)
    else {
        return Err(check.tensor_error("in.image", "is not [batch, 3, height, width]"));
    };
    let params = ParamBuilder::packed(&weights, device, 0, Precision::Float)?;
    let model = VisionTransformer::build_scheduled(&params, &encoder, schedule)?;
    let mut trace = Trace::on();
    let encoded = model.forward(images, &mut trace);
    check.compare(
        &format!("{name}.g"),
        &Array::of(encoded.global.clone())?,
        Limit::ACTIVATION,
    );

    // With one level, the file stores the final patch tokens; with several, the outputs of blocks.
    let blocks = config.at("out_indices")?.counts()?;
    if let [_] = blocks[..] {
        let maps = Array::of(maps(encoded.patches, encoded.grid))?;
        check.compare(&format!("{name}.feat0"), &maps, Limit::ACTIVATION);
        return Ok(());
    }
    let mut recorded = trace.into_recorded();
    for (level, block) in blocks.into_iter().enumerate() {
        let Some(tokens) = recorded.remove(&format!("block{block}")) else {
            continue; // `Check::finish` reports the missing result
        };
        let device = encoded.global.device();
        let maps = Array::of(block_maps(Tensor::from_data(tokens, &device), &encoded))?;
        check.compare(&format!("{name}.feat{level}"), &maps, Limit::ACTIVATION);
    }
    Ok(())
}

/// Returns the patch tokens, which are last, of a block's output: `[batch, tokens, width]` → `[batch, width, h, w]`.
fn block_maps(tokens: Tensor<3>, encoded: &Encoded) -> Tensor<4> {
    let [_, length, _] = tokens.dims();
    let patches = encoded.grid[0] * encoded.grid[1];
    maps(tokens.narrow(1, length - patches, patches), encoded.grid)
}

/// Rearranges tokens to maps: `[batch, h·w, channels]` → `[batch, channels, h, w]`.
fn maps(tokens: Tensor<3>, [h, w]: [usize; 2]) -> Tensor<4> {
    let [batch, _, channels] = tokens.dims();
    tokens.swap_dims(1, 2).reshape([batch, channels, h, w])
}
