//! Layers: linear maps, norms, activations, attention, convolutions and resizing.

use zeg_model::config::Activation;

use crate::{
    graph::{Attribute, Graph},
    params::Parameter,
    shapes::Size,
    value::{Dim, Kind, Value},
};

/// The steps of a convolution's kernel.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steps {
    pub(crate) stride: usize,
    pub(crate) padding: usize,
    pub(crate) dilation: usize,
}

impl Steps {
    /// Returns the steps of a kernel that preserves the size of maps.
    pub(crate) fn same(side: usize) -> Self {
        Self {
            stride: 1,
            padding: side / 2,
            dilation: 1,
        }
    }
}

/// Queries, keys and values of all heads: `[batch, heads, tokens, head]` each.
#[derive(Debug, Clone)]
pub(crate) struct Heads {
    pub(crate) q: Value,
    pub(crate) k: Value,
    pub(crate) v: Value,
}

impl Graph<'_> {
    /// Applies a linear layer to the last axis: `[…, in]` → `[…, out]`
    ///
    /// - `name`: name of the layer, under which the model has `weight` and `bias`
    pub(crate) fn linear(&mut self, x: &Value, name: &str) -> Value {
        let bias = format!("{name}.bias");
        let bias = self.param(&bias);
        let product = self.weighted(x, &format!("{name}.weight"), |weight| weight);
        self.add(&product, &bias)
    }

    /// Multiplies by a weight: `[…, in]` and `[out, in]` → `[…, out]`
    pub(crate) fn weighted(
        &mut self,
        x: &Value,
        name: &str,
        form: impl FnOnce(Parameter) -> Parameter,
    ) -> Value {
        let factor = self.factor(name, form);
        self.product(x, &factor)
    }

    /// Normalises the last axis.
    pub(crate) fn layer_norm(&mut self, x: &Value, name: &str, epsilon: f32) -> Value {
        let weight = self.param(&format!("{name}.weight"));
        let bias = self.param(&format!("{name}.bias"));
        self.norm_by(x, &weight, &bias, epsilon)
    }

    /// Normalises the last axis with a scale and a shift of its length.
    pub(crate) fn norm_by(
        &mut self,
        x: &Value,
        weight: &Value,
        bias: &Value,
        epsilon: f32,
    ) -> Value {
        let attributes = vec![
            Attribute::Int("axis", -1),
            Attribute::Float("epsilon", epsilon),
        ];
        let inputs = [x, weight, bias];
        self.node(
            "LayerNormalization",
            &inputs,
            attributes,
            x.kind,
            x.shape.clone(),
        )
    }

    /// Applies the activation of a tower.
    pub(crate) fn activate(&mut self, x: &Value, activation: Activation) -> Value {
        match activation {
            Activation::QuickGelu => {
                let scaled = self.scale(x, 1.702);
                let share = self.sigmoid(&scaled);
                self.multiply(x, &share)
            }
            Activation::Gelu => self.gelu(x),
        }
    }

    /// Computes the exact GELU.
    pub(crate) fn gelu(&mut self, x: &Value) -> Value {
        if self.opset() >= 20 {
            return self.node("Gelu", &[x], vec![], x.kind, x.shape.clone());
        }
        let root = self.number(std::f64::consts::SQRT_2, x.kind);
        let scaled = self.divide(x, &root);
        let erf = self.node("Erf", &[&scaled], vec![], x.kind, x.shape.clone());
        let share = self.shift(&erf, 1.0);
        let product = self.multiply(x, &share);
        self.scale(&product, 0.5)
    }

    /// Splits the heads: `[batch, tokens, width]` → `[batch, heads, tokens, head]`
    pub(crate) fn split_heads(&mut self, x: &Value, heads: usize) -> Value {
        let head = x.dim(-1).known().unwrap_or(0) / heads.max(1);
        let parts = self.reshape(x, &[0, 0, heads as i64, head as i64]);
        self.transpose(&parts, &[0, 2, 1, 3])
    }

    /// Joins the heads: `[batch, heads, tokens, head]` → `[batch, tokens, width]`
    pub(crate) fn join_heads(&mut self, x: &Value) -> Value {
        let width = Dim::product([&x.dim(1), &x.dim(3)]).known().unwrap_or(0);
        let tokens = self.transpose(x, &[0, 2, 1, 3]);
        self.reshape(&tokens, &[0, 0, width as i64])
    }

    /// Computes softmax(a·bᵀ/√head + bias): `[batch, heads, tokens, head]` twice → `[batch, heads, tokens, tokens]`
    pub(crate) fn similarity(&mut self, a: &Value, b: &Value, bias: Option<&Value>) -> Value {
        let head = a.dim(-1).known().unwrap_or(1).max(1);
        let scaled = self.scale(a, (head as f64).powf(-0.5));
        let turned = self.transpose(b, &[0, 1, 3, 2]);
        let logits = self.product(&scaled, &turned);
        let logits = match bias {
            Some(bias) => self.add(&logits, bias),
            None => logits,
        };
        self.softmax(&logits, -1)
    }

    /// Computes attention: `[batch, heads, queries, head]` → `[batch, queries, width]`
    pub(crate) fn attend(&mut self, heads: &Heads, bias: Option<&Value>) -> Value {
        let weights = self.similarity(&heads.q, &heads.k, bias);
        let attended = self.product(&weights, &heads.v);
        self.join_heads(&attended)
    }

    /// Applies a convolution: `[batch, in, h, w]` → `[batch, out, h', w']`
    ///
    /// - `weight`: `[out, in, side, side]`
    pub(crate) fn convolve(
        &mut self,
        x: &Value,
        weight: &Value,
        bias: Option<&Value>,
        steps: Steps,
    ) -> Value {
        let side = weight.dim(2).known().unwrap_or(1);
        let length = |dim: Dim| match dim {
            Dim::Known(length) => {
                let reach = steps.dilation * (side - 1) + 1;
                Dim::Known((length + 2 * steps.padding).saturating_sub(reach) / steps.stride + 1)
            }
            Dim::Named(name)
                if steps.stride == 1 && 2 * steps.padding == steps.dilation * (side - 1) =>
            {
                Dim::Named(name)
            }
            Dim::Named(name) => strided(&name, steps.stride),
        };
        let shape = vec![x.dim(0), weight.dim(0), length(x.dim(2)), length(x.dim(3))];
        let (side, stride) = (side as i64, steps.stride as i64);
        let attributes = vec![
            Attribute::Ints("kernel_shape", vec![side; 2]),
            Attribute::Ints("strides", vec![stride; 2]),
            Attribute::Ints("pads", vec![steps.padding as i64; 4]),
            Attribute::Ints("dilations", vec![steps.dilation as i64; 2]),
        ];
        let mut inputs = vec![x, weight];
        inputs.extend(bias);
        self.node("Conv", &inputs, attributes, x.kind, shape)
    }

    /// Resizes maps bilinearly with half-pixel centres, in 32-bit floats: `[batch, channels, h, w]` → `[batch, channels,
    /// height, width]`, in the kind of the input.
    ///
    /// - `sizes`: height and width; fixed, or computed
    pub(crate) fn resize(&mut self, x: &Value, sizes: [Size; 2], shape: [Dim; 2]) -> Value {
        self.resize_with(x, sizes, shape, Interpolation::Linear)
    }

    /// Resizes maps as [`Graph::resize`] does, with another interpolation.
    pub(crate) fn resize_with(
        &mut self,
        x: &Value,
        sizes: [Size; 2],
        shape: [Dim; 2],
        interpolation: Interpolation,
    ) -> Value {
        let [height, width] = shape;
        if [x.dim(2), x.dim(3)] == [height.clone(), width.clone()] {
            return x.clone();
        }
        let kind = x.kind;
        let x = self.cast(x, Kind::Float);
        let all = [Size::Of(&x, 0), Size::Of(&x, 1), sizes[0], sizes[1]];
        let sizes = self.sizes(&all);
        let shape = vec![x.dim(0), x.dim(1), height, width];
        let none = Value {
            name: String::new(),
            kind: Kind::Float,
            shape: Vec::new(),
        };
        let attributes = match interpolation {
            Interpolation::Linear => vec![
                Attribute::Text("mode", "linear"),
                Attribute::Text("coordinate_transformation_mode", "half_pixel"),
            ],
            Interpolation::Cubic => vec![
                Attribute::Text("mode", "cubic"),
                Attribute::Text("coordinate_transformation_mode", "half_pixel"),
                Attribute::Float("cubic_coeff_a", -0.75),
            ],
            Interpolation::Nearest => vec![
                Attribute::Text("mode", "nearest"),
                Attribute::Text("coordinate_transformation_mode", "asymmetric"),
                Attribute::Text("nearest_mode", "floor"),
            ],
        };
        let inputs = [&x, &none, &none, &sizes];
        let resized = self.node("Resize", &inputs, attributes, Kind::Float, shape);
        self.cast(&resized, kind)
    }

    /// Doubles, or multiplies otherwise, the sides of maps bilinearly with half-pixel centres, in 32-bit floats.
    pub(crate) fn enlarge(&mut self, x: &Value, factor: usize) -> Value {
        let x = self.cast(x, Kind::Float);
        let length = |dim: Dim| Dim::product([&dim, &Dim::Known(factor)]);
        let shape = vec![x.dim(0), x.dim(1), length(x.dim(2)), length(x.dim(3))];
        let none = Value {
            name: String::new(),
            kind: Kind::Float,
            shape: Vec::new(),
        };
        let factor = factor as f32;
        let scales = self.constants("scales", &[1.0, 1.0, factor, factor], &[4], Kind::Float);
        let attributes = vec![
            Attribute::Text("mode", "linear"),
            Attribute::Text("coordinate_transformation_mode", "half_pixel"),
        ];
        self.node(
            "Resize",
            &[&x, &none, &scales],
            attributes,
            Kind::Float,
            shape,
        )
    }
}

