//! Compares one file: every tensor is an input, a weight, or a result that is recomputed and compared.
//!
//! A [`Check`] collects the results of one computation with their references. [`judge`] compares the first computation
//! with the limits, and the second with the first, bit by bit.

use std::collections::BTreeSet;

use super::{
    ParityError,
    array::Array,
    file::VectorFile,
    limit::{Limit, deviation},
    planted::PlantedError,
};

/// Name prefixes of tensors that others are computed from.
const INPUTS: [&str; 3] = ["in.", "state.", "state@"];

/// A result with its reference, not yet judged.
#[derive(Debug, Clone)]
pub(crate) struct Comparison {
    /// Name of the tensor, or of the entry of the description.
    pub(crate) name: String,
    /// The limit of the deviation.
    pub(crate) limit: Limit,
    /// The values to compare.
    pub(crate) content: Content,
}

/// The content of a comparison.
#[derive(Debug, Clone)]
pub(crate) enum Content {
    /// A result and its reference.
    Values { reference: Array, found: Array },
    /// A deviation that the caller measured, and the result that it was measured on.
    Measured { deviation: f64, found: Array },
    /// The reason why a yes-or-no property is wrong; `None` if it is right.
    Verdict(Option<String>),
}

impl Comparison {
    /// Compares the result with its limit.
    pub(crate) fn outcome(&self) -> Outcome {
        let measured = match &self.content {
            Content::Values { reference, found } => deviation(reference, found, self.limit),
            Content::Measured { deviation, found } => {
                match found.values.iter().position(|value| !value.is_finite()) {
                    Some(position) => Err(format!("is {} at {position}", found.values[position])),
                    None => Ok(*deviation),
                }
            }
            Content::Verdict(None) => Ok(0.0),
            Content::Verdict(Some(problem)) => Err(problem.clone()),
        };
        let (deviation, problem) = match measured {
            Ok(deviation) => (deviation, None),
            Err(problem) => (f64::INFINITY, Some(problem)),
        };
        Outcome {
            name: self.name.clone(),
            limit: self.limit,
            deviation,
            problem,
        }
    }

    /// Returns the first difference of a second computation from this one; `None` if all bits are equal.
    pub(crate) fn difference(&self, again: &Self) -> Option<String> {
        if self.name != again.name {
            return Some(format!("{} was computed in its place", again.name));
        }
        let (first, second) = match (&self.content, &again.content) {
            (Content::Values { found: first, .. }, Content::Values { found: second, .. })
            | (Content::Measured { found: first, .. }, Content::Measured { found: second, .. }) => {
                (first, second)
            }
            (Content::Verdict(first), Content::Verdict(second)) if first == second => return None,
            _ => return Some("the verdict differs".into()),
        };
        if first.shape != second.shape {
            return Some(format!("shape {:?}, then {:?}", first.shape, second.shape));
        }
        let mut pairs = first.values.iter().zip(&second.values);
        let position = pairs.position(|(a, b)| a.to_bits() != b.to_bits())?;
        let (first, second) = (first.values[position], second.values[position]);
        Some(format!("{first} at {position}, then {second}"))
    }
}

/// A judged comparison.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    /// Name of the tensor, or of the entry of the description.
    pub(crate) name: String,
    /// The limit of the deviation.
    pub(crate) limit: Limit,
    /// The deviation in the limit's measure; NaN and infinity fail.
    pub(crate) deviation: f64,
    /// The reason why there is no deviation: no result, another shape, or a value that is not finite.
    pub(crate) problem: Option<String>,
}

impl Outcome {
    /// Returns whether the result is within its limit.
    pub(crate) fn passed(&self) -> bool {
        self.problem.is_none() && self.deviation <= self.limit.value()
    }

    /// Returns the deviation as a share of its limit, which is comparable between measures.
    pub(crate) fn share(&self) -> f64 {
        let share = self.deviation / self.limit.value();
        match self.limit {
            _ if self.problem.is_some() => f64::INFINITY,
            _ if self.deviation == 0.0 => 0.0,
            _ if share.is_nan() => f64::INFINITY,
            _ => share,
        }
    }
}

/// The results of one computation of a file.
#[derive(Debug, Clone, Default)]
pub(crate) struct Computed {
    /// Results with their references, in the order of their computation.
    pub(crate) comparisons: Vec<Comparison>,
    /// Inputs and weights of the file that are not compared.
    pub(crate) inputs: Vec<String>,
    /// Notes, each for a line of the report.
    pub(crate) notes: Vec<String>,
}

/// The findings of one file.
#[derive(Debug, Default)]
pub(crate) struct Findings {
    /// Outcomes of the first computation, then one for every result that differs in the second computation.
    pub(crate) outcomes: Vec<Outcome>,
    /// Inputs and weights of the file, which are neither counted nor judged.
    pub(crate) inputs: Vec<String>,
    /// Notes, each for a line of the report.
    pub(crate) notes: Vec<String>,
    /// Number of results that a second computation reproduced bit by bit.
    pub(crate) repeated: usize,
}

