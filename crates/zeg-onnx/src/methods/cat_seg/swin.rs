//! Spatial aggregation: attention in windows, for every class by itself, guided by the image.

use zeg_model::methods::cat_seg::{AggregatorConfig, swin::Windows};

use crate::{graph::Graph, params::Parameter, shapes::Size, tower::epsilon, value::Value};

/// The spatial half of a layer.
pub(super) struct SwinLayer<'a> {
    pub(super) config: &'a AggregatorConfig,
    pub(super) name: String,
    pub(super) grid: [usize; 2],
}

/// The layout of windows in main memory.
struct Layout {
    order: Vec<i64>,
    back: Vec<i64>,
    count: usize,
    /// `[windows, length, length]`; empty without a shift
    masks: Vec<f32>,
}

impl Layout {
    fn of(windows: &Windows) -> Self {
        let data = windows.order().clone().into_data().convert::<i64>();
        let order: Vec<i64> = data.try_into_vec().unwrap_or_default();
        let mut back = vec![0; order.len()];
        for (position, &token) in order.iter().enumerate() {
            if let Some(place) = back.get_mut(token as usize) {
                *place = position as i64;
            }
        }
        let masks = windows.masks().iter().flat_map(|mask| {
            let data = mask.clone().into_data().convert::<f32>();
            data.try_into_vec::<f32>().unwrap_or_default()
        });
        Self {
            order,
            back,
            count: windows.count(),
            masks: masks.collect(),
        }
    }
}

impl SwinLayer<'_> {
    /// Applies both blocks: `[classes, h·w, width]` → the same shape
    ///
    /// - `appearance`: guidance from the image, `[1, guidance, h, w]`
    pub(super) fn forward(&self, g: &mut Graph, x: &Value, appearance: Option<&Value>) -> Value {
        let guidance = appearance.map(|appearance| {
            let cells = g.reshape(appearance, &[0, 0, -1]);
            let tokens = g.transpose(&cells, &[0, 2, 1]);
            g.layer_norm(&tokens, &format!("{}.guidance_norm", self.name), epsilon())
        });
        let device = burn::tensor::Device::flex();
        let window = self.config.window;
        let layouts = [
            Layout::of(&Windows::aligned(self.grid, window, &device)),
            Layout::of(&Windows::shifted(self.grid, window, &device)),
        ];
        let mut x = x.clone();
        for (layout, block) in layouts.iter().zip(["block_1", "block_2"]) {
            x = g.scope(block, |g| {
                self.block(g, &x, guidance.as_ref(), (layout, block))
            });
        }
        x
    }

    fn block(
        &self,
        g: &mut Graph,
        x: &Value,
        guidance: Option<&Value>,
        (layout, block): (&Layout, &str),
    ) -> Value {
        let name = format!("{}.{block}", self.name);
        let normed = g.layer_norm(x, &format!("{name}.norm1"), epsilon());
        let qkv = self.project(g, &normed, guidance, &format!("{name}.attn"));
        let attended = self.attend(g, &qkv, layout);
        let attended = g.linear(&attended, &format!("{name}.attn.proj"));
        let x = g.add(x, &attended);
        let normed = g.layer_norm(&x, &format!("{name}.norm2"), epsilon());
        let hidden = g.linear(&normed, &format!("{name}.mlp.fc1"));
        let hidden = g.gelu(&hidden);
        let forwarded = g.linear(&hidden, &format!("{name}.mlp.fc2"));
        g.add(&x, &forwarded)
    }

    /// Returns queries, keys and values side by side: `[classes, h·w, 3·width]`
    fn project(&self, g: &mut Graph, x: &Value, guidance: Option<&Value>, name: &str) -> Value {
        let width = self.config.width;
        let (keys, values) = (
            g.values(&format!("{name}.k.weight")),
            g.values(&format!("{name}.v.weight")),
        );
        let own = g.weighted(x, &format!("{name}.q.weight@joint"), |queries| Parameter {
            shape: vec![3 * width, width],
            values: [queries.columns(0, width), keys.columns(0, width), values]
                .into_iter()
                .flat_map(|part| part.values)
                .collect(),
        });
        let q = shared(g, guidance, &format!("{name}.q"), width);
        let k = shared(g, guidance, &format!("{name}.k"), width);
        let v = g.param_as(&format!("{name}.v.bias@tokens"), |mut bias| {
            bias.shape = vec![1, 1, width];
            bias
        });
        let sizes = [Size::Of(&q, 0), Size::Of(&q, 1), Size::Of(&q, 2)];
        let v = g.expand(&v, &sizes, q.shape.clone());
        let shared = g.concat(&[&q, &k, &v], 2); // [1, h·w, 3·width]
        g.add(&own, &shared)
    }

    /// Computes attention in every window: `[classes, h·w, 3·width]` → `[classes, h·w, width]`
    fn attend(&self, g: &mut Graph, qkv: &Value, layout: &Layout) -> Value {
        let (width, heads) = (self.config.width, self.config.heads);
        let (tokens, count) = (layout.order.len(), layout.count.max(1));
        let length = tokens / count;
        let order = g.integers(&layout.order);
        let placed = g.gather(qkv, &order, 1);
        let windows = [0, count as i64, length as i64, 3 * width as i64];
        let windows = g.reshape(&placed, &windows);
        let parts: Vec<Value> = g
            .split(&windows, 3, 3)
            .iter()
            .map(|part| {
                let head = (width / heads.max(1)) as i64;
                let split = g.reshape(part, &[0, 0, 0, heads as i64, head]);
                g.transpose(&split, &[0, 1, 3, 2, 4]) // [classes, windows, heads, length, head]
            })
            .collect();
        let [q, k, v] = &parts[..] else {
            return qkv.clone();
        };
        let head = (width / heads.max(1)).max(1) as f64;
        let scaled = g.scale(q, head.powf(-0.5));
        let turned = g.transpose(k, &[0, 1, 2, 4, 3]);
        let mut logits = g.product(&scaled, &turned);
        if !layout.masks.is_empty() {
            let shape = [1, count, 1, length, length];
            let masks = g.constants("window_masks", &layout.masks, &shape, logits.kind);
            logits = g.add(&logits, &masks);
        }
        let weights = g.softmax(&logits, -1);
        let attended = g.product(&weights, v);
        let attended = g.transpose(&attended, &[0, 1, 3, 2, 4]);
        let joined = g.reshape(&attended, &[0, tokens as i64, width as i64]);
        let back = g.integers(&layout.back);
        g.gather(&joined, &back, 1)
    }
}

/// Returns the share of the guidance, and the bias: `[1, rows, width]`
pub(super) fn shared(g: &mut Graph, guidance: Option<&Value>, name: &str, width: usize) -> Value {
    let bias = g.param_as(&format!("{name}.bias@tokens"), |mut bias| {
        bias.shape = vec![1, 1, width];
        bias
    });
    match guidance {
        Some(guidance) => {
            let channels = guidance.dim(2).known().unwrap_or(0);
            let weight = format!("{name}.weight@guide");
            let product = g.weighted(guidance, &weight, |weight| weight.columns(width, channels));
            g.add(&product, &bias)
        }
        None => bias,
    }
}
