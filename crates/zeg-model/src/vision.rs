//! The vision transformer: images to patch tokens and one image embedding.
//!
//! One encoder serves every method. A [`TokenPlan`] says which positions of the sequence are class, prompt, patch
//! and region tokens; methods differ in the plan, the attention mask and the head, not in copies of the encoder.

use std::sync::Arc;

use burn::{
    module::{Module, Param},
    tensor::{Tensor, module, ops::ConvOptions},
};

use zeg_kernels::PackedLinear;

use crate::{
    ModelError,
    config::VisionConfig,
    layers::{LAYER_NORM_EPSILON, LayerNorm, Start, l2_normalize},
    packing::pack_transposed,
    position_table::position_table,
    prompts::{DeepPrompts, PromptAction, PromptSchedule},
    regions,
    resize::bilinear,
    trace::Trace,
    transformer::Transformer,
    weights::{Init, ParamBuilder},
};
pub use crate::{
    encoder_hooks::{EncoderHooks, Features, MiddleFeatures, NoHooks},
    position_table::resize_positions,
};

/// The layout of a token sequence: class token, prompts, patches (row-major), region tokens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TokenPlan {
    /// Number of prompt tokens, after the class token.
    pub prompts: usize,
    /// Number of patch rows and columns.
    pub grid: [usize; 2],
    /// Number of region tokens, at the end.
    pub regions: usize,
}

impl TokenPlan {
    /// Returns the number of patch tokens.
    pub fn patches(&self) -> usize {
        self.grid[0] * self.grid[1]
    }

    /// Returns the position of the first patch token.
    pub fn patches_start(&self) -> usize {
        1 + self.prompts
    }

    /// Returns the position of the first region token.
    pub fn regions_start(&self) -> usize {
        self.patches_start() + self.patches()
    }

    /// Returns the length of the sequence.
    pub fn len(&self) -> usize {
        self.regions_start() + self.regions
    }

    /// Returns `false`: the class token is always there.
    pub fn is_empty(&self) -> bool {
        false
    }
}

/// The encoder's output for a batch of images: unit vectors of the joint image-text space.
#[derive(Debug, Clone)]
pub struct Encoded {
    /// Patch tokens: `[batch, h·w, dim]`, row-major over the grid.
    pub patches: Tensor<3>,
    /// Image embedding from the class token: `[batch, dim]`
    pub global: Tensor<2>,
    /// Region tokens: `[batch, regions, dim]`, if the encoder has them.
    pub regions: Option<Tensor<3>>,
    /// Number of patch rows and columns.
    pub grid: [usize; 2],
}

impl Encoded {
    /// Returns the output for one image of the batch, as a batch of one.
    #[must_use]
    pub fn image(&self, index: usize) -> Self {
        Self {
            patches: self.patches.clone().narrow(0, index, 1),
            global: self.global.clone().narrow(0, index, 1),
            regions: self
                .regions
                .clone()
                .map(|regions| regions.narrow(0, index, 1)),
            grid: self.grid,
        }
    }

    /// Returns the memory that the tensors take, in bytes.
    pub fn bytes(&self) -> u64 {
        let regions = self.regions.as_ref();
        let elements = self.patches.shape().num_elements()
            + self.global.shape().num_elements()
            + regions.map_or(0, |regions| regions.shape().num_elements());
        (elements * size_of::<f32>()) as u64
    }

    /// Records all fields, patches and regions as maps.
    pub(crate) fn record(&self, trace: &mut Trace) {
        if !trace.is_on() {
            return;
        }
        trace.record("g", &self.global);
        trace.record("patch_feat", &maps(&self.patches, self.grid));
        if let Some(regions) = &self.regions {
            let side = regions.dims()[1].isqrt();
            trace.record("rlb", &maps(regions, [side; 2]));
        }
    }
}

/// Reshapes tokens `[batch, h·w, dim]` to maps `[batch, dim, h, w]`.
pub(crate) fn maps(tokens: &Tensor<3>, [h, w]: [usize; 2]) -> Tensor<4> {
    let [batch, _, dim] = tokens.dims();
    tokens.clone().swap_dims(1, 2).reshape([batch, dim, h, w])
}

/// The settings of a pass through the blocks.
struct BlockRun<'a> {
    batch: usize,
    hooks: &'a dyn EncoderHooks,
    keep: &'a mut dyn FnMut(usize, &Tensor<3>, TokenPlan),
}

