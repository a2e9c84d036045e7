//! The aggregator: from the cosines of every position and every class to one map of logits per class.

use zeg_model::methods::cat_seg::{AggregatorConfig, aggregator::CUT_LOGIT};

use super::{class_attention::ClassLayer, convolution, projected, swin::SwinLayer, upsample};
use crate::{
    dense::Feature,
    graph::Graph,
    layers::{Steps, normalised_groups},
    operators::Reduction,
    shapes::Size,
    value::{Dim, Kind, Value},
};

/// Prefix of the aggregator's parameters.
pub(super) const PREFIX: &str = "sem_seg_head.predictor.transformer";
/// Smallest norm of a vector of the cost volume.
const LEAST_NORM: f64 = 1e-12;
/// Number of channels in a group of a normalisation.
const GROUP: usize = 16;
/// Epsilon of the normalisations of the decoder.
const EPSILON: f32 = 1e-5;

pub(super) struct Aggregator<'a> {
    pub(super) config: &'a AggregatorConfig,
}

impl Aggregator<'_> {
    /// Projects the features that guide the aggregation.
    ///
    /// - `joint`: `[1, dim, h, w]`
    /// - `middle`: features of two middle blocks
    pub(super) fn guides(&self, g: &mut Graph, joint: &Value, middle: &[Value]) -> Vec<Feature> {
        let mut all = Vec::new();
        if self.config.appearance > 0 {
            all.push(Feature {
                name: "appearance",
                value: projected(g, joint, &format!("{PREFIX}.guidance_projection.0")),
                about: "Guidance of the spatial aggregation",
            });
        }
        let stages = self.stages_with_guidance();
        for (index, stage) in stages.into_iter().enumerate() {
            let name = format!("{PREFIX}.decoder_guidance_projection.{index}.0");
            all.push(Feature {
                name: ["decoder_guidance_1", "decoder_guidance_2"][stage],
                value: projected(g, &middle[stage], &name),
                about: "Guidance of a stage of the decoder",
            });
        }
        all
    }

    fn stages_with_guidance(&self) -> Vec<usize> {
        let guided = |stage: &usize| self.config.decoder_guidance[*stage] > 0;
        [0, 1].into_iter().filter(guided).collect()
    }

    /// Computes the logits of classes: `[1, classes, 4·h, 4·w]`
    ///
    /// - `features`: the joint features and the guides
    pub(super) fn logits(
        &self,
        g: &mut Graph,
        features: &[Value],
        text: &Value,
        grid: [usize; 2],
    ) -> Value {
        let Some((joint, guides)) = features.split_first() else {
            return text.clone();
        };
        let (appearance, decoder) = if self.config.appearance > 0 {
            guides
                .split_first()
                .map_or((None, guides), |(first, rest)| (Some(first), rest))
        } else {
            (None, guides)
        };
        let all = text.clone();
        let (cost, text, kept) = self.cost(g, joint, text);
        let guidance = (self.config.text > 0).then(|| {
            let unit = g.unit(&text);
            let name = format!("{PREFIX}.text_guidance_projection.0");
            let projected = g.linear(&unit, &name);
            g.relu(&projected) // [classes, guidance]
        });
        let mut x = embed(g, &cost, grid); // [classes, h·w, width]
        for index in 0..self.config.layers {
            let name = format!("{PREFIX}.layers.{index}");
            x = g.scope(format!("layers.{index}"), |g| {
                let swin = SwinLayer {
                    config: self.config,
                    name: format!("{name}.swin_block"),
                    grid,
                };
                let x = swin.forward(g, &x, appearance);
                let class = ClassLayer {
                    config: self.config,
                    name: format!("{name}.attention"),
                };
                class.forward(g, &x, guidance.as_ref())
            });
        }
        let logits = self.decode(g, &x, decoder, grid); // [classes, 1, 4·h, 4·w]
        let logits = match kept {
            Some(kept) => with_cut(g, &logits, &kept, &all),
            None => logits,
        };
        let turned = g.transpose(&logits, &[1, 0, 2, 3]);
        Value {
            shape: vec![Dim::Known(1), all.dim(0), turned.dim(2), turned.dim(3)],
            ..turned
        }
    }

    /// Returns the cost volume `[classes, h·w]`, the class embeddings, and, if classes may be cut, the kept ones.
    fn cost(&self, g: &mut Graph, joint: &Value, text: &Value) -> (Value, Value, Option<Value>) {
        g.scope("cost", |g| {
            let dim = joint.dim(1).known().unwrap_or(0) as i64;
            let cells = g.reshape(joint, &[dim, -1]);
            let cells = over_length(g, &cells, 0);
            let rows = over_length(g, text, 1);
            let cost = g.product(&rows, &cells);
            let most = self.config.classes;
            let may_exceed = most > 0 && text.dim(0).known().is_none_or(|classes| classes > most);
            if !may_exceed {
                return (cost, text.clone(), None);
            }
            let kept = kept(g, &cost, text, most);
            let cost = g.gather(&cost, &kept, 0);
            let text = g.gather(text, &kept, 0);
            (cost, text, Some(kept))
        })
    }

    /// Decodes every class: `[classes, h·w, width]` → `[classes, 1, 4·h, 4·w]`
    fn decode(&self, g: &mut Graph, x: &Value, guides: &[Value], [h, w]: [usize; 2]) -> Value {
        let cells = g.transpose(x, &[0, 2, 1]);
        let mut maps = g.reshape(&cells, &[0, 0, h as i64, w as i64]);
        let mut guides = guides.iter();
        for (stage, guidance) in self.config.decoder_guidance.into_iter().enumerate() {
            let name = format!("{PREFIX}.decoder{}", stage + 1);
            let guide = if guidance > 0 { guides.next() } else { None };
            maps = g.scope(format!("decoder{}", stage + 1), |g| {
                let enlarged = upsample(g, &maps, &format!("{name}.up"));
                double_convolution(g, &enlarged, guide, &format!("{name}.conv.double_conv"))
            });
        }
        convolution(g, &maps, &format!("{PREFIX}.head"))
    }
}

