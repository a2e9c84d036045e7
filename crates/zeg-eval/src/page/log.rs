//! Reads training logs: one JSON object per line.

use std::collections::BTreeMap;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::EvalError;
use crate::record::read_limited;

/// Largest size of a log in bytes; 80,000 steps take about 10 million.
const MAX_LOG_BYTES: u64 = 256 << 20;

/// One step of a training log; `None` for values that are missing or not numbers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CurvePoint {
    /// The step, from 0.
    pub step: u64,
    /// Sum of the loss terms.
    #[serde(default)]
    pub loss: Option<f64>,
    /// Learning rate.
    #[serde(default)]
    pub lr: Option<f64>,
    /// All other values of the line, such as the loss terms by name.
    #[serde(flatten)]
    pub more: BTreeMap<String, Value>,
}

impl CurvePoint {
    /// Returns the loss terms by name: all other numbers of the line except `seconds`.
    pub fn terms(&self) -> impl Iterator<Item = (&str, f64)> {
        let terms = self.more.iter().filter(|(name, _)| *name != "seconds");
        terms.filter_map(|(name, value)| Some((name.as_str(), value.as_f64()?)))
    }
}

/// Reads the `log.jsonl` of a training and returns its steps in order.
///
/// A training that was interrupted and resumed repeats steps; the last line of a step is used. An incomplete last line
/// is ignored.
///
/// # Errors
/// Returns [`EvalError::Unreadable`], [`EvalError::FileTooLarge`], or [`EvalError::LogLine`] for a line that is not a
/// training step, unless it is an incomplete last line.
pub fn read_log(path: impl AsRef<Path>) -> Result<Vec<CurvePoint>, EvalError> {
    let path = path.as_ref();
    let text = read_limited(path, MAX_LOG_BYTES)?;
    let mut points = BTreeMap::new();
    let mut lines = text.split(|byte| *byte == b'\n').enumerate().peekable();
    while let Some((number, line)) = lines.next() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        match serde_json::from_slice::<CurvePoint>(line) {
            Ok(point) => {
                points.insert(point.step, point);
            }
            // The last line has no line end: the writer was interrupted.
            Err(_) if lines.peek().is_none() => {}
            Err(source) => {
                return Err(EvalError::LogLine {
                    path: path.into(),
                    line: number + 1,
                    source,
                });
            }
        }
    }
    Ok(points.into_values().collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<CurvePoint>, EvalError> {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("log.jsonl");
        std::fs::write(&path, text).unwrap();
        read_log(&path)
    }

    #[test]
    fn steps_are_read_in_order_and_the_last_line_of_a_step_is_used() {
        let points = read(concat!(
            "{\"step\":1,\"lr\":2e-4,\"loss\":3.5,\"focal\":2.5,\"dice\":1.0,\"seconds\":0.4}\n",
            "{\"step\":2,\"loss\":null}\n",
            "\n",
            "{\"step\":1,\"loss\":3.0}\n",
            "{\"step\":3,\"lo"
        ))
        .unwrap();
        let values: Vec<_> = points
            .iter()
            .map(|point| (point.step, point.loss))
            .collect();
        assert_eq!(values, [(1, Some(3.0)), (2, None)]);
    }

    #[test]
    fn terms_are_the_numbers_by_name() {
        let points = read(
            "{\"step\":1,\"loss\":3.5,\"recovery-dice\":2.5,\"note\":\"x\",\"seconds\":0.4}\n",
        );
        let points = points.unwrap();
        assert_eq!(
            points[0].terms().collect::<Vec<_>>(),
            [("recovery-dice", 2.5)]
        );
    }

    #[test]
    fn a_line_that_is_not_a_step_is_an_error() {
        for text in [
            "{}\n",
            "1\n{\"step\":1}",
            "{\"step\":-1}\n",
            "{\"step\":1}}\n{\"step\":2}\n",
            "\u{0}\n",
        ] {
            assert!(
                matches!(read(text), Err(EvalError::LogLine { .. })),
                "{text:?}"
            );
        }
        assert!(matches!(
            read_log("no such file"),
            Err(EvalError::Unreadable { .. })
        ));
    }
}
