//! Compares single parts around a model: learning rates, position embeddings, prompt initialisation, region masks; and
//! through its submodules [`losses`], [`metrics`] and [`images`](super::images).

mod losses;
mod metrics;

use burn::tensor::{Device, Tensor, TensorData};
use zeg_model::{
    config::{PromptConfig, PromptDepth, VisionConfig},
    layers::LAYER_NORM_EPSILON,
    prompts::{DeepPrompts, PromptSchedule},
    regions::allowed,
    vision::{TokenPlan, resize_positions},
    weights::{ParamBuilder, StateDict},
};
use zeg_train::schedule::Schedule;

use super::{
    ParityError,
    array::Array,
    check::{Check, Computed},
    file::{Meta, integers_in},
    images,
    limit::Limit,
};

/// Limit of learning rates, which the reference computes in Python floats.
const RATE: Limit = Limit::Relative(1e-9);
/// Limit of statistics of initial values: the standard deviation of 590,000 values is exact to 1e-3, and their largest
/// value is that close to the bound.
const STATISTICS: Limit = Limit::Relative(5e-3);
/// Limit of the largest of a few hundred initial values, which may be slightly below the bound.
const FEW: Limit = Limit::Relative(2e-2);
/// Configuration of the prompts that are initialised to compare their statistics.
const PROMPTS: PromptConfig = PromptConfig {
    tokens: 100,
    depth: PromptDepth::First(12),
    dropout: 0.0,
};

/// Compares all of these parts that the file contains.
pub(crate) fn compare(mut check: Check, device: &Device) -> Result<Computed, ParityError> {
    compare_rates(&mut check)?;
    losses::compare(&mut check, device)?;
    metrics::compare(&mut check)?;
    images::compare(&mut check)?;
    compare_positions(&mut check)?;
    compare_fresh_prompts(&mut check, device)?;
    compare_masks(&mut check)?;
    Ok(check.finish())
}

/// Compares the tables `lr_<steps>` of learning rates.
fn compare_rates(check: &mut Check) -> Result<(), ParityError> {
    for (name, table) in check.file().meta().entries() {
        let Some(steps) = name
            .strip_prefix("lr_")
            .and_then(|steps| steps.parse().ok())
        else {
            continue;
        };
        let schedule = Schedule {
            base: table.at("base_lr")?.number()?,
            ..Schedule::default()
        };
        let rates = Array::row(table.at("lr")?.numbers()?);
        let at = table.at("iters")?.counts()?;
        let found = at.iter().map(|&step| schedule.at(step as u64, steps));
        let found = Array::row(found.collect());
        check.compare_value(&format!("meta.{name}"), &rates, &found, RATE);
    }
    Ok(())
}

/// Compares position embeddings `posemb.in_*`, resized to the grid of `posemb.out_*`.
fn compare_positions(check: &mut Check) -> Result<(), ParityError> {
    let names = |prefix: &str| -> Vec<String> {
        let names = check.file().tensors.keys();
        names
            .filter(|name| name.starts_with(prefix))
            .cloned()
            .collect()
    };
    for (from, to) in names("posemb.in_").into_iter().zip(names("posemb.out_")) {
        let table = check.input(&from)?.to_host();
        let rows = check.input(&to)?.shape[0];
        let found = resize_positions(&table, rows.saturating_sub(1).isqrt());
        let found = Array::from_values(&found.shape, &found.values);
        check.compare(&to, &found, Limit::ACTIVATION);
    }
    Ok(())
}

/// Compares the distributions that initial prompts are drawn from, and the epsilons of the norms.
fn compare_fresh_prompts(check: &mut Check, device: &Device) -> Result<(), ParityError> {
    let Some(table) = check.file().meta().find("prompt_init") else {
        return Ok(());
    };
    let encoder = VisionConfig::by_name("ViT-B/16")?;
    let weights = StateDict::default();
    let frozen = |_: &str| false;
    let params = ParamBuilder::new(&weights, device, 0, &frozen);
    let schedule = PromptSchedule::new(PROMPTS.depth, encoder.layers);
    let prompts = DeepPrompts::build(&params, &encoder, &PROMPTS, schedule)?;
    let Some(deep) = &prompts.deep_prompt_embeddings else {
        return Err(table.error("cannot be compared: the model has no deep prompts"));
    };
    let deep = Array::of(deep.val())?.values;
    let weight = Array::of(prompts.prompt_proj.weight.val())?;
    let bias = Array::of(prompts.prompt_proj.bias.val())?.values;
    let highest = |values: &[f64]| values.iter().copied().fold(f64::NEG_INFINITY, f64::max);
    let largest = |values: &[f64]| values.iter().fold(0.0_f64, |a, v| a.max(v.abs()));
    let lowest = deep.iter().copied().fold(f64::INFINITY, f64::min);
    let epsilon = measured_epsilon(&prompts, encoder.width, device)?;
    let statistics = [
        ("bound", largest(&deep), STATISTICS),
        ("prompt_min", lowest, STATISTICS),
        ("prompt_max", highest(&deep), STATISTICS),
        ("proj_weight_std", weight.rms(), STATISTICS),
        ("kaiming_fan_out_std", weight.rms(), STATISTICS),
        ("proj_bias_absmax", largest(&bias), FEW),
        ("default_linear_bias_bound", largest(&bias), FEW),
        ("prompt_norm_eps", epsilon, STATISTICS),
        ("ln_post_eps", LAYER_NORM_EPSILON, STATISTICS),
    ];
    for (name, found, limit) in statistics {
        if let Some(reference) = table.find(name) {
            let reference = Array::scalar(reference.number()?);
            let name = format!("meta.prompt_init.{name}");
            check.compare_value(&name, &reference, &Array::scalar(found), limit);
        }
    }
    Ok(())
}

