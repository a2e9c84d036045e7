//! The first stage: a residual network, a pixel decoder, and mask queries with their heads.

use zeg_model::{
    mask_transformer::{
        ResNetConfig,
        config::{MASK_STRIDE, StemKind},
    },
    methods::zegformer::ZegFormer,
};

use crate::{
    dense::{self, Frame},
    graph::{Attribute, Graph},
    layers::{Heads, Interpolation, Steps, normalised_groups},
    params::Parameter,
    settings::Request,
    shapes::Size,
    tower::epsilon,
    value::{Dim, Kind, Value},
};

/// Epsilon added to every variance before the square root.
const EPSILON: f32 = 1e-5;
/// Prefix of the parameters of queries and heads.
const PREDICTOR: &str = "sem_seg_head.predictor";
/// Base of the wavelengths of positions.
const TEMPERATURE: f64 = 10_000.0;

/// What the mask queries find.
pub(super) struct Found {
    /// Mask logits: `[batch, queries, h/4, w/4]`
    masks: Value,
    /// Logits of the classes and of "no object", the last: `[batch, queries, classes + 1]`
    classes: Value,
}

/// Computes masks and class scores of the mask queries.
pub(super) fn regions(g: &mut Graph, model: &ZegFormer, images: &Value, text: &Value) -> Found {
    let config = model.config();
    let maps = backbone(g, &config.backbone, images);
    let features = pixel_decoder(g, &maps, config.norm_groups);
    let state = g.scope("predictor", |g| {
        queries(g, &maps[3], (config.layers, config.heads, config.width))
    });
    g.scope("heads", |g| {
        let vectors = g.linear(&state, &format!("{PREDICTOR}.projection_layer"));
        let mut weights = state.clone();
        for layer in 0..3 {
            weights = g.linear(&weights, &format!("{PREDICTOR}.mask_embed.layers.{layer}"));
            if layer < 2 {
                weights = g.relu(&weights);
            }
        }
        let cells = g.reshape(&features, &[0, 0, -1]);
        let masks = g.product(&weights, &cells); // [batch, queries, h·w]
        let sizes = [
            Size::Of(&masks, 0),
            Size::Of(&masks, 1),
            Size::Of(&features, 2),
            Size::Of(&features, 3),
        ];
        let shape = vec![masks.dim(0), masks.dim(1), features.dim(2), features.dim(3)];
        let masks = g.reshape_to(&masks, &sizes, shape);
        let background = g.param(&format!("{PREDICTOR}.bg_feature")); // [1, dim]
        let rows = g.concat(&[text, &background], 0);
        let rows = g.transpose(&rows, &[1, 0]);
        let unit = g.unit(&vectors);
        let cosines = g.product(&unit, &rows);
        let scale = g.values(&format!("{PREDICTOR}.logit_scale"));
        let scale = scale
            .values
            .first()
            .map_or(1.0, |log| f64::from(*log).exp());
        let cosines = g.cast(&cosines, Kind::Float);
        Found {
            masks: g.cast(&masks, Kind::Float),
            classes: g.scale(&cosines, scale),
        }
    })
}

/// Makes masks and class scores the outputs.
pub(super) fn output(g: &mut Graph, found: &Found) {
    g.output(
        "masks",
        &found.masks,
        "Mask logits of the mask queries, at a quarter of the padded image's size",
    );
    g.output(
        "class_logits",
        &found.classes,
        "Logits of the classes for each mask query's own vector, \"no object\" last",
    );
}

