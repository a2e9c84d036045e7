//! Resolves the value of `--model` and of other arguments that name weights: a path, or the name of weights that
//! `zeg pull` downloaded.

use std::path::{Path, PathBuf};

use zeg::{
    LoadOptions, Segmenter,
    loading::LoadedModel,
    mini,
    model::{
        method::Scoring,
        weights::{Assumption, StateDict},
    },
    notices::of_single_class,
    text_sources::TextNotice,
    vocab::templates::TemplateSet,
};
use zeg_hub::{Cache, HubError, Registry};

use super::shared::{CacheUse, ComputeSettings, ModelSettings};
use crate::Program;

/// Returns the file that a value of `--model`, or of another argument that names weights, stands for.
///
/// A value that is neither a file nor similar to a known name is returned as it is, so that opening it gives the error.
///
/// # Errors
/// Returns an error if the value is the name of weights that are not downloaded, or a misspelt name.
pub(crate) fn resolve_model(model: &Path) -> anyhow::Result<PathBuf> {
    if model.exists() || mini::is_mini(model) {
        return Ok(model.to_owned());
    }
    let name = model.to_string_lossy();
    let Ok(registry) = Registry::load() else {
        return Ok(model.to_owned());
    };
    let entry = match registry.find(&name) {
        Ok(entry) => entry,
        Err(
            misspelt @ HubError::UnknownModel {
                closest: Some(_), ..
            },
        ) if is_bare_name(model) => return Err(misspelt.into()),
        // Opening a path that does not exist gives the better error.
        Err(_) => return Ok(model.to_owned()),
    };
    Cache::open()?
        .locate(&entry.name)
        .ok_or_else(|| NotPulled(entry.name.clone()).into())
}

/// Returns whether a path is a single name without an extension, as the names of weights are.
fn is_bare_name(path: &Path) -> bool {
    path.components().count() == 1 && path.extension().is_none()
}

/// What a segmenter is opened with.
pub(super) struct SegmenterSettings<'a> {
    /// Value of `--model`.
    pub(super) model: &'a Path,
    /// Prompt templates by name or file; `None` for the model's.
    pub(super) templates: Option<&'a str>,
    pub(super) model_settings: &'a ModelSettings,
    pub(super) compute: &'a ComputeSettings,
    pub(super) cache: CacheUse,
}

/// Opens a model for segmentation, and warns of what its files do not state.
///
/// # Errors
/// Returns an error if the templates are unknown or the model cannot be opened.
pub(super) fn open_segmenter(
    program: &Program,
    settings: &SegmenterSettings,
) -> anyhow::Result<Segmenter> {
    let templates = settings.templates.map(TemplateSet::by_name_or_file);
    let model = settings.model_settings;
    let options = LoadOptions {
        base: model.weights.clone(),
        method: model.method.clone(),
        methods: program.methods.clone(),
        device: settings.compute.device,
        precision: model.precision,
        table: model.text.clone(),
        table_classes: model.text_classes.clone(),
        activation: model.activation,
        heads: model.heads,
        cache: settings.cache.folder(),
        templates: templates.transpose()?,
    };
    let segmenter = Segmenter::load_with(&resolve_model(settings.model)?, options)?;
    warn_of_assumptions(segmenter.model());
    warn_of_architecture(segmenter.model())?;
    Ok(segmenter)
}

/// What a processor without instructions for bf16 gives.
pub(crate) const EMULATED: &str =
    "this processor has no instructions for bf16: the results are the same, in the time of f32";

