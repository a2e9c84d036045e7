//! The activation and the heads of the frozen weights: those of the experiment, of the options, or of the weights' own
//! configuration.

use zeg::model::{
    config::{Activation, VisionConfig},
    method::Architecture,
    section::ModelSection,
    weights::{
        self, Assumption, StateDict, StatedActivation, StatedHeads, assumed_image_heads,
        published_name,
    },
};

use super::args::TrainSettings;
use crate::commands::model_file::warn_of_assumed;

/// Returns the activation of the frozen weights: that of the experiment or of `--activation`, or else that of the
/// files, or else QuickGELU. The weights' text tower then has the same.
pub(super) fn state_activation(
    weights: &mut StateDict,
    settings: &TrainSettings,
    model: &ModelSection,
) -> anyhow::Result<Activation> {
    let of_experiment = model.activation()?;
    let of_option = settings.activation.map(Activation::from);
    if let (Some(key), Some(option)) = (of_experiment, of_option) {
        anyhow::ensure!(
            key == option,
            "--activation contradicts model.activation of the experiment; leave one of them out"
        );
    }
    if let Some(activation) = of_experiment.or(of_option) {
        weights.state_activation(activation.into());
        return Ok(activation);
    }
    let stated = weights::Architecture::stated_activation(weights)?;
    Ok(stated.map(Activation::from).unwrap_or_default())
}

/// Returns the numbers of heads of the frozen weights, and warns of what is assumed about the weights.
///
/// The experiment states the heads of the image tower, which must not contradict `--heads` and the files.
pub(super) fn state_heads(
    weights: &mut StateDict,
    settings: &TrainSettings,
    architecture: &dyn Architecture,
) -> anyhow::Result<StatedHeads> {
    weights.state_heads(settings.heads);
    let stated = weights::Architecture::stated_heads(weights)?.image;
    let of_experiment = architecture.encoder().map(|encoder| encoder.heads);
    if let (Some(stated), Some(heads)) = (stated, of_experiment) {
        anyhow::ensure!(
            stated == heads,
            "model.encoder has {heads} attention heads, but {} has {stated}; correct model.encoder, or --heads if it was \
             given",
            settings.weights.display()
        );
    }
    if let (None, Some(encoder)) = (stated, architecture.encoder()) {
        warn_of_unusual_heads(encoder);
    }
    weights.state_heads(StatedHeads {
        image: of_experiment,
        text: None,
    });
    // A text tower that is not used may have any form.
    let found = weights::Architecture::infer(weights).ok();
    let mut assumptions = match &found {
        Some(found) => found.assumptions(),
        None if weights::Architecture::stated_activation(weights)?.is_none() => {
            vec![Assumption::Activation(StatedActivation::QuickGelu)]
        }
        None => Vec::new(),
    };
    assumptions.retain(|assumption| match assumption {
        Assumption::Activation(_) => true,
        Assumption::ImageHeads { .. } => of_experiment.is_some(),
        Assumption::TextHeads { .. } => settings.text.is_none(),
    });
    warn_of_assumed(&settings.weights, &assumptions);
    Ok(StatedHeads {
        image: of_experiment,
        text: found.and_then(|found| found.text).map(|tower| tower.heads),
    })
}

/// Warns if the published image tower of the same size has another number of heads than the experiment states, and no file
/// beside the weights states it.
fn warn_of_unusual_heads(encoder: &VisionConfig) {
    let Some(usual) = assumed_image_heads(encoder.width).filter(|usual| *usual != encoder.heads)
    else {
        return;
    };
    if let Some(name) = published_name(encoder.width, encoder.layers, usual, encoder.patch) {
        print_notice!(
            "warning: model.encoder has {} attention heads, but {name} has {usual}, and no file states the number of the \
             weights; --heads states it",
            encoder.heads
        );
    }
}
