//! Calibrates the 8-bit matrices of an image tower: runs it on images made by rule, and rounds the matrices of every block
//! for the inputs that they get.
//!
//! No image of the user is needed: noise whose waves are the stronger the longer they are, as in natural images, excites the
//! tower's strongest directions, on which the errors of rounding matter most (docs/src/guide/onnx.md has the measurement).

use burn::tensor::{Tensor, TensorData, activation};
use zeg_image::Normalization;
use zeg_model::{
    config::{Activation, VisionConfig},
    prompts::PromptAction,
    trace::Trace,
    transformer::ResidualBlock,
    vision::VisionTransformer,
};

use crate::{
    params::{Parameter, ParameterSet},
    rounding::{self, Inputs, MOST},
    settings::Progress,
};

/// Tokens that the images have at least, up to [`MOST_IMAGES`].
const TOKENS: usize = 2048;
const FEWEST_IMAGES: usize = 10;
const MOST_IMAGES: usize = 60;
/// Strength of a wave beside that of twice its length; images take turns.
const DECAY: [f32; 3] = [0.6, 0.75, 0.9];

/// Rounds the matrices of a tower's blocks, in place; those that it does not find stay as they are.
///
/// - `tower`: the tower under `backbone` in the parameters
/// - `side`: side of the images that it gets, in pixels
/// - `progress`: is told of every block
pub(crate) fn calibrate(
    params: &mut ParameterSet,
    tower: &VisionTransformer,
    side: usize,
    normalization: &Normalization,
    progress: Progress<'_>,
) {
    let blocks = tower.transformer.resblocks.len();
    let tell = |done: usize| {
        if let Progress(Some(tell)) = progress {
            tell(done, blocks);
        }
    };
    tell(0);
    let config = tower.config();
    let tokens = (side / config.patch.max(1)).pow(2) + 1;
    let count = (TOKENS / tokens.max(1)).clamp(FEWEST_IMAGES, MOST_IMAGES);
    let values: Vec<f32> = (0..count)
        .flat_map(|index| normalised(&made_image(index, side), normalization))
        .collect();
    let device = tower.class_embedding.val().device();
    let images = Tensor::<4>::from_data(TensorData::new(values, [count, 3, side, side]), &device);
    let mut trace = Trace::on();
    tower.forward(images, &mut trace);
    let mut recorded = trace.into_recorded();
    let prompts = tower.prompts.as_ref();
    let prompts = prompts.map(|prompts| (prompts, prompts.project(&mut Trace::off())));
    let mut places = 0;
    for (layer, block) in tower.transformer.resblocks.iter().enumerate() {
        let before = match layer {
            0 => "ln_pre".to_owned(),
            _ => format!("block{}", layer - 1),
        };
        let Some(tokens) = recorded.remove(&before) else {
            return;
        };
        let mut tokens = Tensor::<3>::from_data(tokens, &device);
        if let Some((prompts, projected)) = &prompts {
            (tokens, places) = match prompts.action(projected, layer, count) {
                PromptAction::Keep => (tokens, places),
                PromptAction::Remove => with_prompts(&tokens, places, None),
                PromptAction::Set(fresh) => with_prompts(&tokens, places, Some(fresh)),
            };
        }
        let name = format!("backbone.transformer.resblocks.{layer}");
        let _ = Layers { config, params }.round_block(block, &name, &tokens);
        tell(layer + 1);
    }
}

/// Puts other prompts after the class token; returns the tokens and the number of prompts.
fn with_prompts(tokens: &Tensor<3>, places: usize, fresh: Option<Tensor<3>>) -> (Tensor<3>, usize) {
    let [_, count, _] = tokens.dims();
    let class = tokens.clone().narrow(1, 0, 1);
    let rest = tokens.clone().narrow(1, 1 + places, count - 1 - places);
    let places = fresh.as_ref().map_or(0, |fresh| fresh.dims()[1]);
    let parts = [Some(class), fresh, Some(rest)];
    (
        Tensor::cat(parts.into_iter().flatten().collect(), 1),
        places,
    )
}

/// The layers of a tower.
struct Layers<'a> {
    config: &'a VisionConfig,
    params: &'a mut ParameterSet,
}

