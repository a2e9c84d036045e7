//! Compares the student: a training step with labels from the guide and one with its own, gradients, steps of stochastic
//! gradient descent, and inference.

use std::collections::{BTreeMap, BTreeSet};

use burn::tensor::{Device, Tensor, TensorData};
use zeg_model::{
    methods::{
        maskclip_plus::{MaskClipPlus, batch_norm::Statistics},
        training_free::refinement::MaskClipRefinement,
    },
    params::{RunningValue, add_observations, flat_gradients, kept_values, list_params},
    resize::bilinear,
    trace::Trace,
};
use zeg_train::{
    methods::maskclip_plus::{
        MaskClipPlusRecipe, guide_scores, pixel_cross_entropy, rows, student_scores,
    },
    optimizer::{AdamWSettings, NamedAdamW},
    recipe::Recipe as _,
};

use super::{
    ACTIVATION, GRADIENT,
    case::{Case, Unlabelled, images},
    compare_labels, compare_output, compare_trace, ranked,
};
use crate::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    file::{Meta, VectorFile},
    limit::Limit,
};

/// Limit of a parameter after the first step.
const STEPPED: Limit = Limit::Absolute(1e-6);
/// Limit of a parameter after the second step, as a share of the largest change.
const SECOND_STEP: f64 = 1e-3;
/// Class embeddings.
const TEXT: &str = "state.decode_head.text_embeddings";

/// Compares a file of a student.
pub(super) fn compare(
    mut check: Check,
    case: &Case,
    device: &Device,
) -> Result<Computed, ParityError> {
    let (student, part) = match case.part.split_once('_') {
        Some(parts) => parts,
        None => (case.part.as_str(), ""),
    };
    let setting = Setting::read(case, student, device)?;
    match part {
        "train" => {
            compare_train(&mut check, &setting)?;
            compare_inference(&mut check, &setting, device)?;
        }
        "grads" => {
            let inputs = case.sibling(&format!("{student}_train"))?;
            let model = case.model(student, device)?;
            let pass = Pass::run(&mut Check::new(&inputs, None), &setting, &model, true)?;
            compare_gradients(&mut check, "grad.", &model, &pass, true)?;
        }
        "optstep" => compare_steps(&mut check, &setting, device)?,
        _ => {}
    }
    Ok(check.finish())
}

/// What the description says about a student.
struct Setting<'a> {
    case: &'a Case,
    /// `v2` or `v3p`
    student: String,
    /// Class embeddings of all classes; a row of zeros takes the place of the background.
    text: Tensor<2>,
    background: Option<usize>,
    /// Unseen classes in the order of the reference's list.
    unseen: Vec<usize>,
    classes: usize,
    device: Device,
}

impl<'a> Setting<'a> {
    fn read(case: &'a Case, student: &str, device: &Device) -> Result<Self, ParityError> {
        let meta = case.meta().at(student)?;
        let has_background = meta.at("background")?.flag()?;
        let state = case.sibling(&format!("{student}_state"))?;
        let stored = state
            .tensors
            .get(TEXT)
            .and_then(|rows| rows.to_tensor::<2>(device));
        let mut text = stored.ok_or_else(|| ParityError::Format {
            path: state.path.clone(),
            reason: format!("holds no class embeddings {TEXT}"),
        })?;
        if has_background {
            let [_, dim] = text.dims();
            text = Tensor::cat(vec![Tensor::zeros([1, dim], device), text], 0);
        }
        Ok(Self {
            case,
            student: student.to_owned(),
            text,
            background: has_background.then_some(0),
            unseen: meta.at("unseen")?.counts()?,
            classes: meta.at("classes")?.count()?,
            device: device.clone(),
        })
    }
}

/// A forward pass in training mode.
struct Pass {
    trace: Trace,
    guide: Trace,
    features: Tensor<4>,
    logits: Tensor<4>,
    /// Scores of the unseen classes in the order of the reference's list.
    scores: Tensor<4>,
    labels: Unlabelled,
    used: Vec<u16>,
    loss: Tensor<1>,
    /// Percentage of all pixels whose class has the highest logit.
    accuracy: f64,
    observed: Vec<RunningValue>,
}

impl Pass {
    fn run(
        check: &mut Check,
        setting: &Setting,
        model: &MaskClipPlus,
        guided: bool,
    ) -> Result<Self, ParityError> {
        let Setting {
            case,
            text,
            background,
            classes,
            device,
            ..
        } = setting;
        let images = images(check, "in.image", case.planted, device)?;
        let labels = Unlabelled::read(check, "in.label", *classes, &setting.unseen, case.planted)?;
        let (mut trace, mut guide) = (Trace::on(), Trace::on());
        let mut statistics = Statistics::of_batch();
        let features = model.features(images.clone(), &mut statistics, &mut trace);
        let logits = model.logits(features.clone(), text.clone(), *background);
        trace.record("logits", &logits);
        if let (true, Some(tower)) = (guided, &model.decode_head.clip) {
            tower.forward(images.clone(), &mut guide);
        }
        let score = |classes: &[usize]| {
            let text = rows(text, classes);
            if guided {
                guide_scores(model, images.clone(), text, &MaskClipRefinement::default())
            } else {
                Ok(student_scores(features.clone(), text))
            }
        };
        let scores = score(&setting.unseen)?;
        let targets = labels.labels()?.ranked(score)?;
        let loss = pixel_cross_entropy(logits.clone(), &targets);
        let large = Array::of(bilinear(logits.clone(), labels.size()))?;
        let pixels = large.shape[2] * large.shape[3];
        let used = targets.labels().to_vec();
        let right = used.iter().enumerate().filter(|&(pixel, label)| {
            ranked(&large, *classes, pixels, pixel)[0] == usize::from(*label)
        });
        let accuracy = 100.0 * right.count() as f64 / used.len().max(1) as f64;
        Ok(Self {
            trace,
            guide,
            features,
            logits,
            scores,
            labels,
            used,
            loss,
            accuracy,
            observed: statistics.collected(),
        })
    }

