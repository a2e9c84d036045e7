//! Class aggregation: attention among the classes, at every position by itself.

use zeg_model::methods::cat_seg::{AggregatorConfig, class_attention::ClassAttentionKind};

use super::swin::shared;
use crate::{
    graph::Graph,
    layers::Heads,
    operators::Reduction,
    shapes::Size,
    tower::epsilon,
    value::{Kind, Value},
};

/// Epsilon added to the normaliser of linear attention.
const EPSILON: f64 = 1e-6;

/// A layer of attention among classes.
pub(super) struct ClassLayer<'a> {
    pub(super) config: &'a AggregatorConfig,
    pub(super) name: String,
}

impl ClassLayer<'_> {
    /// Applies the layer: `[classes, h·w, width]` → the same shape
    ///
    /// - `guidance`: from the class embeddings, `[classes, guidance]`
    pub(super) fn forward(&self, g: &mut Graph, x: &Value, guidance: Option<&Value>) -> Value {
        g.scope("class_attention", |g| {
            let y = g.transpose(x, &[1, 0, 2]); // [positions, classes, width]
            let guidance = guidance.map(|guidance| g.unsqueeze(guidance, 0));
            let heads = self.project(g, &y, guidance.as_ref());
            let missing = self.missing(g, &y);
            let fill = missing.map(|missing| (self.filling(g), missing));
            let attended = match self.config.attention {
                ClassAttentionKind::Linear => linear(g, &heads, fill.as_ref()),
                ClassAttentionKind::Softmax => softmax(g, &heads, fill.as_ref()),
            };
            let attended = g.join_heads(&attended);
            let y = g.add(&y, &attended);
            let normed = g.layer_norm(&y, &format!("{}.norm2", self.name), epsilon());
            let hidden = g.linear(&normed, &format!("{}.mlp.0", self.name));
            let hidden = g.relu(&hidden);
            let forwarded = g.linear(&hidden, &format!("{}.mlp.2", self.name));
            let y = g.add(&y, &forwarded);
            let out = g.transpose(&y, &[1, 0, 2]);
            g.add(x, &out)
        })
    }

    /// Projects tokens `[positions, tokens, width]`.
    fn project(&self, g: &mut Graph, y: &Value, guidance: Option<&Value>) -> Heads {
        let width = self.config.width;
        let normed = g.layer_norm(y, &format!("{}.norm1", self.name), epsilon());
        let guided = |g: &mut Graph, part: &str| {
            let name = format!("{}.attention.{part}", self.name);
            let own = format!("{name}.weight@own");
            let own = g.weighted(&normed, &own, |weight| weight.columns(0, width));
            let share = shared(g, guidance, &name, width);
            let sum = g.add(&own, &share);
            g.split_heads(&sum, self.config.heads)
        };
        let (q, k) = (guided(g, "q"), guided(g, "k"));
        let v = g.linear(&normed, &format!("{}.attention.v", self.name));
        Heads {
            q,
            k,
            v: g.split_heads(&v, self.config.heads),
        }
    }

    /// Returns how many tokens fill the class axis, a float of rank 1; `None` if there are none.
    fn missing(&self, g: &mut Graph, y: &Value) -> Option<Value> {
        let length = self.config.classes;
        match y.dim(1).known() {
            Some(classes) => {
                let missing = length.saturating_sub(classes);
                (missing > 0).then(|| g.constants("missing", &[missing as f32], &[1], y.kind))
            }
            None if length == 0 => None,
            None => {
                let classes = g.sizes(&[Size::Of(y, 1)]);
                let (length, none) = (g.integers(&[length as i64]), g.integers(&[0]));
                let missing = g.subtract(&length, &classes);
                let missing = g.larger(&missing, &none);
                Some(g.cast(&missing, y.kind))
            }
        }
    }

    /// Projects the token that fills the class axis: one position, one token.
    fn filling(&self, g: &mut Graph) -> Heads {
        g.scope("filling", |g| {
            let token = g.param(&format!("{}.padding_tokens", self.name));
            let name = format!("{}.padding_guidance", self.name);
            let guidance = g.has(&name).then(|| g.param(&name));
            self.project(g, &token, guidance.as_ref())
        })
    }
}

/// Computes the feature map elu(x) + 1.
fn positive(g: &mut Graph, x: &Value) -> Value {
    let above = g.relu(x);
    let negative = g.negate(x);
    let below = g.relu(&negative);
    let below = g.negate(&below);
    let power = g.exponential(&below);
    g.add(&above, &power)
}

/// Returns the two sums over tokens: keys times values, and keys.
fn sums(g: &mut Graph, heads: &Heads) -> (Value, Value) {
    let keys = positive(g, &heads.k);
    let keys = g.transpose(&keys, &[0, 1, 3, 2]); // [positions, heads, head, tokens]
    (
        g.product(&keys, &heads.v),
        g.reduce(Reduction::Sum, &keys, &[3]),
    )
}

/// Computes linear attention: `[positions, heads, tokens, head]`
fn linear(g: &mut Graph, heads: &Heads, fill: Option<&(Heads, Value)>) -> Value {
    let (mut values, mut keys) = sums(g, heads);
    if let Some((fill, times)) = fill {
        let (more_values, more_keys) = sums(g, fill);
        let more_values = g.multiply(&more_values, times);
        let more_keys = g.multiply(&more_keys, times);
        values = g.add(&values, &more_values);
        keys = g.add(&keys, &more_keys);
    }
    let queries = positive(g, &heads.q);
    let normaliser = g.product(&queries, &keys);
    let normaliser = g.shift(&normaliser, EPSILON);
    let attended = g.product(&queries, &values);
    g.divide(&attended, &normaliser)
}

/// Computes softmax attention; tokens that are all alike are one token whose logit is higher by the logarithm of their
/// number.
fn softmax(g: &mut Graph, heads: &Heads, fill: Option<&(Heads, Value)>) -> Value {
    let head = heads.q.dim(3).known().unwrap_or(1).max(1) as f64;
    let queries = g.scale(&heads.q, head.powf(-0.5));
    let turned = g.transpose(&heads.k, &[0, 1, 3, 2]);
    let logits = g.product(&queries, &turned);
    let Some((fill, times)) = fill else {
        let weights = g.softmax(&logits, -1);
        return g.product(&weights, &heads.v);
    };
    let turned = g.transpose(&fill.k, &[0, 1, 3, 2]);
    let of_fill = g.product(&queries, &turned); // [positions, heads, tokens, 1]
    let times = g.cast(times, Kind::Float);
    let logarithm = g.node("Log", &[&times], vec![], Kind::Float, times.shape.clone());
    let logarithm = g.cast(&logarithm, of_fill.kind);
    let of_fill = g.add(&of_fill, &logarithm);
    let classes = logits.dim(3);
    let all = g.concat(&[&logits, &of_fill], 3);
    let weights = g.softmax(&all, -1);
    let end = g.integers(&[-1]);
    let own = g.slice_to(&weights, 3, 0, &end, classes);
    let of_fill = g.slice_to_end(&weights, 3);
    let attended = g.product(&own, &heads.v);
    let more = g.multiply(&of_fill, &fill.v);
    g.add(&attended, &more)
}