/// A CLIP image tower, with or without prompts and region tokens.
#[derive(Module, Debug)]
pub struct VisionTransformer {
    /// Patch projection: `[width, 3, patch, patch]`
    pub conv1: PatchEmbedding,
    /// `[width]`
    pub class_embedding: Param<Tensor<1>>,
    /// Class token first, then the patch grid row-major: `[1 + s·s, width]`
    pub positional_embedding: Param<Tensor<2>>,
    /// Norm before the first block.
    pub ln_pre: LayerNorm,
    /// The blocks.
    pub transformer: Transformer,
    /// Norm after the last block.
    pub ln_post: LayerNorm,
    /// Projection into the joint space, applied as `x @ proj`: `[width, dim]`; empty if the weights are packed
    pub proj: Param<Tensor<2>>,
    #[module(skip)]
    packed_proj: Option<Arc<PackedLinear>>,
    /// Prompt tuning, if used.
    pub prompts: Option<DeepPrompts>,
    /// Region tokens of the region-level bridge: `[regions, width]`, if used
    pub region_level_bridge: Option<Param<Tensor<2>>>,
    #[module(skip)]
    config: VisionConfig,
}

/// The patch projection, under CLIP's name `conv1`.
#[derive(Module, Debug)]
pub struct PatchEmbedding {
    /// `[width, 3, patch, patch]`, no bias
    pub weight: Param<Tensor<4>>,
}

impl PatchEmbedding {
    /// Computes the projection as one matrix product, whose gradient is also one: `[batch, 3, height, width]` →
    /// `[batch, patches, width]`.
    fn product(&self, images: Tensor<4>) -> Tensor<3> {
        let weight = self.weight.val();
        let [width, channels, patch, _] = weight.dims();
        let [batch, _, height, width_of_image] = images.dims();
        let [h, w] = [height / patch, width_of_image / patch];
        let pixels = images
            .reshape([batch, channels, h, patch, w, patch])
            .permute([0, 2, 4, 1, 3, 5]) // [batch, h, w, 3, patch, patch]
            .reshape([batch, h * w, channels * patch * patch]);
        let weight = weight.reshape([width, channels * patch * patch]);
        module::linear(pixels, weight.transpose(), None)
    }
}

impl VisionTransformer {
    /// Reads an image tower. Prompts are initialised if the weights lack them, and the position table is resized to the
    /// configuration's input resolution.
    ///
    /// # Errors
    /// Returns an error if the configuration is inconsistent, or the weights lack a tensor or hold it in the wrong
    /// shape.
    pub fn build(params: &ParamBuilder, config: &VisionConfig) -> Result<Self, ModelError> {
        config.check()?;
        let schedule = config
            .prompts
            .as_ref()
            .map(|p| PromptSchedule::new(p.depth, config.layers));
        Self::build_scheduled(params, config, schedule)
    }

    /// Reads an image tower as [`VisionTransformer::build`] does, with a prompt schedule that [`VisionConfig`] cannot
    /// express.
    ///
    /// # Errors
    /// Returns the same errors as [`VisionTransformer::build`].
    pub fn build_scheduled(
        params: &ParamBuilder,
        config: &VisionConfig,
        schedule: Option<PromptSchedule>,
    ) -> Result<Self, ModelError> {
        let width = config.width;
        let norm = |name| {
            LayerNorm::build(
                &params.at(name),
                width,
                LAYER_NORM_EPSILON,
                Start::FromWeights,
            )
        };
        let prompts = match (&config.prompts, schedule) {
            (Some(prompts), Some(schedule)) => {
                Some(DeepPrompts::build(params, config, prompts, schedule)?)
            }
            _ => None,
        };
        let conv1 = params.at("conv1");
        let proj = params.param("proj", [width, config.embed_dim], Init::Required)?;
        let (proj, packed_proj) = pack_transposed(params, proj);
        Ok(Self {
            conv1: PatchEmbedding {
                weight: conv1.param(
                    "weight",
                    [width, 3, config.patch, config.patch],
                    Init::Required,
                )?,
            },
            class_embedding: params.param("class_embedding", [width], Init::Required)?,
            positional_embedding: position_table(params, config)?,
            ln_pre: norm("ln_pre")?,
            transformer: Transformer::build(
                &params.at("transformer"),
                config.layers,
                width,
                config.heads,
                config.activation,
            )?,
            ln_post: norm("ln_post")?,
            proj,
            packed_proj,
            prompts,
            region_level_bridge: config
                .regions
                .map(|count| regions::build_tokens(params, count, width))
                .transpose()?,
            config: config.clone(),
        })
    }

    /// Returns the configuration of the tower.
    pub fn config(&self) -> &VisionConfig {
        &self.config
    }

    /// Encodes normalised images `[batch, 3, height, width]`; both sides must be multiples of the patch size.
    ///
    /// On a device with autodiff, prompt dropout is active (unless its probability is 0).
    pub fn forward(&self, images: Tensor<4>, trace: &mut Trace) -> Encoded {
        self.forward_with(images, &NoHooks, trace).encoded
    }

