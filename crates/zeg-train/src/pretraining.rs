//! Pre-trains MiniCLIP on images and captions of the mini world, which are generated during training.
//!
//! Single objects in small images come first, scenes last ([`CURRICULUM`]). Captions use all 32 class names, including
//! those of unseen classes, as CLIP's training data does; masks are not used.

use std::{collections::BTreeMap, path::Path, sync::mpsc::sync_channel, thread};

use crate::{
    TrainError,
    pretrain::{Pairs, PretrainConfig, PretrainReport, Pretrainer, save_towers},
};
use burn::tensor::{Device, Tensor, TensorData};
use zeg_data::mini_world::{Captioned, PretrainStage, World, WorldConfig, caption_words};
use zeg_model::{
    clip::{Clip, ClipConfig, NORMALIZATION},
    text::pad,
    vocabulary::{Vocabulary, WORDS_KEY},
    weights::ARCHITECTURE_KEY,
};
use zeg_vocab::{templates::TemplateSet, tokenizer::Tokenizer};

/// Stages of the pre-training, each with its share of the steps.
pub const CURRICULUM: [(PretrainStage, f64); 3] = [
    (PretrainStage::CURRICULUM[0], 0.40),
    (PretrainStage::CURRICULUM[1], 0.25),
    (PretrainStage::CURRICULUM[2], 0.35),
];
/// Number of the first held-out image for evaluation; no run trains on as many images.
const FIRST_HELD_OUT: u64 = 1 << 40;
/// Number of steps whose images are generated in advance.
const AHEAD: usize = 2;
/// Number of images that go through the model at once during evaluation.
const SCORED_AT_ONCE: u64 = 64;

/// A pre-training run with the mini world that it trains on.
pub struct Pretraining {
    config: PretrainConfig,
    world: World,
    tokenizer: Tokenizer,
    vocabulary: Vocabulary,
    clip: ClipConfig,
    device: Device,
}

impl Pretraining {
    /// Creates a run.
    ///
    /// - `device`: a device without autodiff
    ///
    /// # Errors
    /// Returns an error if the seed is out of range.
    pub fn new(config: PretrainConfig, device: &Device) -> Result<Self, TrainError> {
        let world = World::new(WorldConfig {
            seed: config.seed,
            ..WorldConfig::default()
        })?;
        let tokenizer = Tokenizer::new()?;
        let vocabulary = Vocabulary::of_words(caption_words(), &tokenizer);
        Ok(Self {
            clip: ClipConfig::mini(vocabulary.rows()),
            config,
            world,
            tokenizer,
            vocabulary,
            device: device.clone(),
        })
    }

    /// Returns the settings of the run.
    pub fn config(&self) -> &PretrainConfig {
        &self.config
    }

    /// Returns the stage of the curriculum that a step belongs to.
    pub fn stage(&self, step: u64) -> PretrainStage {
        let done = (step as f64 + 0.5) / self.config.steps.max(1) as f64;
        let mut end = 0.0;
        let started = CURRICULUM.iter().find(|(_, share)| {
            end += share;
            done < end
        });
        started.map_or(CURRICULUM[CURRICULUM.len() - 1].0, |(stage, _)| *stage)
    }

    /// Returns a trainer with random initial values.
    ///
    /// # Errors
    /// Returns an error if the sizes of the towers are inconsistent.
    pub fn start(&self) -> Result<Pretrainer, TrainError> {
        let device = self.device.clone().autodiff();
        let model = Clip::fresh(&self.clip, &device, self.config.seed)?;
        Ok(Pretrainer::new(model, self.config, device))
    }

    /// Trains from random initialisation; `after` is called after every step and can end the run early with an error.
    ///
    /// # Errors
    /// Returns an error if the loss is not finite or `after` fails.
    pub fn run<E: From<TrainError>>(
        &self,
        after: impl FnMut(&Pretrainer, &PretrainReport) -> Result<(), E>,
    ) -> Result<Pretrainer, E> {
        self.finish(self.start()?, after)
    }

    /// Trains to the end from the step of `trainer`; see [`Pretraining::run`].
    ///
    /// # Errors
    /// Returns an error if the loss is not finite or `after` fails.
    pub fn finish<E: From<TrainError>>(
        &self,
        mut trainer: Pretrainer,
        mut after: impl FnMut(&Pretrainer, &PretrainReport) -> Result<(), E>,
    ) -> Result<Pretrainer, E> {
        let first = trainer.step_number();
        thread::scope(|scope| {
            let (sender, receiver) = sync_channel(AHEAD);
            scope.spawn(move || {
                for step in first..self.config.steps {
                    // Sending fails if the run ended early.
                    if sender.send(self.pairs(step)).is_err() {
                        return;
                    }
                }
            });
            for pairs in receiver {
                let report = trainer.train_step(pairs?)?;
                after(&trainer, &report)?;
            }
            Ok(trainer)
        })
    }

