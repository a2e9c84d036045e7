//! Compares CAT-Seg: small complete models, the aggregator in several configurations, a model of published size, and single
//! parts of training, inference and evaluation.

mod case;
mod full_size;
mod inference;
mod parts;
mod sampling;
mod training;
mod variants;

use burn::tensor::Device;

use super::{
    Options, ParityError,
    array::Array,
    check::{Check, Computed},
    file::VectorFile,
    limit::{Limit, deviation},
};
use case::Case;

/// Limit of activations and scores.
const ACTIVATION: Limit = Limit::OfRms(2e-4);
/// Limit of everything in files with shrunken weights, which are sensitive to every epsilon.
const SENSITIVE: Limit = Limit::OfRms(2e-5);
/// Limit of the activations of a training pass.
const TRAINING: Limit = Limit::OfRms(1e-4);
/// Logit of a class that is cut before the aggregation.
const CUT: f64 = -100.0;

/// The files of CAT-Seg's numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum CatSegFile {
    /// A complete small model.
    Small,
    /// The aggregator in several configurations.
    Variants,
    /// A model of published size with generated weights.
    FullSize,
    /// Single parts.
    Parts,
}

impl CatSegFile {
    /// Recognises a file by its description; `None` if it is of another method.
    pub(crate) fn of(file: &VectorFile) -> Option<Self> {
        let meta = file.meta();
        let see = meta.find("see").and_then(|see| see.text().ok());
        if see.is_some_and(|see| see.contains("catseg")) {
            return Some(Self::Parts);
        }
        let is_aggregator = |meta: &super::file::Meta| meta.find("pad_len").is_some();
        if let Some(variants) = meta.find("variants") {
            let entries = variants.entries();
            return entries
                .iter()
                .any(|(_, variant)| is_aggregator(variant))
                .then_some(Self::Variants);
        }
        let config = meta.find("config")?;
        if !is_aggregator(&config) {
            return None;
        }
        Some(
            if meta.find("gain").is_some() && meta.find("image").is_some() {
                Self::FullSize
            } else {
                Self::Small
            },
        )
    }
}

/// Compares everything in the file.
pub(super) fn compare(
    mut check: Check,
    kind: CatSegFile,
    options: &Options,
) -> Result<Computed, ParityError> {
    let device = &options.device;
    match kind {
        CatSegFile::Small => {
            let case = Case::small(&check)?;
            inference::compare(&mut check, &case, device)?;
            if check.has("train.loss") {
                training::compare(&mut check, &case, device)?;
            }
        }
        CatSegFile::Variants => variants::compare(&mut check, device)?,
        CatSegFile::FullSize => full_size::compare(&mut check, device)?,
        CatSegFile::Parts => parts::compare(&mut check, device)?,
    }
    Ok(check.finish())
}

/// Compares logits in which some classes are cut: these must be exactly so, and only the others count for the scale.
fn compare_logits(check: &mut Check, name: &str, found: &Array, limit: Limit) {
    let Some(reference) = check.reference(name) else {
        return;
    };
    let is_cut = |value: &f64| (value - CUT).abs() < f64::EPSILON;
    if reference.shape != found.shape || !reference.values.iter().any(is_cut) {
        check.compare_value(name, reference, found, limit);
        return;
    }
    let pairs = || reference.values.iter().zip(&found.values);
    let differs = pairs().any(|(a, b)| is_cut(a) != is_cut(b));
    let kept = |values: &[f64]| {
        let kept = values.iter().zip(&reference.values);
        let kept = kept.filter(|(_, reference)| !is_cut(reference));
        Array::row(kept.map(|(value, _)| *value).collect())
    };
    let measured = deviation(&kept(&reference.values), &kept(&found.values), limit);
    let measured = measured.unwrap_or(f64::INFINITY);
    let measured = if differs { f64::INFINITY } else { measured };
    check.measured(name, limit, measured, found.clone());
}

/// Returns the device of a training pass.
fn training_device(device: &Device) -> Device {
    device.clone().autodiff()
}