/// Judges a file: the first computation is compared with the references, and a second one must give the same bits.
///
/// - `again`: the second computation; `None`: repetition is not checked
pub(crate) fn judge(first: Computed, again: Option<&Computed>) -> Findings {
    let mut outcomes: Vec<Outcome> = first.comparisons.iter().map(Comparison::outcome).collect();
    let mut repeated = 0;
    if let Some(again) = again {
        let problem = |name: String, difference: String| Outcome {
            name,
            limit: Limit::Exact,
            deviation: f64::INFINITY,
            problem: Some(format!("changes when it is computed again: {difference}")),
        };
        for (one, other) in first.comparisons.iter().zip(&again.comparisons) {
            match one.difference(other) {
                None => repeated += 1,
                Some(difference) => {
                    outcomes.push(problem(format!("{} (again)", one.name), difference));
                }
            }
        }
        let (count, count_again) = (first.comparisons.len(), again.comparisons.len());
        if count != count_again {
            let difference = format!("{count} results, then {count_again}");
            outcomes.push(problem("(again)".into(), difference));
        }
    }
    Findings {
        outcomes,
        inputs: first.inputs,
        notes: first.notes,
        repeated,
    }
}

/// The comparison of one file, while it is computed.
pub(crate) struct Check<'a> {
    file: &'a VectorFile,
    /// Tensors that were read as inputs of the computation.
    read: BTreeSet<String>,
    /// Tensors that were compared, under their own name or one derived from it.
    compared: BTreeSet<String>,
    computed: Computed,
    planted: Option<PlantedError>,
}

impl<'a> Check<'a> {
    /// Starts the comparison of a file.
    pub(crate) fn new(file: &'a VectorFile, planted: Option<PlantedError>) -> Self {
        Self {
            file,
            read: BTreeSet::new(),
            compared: BTreeSet::new(),
            computed: Computed::default(),
            planted,
        }
    }

    /// Returns the file.
    pub(crate) fn file(&self) -> &'a VectorFile {
        self.file
    }

    /// Returns the error that a test plants into this computation.
    pub(crate) fn planted(&self) -> Option<PlantedError> {
        self.planted
    }

    /// Returns whether any result so far exceeds its limit.
    pub(crate) fn deviates(&self) -> bool {
        let mut comparisons = self.computed.comparisons.iter();
        comparisons.any(|comparison| !comparison.outcome().passed())
    }

    /// Returns a tensor to compute from; it is not compared.
    pub(crate) fn input(&mut self, name: &str) -> Result<&'a Array, ParityError> {
        let array = self.file.tensors.get(name);
        let array = array.ok_or_else(|| self.tensor_error(name, "is missing"))?;
        self.read.insert(name.to_owned());
        Ok(array)
    }

    /// Returns a tensor that the caller compares itself.
    pub(crate) fn reference(&mut self, name: &str) -> Option<&'a Array> {
        let array = self.file.tensors.get(name)?;
        self.compared.insert(name.to_owned());
        Some(array)
    }

    /// Returns whether the file has a tensor of this name.
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
        let content = Content::Values {
            reference: reference.clone(),
            found: found.clone(),
        };
        self.add(name, limit, content);
    }

    /// Adds a result whose deviation the caller measured.
    pub(crate) fn measured(&mut self, name: &str, limit: Limit, deviation: f64, found: Array) {
        self.add(name, limit, Content::Measured { deviation, found });
    }

    /// Adds a yes-or-no property, which passes if `problem` is `None`.
    pub(crate) fn verdict(&mut self, name: &str, problem: Option<String>) {
        self.add(name, Limit::Exact, Content::Verdict(problem));
    }

    fn add(&mut self, name: &str, limit: Limit, content: Content) {
        self.computed.comparisons.push(Comparison {
            name: name.to_owned(),
            limit,
            content,
        });
    }

    /// Declares that all tensors that are not compared are weights that other files are computed from.
    pub(crate) fn rest_are_weights(&mut self) {
        self.read.extend(self.file.tensors.keys().cloned());
    }

    /// Adds a line to the report.
    pub(crate) fn note(&mut self, text: String) {
        self.computed.notes.push(text);
    }

    /// Ends the computation; a tensor that is neither an input nor was compared fails.
    pub(crate) fn finish(mut self) -> Computed {
        for name in self.file.tensors.keys() {
            if self.compared.contains(name) {
                continue;
            }
            if is_input(name) || self.read.contains(name) {
                self.computed.inputs.push(name.clone());
            } else {
                let problem = "there is no result of this name".to_owned();
                self.computed.comparisons.push(Comparison {
                    name: name.clone(),
                    limit: Limit::Exact,
                    content: Content::Verdict(Some(problem)),
                });
            }
        }
        self.computed
    }

    /// Returns an error about a tensor of the file.
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
