//! Opens a model: a checkpoint of `zeg train`, a released checkpoint, or plain CLIP weights.

mod base;
mod unread;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    mini::open_weights,
    released::{ReleasedTraining, training_of},
};
use burn::tensor::Device;
use zeg_base::fingerprint::Mismatch;
use zeg_data::DataConfig;
use zeg_model::{
    ModelError, Precision,
    checkpoint::{Checkpoint, StoredClass},
    embeddings::ClassEmbeddings,
    inference::Inference,
    method::{Architecture, Method, Model, StartingPoint},
    methods::Methods,
    recognize::Recognized,
    section::Section,
    weights::{
        self, Assumption, StateDict, StatedActivation, StatedHeads, WeightsError, published_name,
    },
};

pub use self::{
    base::{UnverifiedBase, check_base},
    unread::UnreadTensors,
};
use self::{
    base::{check_activation, check_side_files, find_base},
    unread::{check_tensors, unread_tensors},
};

/// A model that is ready for inference, with everything that is known about it.
#[derive(Debug)]
pub struct LoadedModel {
    /// The model, for inference.
    pub model: Box<dyn Model>,
    /// Architecture of the model.
    pub architecture: Arc<dyn Architecture>,
    /// The number format that the encoder computes with.
    pub precision: Precision,
    /// All weights: image tower, text tower if there is one, and the trained parameters.
    pub weights: StateDict,
    /// Default inference settings of the model.
    pub inference: Inference,
    /// Name of the method, as shown to a user.
    pub method: String,
    /// Kind of weights that the method starts from.
    pub starting_point: StartingPoint,
    /// The file that holds the text tower, if there is one.
    pub base: PathBuf,
    /// SHA-256 of the frozen weights of a checkpoint, of all their files.
    pub base_sha256: Option<String>,
    /// What could not be verified about the frozen weights, because an earlier version did not record it.
    pub unverified_base: Option<UnverifiedBase>,
    /// Tensors of a released checkpoint that the model does not read, if there are any.
    pub unread: Option<UnreadTensors>,
    /// Class embeddings that are stored with the model.
    pub stored: Option<ClassEmbeddings>,
    /// Classes of the experiment, each with whether it was seen; empty if they are not known.
    pub trained_on: Vec<StoredClass>,
    /// The checkpoint, if the model was trained by `zeg train`.
    pub checkpoint: Option<Checkpoint>,
    /// The data that the model was trained on, if it was trained by `zeg train`.
    pub data: Option<DataConfig>,
    /// How a released checkpoint was trained, if something says so; its `inference` has no seen offset then.
    pub released: Option<ReleasedTraining>,
}

/// A method for plain CLIP weights, with its options.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodChoice {
    /// Name of a method that starts from plain CLIP weights.
    pub name: String,
    /// The method's own options.
    pub options: Section,
}

/// Settings that a model is loaded with.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// The methods that are known.
    pub methods: Methods,
    /// File with the frozen weights of a checkpoint; `None`: the file that the checkpoint names.
    pub base: Option<PathBuf>,
    /// Method for plain CLIP weights; `None`: the default method for them.
    pub method: Option<MethodChoice>,
    /// Device that tensors live on.
    pub device: Device,
    /// The number format that the encoder computes with.
    pub precision: Precision,
    /// Activation of plain CLIP weights; `None`: that of the files. A trained model has that of its training, and another
    /// one is an error.
    pub activation: Option<StatedActivation>,
    /// Numbers of attention heads of plain CLIP weights, and of the text tower of a trained model; `None`: those of the
    /// files.
    pub heads: StatedHeads,
}

/// A problem with a model file.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The frozen weights are neither at the path that the checkpoint names nor beside the checkpoint.
    #[error("{}: the weights of its frozen encoder, {}, do not exist", checkpoint.display(), wanted.display())]
    BaseMissing {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Path of the file during training.
        wanted: PathBuf,
    },
    /// The file found does not hold the frozen weights that the checkpoint was trained on.
    #[error("{}: its SHA-256 is {found}, but {} was trained with {expected}", file.display(), checkpoint.display())]
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
    /// The files beside the frozen weights, such as `config.json`, state other values than in the training.
    #[error(
        "{}: a file beside these weights states other values than when {} was trained: {mismatch}",
        file.display(),
        checkpoint.display()
    )]
    OtherSideFiles {
        /// The weights.
        file: PathBuf,
        /// The checkpoint.
        checkpoint: PathBuf,
        /// The values that differ.
        mismatch: Mismatch,
    },
    /// The user stated another activation than the one that the model was trained with.
    #[error(
        "{}: the model was trained with the activation {trained}, not {stated}",
        checkpoint.display()
    )]
    OtherActivation {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Name of the activation in the checkpoint, such as `quick-gelu`.
        trained: &'static str,
        /// Name of the activation that was stated.
        stated: &'static str,
    },
    /// Weights of a frozen encoder were named for a model that does not use any.
    #[error(
        "{}: the model does not read its encoder from another file, so the weights {} would not be used",
        file.display(),
        weights.display()
    )]
    UnusedWeights {
        /// The model.
        file: PathBuf,
        /// The weights that were named.
        weights: PathBuf,
    },
    /// A training-free method was requested for a trained model.
    #[error("{} is a trained model; --method {method} works with plain CLIP weights", file.display())]
    NotPlain {
        /// The model.
        file: PathBuf,
        /// The method asked for.
        method: String,
    },
}