/// Divides vectors along an axis by their lengths, but by no less than a small number.
fn over_length(g: &mut Graph, x: &Value, axis: i64) -> Value {
    let kind = x.kind;
    let x = g.cast(x, Kind::Float);
    let length = g.reduce(Reduction::Length, &x, &[axis]);
    let least = g.number(LEAST_NORM, Kind::Float);
    let length = g.larger(&length, &least);
    let unit = g.divide(&x, &length);
    g.cast(&unit, kind)
}

/// Returns the classes with the highest cosine at any position, ascending.
fn kept(g: &mut Graph, cost: &Value, text: &Value, most: usize) -> Value {
    let best = g.reduce(Reduction::Max, cost, &[1]);
    let best = g.cast(&best, Kind::Float);
    let best = g.squeeze(&best, 1);
    let count = {
        let all = g.sizes(&[Size::Of(text, 0)]);
        let most = g.integers(&[most as i64]);
        g.smaller(&all, &most)
    };
    let length = match text.dim(0) {
        Dim::Known(_) => Dim::Known(most),
        Dim::Named(_) => Dim::named("kept_classes"),
    };
    let [_, classes] = g.largest(&best, &count, length.clone(), true);
    let numbers = g.cast(&classes, Kind::Float);
    let [ascending, _] = g.largest(&numbers, &count, length, false);
    g.cast(&ascending, Kind::Int)
}

/// Gives the cut classes a low logit: `[kept, 1, h, w]` → `[classes, 1, h, w]`
fn with_cut(g: &mut Graph, logits: &Value, kept: &Value, text: &Value) -> Value {
    let cut = g.number(f64::from(CUT_LOGIT), logits.kind);
    let sizes = [
        Size::Of(text, 0),
        Size::Is(1),
        Size::Of(logits, 2),
        Size::Of(logits, 3),
    ];
    let shape = vec![text.dim(0), Dim::Known(1), logits.dim(2), logits.dim(3)];
    let all = g.expand(&cut, &sizes, shape.clone());
    let places = g.unsqueeze(kept, 1);
    g.node(
        "ScatterND",
        &[&all, &places, logits],
        vec![],
        logits.kind,
        shape,
    )
}

/// Embeds the cost volume: `[classes, h·w]` → `[classes, h·w, width]`
fn embed(g: &mut Graph, cost: &Value, [h, w]: [usize; 2]) -> Value {
    let maps = g.reshape(cost, &[0, 1, h as i64, w as i64]);
    let embedded = convolution(g, &maps, &format!("{PREFIX}.conv1"));
    let cells = g.reshape(&embedded, &[0, 0, (h * w) as i64]);
    g.transpose(&cells, &[0, 2, 1])
}

/// Applies two convolutions, each with a normalisation and a ReLU; the first sees the guidance as further channels.
fn double_convolution(g: &mut Graph, maps: &Value, guide: Option<&Value>, name: &str) -> Value {
    let first = format!("{name}.0.weight");
    let own = maps.dim(1).known().unwrap_or(0);
    let steps = Steps::same(3);
    let convolved = if let Some(guide) = guide {
        // A convolution is linear: the share of the guidance is the same for all classes.
        let channels = guide.dim(1).known().unwrap_or(0);
        let weight = g.param_as(&format!("{first}@own"), |w| w.columns(0, own));
        let of_guide = g.param_as(&format!("{first}@guide"), |w| w.columns(own, channels));
        let convolved = g.convolve(maps, &weight, None, steps);
        let share = g.convolve(guide, &of_guide, None, steps);
        g.add(&convolved, &share)
    } else {
        let weight = g.param(&first);
        g.convolve(maps, &weight, None, steps)
    };
    let x = group_norm(g, &convolved, &format!("{name}.1"));
    let x = g.relu(&x);
    let weight = g.param(&format!("{name}.3.weight"));
    let convolved = g.convolve(&x, &weight, None, steps);
    let x = group_norm(g, &convolved, &format!("{name}.4"));
    g.relu(&x)
}

/// Normalises each map over groups of 16 channels.
fn group_norm(g: &mut Graph, x: &Value, name: &str) -> Value {
    let channels = x.dim(1).known().unwrap_or(1);
    normalised_groups(g, x, name, (channels / GROUP).max(1), EPSILON)
}