/// The interpolation of a resized map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Interpolation {
    Linear,
    /// Cubic convolution with a = −0.75.
    Cubic,
    /// The cell at ⌊i·in/out⌋.
    Nearest,
}

/// Returns the name of a length after a stride.
fn strided(name: &str, stride: usize) -> Dim {
    match name.rsplit_once('/') {
        Some((rest, last)) if rest.chars().all(char::is_alphabetic) => {
            match last.parse::<usize>() {
                Ok(last) => Dim::named(format!("{rest}/{}", last * stride)),
                Err(_) => Dim::named(format!("({name})/{stride}")),
            }
        }
        _ => Dim::named(format!("{name}/{stride}")),
    }
}

/// Normalises each map over groups of channels, with a scale and a shift per channel: `[batch, channels, h, w]`.
pub(crate) fn normalised_groups(
    g: &mut Graph,
    x: &Value,
    name: &str,
    groups: usize,
    epsilon: f32,
) -> Value {
    let channels = x.dim(1).known().unwrap_or(1);
    let grouped = g.reshape(x, &[0, groups as i64, -1]);
    let ones = g.constants("ones", &vec![1.0; groups], &[groups], x.kind);
    let zeros = g.constants("zeros", &vec![0.0; groups], &[groups], x.kind);
    let attributes = vec![Attribute::Float("epsilon", epsilon)];
    let inputs = [&grouped, &ones, &zeros];
    let shape = grouped.shape.clone();
    let normed = g.node("InstanceNormalization", &inputs, attributes, x.kind, shape);
    let sizes = [
        Size::Of(x, 0),
        Size::Of(x, 1),
        Size::Of(x, 2),
        Size::Of(x, 3),
    ];
    let normed = g.reshape_to(&normed, &sizes, x.shape.clone());
    let per_channel = |g: &mut Graph, part: &str| {
        g.param_as(&format!("{name}.{part}@maps"), |mut parameter| {
            parameter.shape = vec![channels, 1, 1];
            parameter
        })
    };
    let (weight, bias) = (per_channel(g, "weight"), per_channel(g, "bias"));
    let scaled = g.multiply(&normed, &weight);
    g.add(&scaled, &bias)
}