impl ModelOptions {
    /// Opens weights, with the activation and the heads of the options, and checks that nothing is left out of them that
    /// changes the results.
    fn open_weights(&self, path: &Path) -> Result<StateDict, WeightsError> {
        let mut weights = open_weights(path, &self.methods)?;
        if let Some(activation) = self.activation {
            weights.state_activation(activation);
        }
        weights.state_heads(self.heads);
        weights.check_unread()?;
        Ok(weights)
    }
}

impl LoadedModel {
    /// Lists what nothing states about the architecture of the model, with the values that are assumed.
    ///
    /// A checkpoint of `zeg train` states everything.
    ///
    /// # Errors
    /// Returns an error if a configuration file beside the weights cannot be read.
    pub fn assumptions(&self) -> Result<Vec<Assumption>, WeightsError> {
        if self.checkpoint.is_some() {
            return Ok(Vec::new());
        }
        let found = weights::Architecture::infer(&self.weights)?;
        let mut assumptions = found.assumptions();
        // The weights of a released two-stage model hold CLIP's image tower under a name of their own.
        if let (None, Some(tower)) = (&found.vision, self.architecture.encoder())
            && weights::Architecture::stated_heads(&self.weights)?
                .image
                .is_none()
        {
            assumptions.push(Assumption::ImageHeads {
                heads: tower.heads,
                published: published_name(tower.width, tower.layers, tower.heads, tower.patch),
            });
        }
        Ok(assumptions)
    }

    /// Returns the name of the prompt templates that the model was trained with, if something tells it.
    pub fn templates(&self) -> Option<&str> {
        let of_run = self.data.as_ref().map(|data| data.templates.as_str());
        of_run.or_else(|| self.architecture.templates())
    }

    /// Opens a model.
    ///
    /// # Errors
    /// Returns an error if a file cannot be read, is not the expected one, or holds an unknown architecture; see also
    /// [`LoadError`].
    pub fn open(path: &Path, options: &ModelOptions) -> anyhow::Result<Self> {
        let weights = options.open_weights(path)?;
        let recognized = if Checkpoint::is_checkpoint(&weights) {
            None
        } else {
            Some(Recognized::from_weights(&weights, &options.methods)?)
        };
        if let (Some(choice), None | Some(Recognized::Trained(_))) = (&options.method, &recognized)
        {
            return Err(LoadError::NotPlain {
                file: path.to_owned(),
                method: choice.name.clone(),
            }
            .into());
        }
        let has_own_encoder = match &recognized {
            None => false,
            Some(Recognized::Clip(_)) => true,
            Some(Recognized::Trained(architecture)) => architecture.encoder().is_some(),
        };
        if let (true, Some(unused)) = (has_own_encoder, &options.base) {
            return Err(LoadError::UnusedWeights {
                file: path.to_owned(),
                weights: unused.clone(),
            }
            .into());
        }
        match recognized {
            None => Self::from_checkpoint(path, options),
            Some(Recognized::Trained(architecture)) => {
                Self::released(path, weights, architecture, options)
            }
            Some(Recognized::Clip(tower)) => {
                let methods = &options.methods;
                let (method, section) = if let Some(choice) = &options.method {
                    (plain_method(methods, &choice.name)?, choice.options.clone())
                } else {
                    let usual = methods.default_for(StartingPoint::PlainClip)?;
                    (usual, Section::default())
                };
                let architecture = method.configure(&section, Some(&tower))?;
                Self::assemble(Parts {
                    method: format!("training-free ({})", method.name()),
                    starting_point: StartingPoint::PlainClip,
                    base: path.to_owned(),
                    inference: architecture.default_inference(),
                    weights,
                    architecture,
                    options,
                })
            }
        }
    }

    /// Returns the method, the SHA-256 of the weights and the configuration of a frozen encoder; `None` if training
    /// changed the encoder.
    ///
    /// Two models for which this is equal encode images alike.
    pub fn frozen_encoder(&self) -> Option<(&str, &str, &zeg_model::config::VisionConfig)> {
        let digest = self.base_sha256.as_deref()?;
        let encoder = self.architecture.encoder()?;
        self.architecture.has_frozen_encoder().then_some((
            self.architecture.method(),
            digest,
            encoder,
        ))
    }

