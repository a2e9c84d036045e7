//! The aggregator: from the cost volume, the cosines of every position and every class, to one map of logits per class.
//!
//! Cost volume → convolution → layers of spatial ([`super::swin`]) and class ([`super::class_attention`]) aggregation →
//! decoder. Spatial aggregation and decoder treat every class by itself, so in inference they run on a few classes at a
//! time: attention, MLPs and the decoder's maps take the memory of these. What the layers pass on, `[classes, h·w, width]`,
//! and the logits are held for all classes.

use burn::{
    module::Module,
    tensor::{Int, Tensor, TensorData, activation::relu},
};

use super::{
    class_attention::{ClassAttention, ClassAttentionSettings},
    config::AggregatorConfig,
    convolution::{Convolution, Kernel, UpStage},
    swin::{SwinPair, Windows},
};
use crate::{
    ModelError,
    layers::{Linear, l2_normalize},
    scores::host,
    trace::Trace,
    weights::ParamBuilder,
};

/// Smallest norm of a vector of the cost volume.
const LEAST_NORM: f64 = 1e-12;
/// Logit of a class that is cut before the aggregation.
pub const CUT_LOGIT: f32 = -100.0;
/// Number of classes that are aggregated or decoded together in inference.
const CLASSES: usize = 8;

/// A layer of spatial and class aggregation, under the reference's names.
#[derive(Module, Debug)]
pub struct AggregatorLayer {
    /// Spatial aggregation.
    pub swin_block: SwinPair,
    /// Class aggregation.
    pub attention: ClassAttention,
}

/// The aggregator, under the reference's names.
#[derive(Module, Debug)]
pub struct Aggregator {
    /// Embeds the cost volume of a class: `[width, templates, 7, 7]`
    pub conv1: Convolution,
    /// Projects the image features that guide spatial aggregation; empty without guidance.
    pub guidance_projection: Vec<Convolution>,
    /// Projects the class embeddings that guide class aggregation; empty without guidance.
    pub text_guidance_projection: Vec<Linear>,
    /// Projects the features of middle blocks that guide the decoder; empty without guidance.
    pub decoder_guidance_projection: Vec<Vec<Convolution>>,
    /// The layers.
    pub layers: Vec<AggregatorLayer>,
    /// First stage of the decoder: the side of the grid is doubled.
    pub decoder1: UpStage,
    /// Second stage of the decoder.
    pub decoder2: UpStage,
    /// Logits: `[1, channels, 3, 3]`
    pub head: Convolution,
    #[module(skip)]
    config: AggregatorConfig,
}

/// The features that guide the aggregation; independent of the classes.
#[derive(Debug, Clone)]
pub struct Guides {
    /// For spatial aggregation: `[batch, guidance, h, w]`
    pub appearance: Option<Tensor<4>>,
    /// For the stages of the decoder: `[batch, guidance, 2·h, 2·w]` and `[batch, guidance, 4·h, 4·w]`
    pub decoder: Vec<Tensor<4>>,
}

impl Guides {
    /// Returns the features of one image of the batch, as a batch of one.
    #[must_use]
    pub fn image(&self, index: usize) -> Self {
        let of_image = |x: &Tensor<4>| x.clone().narrow(0, index, 1);
        Self {
            appearance: self.appearance.as_ref().map(of_image),
            decoder: self.decoder.iter().map(of_image).collect(),
        }
    }
}

