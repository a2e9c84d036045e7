//! The reliability plot: accuracy by confidence, one line per evaluation that measured the confidence.
//!
//! As for training curves, only the lines are drawn, in a square of 1000 units, and labels are text of the page.

use std::fmt::Write as _;

use super::curves::Label;
use super::text::percent;
use crate::Report;
use crate::reliability::{ConfidenceReport, Rejection};

/// Side of the square in which lines are drawn.
const SIDE: f64 = 1000.0;
/// Confidence and accuracy at which the axes have labels.
const LABELS: [f64; 5] = [0.0, 0.25, 0.5, 0.75, 1.0];

/// The plot and the numbers beside it.
pub(super) struct ReliabilityPlot {
    pub(super) lines: Vec<ReliabilityLine>,
    pub(super) y_labels: Vec<Label>,
    pub(super) x_labels: Vec<Label>,
}

/// The line of one evaluation.
pub(super) struct ReliabilityLine {
    /// Index of the evaluation, from 0.
    pub(super) run: usize,
    pub(super) name: String,
    /// SVG path.
    pub(super) path: String,
    /// Sentence with the calibration error.
    pub(super) error: String,
    pub(super) thresholds: Vec<ThresholdRow>,
    /// Alternative text of the line.
    pub(super) alt: String,
}

/// What a threshold leaves unlabelled, in percent.
pub(super) struct ThresholdRow {
    pub(super) threshold: String,
    pub(super) known: String,
    /// A dash if no class was left out.
    pub(super) absent: String,
    pub(super) right: String,
}

impl ThresholdRow {
    fn of(found: &Rejection) -> Self {
        Self {
            threshold: found.threshold.to_string(),
            known: percent(Some(found.known)),
            absent: percent(found.absent),
            right: percent(found.right),
        }
    }
}

impl ReliabilityPlot {
    /// Returns the plot; `None` if no evaluation measured the confidence.
    ///
    /// - `names`: the name of every evaluation
    pub(super) fn of(reports: &[Report], names: &[String]) -> Option<Self> {
        let measured = reports.iter().zip(names).enumerate();
        let lines: Vec<ReliabilityLine> = measured
            .filter_map(|(run, (report, name))| Some(line(run, name, report.confidence.as_ref()?)))
            .collect();
        let label = |at: f64, position: f64| Label {
            position: format!("{position:.1}"),
            text: format!("{at}"),
        };
        (!lines.is_empty()).then(|| Self {
            lines,
            y_labels: LABELS.map(|at| label(at, 100.0 * (1.0 - at))).into(),
            x_labels: LABELS.map(|at| label(at, 100.0 * at)).into(),
        })
    }
}

fn line(run: usize, name: &str, found: &ConfidenceReport) -> ReliabilityLine {
    let (mut path, mut alt) = (
        String::new(),
        format!("{name}: accuracy by confidence in percent"),
    );
    for (number, part) in found.parts.iter().enumerate() {
        let command = if number == 0 { 'M' } else { 'L' };
        let (x, y) = (SIDE * part.confidence, SIDE * (1.0 - part.accuracy));
        // Writing to a string cannot fail.
        let _ = write!(path, "{command}{x:.1} {y:.1}");
        let _ = write!(
            alt,
            "{} {:.0}: {:.0}",
            if number == 0 { ":" } else { "," },
            100.0 * part.confidence,
            100.0 * part.accuracy
        );
    }
    let mut error = format!(
        "Expected calibration error {} %",
        percent(found.calibration_error)
    );
    if let Some(before) = found.uncalibrated_error {
        let _ = write!(
            error,
            ", without the calibration {} %",
            percent(Some(before))
        );
    }
    ReliabilityLine {
        run,
        name: name.to_owned(),
        path,
        error,
        thresholds: found.thresholds.iter().map(ThresholdRow::of).collect(),
        alt,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{ConfusionMatrix, Reliability, reliability::Truth};

    #[test]
    fn a_line_goes_through_the_parts_and_nothing_is_drawn_without_counts() {
        let mut report = Report::new(&ConfusionMatrix::new(1), &["a"], &[false], 1).unwrap();
        let names = ["run".to_owned()];
        assert!(ReliabilityPlot::of(std::slice::from_ref(&report), &names).is_none());
        let mut counts = Reliability::default();
        counts.add(0.5, Truth::Right);
        counts.add(0.5, Truth::Wrong);
        report.confidence = Some(ConfidenceReport::of(&counts, None));
        let plot = ReliabilityPlot::of(&[report], &names).unwrap();
        assert_eq!(plot.lines[0].path, "M500.0 500.0");
        assert!(
            plot.lines[0].error.contains("0.00"),
            "{}",
            plot.lines[0].error
        );
        assert_eq!(plot.lines[0].thresholds.len(), 5);
    }
}