    /// Returns the images and captions of a step.
    fn pairs(&self, step: u64) -> Result<Pairs, TrainError> {
        let (stage, batch) = (self.stage(step), self.config.batch as u64);
        let mut pairs = Pairs {
            images: Vec::with_capacity(self.config.batch * 3 * stage.size * stage.size),
            size: stage.size,
            captions: Vec::with_capacity(self.config.batch),
        };
        for index in step * batch..(step + 1) * batch {
            let Captioned { sample, caption } = self.world.pretrain(stage, index)?;
            pairs.images.extend(NORMALIZATION.to_chw(&sample.image));
            pairs.captions.push(self.read(&caption)?);
        }
        Ok(pairs)
    }

    fn read(&self, text: &str) -> Result<Vec<u32>, TrainError> {
        let context = self.clip.text.context_length;
        Ok(self.vocabulary.read(&self.tokenizer, text, context)?)
    }

    /// Returns the zero-shot accuracy: the share of held-out images of one object whose class name is the nearest of
    /// all 32.
    ///
    /// - `model`: the model for inference
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub fn zero_shot_accuracy(&self, model: &Clip, images: u64) -> Result<f64, TrainError> {
        let stage = CURRICULUM[1].0;
        let (names, template) = (self.world.names(), TemplateSet::single());
        let texts = names
            .iter()
            .flat_map(|name| template.render(&name.to_string()));
        let mut texts = texts
            .map(|text| self.read(&text))
            .collect::<Result<Vec<_>, _>>()?;
        pad(&mut texts);
        let class_embeddings = model.encode_texts(&texts).transpose(); // [dim, names]
        let mut right = 0;
        for first in (0..images).step_by(SCORED_AT_ONCE as usize) {
            let range = FIRST_HELD_OUT + first..FIRST_HELD_OUT + images.min(first + SCORED_AT_ONCE);
            let samples = self.world.pretrain_batch(stage, range)?;
            let pixels = samples
                .iter()
                .flat_map(|pair| NORMALIZATION.to_chw(&pair.sample.image));
            let shape = [samples.len(), 3, stage.size, stage.size];
            let batch =
                Tensor::<4>::from_data(TensorData::new(pixels.collect(), shape), &self.device);
            let best = model
                .encode_images(batch)
                .matmul(class_embeddings.clone())
                .argmax(1); // [batch, 1]
            let best: Vec<i64> = best
                .into_data()
                .convert::<i64>()
                .try_into_vec()
                .map_err(|error| TrainError::Backend(format!("{error:?}")))?;
            right += samples
                .iter()
                .zip(best)
                .filter(|(pair, best)| {
                    let found = names.get(*best as usize);
                    pair.sample.objects.first().map(|object| &object.name) == found
                })
                .count();
        }
        Ok(right as f64 / images.max(1) as f64)
    }

    /// Writes the towers as a weights file that every command can read.
    ///
    /// - `manifest`: the command that made them and its results, as JSON
    ///
    /// # Errors
    /// Returns an error if the file cannot be written.
    pub fn save(
        &self,
        path: &Path,
        trainer: &Pretrainer,
        manifest: &str,
    ) -> Result<(), TrainError> {
        let words = match &self.vocabulary {
            Vocabulary::Words { words, .. } => to_json(words)?,
            Vocabulary::Full => "[]".to_owned(),
        };
        let architecture = to_json(&self.clip.architecture())?;
        let metadata = BTreeMap::from([
            (ARCHITECTURE_KEY.to_owned(), architecture),
            (WORDS_KEY.to_owned(), words),
            (MANIFEST_KEY.to_owned(), manifest.to_owned()),
        ]);
        save_towers(path, trainer.model(), metadata)
    }
}

/// Returns a value as JSON.
fn to_json(value: &impl serde::Serialize) -> Result<String, TrainError> {
    serde_json::to_string(value).map_err(|error| TrainError::Config(error.to_string()))
}

/// Metadata key of the manifest in pre-trained weights: the command that made them and its results, as JSON.
pub const MANIFEST_KEY: &str = "zeg.pretraining";