/// Warns of what was assumed about a model's files, and of the settings of an older checkpoint that have no effect any
/// more.
pub(crate) fn warn_of_assumptions(model: &LoadedModel) {
    warn_of_files(&model.weights);
    if model.precision.is_emulated() {
        print_notice!("warning: {EMULATED}");
    }
    if let Some(unverified) = &model.unverified_base {
        print_notice!("warning: {unverified}");
    }
    if let Some(unread) = &model.unread {
        print_notice!("warning: {unread}");
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

/// Warns of what was assumed about the files of weights, such as which of two copies of a model in a file counts.
pub(crate) fn warn_of_files(weights: &StateDict) {
    for notice in weights.notices() {
        print_notice!("warning: {notice}");
    }
}

/// Warns if nothing states the activation or the heads of the CLIP weights of a model.
///
/// # Errors
/// Returns an error if a configuration file beside the weights cannot be read.
pub(crate) fn warn_of_architecture(model: &LoadedModel) -> anyhow::Result<()> {
    warn_of_assumed(&model.base, &model.assumptions()?);
    Ok(())
}

/// Warns of what is assumed about the architecture of weights, in one line.
pub(crate) fn warn_of_assumed(weights: &Path, assumptions: &[Assumption]) {
    let sentences = sentences(assumptions);
    if !sentences.is_empty() {
        print_notice!("warning: {}: {}", weights.display(), sentences.join("; "));
    }
}

/// Returns a sentence for what is assumed about the activation, and one for the heads, each with the option that
/// overrides it.
fn sentences(assumptions: &[Assumption]) -> Vec<String> {
    let (mut sentences, mut heads_of_towers) = (Vec::new(), Vec::new());
    for assumption in assumptions {
        match assumption {
            Assumption::Activation(_) => sentences.push(
                "no file states the activation, so QuickGELU is assumed, as in OpenAI's models; \
                 --activation gelu overrides it"
                    .to_owned(),
            ),
            Assumption::ImageHeads { heads, published } => {
                let like = published.as_ref();
                let like = like.map_or_else(String::new, |name| format!(" (as in {name})"));
                heads_of_towers.push(format!("{heads} in the image tower{like}"));
            }
            Assumption::TextHeads { heads } => {
                heads_of_towers.push(format!("{heads} in the text tower"));
            }
        }
    }
    if !heads_of_towers.is_empty() {
        sentences.push(format!(
            "no file states the number of attention heads, so {} are assumed; --heads overrides it",
            heads_of_towers.join(" and ")
        ));
    }
    sentences
}

/// Warns of assumptions about class embeddings.
pub(crate) fn warn_of_text(notices: &[TextNotice]) {
    for notice in notices {
        let override_with = match notice {
            TextNotice::RowOrder { .. } => "; --text-classes states the classes of the rows",
            TextNotice::TemplatesUnused { .. } => {
                "; leave out --text to encode the class names with these templates"
            }
            TextNotice::OwnTextTower { .. } => {
                "; `zeg embed --model` with the model makes its own table"
            }
            TextNotice::MissingSynonyms { .. }
            | TextNotice::NotUnit { .. }
            | TextNotice::Alike { .. } => "",
        };
        print_notice!("warning: {notice}{override_with}");
    }
}

/// Warns of a single class, which a softmax over classes gives to every pixel.
///
/// - `advice`: what to do about it
pub(crate) fn warn_of_single_class(classes: usize, scoring: Scoring, advice: &str) {
    if let Some(notice) = of_single_class(classes, scoring) {
        print_notice!("warning: {notice}; {advice}");
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

#[cfg(test)]
mod tests {
    use zeg::model::weights::StatedActivation;

    use super::*;

    #[test]
    fn a_misspelt_name_of_weights_is_an_error_and_a_missing_file_is_left_to_its_reader() {
        let resolve = |name: &str| resolve_model(Path::new(name));
        let error = resolve("clip-vit-b16x").unwrap_err();
        assert!(
            matches!(
                error.downcast_ref(),
                Some(HubError::UnknownModel {
                    closest: Some(closest),
                    ..
                }) if closest.starts_with("clip-vit-b")
            ),
            "{error:?}"
        );
        for path in ["missing.safetensors", "runs/clip-vit-b16x", "q"] {
            assert_eq!(resolve(path).unwrap(), Path::new(path));
        }
    }

    #[test]
    fn one_warning_names_every_assumption_and_the_option_that_overrides_it() {
        let activation = Assumption::Activation(StatedActivation::QuickGelu);
        let image = Assumption::ImageHeads {
            heads: 16,
            published: Some("ViT-H/14".into()),
        };
        let text = Assumption::TextHeads { heads: 12 };
        let found = sentences(&[activation, image, text]);
        let [first, second] = &found[..] else {
            panic!("one sentence for the activation and one for the heads");
        };
        assert!(first.contains("QuickGELU is assumed") && first.contains("--activation"));
        assert_eq!(
            second,
            "no file states the number of attention heads, so 16 in the image tower (as in ViT-H/14) and 12 in the text \
             tower are assumed; --heads overrides it"
        );
        assert!(sentences(&[]).is_empty());
    }
}
