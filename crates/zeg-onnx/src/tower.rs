//! CLIP's image tower: from an image to patches and an image embedding in the joint image-text space.

use zeg_model::{
    config::VisionConfig, layers::LAYER_NORM_EPSILON, prompts::PromptSchedule, resize,
};

use crate::{
    graph::Graph,
    layers::{Heads, Interpolation, Steps},
    params::Parameter,
    shapes::Size,
    value::{Dim, Kind, Value},
};

/// Epsilon of the norm that prompt tuning adds after the last block.
const PROMPT_NORM_EPSILON: f32 = 1e-6;

/// Rows and columns of patches.
#[derive(Debug, Clone)]
pub(crate) struct Grid {
    pub(crate) rows: Dim,
    pub(crate) columns: Dim,
    /// Maps that have this grid in the axes 2 and 3.
    pub(crate) maps: Value,
}

impl Grid {
    /// Returns both lengths, if the file fixes them.
    pub(crate) fn known(&self) -> Option<[usize; 2]> {
        Some([self.rows.known()?, self.columns.known()?])
    }

    /// Returns the lengths for an operator.
    pub(crate) fn sizes(&self) -> [Size<'_>; 2] {
        [Size::Of(&self.maps, 2), Size::Of(&self.maps, 3)]
    }

    /// Returns the lengths as far as they are known.
    pub(crate) fn shape(&self) -> [Dim; 2] {
        [self.rows.clone(), self.columns.clone()]
    }
}

/// The tokens of an image: `[batch, tokens, width]`, class token first.
#[derive(Debug, Clone)]
pub(crate) struct Tokens {
    pub(crate) sequence: Value,
    pub(crate) prompts: usize,
    pub(crate) grid: Grid,
    pub(crate) regions: usize,
}

impl Tokens {
    /// Returns the patches: `[batch, h·w, …]`
    pub(crate) fn patches(&self, g: &mut Graph, of: &Value) -> Value {
        let start = 1 + self.prompts as i64;
        if self.regions == 0 {
            return g.slice(of, 1, start, None);
        }
        let rest = g.slice(of, 1, start, None);
        let patches = Dim::product([&self.grid.rows, &self.grid.columns]);
        let end = g.integers(&[-(self.regions as i64)]);
        g.slice_to(&rest, 1, 0, &end, patches)
    }

    /// Returns the region tokens: `[batch, regions, …]`
    pub(crate) fn region_tokens(&self, g: &mut Graph, of: &Value) -> Value {
        let end = g.integers(&[i64::MAX]);
        g.slice_to(
            of,
            1,
            -(self.regions as i64),
            &end,
            Dim::Known(self.regions),
        )
    }
}

/// The tower of a model.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Tower<'a> {
    pub(crate) config: &'a VisionConfig,
    /// Prefix of its parameters, such as `backbone`
    pub(crate) prefix: &'a str,
}

impl<'a> Tower<'a> {
    /// Returns the tower of a model, under its usual name.
    pub(crate) fn new(config: &'a VisionConfig) -> Self {
        Self {
            config,
            prefix: "backbone",
        }
    }

    pub(crate) fn name(&self, part: &str) -> String {
        format!("{}.{part}", self.prefix)
    }

    fn block_name(&self, block: usize) -> String {
        self.name(&format!("transformer.resblocks.{block}"))
    }

    /// Embeds images `[batch, 3, height, width]` as tokens with positions, after `ln_pre`.
    pub(crate) fn embed(&self, g: &mut Graph, images: &Value, positions: Interpolation) -> Tokens {
        g.scope(format!("{}/embed", self.prefix), |g| {
            let patch = self.config.patch;
            let weight = g.param(&self.name("conv1.weight"));
            let steps = Steps {
                stride: patch,
                padding: 0,
                dilation: 1,
            };
            let maps = g.convolve(images, &weight, None, steps); // [batch, width, h, w]
            let grid = Grid {
                rows: maps.dim(2),
                columns: maps.dim(3),
                maps: maps.clone(),
            };
            let cells = g.reshape(&maps, &[0, 0, -1]);
            let patches = g.transpose(&cells, &[0, 2, 1]); // [batch, h·w, width]
            let table = self.positions(g, &grid, positions);
            let patches = g.add(&patches, &table);
            let class = self.class_token(g);
            let class = g.for_batch(&class, images);
            let regions = self.config.regions.unwrap_or(0);
            let tokens = if regions > 0 {
                let name = self.name("region_level_bridge");
                let bridge = g.param_as(&format!("{name}@batch"), as_batch);
                let bridge = g.for_batch(&bridge, images);
                g.concat(&[&class, &patches, &bridge], 1)
            } else {
                g.concat(&[&class, &patches], 1)
            };
            let tokens = g.layer_norm(&tokens, &self.name("ln_pre"), epsilon());
            Tokens {
                sequence: tokens,
                prompts: 0,
                grid,
                regions,
            }
        })
    }