    /// Encodes images as [`VisionTransformer::forward`] does; the hooks replace blocks and select intermediate outputs
    /// to store.
    pub fn forward_with(
        &self,
        images: Tensor<4>,
        hooks: &dyn EncoderHooks,
        trace: &mut Trace,
    ) -> Features {
        let [batch, _, _, _] = images.dims();
        let (tokens, grid) = self.embed(images, hooks, trace); // [batch, 1 + patches (+ regions), width]
        let tokens = self.ln_pre.forward(tokens);
        trace.record("ln_pre", &tokens);

        let plan = TokenPlan {
            prompts: 0,
            grid,
            regions: self.config.regions.unwrap_or(0),
        };
        let mut middle = Vec::new();
        let mut keep = |layer: usize, tokens: &Tensor<3>, plan: TokenPlan| {
            if hooks.keeps(layer) {
                let tokens = tokens.clone();
                middle.push(MiddleFeatures {
                    layer,
                    tokens,
                    plan,
                });
            }
        };
        let (tokens, plan) = self.run_blocks(
            tokens,
            plan,
            BlockRun {
                batch,
                hooks,
                keep: &mut keep,
            },
            trace,
        );
        let tokens = self.normalize_last(tokens, plan, trace);
        trace.record("ln_post", &tokens);

        let joint = self.project(tokens); // [batch, tokens, dim]
        let dim = self.config.embed_dim;
        let unit = l2_normalize(joint.clone());
        let encoded = Encoded {
            global: unit.clone().narrow(1, 0, 1).reshape([batch, dim]),
            patches: unit.clone().narrow(1, plan.patches_start(), plan.patches()),
            regions: (plan.regions > 0).then(|| unit.narrow(1, plan.regions_start(), plan.regions)),
            grid,
        };
        Features {
            encoded,
            joint,
            middle,
        }
    }

    /// Projects tokens into the joint space: `[batch, tokens, width]` → `[batch, tokens, dim]`
    pub(crate) fn project(&self, tokens: Tensor<3>) -> Tensor<3> {
        match &self.packed_proj {
            Some(proj) => proj.forward(tokens),
            None => tokens.matmul(self.proj.val().unsqueeze()),
        }
    }

    /// Computes CLIP's own image embedding for images `[batch, 3, height, width]`: the class token in the joint space,
    /// not normalised, `[batch, dim]`.
    ///
    /// The last block is computed for the class token only. Prompts and region tokens are not used.
    pub fn embed_images(&self, images: Tensor<4>) -> Tensor<2> {
        self.embed_images_with(images, &NoHooks, &mut Trace::off())
    }

    /// Computes [`VisionTransformer::embed_images`] with the positions that the hooks resize; rows and columns of pixels
    /// beyond the last whole patch have no effect.
    pub fn embed_images_with(
        &self,
        images: Tensor<4>,
        hooks: &dyn EncoderHooks,
        trace: &mut Trace,
    ) -> Tensor<2> {
        let [batch, _, _, _] = images.dims();
        let (tokens, _) = self.embed(images, hooks, trace); // [batch, 1 + patches, width]
        let mut tokens = self.ln_pre.forward(tokens);
        trace.record("ln_pre", &tokens);
        let blocks = &self.transformer.resblocks;
        for block in blocks.iter().take(blocks.len() - 1) {
            tokens = block.forward(tokens, None);
        }
        if let Some(last) = blocks.last() {
            tokens = last.forward_first(tokens); // [batch, 1, width]
        }
        let class = self.ln_post.forward(tokens.narrow(1, 0, 1));
        let dim = self.config.embed_dim;
        self.project(class).reshape([batch, dim])
    }

