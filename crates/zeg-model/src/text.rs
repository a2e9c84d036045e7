//! CLIP's text tower: encodes token ids as class embeddings.

use burn::{
    module::{Module, Param},
    tensor::{Device, Int, Tensor, TensorData},
};
use zeg_vocab::{templates::TemplateSet, tokenizer::Tokenizer};

use crate::{
    ModelError,
    config::{Activation, TextConfig},
    layers::{LAYER_NORM_EPSILON, LayerNorm, Start, l2_normalize},
    trace::Trace,
    transformer::Transformer,
    vocabulary::Vocabulary,
    weights::{Init, ParamBuilder, StateDict},
};

/// Upper limit on the residual blocks of a text tower.
const MOST_LAYERS: usize = 1024;

/// Name, in a model's weights, of the learned vectors in front of class names: `[vectors, width]`.
pub const CONTEXT_KEY: &str = "prompt_learner.prefix_prompt";
/// The word after a class name behind learned vectors.
const FULL_STOP: &str = ".";

/// CLIP's text tower.
#[derive(Module, Debug)]
pub struct TextTower {
    /// `[vocabulary, width]`
    pub token_embedding: TokenEmbedding,
    /// `[context, width]`
    pub positional_embedding: Param<Tensor<2>>,
    /// Causal residual blocks.
    pub transformer: Transformer,
    /// Norm after the last block.
    pub ln_final: LayerNorm,
    /// Projection into the joint space, applied as `x @ text_projection`: `[width, dim]`
    pub text_projection: Param<Tensor<2>>,
    #[module(skip)]
    config: TextConfig,
}

/// The token table, under CLIP's name for it.
#[derive(Module, Debug)]
pub struct TokenEmbedding {
    /// `[vocabulary, width]`
    pub weight: Param<Tensor<2>>,
}

impl TextConfig {
    /// Returns the architecture of the text tower in a state dict; `None` if there is none.
    pub fn from_weights(weights: &StateDict, prefix: &str) -> Option<Self> {
        let shape = |name: &str| weights.shape(&format!("{prefix}{name}"));
        let [vocabulary, width] = shape("token_embedding.weight")?[..] else {
            return None;
        };
        let [context_length, _] = shape("positional_embedding")?[..] else {
            return None;
        };
        let [_, embed_dim] = shape("text_projection")?[..] else {
            return None;
        };
        let layers = (0..MOST_LAYERS)
            .take_while(|i| {
                weights.contains(&format!("{prefix}transformer.resblocks.{i}.ln_1.weight"))
            })
            .count();
        Some(Self {
            width,
            layers,
            heads: (width / 64).max(1),
            embed_dim,
            context_length,
            vocabulary,
            activation: Activation::default(),
        })
    }
}

impl TextTower {
    /// Reads a text tower.
    ///
    /// # Errors
    /// Returns an error if a tensor is missing or has the wrong shape.
    pub fn build(params: &ParamBuilder, config: &TextConfig) -> Result<Self, ModelError> {
        let TextConfig {
            width,
            layers,
            heads,
            embed_dim,
            context_length,
            vocabulary,
            activation,
        } = *config;
        let table =
            params
                .at("token_embedding")
                .param("weight", [vocabulary, width], Init::Required)?;
        Ok(Self {
            token_embedding: TokenEmbedding { weight: table },
            positional_embedding: params.param(
                "positional_embedding",
                [context_length, width],
                Init::Required,
            )?,
            transformer: Transformer::build(
                &params.at("transformer"),
                layers,
                width,
                heads,
                activation,
            )?,
            ln_final: LayerNorm::build(
                &params.at("ln_final"),
                width,
                LAYER_NORM_EPSILON,
                Start::FromWeights,
            )?,
            text_projection: params.param("text_projection", [width, embed_dim], Init::Required)?,
            config: config.clone(),
        })
    }

    /// Encodes token ids; a text's embedding is read at its highest id, which is the end token.
    ///
    /// - `ids`: `[texts]` rows of at most `context_length` ids, all of the same length
    ///
    /// Returns `[texts, dim]`, not normalised.
    pub fn forward(&self, ids: &[Vec<u32>], trace: &mut Trace) -> Tensor<2> {
        let device = self.token_embedding.weight.val().device();
        let (texts, length) = (ids.len(), ids.first().map_or(0, Vec::len));
        let mut tokens = self.embed(ids, &device);
        trace.record("embedded", &tokens);
        let mask = causal_mask(length, &device);
        for (index, block) in self.transformer.resblocks.iter().enumerate() {
            tokens = block.forward(tokens, Some(&mask));
            trace.record(format_args!("block{index}"), &tokens);
        }
        let tokens = self.ln_final.forward(tokens);
        trace.record("ln_final", &tokens);
        let width = self.config.width;
        tokens
            .reshape([texts * length, width])
            .select(0, end_positions(ids, &device))
            .matmul(self.text_projection.val())
    }

