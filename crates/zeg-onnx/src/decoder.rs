//! The decoder layers of ZegCLIP and CLIP-RC, and the relationship descriptor.

use zeg_model::descriptor::QueryFormat;

use crate::{graph::Graph, layers::Heads, shapes::Size, tower::epsilon, value::Value};

/// A decoder layer by its name.
#[derive(Debug, Clone)]
pub(crate) struct DecoderLayer {
    pub(crate) name: String,
    pub(crate) heads: usize,
}

impl DecoderLayer {
    fn part(&self, part: &str) -> String {
        format!("{}.{part}", self.name)
    }

    /// Returns the queries after this layer: `[batch, queries, dim]`
    ///
    /// - `memory`: `[batch, patches, dim]`
    pub(crate) fn forward(&self, g: &mut Graph, queries: &Value, memory: &Value) -> Value {
        g.scope(self.name.clone(), |g| {
            let q = g.linear(queries, &self.part("multihead_attn.q"));
            let k = g.linear(memory, &self.part("multihead_attn.k"));
            let v = g.linear(memory, &self.part("multihead_attn.v"));
            let heads = Heads {
                q: g.split_heads(&q, self.heads),
                k: g.split_heads(&k, self.heads),
                v: g.split_heads(&v, self.heads),
            };
            let attended = g.attend(&heads, None);
            let attended = g.linear(&attended, &self.part("multihead_attn.proj"));
            let x = g.add(queries, &attended);
            let x = g.layer_norm(&x, &self.part("norm2"), epsilon());
            let hidden = g.linear(&x, &self.part("linear1"));
            let hidden = g.relu(&hidden);
            let forwarded = g.linear(&hidden, &self.part("linear2"));
            let x = g.add(&x, &forwarded);
            g.layer_norm(&x, &self.part("norm3"), epsilon())
        })
    }

    /// Returns the mean over heads of the scaled logits: `[batch, queries, patches]`
    pub(crate) fn masks(&self, g: &mut Graph, queries: &Value, memory: &Value) -> Value {
        g.scope(self.name.clone(), |g| {
            let q = g.linear(queries, &self.part("multihead_attn.q"));
            let k = g.linear(memory, &self.part("multihead_attn.k"));
            let dim = q.dim(-1).known().unwrap_or(1);
            let head = (dim / self.heads.max(1)).max(1) as f64;
            let factor = head.powf(-0.5) / self.heads as f64;
            let q = g.scale(&q, factor);
            let k = g.transpose(&k, &[0, 2, 1]);
            g.product(&q, &k)
        })
    }
}

/// Combines every class embedding with image embeddings: `[batch, classes, widths·dim]`
///
/// - `text`: `[classes, dim]`
/// - `image`: `[batch, dim]`
pub(crate) fn describe(g: &mut Graph, format: QueryFormat, text: &Value, image: &Value) -> Value {
    use QueryFormat as F;
    g.scope("descriptor", |g| {
        let text = g.unsqueeze(text, 0); // [1, classes, dim]
        let image = g.unsqueeze(image, 1); // [batch, 1, dim]
        let parts: &[Part] = match format {
            F::Text => &[Part::Text],
            F::Product => &[Part::Product],
            F::AbsDifference => &[Part::AbsDifference],
            F::Difference => &[Part::Difference],
            F::Sum => &[Part::Sum],
            F::TextImage => &[Part::Text, Part::Image],
            F::ProductText => &[Part::Product, Part::Text],
            F::AbsDifferenceText => &[Part::AbsDifference, Part::Text],
            F::ProductSum => &[Part::Product, Part::Sum],
            F::SumText => &[Part::Sum, Part::Text],
            F::ProductAbsDifferenceText => &[Part::Product, Part::AbsDifference, Part::Text],
            F::ProductDifferenceText => &[Part::Product, Part::Difference, Part::Text],
        };
        let values: Vec<Value> = parts
            .iter()
            .map(|part| part.value(g, &text, &image))
            .collect();
        match &values[..] {
            [one] => one.clone(),
            _ => g.concat(&values.iter().collect::<Vec<_>>(), 2),
        }
    })
}

/// A part of a class query.
#[derive(Debug, Clone, Copy)]
enum Part {
    Text,
    Image,
    Product,
    Difference,
    AbsDifference,
    Sum,
}

impl Part {
    /// Returns the part: `[batch, classes, dim]`
    fn value(self, g: &mut Graph, text: &Value, image: &Value) -> Value {
        let shape = vec![image.dim(0), text.dim(1), text.dim(2)];
        let sizes = [Size::Of(image, 0), Size::Of(text, 1), Size::Of(text, 2)];
        match self {
            Self::Text => g.expand(text, &sizes, shape),
            Self::Image => g.expand(image, &sizes, shape),
            Self::Product => g.multiply(text, image),
            Self::Difference => g.subtract(text, image),
            Self::AbsDifference => {
                let difference = g.subtract(text, image);
                g.absolute(&difference)
            }
            Self::Sum => g.add(text, image),
        }
    }
}
