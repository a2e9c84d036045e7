//! The graph of ZegCLIP.

use zeg_model::{
    methods::zegclip::{ZegClip, ZegClipConfig},
    vision::VisionTransformer,
};

use super::{MethodGraphs, model_of};
use crate::{
    OnnxError,
    decoder::{DecoderLayer, describe},
    dense::{self, Covers, DenseModel, Feature, Frame, Layer, Part, as_map, on_grid},
    graph::Graph,
    layers::Interpolation,
    settings::Request,
    tower::{Tokens, Tower},
    value::Value,
};

/// The graphs of ZegCLIP.
#[derive(Debug)]
pub(super) struct ZegClipGraphs;

impl MethodGraphs for ZegClipGraphs {
    fn methods(&self) -> &'static [&'static str] {
        &["zegclip"]
    }

    fn graphs(&self, request: &Request) -> Result<Vec<Part>, OnnxError> {
        let model: &ZegClip = model_of(request)?;
        let parts = ZegClipParts {
            config: model.config(),
            tower: &model.backbone,
        };
        dense::graphs(&parts, request)
    }
}

struct ZegClipParts<'a> {
    config: &'a ZegClipConfig,
    tower: &'a VisionTransformer,
}

/// The encoding of an image by a tower with a head: patches, image embedding and region tokens.
pub(super) fn encode(g: &mut Graph, tower: Tower, frame: &Frame) -> Vec<Feature> {
    let tokens = tower.embed(g, &frame.images, Interpolation::Linear);
    let layers = tower.config.layers;
    let tokens = tower.blocks(g, tokens, 0..layers, &mut |_, _| {});
    let joint = tower.joint(g, &tokens);
    features(g, &tokens, &joint)
}

/// Returns the features of tokens in the joint space, `[batch, tokens, dim]` of any length.
pub(super) fn features(g: &mut Graph, tokens: &Tokens, joint: &Value) -> Vec<Feature> {
    g.scope("features", |g| {
        let unit = g.unit(joint);
        let global = g.slice(&unit, 1, 0, Some(1));
        let global = g.squeeze(&global, 1);
        let patches = tokens.patches(g, &unit);
        let mut features = vec![
            Feature {
                name: "patches",
                value: as_map(g, &patches, &tokens.grid.maps),
                about: "Patch tokens in the joint image-text space, unit vectors",
            },
            Feature {
                name: "image_embedding",
                value: global,
                about: "Image embedding, a unit vector",
            },
        ];
        if tokens.regions > 0 {
            features.push(Feature {
                name: "regions",
                value: tokens.region_tokens(g, &unit),
                about: "Region tokens, unit vectors",
            });
        }
        features
    })
}

impl DenseModel for ZegClipParts<'_> {
    fn tower(&self) -> &VisionTransformer {
        self.tower
    }

    fn encode(&self, g: &mut Graph, frame: &Frame) -> Vec<Feature> {
        encode(g, Tower::new(&self.config.encoder), frame)
    }

    fn score(&self, g: &mut Graph, features: &[Value], text: &Value) -> Vec<Layer> {
        let [map, global, ..] = features else {
            return Vec::new();
        };
        let head = &self.config.head;
        g.scope("decode_head", |g| {
            let dim = map.dim(3).known().unwrap_or(0);
            let patches = g.reshape(map, &[0, -1, dim as i64]);
            let memory = g.scale(&patches, head.input_scale);
            let text = g.scale(text, head.input_scale);
            let global = g.scale(global, head.input_scale);
            let descriptor = describe(g, head.query, &text, &global);
            let mut queries = g.linear(&descriptor, "decode_head.q_proj");
            let layer = |index: usize| DecoderLayer {
                name: format!("decode_head.decoder_1.layers.{index}"),
                heads: head.heads,
            };
            for index in 0..head.layers - 1 {
                queries = layer(index).forward(g, &queries, &memory);
            }
            let masks = layer(head.layers - 1).masks(g, &queries, &memory);
            let masks = g.mask_logits(&masks, head);
            let logits = on_grid(g, &masks, map);
            vec![Layer {
                logits,
                covers: Covers::Padded,
            }]
        })
    }
}