    /// Opens a released checkpoint; CLIP's image tower comes from another file if the checkpoint has none.
    fn released(
        path: &Path,
        weights: StateDict,
        architecture: Arc<dyn Architecture>,
        options: &ModelOptions,
    ) -> anyhow::Result<Self> {
        let released = training_of(path, &weights);
        let unread = unread_tensors(path, &weights, &*architecture)?;
        let (mut weights, mut architecture, mut file) = (weights, architecture, path.to_owned());
        if let Some(base) = options
            .base
            .as_deref()
            .filter(|_| architecture.encoder().is_none())
        {
            let mut all = options.open_weights(base)?;
            let Recognized::Clip(tower) = Recognized::from_weights(&all, &options.methods)? else {
                anyhow::bail!("{}: not plain CLIP weights", base.display());
            };
            let Some(with_tower) = architecture.with_tower(&tower.encoder) else {
                return Err(LoadError::UnusedWeights {
                    file: path.to_owned(),
                    weights: base.to_owned(),
                }
                .into());
            };
            all.add(path)?;
            (weights, architecture, file) = (all, with_tower, base.to_owned());
        }
        let mut inference = architecture.default_inference();
        if released.is_some() {
            inference.seen_offset = 0.0;
        }
        let loaded = Self::assemble(Parts {
            method: format!("{} (released checkpoint)", architecture.title()),
            starting_point: StartingPoint::Masks,
            base: file,
            inference,
            weights,
            architecture,
            options,
        })?;
        Ok(Self {
            unread,
            released,
            ..loaded
        })
    }

    fn from_checkpoint(path: &Path, options: &ModelOptions) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::open(path, &options.methods)?;
        let architecture = checkpoint.architecture(&options.methods)?;
        check_activation(&checkpoint, options)?;
        check_tensors(&checkpoint, &*architecture)?;
        let base = find_base(&checkpoint, options.base.as_deref())?;
        let mut weights = options.open_weights(&base.path)?;
        // The configuration that the run read need not lie beside the weights any more, or it may be another.
        if let (Some(activation), None) = (checkpoint.info.activation, options.activation) {
            weights.state_activation(activation.into());
        }
        check_side_files(&checkpoint, &base.path, &weights, options)?;
        if let (Some(asked), Some(encoder)) = (options.heads.image, architecture.encoder()) {
            anyhow::ensure!(
                asked == encoder.heads,
                "{}: the image encoder was trained with {} attention heads, not {asked}",
                path.display(),
                encoder.heads
            );
        }
        let stated = weights::Architecture::stated_heads(&weights)?;
        let of_run = checkpoint.info.heads.unwrap_or_default();
        weights.state_heads(StatedHeads {
            image: architecture.encoder().map(|encoder| encoder.heads),
            text: stated.text.or(of_run.text),
        });
        weights.add(path)?;
        let loaded = Self::assemble(Parts {
            method: architecture.title().to_owned(),
            starting_point: StartingPoint::Masks,
            base: base.path,
            inference: checkpoint.inference()?,
            weights,
            architecture,
            options,
        })?;
        Ok(Self {
            base_sha256: Some(base.sha256),
            unverified_base: base.unverified,
            stored: Some(checkpoint.embeddings()?),
            trained_on: checkpoint.info.classes.clone(),
            data: Some(checkpoint.read_part("data")?),
            checkpoint: Some(checkpoint),
            ..loaded
        })
    }

    /// Builds the model from its parts.
    fn assemble(parts: Parts) -> anyhow::Result<Self> {
        let Parts {
            method,
            starting_point,
            base,
            inference,
            weights,
            architecture,
            options,
        } = parts;
        let mut model = architecture.build_packed(&weights, &options.device, options.precision)?;
        model.set_options(&inference.method)?;
        Ok(Self {
            model,
            architecture,
            precision: options.precision,
            weights,
            inference,
            method,
            starting_point,
            base,
            base_sha256: None,
            unverified_base: None,
            unread: None,
            stored: None,
            trained_on: Vec::new(),
            checkpoint: None,
            data: None,
            released: None,
        })
    }
}

/// Everything that a model is built from.
struct Parts<'a> {
    method: String,
    starting_point: StartingPoint,
    base: PathBuf,
    inference: Inference,
    weights: StateDict,
    architecture: Arc<dyn Architecture>,
    options: &'a ModelOptions,
}

/// Returns the method of this name among those that use plain CLIP weights.
///
/// # Errors
/// Returns an error if there is no such method; the error lists the known names.
fn plain_method(methods: &Methods, name: &str) -> Result<&'static dyn Method, ModelError> {
    let plain = || methods.starting_from(StartingPoint::PlainClip);
    let found = plain().find(|method| method.name().eq_ignore_ascii_case(name));
    found.ok_or_else(|| {
        let known: Vec<_> = plain().map(Method::name).collect();
        ModelError::Config(format!(
            "--method {name:?}: no method of this name uses plain CLIP weights; known: {}",
            known.join(", ")
        ))
    })
}
