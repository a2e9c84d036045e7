//! The last block with the steps of the later methods: repaired anomalies, middle blocks, rotated keys.
//!
//! | step | what it computes | source |
//! |---|---|---|
//! | [`Steps::repair`] | anomaly tokens become the mean of their neighbours ([`anomaly`]) | SC-CLIP, arXiv 2411.15869 |
//! | [`Attention::Middle`] | attention softmax(Sim/τ), Sim the cosine similarity of patches after the middle blocks | SC-CLIP |
//! | [`Steps::aggregate`] | outputs are averaged with the same attention | SC-CLIP |
//! | [`Steps::levels`] | the block is applied to the sum of the middle blocks as well, and both outputs are added | SC-CLIP |
//! | [`Attention::RotatedKeys`] | softmax(q·(k·R)ᵀ/√d), R the rotation that brings centred keys closest to centred queries | PEARL, arXiv 2603.21528, first step |

use burn::tensor::{Tensor, TensorData};

use zeg_kernels::softmax;

use super::{anomaly, similarity};
use crate::{ModelError, layers::l2_normalize, transformer::ResidualBlock};

/// Number of Newton-Schulz iterations for the rotation of keys.
pub const POLAR_STEPS: usize = 8;

/// A term of the attention; the terms are added.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Attention {
    /// Queries to queries.
    Queries,
    /// Keys to keys.
    Keys,
    /// Queries to keys that were rotated towards them.
    RotatedKeys,
    /// The similarity of the middle blocks' patches, divided by this temperature.
    Middle(f64),
}

/// The steps that a method takes in the last block.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Steps {
    /// The terms of the attention.
    pub attention: &'static [Attention],
    /// Whether anomaly tokens are repaired first.
    pub repair: bool,
    /// Temperature of the middle similarity that outputs are averaged with, if they are.
    pub aggregate: Option<f64>,
    /// Whether the block is also applied to the sum of the middle blocks.
    pub levels: bool,
    /// Weight of a window's image embedding in the scores of its patches.
    pub vote: f64,
    /// Whether the whole image, resized to a square of the tower's resolution, is encoded beside the windows.
    pub whole_image: bool,
}

/// SC-CLIP's steps; temperature, neighbours and share are this project's.
pub(super) const SC_CLIP: Steps = Steps {
    attention: &[Attention::Keys, Attention::Middle(MIDDLE_TEMPERATURE)],
    repair: true,
    aggregate: Some(MIDDLE_TEMPERATURE),
    levels: true,
    vote: 0.0,
    whole_image: false,
};

/// The first step of PEARL.
pub(super) const PEARL: Steps = Steps {
    attention: &[Attention::RotatedKeys],
    repair: false,
    aggregate: None,
    levels: false,
    vote: 0.0,
    whole_image: false,
};

/// The steps that helped most together in the project's own measurements (docs/src/project/training-free.md).
pub(super) const COMBINED: Steps = Steps {
    attention: &[Attention::Queries],
    repair: false,
    aggregate: None,
    levels: true,
    vote: 0.45,
    whole_image: true,
};

/// Temperature of the cosine similarities of middle blocks.
const MIDDLE_TEMPERATURE: f64 = 0.1;

/// Returns the middle blocks of a tower, counted from 0: in a tower of 12, blocks 4 to 9.
pub fn middle_blocks(layers: usize) -> std::ops::Range<usize> {
    let first = layers / 3;
    first..layers.saturating_sub(2).max(first + 1)
}

/// The outputs of the blocks before the last one.
pub(super) struct Before<'a> {
    /// Output of the penultimate block: `[batch, 1 + h·w, width]`
    pub(super) penultimate: Tensor<3>,
    /// Outputs of the middle blocks, in the same shape; empty if no step needs them.
    pub(super) middle: &'a [Tensor<3>],
    /// Rows and columns of patches.
    pub(super) grid: [usize; 2],
}

impl Steps {
    /// Returns whether the middle blocks are used.
    pub fn needs_middle(&self) -> bool {
        self.levels || self.needs_similarity()
    }

    /// Returns whether the similarity of patches in the middle blocks is used.
    pub fn needs_similarity(&self) -> bool {
        let middle = |term: &Attention| matches!(term, Attention::Middle(_));
        self.aggregate.is_some() || self.attention.iter().any(middle)
    }