    /// Returns the class token with its position: `[1, 1, width]`
    fn class_token(&self, g: &mut Graph) -> Value {
        let positions = g.values(&self.name("positional_embedding"));
        let twice = self.config.double_class_embedding;
        let width = self.config.width;
        g.param_as(&self.name("class_embedding@placed"), |class| Parameter {
            shape: vec![1, 1, width],
            values: class
                .values
                .iter()
                .zip(&positions.values)
                .map(|(class, position)| {
                    let sum = class + position;
                    if twice { sum + class } else { sum }
                })
                .collect(),
        })
    }

    /// Returns the positions of the patches: `[1, h·w, width]`
    fn positions(&self, g: &mut Graph, grid: &Grid, interpolation: Interpolation) -> Value {
        let (stored, width) = (self.config.grid(), self.config.width);
        let name = self.name("positional_embedding");
        let Some(grid) = grid.known() else {
            let maps = g.values(&name).rows(1, stored * stored).transposed();
            let table = g.constants(
                "positional_embedding",
                &maps.values,
                &[1, width, stored, stored],
                Kind::Float,
            );
            let [rows, columns] = grid.shape();
            let resized = g.resize_with(&table, grid.sizes(), [rows, columns], interpolation);
            let resized = g.cast(&resized, g.float());
            let cells = g.reshape(&resized, &[0, 0, -1]);
            return g.transpose(&cells, &[0, 2, 1]);
        };
        let label = format!("{name}@{}x{}", grid[0], grid[1]);
        g.param_as(&label, |table| {
            let table = table.rows(1, stored * stored);
            let values = if grid == [stored, stored] {
                table.values
            } else {
                resize_grid(&table, [stored; 2], grid, interpolation)
            };
            Parameter {
                shape: vec![1, grid[0] * grid[1], width],
                values,
            }
        })
    }

    /// Returns queries, keys and values of a block's attention for tokens after `ln_1`.
    pub(crate) fn project(&self, g: &mut Graph, block: usize, x: &Value) -> Heads {
        let name = format!("{}.attn", self.block_name(block));
        let bias = g.param(&format!("{name}.in_proj_bias"));
        let joint = format!("{name}.in_proj_weight");
        let product = if g.has(&joint) {
            g.weighted(x, &joint, |weight| weight)
        } else {
            let parts = ["q", "k", "v"].map(|part| g.values(&format!("{name}.{part}_proj_weight")));
            let first = format!("{name}.q_proj_weight@joint");
            g.weighted(x, &first, |_| Parameter {
                shape: vec![
                    3 * parts[0].shape[0],
                    parts[0].shape.get(1).copied().unwrap_or(0),
                ],
                values: parts.iter().flat_map(|part| part.values.clone()).collect(),
            })
        };
        let qkv = g.add(&product, &bias);
        let parts = g.split(&qkv, 2, 3);
        let mut heads = parts
            .iter()
            .map(|part| g.split_heads(part, self.config.heads));
        let (q, k, v) = (heads.next(), heads.next(), heads.next());
        let of = |part: Option<Value>| part.unwrap_or_else(|| qkv.clone());
        Heads {
            q: of(q),
            k: of(k),
            v: of(v),
        }
    }

    /// Applies `ln_1` of a block.
    pub(crate) fn first_norm(&self, g: &mut Graph, block: usize, x: &Value) -> Value {
        g.layer_norm(x, &format!("{}.ln_1", self.block_name(block)), epsilon())
    }

    /// Applies the output projection of a block's attention to tokens.
    pub(crate) fn output(&self, g: &mut Graph, block: usize, x: &Value) -> Value {
        g.linear(x, &format!("{}.attn.out_proj", self.block_name(block)))
    }

