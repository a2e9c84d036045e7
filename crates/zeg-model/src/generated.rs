//! The weight generator of the reference vectors: each value is a function of a name, a seed and a position.
//!
//! Reference files of full-size models do not store their weights. FNV-1a of the name and the seed start a splitmix64
//! sequence; its upper 24 bits become a number in [-1, 1) that is exact in `f32`. The numbers of a parameter are then
//! scaled by a rule that depends on its name and shape ("Weight generator" in the vectors' README).

use burn::tensor::Device;
use zeg_base::{
    hash::fnv1a,
    random::{GOLDEN_GAMMA, splitmix64},
};

use crate::{
    ModelError,
    method::Architecture,
    params::list_params,
    weights::{HostTensor, StateDict},
};

/// Generates `count` numbers in [-1, 1), from which all other values are derived.
pub fn uniform(name: &str, seed: u64, count: usize) -> impl Iterator<Item = f32> {
    // Consecutive seeds are one increment of splitmix64 apart.
    let start = fnv1a(name).wrapping_add(seed.wrapping_mul(GOLDEN_GAMMA));
    (0..count as u64).map(move |i| {
        let bits = splitmix64(start.wrapping_add(i)) >> 40; // 24 bits
        bits as f32 * (2.0_f32).powi(-23) - 1.0
    })
}

/// Generates `count` integers in `0..below`.
pub fn integers(name: &str, seed: u64, count: usize, below: u32) -> Vec<u32> {
    uniform(name, seed, count)
        .map(|v| (f64::midpoint(f64::from(v), 1.0) * f64::from(below)).floor() as u32)
        .collect()
}

/// Generates a parameter of a model, scaled according to its name and shape.
pub fn parameter(name: &str, seed: u64, shape: &[usize]) -> HostTensor {
    let (amplitude, offset) = scale(name, shape);
    let values = uniform(name, seed, shape.iter().product());
    HostTensor {
        shape: shape.to_vec(),
        values: values.map(|v| v * amplitude + offset).collect(),
    }
}

/// Generates weights for every parameter of a model.
///
/// # Errors
/// Returns an error if the configuration is inconsistent.
pub fn weights(architecture: &dyn Architecture, seed: u64) -> Result<StateDict, ModelError> {
    let blueprint = architecture.blueprint(&Device::flex())?;
    let mut weights = StateDict::default();
    for info in list_params(&*blueprint, |_| false) {
        let values = parameter(&info.name, seed, &info.shape);
        weights.insert(architecture.weight_name(&info.name), values);
    }
    Ok(weights)
}

/// Generates class embeddings of unit length: `[classes, dim]`, row-major.
pub fn class_embeddings(name: &str, seed: u64, classes: usize, dim: usize) -> Vec<f32> {
    let mut values: Vec<f32> = uniform(name, seed, classes * dim).collect();
    for row in values.chunks_exact_mut(dim.max(1)) {
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        for value in row {
            *value /= length;
        }
    }
    values
}

/// Returns amplitude and offset of a parameter.
fn scale(name: &str, shape: &[usize]) -> (f32, f32) {
    let mut parts = name.rsplit('.');
    let leaf = parts.next().unwrap_or_default();
    let module = parts.next().unwrap_or_default();
    let fan = |count: usize| (3.0 / count.max(1) as f64).sqrt();
    let is_norm = module.starts_with("ln_")
        || module.contains("norm")
        || leaf == "running_var"
        || (leaf == "weight" && shape.len() == 1);
    let is_table = leaf.ends_with("embedding")
        || leaf.ends_with("embeddings")
        || module.ends_with("embedding")
        || leaf == "region_level_bridge";
    if leaf.ends_with("bias") {
        (0.1, 0.0)
    } else if is_norm {
        (0.2, 1.0)
    } else if leaf == "running_mean" {
        (0.1, 0.0)
    } else if is_table {
        (0.5, 0.0)
    } else if matches!(leaf, "proj" | "text_projection") {
        (fan(shape[0]) as f32, 0.0)
    } else {
        let amplitude = fan(shape.iter().skip(1).product());
        // The key projections of ZegCLIP's decoder are enlarged so that its masks differ from each other.
        let sharpened = name.contains("decoder_1") && name.ends_with("multihead_attn.k.weight");
        let factor = if sharpened { 6.0 } else { 1.0 };
        ((amplitude * factor) as f32, 0.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn integers_stay_in_their_range() {
        let drawn = integers("full.label", 5, 1000, 21);
        assert!(drawn.iter().all(|&n| n < 21) && drawn.contains(&0) && drawn.contains(&20));
    }
}
