//! Compares a small ZegFormer: every layer, the assignment, losses, gradients, the optimiser's step, inference with all
//! its options, CLIP's classification of crops, prompts, and the generalised evaluation.
//!
//! The numbers are in one folder: `a_state`, `a_train`, … with one description, `a_meta.json`; `a` is any name.

pub(crate) mod case;
mod clip_branch;
mod evaluation;
pub(crate) mod inference;
mod text;
mod training;

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use super::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    limit::Limit,
};
use case::Case;

/// Suffix of the description's file name.
const DESCRIPTION: &str = "_meta.json";

/// Limit of activations and losses; the reference itself deviates from double precision by 1e-5 of the largest value.
const ACTIVATION: Limit = Limit::OfMax(5e-5);
/// Limit of gradients.
const GRADIENT: Limit = Limit::OfMax(2e-4);
/// Absolute mask logit below which a pixel may be inside or outside, because rounding may decide.
const MASK_TIE: f64 = 1e-4;

/// Compares one file of the folder.
pub(super) fn compare(mut check: Check, device: &Device) -> Result<Computed, ParityError> {
    let case = Case::open(check.file(), check.planted())?;
    match case.part.as_str() {
        "state" => {
            training::compare_class_weights(&mut check, &case)?;
            check.rest_are_weights();
            Ok(check.finish())
        }
        "clipvisual" => {
            check.rest_are_weights();
            Ok(check.finish())
        }
        "train" | "grads" | "optstep" => training::compare(check, &case, device),
        "infer" => inference::compare(check, &case, device),
        "clipbranch" => clip_branch::compare(check, &case, device),
        "cliptext" => text::compare(check, &case, device),
        "gzsseval" => evaluation::compare(check, &case),
        _ => Ok(check.finish()),
    }
}

/// Returns the files that a description belongs to; `None` if the path is not a description.
pub(super) fn parts_of(path: &Path) -> Option<Vec<PathBuf>> {
    let name = path.file_name()?.to_str()?;
    let prefix = format!("{}_", name.strip_suffix(DESCRIPTION)?);
    let entries = std::fs::read_dir(path.parent()?).ok()?;
    let mut paths: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| {
            let name = path.file_name().and_then(|name| name.to_str());
            name.is_some_and(|n| n.starts_with(&prefix) && n.ends_with(".safetensors"))
        })
        .collect();
    paths.sort();
    (!paths.is_empty()).then_some(paths)
}

/// Compares the recorded activations with the file's tensors of the same names after a prefix.
fn compare_trace(
    check: &mut Check,
    prefix: &str,
    trace: zeg_model::trace::Trace,
) -> Result<(), ParityError> {
    for (name, data) in trace.into_recorded() {
        let name = format!("{prefix}{name}");
        if check.has(&name) {
            check.compare(&name, &Array::of_data(data)?, ACTIVATION);
        }
    }
    Ok(())
}