/// Sums masks weighted by class scores: `[batch, classes, height, width]`
pub(super) fn scores(g: &mut Graph, found: &Found, frame: &Frame, request: &Request) -> Value {
    g.scope("scores", |g| {
        let end = g.integers(&[-1]);
        let classes = match found.classes.dim(2) {
            Dim::Known(all) => Dim::Known(all - 1),
            Dim::Named(_) => Dim::named("classes"),
        };
        let shares = g.softmax(&found.classes, -1);
        let classes = g.slice_to(&shares, 2, 0, &end, classes);
        let weights = g.transpose(&classes, &[0, 2, 1]); // [batch, classes, queries]
        let enlarged = g.enlarge(&found.masks, MASK_STRIDE);
        let enlarged = dense::cut(g, &enlarged, Some(&frame.unpadded), request);
        let shares = g.sigmoid(&enlarged);
        let cells = g.reshape(&shares, &[0, 0, -1]);
        let sums = g.product(&weights, &cells);
        let sizes = [
            Size::Of(&sums, 0),
            Size::Of(&sums, 1),
            Size::Of(&shares, 2),
            Size::Of(&shares, 3),
        ];
        let shape = vec![sums.dim(0), sums.dim(1), shares.dim(2), shares.dim(3)];
        let sums = g.reshape_to(&sums, &sizes, shape);
        dense::lowered(g, &sums, request)
    })
}

/// Computes feature maps at strides 4, 8, 16 and 32.
fn backbone(g: &mut Graph, config: &ResNetConfig, images: &Value) -> [Value; 4] {
    let mut x = g.scope("backbone/stem", |g| {
        let first = match config.stem_kind {
            StemKind::Single => 7,
            StemKind::Triple => 3,
        };
        let mut x = frozen(g, images, "backbone.stem.conv1", (first, 2, 1));
        x = g.relu(&x);
        for name in ["conv2", "conv3"] {
            let name = format!("backbone.stem.{name}");
            if g.has(&format!("{name}.weight")) {
                x = frozen(g, &x, &name, (3, 1, 1));
                x = g.relu(&x);
            }
        }
        max_pool(g, &x)
    });
    [0, 1, 2, 3].map(|stage| {
        for block in 0..config.blocks[stage] {
            let name = format!("backbone.res{}.{block}", stage + 2);
            let stride = if stage > 0 && block == 0 { 2 } else { 1 };
            let dilation = config.dilation(stage, block);
            x = g.scope(name.replace('.', "/"), |g| {
                let inner = frozen(g, &x, &format!("{name}.conv1"), (1, 1, 1));
                let inner = g.relu(&inner);
                let inner = frozen(g, &inner, &format!("{name}.conv2"), (3, stride, dilation));
                let inner = g.relu(&inner);
                let inner = frozen(g, &inner, &format!("{name}.conv3"), (1, 1, 1));
                let shortcut = format!("{name}.shortcut");
                let shortcut = if g.has(&format!("{shortcut}.weight")) {
                    frozen(g, &x, &shortcut, (1, stride, 1))
                } else {
                    x.clone()
                };
                let sum = g.add(&inner, &shortcut);
                g.relu(&sum)
            });
        }
        x.clone()
    })
}

/// Applies a convolution with the frozen normalisation after it, as one convolution.
fn frozen(
    g: &mut Graph,
    x: &Value,
    name: &str,
    (side, stride, dilation): (usize, usize, usize),
) -> Value {
    let part = |g: &mut Graph, part: &str| g.values(&format!("{name}.norm.{part}")).values;
    let (weight, bias) = (part(g, "weight"), part(g, "bias"));
    let (mean, variance) = (part(g, "running_mean"), part(g, "running_var"));
    let factors: Vec<f32> = weight
        .iter()
        .zip(&variance)
        .map(|(weight, variance)| weight / (variance + EPSILON).sqrt())
        .collect();
    let kernel = g.param_as(&format!("{name}.weight@normed"), |kernel| {
        let inner = (kernel.values.len() / factors.len().max(1)).max(1);
        let channels = kernel.values.chunks_exact(inner).zip(&factors);
        Parameter {
            shape: kernel.shape.clone(),
            values: channels
                .flat_map(|(values, factor)| values.iter().map(move |value| value * factor))
                .collect(),
        }
    });
    let term = g.param_as(&format!("{name}.norm.bias@term"), |term| {
        let parts = bias.iter().zip(&mean).zip(&factors);
        Parameter {
            shape: term.shape,
            values: parts
                .map(|((bias, mean), factor)| bias - mean * factor)
                .collect(),
        }
    });
    let steps = Steps {
        stride,
        padding: side / 2 * dilation,
        dilation,
    };
    g.convolve(x, &kernel, Some(&term), steps)
}

