//! Opens a model: a checkpoint of `zeg train`, a released checkpoint, or CLIP alone.

use std::path::{Path, PathBuf};

use crate::mini::{is_mini, open_weights, weights_sha256};
use burn::tensor::Device;
use zeg_model::{
    Precision,
    config::VisionConfig,
    dense::DenseModel,
    embeddings::ClassEmbeddings,
    inference::Inference,
    key_tables::METHODS,
    method::{Method, MethodConfig},
    recognize::Recognized,
    training_free::{DenseAttention, TrainingFree, TrainingFreeConfig},
    weights::StateDict,
    zegformer::{ZegFormer, ZegFormerConfig, fusion::Fusion},
};
use zeg_train::{
    checkpoint::{BaseWeights, Checkpoint, StoredClass},
    experiment::{Encoder, Experiment},
};

/// A model that is ready to look at pictures, and what is known about it.
#[derive(Debug)]
pub struct LoadedModel {
    /// The model, for inference.
    pub model: Box<dyn DenseModel>,
    /// What the encoder computes with.
    pub precision: Precision,
    /// All weights: image tower, text tower where there is one, what was trained.
    pub weights: StateDict,
    /// How pictures go through it unless somebody says otherwise.
    pub inference: Inference,
    /// Method in words, such as `"ZegCLIP"` or `"training-free (sclip)"`.
    pub method: String,
    /// The file that holds the text tower, if any does.
    pub base: PathBuf,
    /// Digest of the frozen weights that a checkpoint was trained on.
    pub base_sha256: Option<String>,
    /// Class embeddings that the model brings.
    pub stored: Option<ClassEmbeddings>,
    /// Classes of the experiment, with which of them were seen; empty where nothing is known.
    pub trained_on: Vec<StoredClass>,
    /// The experiment, of a checkpoint of `zeg train`.
    pub experiment: Option<Experiment>,
}

/// What is wrong with a model file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The frozen weights are not where they were, nor beside the checkpoint.
    #[error("{}: its frozen encoder was read from {}, which is not there", checkpoint.display(), wanted.display())]
    BaseMissing {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Where the file was.
        wanted: PathBuf,
    },
    /// The frozen weights are others.
    #[error("{}: SHA-256 {found}, but {} was trained on {expected}", file.display(), checkpoint.display())]
    OtherBase {
        /// The file found.
        file: PathBuf,
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Its digest.
        found: String,
        /// The digest in the checkpoint.
        expected: String,
    },
    /// A training-free method was asked of a model that was trained.
    #[error("{} is a trained model; --method {method} works with plain CLIP weights", file.display())]
    NotPlain {
        /// The model.
        file: PathBuf,
        /// The method asked for.
        method: &'static str,
    },
}

/// The method taken with plain CLIP weights when none is named: the best of the training-free ones on our
/// measurements (README).
pub const DEFAULT_METHOD: DenseAttention = DenseAttention::ClearClip;

/// The sentences of the released ZegFormers for crops, whatever those of their own head are.
const RELEASED_CROP_TEMPLATES: &str = "zegformer-32";

impl LoadedModel {
    /// Opens a model.
    ///
    /// - `base`: the frozen weights' file of a checkpoint, where it is not the one the checkpoint names
    /// - `method`: how plain CLIP weights are used; [`DEFAULT_METHOD`] unless said
    /// - `precision`: what the encoder computes with
    ///
    /// # Errors
    /// A file cannot be read, is another one, or holds another architecture; see also [`LoadError`].
    pub fn open(
        path: &Path,
        base: Option<&Path>,
        method: Option<TrainingFreeConfig>,
        device: &Device,
        precision: Precision,
    ) -> anyhow::Result<Self> {
        let weights = open_weights(path)?;
        let recognized = if Checkpoint::is_checkpoint(&weights) {
            None
        } else {
            Some(Recognized::from_weights(&weights)?)
        };
        if let (Some(config), None | Some(Recognized::Trained(_))) = (method, &recognized) {
            return Err(LoadError::NotPlain {
                file: path.to_owned(),
                method: config.attention.name(),
            }
            .into());
        }
        match recognized {
            None => Self::from_checkpoint(path, base, device, precision),
            Some(Recognized::Trained(MethodConfig::ZegFormer(first))) => {
                Self::released_zegformer(path, base, weights, first, (device, precision))
            }
            Some(Recognized::Trained(config)) => Ok(Self {
                model: Box::new(config.build_packed(&weights, device, precision)?),
                precision,
                weights,
                inference: Inference::default(),
                method: format!("{} (released checkpoint)", config.method().title()),
                base: path.to_owned(),
                base_sha256: None,
                stored: None,
                trained_on: Vec::new(),
                experiment: None,
            }),
            Some(Recognized::Clip {
                encoder,
                normalization,
            }) => {
                let config = method.unwrap_or_else(|| TrainingFreeConfig::new(DEFAULT_METHOD));
                let model = TrainingFree::build(
                    &weights,
                    &encoder,
                    config,
                    normalization,
                    device,
                    precision,
                )?;
                Ok(Self {
                    model: Box::new(model),
                    precision,
                    weights,
                    inference: default_inference(config, &encoder),
                    method: format!("training-free ({})", config.attention.name()),
                    base: path.to_owned(),
                    base_sha256: None,
                    stored: None,
                    trained_on: Vec::new(),
                    experiment: None,
                })
            }
        }
    }

