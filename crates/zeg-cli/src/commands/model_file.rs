//! Resolves the value of `--model`: a path, or the name of weights that `zeg pull` downloaded.

use std::path::{Path, PathBuf};

use zeg::{loading::LoadedModel, mini, model::method::Scoring, text_sources::TextNotice};
use zeg_hub::{Cache, Registry};

/// Returns the file that a value of `--model` stands for.
///
/// A value that is neither a file nor a known name is returned as it is, so that opening it gives the error.
///
/// # Errors
/// Returns an error if the value is the name of weights that are not downloaded.
pub(crate) fn resolve_model(model: &Path) -> anyhow::Result<PathBuf> {
    if model.exists() || mini::is_mini(model) {
        return Ok(model.to_owned());
    }
    let name = model.to_string_lossy();
    let Ok(registry) = Registry::load() else {
        return Ok(model.to_owned());
    };
    let Ok(entry) = registry.find(&name) else {
        // Opening a path that does not exist gives the better error.
        return Ok(model.to_owned());
    };
    Cache::open()?
        .locate(&entry.name)
        .ok_or_else(|| NotPulled(entry.name.clone()).into())
}

/// Warns of what was assumed about a model's files, and of the settings of an older checkpoint that have no effect any
/// more.
pub(crate) fn warn_of_assumptions(model: &LoadedModel) {
    for notice in model.weights.notices() {
        print_notice!("warning: {notice}");
    }
    if let Some(unverified) = &model.unverified_base {
        print_notice!("warning: {unverified}");
    }
    let Some(checkpoint) = &model.checkpoint else {
        return;
    };
    for setting in &checkpoint.dropped {
        print_notice!(
            "warning: {}: the setting `{setting}` has no effect any more; scores can differ from those of earlier versions",
            checkpoint.path().display()
        );
    }
}

/// Warns if nothing states the activation of the CLIP weights of a model.
///
/// # Errors
/// Returns an error if a configuration file beside the weights cannot be read.
pub(crate) fn warn_of_activation(model: &LoadedModel) -> anyhow::Result<()> {
    if model.assumes_activation()? {
        warn_of_assumed_activation(&model.base);
    }
    Ok(())
}

/// Warns that QuickGELU is assumed.
pub(crate) fn warn_of_assumed_activation(weights: &Path) {
    print_notice!(
        "warning: {}: no file states the activation, so QuickGELU is assumed, as in OpenAI's models; \
         --activation gelu overrides it",
        weights.display()
    );
}

/// Warns of assumptions about class embeddings.
pub(crate) fn warn_of_text(notices: &[TextNotice]) {
    for notice in notices {
        let override_with = match notice {
            TextNotice::RowOrder { .. } => "; --text-classes states the classes of the rows",
            TextNotice::TemplatesUnused { .. } => {
                "; leave out --text to encode the class names with these templates"
            }
            TextNotice::MissingSynonyms { .. } => "",
        };
        print_notice!("warning: {notice}{override_with}");
    }
}

/// Warns of a single class, which a softmax over classes gives to every pixel.
///
/// - `advice`: what to do about it
pub(crate) fn warn_of_single_class(classes: usize, scoring: Scoring, advice: &str) {
    if classes == 1 && scoring == Scoring::Softmax {
        print_notice!(
            "warning: there is only one class, so the softmax over classes gives it every pixel with confidence 1; \
             {advice}"
        );
    }
}

/// The error for weights that have a name but are not downloaded.
#[derive(Debug, thiserror::Error)]
#[error("the weights {0:?} are not downloaded")]
pub(crate) struct NotPulled(pub(crate) String);

/// Returns the folder for cached class embeddings, or `None` if the system has no folder for caches.
pub(crate) fn cache_folder() -> Option<PathBuf> {
    Cache::open().ok().map(|cache| cache.base().to_owned())
}
