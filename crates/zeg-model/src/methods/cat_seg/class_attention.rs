//! Class aggregation: attention among the classes, at every position by itself, guided by the class embeddings.
//!
//! The reference fills the class axis up to a fixed length with one trained token, which is attended to like a class. Its
//! key and value are the same at every position, so all of these tokens together are one constant in the two sums of
//! linear attention; they are not computed one by one.

use burn::{
    module::{Module, Param},
    tensor::{Tensor, activation::relu},
};
use serde::{Deserialize, Serialize};
use zeg_kernels::softmax;

use super::swin::{GuidedLinear, norm};
use crate::{
    ModelError,
    layers::{LayerNorm, Linear},
    resize::bilinear_aligned,
    trace::Trace,
    weights::{Init, ParamBuilder},
};

/// Epsilon added to the normaliser of linear attention.
const EPSILON: f64 = 1e-6;
/// Number of positions that are computed together in inference.
const POSITIONS: usize = 96;

/// The attention among classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum ClassAttentionKind {
    /// Linear attention with the feature map elu(x) + 1, as released.
    #[default]
    Linear,
    /// Softmax attention, an ablation of the paper.
    Softmax,
}

/// Queries, keys and values of the attention among classes, under the reference's names.
#[derive(Module, Debug)]
pub struct Projections {
    /// Queries.
    pub q: GuidedLinear,
    /// Keys.
    pub k: GuidedLinear,
    /// Values, which see the token alone.
    pub v: Linear,
}

/// A layer of attention among classes.
#[derive(Module, Debug)]
pub struct ClassAttention {
    /// The token that fills the class axis: `[1, 1, width]`
    pub padding_tokens: Option<Param<Tensor<3>>>,
    /// Its guidance: `[1, 1, guidance]`
    pub padding_guidance: Option<Param<Tensor<3>>>,
    /// Projections; there is no output projection.
    pub attention: Projections,
    /// MLP: a layer to four times the width, a ReLU, and a layer back.
    pub mlp: (Linear, Option<Linear>, Linear),
    /// Norm before the attention.
    pub norm1: LayerNorm,
    /// Norm before the MLP.
    pub norm2: LayerNorm,
    #[module(skip)]
    settings: ClassAttentionSettings,
}

/// The settings of [`ClassAttention`].
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ClassAttentionSettings {
    /// Number of channels of a token.
    pub width: usize,
    /// Channels of the guidance from class embeddings; 0 for none.
    pub guidance: usize,
    /// Number of attention heads; divides `width`.
    pub heads: usize,
    /// Length up to which the class axis is filled; 0 for no filling.
    pub length: usize,
    /// Kind of attention.
    pub kind: ClassAttentionKind,
}

/// Queries, keys and values of all heads: `[positions, heads, tokens, head]` each.
struct Split {
    q: Tensor<4>,
    k: Tensor<4>,
    v: Tensor<4>,
}

