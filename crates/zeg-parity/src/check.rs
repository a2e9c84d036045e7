//! Comparing one file: every tensor ends as compared, as an input, or as not recomputed with the reason.

use std::collections::{BTreeMap, BTreeSet};

use super::{ParityError, array::Array, file::VectorFile, rounding::with_jumps};

/// Tensors that others are computed from.
const INPUTS: [&str; 3] = ["in.", "state.", "state@"];

/// How far a result may be from its reference.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) enum Limit {
    /// Largest difference over the root mean square of the reference (over 1 where that is 0).
    OfRms(f64),
    /// Largest difference over the largest value of the reference (over 1 where that is 0).
    OfMax(f64),
    /// Largest difference of a value over that value in the reference.
    Relative(f64),
    /// Largest difference.
    Absolute(f64),
    /// No value may differ; the deviation is the number of those that do.
    Exact,
}

impl Limit {
    /// Activations and losses. Two builds of the reference differ by 7e-6 (spec of the reference, section 16).
    pub(crate) const ACTIVATION: Self = Self::OfRms(3e-5);
    /// Gradients. Two builds of the reference differ by 1.4e-5.
    pub(crate) const GRADIENT: Self = Self::OfRms(1e-4);

    /// The deviation up to which a comparison passes.
    pub(crate) fn value(self) -> f64 {
        match self {
            Self::OfRms(limit)
            | Self::OfMax(limit)
            | Self::Relative(limit)
            | Self::Absolute(limit) => limit,
            Self::Exact => 0.0,
        }
    }
}

/// One comparison.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// The tensor, or the entry of the description.
    pub(crate) name: String,
    /// What it was held to.
    pub(crate) limit: Limit,
    /// In the limit's measure; not a number and infinity fail.
    pub(crate) deviation: f64,
    /// Why there is no deviation to speak of: no result, another shape, not a number.
    pub(crate) problem: Option<String>,
}

impl Outcome {
    /// Whether the result is close enough.
    pub(crate) fn passed(&self) -> bool {
        self.problem.is_none() && self.deviation <= self.limit.value()
    }

    /// The deviation as a share of what is allowed; comparable between measures.
    pub(crate) fn share(&self) -> f64 {
        let share = self.deviation / self.limit.value();
        match self.limit {
            _ if self.deviation == 0.0 && self.problem.is_none() => 0.0,
            _ if self.problem.is_some() || share.is_nan() => f64::INFINITY,
            _ => share,
        }
    }
}

/// What was found in one file.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Comparisons, in the order they were made.
    pub(crate) outcomes: Vec<Outcome>,
    /// Tensors that were not recomputed, with the reason.
    pub(crate) left_out: Vec<(String, String)>,
    /// Things worth a line of their own.
    pub(crate) notes: Vec<String>,
}

/// A file in comparison.
pub(crate) struct Check<'a> {
    file: &'a VectorFile,
    used: BTreeSet<String>,
    findings: Findings,
    /// Beginnings of names whose deviating outcomes a better one replaces; others stand. `None` the first time.
    retried: Option<Vec<String>>,
    /// Values of results that deviated, in every rounding so far.
    roundings: BTreeMap<String, Vec<Vec<f64>>>,
}

impl<'a> Check<'a> {
    /// Nothing is compared yet.
    pub(crate) fn new(file: &'a VectorFile) -> Self {
        Self {
            file,
            used: BTreeSet::new(),
            findings: Findings::default(),
            retried: None,
            roundings: BTreeMap::new(),
        }
    }

    /// From here on outcomes count only where there is one of that name that deviates, whose name starts with one of
    /// these, and in its place if they are better. With `None` all count again.
    pub(crate) fn retry(&mut self, prefixes: Option<&[&str]>) {
        let owned = |prefixes: &[&str]| prefixes.iter().map(|&p| p.to_owned()).collect();
        self.retried = prefixes.map(owned);
    }

    /// How many outcomes with such names deviate.
    pub(crate) fn deviating(&self, prefixes: &[&str]) -> usize {
        let outcomes = self.findings.outcomes.iter();
        outcomes
            .filter(|o| !o.passed() && prefixes.iter().any(|prefix| o.name.starts_with(prefix)))
            .count()
    }