/// Measures the epsilon of `prompt_norm` from its output for small values: ±a becomes ±a/√(a² + ε).
fn measured_epsilon(
    prompts: &DeepPrompts,
    width: usize,
    device: &Device,
) -> Result<f64, ParityError> {
    const SMALL: f32 = 1e-3;
    let values: Vec<f32> = (0..width)
        .map(|i| if i % 2 == 0 { SMALL } else { -SMALL })
        .collect();
    let row = Tensor::<2>::from_data(TensorData::new(values, [1, width]), device);
    let normed = Array::of(prompts.prompt_norm.forward(row))?.rms();
    Ok(f64::from(SMALL).powi(2) * (normed.powi(-2) - 1.0))
}

/// Compares attention masks of region tokens: `mask.<h>x<w>_r<regions>….allowed` is a whole mask, and
/// `mask.….allowed_rlb_rows` holds only its rows of region tokens.
fn compare_masks(check: &mut Check) -> Result<(), ParityError> {
    let names: Vec<String> = check.file().tensors.keys().cloned().collect();
    for name in names.iter().filter(|name| name.starts_with("mask.")) {
        let reference = check.input(name)?;
        let [rows, length] = reference.shape[..] else {
            return Err(check.tensor_error(name, "is not a matrix"));
        };
        let Some(plan) = plan(name, reference, rows, length) else {
            return Err(check.tensor_error(name, "does not give the numbers of its tokens"));
        };
        let first = length - rows;
        let found: Vec<u8> = (first..length)
            .flat_map(|a| (0..length).map(move |b| u8::from(allowed(&plan, a, b))))
            .collect();
        check.compare(
            name,
            &Array::from_values(&[rows, length], &found),
            Limit::Exact,
        );
        let title = name
            .trim_start_matches("mask.")
            .split('.')
            .next()
            .unwrap_or_default();
        if let Some(table) = check.file().meta().find(&format!("mask_{title}")) {
            compare_mask_count(check, title, &table, &plan)?;
        }
    }
    Ok(())
}

/// Compares the shape and the number of allowed pairs with the description.
fn compare_mask_count(
    check: &mut Check,
    title: &str,
    table: &Meta,
    plan: &TokenPlan,
) -> Result<(), ParityError> {
    let length = plan.len();
    let pairs = (0..length).flat_map(|a| (0..length).map(move |b| (a, b)));
    let count = pairs.filter(|&(a, b)| allowed(plan, a, b)).count();
    let shape = Array::row(table.at("shape")?.numbers()?);
    let name = |entry: &str| format!("meta.mask_{title}.{entry}");
    let found = Array::row(vec![length as f64; 2]);
    check.compare_value(&name("shape"), &shape, &found, Limit::Exact);
    let allowed = Array::scalar(table.at("allowed")?.number()?);
    check.compare_value(
        &name("allowed"),
        &allowed,
        &Array::scalar(count as f64),
        Limit::Exact,
    );
    Ok(())
}

/// Returns the tokens of a mask, from its name or, if it has only rows of region tokens, from a row.
///
/// Such a row allows one cell of patches and the region token itself, and the cells form a square grid.
fn plan(name: &str, reference: &Array, rows: usize, length: usize) -> Option<TokenPlan> {
    let (grid, regions) = if rows == length {
        let [h, w, regions, ..] = integers_in(name)[..] else {
            return None;
        };
        ([h, w], regions)
    } else {
        let allowed = reference
            .values
            .get(..length)?
            .iter()
            .filter(|v| **v > 0.0)
            .count();
        let side = (allowed.checked_sub(1)? * rows).isqrt();
        ([side, side], rows)
    };
    let prompts = length.checked_sub(1 + grid[0] * grid[1] + regions)?;
    Some(TokenPlan {
        prompts,
        grid,
        regions,
    })
}
