//! The graph of CAT-Seg.

mod aggregator;
mod class_attention;
mod swin;

use zeg_model::{
    config::VisionConfig,
    methods::cat_seg::{CatSeg, CatSegConfig},
    vision::VisionTransformer,
};

use self::aggregator::Aggregator;
use super::{MethodGraphs, model_of};
use crate::{
    OnnxError,
    dense::{self, Covers, DenseModel, Feature, Frame, Layer, Part},
    graph::{Attribute, Graph},
    layers::{Interpolation, Steps},
    settings::{Request, Settings},
    shapes::Size,
    tower::{Grid, Tokens, Tower},
    value::{Dim, Value},
};

/// The graphs of CAT-Seg.
#[derive(Debug)]
pub(super) struct CatSegGraphs;

impl MethodGraphs for CatSegGraphs {
    fn methods(&self) -> &'static [&'static str] {
        &["cat-seg"]
    }

    fn graphs(&self, request: &Request) -> Result<Vec<Part>, OnnxError> {
        let model: &CatSeg = model_of(request)?;
        let parts = CatSegParts {
            config: model.config(),
            encoder: model.backbone.config(),
            backbone: &model.backbone,
        };
        dense::graphs(&parts, request)
    }

    fn left_out(&self, _request: &Request) -> Vec<String> {
        vec![
            "the graph scores the whole image at once, as `zeg segment --mode whole` does; the four windows of the \
             published evaluation are left out"
                .to_owned(),
        ]
    }
}

struct CatSegParts<'a> {
    config: &'a CatSegConfig,
    /// The image tower with the position table of its weights.
    encoder: &'a VisionConfig,
    backbone: &'a VisionTransformer,
}

impl DenseModel for CatSegParts<'_> {
    fn tower(&self) -> &VisionTransformer {
        self.backbone
    }

    fn side(&self) -> usize {
        self.config.side
    }

    fn check(&self, settings: &Settings) -> Result<(), OnnxError> {
        if settings.batch == Some(1) {
            return Ok(());
        }
        let batch = settings
            .batch
            .map_or_else(|| "dynamic".to_owned(), |n| n.to_string());
        Err(OnnxError::setting(
            format!("--batch {batch}"),
            "CAT-Seg computes the classes of one image side by side, so its graph takes one image",
        )
        .with_hint("leave --batch out, and run the graph once for each image"))
    }

    fn reads(&self, name: &str) -> bool {
        !name.starts_with("text_encoder.")
    }

    fn encode(&self, g: &mut Graph, frame: &Frame) -> Vec<Feature> {
        let side = self.config.side;
        let square = [Dim::Known(side), Dim::Known(side)];
        let images = g.resize(&frame.images, [Size::Is(side as i64); 2], square);
        let tower = Tower::new(self.encoder);
        let tokens = tower.embed(g, &images, Interpolation::Cubic);
        let grid = tokens.grid.clone();
        let (taps, last) = (self.config.taps, self.encoder.layers - 1);
        let mut middle: [Option<Value>; 2] = [None, None];
        let mut keep = |block: usize, tokens: &Value| {
            for (kept, tap) in middle.iter_mut().zip(taps) {
                if tap == block {
                    *kept = Some(tokens.clone());
                }
            }
        };
        let tokens = tower.blocks(g, tokens, 0..last, &mut |block, tokens| {
            keep(block, &tokens.sequence);
        });
        let output = without_attention(g, &tower, last, &tokens);
        keep(last, &output);
        let joint = tower.project_tokens(g, &output);
        let joint = maps(g, &joint, &grid); // [1, dim, h, w]
        let aggregator = Aggregator {
            config: &self.config.aggregator,
        };
        let middle: Vec<Value> = middle
            .into_iter()
            .zip(["upsample1", "upsample2"])
            .filter_map(|(tokens, name)| {
                let tokens = maps(g, &tokens?, &grid);
                Some(upsample(g, &tokens, name))
            })
            .collect();
        let mut features = vec![Feature {
            name: "patches",
            value: joint.clone(),
            about: "Patches in the joint image-text space, not normalised",
        }];
        features.extend(aggregator.guides(g, &joint, &middle));
        features
    }

    fn score(&self, g: &mut Graph, features: &[Value], text: &Value) -> Vec<Layer> {
        let aggregator = Aggregator {
            config: &self.config.aggregator,
        };
        let logits = g.scope("aggregator", |g| {
            aggregator.logits(g, features, text, self.config.grid())
        });
        vec![Layer {
            logits,
            covers: Covers::ScoredOnGrid,
        }]
    }
}

/// Computes the last block without attention: the class token is the residual of all tokens.
fn without_attention(g: &mut Graph, tower: &Tower, block: usize, tokens: &Tokens) -> Value {
    g.scope(format!("backbone/resblocks.{block}"), |g| {
        let x = &tokens.sequence;
        let normed = tower.first_norm(g, block, x);
        let heads = tower.project(g, block, &normed);
        let values = g.join_heads(&heads.v);
        let values = tower.output(g, block, &values);
        let class = g.slice(x, 1, 0, Some(1));
        let x = g.add(&values, &class);
        tower.feed_forward(g, block, &x)
    })
}

/// Returns the patches of tokens as maps: `[1, 1 + h·w, channels]` → `[1, channels, h, w]`
fn maps(g: &mut Graph, tokens: &Value, grid: &Grid) -> Value {
    let patches = g.slice(tokens, 1, 1, None);
    let cells = g.transpose(&patches, &[0, 2, 1]);
    let [rows, columns] = grid.sizes();
    let sizes = [Size::Of(&cells, 0), Size::Of(&cells, 1), rows, columns];
    let [h, w] = grid.shape();
    let shape = vec![cells.dim(0), cells.dim(1), h, w];
    g.reshape_to(&cells, &sizes, shape)
}

/// Turns every cell of maps into a square: `[batch, in, h, w]` → `[batch, out, side·h, side·w]`
pub(super) fn upsample(g: &mut Graph, maps: &Value, name: &str) -> Value {
    let weight = g.param(&format!("{name}.weight")); // [in, out, side, side]
    let bias = g.param(&format!("{name}.bias"));
    let side = weight.dim(2);
    let length = |dim: Dim| Dim::product([&dim, &side]);
    let shape = vec![
        maps.dim(0),
        weight.dim(1),
        length(maps.dim(2)),
        length(maps.dim(3)),
    ];
    let steps = side.known().unwrap_or(1) as i64;
    let attributes = vec![
        Attribute::Ints("kernel_shape", vec![steps; 2]),
        Attribute::Ints("strides", vec![steps; 2]),
    ];
    g.node(
        "ConvTranspose",
        &[maps, &weight, &bias],
        attributes,
        maps.kind,
        shape,
    )
}

/// Applies a convolution that preserves the size of maps, and a ReLU.
pub(super) fn projected(g: &mut Graph, maps: &Value, name: &str) -> Value {
    let convolved = convolution(g, maps, name);
    g.relu(&convolved)
}

/// Applies a convolution with a bias that preserves the size of maps.
pub(super) fn convolution(g: &mut Graph, maps: &Value, name: &str) -> Value {
    let weight = g.param(&format!("{name}.weight"));
    let bias = g.param(&format!("{name}.bias"));
    let side = weight.dim(2).known().unwrap_or(1);
    g.convolve(maps, &weight, Some(&bias), Steps::same(side))
}