/// Computes the maximum over 3×3 cells at stride 2.
fn max_pool(g: &mut Graph, x: &Value) -> Value {
    let half = |dim: Dim| match dim {
        Dim::Known(length) => Dim::Known(length.div_ceil(2)),
        Dim::Named(name) => Dim::named(format!("pooled_{name}")),
    };
    let shape = vec![x.dim(0), x.dim(1), half(x.dim(2)), half(x.dim(3))];
    let attributes = vec![
        Attribute::Ints("kernel_shape", vec![3, 3]),
        Attribute::Ints("strides", vec![2, 2]),
        Attribute::Ints("pads", vec![1; 4]),
    ];
    g.node("MaxPool", &[x], attributes, x.kind, shape)
}

/// Combines the feature maps to one map of mask features at stride 4.
fn pixel_decoder(g: &mut Graph, maps: &[Value; 4], groups: usize) -> Value {
    g.scope("pixel_decoder", |g| {
        let name = "sem_seg_head.pixel_decoder";
        let grouped = |g: &mut Graph, x: &Value, layer: &str| {
            let weight = g.param(&format!("{name}.{layer}.weight"));
            let side = weight.dim(2).known().unwrap_or(1);
            let convolved = g.convolve(x, &weight, None, Steps::same(side));
            normalised_groups(
                g,
                &convolved,
                &format!("{name}.{layer}.norm"),
                groups,
                EPSILON,
            )
        };
        let y = grouped(g, &maps[3], "layer_4");
        let mut y = g.relu(&y);
        for (number, map) in [(3, &maps[2]), (2, &maps[1]), (1, &maps[0])] {
            let adapted = grouped(g, map, &format!("adapter_{number}"));
            let sizes = [Size::Of(&adapted, 2), Size::Of(&adapted, 3)];
            let shape = [adapted.dim(2), adapted.dim(3)];
            let enlarged = g.resize_with(&y, sizes, shape, Interpolation::Nearest);
            let sum = g.add(&adapted, &enlarged);
            let smoothed = grouped(g, &sum, &format!("layer_{number}"));
            y = g.relu(&smoothed);
        }
        let weight = g.param(&format!("{name}.mask_features.weight"));
        let bias = g.param(&format!("{name}.mask_features.bias"));
        g.convolve(&y, &weight, Some(&bias), Steps::same(3))
    })
}

/// Computes the mask queries after the last layer of their decoder: `[batch, queries, width]`
fn queries(g: &mut Graph, map: &Value, (layers, heads, width): (usize, usize, usize)) -> Value {
    let weight = g.param(&format!("{PREDICTOR}.input_proj.weight"));
    let bias = g.param(&format!("{PREDICTOR}.input_proj.bias"));
    let memory = g.convolve(map, &weight, Some(&bias), Steps::same(1)); // [batch, width, h, w]
    let places = sine_positions(g, &memory, width); // [1, h·w, width]
    let cells = g.reshape(&memory, &[0, 0, -1]);
    let values = g.transpose(&cells, &[0, 2, 1]); // [batch, h·w, width]
    let keys = g.add(&values, &places);
    let positions = g.param_as(&format!("{PREDICTOR}.query_embed.weight@batch"), |table| {
        Parameter {
            shape: [&[1], &table.shape[..]].concat(),
            values: table.values,
        }
    });
    let zero = g.number(0.0, positions.kind);
    let shape = vec![map.dim(0), positions.dim(1), positions.dim(2)];
    let sizes = [
        Size::Of(map, 0),
        Size::Of(&positions, 1),
        Size::Of(&positions, 2),
    ];
    let mut content = g.expand(&zero, &sizes, shape);
    for layer in 0..layers {
        let name = format!("{PREDICTOR}.transformer.decoder.layers.{layer}");
        content = g.scope(format!("layers.{layer}"), |g| {
            let placed = g.add(&content, &positions);
            let parts = [&placed, &placed, &content];
            let attended = attention(g, parts, &format!("{name}.self_attn"), heads);
            let x = g.add(&content, &attended);
            let x = g.layer_norm(&x, &format!("{name}.norm1"), epsilon());
            let placed = g.add(&x, &positions);
            let parts = [&placed, &keys, &values];
            let attended = attention(g, parts, &format!("{name}.multihead_attn"), heads);
            let x = g.add(&x, &attended);
            let x = g.layer_norm(&x, &format!("{name}.norm2"), epsilon());
            let hidden = g.linear(&x, &format!("{name}.linear1"));
            let hidden = g.relu(&hidden);
            let forwarded = g.linear(&hidden, &format!("{name}.linear2"));
            let x = g.add(&x, &forwarded);
            g.layer_norm(&x, &format!("{name}.norm3"), epsilon())
        });
    }
    let name = format!("{PREDICTOR}.transformer.decoder.norm");
    g.layer_norm(&content, &name, epsilon())
}

