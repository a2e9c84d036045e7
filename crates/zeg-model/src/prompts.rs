//! Deep prompt tuning: trained tokens that steer a frozen encoder (ZegCLIP, section 3.3, after VPT).
//!
//! Every prompt passes one shared linear map and dropout before it enters a block. As in the reference checkpoints,
//! these parameters are stored together with CLIP's own, under `backbone.prompt_*`.

use burn::{
    module::{Module, Param},
    nn::{Dropout, DropoutConfig},
    tensor::Tensor,
};

use crate::{
    ModelError,
    config::{PromptConfig, PromptDepth, VisionConfig},
    dropout::dropout,
    layers::{LayerNorm, Linear, Start},
    trace::Trace,
    weights::{Init, ParamBuilder},
};

/// Epsilon of the norm that prompt tuning adds after the last block; CLIP's own norms have 1e-5.
const PROMPT_NORM_EPSILON: f64 = 1e-6;

/// Number of layers from which the reference counts reverse prompts, regardless of the encoder's depth.
pub const REFERENCE_REVERSE_LAYERS: usize = 12;

/// Returns whether a parameter of the image encoder belongs to prompt tuning, given its name after `backbone.`.
pub fn is_prompt(name: &str) -> bool {
    name.starts_with("prompt") || name.starts_with("deep_prompt")
}

/// The blocks at which prompts enter and leave the sequence.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PromptSchedule {
    /// First block with prompts.
    pub start: usize,
    /// First block that has no prompts again; `None` if prompts stay to the end.
    pub end: Option<usize>,
    /// Whether block `start` takes `prompt_embeddings` (else the first row of `deep_prompt_embeddings`).
    pub shallow_first: bool,
    /// Rows of `deep_prompt_embeddings`.
    pub deep_rows: usize,
    /// Whether blocks after `start` get new prompts from `deep_prompt_embeddings`.
    pub refresh: bool,
    /// Whether `prompt_norm` is applied after the last block.
    pub norm: bool,
}

impl PromptSchedule {
    /// Returns the schedule of a prompt depth in an encoder of `layers` blocks.
    pub fn new(depth: PromptDepth, layers: usize) -> Self {
        match depth {
            // The reference has a deep row that is never read in this mode; it is left out here.
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

    /// Returns the schedule with prompts from block `start` to the end, and a table of `rows` rows.
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

    /// Returns the row of the deep table that block `block` uses.
    fn deep_row(&self, block: usize) -> usize {
        block - self.start - usize::from(self.shallow_first)
    }
}

/// The change of the prompt positions before a block.
#[allow(clippy::large_enum_variant)] // a tensor handle, one per block
#[derive(Debug)]
pub enum PromptAction {
    /// No change: the prompt tokens stay as the last block left them, or are absent.
    Keep,
    /// New prompts `[batch, tokens, width]` are placed at the prompt positions, whether or not there are prompts yet.
    Set(Tensor<3>),
    /// The prompt positions are removed from the sequence.
    Remove,
}

/// The trained parameters of prompt tuning.
#[derive(Module, Debug)]
pub struct DeepPrompts {
    /// Prompts of the first block: `[1, tokens, width]`; absent if prompts enter only at a later block.
    pub prompt_embeddings: Option<Param<Tensor<3>>>,
    /// Prompts of the other blocks: `[rows, tokens, width]`
    pub deep_prompt_embeddings: Option<Param<Tensor<3>>>,
    /// The linear map that all prompts share.
    pub prompt_proj: Linear,
    /// Norm of all tokens after the last block.
    pub prompt_norm: LayerNorm,
    dropout: Dropout,
    #[module(skip)]
    schedule: PromptSchedule,
    /// The prompts after the shared map, computed once in a model that is not trained.
    #[module(skip)]
    projected: Option<ProjectedPrompts>,
}

impl DeepPrompts {
    /// Reads or initialises the prompts; `params` is the builder of the encoder.
    ///
    /// # Errors
    /// Returns the errors of [`ParamBuilder::param`].
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
            // Kaiming's normal initialisation with fan-out.
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

    /// Returns the schedule of the prompts.
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

    /// Returns the change before block `block` in a batch of `batch` images.
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
                // Dropout is applied after the expansion, so every image of a batch has its own dropout mask.
                PromptAction::Set(dropout(
                    &self.dropout,
                    prompts.expand([batch, tokens, width]),
                ))
            }
            None => PromptAction::Keep,
        }
    }
}

/// Prompts after the shared map, ready for the blocks.
#[derive(Debug, Clone)]
pub struct ProjectedPrompts {
    first: Option<Tensor<3>>,
    deep: Option<Tensor<3>>,
}