    /// Computes the second half of a block.
    pub(crate) fn feed_forward(&self, g: &mut Graph, block: usize, x: &Value) -> Value {
        let name = self.block_name(block);
        g.scope("mlp", |g| {
            let normed = g.layer_norm(x, &format!("{name}.ln_2"), epsilon());
            let hidden = g.linear(&normed, &format!("{name}.mlp.c_fc"));
            let hidden = g.activate(&hidden, self.config.activation);
            let forwarded = g.linear(&hidden, &format!("{name}.mlp.c_proj"));
            g.add(x, &forwarded)
        })
    }

    /// Applies a block: `[batch, tokens, width]` → the same shape
    pub(crate) fn block(
        &self,
        g: &mut Graph,
        block: usize,
        x: &Value,
        mask: Option<&Value>,
    ) -> Value {
        g.scope(format!("{}/resblocks.{block}", self.prefix), |g| {
            let attended = g.scope("attn", |g| {
                let normed = self.first_norm(g, block, x);
                let heads = self.project(g, block, &normed);
                let attended = g.attend(&heads, mask);
                self.output(g, block, &attended)
            });
            let x = g.add(x, &attended);
            self.feed_forward(g, block, &x)
        })
    }

    /// Computes the class token after a block: `[batch, tokens, width]` → `[batch, 1, width]`
    pub(crate) fn block_of_class(&self, g: &mut Graph, block: usize, x: &Value) -> Value {
        g.scope(format!("{}/resblocks.{block}/class", self.prefix), |g| {
            let attended = g.scope("attn", |g| {
                let normed = self.first_norm(g, block, x);
                let heads = self.project(g, block, &normed);
                let heads = Heads {
                    q: g.slice(&heads.q, 2, 0, Some(1)),
                    ..heads
                };
                let attended = g.attend(&heads, None);
                self.output(g, block, &attended)
            });
            let class = g.slice(x, 1, 0, Some(1));
            let x = g.add(&class, &attended);
            self.feed_forward(g, block, &x)
        })
    }

    /// Applies the blocks of a range, with their prompts and region tokens.
    ///
    /// - `replace`: returns the output of a block that it computes in another way
    /// - `keep`: is called with the index and output of every block
    pub(crate) fn blocks(
        &self,
        g: &mut Graph,
        tokens: Tokens,
        range: std::ops::Range<usize>,
        keep: &mut dyn FnMut(usize, &Tokens),
    ) -> Tokens {
        let mut tokens = tokens;
        let schedule = self.schedule();
        let mut mask: Option<(usize, Value)> = None;
        for block in range {
            if let Some(schedule) = &schedule {
                tokens = self.with_prompts(g, tokens, schedule, block);
            }
            if tokens.regions > 0
                && mask
                    .as_ref()
                    .is_none_or(|(count, _)| *count != tokens.prompts)
            {
                mask = Some((tokens.prompts, crate::regions::mask(g, &tokens)));
            }
            let applied = mask.as_ref().map(|(_, mask)| mask);
            tokens.sequence = self.block(g, block, &tokens.sequence, applied);
            keep(block, &tokens);
        }
        tokens
    }

    /// Returns the blocks at which prompts enter and leave.
    fn schedule(&self) -> Option<PromptSchedule> {
        let prompts = self.config.prompts.as_ref()?;
        Some(PromptSchedule::new(prompts.depth, self.config.layers))
    }

    /// Places the prompts of a block after the class token.
    fn with_prompts(
        &self,
        g: &mut Graph,
        tokens: Tokens,
        schedule: &PromptSchedule,
        block: usize,
    ) -> Tokens {
        let leaves = schedule.end == Some(block);
        let outside = block < schedule.start || schedule.end.is_some_and(|end| block > end);
        let is_first = block == schedule.start && schedule.shallow_first;
        if !leaves && (outside || !(is_first || schedule.refresh)) {
            return tokens;
        }
        g.scope(format!("{}/prompts.{block}", self.prefix), |g| {
            let class = g.slice(&tokens.sequence, 1, 0, Some(1));
            let rest = g.slice(&tokens.sequence, 1, 1 + tokens.prompts as i64, None);
            if leaves {
                let joined = g.concat(&[&class, &rest], 1);
                return Tokens {
                    sequence: joined,
                    prompts: 0,
                    ..tokens
                };
            }
            let row = block - schedule.start - usize::from(schedule.shallow_first && !is_first);
            let prompts = self.prompts(g, is_first, row);
            let count = prompts.dim(1).known().unwrap_or(0);
            let prompts = g.for_batch(&prompts, &tokens.sequence);
            Tokens {
                sequence: g.concat(&[&class, &prompts, &rest], 1),
                prompts: count,
                ..tokens
            }
        })
    }