    fn gradients(&self, model: &MaskClipPlus) -> BTreeMap<String, Tensor<1>> {
        let mut gradients = self.loss.clone().backward();
        flat_gradients(model, &mut gradients).into_iter().collect()
    }
}

/// Returns the reference's name of a parameter.
fn published(name: &str) -> String {
    match name.strip_prefix("student.") {
        Some(rest) => format!("backbone.{rest}"),
        None => name.to_owned(),
    }
}

/// Returns the program's name of a parameter of the reference.
fn own(name: &str) -> String {
    match name.strip_prefix("backbone.") {
        Some(rest) => format!("student.{rest}"),
        None => name.to_owned(),
    }
}

/// Compares both phases of training, from the same weights.
fn compare_train(check: &mut Check, setting: &Setting) -> Result<(), ParityError> {
    for (phase, guided) in [("guided.", true), ("self.", false)] {
        let model = setting.case.model(&setting.student, &setting.device)?;
        let pass = Pass::run(check, setting, &model, guided)?;
        let name = |name: &str| format!("{phase}{name}");
        if !guided {
            let found = Array::of(pass.features.clone())?;
            check.compare(&name("feature"), &found, ACTIVATION);
        }
        let scores = Array::of(pass.scores.clone())?;
        check.compare(&name("unseen_scores"), &scores, ACTIVATION);
        let large = Array::of(bilinear(pass.scores.clone(), pass.labels.size()))?;
        let used = pass.labels.stored(&pass.used);
        compare_labels(check, &name("label_used"), &used, &large, |pixel| {
            pass.labels.waits(pixel)
        });
        let loss = Array::of(pass.loss.clone())?;
        check.compare(&name("loss_ce"), &loss, ACTIVATION);
        check.compare(&name("acc_seg"), &Array::scalar(pass.accuracy), ACTIVATION);
        let prefix = name("grad.");
        compare_gradients(check, &prefix, &model, &pass, false)?;
        if guided {
            let mut renamed = Trace::on();
            for (name, data) in pass.guide.into_recorded() {
                let name = match name.as_str() {
                    "layer4" => "clip_layer4".to_owned(),
                    _ => name,
                };
                if data.shape().len() == 4 {
                    renamed.record(name, &Tensor::<4>::from_data(data, &setting.device));
                }
            }
            compare_trace(check, phase, renamed)?;
            compare_trace(check, "train.", pass.trace)?;
            let logits = Array::of(pass.logits)?;
            check.compare("train.logits", &logits, ACTIVATION);
        }
    }
    Ok(())
}

/// Compares the result for an image that is not square.
fn compare_inference(
    check: &mut Check,
    setting: &Setting,
    device: &Device,
) -> Result<(), ParityError> {
    let case = setting.case;
    let images = images(check, "in.test_image", case.planted, device)?;
    let [_, _, height, width] = images.dims();
    let model = case.packed(&setting.student, device)?;
    let features = model.features(images, &mut Statistics::Stored, &mut Trace::off());
    let logits = model.logits(features, setting.text.clone(), setting.background);
    let found = Array::of(logits.clone())?;
    check.compare("eval.logits", &found, ACTIVATION);
    let original = case.config("test_ori")?.pair()?;
    compare_output(check, "eval.", logits, [[height, width], original], 2)
}

/// Compares gradients, and checks which parameters have one.
///
/// - `all`: whether the file holds all of them
fn compare_gradients(
    check: &mut Check,
    prefix: &str,
    model: &MaskClipPlus,
    pass: &Pass,
    all: bool,
) -> Result<(), ParityError> {
    if !check.file().has_any(prefix) {
        return Ok(());
    }
    let shapes: BTreeMap<String, Vec<usize>> = list_params(model, |_| false)
        .into_iter()
        .map(|info| (info.name, info.shape))
        .collect();
    let mut only_here = BTreeSet::new();
    for (name, gradient) in pass.gradients(model) {
        let stored = format!("{prefix}{}", published(&name));
        if !check.has(&stored) {
            only_here.insert(name);
            continue;
        }
        let found = Array {
            shape: shapes.get(&name).cloned().unwrap_or_default(),
            values: Array::of(gradient)?.values,
        };
        check.compare(&stored, &found, GRADIENT);
    }
    if all {
        let problem = format!("gradients that are not in the reference: {only_here:?}");
        check.verdict(prefix, (!only_here.is_empty()).then_some(problem));
    }
    Ok(())
}