    /// Computes the last block: → `[batch, 1 + h·w, width]`.
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub(super) fn last_block(
        &self,
        block: &ResidualBlock,
        before: &Before,
    ) -> Result<Tensor<3>, ModelError> {
        let similar = self
            .needs_similarity()
            .then(|| middle_similarity(before.middle))
            .flatten(); // [batch, h·w, h·w]
        let output = self.pass(
            block,
            before.penultimate.clone(),
            before.grid,
            similar.as_ref(),
        )?;
        let sum = before.middle.iter().cloned().reduce(|sum, next| sum + next);
        match sum.filter(|_| self.levels) {
            Some(sum) => Ok(output + self.pass(block, sum, before.grid, similar.as_ref())?),
            None => Ok(output),
        }
    }

    fn pass(
        &self,
        block: &ResidualBlock,
        x: Tensor<3>,
        grid: [usize; 2],
        similar: Option<&Tensor<3>>,
    ) -> Result<Tensor<3>, ModelError> {
        let x = if self.repair {
            anomaly::repaired(x, grid)?
        } else {
            x
        };
        let [q, k, v] = block.attn.project(block.ln_1.forward(x)); // [batch, heads, tokens, d] each
        let mut attended: Option<Tensor<4>> = None;
        for term in self.attention {
            let weights = match *term {
                Attention::Queries => similarity(q.clone(), q.clone(), None),
                Attention::Keys => similarity(k.clone(), k.clone(), None),
                Attention::RotatedKeys => similarity(q.clone(), rotated(k.clone(), &q), None),
                Attention::Middle(temperature) => match similar {
                    Some(similar) => middle_attention(similar, temperature).unsqueeze_dim(1),
                    None => continue,
                },
            };
            let [_, heads, _, _] = v.dims();
            let [batch, own_heads, rows, columns] = weights.dims();
            let weights = if own_heads == heads {
                weights
            } else {
                weights.expand([batch, heads, rows, columns])
            };
            let part = weights.matmul(v.clone());
            attended = Some(match attended {
                Some(sum) => sum + part,
                None => part,
            });
        }
        let y = block.attn.merge(attended.unwrap_or(v)); // [batch, tokens, width]
        Ok(match (self.aggregate, similar) {
            (Some(temperature), Some(similar)) => middle_attention(similar, temperature).matmul(y),
            _ => y,
        })
    }
}

/// Rotates keys towards queries: `[batch, heads, tokens, d]` twice → the keys, centred and rotated, in the same shape.
///
/// The rotation R minimises ‖k·R − q‖ of centred keys and queries (orthogonal Procrustes): the orthogonal factor of
/// kᵀ·q, by Newton-Schulz iterations X ← 1.5·X − 0.5·X·Xᵀ·X.
fn rotated(k: Tensor<4>, q: &Tensor<4>) -> Tensor<4> {
    let k = k.clone() - k.mean_dim(2);
    let q = q.clone() - q.clone().mean_dim(2);
    let product = k.clone().swap_dims(2, 3).matmul(q); // [batch, heads, d, d]
    let length = product.clone().square().sum_dim(3).sum_dim(2).sqrt(); // [batch, heads, 1, 1]
    let mut rotation = product / length;
    for _ in 0..POLAR_STEPS {
        let square = rotation.clone().matmul(rotation.clone().swap_dims(2, 3));
        rotation = rotation.clone() * 1.5 - square.matmul(rotation) * 0.5;
    }
    k.matmul(rotation)
}

/// Returns the mean over blocks of the cosine similarity between patches: `[batch, h·w, h·w]`.
///
/// - `middle`: outputs of the middle blocks, `[batch, 1 + h·w, width]` each; `None` if there are none
fn middle_similarity(middle: &[Tensor<3>]) -> Option<Tensor<3>> {
    let similar = |tokens: &Tensor<3>| {
        let [_, length, _] = tokens.dims();
        let patches = l2_normalize(tokens.clone().narrow(1, 1, length - 1));
        patches.clone().matmul(patches.swap_dims(1, 2))
    };
    let sum = middle.iter().map(similar).reduce(|sum, next| sum + next);
    sum.map(|sum| sum / middle.len() as f64)
}

/// Returns softmax(similarity/τ) between patches, with a class token that attends to itself alone: `[batch, h·w, h·w]` →
/// `[batch, 1 + h·w, 1 + h·w]`.
fn middle_attention(similar: &Tensor<3>, temperature: f64) -> Tensor<3> {
    let weights = softmax(similar.clone() / temperature);
    let [_, length, _] = weights.dims();
    let mut corner = vec![0.0_f32; (length + 1) * (length + 1)];
    corner[0] = 1.0;
    let corner = TensorData::new(corner, [1, length + 1, length + 1]);
    let corner = Tensor::<3>::from_data(corner, &weights.device());
    weights.pad((1, 0, 1, 0), 0.0) + corner // left, right, top, bottom
}
