//! Deep prompt tuning: trained tokens that steer a frozen encoder (ZegCLIP, section 3.3, after VPT).
//!
//! Every prompt passes one shared linear map and dropout before it enters a block. The reference checkpoints keep
//! these parameters beside CLIP's own, under `backbone.prompt_*`; so do we.

use burn::{
    module::{Module, Param},
    nn::{Dropout, DropoutConfig},
    tensor::Tensor,
};

use crate::{
    ModelError,
    config::{PromptConfig, PromptDepth, VisionConfig},
    layers::{LayerNorm, Linear, Start},
    trace::Trace,
    weights::{Init, ParamBuilder},
};

/// Epsilon of the norm that prompt tuning adds behind the last block; CLIP's own norms have 1e-5.
const PROMPT_NORM_EPSILON: f64 = 1e-6;

/// Number of layers that the reference counts reverse prompts from, whatever the encoder has.
pub const REFERENCE_REVERSE_LAYERS: usize = 12;

/// Whether a parameter of the image encoder belongs to prompt tuning, by its name behind `backbone.`.
pub fn is_prompt(name: &str) -> bool {
    name.starts_with("prompt") || name.starts_with("deep_prompt")
}

/// Where prompts enter the stack of blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptSchedule {
    /// First block with prompts.
    pub start: usize,
    /// First block without prompts again; `None`: they stay to the end.
    pub end: Option<usize>,
    /// Whether block `start` takes `prompt_embeddings` (else the first row of `deep_prompt_embeddings`).
    pub shallow_first: bool,
    /// Rows of `deep_prompt_embeddings`.
    pub deep_rows: usize,
    /// Whether blocks behind `start` take fresh prompts from `deep_prompt_embeddings`.
    pub refresh: bool,
    /// Whether `prompt_norm` is applied behind the last block.
    pub norm: bool,
}

impl PromptSchedule {
    /// The schedule of a depth in an encoder of `layers` blocks.
    pub fn new(depth: PromptDepth, layers: usize) -> Self {
        match depth {
            // The reference keeps a deep row that nothing reads in this mode; it is left out here.
            PromptDepth::First(1) => Self {
                start: 0,
                end: None,
                shallow_first: true,
                deep_rows: 0,
                refresh: false,
                norm: false,
            },
            PromptDepth::First(blocks) => Self {
                start: 0,
                end: (blocks < layers).then_some(blocks),
                shallow_first: true,
                deep_rows: blocks - 1,
                refresh: true,
                norm: true,
            },
            PromptDepth::Last(blocks) => Self::reverse(layers - blocks, blocks),
        }
    }

    /// Prompts from block `start` to the end, with a table of `rows` rows.
    pub fn reverse(start: usize, rows: usize) -> Self {
        Self {
            start,
            end: None,
            shallow_first: false,
            deep_rows: rows,
            refresh: true,
            norm: true,
        }
    }

    /// Row of the deep table that block `block` takes.
    fn deep_row(&self, block: usize) -> usize {
        block - self.start - usize::from(self.shallow_first)
    }
}

/// What happens to the prompt positions before a block.
#[allow(clippy::large_enum_variant)] // a tensor handle, one a block
#[derive(Debug)]
pub enum PromptAction {
    /// Nothing: they are as the last block left them, or not there.
    Keep,
    /// Fresh prompts `[batch, tokens, width]` go to the prompt positions, whether or not they exist yet.
    Set(Tensor<3>),
    /// The prompt positions are taken out of the sequence.
    Remove,
}

/// The trained parameters of prompt tuning.
#[derive(Module, Debug)]
pub struct DeepPrompts {
    /// Prompts of the first block: `[1, tokens, width]`; absent where prompts only enter later.
    pub prompt_embeddings: Option<Param<Tensor<3>>>,
    /// Prompts of the other blocks: `[rows, tokens, width]`
    pub deep_prompt_embeddings: Option<Param<Tensor<3>>>,
    /// The shared map.
    pub prompt_proj: Linear,
    /// Norm of all tokens behind the last block.
    pub prompt_norm: LayerNorm,
    dropout: Dropout,
    #[module(skip)]
    schedule: PromptSchedule,
    /// What a model that is not trained need only compute once.
    #[module(skip)]
    projected: Option<ProjectedPrompts>,
}

