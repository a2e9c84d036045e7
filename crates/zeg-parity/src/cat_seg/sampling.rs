//! Takes samples of results as the files of published size store them.

use std::collections::BTreeMap;

use crate::{array::Array, check::Check, limit::Limit};

/// Compares a tensor that is stored whole, at regular intervals, or as mean and standard deviation.
///
/// - `what`: name of the tensor without its prefix
/// - `results`: the results by name
/// - `grid`: rows and columns of patches
pub(super) fn compare(
    check: &mut Check,
    name: &str,
    what: &str,
    results: &BTreeMap<String, Array>,
    grid: [usize; 2],
    limit: Limit,
) {
    if let Some(found) = results.get(what) {
        check.compare(name, found, limit);
    } else if let Some(found) = what
        .strip_suffix(".mean_std")
        .and_then(|what| results.get(what))
    {
        check.compare(name, &mean_and_deviation(found), limit);
    } else if let Some((what, step)) = step_of(what)
        && let Some(found) = results.get(what)
    {
        check.compare(name, &sampled(found, what, step, grid), limit);
    }
}

/// Returns the name of the tensor and the step of a sample.
fn step_of(what: &str) -> Option<(&str, usize)> {
    if let Some(what) = what.strip_suffix("_sample") {
        return Some((what, 8));
    }
    let (what, step) = what.rsplit_once("_every_")?;
    let what = what
        .strip_suffix(".tokens")
        .or_else(|| what.strip_suffix("_tokens"))
        .unwrap_or(what);
    Some((what, step.parse().ok().filter(|step| *step > 0)?))
}

/// Samples a tensor: maps along both of their axes, classes in steps of 5, tokens along theirs.
fn sampled(found: &Array, what: &str, step: usize, [h, w]: [usize; 2]) -> Array {
    match found.shape[..] {
        // [1, width, classes, h, w]
        [_, _, _, _, _] => found.every(5, 2..3).every(step, 3..5),
        // [classes, h·w, width]
        [classes, tokens, width] if what.contains("swin") && tokens == h * w => {
            let maps = Array {
                shape: vec![classes, h, w, width],
                values: found.values.clone(),
            };
            maps.every(5, 0..1).every(step, 1..3)
        }
        [_, _, _, _] => found.every(step, 2..4),
        // [classes, height, width]
        [_, _, _] if what.ends_with("scores") => found.every(step, 1..3),
        // Guidance from class embeddings is stored whole.
        [_, _, _] if what.ends_with("guid_text") => found.clone(),
        // [1, tokens, width]
        [_, _, _] => found.every(step, 1..2),
        _ => found.clone(),
    }
}

/// Returns mean and standard deviation of all values; the latter with n − 1, as in the reference.
pub(super) fn mean_and_deviation(array: &Array) -> Array {
    let count = array.values.len() as f64;
    let mean = array.values.iter().sum::<f64>() / count;
    let squares: f64 = array.values.iter().map(|v| (v - mean).powi(2)).sum();
    Array::row(vec![mean, (squares / (count - 1.0)).sqrt()])
}