/// Compares two steps; the first takes the reference's own gradients.
fn compare_steps(check: &mut Check, setting: &Setting, device: &Device) -> Result<(), ParityError> {
    let (case, student) = (setting.case, &setting.student);
    let grads = case.sibling(&format!("{student}_grads"))?;
    let inputs = case.sibling(&format!("{student}_train"))?;
    let state = case.sibling(&format!("{student}_state"))?;
    let optimizer = case.meta().at(student)?.at("optimizer")?;
    let number = |name: &str| optimizer.at(name)?.number();
    let settings = AdamWSettings {
        momentum: Some(number("momentum")?),
        weight_decay: number("weight_decay")?,
        ..AdamWSettings::default()
    };
    let rate = number("lr")?;
    let mut model = case.model(student, device)?;
    let group = move |name: &str| MaskClipPlusRecipe.group(&settings, name);
    let mut optimizer = NamedAdamW::with_groups(&settings, group);
    let pass = Pass::run(&mut Check::new(&inputs, None), setting, &model, true)?;
    optimizer.step(&mut model, gradients_of(&grads, device), rate);
    add_observations(&mut model, pass.observed);
    compare_parameters(check, "after_step1.", &model, |name| {
        if name.contains(".running_") {
            ACTIVATION
        } else {
            STEPPED
        }
    });
    count_batches(check, &state);

    let pass = Pass::run(&mut Check::new(&inputs, None), setting, &model, true)?;
    let loss = Array::of(pass.loss.clone())?;
    check.compare("loss_before_step2", &loss, ACTIVATION);
    let gradients = pass.gradients(&model);
    optimizer.step(&mut model, gradients, rate);
    let tensors = &check.file().tensors;
    let change = |name: &str| {
        let after = tensors.get(&format!("after_step2.{name}"))?;
        let before = tensors.get(&format!("after_step1.{name}"))?;
        let pairs = after.values.iter().zip(&before.values);
        Some(pairs.fold(0.0_f64, |most, (a, b)| most.max((a - b).abs())))
    };
    let own_error = largest_own_error(&case.meta(), student, check.file());
    compare_parameters(check, "after_step2.", &model, |name| {
        let of_reference = match &own_error {
            Some((tensor, error)) if *tensor == format!("after_step2.{name}") => *error,
            _ => 0.0,
        };
        Limit::Absolute(SECOND_STEP * change(name).unwrap_or(0.0) + of_reference)
    });
    Ok(())
}

/// Returns the tensor of the steps that is farthest from the reference's own computation in float64, and how far.
///
/// After two steps this can be more than the limit: an activation whose sign differs between float32 and float64 gives
/// another gradient. A result that equals float64 differs from the stored one by as much.
fn largest_own_error(meta: &Meta, student: &str, file: &VectorFile) -> Option<(String, f64)> {
    let stated = meta.find("deviation_from_float64")?;
    let of_steps = stated.find(&format!("{student}_optstep"))?;
    let largest = of_steps.find("max_over_max")?.items().ok()?;
    let [tensor, share] = &largest[..] else {
        return None;
    };
    let tensor = tensor.text().ok()?.to_owned();
    let values = &file.tensors.get(&tensor)?.values;
    let most = values
        .iter()
        .fold(0.0_f64, |most, value| most.max(value.abs()));
    Some((tensor, share.number().ok()? * most))
}

/// Returns the gradients that a file holds, under the program's names.
fn gradients_of(file: &VectorFile, device: &Device) -> BTreeMap<String, Tensor<1>> {
    let tensors = file.tensors.iter();
    tensors
        .filter_map(|(name, array)| {
            let data = TensorData::new(array.to_f32(), [array.values.len()]);
            Some((
                own(name.strip_prefix("grad.")?),
                Tensor::from_data(data, device),
            ))
        })
        .collect()
}

/// Compares the parameters that a file holds with those of a model.
fn compare_parameters(
    check: &mut Check,
    prefix: &str,
    model: &MaskClipPlus,
    limit: impl Fn(&str) -> Limit,
) {
    for param in kept_values(model, |name| name.contains(".running_")) {
        let name = published(&param.name);
        let found = Array::from_values(&param.shape, &param.values);
        check.compare(&format!("{prefix}{name}"), &found, limit(&name));
    }
}

/// Compares the numbers of batches behind running means, which the program does not store: one more than in the weights.
fn count_batches(check: &mut Check, state: &VectorFile) {
    let names: Vec<String> = (check.file().tensors.keys())
        .filter(|name| name.ends_with(".num_batches_tracked"))
        .cloned()
        .collect();
    for name in names {
        let Some(parameter) = name.strip_prefix("after_step1.") else {
            continue;
        };
        let before = state.tensors.get(&format!("state.{parameter}"));
        let before = before.and_then(|count| count.values.first().copied());
        let found = Array::scalar(before.unwrap_or(0.0) + 1.0);
        check.compare(&name, &found, Limit::Exact);
    }
}
