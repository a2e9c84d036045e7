//! The confidence of an evaluation: classes that are left out, and the fitted calibration.

use std::path::Path;

use burn::tensor::{Device, Int, Tensor, TensorData};
use zeg::{
    data::{OpenSet, SampleSource as _},
    eval::Evaluation,
    model::{classes::ClassQueries, examples::ExampleScores},
    session::Confidence,
    vocab::classes::ClassQuery,
};
use zeg_base::{
    file::{Overwrite, make_folder_of, write},
    names::did_you_mean,
};

use super::{args::EvalSettings, plan::Plan};
use crate::{
    commands::shared::{CalibrationFile, Existing, FittedOn},
    numbers::WrongArgument,
};

/// Returns the labels of the classes of `--leave-out`, ascending.
///
/// # Errors
/// Returns an error if a name is no class of the data set, or no class is left.
pub(super) fn left_out(names: &[ClassQuery], dataset: &OpenSet) -> anyhow::Result<Vec<u16>> {
    let classes = dataset.classes();
    let mut labels = Vec::new();
    for name in names.iter().flat_map(ClassQuery::names) {
        let Some(label) = classes.index_of(name) else {
            let advice = did_you_mean(name, classes.classes.iter().map(String::as_str));
            let reason = format!(
                "--leave-out: {name:?} is no class of {}{advice}",
                classes.name
            );
            return Err(WrongArgument(reason).into());
        };
        labels.push(label as u16);
    }
    labels.sort_unstable();
    labels.dedup();
    if labels.len() == classes.len() {
        let reason = format!("--leave-out: no class of {} is left", classes.name);
        return Err(WrongArgument(reason).into());
    }
    Ok(labels)
}

/// Checks that the confidence of every pixel can be counted.
///
/// # Errors
/// Returns an error if the plan has a threshold, which hides the best class of pixels.
pub(super) fn check(settings: &EvalSettings, plan: &Plan) -> anyhow::Result<()> {
    let threshold = plan.session.inference.threshold;
    match (settings.confidence, threshold) {
        (Confidence::Keep, Some(threshold)) => {
            let reason = format!(
                "the settings of the model have the threshold {threshold}, with which the confidence of unlabelled pixels \
                 cannot be counted; a --plan without it can be measured"
            );
            Err(WrongArgument(reason).into())
        }
        _ => Ok(()),
    }
}

/// Returns the classes without those of some labels.
pub(super) fn without(classes: &ClassQueries, left_out: &[u16], device: &Device) -> ClassQueries {
    let is_kept = |class: &usize| !left_out.iter().any(|&label| usize::from(label) == *class);
    let kept: Vec<usize> = (0..classes.len()).filter(is_kept).collect();
    let numbers: Vec<i64> = kept.iter().map(|&class| class as i64).collect();
    let length = numbers.len();
    let numbers = Tensor::<1, Int>::from_data(TensorData::new(numbers, [length]), device);
    let rows = |text: &Tensor<2>| text.clone().select(0, numbers.clone());
    ClassQueries {
        text: rows(&classes.text),
        each_template: (classes.each_template.as_ref())
            .map(|text| text.clone().select(1, numbers.clone())),
        crop_text: classes.crop_text.as_ref().map(rows),
        seen: kept
            .iter()
            .filter_map(|&class| classes.seen.get(class).copied())
            .collect(),
        background: classes
            .background
            .and_then(|background| kept.iter().position(|&class| class == background)),
        examples: classes.examples.as_ref().map(|examples| ExampleScores {
            patch_rows: rows(&examples.patch_rows),
            bias: examples.bias.clone().select(2, numbers.clone()),
            image_rows: rows(&examples.image_rows),
        }),
    }
}

/// Fits a calibration to the counted confidence and writes it.
///
/// # Errors
/// Returns an error if no calibration fits, or the file cannot be written.
pub(super) fn fit(evaluation: &Evaluation, path: &Path, existing: Existing) -> anyhow::Result<()> {
    let fitted = evaluation.reliability.as_ref().and_then(|counts| {
        let calibration = counts.fit()?;
        let before = counts.calibration_error(None)?;
        Some((
            calibration,
            before,
            counts.calibration_error(Some(calibration))?,
        ))
    });
    let Some((calibration, before, after)) = fitted else {
        anyhow::bail!(
            "no calibration fits: on these images, more confidence does not mean more right pixels"
        );
    };
    let file = CalibrationFile {
        calibration,
        fitted: Some(FittedOn {
            method: evaluation.method.clone(),
            model: evaluation.model.sha256.clone(),
            dataset: evaluation.benchmark.dataset.clone(),
            class_list: evaluation.benchmark.class_list.clone(),
            split: evaluation.benchmark.split.clone(),
            images: evaluation.images,
            error_before: before,
            error_after: after,
        }),
    };
    let overwrite = match existing {
        Existing::Refuse => Overwrite::Refuse,
        Existing::Replace => Overwrite::Replace,
    };
    make_folder_of(path)?;
    let text = format!(
        "# Calibration of the confidence, for --calibration. Written by `zeg eval --fit-calibration`.\n{}",
        toml::to_string(&file)?
    );
    write(path, text, overwrite).map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}
