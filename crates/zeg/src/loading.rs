//! Opens a trained model: its checkpoint, and the frozen weights it was trained on.

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use zeg_model::{
    weights::{StateDict, file_sha256},
    zegclip::ZegClip,
};
use zeg_train::checkpoint::{BaseWeights, Checkpoint};

/// A model as a checkpoint left it.
#[derive(Debug)]
pub struct LoadedModel {
    /// The model, for inference.
    pub model: ZegClip,
    /// Its checkpoint.
    pub checkpoint: Checkpoint,
    /// Frozen weights and checkpoint together.
    pub weights: StateDict,
}

/// What is wrong with the frozen weights of a checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum BaseError {
    /// The file is not where it was, nor beside the checkpoint.
    #[error("{}: its frozen encoder was read from {}, which is not there", checkpoint.display(), wanted.display())]
    Missing {
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Where the file was.
        wanted: PathBuf,
    },
    /// The file is another one.
    #[error("{}: SHA-256 {found}, but {} was trained on {expected}", file.display(), checkpoint.display())]
    Other {
        /// The file found.
        file: PathBuf,
        /// The checkpoint.
        checkpoint: PathBuf,
        /// Its digest.
        found: String,
        /// The digest in the checkpoint.
        expected: String,
    },
}

impl LoadedModel {
    /// Opens a checkpoint.
    ///
    /// - `base`: the frozen weights' file, where it is not the one the checkpoint names
    ///
    /// # Errors
    /// A file cannot be read, is another one, or holds another architecture.
    pub fn open(path: &Path, base: Option<&Path>, device: &Device) -> anyhow::Result<Self> {
        let checkpoint = Checkpoint::open(path)?;
        let config = checkpoint.info.experiment.model.architecture()?;
        let base = find_base(path, &checkpoint.info.base, base)?;
        let mut weights = StateDict::open(&base)?;
        weights.add(path)?;
        let (model, _) = ZegClip::build(&weights, &config, device, 0)?;
        Ok(Self {
            model,
            checkpoint,
            weights,
        })
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
        .find(|path| path.is_file())
        .or(given.map(|_| &candidates[0]))
    else {
        return Err(BaseError::Missing {
            checkpoint: checkpoint.to_owned(),
            wanted: stored.path.clone(),
        }
        .into());
    };
    let found = file_sha256(file)?;
    if found != stored.sha256 {
        let (file, checkpoint, expected) =
            (file.clone(), checkpoint.to_owned(), stored.sha256.clone());
        return Err(BaseError::Other {
            file,
            checkpoint,
            found,
            expected,
        }
        .into());
    }
    Ok(file.clone())
}