impl Aggregator {
    /// Reads or initialises the aggregator.
    ///
    /// - `dim`: channels of the joint image-text space
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        config: &AggregatorConfig,
        dim: usize,
    ) -> Result<Self, ModelError> {
        let convolution = |params: ParamBuilder, input, output, side| {
            let kernel = Kernel {
                input,
                output,
                side,
            };
            Convolution::build(&params, kernel)
        };
        let AggregatorConfig {
            width,
            appearance,
            text,
            decoder,
            decoder_features,
            decoder_guidance,
            ..
        } = *config;
        let projections = [0, 1]
            .into_iter()
            .filter(|&stage| decoder_guidance[stage] > 0);
        let stage = |stage: usize| {
            let params = params.at("decoder_guidance_projection").at(stage).at(0);
            convolution(params, decoder_features[stage], decoder_guidance[stage], 3)
                .map(|projection| vec![projection])
        };
        let layers = (0..config.layers).map(|index| {
            let params = params.at("layers").at(index);
            let settings = ClassAttentionSettings {
                width,
                guidance: text,
                heads: config.heads,
                length: config.classes,
                kind: config.attention,
            };
            Ok(AggregatorLayer {
                swin_block: SwinPair::build(
                    &params.at("swin_block"),
                    width,
                    appearance,
                    config.heads,
                )?,
                attention: ClassAttention::build(&params.at("attention"), settings)?,
            })
        });
        Ok(Self {
            conv1: convolution(params.at("conv1"), config.templates, width, 7)?,
            guidance_projection: (appearance > 0)
                .then(|| convolution(params.at("guidance_projection").at(0), dim, appearance, 3))
                .transpose()?
                .into_iter()
                .collect(),
            text_guidance_projection: (text > 0)
                .then(|| Linear::build(&params.at("text_guidance_projection").at(0), dim, text))
                .transpose()?
                .into_iter()
                .collect(),
            decoder_guidance_projection: projections.map(stage).collect::<Result<_, _>>()?,
            layers: layers.collect::<Result<_, ModelError>>()?,
            decoder1: UpStage::build(
                &params.at("decoder1"),
                [width, decoder[0]],
                decoder_guidance[0],
            )?,
            decoder2: UpStage::build(
                &params.at("decoder2"),
                [decoder[0], decoder[1]],
                decoder_guidance[1],
            )?,
            head: convolution(params.at("head"), decoder[1], 1, 3)?,
            config: config.clone(),
        })
    }

    /// Projects the features that guide the aggregation.
    ///
    /// - `appearance`: image features, `[batch, dim, h, w]`
    /// - `middle`: features of two middle blocks, `[batch, channels, 2·h, 2·w]` and `[batch, channels, 4·h, 4·w]`
    pub fn guides(
        &self,
        appearance: &Tensor<4>,
        middle: &[Tensor<4>],
        trace: &mut Trace,
    ) -> Guides {
        let project = |layer: &Convolution, x: &Tensor<4>| relu(layer.forward(x.clone()));
        let appearance = self
            .guidance_projection
            .first()
            .map(|layer| project(layer, appearance));
        if let Some(appearance) = &appearance {
            trace.record("guid_app", appearance);
        }
        let stages = self.decoder_guidance_projection.iter().flatten();
        let decoder: Vec<_> = stages
            .zip(middle)
            .map(|(layer, features)| project(layer, features))
            .collect();
        for (index, guidance) in decoder.iter().enumerate() {
            trace.record(format_args!("guid_dec{index}"), guidance);
        }
        Guides {
            appearance,
            decoder,
        }
    }

    /// Computes the logits of classes for one image: `[1, classes, 4·h, 4·w]`
    ///
    /// - `features`: image features, `[1, dim, h, w]`
    /// - `guides`: those of the same image
    /// - `text`: class embeddings, `[classes, templates, dim]`
    /// - `pooling`: rows and columns that class aggregation averages
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub fn forward(
        &self,
        features: Tensor<4>,
        guides: &Guides,
        text: Tensor<3>,
        pooling: [usize; 2],
        trace: &mut Trace,
    ) -> Result<Tensor<4>, ModelError> {
        let [_, dim, h, w] = features.dims();
        let [all, templates, _] = text.dims();
        let grid = [h, w];
        let cells = features.reshape([dim, h * w]);
        let norm = cells.clone().square().sum_dim(0).sqrt(); // [1, h·w]
        let cells = cells / norm.clamp_min(LEAST_NORM);
        let kept = self.kept(&cells, &text, trace)?;
        let text = match &kept {
            Some(kept) => text.select(0, indices(kept, &cells.device())),
            None => text,
        };
        let [classes, _, _] = text.dims();
        let cost = cosines(&text, &cells); // [classes·templates, h·w]
        let cost = cost.reshape([classes, templates, h, w]);
        trace.record(
            "corr",
            &cost.clone().swap_dims(0, 1).unsqueeze::<5>(), // [1, templates, classes, h, w]
        );
        let guidance = self.text_guidance_projection.first().map(|layer| {
            let mean = l2_normalize(text.mean_dim(1).reshape([classes, dim]));
            relu(layer.forward(mean)) // [classes, guidance]
        });
        if let Some(guidance) = &guidance {
            trace.record("guid_text", &guidance.clone().unsqueeze::<3>());
        }

        let x = self.embed(cost, trace); // [classes, h·w, width]
        let x = self.aggregate(x, guides, guidance.as_ref(), (grid, pooling), trace);
        let logits = self.decode(x, guides, grid, trace); // [classes, 1, 4·h, 4·w]
        let logits = match kept {
            Some(kept) => {
                let cut = logits.clone().narrow(0, 0, 1) * 0.0 + CUT_LOGIT;
                let place = |class: usize| kept.binary_search(&class).unwrap_or(kept.len());
                let places: Vec<usize> = (0..all).map(place).collect();
                let device = logits.device();
                Tensor::cat(vec![logits, cut], 0).select(0, indices(&places, &device))
            }
            None => logits,
        };
        let logits = logits.swap_dims(0, 1); // [1, classes, 4·h, 4·w]
        trace.record("logits", &logits);
        Ok(logits)
    }

    /// Returns the classes that are aggregated, ascending: those with the highest cosine at any position. `None` for all.
    ///
    /// - `cells`: unit vectors, `[dim, h·w]`
    fn kept(
        &self,
        cells: &Tensor<2>,
        text: &Tensor<3>,
        trace: &mut Trace,
    ) -> Result<Option<Vec<usize>>, ModelError> {
        let [classes, templates, _] = text.dims();
        let most = self.config.classes;
        if most == 0 || classes <= most {
            return Ok(None);
        }
        let cells = cells.clone().without_autodiff();
        let [_, positions] = cells.dims();
        let cost = cosines(&text.clone().without_autodiff(), &cells);
        let best = cost.reshape([classes, templates * positions]).max_dim(1); // [classes, 1]
        let scores = host(best)?;
        let mut order: Vec<usize> = (0..classes).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a])); // stable: of equal scores the first class
        order.truncate(most);
        order.sort_unstable();
        if trace.is_on() {
            let row = |values: Vec<f32>| {
                let count = values.len();
                Tensor::<1>::from_data(TensorData::new(values, [count]), &cells.device())
            };
            let names = order.iter().map(|&class| class as f32).collect();
            trace.record("topk_classes", &row(names).unsqueeze::<2>());
            trace.record("topk_score", &row(scores));
        }
        Ok(Some(order))
    }

    /// Returns the number of classes that are computed together.
    fn at_once<const D: usize>(x: &Tensor<D>, trace: &Trace) -> usize {
        if x.is_autodiff() || trace.is_on() {
            usize::MAX
        } else {
            CLASSES
        }
    }

    /// Embeds the cost volume: `[classes, templates, h, w]` → `[classes, h·w, width]`
    fn embed(&self, cost: Tensor<4>, trace: &mut Trace) -> Tensor<3> {
        let [classes, _, h, w] = cost.dims();
        let embedded = self.conv1.forward(cost); // [classes, width, h, w]
        let width = self.config.width;
        trace.record(
            "corr_embed",
            &embedded.clone().swap_dims(0, 1).unsqueeze::<5>(), // [1, width, classes, h, w]
        );
        embedded.reshape([classes, width, h * w]).swap_dims(1, 2)
    }

    /// Applies all layers: `[classes, h·w, width]` → the same shape
    ///
    /// - `guidance`: from the class embeddings, `[classes, guidance]`
    fn aggregate(
        &self,
        mut x: Tensor<3>,
        guides: &Guides,
        guidance: Option<&Tensor<2>>,
        (grid, pooling): ([usize; 2], [usize; 2]),
        trace: &mut Trace,
    ) -> Tensor<3> {
        let [classes, tokens, width] = x.dims();
        let device = x.device();
        let windows = [
            Windows::aligned(grid, self.config.window, &device),
            Windows::shifted(grid, self.config.window, &device),
        ];
        let appearance = guides.appearance.as_ref().map(|appearance| {
            let [_, channels, _, _] = appearance.dims();
            let tokens_of = appearance.clone().reshape([1, channels, tokens]);
            tokens_of.swap_dims(1, 2) // [1, h·w, guidance]
        });
        for (index, layer) in self.layers.iter().enumerate() {
            let name = format!("layer{index}");
            let swin = &layer.swin_block;
            let shared = swin.shared(appearance.as_ref(), classes, trace, &name);
            let parts = x.clone().split(Self::at_once(&x, trace).min(classes), 0);
            let parts = parts
                .into_iter()
                .map(|part| swin.forward(part, &shared, &windows, trace, &name))
                .collect();
            x = Tensor::cat(parts, 0);
            let attention = &layer.attention;
            x = attention.forward(x, guidance, grid, pooling, trace, &name);
            if trace.is_on() {
                let maps = x.clone().permute([2, 0, 1]); // [width, classes, h·w]
                let maps = maps.reshape([1, width, classes, grid[0], grid[1]]);
                trace.record(format_args!("{name}.out"), &maps);
            }
        }
        x
    }

    /// Decodes every class: `[classes, h·w, width]` → logits `[classes, 1, 4·h, 4·w]`
    fn decode(
        &self,
        x: Tensor<3>,
        guides: &Guides,
        [h, w]: [usize; 2],
        trace: &mut Trace,
    ) -> Tensor<4> {
        let [classes, _, _] = x.dims();
        let mut guidance = guides.decoder.iter();
        let shared = [&self.decoder1, &self.decoder2]
            .map(|stage| guidance.next().map(|guidance| stage.shared(guidance)));
        let [first_shared, second_shared] = &shared;
        let parts = x.clone().split(Self::at_once(&x, trace).min(classes), 0);
        let decoded = parts.into_iter().map(|part| {
            let [count, _, _] = part.dims();
            let first = self.decoder1.forward(part, [h, w], first_shared.as_ref());
            trace.record("decoder1", &first);
            let [_, channels, _, _] = first.dims();
            let tokens = first.reshape([count, channels, 4 * h * w]).swap_dims(1, 2);
            let second = self
                .decoder2
                .forward(tokens, [2 * h, 2 * w], second_shared.as_ref());
            trace.record("decoder2", &second);
            self.head.forward(second)
        });
        Tensor::cat(decoded.collect(), 0)
    }
}

/// Returns the cosines of classes and cells: `[classes·templates, h·w]`
///
/// - `text`: `[classes, templates, dim]`
/// - `cells`: unit vectors, `[dim, h·w]`
fn cosines(text: &Tensor<3>, cells: &Tensor<2>) -> Tensor<2> {
    let [classes, templates, dim] = text.dims();
    let text = text.clone().reshape([classes * templates, dim]);
    let norm = text.clone().square().sum_dim(1).sqrt(); // [classes·templates, 1]
    (text / norm.clamp_min(LEAST_NORM)).matmul(cells.clone())
}

/// Returns positions as a tensor.
fn indices(positions: &[usize], device: &burn::tensor::Device) -> Tensor<1, Int> {
    let values: Vec<i32> = positions.iter().map(|&position| position as i32).collect();
    Tensor::from_data(TensorData::new(values, [positions.len()]), device)
}