impl ClassAttention {
    /// Reads or initialises the layer.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        settings: ClassAttentionSettings,
    ) -> Result<Self, ModelError> {
        let ClassAttentionSettings {
            width,
            guidance,
            length,
            ..
        } = settings;
        let padding = |name, channels: usize| {
            let zero = Init::Constant(0.0);
            (length > 0 && channels > 0)
                .then(|| params.param(name, [1, 1, channels], zero))
                .transpose()
        };
        let (attention, mlp) = (params.at("attention"), params.at("mlp"));
        Ok(Self {
            padding_tokens: padding("padding_tokens", width)?,
            padding_guidance: padding("padding_guidance", guidance)?,
            attention: Projections {
                q: GuidedLinear::build(&attention.at("q"), width, guidance)?,
                k: GuidedLinear::build(&attention.at("k"), width, guidance)?,
                v: Linear::build(&attention.at("v"), width, width)?,
            },
            mlp: (
                Linear::build(&mlp.at(0), width, 4 * width)?,
                None,
                Linear::build(&mlp.at(2), 4 * width, width)?,
            ),
            norm1: norm(&params.at("norm1"), width)?,
            norm2: norm(&params.at("norm2"), width)?,
            settings,
        })
    }

    /// Applies the layer: `[classes, h·w, width]` → the same shape.
    ///
    /// The output of the attention and its MLP, which have a residual of their own, is added to the input.
    ///
    /// - `guidance`: from the class embeddings, `[classes, guidance]`
    /// - `pooling`: rows and columns whose mean is one position of the attention
    pub fn forward(
        &self,
        x: Tensor<3>,
        guidance: Option<&Tensor<2>>,
        grid: [usize; 2],
        pooling: [usize; 2],
        trace: &mut Trace,
        name: &str,
    ) -> Tensor<3> {
        let [classes, _, width] = x.dims();
        let (pooled, small) = pool(x.clone(), grid, pooling);
        let sequences = pooled.swap_dims(0, 1); // [positions, classes, width]
        let guidance = guidance.map(|guidance| guidance.clone().unsqueeze::<3>()); // [1, classes, guidance]
        let out = if x.is_autodiff() || trace.is_on() {
            self.attend(sequences, guidance.as_ref(), trace, name)
        } else {
            let parts = sequences.split(POSITIONS, 0).into_iter();
            let off = &mut Trace::off();
            Tensor::cat(
                parts
                    .map(|part| self.attend(part, guidance.as_ref(), off, name))
                    .collect(),
                0,
            )
        };
        let out = out.swap_dims(0, 1); // [classes, positions, width]
        let [h, w] = small;
        let out = if small == grid {
            out
        } else {
            let maps = out.swap_dims(1, 2).reshape([classes, width, h, w]);
            let [height, columns] = grid;
            bilinear_aligned(maps, grid)
                .reshape([classes, width, height * columns])
                .swap_dims(1, 2)
        };
        x + out
    }

    /// Applies attention and MLP to sequences of classes: `[positions, classes, width]` → the same shape
    fn attend(
        &self,
        y: Tensor<3>,
        guidance: Option<&Tensor<3>>,
        trace: &mut Trace,
        name: &str,
    ) -> Tensor<3> {
        let [positions, classes, width] = y.dims();
        let missing = self.settings.length.saturating_sub(classes);
        let padding = self.padding_tokens.as_ref().filter(|_| missing > 0);
        let padding = padding.map(|token| {
            let guidance = self.padding_guidance.as_ref().map(Param::val);
            (token.val(), guidance)
        });
        let split = self.project(&y, guidance);
        let out = match (self.settings.kind, &padding) {
            (ClassAttentionKind::Linear, Some((token, token_guidance))) => {
                let constant = self.project(token, token_guidance.as_ref()); // one position, one token
                let queries = split.q.clone();
                let sums = Sums::new(split).plus(&Sums::new(constant), missing);
                if trace.is_on() {
                    let filled = self.filling(&y, padding.as_ref(), missing, &sums);
                    let own = side_by_side(sums.attend(queries.clone()));
                    trace.record(
                        format_args!("{name}.class_attn"),
                        &Tensor::cat(vec![own, filled], 1),
                    );
                }
                sums.attend(queries)
            }
            (ClassAttentionKind::Linear, None) => {
                let queries = split.q.clone();
                Sums::new(split).attend(queries)
            }
            (ClassAttentionKind::Softmax, padding) => {
                let constant = padding
                    .as_ref()
                    .map(|(token, token_guidance)| self.project(token, token_guidance.as_ref()));
                softmax_attention(split, constant, missing)
            }
        };
        if padding.is_none() && trace.is_on() {
            trace.record(
                format_args!("{name}.class_attn"),
                &side_by_side(out.clone()),
            );
        }
        let out = self.finish(y, out);
        debug_assert_eq!(out.dims(), [positions, classes, width]);
        out
    }

    /// Returns the attention of the tokens that fill the class axis, which nothing uses: `[positions, missing, width]`
    fn filling(
        &self,
        y: &Tensor<3>,
        padding: Option<&(Tensor<3>, Option<Tensor<3>>)>,
        missing: usize,
        sums: &Sums,
    ) -> Tensor<3> {
        let [positions, _, width] = y.dims();
        let Some((token, guidance)) = padding else {
            return Tensor::zeros([positions, 0, width], &y.device());
        };
        let token = token.clone().expand([positions, 1, width]);
        let queries = self.project(&token, guidance.as_ref()).q;
        let attended = side_by_side(sums.attend(queries)); // [positions, 1, width]
        attended.expand([positions, missing, width])
    }

    /// Adds the attention, `[positions, heads, tokens, head]`, and the MLP to the tokens.
    fn finish(&self, y: Tensor<3>, attended: Tensor<4>) -> Tensor<3> {
        let y = y + side_by_side(attended);
        let (up, _, down) = &self.mlp;
        let hidden = relu(up.forward(self.norm2.forward(y.clone()))); // [positions, tokens, 4·width]
        y + down.forward(hidden)
    }

    /// Projects tokens `[positions, tokens, width]`, whose guidance is the same at all positions.
    fn project(&self, y: &Tensor<3>, guidance: Option<&Tensor<3>>) -> Split {
        let [positions, tokens, width] = y.dims();
        let heads = self.settings.heads;
        let h = self.norm1.forward(y.clone());
        let Projections { q, k, v } = &self.attention;
        let guided = |layer: &GuidedLinear| {
            let own = burn::tensor::module::linear(h.clone(), layer.own().transpose(), None);
            own + layer.shared(guidance)
        };
        let split = |x: Tensor<3>| {
            x.reshape([positions, tokens, heads, width / heads])
                .swap_dims(1, 2)
        };
        Split {
            q: split(guided(q)),
            k: split(guided(k)),
            v: split(v.forward(h.clone())),
        }
    }
}