    /// Encodes token ids as [`TextTower::forward`] does, but computes the last block only at the end tokens; for
    /// training.
    pub fn forward_ends(&self, ids: &[Vec<u32>]) -> Tensor<2> {
        let device = self.token_embedding.weight.val().device();
        let (texts, length) = (ids.len(), ids.first().map_or(0, Vec::len));
        let width = self.config.width;
        let ends = end_positions(ids, &device);
        let pick = |tokens: Tensor<3>| {
            tokens
                .reshape([texts * length, width])
                .select(0, ends.clone())
                .reshape([texts, 1, width])
        };
        let mut tokens = self.embed(ids, &device);
        let mask = causal_mask(length, &device);
        let end = match &self.transformer.resblocks[..] {
            [blocks @ .., last] => {
                for block in blocks {
                    tokens = block.forward(tokens, Some(&mask));
                }
                last.forward_one(tokens, Some(&mask), pick)
            }
            [] => pick(tokens),
        }; // [texts, 1, width]
        let end = self.ln_final.forward(end).reshape([texts, width]);
        end.matmul(self.text_projection.val())
    }

    /// Encodes token ids with vectors in place of words after the start token, `[texts, dim]`, not normalised; gradients
    /// flow to the vectors.
    ///
    /// - `ids`: `[texts]` rows of the same length, whose sum with the vectors is at most `context_length`
    /// - `context`: the vectors, `[vectors, width]`
    ///
    /// The last block is computed only at the end tokens.
    pub fn forward_behind(
        &self,
        ids: &[Vec<u32>],
        context: Tensor<2>,
        trace: &mut Trace,
    ) -> Tensor<2> {
        let device = self.token_embedding.weight.val().device();
        let [vectors, width] = context.dims();
        let (texts, words) = (ids.len(), ids.first().map_or(0, Vec::len));
        let length = words + vectors;
        let table = self.look_up(ids, &device); // [texts, words, width]
        let context = context.unsqueeze::<3>().expand([texts, vectors, width]);
        let start = table.clone().narrow(1, 0, 1);
        let tokens = Tensor::cat(vec![start, context, table.narrow(1, 1, words - 1)], 1);
        trace.record("embedded_behind", &tokens);
        let mut tokens = tokens + self.positions(length); // [texts, length, width]
        let mask = causal_mask(length, &device);
        let ends = ids.iter().enumerate();
        let ends: Vec<i32> = ends
            .map(|(row, ids)| (row * length + vectors + end_position(ids)) as i32)
            .collect();
        let ends = Tensor::<1, Int>::from_data(TensorData::new(ends, [texts]), &device);
        let pick = |tokens: Tensor<3>| {
            tokens
                .reshape([texts * length, width])
                .select(0, ends.clone())
                .reshape([texts, 1, width])
        };
        let end = match &self.transformer.resblocks[..] {
            [blocks @ .., last] => {
                for block in blocks {
                    tokens = block.forward(tokens, Some(&mask));
                }
                last.forward_one(tokens, Some(&mask), pick)
            }
            [] => pick(tokens),
        }; // [texts, 1, width]
        let end = self.ln_final.forward(end).reshape([texts, width]);
        end.matmul(self.text_projection.val())
    }

    /// Returns the token ids of class names with a full stop, for [`TextTower::forward_behind`]: `[classes]` rows of the
    /// same length.
    ///
    /// - `vectors`: number of vectors in front of a name
    ///
    /// # Errors
    /// Returns an error if a name is too long with the vectors, or has a word that the vocabulary lacks.
    pub fn ids_behind(
        &self,
        (tokenizer, vocabulary): (&Tokenizer, &Vocabulary),
        names: &[impl AsRef<str>],
        vectors: usize,
    ) -> Result<Vec<Vec<u32>>, ModelError> {
        let room = self.config.context_length.saturating_sub(vectors);
        let stop = vocabulary.read(tokenizer, FULL_STOP, room)?; // start, full stop, end
        let ids = names.iter().map(|name| {
            let room = room.saturating_sub(stop.len().saturating_sub(2));
            let mut ids = vocabulary.read(tokenizer, name.as_ref().trim(), room)?;
            ids.pop(); // the end token follows the full stop
            ids.extend(stop.iter().skip(1));
            Ok(ids)
        });
        let mut ids = ids.collect::<Result<Vec<_>, ModelError>>()?;
        pad(&mut ids);
        Ok(ids)
    }