/// Computes attention of queries to keys and values, `[batch, …, width]` each.
fn attention(g: &mut Graph, parts: [&Value; 3], name: &str, heads: usize) -> Value {
    g.scope("attention", |g| {
        let mut projected = Vec::with_capacity(3);
        for (index, (part, label)) in parts.into_iter().zip(["q", "k", "v"]).enumerate() {
            let width = part.dim(2).known().unwrap_or(0);
            let weight = format!("{name}.in_proj_weight@{label}");
            let product = g.weighted(part, &weight, |w| w.rows(index * width, width));
            let bias = g.param_as(&format!("{name}.in_proj_bias@{label}"), |bias| {
                bias.rows(index * width, width)
            });
            let sum = g.add(&product, &bias);
            projected.push(g.split_heads(&sum, heads));
        }
        let [q, k, v] = &projected[..] else {
            return parts[0].clone();
        };
        let heads = Heads {
            q: q.clone(),
            k: k.clone(),
            v: v.clone(),
        };
        let attended = g.attend(&heads, None);
        g.linear(&attended, &format!("{name}.out_proj"))
    })
}

/// Returns the sine positions of a map's cells: `[1, h·w, width]`
fn sine_positions(g: &mut Graph, map: &Value, width: usize) -> Value {
    g.scope("positions", |g| {
        let half = width / 2;
        let frequency = |channel: usize| {
            let exponent = 2.0 * (channel / 2) as f64 / half as f64;
            (std::f64::consts::TAU / TEMPERATURE.powf(exponent)) as f32
        };
        let frequencies: Vec<f32> = (0..half).map(frequency).collect();
        let frequencies = g.constants("frequencies", &frequencies, &[half], Kind::Float);
        let odd: Vec<f32> = (0..half).map(|channel| (channel % 2) as f32).collect();
        let odd = g.constants("odd", &odd, &[half], Kind::Float);
        let middle = g.number(0.5, Kind::Float);
        let is_odd = g.greater(&odd, &middle);
        let along = |g: &mut Graph, axis: i64| {
            let count = g.sizes(&[Size::Of(map, axis)]);
            let places = g.range(&count, map.dim(axis));
            let places = g.cast(&places, Kind::Float);
            let places = g.shift(&places, 1.0);
            let length = g.cast(&count, Kind::Float);
            let length = g.shift(&length, 1e-6);
            let turns = g.divide(&places, &length);
            let turns = g.unsqueeze(&turns, 1);
            let angles = g.multiply(&turns, &frequencies); // [length, half]
            let shape = angles.shape.clone();
            let sine = g.node("Sin", &[&angles], vec![], Kind::Float, shape.clone());
            let cosine = g.node("Cos", &[&angles], vec![], Kind::Float, shape);
            g.choose(&is_odd, &cosine, &sine)
        };
        let (rows, columns) = (along(g, 2), along(g, 3));
        let rows = g.unsqueeze(&rows, 1); // [h, 1, half]
        let columns = g.unsqueeze(&columns, 0); // [1, w, half]
        let sizes = [Size::Of(map, 2), Size::Of(map, 3), Size::Is(half as i64)];
        let shape = vec![map.dim(2), map.dim(3), Dim::Known(half)];
        let rows = g.expand(&rows, &sizes, shape.clone());
        let columns = g.expand(&columns, &sizes, shape);
        let both = g.concat(&[&rows, &columns], 2);
        let flat = g.reshape(&both, &[1, -1, width as i64]);
        g.cast(&flat, g.float())
    })
}
