//! Opens a model: a checkpoint of `zeg train`, a released checkpoint, or CLIP alone.

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::mini::{is_mini, open_weights, weights_sha256};
use burn::tensor::Device;
use zeg_data::DataConfig;
use zeg_model::{
    ModelError, Precision,
    checkpoint::{BaseWeights, Checkpoint, StoredClass},
    embeddings::ClassEmbeddings,
    inference::Inference,
    method::{Architecture, Method, Model, StartingPoint},
    methods::Methods,
    recognize::Recognized,
    section::Section,
    weights::StateDict,
};

/// A model that is ready to look at images, and what is known about it.
#[derive(Debug)]
pub struct LoadedModel {
    /// The model, for inference.
    pub model: Box<dyn Model>,
    /// What the model is.
    pub architecture: Arc<dyn Architecture>,
    /// What the encoder computes with.
    pub precision: Precision,
    /// All weights: image tower, text tower where there is one, what was trained.
    pub weights: StateDict,
    /// How images go through it unless somebody says otherwise.
    pub inference: Inference,
    /// Name of the method in words.
    pub method: String,
    /// What the method starts from.
    pub starting_point: StartingPoint,
    /// The file that holds the text tower, if any does.
    pub base: PathBuf,
    /// Digest of the frozen weights that a checkpoint was trained on.
    pub base_sha256: Option<String>,
    /// Class embeddings that the model brings.
    pub stored: Option<ClassEmbeddings>,
    /// Classes of the experiment, with which of them were seen; empty where nothing is known.
    pub trained_on: Vec<StoredClass>,
    /// The checkpoint, of a model of `zeg train`.
    pub checkpoint: Option<Checkpoint>,
    /// The data that it was trained on, of a model of `zeg train`.
    pub data: Option<DataConfig>,
}

/// How plain CLIP weights are used.
#[derive(Debug, Clone, PartialEq)]
pub struct MethodChoice {
    /// Name of a method that starts from plain CLIP weights.
    pub name: String,
    /// The method's own options.
    pub options: Section,
}

/// What a model is loaded with.
#[derive(Debug, Clone)]
pub struct ModelOptions {
    /// The methods that are known.
    pub methods: Methods,
    /// The frozen weights' file of a checkpoint, where it is not the one the checkpoint names.
    pub base: Option<PathBuf>,
    /// How plain CLIP weights are used; the first of the list unless said.
    pub method: Option<MethodChoice>,
    /// Where tensors live.
    pub device: Device,
    /// What the encoder computes with.
    pub precision: Precision,
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
        method: String,
    },
}

impl LoadedModel {
    /// Opens a model.
    ///
    /// # Errors
    /// A file cannot be read, is another one, or holds another architecture; see also [`LoadError`].
    pub fn open(path: &Path, options: &ModelOptions) -> anyhow::Result<Self> {
        let weights = open_weights(path, &options.methods)?;
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

    /// Which encoder sees images, where training did not change it: two models with the same answer encode images alike.
    pub fn frozen_encoder(&self) -> Option<(&str, &str, &zeg_model::config::VisionConfig)> {
        let digest = self.base_sha256.as_deref()?;
        let encoder = self.architecture.encoder()?;
        self.architecture.has_frozen_encoder().then_some((
            self.architecture.method(),
            digest,
            encoder,
        ))
    }

    /// A released checkpoint, with CLIP's image tower from another file where it lacks one.
    fn released(
        path: &Path,
        weights: StateDict,
        architecture: Arc<dyn Architecture>,
        options: &ModelOptions,
    ) -> anyhow::Result<Self> {
        let (mut weights, mut architecture, mut file) = (weights, architecture, path.to_owned());
        if let Some(base) = options
            .base
            .as_deref()
            .filter(|_| architecture.encoder().is_none())
        {
            let mut all = StateDict::open(base, &options.methods.key_tables())?;
            let Recognized::Clip(tower) = Recognized::from_weights(&all, &options.methods)? else {
                anyhow::bail!("{} is not CLIP alone", base.display());
            };
            if let Some(with_tower) = architecture.with_tower(&tower.encoder) {
                all.add(path)?;
                (weights, architecture, file) = (all, with_tower, base.to_owned());
            }
        }
        Self::assemble(Parts {
            method: format!("{} (released checkpoint)", architecture.title()),
            starting_point: StartingPoint::Masks,
            base: file,
            inference: architecture.default_inference(),
            weights,
            architecture,
            options,
        })
    }

    fn from_checkpoint(path: &Path, options: &ModelOptions) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::open(path, &options.methods)?;
        let architecture = checkpoint.architecture(&options.methods)?;
        let base = find_base(path, &checkpoint.info.base, options.base.as_deref())?;
        let mut weights = open_weights(&base, &options.methods)?;
        weights.add(path)?;
        let loaded = Self::assemble(Parts {
            method: architecture.title().to_owned(),
            starting_point: StartingPoint::Masks,
            base,
            inference: checkpoint.inference()?,
            weights,
            architecture,
            options,
        })?;
        Ok(Self {
            base_sha256: Some(checkpoint.info.base.sha256.clone()),
            stored: Some(checkpoint.embeddings()?),
            trained_on: checkpoint.info.classes.clone(),
            data: Some(checkpoint.read_part("data")?),
            checkpoint: Some(checkpoint),
            ..loaded
        })
    }

    /// Builds the model of what was found.
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
            stored: None,
            trained_on: Vec::new(),
            checkpoint: None,
            data: None,
        })
    }
}

/// What a model is built of.
struct Parts<'a> {
    method: String,
    starting_point: StartingPoint,
    base: PathBuf,
    inference: Inference,
    weights: StateDict,
    architecture: Arc<dyn Architecture>,
    options: &'a ModelOptions,
}

/// A method that uses plain CLIP weights, by its name.
///
/// # Errors
/// There is none of this name; the error lists those that there are.
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
