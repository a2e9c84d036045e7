//! Tests that the comparison finds errors of single results, planted into every result of every file in turn.
//!
//! The errors are planted between computation and judgement; `tests/planted_errors.rs` tests errors inside the
//! computation.

use std::path::{Path, PathBuf};

use burn::tensor::Device;

use crate::{
    Options,
    array::Array,
    check::{Comparison, Computed, Content, judge},
    compute,
    file::VectorFile,
    kind::Kind,
    limit::Limit,
};

/// Factor of a result that is slightly too large.
const SCALE: f64 = 1.0 + 1e-3;

/// Returns the files of the repository, and the shared ones if they exist.
fn files() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let golden = root.join("tests/golden");
    let shared = root.join("../../../shared/vectors");
    let mut folders = vec![golden.join("zegformer"), golden.join("zsseg"), golden];
    let of_methods = [
        "zegclip",
        "clip-rc",
        "clip",
        "zegformer",
        "zsseg",
        "maskclip-plus",
    ];
    folders.extend(of_methods.map(|name| shared.join(name)));
    let files = folders.into_iter().flat_map(std::fs::read_dir).flatten();
    files
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "safetensors"))
        // Models of published size have their own test.
        .filter(|path| {
            !path
                .file_name()
                .unwrap()
                .to_string_lossy()
                .starts_with("full_")
        })
        .collect()
}

fn computed(path: &Path) -> Computed {
    let file = VectorFile::open(path).unwrap();
    assert!(Kind::of(&file).is_some(), "{}", path.display());
    let options = Options {
        device: Device::flex(),
        assets: None,
        planted: None,
    };
    compute(&file, &options).unwrap()
}

/// Returns the comparison with a changed result; `None` if the change has no effect.
fn changed(comparison: &Comparison, change: impl Fn(&mut Array)) -> Option<Comparison> {
    let mut comparison = comparison.clone();
    let (Content::Values { found, .. } | Content::Measured { found, .. }) = &mut comparison.content
    else {
        return None;
    };
    let before = found.clone();
    change(found);
    let same = |(a, b): (&f64, &f64)| a.to_bits() == b.to_bits();
    let unchanged = before.values.iter().zip(&found.values).all(same);
    (!unchanged).then_some(comparison)
}

/// Returns whether a change clearly exceeds the limit, with a margin for the deviation of the unchanged result.
fn is_more_than_the_limit(before: &Comparison, after: &Comparison) -> bool {
    let (Content::Values { reference, found }, Content::Values { found: other, .. }) =
        (&before.content, &after.content)
    else {
        return false;
    };
    let unit = match before.limit {
        Limit::OfRms(_) => reference.rms(),
        Limit::OfMax(_) => reference.largest(),
        _ => 1.0,
    };
    let pairs = found.values.iter().zip(&other.values);
    let most = pairs.fold(0.0, |most, (a, b)| f64::max(most, (a - b).abs()));
    most > 3.0 * before.limit.value() * unit
}

/// Sets the first token to 0.
fn zero_token(found: &mut Array) {
    let width = *found.shape.last().unwrap_or(&0);
    // A result may have no tokens.
    if found.shape.len() > 1 && !found.values.is_empty() {
        found.values[..width].fill(0.0);
    }
}

/// Exchanges the halves of every token, as if two heads were exchanged.
fn swap_heads(found: &mut Array) {
    let width = *found.shape.last().unwrap_or(&0);
    if width >= 2 {
        for token in found.values.chunks_exact_mut(width) {
            token.rotate_left(width / 2);
        }
    }
}

/// Replaces the last values by those of the previous result, as if a workspace were not overwritten.
fn stale(found: &mut Array, workspace: &Array) {
    let count = (found.values.len() / 2).min(workspace.values.len() / 2);
    let (start, from) = (found.values.len() - count, workspace.values.len() - count);
    found.values[start..].copy_from_slice(&workspace.values[from..]);
}