    /// Returns class embeddings with learned vectors in front of the names, `[classes, dim]`, unit rows; the embedding of
    /// a class with synonyms is the direction of their mean.
    ///
    /// - `context`: the vectors, `[vectors, width]`
    ///
    /// # Errors
    /// Returns the errors of [`TextTower::ids_behind`], and an error if the vectors have another width than the tower.
    pub fn embed_classes_behind(
        &self,
        words: (&Tokenizer, &Vocabulary),
        context: &Tensor<2>,
        classes: &[Vec<String>],
    ) -> Result<Tensor<2>, ModelError> {
        let [vectors, width] = context.dims();
        if width != self.config.width || vectors == 0 {
            return Err(ModelError::Config(format!(
                "{CONTEXT_KEY:?} holds {vectors} vectors of {width} channels, but the text tower has {}",
                self.config.width
            )));
        }
        let mut rows = Vec::with_capacity(classes.len());
        for names in classes {
            let ids = self.ids_behind(words, names, vectors)?;
            let features = self.forward_behind(&ids, context.clone(), &mut Trace::off());
            rows.push(mean_direction(features));
        }
        Ok(Tensor::cat(rows, 0))
    }

    /// Returns the tokens with their positions: `[texts, length, width]`.
    fn embed(&self, ids: &[Vec<u32>], device: &Device) -> Tensor<3> {
        let length = ids.first().map_or(0, Vec::len);
        self.look_up(ids, device) + self.positions(length)
    }

    /// Returns the first rows of the position table: `[1, length, width]`.
    fn positions(&self, length: usize) -> Tensor<3> {
        self.positional_embedding
            .val()
            .narrow(0, 0, length)
            .unsqueeze::<3>()
    }

    /// Returns the tokens without positions: `[texts, length, width]`.
    fn look_up(&self, ids: &[Vec<u32>], device: &Device) -> Tensor<3> {
        let (texts, length) = (ids.len(), ids.first().map_or(0, Vec::len));
        let flat: Vec<i32> = ids.iter().flatten().map(|&id| id.cast_signed()).collect();
        let indices = Tensor::<2, Int>::from_data(TensorData::new(flat, [texts, length]), device);
        burn::tensor::module::embedding(self.token_embedding.weight.val(), indices)
    }

    /// Returns class embeddings `[classes, dim]`, unit rows: each name is encoded and normalised in every prompt
    /// template, and the mean over templates (and synonyms) is normalised again.
    ///
    /// # Errors
    /// Returns an error if a text is longer than the encoder's context; the error names the text.
    pub fn embed_classes(
        &self,
        tokenizer: &Tokenizer,
        templates: &TemplateSet,
        classes: &[Vec<String>],
    ) -> Result<Tensor<2>, ModelError> {
        self.embed_classes_of((tokenizer, &Vocabulary::Full), templates, classes)
    }

    /// Returns class embeddings as [`TextTower::embed_classes`] does, for a tower with a restricted vocabulary.
    ///
    /// # Errors
    /// Returns an error if a text is longer than the encoder's context, or has a word that the vocabulary lacks; the
    /// error names it.
    pub fn embed_classes_of(
        &self,
        (tokenizer, vocabulary): (&Tokenizer, &Vocabulary),
        templates: &TemplateSet,
        classes: &[Vec<String>],
    ) -> Result<Tensor<2>, ModelError> {
        let mut rows = Vec::with_capacity(classes.len());
        for names in classes {
            let mut ids = names
                .iter()
                .flat_map(|name| templates.render(name))
                .map(|text| vocabulary.read(tokenizer, &text, self.config.context_length))
                .collect::<Result<Vec<_>, _>>()?;
            pad(&mut ids);
            rows.push(mean_direction(self.forward(&ids, &mut Trace::off())));
        }
        Ok(Tensor::cat(rows, 0))
    }
}

impl TextTower {
    /// Returns the configuration of the tower.
    pub fn config(&self) -> &TextConfig {
        &self.config
    }

