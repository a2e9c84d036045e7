//! The graphs of the training-free methods.

mod calibrated;

use zeg_model::{
    inference::Refinement,
    method::ModelFacts,
    methods::training_free::{
        DenseAttention, LastBlock, NEIGHBOUR_SIGMA, TrainingFree, TrainingFreeConfig,
        calibrated::{Steps, middle_blocks},
    },
    vision::VisionTransformer,
};

use super::{MethodGraphs, model_of, zegclip::features};
use crate::{
    OnnxError,
    bytes::resize_bytes,
    dense::{self, Covers, DenseModel, Feature, Frame, Layer, Part, as_map, on_grid},
    graph::Graph,
    layers::{Heads, Interpolation},
    operators::Reduction,
    settings::Request,
    shapes::Size,
    tower::{Tokens, Tower},
    value::{Dim, Kind, Value},
};

/// Scale of cosine similarities in MaskCLIP's refinements.
const REFINED_SCALE: f64 = 100.0;
/// Score of a class that prompt denoising suppresses.
const SUPPRESSED: f64 = -100.0;
/// Smallest length that keys are divided by.
const LEAST_LENGTH: f64 = 1e-12;

/// The graphs of the training-free methods.
#[derive(Debug)]
pub(super) struct TrainingFreeGraphs;

impl MethodGraphs for TrainingFreeGraphs {
    fn methods(&self) -> &'static [&'static str] {
        &[
            "combined",
            "clip",
            "maskclip",
            "sclip",
            "naclip",
            "clearclip",
            "sc-clip",
            "pearl",
        ]
    }

    fn graphs(&self, request: &Request) -> Result<Vec<Part>, OnnxError> {
        let model: &TrainingFree = model_of(request)?;
        let parts = TrainingFreeParts {
            config: model.config(),
            tower: Tower::new(model.backbone.config()),
            backbone: &model.backbone,
            facts: request.facts(),
        };
        dense::graphs(&parts, request)
    }

    fn left_out(&self, request: &Request) -> Vec<String> {
        let Ok(model) = model_of::<TrainingFree>(request) else {
            return Vec::new();
        };
        let refine = model.config().default_inference().refine;
        if refine == Refinement::None {
            return Vec::new();
        }
        vec![
            "the refinement of scores by the colours of the image (PAMR) is left out; \
             `zeg segment --refine none` gives the same scores"
                .to_owned(),
        ]
    }
}

struct TrainingFreeParts<'a> {
    config: TrainingFreeConfig,
    tower: Tower<'a>,
    backbone: &'a VisionTransformer,
    facts: ModelFacts,
}

impl DenseModel for TrainingFreeParts<'_> {
    fn tower(&self) -> &VisionTransformer {
        self.backbone
    }

    fn encode(&self, g: &mut Graph, frame: &Frame) -> Vec<Feature> {
        let mut all = self.encode_images(g, &frame.images);
        if self
            .config
            .attention
            .steps()
            .is_some_and(|steps| steps.whole_image)
        {
            let side = self.tower.config.input_resolution;
            let is_there =
                [frame.images.dim(2), frame.images.dim(3)] == [Dim::Known(side), Dim::Known(side)];
            if !is_there {
                let whole = self.whole_image(g, &frame.unpadded, side);
                let of_whole = g.scope("whole_image", |g| self.encode_images(g, &whole));
                let names = ["whole_patches", "whole_embedding", "whole_keys"];
                all.extend(
                    of_whole
                        .into_iter()
                        .zip(names)
                        .map(|(feature, name)| Feature { name, ..feature }),
                );
            }
        }
        all
    }

    fn score(&self, g: &mut Graph, features: &[Value], text: &Value) -> Vec<Layer> {
        let per_image = 2 + usize::from(self.config.key_smoothing > 0.0);
        let text = g.unit(text);
        let text = g.transpose(&text, &[1, 0]); // [dim, classes]
        let layers = features
            .chunks(per_image)
            .zip([Covers::Padded, Covers::Image]);
        layers
            .filter_map(|(features, covers)| {
                let [map, global, keys @ ..] = features else {
                    return None;
                };
                let logits = g.scope("similarity", |g| {
                    self.logits(g, (map, global, keys.first()), &text)
                });
                Some(Layer { logits, covers })
            })
            .collect()
    }
}