    /// The file.
    pub(crate) fn file(&self) -> &'a VectorFile {
        self.file
    }

    /// A tensor to compute from; it is not compared.
    pub(crate) fn input(&mut self, name: &str) -> Result<&'a Array, ParityError> {
        self.reference(name)
            .ok_or_else(|| self.tensor_error(name, "is missing"))
    }

    /// A tensor that the caller compares itself, or an input that may be missing.
    pub(crate) fn reference(&mut self, name: &str) -> Option<&'a Array> {
        let array = self.file.tensors.get(name)?;
        self.used.insert(name.to_owned());
        Some(array)
    }

    /// Whether the file has a tensor of this name.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.file.tensors.contains_key(name)
    }

    /// Compares a result with the tensor of its name, if the file has one.
    pub(crate) fn compare(&mut self, name: &str, found: &Array, limit: Limit) {
        if let Some(reference) = self.reference(name) {
            self.compare_value(name, reference, found, limit);
        }
    }

    /// Compares a result with a reference from elsewhere, such as the description.
    pub(crate) fn compare_value(
        &mut self,
        name: &str,
        reference: &Array,
        found: &Array,
        limit: Limit,
    ) {
        let (deviation, problem) = match deviation(reference, found, limit) {
            Ok(deviation) => (deviation, None),
            Err(problem) => (f64::INFINITY, Some(problem)),
        };
        let deviates = problem.is_none() && deviation > limit.value();
        self.outcome(name, limit, deviation, problem);
        if deviates && matches!(limit, Limit::OfRms(_)) {
            self.with_jumps(name, reference, found, limit);
        }
    }

    /// Compares a result that deviates again, with the jumps that other roundings of it had.
    fn with_jumps(&mut self, name: &str, reference: &Array, found: &Array, limit: Limit) {
        let results = self.roundings.entry(name.to_owned()).or_default();
        results.push(found.values.clone());
        if self.retried.is_none() {
            return;
        }
        if let Some(found) = with_jumps(reference, results)
            && let Ok(deviation) = deviation(reference, &found, limit)
        {
            self.outcome(name, limit, deviation, None);
        }
    }

    /// Notes a comparison that the caller made.
    pub(crate) fn outcome(
        &mut self,
        name: &str,
        limit: Limit,
        deviation: f64,
        problem: Option<String>,
    ) {
        let outcome = Outcome {
            name: name.to_owned(),
            limit,
            deviation,
            problem,
        };
        let Some(retried) = &self.retried else {
            self.findings.outcomes.push(outcome);
            return;
        };
        let mut before = self.findings.outcomes.iter_mut();
        if retried.iter().any(|prefix| name.starts_with(prefix))
            && let Some(before) = before.find(|before| before.name == name)
            && !before.passed()
            && outcome.share() < before.share()
        {
            *before = outcome;
        }
    }

    /// Compares yes with no: passes if `problem` is `None`.
    pub(crate) fn verdict(&mut self, name: &str, problem: Option<String>) {
        let deviation = if problem.is_some() {
            f64::INFINITY
        } else {
            0.0
        };
        self.outcome(name, Limit::Exact, deviation, problem);
    }

    /// Says why all tensors that start like this, and were not compared so far, are not recomputed.
    pub(crate) fn leave_out(&mut self, prefix: &str, reason: &str) {
        let names = self.file.tensors.keys();
        for name in names.filter(|name| name.starts_with(prefix)) {
            if !is_input(name) && self.used.insert(name.clone()) {
                let entry = (name.clone(), reason.to_owned());
                self.findings.left_out.push(entry);
            }
        }
    }

    /// A line for the report.
    pub(crate) fn note(&mut self, text: String) {
        self.findings.notes.push(text);
    }

    /// Ends the comparison. Of the tensors that were not met, those that start with one of `computed` should have
    /// been and fail; the others are listed as unknown.
    pub(crate) fn finish(mut self, computed: &[&str]) -> Findings {
        for name in self.file.tensors.keys() {
            if is_input(name) || self.used.contains(name) {
                continue;
            }
            let expected = computed.iter().any(|prefix| name.starts_with(prefix));
            if expected {
                self.findings.outcomes.push(Outcome {
                    name: name.clone(),
                    limit: Limit::Exact,
                    deviation: f64::INFINITY,
                    problem: Some("there is no result of this name".into()),
                });
            } else {
                let reason = "its name is not known".to_owned();
                self.findings.left_out.push((name.clone(), reason));
            }
        }
        self.findings
    }

    /// An error about a tensor of the file.
    pub(crate) fn tensor_error(&self, name: &str, reason: &str) -> ParityError {
        ParityError::Tensor {
            path: self.file.path.clone(),
            name: name.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

fn is_input(name: &str) -> bool {
    INPUTS.iter().any(|prefix| name.starts_with(prefix))
}

/// How far a result is from its reference, in the measure of the limit.
#[allow(clippy::float_cmp)] // labels and ids are compared exactly, and equal infinities are equal
fn deviation(reference: &Array, found: &Array, limit: Limit) -> Result<f64, String> {
    if reference.shape != found.shape {
        return Err(format!(
            "has shape {:?}, the reference {:?}",
            found.shape, reference.shape
        ));
    }
    let pairs = || reference.values.iter().zip(&found.values);
    if let Some(position) = pairs().position(|(r, f)| !f.is_finite() && f.to_bits() != r.to_bits())
    {
        return Err(format!("is {} at {position}", found.values[position]));
    }
    if limit == Limit::Exact {
        return Ok(pairs().filter(|(r, f)| r != f).count() as f64);
    }
    let unit = match limit {
        Limit::OfRms(_) => match reference.rms() {
            0.0 => 1.0,
            rms => rms,
        },
        Limit::OfMax(_) => match reference.largest() {
            0.0 => 1.0,
            largest => largest,
        },
        _ => 1.0,
    };
    let distance = |(reference, found): (&f64, &f64)| match limit {
        _ if reference == found => 0.0,
        Limit::Relative(_) => ((found - reference) / reference).abs(),
        _ => (found - reference).abs() / unit,
    };
    // Not a number in the reference alone stays one here, and fails.
    let larger = |a: f64, b: f64| if b > a || b.is_nan() { b } else { a };
    Ok(pairs().map(distance).fold(0.0, larger))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(reference: &[f64], found: &[f64], limit: Limit) -> Result<f64, String> {
        let (reference, found) = (Array::row(reference.to_vec()), Array::row(found.to_vec()));
        deviation(&reference, &found, limit)
    }

    #[test]
    fn a_deviation_is_relative_to_the_root_mean_square() {
        let deviation = measured(&[3.0, -4.0], &[3.0, -4.5], Limit::ACTIVATION).unwrap();
        assert!((deviation - 0.5 / 12.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(measured(&[0.0], &[0.25], Limit::ACTIVATION), Ok(0.25));
        assert_eq!(measured(&[1.0, 2.0], &[1.0, 5.0], Limit::Exact), Ok(1.0));
        let relative = Limit::Relative(1e-3);
        assert_eq!(measured(&[4.0, 0.5], &[4.0, 0.25], relative), Ok(0.5));
    }

    #[test]
    fn a_deviation_can_be_relative_to_the_largest_value() {
        let limit = Limit::OfMax(2e-4);
        assert_eq!(measured(&[3.0, -4.0], &[3.5, -4.0], limit), Ok(0.125));
        assert_eq!(measured(&[0.0], &[0.25], limit), Ok(0.25));
    }

    #[test]
    fn results_without_a_number_or_with_another_shape_never_pass() {
        assert!(measured(&[1.0], &[f64::NAN], Limit::ACTIVATION).is_err());
        assert!(measured(&[1.0], &[1.0, 1.0], Limit::ACTIVATION).is_err());
        for reference in [f64::NAN, f64::INFINITY] {
            let outcome = Outcome {
                name: String::new(),
                limit: Limit::ACTIVATION,
                deviation: measured(&[reference], &[1.0], Limit::ACTIVATION).unwrap(),
                problem: None,
            };
            assert!(!outcome.passed(), "{reference}");
        }
    }
}
