//! The graph of CLIP-RC.

use zeg_model::{
    methods::clip_rc::{ClipRc, ClipRcConfig},
    vision::VisionTransformer,
};

use super::{MethodGraphs, model_of, zegclip};
use crate::{
    OnnxError,
    decoder::{DecoderLayer, describe},
    dense::{self, Covers, DenseModel, Feature, Frame, Layer, Part, on_grid},
    graph::Graph,
    operators::Reduction,
    settings::Request,
    shapes::Size,
    tower::Tower,
    value::{Dim, Value},
};

/// The graphs of CLIP-RC.
#[derive(Debug)]
pub(super) struct ClipRcGraphs;

impl MethodGraphs for ClipRcGraphs {
    fn methods(&self) -> &'static [&'static str] {
        &["clip-rc"]
    }

    fn graphs(&self, request: &Request) -> Result<Vec<Part>, OnnxError> {
        let model: &ClipRc = model_of(request)?;
        let parts = ClipRcParts {
            config: model.config(),
            tower: &model.backbone,
        };
        dense::graphs(&parts, request)
    }
}

struct ClipRcParts<'a> {
    config: &'a ClipRcConfig,
    tower: &'a VisionTransformer,
}

impl DenseModel for ClipRcParts<'_> {
    fn tower(&self) -> &VisionTransformer {
        self.tower
    }

    fn reads(&self, name: &str) -> bool {
        !name.starts_with("decode_head.recovery_decoder.") // for training only
    }

    fn encode(&self, g: &mut Graph, frame: &Frame) -> Vec<Feature> {
        zegclip::encode(g, Tower::new(&self.config.encoder), frame)
    }

    fn score(&self, g: &mut Graph, features: &[Value], text: &Value) -> Vec<Layer> {
        let [map, global, regions] = features else {
            return Vec::new();
        };
        let head = &self.config.head;
        g.scope("decode_head", |g| {
            let dim = map.dim(3).known().unwrap_or(0) as i64;
            let patches = g.reshape(map, &[0, -1, dim]);
            let patches = g.scale(&patches, head.input_scale);
            let global = g.scale(global, head.input_scale);
            let regions = g.scale(regions, head.input_scale);
            let text = g.scale(text, head.input_scale);
            let image = g.unsqueeze(&global, 1); // [batch, 1, dim]
            let clues = g.add(&regions, &image); // [batch, regions, dim]
            let clues = g.reshape(&clues, &[-1, dim]);
            let descriptors = describe(g, head.query, &text, &clues); // [batch·regions, classes, widths·dim]
            let count = regions.dim(1).known().unwrap_or(1);
            let width = descriptors.dim(2).known().unwrap_or(0);
            let queries = queries_of_image(g, &descriptors, &regions, (count, width));
            let mut q = g.linear(&queries, "decode_head.q_proj"); // [batch, regions·classes, dim]
            let lateral = lateral(g, map, &patches, (&regions, &image));
            let mut v = g.linear(&lateral, "decode_head.lateral_proj"); // [batch, patches, dim]
            for index in 0..head.layers {
                let layer = |decoder: &str| DecoderLayer {
                    name: format!("decode_head.{decoder}.layers.{index}"),
                    heads: head.heads,
                };
                let decoded = layer("decoder_q").forward(g, &q, &v);
                v = layer("decoder_v").forward(g, &v, &q);
                q = decoded;
            }
            let per_region = g.reshape(&q, &[0, count as i64, -1, dim]);
            let mean = g.reduce(Reduction::Mean, &per_region, &[1]);
            let mean = g.squeeze(&mean, 1); // [batch, classes, dim]
            let mean = Value {
                shape: vec![mean.dim(0), text.dim(0), mean.dim(2)],
                ..mean
            };
            let patches = g.transpose(&v, &[0, 2, 1]);
            let masks = g.product(&mean, &patches);
            let masks = g.mask_logits(&masks, head);
            let logits = on_grid(g, &masks, map);
            vec![Layer {
                logits,
                covers: Covers::Padded,
            }]
        })
    }
}

/// Joins the queries of an image: `[batch·regions, classes, width]` → `[batch, regions·classes, width]`
fn queries_of_image(
    g: &mut Graph,
    descriptors: &Value,
    regions: &Value,
    (count, width): (usize, usize),
) -> Value {
    let shape = vec![
        regions.dim(0),
        Dim::product([&Dim::Known(count), &descriptors.dim(1)]),
        Dim::Known(width),
    ];
    let sizes = [Size::Of(regions, 0), Size::Is(-1), Size::Is(width as i64)];
    g.reshape_to(descriptors, &sizes, shape)
}

/// Returns the patch stream's input: `[batch, h·w, 3·dim]`
///
/// - `map`: the patches as a map `[batch, h, w, dim]`
fn lateral(
    g: &mut Graph,
    map: &Value,
    patches: &Value,
    (regions, image): (&Value, &Value),
) -> Value {
    g.scope("lateral", |g| {
        let count = regions.dim(1).known().unwrap_or(1);
        let side = count.isqrt() as i64;
        let turned = g.transpose(regions, &[0, 2, 1]);
        let lattice = g.reshape(&turned, &[0, 0, side, side]); // [batch, dim, side, side]
        let sizes = [Size::Of(map, 1), Size::Of(map, 2)];
        let stretched = g.resize(&lattice, sizes, [map.dim(1), map.dim(2)]);
        let cells = g.reshape(&stretched, &[0, 0, -1]);
        let stretched = g.transpose(&cells, &[0, 2, 1]); // [batch, h·w, dim]
        let sizes = [
            Size::Of(patches, 0),
            Size::Of(patches, 1),
            Size::Of(patches, 2),
        ];
        let image = g.expand(image, &sizes, patches.shape.clone());
        g.concat(&[&stretched, &image, patches], 2)
    })
}
