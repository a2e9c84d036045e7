//! What options state about CLIP weights, for a file that states it itself: the two must not contradict each other.

use zeg::model::{
    config::Activation,
    method::Architecture,
    weights::{StatedActivation, StatedHeads},
};

use super::import::activation_name;
use crate::numbers::WrongArgument;

/// Refuses heads that are not those of the model of an experiment or a checkpoint, which holds no text tower.
///
/// # Errors
/// Returns an error with the numbers.
pub(super) fn check_heads(
    architecture: &dyn Architecture,
    heads: StatedHeads,
) -> Result<(), WrongArgument> {
    let refuse = |reason: String| Err(WrongArgument(format!("--heads: {reason}")));
    if let Some(asked) = heads.image {
        match architecture.encoder() {
            Some(encoder) if encoder.heads == asked => {}
            Some(encoder) => {
                return refuse(format!(
                    "the file states {} attention heads of the image encoder (model.encoder), not {asked}",
                    encoder.heads
                ));
            }
            None => return refuse("the model has no image encoder of CLIP".into()),
        }
    }
    match heads.text {
        Some(asked) => refuse(format!(
            "the file holds no text tower that could have {asked} attention heads"
        )),
        None => Ok(()),
    }
}

/// Refuses an activation that is not that of the model of an experiment or a checkpoint.
///
/// # Errors
/// Returns an error with both activations.
pub(super) fn check_activation(
    architecture: &dyn Architecture,
    activation: Option<StatedActivation>,
) -> Result<(), WrongArgument> {
    let Some(asked) = activation else {
        return Ok(());
    };
    let reason = match architecture.encoder() {
        Some(encoder) if encoder.activation == Activation::from(asked) => return Ok(()),
        Some(encoder) => format!(
            "the image encoder of the file has {} (model.activation), not {}",
            activation_name(encoder.activation.into()),
            activation_name(asked)
        ),
        None => "the model has no image encoder of CLIP".to_owned(),
    };
    Err(WrongArgument(format!("--activation: {reason}")))
}
