//! Which file `--model` means: a path, or the name of weights that `zeg pull` fetched.

use std::path::{Path, PathBuf};

use zeg::{loading::LoadedModel, mini};
use zeg_hub::{Cache, Registry};

/// The file that `--model` names.
///
/// # Errors
/// It is neither a file nor a name of fetched weights.
pub(crate) fn resolve_model(model: &Path) -> anyhow::Result<PathBuf> {
    if model.exists() || mini::is_mini(model) {
        return Ok(model.to_owned());
    }
    let name = model.to_string_lossy();
    let Ok(registry) = Registry::load() else {
        return Ok(model.to_owned());
    };
    let Ok(entry) = registry.find(&name) else {
        // Not a name: opening it says what is wrong with the path.
        return Ok(model.to_owned());
    };
    Cache::open()?
        .locate(&entry.name)
        .ok_or_else(|| NotPulled(entry.name.clone()).into())
}

/// Says which settings of an older checkpoint have no effect any more.
pub(crate) fn warn_of_dropped(model: &LoadedModel) {
    let Some(checkpoint) = &model.checkpoint else {
        return;
    };
    for setting in &checkpoint.dropped {
        eprintln!(
            "warning: {}: `{setting}` has no effect any more; scores can differ from earlier ones",
            checkpoint.path().display()
        );
    }
}

/// Weights that are known but not here.
#[derive(Debug, thiserror::Error)]
#[error("the weights {0:?} are not on this machine")]
pub(crate) struct NotPulled(pub(crate) String);

/// Where encoded words are kept; `None` where there is no place for caches.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    Cache::open().ok().map(|cache| cache.base().to_owned())
}