    /// Embeds images as `[class, patches, regions]` tokens with positions, before `ln_pre`.
    pub(crate) fn embed(
        &self,
        images: Tensor<4>,
        hooks: &dyn EncoderHooks,
        trace: &mut Trace,
    ) -> (Tensor<3>, [usize; 2]) {
        let (patch, width) = (self.config.patch, self.config.width);
        let [batch, _, height, width_of_image] = images.dims();
        let [h, w] = [height / patch, width_of_image / patch];
        let patches = if self.conv1.weight.is_require_grad() {
            self.conv1.product(images) // [batch, patches, width]
        } else {
            let options = ConvOptions::new([patch, patch], [0, 0], [1, 1], 1);
            let patches = module::conv2d(images, self.conv1.weight.val(), None, options); // [batch, width, h, w]
            trace.record("patch_embed", &patches);
            patches.reshape([batch, width, h * w]).swap_dims(1, 2) // [batch, patches, width]
        };

        let positions = self.positional_embedding.val();
        let class_embedding = self.class_embedding.val().unsqueeze::<2>(); // [1, width]
        let mut class = class_embedding.clone() + positions.clone().narrow(0, 0, 1);
        if self.config.double_class_embedding {
            class = class + class_embedding;
        }
        let class = class.unsqueeze::<3>().expand([batch, 1, width]); // [batch, 1, width]
        let positions = self.patch_positions(positions, [h, w], hooks);
        let patches = patches + positions.unsqueeze::<3>();

        let mut parts = vec![class, patches];
        if let Some(tokens) = &self.region_level_bridge {
            let tokens = tokens.val();
            let [count, _] = tokens.dims();
            parts.push(tokens.unsqueeze::<3>().expand([batch, count, width])); // region tokens have no position
        }
        let tokens = Tensor::cat(parts, 1);
        trace.record("pre_ln_tokens", &tokens);
        (tokens, [h, w])
    }

    /// Returns the patch rows of the position table, resized to the grid of this image: `[h·w, width]`.
    fn patch_positions(
        &self,
        positions: Tensor<2>,
        [h, w]: [usize; 2],
        hooks: &dyn EncoderHooks,
    ) -> Tensor<2> {
        let (stored, width) = (self.config.grid(), self.config.width);
        let table = positions.narrow(0, 1, stored * stored); // [s·s, width]
        if [h, w] == [stored, stored] {
            return table;
        }
        if let Some(resized) = hooks.positions(&table, stored, [h, w]) {
            return resized;
        }
        let maps = table.transpose().reshape([1, width, stored, stored]);
        bilinear(maps, [h, w]).reshape([width, h * w]).transpose()
    }

    fn run_blocks(
        &self,
        mut tokens: Tensor<3>,
        mut plan: TokenPlan,
        run: BlockRun,
        trace: &mut Trace,
    ) -> (Tensor<3>, TokenPlan) {
        let BlockRun { batch, hooks, keep } = run;
        let projected = self
            .prompts
            .as_ref()
            .map(|prompts| (prompts, prompts.project(trace)));
        let mut mask = None;
        for (index, block) in self.transformer.resblocks.iter().enumerate() {
            let before = plan;
            if let Some((prompts, projected)) = &projected {
                (tokens, plan) = match prompts.action(projected, index, batch) {
                    PromptAction::Keep => (tokens, plan),
                    PromptAction::Remove => replace_prompts(tokens, plan, None),
                    PromptAction::Set(fresh) => replace_prompts(tokens, plan, Some(fresh)),
                };
            }
            if plan.regions > 0 && (mask.is_none() || plan != before) {
                mask = Some(regions::attention_mask(&plan, &tokens.device()));
            }
            tokens = match hooks.replace(index, block, &tokens, plan) {
                Some(replaced) => replaced,
                None => block.forward(tokens, mask.as_ref()),
            };
            trace.record(format_args!("block{index}"), &tokens);
            keep(index, &tokens, plan);
        }
        (tokens, plan)
    }

    /// Applies `prompt_norm`, if prompt tuning adds it, then `ln_post`. Both apply to every token, except that
    /// `prompt_norm` skips region tokens.
    fn normalize_last(&self, tokens: Tensor<3>, plan: TokenPlan, trace: &mut Trace) -> Tensor<3> {
        let Some(prompts) = self.prompts.as_ref().filter(|p| p.schedule().norm) else {
            return self.ln_post.forward(tokens);
        };
        let normed = prompts
            .prompt_norm
            .forward(tokens.clone().narrow(1, 0, plan.regions_start()));
        trace.record("prompt_norm", &normed);
        let normed = if plan.regions > 0 {
            Tensor::cat(
                vec![normed, tokens.narrow(1, plan.regions_start(), plan.regions)],
                1,
            )
        } else {
            normed
        };
        self.ln_post.forward(normed)
    }
}

/// Places `fresh` (or nothing) at the plan's prompt positions, after the class token.
fn replace_prompts(
    tokens: Tensor<3>,
    plan: TokenPlan,
    fresh: Option<Tensor<3>>,
) -> (Tensor<3>, TokenPlan) {
    let rest = plan.len() - plan.patches_start();
    let mut parts = vec![tokens.clone().narrow(1, 0, 1)];
    let prompts = fresh.as_ref().map_or(0, |fresh| fresh.dims()[1]);
    parts.extend(fresh);
    parts.push(tokens.narrow(1, plan.patches_start(), rest));
    (Tensor::cat(parts, 1), TokenPlan { prompts, ..plan })
}