impl DeepPrompts {
    /// Reads or initialises the prompts; `params` stands at the encoder.
    ///
    /// # Errors
    /// See [`ParamBuilder::param`].
    pub fn build(
        params: &ParamBuilder,
        encoder: &VisionConfig,
        config: &PromptConfig,
        schedule: PromptSchedule,
    ) -> Result<Self, ModelError> {
        let (tokens, width) = (config.tokens, encoder.width);
        let bound = (6.0 / (3 * encoder.patch * encoder.patch + width) as f64).sqrt();
        let table =
            |name, rows: usize| params.param(name, [rows, tokens, width], Init::Uniform(bound));
        let mut prompts = Self {
            prompt_embeddings: schedule
                .shallow_first
                .then(|| table("prompt_embeddings", 1))
                .transpose()?,
            deep_prompt_embeddings: (schedule.deep_rows > 0)
                .then(|| table("deep_prompt_embeddings", schedule.deep_rows))
                .transpose()?,
            // Kaiming's normal start over the outputs.
            prompt_proj: Linear::build_with(
                &params.at("prompt_proj"),
                [width, width],
                Init::Normal((2.0 / width as f64).sqrt()),
                Init::Uniform(1.0 / (width as f64).sqrt()),
            )?,
            prompt_norm: LayerNorm::build(
                &params.at("prompt_norm"),
                width,
                PROMPT_NORM_EPSILON,
                Start::Fresh,
            )?,
            dropout: DropoutConfig::new(config.dropout).init(),
            schedule,
            projected: None,
        };
        if params.packing().is_some() {
            prompts.projected = Some(prompts.project(&mut Trace::off()));
        }
        Ok(prompts)
    }

    /// How prompts enter the blocks.
    pub fn schedule(&self) -> PromptSchedule {
        self.schedule
    }

    /// Maps all prompts at once, for one pass through the encoder.
    pub fn project(&self, trace: &mut Trace) -> ProjectedPrompts {
        if let Some(projected) = self.projected.as_ref().filter(|_| !trace.is_on()) {
            return projected.clone();
        }
        let first = self
            .prompt_embeddings
            .as_ref()
            .map(|p| self.prompt_proj.forward(p.val())); // [1, tokens, width]
        let deep = self
            .deep_prompt_embeddings
            .as_ref()
            .filter(|_| self.schedule.refresh)
            .map(|p| self.prompt_proj.forward(p.val())); // [rows, tokens, width]
        if trace.is_on() {
            if let Some(first) = &first {
                trace.record("prompt_proj0", first);
            }
            if let Some(deep) = &deep {
                for (row, prompts) in deep.clone().iter_dim(0).enumerate() {
                    let name = row + usize::from(self.schedule.shallow_first);
                    trace.record(
                        format_args!("prompt_proj{name}"),
                        &prompts.squeeze_dim::<2>(0),
                    );
                }
            }
        }
        ProjectedPrompts { first, deep }
    }

    /// What happens before block `block` in a batch of `batch` images.
    pub fn action(&self, projected: &ProjectedPrompts, block: usize, batch: usize) -> PromptAction {
        let schedule = &self.schedule;
        if schedule.end == Some(block) {
            return PromptAction::Remove;
        }
        if block < schedule.start || schedule.end.is_some_and(|end| block > end) {
            return PromptAction::Keep;
        }
        let prompts = if block == schedule.start && schedule.shallow_first {
            projected.first.clone()
        } else if schedule.refresh {
            let row = schedule.deep_row(block);
            projected
                .deep
                .as_ref()
                .map(|deep| deep.clone().narrow(0, row, 1)) // [1, tokens, width]
        } else {
            None
        };
        match prompts {
            Some(prompts) => {
                let [_, tokens, width] = prompts.dims();
                // Dropout behind the expansion: every image of a batch has a mask of its own.
                PromptAction::Set(self.dropout.forward(prompts.expand([batch, tokens, width])))
            }
            None => PromptAction::Keep,
        }
    }
}

/// Prompts behind the shared map, ready for the blocks.
#[derive(Debug, Clone)]
pub struct ProjectedPrompts {
    first: Option<Tensor<3>>,
    deep: Option<Tensor<3>>,
}