impl TrainingFreeParts<'_> {
    /// Encodes images `[batch, 3, height, width]`: patches, image embedding, and the keys if scores are smoothed.
    fn encode_images(&self, g: &mut Graph, images: &Value) -> Vec<Feature> {
        let tokens = self.tower.embed(g, images, Interpolation::Linear);
        let last = self.tower.config.layers - 1;
        let steps = self.config.attention.steps();
        let wanted = match steps {
            Some(steps) if steps.needs_middle() => middle_blocks(self.tower.config.layers),
            _ => 0..0,
        };
        let mut middle = Vec::new();
        let tokens = self.tower.blocks(g, tokens, 0..last, &mut |block, tokens| {
            if wanted.contains(&block) {
                middle.push(tokens.sequence.clone());
            }
        });
        let keys = (self.config.key_smoothing > 0.0).then(|| self.keys(g, last, &tokens));
        let after = match steps {
            Some(steps) => self.in_steps(g, steps, last, &tokens, &middle),
            None => self.last_block(g, last, &tokens),
        };
        let joint = self.tower.project_tokens(g, &after);
        let mut all = features(g, &tokens, &joint);
        if let Some(keys) = keys {
            all.push(Feature {
                name: "keys",
                value: as_map(g, &keys, &tokens.grid.maps),
                about: "Keys of the last block, which smooth the scores",
            });
        }
        all
    }

    /// Returns the keys of the patches in the last block, after the output projection: `[batch, h·w, width]`
    fn keys(&self, g: &mut Graph, last: usize, tokens: &Tokens) -> Value {
        g.scope("keys", |g| {
            let normed = self.tower.first_norm(g, last, &tokens.sequence);
            let heads = self.tower.project(g, last, &normed);
            let keys = g.join_heads(&heads.k);
            let keys = self.tower.output(g, last, &keys);
            g.slice(&keys, 1, 1, None)
        })
    }

    /// Computes the last block with another attention: `[batch, 1 + h·w, width]`
    fn last_block(&self, g: &mut Graph, last: usize, tokens: &Tokens) -> Value {
        g.scope(format!("last_block.{last}"), |g| {
            let x = &tokens.sequence;
            let normed = self.tower.first_norm(g, last, x);
            let Heads { q, k, v } = self.tower.project(g, last, &normed);
            let attended = match self.config.attention {
                DenseAttention::Plain => {
                    let weights = g.similarity(&q, &k, None);
                    g.product(&weights, &v)
                }
                DenseAttention::Sclip => {
                    let (first, second) = (g.similarity(&q, &q, None), g.similarity(&k, &k, None));
                    let weights = g.add(&first, &second);
                    g.product(&weights, &v)
                }
                DenseAttention::ClearClip => {
                    let weights = g.similarity(&q, &q, None);
                    g.product(&weights, &v)
                }
                DenseAttention::Naclip => {
                    let nearness = nearness(g, tokens);
                    let weights = g.similarity(&k, &k, Some(&nearness));
                    g.product(&weights, &v)
                }
                DenseAttention::MaskClip
                | DenseAttention::ScClip
                | DenseAttention::Pearl
                | DenseAttention::Combined => v,
            };
            let attended = g.join_heads(&attended);
            let y = self.tower.output(g, last, &attended);
            match self.config.last_block {
                LastBlock::AttentionOnly => y,
                LastBlock::Full => {
                    let x = g.add(x, &y);
                    self.tower.feed_forward(g, last, &x)
                }
            }
        })
    }

    /// Computes the last block with the steps of the later methods; the class token is that of the unchanged block.
    fn in_steps(
        &self,
        g: &mut Graph,
        steps: &Steps,
        last: usize,
        tokens: &Tokens,
        middle: &[Value],
    ) -> Value {
        let class = self.tower.block_of_class(g, last, &tokens.sequence);
        let block = calibrated::Block {
            tower: self.tower,
            last,
            tokens,
            steps,
        };
        let patches = g.scope(format!("last_block.{last}"), |g| block.patches(g, middle));
        g.concat(&[&class, &patches], 1)
    }

    /// Resizes the image without padding to a square, as bytes: `[batch, 3, side, side]`
    fn whole_image(&self, g: &mut Graph, images: &Value, side: usize) -> Value {
        g.scope("whole_image", |g| {
            let statistics = self.facts.normalization;
            let mean = g.constants("mean", &statistics.mean, &[3, 1, 1], Kind::Float);
            let std = g.constants("std", &statistics.std, &[3, 1, 1], Kind::Float);
            let images = g.cast(images, Kind::Float);
            let scaled = g.multiply(&images, &std);
            let bytes = g.add(&scaled, &mean);
            let square = Size::Is(side as i64);
            let bytes = g.round(&bytes);
            let dims = [Dim::Known(side), Dim::Known(side)];
            let resized = resize_bytes(g, &bytes, [square; 2], dims);
            let centred = g.subtract(&resized, &mean);
            let normalised = g.divide(&centred, &std);
            g.cast(&normalised, g.float())
        })
    }

    /// Returns the logits of classes on a map: `[batch, classes, h, w]`
    ///
    /// - `features`: patches `[batch, h, w, dim]`, image embedding, keys
    /// - `text`: unit columns `[dim, classes]`
    fn logits(
        &self,
        g: &mut Graph,
        (map, global, keys): (&Value, &Value, Option<&Value>),
        text: &Value,
    ) -> Value {
        let dim = map.dim(3).known().unwrap_or(0) as i64;
        let patches = g.reshape(map, &[0, -1, dim]);
        let cosines = g.product(&patches, text); // [batch, h·w, classes]
        let mut cosines = g.cast(&cosines, Kind::Float);
        let steps = self.config.attention.steps();
        let vote = steps.map_or(0.0, |steps| steps.vote);
        if vote > 0.0 {
            let of_image = g.product(global, text); // [batch, classes]
            let of_image = g.cast(&of_image, Kind::Float);
            let of_image = g.scale(&of_image, vote);
            let of_image = g.unsqueeze(&of_image, 1);
            cosines = g.add(&cosines, &of_image);
        }
        let scores = g.transpose(&cosines, &[0, 2, 1]); // [batch, classes, h·w]
        let scores = self.refined(g, &scores, keys);
        let logits = g.scale(&scores, f64::from(self.config.logit_scale));
        on_grid(g, &logits, map)
    }

    /// Applies MaskCLIP's prompt denoising and key smoothing: `[batch, classes, h·w]` → the same shape
    fn refined(&self, g: &mut Graph, scores: &Value, keys: Option<&Value>) -> Value {
        let mut scores = scores.clone();
        let refinement = self.config.refinement();
        if refinement.prompt_denoising > 0.0 {
            let scaled = g.scale(&scores, REFINED_SCALE);
            let probabilities = g.softmax(&scaled, 1);
            let most = g.reduce(Reduction::Max, &probabilities, &[2]);
            let least = g.number(f64::from(refinement.prompt_denoising), most.kind);
            let nowhere = g.less(&most, &least);
            let suppressed = g.number(SUPPRESSED, scores.kind);
            scores = g.choose(&nowhere, &suppressed, &scores);
        }
        let Some(keys) = keys.filter(|_| refinement.key_smoothing > 0.0) else {
            return scores;
        };
        let width = keys.dim(3).known().unwrap_or(0) as i64;
        let keys = g.reshape(keys, &[0, -1, width]); // [batch, h·w, width]
        let keys = g.cast(&keys, Kind::Float);
        let scaled = g.scale(&scores, REFINED_SCALE);
        let probabilities = g.softmax(&scaled, 1);
        let length = g.reduce(Reduction::Length, &keys, &[1]);
        let least = g.number(LEAST_LENGTH, length.kind);
        let length = g.larger(&length, &least);
        let keys = g.divide(&keys, &length);
        let of_keys = g.product(&probabilities, &keys);
        let turned = g.transpose(&keys, &[0, 2, 1]);
        let smoothed = g.product(&of_keys, &turned);
        let most = g.reduce(Reduction::Max, &probabilities, &[1]);
        let sure = g.number(f64::from(refinement.key_smoothing), most.kind);
        let unsure = g.less(&most, &sure);
        g.choose(&unsure, &smoothed, &probabilities)
    }
}

