//! Compares a small zsseg: every layer, the assignment, losses, gradients, the optimiser's steps of both stages, prompts,
//! regions, inference with all its options, the labels of self-training, and the evaluation.
//!
//! The numbers are in one folder: `a_state`, `a_train`, … with one description, `a_meta.json`; `a` is any name.

mod case;
mod inference;
mod labels;
mod prompt;
mod text;
mod training;

use burn::tensor::Device;
use zeg_model::{
    mask_transformer::{ResNetConfig, resnet::ResNet},
    trace::Trace,
    weights::ParamBuilder,
};

use super::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    file::VectorFile,
    limit::Limit,
    small_model::stored_weights,
};
use case::Case;

/// Limit of activations, crops, scores and losses.
const ACTIVATION: Limit = Limit::OfMax(2e-4);
/// Limit of gradients.
const GRADIENT: Limit = Limit::OfMax(1e-3);
/// Limit of parameters after a step.
const STEPPED: Limit = Limit::Absolute(2e-6);

/// Returns whether a file belongs to this kind.
pub(super) fn is_of(file: &VectorFile) -> bool {
    let source = file.meta().find("source");
    source.is_some_and(|source| source.text().is_ok_and(|text| text.contains("zsseg")))
}

/// Compares one file of the folder.
pub(super) fn compare(mut check: Check, device: &Device) -> Result<Computed, ParityError> {
    let case = Case::open(check.file(), check.planted())?;
    match case.part.as_str() {
        "state" => {
            training::compare_constants(&mut check, &case)?;
            Ok(check.finish())
        }
        "clip" => {
            check.rest_are_weights();
            Ok(check.finish())
        }
        "backbone50" => compare_backbone(check, &case, device),
        "train" | "grads" | "optstep" => training::compare(check, &case, device),
        "infer" => inference::compare(check, &case, device),
        "regions" => inference::compare_regions(check, &case, device),
        "text" => text::compare(check, &case, device),
        "prompt" => prompt::compare(check, &case, device),
        "mapper" => prompt::compare_samples(check, &case),
        "labels" => labels::compare(check, &case, device),
        _ => Ok(check.finish()),
    }
}

/// Compares the residual network with one first convolution, alone.
fn compare_backbone(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    let mut weights = stored_weights(check.file(), "state.");
    if let Some(error) = case.planted {
        error.alter_weights(&mut weights, 1)?;
    }
    let config = ResNetConfig::from_weights(&weights, "backbone.")
        .ok_or_else(|| check.tensor_error("state.backbone.*", "contain no residual network"))?;
    let frozen = |_: &str| false;
    let params = ParamBuilder::new(&weights, device, 0, &frozen);
    let network = ResNet::build(&params.at("backbone"), &config)?;
    let input = check.input("in.x")?.clone();
    let input = case::tensor(&check, "in.x", &input, device)?;
    let mut trace = Trace::on();
    network.forward(input, &mut trace);
    compare_trace(&mut check, "out.", trace)?;
    Ok(check.finish())
}

/// Compares the recorded activations with the file's tensors of the same names after a prefix.
fn compare_trace(check: &mut Check, prefix: &str, trace: Trace) -> Result<(), ParityError> {
    for (name, data) in trace.into_recorded() {
        check.compare(
            &format!("{prefix}{name}"),
            &Array::of_data(data)?,
            ACTIVATION,
        );
    }
    Ok(())
}