    /// Returns class embeddings as [`TextTower::embed_classes`] does, for texts that are already tokens, with gradients
    /// if the tower is trained: `[classes, dim]`.
    pub fn embed_texts(&self, texts: &ClassTexts) -> Tensor<2> {
        let each = l2_normalize(self.forward_ends(&texts.ids)); // [texts, dim]
        if texts.counts.iter().all(|&count| count == 1) {
            return each;
        }
        let mut start = 0;
        let rows = texts.counts.iter().map(|&count| {
            let own = each.clone().narrow(0, start, count);
            start += count;
            l2_normalize(own.mean_dim(0)) // [1, dim]
        });
        Tensor::cat(rows.collect(), 0)
    }
}

/// The texts of classes as tokens: every name in every prompt template.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClassTexts {
    /// Rows of the token table, all of the same length: `[texts]`, the texts of a class one after the other.
    ids: Vec<Vec<u32>>,
    /// Number of texts of each class: `[classes]`
    counts: Vec<usize>,
}

impl ClassTexts {
    /// Reads the texts of classes, each a list of names.
    ///
    /// - `context_length`: most tokens of a text
    ///
    /// # Errors
    /// Returns an error if a text is too long, or has a word that the vocabulary lacks; the error names it.
    pub fn new(
        (tokenizer, vocabulary): (&Tokenizer, &Vocabulary),
        context_length: usize,
        templates: &TemplateSet,
        classes: &[Vec<String>],
    ) -> Result<Self, ModelError> {
        let (mut ids, mut counts) = (Vec::new(), Vec::with_capacity(classes.len()));
        for names in classes {
            let before = ids.len();
            for text in names.iter().flat_map(|name| templates.render(name)) {
                ids.push(vocabulary.read(tokenizer, &text, context_length)?);
            }
            counts.push(ids.len() - before);
        }
        pad(&mut ids);
        Ok(Self { ids, counts })
    }

    /// Returns texts that are given as rows of the token table, one for each class.
    pub fn of_rows(mut ids: Vec<Vec<u32>>) -> Self {
        pad(&mut ids);
        let counts = vec![1; ids.len()];
        Self { ids, counts }
    }

    /// Returns the texts of some classes, in the given order.
    #[must_use]
    pub fn select(&self, classes: &[usize]) -> Self {
        let first = |class: usize| self.counts[..class].iter().sum::<usize>();
        let ids = classes
            .iter()
            .flat_map(|&class| self.ids[first(class)..][..self.counts[class]].to_vec());
        Self {
            ids: ids.collect(),
            counts: classes.iter().map(|&class| self.counts[class]).collect(),
        }
    }

    /// Returns the number of classes.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Returns whether there are no classes.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

/// Averages the embeddings of several texts of one class: `[texts, dim]` → `[1, dim]`, unit length.
pub fn mean_direction(features: Tensor<2>) -> Tensor<2> {
    l2_normalize(l2_normalize(features).mean_dim(0))
}

/// Pads texts to equal length. Attention is causal, so tokens after an end token do not affect the result.
pub fn pad(texts: &mut [Vec<u32>]) {
    let longest = texts.iter().map(Vec::len).max().unwrap_or(0);
    for text in texts {
        text.resize(longest, 0);
    }
}

/// Returns the positions of the end tokens in the flattened sequence of all tokens: `[texts]`.
fn end_positions(texts: &[Vec<u32>], device: &Device) -> Tensor<1, Int> {
    let positions = texts
        .iter()
        .enumerate()
        .map(|(row, ids)| (row * ids.len() + end_position(ids)) as i32);
    let positions: Vec<i32> = positions.collect();
    let count = positions.len();
    Tensor::from_data(TensorData::new(positions, [count]), device)
}

/// Returns the position of the highest id; of equal ids the first, as in the reference.
fn end_position(ids: &[u32]) -> usize {
    let highest = ids.iter().max();
    ids.iter().position(|id| Some(id) == highest).unwrap_or(0)
}

/// Returns the additive causal mask, `[length, length]`: −∞ strictly above the diagonal.
fn causal_mask(length: usize, device: &Device) -> Tensor<2> {
    let values: Vec<f32> = (0..length * length)
        .map(|i| {
            if i % length > i / length {
                f32::NEG_INFINITY
            } else {
                0.0
            }
        })
        .collect();
    Tensor::from_data(TensorData::new(values, [length, length]), device)
}