/// Returns NACLIP's Gaussian of the distance between patches: `[1 + h·w, 1 + h·w]`, 0 for the class token
fn nearness(g: &mut Graph, tokens: &Tokens) -> Value {
    let grid = &tokens.grid;
    g.scope("nearness", |g| {
        let bell = |g: &mut Graph, axis: i64, length: Dim| {
            let count = g.sizes(&[Size::Of(&grid.maps, axis)]);
            let places = g.range(&count, length);
            let places = g.cast(&places, Kind::Float);
            let rows = g.unsqueeze(&places, 1);
            let distance = g.subtract(&rows, &places);
            let square = g.multiply(&distance, &distance);
            let sigma = f64::from(NEIGHBOUR_SIGMA);
            let scaled = g.scale(&square, -1.0 / (2.0 * sigma * sigma));
            g.exponential(&scaled) // [length, length]
        };
        let rows = bell(g, 2, grid.rows.clone());
        let columns = bell(g, 3, grid.columns.clone());
        // [h, 1, h, 1] · [1, w, 1, w]
        let rows = g.unsqueeze(&rows, 1);
        let rows = g.unsqueeze(&rows, 3);
        let columns = g.unsqueeze(&columns, 0);
        let columns = g.unsqueeze(&columns, 2);
        let all = g.multiply(&rows, &columns); // [h, w, h, w]
        let cells = Dim::product([&grid.rows, &grid.columns]);
        let count = {
            let [rows, columns] = grid.sizes();
            let (rows, columns) = (g.sizes(&[rows]), g.sizes(&[columns]));
            g.multiply(&rows, &columns)
        };
        let sizes = [Size::Computed(&count), Size::Is(-1)];
        let flat = g.reshape_to(&all, &sizes, vec![cells.clone(), cells]);
        let flat = g.cast(&flat, g.float());
        g.padded_in_front(&flat, 2)
    })
}