    /// Returns the prompts of a block after their shared map: `[1, prompts, width]`
    fn prompts(&self, g: &mut Graph, is_first: bool, row: usize) -> Value {
        let weight = g.values(&self.name("prompt_proj.weight"));
        let bias = g.values(&self.name("prompt_proj.bias"));
        let (table, row) = if is_first {
            ("prompt_embeddings", 0)
        } else {
            ("deep_prompt_embeddings", row)
        };
        let label = self.name(&format!("{table}@{row}"));
        g.param_as(&label, |table| {
            let mapped = table.rows(row, 1).linear(&weight, &bias);
            Parameter {
                shape: vec![1, mapped.shape[0], mapped.shape[1]],
                values: mapped.values,
            }
        })
    }

    /// Applies the norms after the last block and projects into the joint space: `[batch, tokens, dim]`, of any length
    pub(crate) fn joint(&self, g: &mut Graph, tokens: &Tokens) -> Value {
        g.scope(format!("{}/project", self.prefix), |g| {
            let norms = self.schedule().is_some_and(|schedule| schedule.norm);
            let mut x = tokens.sequence.clone();
            if norms {
                let name = self.name("prompt_norm");
                x = if tokens.regions > 0 {
                    // The norm skips region tokens.
                    let regions = tokens.region_tokens(g, &x);
                    let end = g.integers(&[-(tokens.regions as i64)]);
                    let patches = Dim::product([&tokens.grid.rows, &tokens.grid.columns]);
                    let length = Dim::sum([&patches, &Dim::Known(1 + tokens.prompts)]);
                    let others = g.slice_to(&x, 1, 0, &end, length);
                    let normed = g.layer_norm(&others, &name, PROMPT_NORM_EPSILON);
                    g.concat(&[&normed, &regions], 1)
                } else {
                    g.layer_norm(&x, &name, PROMPT_NORM_EPSILON)
                };
            }
            self.project_tokens(g, &x)
        })
    }

    /// Applies `ln_post` and the projection into the joint space: `[batch, tokens, width]` → `[batch, tokens, dim]`
    pub(crate) fn project_tokens(&self, g: &mut Graph, x: &Value) -> Value {
        let normed = g.layer_norm(x, &self.name("ln_post"), epsilon());
        // The matrix is stored as `[width, dim]`.
        g.weighted(&normed, &self.name("proj"), |matrix| matrix.transposed())
    }
}

/// Returns the epsilon of CLIP's norms.
pub(crate) fn epsilon() -> f32 {
    LAYER_NORM_EPSILON as f32
}

/// Puts an axis of length 1 in front.
fn as_batch(parameter: Parameter) -> Parameter {
    let mut shape = vec![1];
    shape.extend(&parameter.shape);
    Parameter {
        shape,
        values: parameter.values,
    }
}

/// Resizes the rows of a grid, `[h·w, width]`, with the model's own arithmetic.
fn resize_grid(
    table: &Parameter,
    [h, w]: [usize; 2],
    to: [usize; 2],
    interpolation: Interpolation,
) -> Vec<f32> {
    use burn::tensor::{Device, Tensor, TensorData};

    let width = table.shape.get(1).copied().unwrap_or(0);
    let data = TensorData::new(table.transposed().values, [1, width, h, w]);
    let maps = Tensor::<4>::from_data(data, &Device::flex());
    let resized = match interpolation {
        Interpolation::Cubic => resize::bicubic(maps, to),
        Interpolation::Linear | Interpolation::Nearest => resize::bilinear(maps, to),
    };
    let cells = resized.reshape([width, to[0] * to[1]]).transpose();
    cells.into_data().try_into_vec().unwrap_or_default()
}