    /// Which encoder looks at pictures, where training did not change it: the digest of its file, its architecture,
    /// the resolution of its position table, and whether it adds the class embedding twice.
    pub fn frozen_encoder(&self) -> Option<(&str, &Encoder, usize, bool)> {
        let model = &self.experiment.as_ref()?.model;
        if model.prompts.is_some() || model.tune_encoder || model.method != Method::ZegClip {
            return None;
        }
        let digest = self.base_sha256.as_deref()?;
        Some((
            digest,
            &model.encoder,
            model.input_resolution,
            model.double_class_embedding,
        ))
    }

    /// A released ZegFormer, with the CLIP that it brings, or that of `base`.
    fn released_zegformer(
        path: &Path,
        base: Option<&Path>,
        weights: StateDict,
        config: ZegFormerConfig,
        (device, precision): (&Device, Precision),
    ) -> anyhow::Result<Self> {
        let (weights, config, base) = match base {
            Some(base) if config.classifier.is_none() => {
                let mut all = StateDict::open(base, METHODS)?;
                let tower = match Recognized::from_weights(&all)? {
                    Recognized::Clip { encoder, .. } => encoder,
                    Recognized::Trained(_) => anyhow::bail!("{} is not CLIP alone", base.display()),
                };
                all.add(path)?;
                let classifier = Some(tower);
                (
                    all,
                    ZegFormerConfig {
                        classifier,
                        ..config
                    },
                    base,
                )
            }
            _ => (weights, config, path),
        };
        let alone = config.classifier.is_none();
        Ok(Self {
            model: Box::new(ZegFormer::build_packed(
                &weights, &config, device, precision,
            )?),
            precision,
            weights,
            inference: Inference {
                longest_side: 2048,
                fusion: if alone {
                    Fusion::QueryAlone
                } else {
                    Fusion::default()
                },
                ..Inference::default()
            },
            method: "ZegFormer (released checkpoint)".into(),
            base: base.to_owned(),
            base_sha256: None,
            stored: None,
            trained_on: Vec::new(),
            experiment: None,
        })
    }

    /// The sentences that class names are read in for CLIP's view of regions, where the model has two stages and they are
    /// others than its own.
    pub fn crop_templates(&self) -> Option<&str> {
        self.model.two_stage()?;
        match &self.experiment {
            Some(experiment) => experiment.data.crop_templates.as_deref(),
            None => Some(RELEASED_CROP_TEMPLATES),
        }
    }

    fn from_checkpoint(
        path: &Path,
        base: Option<&Path>,
        device: &Device,
        precision: Precision,
    ) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let stored = checkpoint.embeddings()?;
        let info = checkpoint.info;
        let config = info.experiment.model.architecture()?;
        let base = find_base(path, &info.base, base)?;
        let mut weights = open_weights(&base)?;
        weights.add(path)?;
        Ok(Self {
            model: Box::new(config.build_packed(&weights, device, precision)?),
            precision,
            weights,
            inference: info.experiment.inference,
            method: config.method().title().into(),
            base,
            base_sha256: Some(info.base.sha256),
            stored: Some(stored),
            trained_on: info.classes,
            experiment: Some(info.experiment),
        })
    }
}

/// How pictures go through plain CLIP weights: the methods' own sizes, or those of a model made for smaller pictures.
fn default_inference(config: TrainingFreeConfig, encoder: &VisionConfig) -> Inference {
    let usual = config.default_inference();
    let size = encoder.input_resolution;
    if size >= usual.crop {
        return usual;
    }
    Inference {
        short_side: size,
        crop: size,
        stride: size / 2,
        ..usual
    }
}

/// The frozen weights of a checkpoint: as given, where they were, or beside the checkpoint; always the same contents.
fn find_base(
    checkpoint: &Path,
    stored: &BaseWeights,
    given: Option<&Path>,
) -> anyhow::Result<PathBuf> {
    let folder = checkpoint.parent().unwrap_or(Path::new(""));
    let beside = stored.path.file_name().map(|name| folder.join(name));
    let candidates = match given {
        Some(given) => vec![given.to_owned()],
        None => [
            Some(stored.path.clone()),
            Some(folder.join(&stored.path)),
            beside,
        ]
        .into_iter()
        .flatten()
        .collect(),
    };
    let Some(file) = candidates
        .iter()
        .find(|path| path.is_file() || is_mini(path))
        .or(given.map(|_| &candidates[0]))
    else {
        return Err(LoadError::BaseMissing {
            checkpoint: checkpoint.to_owned(),
            wanted: stored.path.clone(),
        }
        .into());
    };
    let found = weights_sha256(file)?;
    if found != stored.sha256 {
        let (file, checkpoint, expected) =
            (file.clone(), checkpoint.to_owned(), stored.sha256.clone());
        return Err(LoadError::OtherBase {
            file,
            checkpoint,
            found,
            expected,
        }
        .into());
    }
    Ok(file.clone())
}