impl Layers<'_> {
    /// Rounds the matrices of a block for its input, `[batch, tokens, width]`; ends early if the model lacks one of them.
    fn round_block(&mut self, block: &ResidualBlock, name: &str, tokens: &Tensor<3>) -> Option<()> {
        let [batch, count, width] = tokens.dims();
        let (heads, head) = (self.config.heads, width / self.config.heads.max(1));

        self.join_projections(&format!("{name}.attn"));
        let normed = block.ln_1.forward(tokens.clone());
        let qkv = self.rounded(&normed, &format!("{name}.attn.in_proj_"))?;
        let part = |index: usize| {
            let part = qkv.clone().narrow(2, index * width, width);
            part.reshape([batch, count, heads, head]).swap_dims(1, 2) // [batch, heads, tokens, head]
        };
        // Region tokens see all tokens here: their mask changes little of what the layers get.
        let logits = part(0).matmul(part(1).swap_dims(2, 3)) * (head as f64).powf(-0.5);
        let attended = activation::softmax(logits, 3).matmul(part(2));
        let attended = attended.swap_dims(1, 2).reshape([batch, count, width]);
        let output = self.rounded(&attended, &format!("{name}.attn.out_proj."))?;

        let normed = block.ln_2.forward(tokens.clone() + output);
        let hidden = self.rounded(&normed, &format!("{name}.mlp.c_fc."))?;
        let hidden = match self.config.activation {
            Activation::QuickGelu => hidden.clone() * activation::sigmoid(hidden * 1.702),
            Activation::Gelu => activation::gelu(hidden),
        };
        self.rounded(&hidden, &format!("{name}.mlp.c_proj."))?;
        Some(())
    }

    /// Puts the weights of queries, keys and values into one matrix, if the model has three.
    fn join_projections(&mut self, attention: &str) {
        let joint = format!("{attention}.in_proj_weight");
        if self.params.contains(&joint) {
            return;
        }
        let parts = ["q", "k", "v"].map(|part| format!("{attention}.{part}_proj_weight"));
        let parts: Result<Vec<_>, _> = parts.iter().map(|part| self.params.get(part)).collect();
        let Ok(parts) = parts else {
            return;
        };
        let width = parts[0].shape.get(1).copied().unwrap_or(0);
        let weight = Parameter {
            shape: vec![parts.iter().map(|part| part.shape[0]).sum(), width],
            values: parts.iter().flat_map(|part| part.values.clone()).collect(),
        };
        self.params.put(joint, weight);
    }

    /// Rounds a layer for its input, and returns its output before that; `None` if the model has none of this name.
    fn rounded(&mut self, x: &Tensor<3>, name: &str) -> Option<Tensor<3>> {
        let names = ["weight", "bias"].map(|part| format!("{name}{part}"));
        let weight = self.params.get(&names[0]).ok()?;
        let bias = self.params.get(&names[1]).ok()?;
        let [outputs, inputs] = <[usize; 2]>::try_from(&weight.shape[..]).ok()?;
        let [mut rounded, mut moved] = [weight.clone(), bias.clone()];

        let device = x.device();
        let weight = TensorData::new(rounded.values.clone(), [outputs, inputs]);
        let weight = Tensor::<2>::from_data(weight, &device).transpose();
        let bias = TensorData::new(moved.values.clone(), [outputs]);
        let bias = Tensor::<1>::from_data(bias, &device);
        let output = x.clone().matmul(weight.unsqueeze::<3>()) + bias.unsqueeze::<3>();

        if let Some(inputs) = statistics(x) {
            rounding::round(&mut rounded, &mut moved, &inputs);
            for (name, parameter) in names.into_iter().zip([rounded, moved]) {
                self.params.put(name, parameter);
            }
        }
        Some(output)
    }
}

/// Returns mean and covariances of a layer's inputs over all tokens; `None` if they are not finite.
fn statistics(x: &Tensor<3>) -> Option<Inputs> {
    let [batch, tokens, width] = x.dims();
    let rows = x.clone().reshape([batch * tokens, width]);
    let mean = rows.clone().mean_dim(0); // [1, width]
    let centred = rows - mean.clone();
    let values = |tensor: Tensor<2>| tensor.into_data().convert::<f32>().try_to_vec::<f32>().ok();
    let mut covariances = Vec::new();
    for start in (0..width).step_by(MOST) {
        let group = centred.clone().narrow(1, start, MOST.min(width - start));
        let count = (batch * tokens).max(1) as f64;
        covariances.push(values(group.clone().transpose().matmul(group) / count)?);
    }
    let inputs = Inputs {
        mean: values(mean)?,
        covariances,
    };
    let finite = |values: &[f32]| values.iter().all(|value| value.is_finite());
    let all = finite(&inputs.mean) && inputs.covariances.iter().all(|values| finite(values));
    all.then_some(inputs)
}