/// Plants every error of a single result into every result of a file; returns the number of planted errors.
fn plant_all(label: &str, computed: &Computed) -> usize {
    let mut planted = 0;
    let mut workspace = Array::row(vec![]);
    for comparison in &computed.comparisons {
        let name = format!("{label}: {}", comparison.name);
        assert!(comparison.outcome().passed(), "{name}");
        let mut found = |what: &str, wrong: Option<Comparison>, small: bool| {
            let Some(wrong) = wrong else { return };
            // A change of values that are themselves within the limit need not be found.
            if small && !is_more_than_the_limit(comparison, &wrong) {
                return;
            }
            assert!(!wrong.outcome().passed(), "{name}: {what} is not found");
            planted += 1;
        };
        let middle = |found: &mut Array, value: f64| {
            let position = found.values.len() / 2;
            if let Some(place) = found.values.get_mut(position) {
                *place = value;
            }
        };
        for value in [f64::NAN, f64::INFINITY] {
            found(
                "a value that is not finite",
                changed(comparison, |f| middle(f, value)),
                false,
            );
        }
        // A deviation that the caller measured does not change with the result.
        let Content::Values { found: values, .. } = &comparison.content else {
            continue;
        };
        let scale = |f: &mut Array| f.values.iter_mut().for_each(|value| *value *= SCALE);
        // Absolute limits are for rounding noise and grey levels; all other limits are smaller than this error.
        let finds_scale = match comparison.limit {
            Limit::Absolute(_) => false,
            limit => limit.value() < SCALE - 1.0,
        };
        if finds_scale {
            found("scale", changed(comparison, scale), false);
        }
        found("a zeroed token", changed(comparison, zero_token), true);
        found("swapped heads", changed(comparison, swap_heads), true);
        found(
            "a stale workspace",
            changed(comparison, |f| stale(f, &workspace)),
            true,
        );
        workspace = values.clone();

        // The smallest possible difference, in either the first or the second computation.
        let last_bit = changed(comparison, |f| {
            if let Some(value) = f.values.last_mut() {
                *value = f64::from_bits(value.to_bits() ^ 1);
            }
        });
        if let Some(other) = last_bit {
            assert!(comparison.difference(&other).is_some(), "{name}");
            assert!(other.difference(comparison).is_some(), "{name}");
            planted += 2;
        }
    }
    planted
}

/// Plants errors into one of two computations: the first is judged, and the second must be equal to it.
fn plant_once(label: &str, computed: &Computed) {
    let healthy = || computed.clone();
    let failed = |first: Computed, again: &Computed| {
        let findings = judge(first, Some(again));
        findings.outcomes.iter().filter(|o| !o.passed()).count()
    };
    assert_eq!(failed(healthy(), &healthy()), 0, "{label}");
    for change in [
        (|f| f.values.iter_mut().for_each(|v| *v *= 1.5)) as fn(&mut Array),
        |f| f.values.iter_mut().for_each(|v| *v = f64::NAN),
    ] {
        let mut wrong = healthy();
        let comparisons = wrong.comparisons.iter_mut();
        let target = comparisons
            .filter_map(|c| Some((changed(c, change).filter(|c| !c.outcome().passed())?, c)))
            .last();
        let Some((error, place)) = target else {
            continue; // the file has only verdicts
        };
        *place = error;
        // An error in the first computation deviates and is not repeated; one in the second is only not repeated.
        assert_eq!(failed(wrong.clone(), &healthy()), 2, "{label}");
        assert_eq!(failed(healthy(), &wrong), 1, "{label}");
    }
    if computed.comparisons.len() > 1 {
        let mut shorter = healthy();
        shorter.comparisons.pop();
        assert_eq!(failed(healthy(), &shorter), 1, "{label}");
    }
}

#[test]
fn every_error_of_one_result_is_found() {
    let mut planted = 0;
    for path in files() {
        let label = path.display().to_string();
        let computed = computed(&path);
        planted += plant_all(&label, &computed);
        plant_once(&label, &computed);
    }
    assert!(planted > 5000, "{planted}");
}

/// At published size, gradients have loose limits, but every activation and loss has a tight one.
#[test]
fn every_error_of_one_result_is_found_at_published_size() {
    let shared = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/vectors");
    for name in ["zegclip/full_zegclip_voc", "clip-rc/full_cliprc_voc"] {
        let path = shared.join(name).with_extension("safetensors");
        if path.exists() {
            let computed = computed(&path);
            let planted = plant_all(name, &computed);
            plant_once(name, &computed);
            assert!(planted > 500, "{name}: {planted}");
        }
    }
}