/// Joins the heads: `[positions, heads, tokens, head]` → `[positions, tokens, width]`
fn side_by_side(attended: Tensor<4>) -> Tensor<3> {
    let [positions, heads, tokens, head] = attended.dims();
    attended
        .swap_dims(1, 2)
        .reshape([positions, tokens, heads * head])
}

/// The two sums over tokens in linear attention.
#[derive(Debug, Clone)]
struct Sums {
    /// Keys times values: `[positions, heads, head, head]`
    values: Tensor<4>,
    /// Keys: `[positions, heads, head, 1]`
    keys: Tensor<4>,
}

/// Computes the feature map elu(x) + 1, which is positive.
fn positive(x: Tensor<4>) -> Tensor<4> {
    relu(x.clone()) + (-relu(-x)).exp()
}

impl Sums {
    fn new(split: Split) -> Self {
        let keys = positive(split.k).swap_dims(2, 3); // [positions, heads, head, tokens]
        Self {
            keys: keys.clone().sum_dim(3),
            values: keys.matmul(split.v),
        }
    }

    /// Adds the sums of another token, `times` times.
    fn plus(self, other: &Self, times: usize) -> Self {
        let times = times as f64;
        Self {
            values: self.values + other.values.clone() * times,
            keys: self.keys + other.keys.clone() * times,
        }
    }

    /// Returns the attended values of queries `[positions, heads, tokens, head]`, in the same shape.
    fn attend(&self, queries: Tensor<4>) -> Tensor<4> {
        let queries = positive(queries);
        let normalizer = queries.clone().matmul(self.keys.clone()) + EPSILON; // [positions, heads, tokens, 1]
        queries.matmul(self.values.clone()) / normalizer
    }
}

/// Computes linear attention among the tokens themselves: `[positions, heads, tokens, head]` each → the same shape
pub fn linear_attention(q: Tensor<4>, k: Tensor<4>, v: Tensor<4>) -> Tensor<4> {
    let queries = q.clone();
    Sums::new(Split { q, k, v }).attend(queries)
}

/// Computes softmax attention: `[positions, heads, tokens, head]`
///
/// - `constant`: the token that fills the class axis, `times` times
fn softmax_attention(split: Split, constant: Option<Split>, times: usize) -> Tensor<4> {
    let Split { q, k, v } = split;
    let [positions, heads, _, head] = q.dims();
    let filled = |own: Tensor<4>, fill: Option<Tensor<4>>| match fill {
        Some(fill) => Tensor::cat(vec![own, fill.expand([positions, heads, times, head])], 2),
        None => own,
    };
    let (fill_k, fill_v) = constant.map(|split| (split.k, split.v)).unzip();
    let (k, v) = (filled(k, fill_k), filled(v, fill_v));
    let logits = (q * (head as f64).powf(-0.5)).matmul(k.swap_dims(2, 3));
    softmax(logits).matmul(v)
}

/// Averages rows and columns of maps: `[classes, h·w, width]` → `[classes, h'·w', width]`, and `[h', w']`; what remains
/// at the right and at the bottom is left out.
fn pool(x: Tensor<3>, [h, w]: [usize; 2], pooling: [usize; 2]) -> (Tensor<3>, [usize; 2]) {
    let [down, across] = pooling.map(|side| side.max(1));
    if [down, across] == [1, 1] {
        return (x, [h, w]);
    }
    let [classes, _, width] = x.dims();
    let (rows, columns) = (h / down, w / across);
    let pooled = x
        .reshape([classes, h, w, width])
        .narrow(1, 0, rows * down)
        .narrow(2, 0, columns * across)
        .reshape([classes, rows, down, columns, across, width])
        .mean_dim(4)
        .mean_dim(2)
        .reshape([classes, rows * columns, width]);
    (pooled, [rows, columns])
}
