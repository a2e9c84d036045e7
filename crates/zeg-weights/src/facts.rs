//! The facts that a CLIP's outputs follow from besides its tensors: what files beside the weights, their metadata or
//! the user state about the architecture.
//!
//! They are parts of keys of stored results, because a changed `config.json` changes the results of the same tensors.

use std::fmt::Debug;

use zeg_base::fingerprint::Fingerprint;

use crate::{Architecture, StateDict, StatedActivation};

/// Returns the facts that class embeddings of the text tower follow from besides the tensors.
///
/// Facts that are neither stated nor follow from the tensors are left out; such a tower cannot be used anyway.
pub fn text_facts(weights: &StateDict) -> Fingerprint {
    let Ok(architecture) = Architecture::infer(weights) else {
        return match Architecture::stated_activation(weights) {
            Ok(stated) => Fingerprint::new().with("weights: activation", activation(stated)),
            Err(_) => Fingerprint::new(),
        };
    };
    let text = architecture.text.as_ref();
    Fingerprint::new()
        .with(
            "weights: activation",
            activation(Some(architecture.activation)),
        )
        .with("weights: text heads", shown(text.map(|text| text.heads)))
        .with(
            "weights: LayerNorm epsilon",
            architecture.layer_norm_epsilon,
        )
}

/// Returns the facts of [`text_facts`], and those that the tokens of the image tower follow from besides the tensors.
pub fn image_facts(weights: &StateDict) -> Fingerprint {
    let facts = text_facts(weights);
    let Ok(architecture) = Architecture::infer(weights) else {
        return facts;
    };
    let vision = architecture.vision.as_ref();
    facts
        .with(
            "weights: image heads",
            shown(vision.map(|vision| vision.heads)),
        )
        .with("weights: image mean", shown(architecture.image_mean))
        .with("weights: image deviation", shown(architecture.image_std))
}

/// Returns the name of an activation as in a configuration; QuickGELU is assumed if none is stated.
fn activation(stated: Option<StatedActivation>) -> &'static str {
    match stated {
        Some(StatedActivation::Gelu) => "gelu",
        Some(StatedActivation::QuickGelu) | None => "quick-gelu",
    }
}

fn shown<T: Debug>(value: Option<T>) -> String {
    value.map_or_else(|| "none".to_owned(), |value| format!("{value:?}"))
}