/// Returns an image by rule, `[side, side, 3]` with values from 0 to 255: coloured and grey noise of all lengths of waves.
fn made_image(index: usize, side: usize) -> Vec<f32> {
    let mut random = Random(0x5EED ^ (index as u64 + 1).wrapping_mul(0x9E37_79B9_7F4A_7C15));
    let mut image = vec![0.0_f32; 3 * side * side];
    let (mut cells, mut strength) = (2, 1.0);
    while cells <= side {
        for channel in 0..4 {
            let noise: Vec<f32> = (0..cells * cells).map(|_| random.bell()).collect();
            add_enlarged(&mut image, side, (&noise, cells), (channel, strength));
        }
        cells *= 2;
        strength *= DECAY[index % DECAY.len()];
    }
    let count = image.len().max(1) as f32;
    let mean = image.iter().sum::<f32>() / count;
    let variance = image.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / count;
    let contrast = (30.0 + 45.0 * random.share()) / variance.sqrt().max(1e-6);
    let brightness = 70.0 + 110.0 * random.share();
    let shifted = |value: f32| {
        ((value - mean) * contrast + brightness)
            .clamp(0.0, 255.0)
            .round()
    };
    image.into_iter().map(shifted).collect()
}

/// Adds a map of cells, enlarged bilinearly, to a channel of an image, or to all three for channel 3.
fn add_enlarged(
    image: &mut [f32],
    side: usize,
    (noise, cells): (&[f32], usize),
    (channel, strength): (usize, f32),
) {
    let places: Vec<(usize, usize, f32)> = (0..side)
        .map(|pixel| {
            let place = (pixel as f32 + 0.5) * cells as f32 / side as f32 - 0.5;
            let place = place.clamp(0.0, (cells - 1) as f32);
            let first = place as usize;
            (first, (first + 1).min(cells - 1), place.fract())
        })
        .collect();
    let rows = image.chunks_exact_mut(3 * side).zip(&places);
    for (row, &(top, bottom, down)) in rows {
        for (pixel, &(left, right, along)) in row.chunks_exact_mut(3).zip(&places) {
            let at = |row: usize, column: usize| noise[row * cells + column];
            let upper = at(top, left) * (1.0 - along) + at(top, right) * along;
            let lower = at(bottom, left) * (1.0 - along) + at(bottom, right) * along;
            let value = strength * (upper * (1.0 - down) + lower * down);
            match pixel.get_mut(channel) {
                Some(own) => *own += value,
                None => pixel.iter_mut().for_each(|own| *own += value),
            }
        }
    }
}

/// Returns the values of an image as the tower takes them: `[3, side, side]`
fn normalised(image: &[f32], normalization: &Normalization) -> Vec<f32> {
    let channel = |index: usize| {
        let (mean, std) = (normalization.mean[index], normalization.std[index]);
        let values = image.iter().skip(index).step_by(3);
        values.map(move |value| (value - mean) / std)
    };
    (0..3).flat_map(channel).collect()
}

/// Numbers by rule (SplitMix64, Steele et al. 2014).
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        z ^ (z >> 31)
    }

    /// Returns a number from 0 to 1.
    fn share(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1_u64 << 24) as f32
    }

    /// Returns a number around 0 with a variance of 1/3: the sum of four even ones.
    fn bell(&mut self) -> f32 {
        (0..4).map(|_| self.share() - 0.5).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn images_differ_and_use_the_range() {
        let images: Vec<Vec<f32>> = (0..3).map(|index| made_image(index, 48)).collect();
        assert_ne!(images[0], images[1]);
        assert_eq!(images[2], made_image(2, 48));
        for image in &images {
            assert_eq!(image.len(), 3 * 48 * 48);
            let mean = image.iter().sum::<f32>() / image.len() as f32;
            let spread = image.iter().map(|v| (v - mean).powi(2)).sum::<f32>() / image.len() as f32;
            assert!((60.0..190.0).contains(&mean), "{mean}");
            assert!((15.0..80.0).contains(&spread.sqrt()), "{spread}");
            assert!(image.iter().all(|value| (0.0..=255.0).contains(value)));
        }
    }
}
