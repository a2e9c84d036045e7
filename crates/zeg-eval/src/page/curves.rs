//! Training curves: loss, loss terms and learning rate.
//!
//! A plotting crate would draw an image with a fixed text size and the colours of one theme. Here only the lines are
//! drawn, as paths in a square of 1000 units that the page stretches. Labels are text of the page and stay readable on
//! a phone and in the dark theme. A log has tens of thousands of steps and a screen about a thousand columns, so each
//! column keeps its smallest and its largest value, and no spike is lost.

use std::{collections::BTreeSet, fmt::Write as _};

use super::RunInput;
use super::log::CurvePoint;

/// Number of columns of the drawn line; each has at most two points.
const COLUMNS: usize = 400;
/// Number of columns of the smoothed line.
const SMOOTH_COLUMNS: usize = 60;
/// Smallest ratio of the largest to the smallest smoothed value for which the axis is logarithmic.
const LOG_RATIO: f64 = 20.0;
/// Id of the learning rate, which has no noise to smooth and whose axis begins at 0.
const EXACT: &str = "lr";
/// Largest number of loss terms that get a chart.
const MOST_TERMS: usize = 12;
/// Side of the square in which lines are drawn.
const SIDE: f64 = 1000.0;
/// Approximate number of labels of an axis.
const LABELS: f64 = 5.0;

/// One chart.
pub(super) struct Chart {
    pub(super) title: String,
    /// Id for the markup of the page.
    pub(super) id: String,
    pub(super) logarithmic: bool,
    pub(super) series: Vec<Series>,
    /// Labels of the axes; positions in percent from the top and from the left.
    pub(super) y_labels: Vec<Label>,
    pub(super) x_labels: Vec<Label>,
    /// Alternative text.
    pub(super) alt: String,
}

/// The line of one run.
pub(super) struct Series {
    /// Index of the run, from 0.
    pub(super) run: usize,
    /// SVG path of the values.
    pub(super) line: String,
    /// SVG path of the smoothed values; `None` if there are few values.
    pub(super) smooth: Option<String>,
}

pub(super) struct Label {
    pub(super) position: String,
    pub(super) text: String,
}

/// Step and value.
type Point = (u64, f64);

/// The quantity that a chart shows.
enum Kind {
    Loss,
    /// A loss term, by its name in the log.
    Term(String),
    LearningRate,
}

impl Kind {
    fn title(&self) -> String {
        match self {
            Self::Loss => "Loss".to_owned(),
            Self::Term(name) => {
                let mut letters = name.chars();
                let first = letters.next().map(char::to_uppercase);
                let first: String = first.into_iter().flatten().collect();
                format!("{first}{} term", letters.as_str()).replace(['-', '_'], " ")
            }
            Self::LearningRate => "Learning rate".to_owned(),
        }
    }

    /// Returns the id for the markup of the page.
    fn id(&self) -> &str {
        match self {
            Self::Loss => "loss",
            Self::Term(name) => name,
            Self::LearningRate => EXACT,
        }
    }

    fn value(&self, point: &CurvePoint) -> Option<f64> {
        match self {
            Self::Loss => point.loss,
            Self::Term(name) => point.more.get(name)?.as_f64(),
            Self::LearningRate => point.lr,
        }
    }
}

/// Returns the charts of the logs: the loss, each loss term, and the learning rate.
pub(super) fn charts(runs: &[RunInput]) -> Vec<Chart> {
    let points = || runs.iter().flat_map(|run| &run.curves);
    let terms: BTreeSet<&str> = points()
        .flat_map(CurvePoint::terms)
        .map(|(name, _)| name)
        .collect();
    let terms = terms.into_iter().take(MOST_TERMS);
    let mut kinds = vec![Kind::Loss];
    kinds.extend(terms.map(|name| Kind::Term(name.to_owned())));
    kinds.push(Kind::LearningRate);
    let chart = |kind: &Kind| {
        let series = runs.iter().enumerate().map(|(run, input)| {
            let points = input.curves.iter();
            let points = points.filter_map(|point| Some((point.step, kind.value(point)?)));
            let mut points: Vec<Point> = points.filter(|(_, value)| value.is_finite()).collect();
            points.sort_by_key(|(step, _)| *step);
            (run, points)
        });
        let series: Vec<(usize, Vec<Point>)> =
            series.filter(|(_, points)| points.len() > 1).collect();
        draw(&kind.title(), kind.id(), &series)
    };
    kinds.iter().filter_map(chart).collect()
}

fn draw(title: &str, id: &str, series: &[(usize, Vec<Point>)]) -> Option<Chart> {
    let steps = || {
        series
            .iter()
            .flat_map(|(_, points)| points.iter().map(|(step, _)| *step))
    };
    let (first, last) = (steps().min()?, steps().max()?);
    let (x_first, x_last) = (first as f64, last as f64);
    let smoothed: Vec<Vec<Point>> = series
        .iter()
        .map(|(_, points)| means(points, first, last))
        .collect();
    let lowest = |points: &mut dyn Iterator<Item = f64>| points.fold(f64::INFINITY, f64::min);
    let highest = |points: &mut dyn Iterator<Item = f64>| points.fold(f64::NEG_INFINITY, f64::max);
    let smooth_values = || smoothed.iter().flatten().map(|(_, value)| *value);
    let values = || {
        series
            .iter()
            .flat_map(|(_, points)| points.iter().map(|(_, value)| *value))
    };
    let (low, high) = (lowest(&mut values()), highest(&mut values()));
    let (smooth_low, smooth_high) = (lowest(&mut smooth_values()), highest(&mut smooth_values()));
    let logarithmic = low > 0.0 && smooth_high > LOG_RATIO * smooth_low && id != EXACT;
    let axis = if logarithmic {
        Axis::log(low, high)
    } else {
        Axis::linear(low.min(0.0), high)
    };
    let x_axis = Axis {
        low: x_first,
        high: x_last,
        logarithmic: false,
        ticks: ticks(x_first, x_last),
    };
    let path = |points: &[Point]| {
        let mut path = String::new();
        for (step, value) in points {
            let letter = if path.is_empty() { 'M' } else { 'L' };
            let (x, y) = (
                SIDE * x_axis.place(*step as f64),
                SIDE * (1.0 - axis.place(*value)),
            );
            // Writing to a string cannot fail.
            let _ = write!(path, "{letter}{x:.1} {y:.1}");
        }
        path
    };
    let lines = series
        .iter()
        .zip(&smoothed)
        .map(|((run, points), smooth)| Series {
            run: *run,
            line: path(&thinned(points, first, last)),
            smooth: (points.len() > 2 * SMOOTH_COLUMNS && id != EXACT).then(|| path(smooth)),
        });
    let ends: Vec<String> = smoothed
        .iter()
        .filter_map(|points| {
            let ((_, begin), (_, end)) = (points.first()?, points.last()?);
            Some(format!("{} to {}", short(*begin), short(*end)))
        })
        .collect();
    Some(Chart {
        title: title.to_owned(),
        id: id.to_owned(),
        logarithmic,
        series: lines.collect(),
        y_labels: axis.labels(|place| 1.0 - place),
        x_labels: x_axis.labels(|place| place),
        alt: format!("{title} from step {first} to {last}: {}", ends.join("; ")),
    })
}

/// Returns the column of a step, below `columns`.
fn column(step: u64, first: u64, last: u64, columns: usize) -> usize {
    let span = (last.saturating_sub(first)) as f64;
    let place = step.saturating_sub(first) as f64 / span.max(1.0);
    ((place * columns as f64) as usize).min(columns.saturating_sub(1))
}

/// Returns the smallest and the largest value of every column, in the order of steps.
fn thinned(points: &[Point], first: u64, last: u64) -> Vec<Point> {
    if points.len() <= 2 * COLUMNS {
        return points.to_vec();
    }
    let mut thinned = Vec::with_capacity(2 * COLUMNS);
    for points in points
        .chunk_by(|a, b| column(a.0, first, last, COLUMNS) == column(b.0, first, last, COLUMNS))
    {
        let least = points.iter().min_by(|a, b| a.1.total_cmp(&b.1));
        let most = points.iter().max_by(|a, b| a.1.total_cmp(&b.1));
        let (Some(&least), Some(&most)) = (least, most) else {
            continue;
        };
        let (early, late) = if least.0 <= most.0 {
            (least, most)
        } else {
            (most, least)
        };
        thinned.push(early);
        if late != early {
            thinned.push(late);
        }
    }
    thinned
}

/// Returns the mean step and the mean value of every column.
fn means(points: &[Point], first: u64, last: u64) -> Vec<Point> {
    let same = |a: &Point, b: &Point| {
        column(a.0, first, last, SMOOTH_COLUMNS) == column(b.0, first, last, SMOOTH_COLUMNS)
    };
    points
        .chunk_by(same)
        .map(|points| {
            let count = points.len() as f64;
            let step = points.iter().map(|(step, _)| *step as f64).sum::<f64>() / count;
            let value = points.iter().map(|(_, value)| *value / count).sum::<f64>();
            (step as u64, value)
        })
        .collect()
}

/// An axis: its range and the values of its labels.
struct Axis {
    low: f64,
    high: f64,
    logarithmic: bool,
    ticks: Vec<f64>,
}

impl Axis {
    fn linear(low: f64, high: f64) -> Self {
        let high = if high > low { high } else { low + 1.0 };
        Self {
            low,
            high,
            logarithmic: false,
            ticks: ticks(low, high),
        }
    }

    /// Creates a logarithmic axis; `low` is above 0.
    fn log(low: f64, high: f64) -> Self {
        let decades = low.log10().floor() as i32..=high.log10().ceil() as i32;
        let few = high / low < 1e3;
        let factors: &[f64] = if few { &[1.0, 2.0, 5.0] } else { &[1.0] };
        let all = decades.flat_map(|decade| {
            factors
                .iter()
                .map(move |factor| factor * 10_f64.powi(decade))
        });
        Self {
            low,
            high,
            logarithmic: true,
            ticks: all.filter(|tick| (low..=high).contains(tick)).collect(),
        }
    }

    /// Returns the position of a value, 0 at the low end and 1 at the high end.
    fn place(&self, value: f64) -> f64 {
        let place = if self.logarithmic {
            (value / self.low).log10() / (self.high / self.low).log10()
        } else {
            (value - self.low) / (self.high - self.low)
        };
        if place.is_finite() {
            place.clamp(0.0, 1.0)
        } else {
            0.5
        }
    }

    fn labels(&self, position: impl Fn(f64) -> f64) -> Vec<Label> {
        let label = |tick: &f64| Label {
            position: format!("{:.2}", 100.0 * position(self.place(*tick))),
            text: short(*tick),
        };
        self.ticks.iter().map(label).collect()
    }
}

/// Returns round numbers within a range: multiples of 1, 2 or 5 times a power of ten.
fn ticks(low: f64, high: f64) -> Vec<f64> {
    let span = high - low;
    if !span.is_finite() || span <= 0.0 {
        return vec![low];
    }
    let raw = span / LABELS;
    let power = 10_f64.powf(raw.log10().floor());
    let step = [1.0, 2.0, 5.0, 10.0]
        .map(|factor| factor * power)
        .into_iter()
        .find(|step| *step >= raw)
        .unwrap_or(raw);
    let first = (low / step).ceil();
    (0..=10)
        .map(|index| (first + f64::from(index)) * step)
        .filter(|tick| (low..=high + step * 0.01).contains(tick))
        .collect()
}

/// Formats a number for a label: `20k`, `0.5`, `1e-4`.
fn short(value: f64) -> String {
    let size = value.abs();
    if size == 0.0 {
        return "0".to_owned();
    }
    if !(1e-3..1e6).contains(&size) {
        let text = format!("{value:.1e}");
        return text.replace(".0e", "e");
    }
    if size >= 1e4 {
        return trimmed(&format!("{:.2}", value / 1000.0)) + "k";
    }
    trimmed(&if size >= 100.0 {
        format!("{value:.0}")
    } else {
        format!("{value:.3}")
    })
}

fn trimmed(number: &str) -> String {
    if number.contains('.') {
        number
            .trim_end_matches('0')
            .trim_end_matches('.')
            .to_owned()
    } else {
        number.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_round_numbers() {
        assert_eq!(
            ticks(0.0, 20_000.0),
            [0.0, 5000.0, 10_000.0, 15_000.0, 20_000.0]
        );
        assert_eq!(ticks(3.0, 3.0), [3.0]);
        let labels: Vec<String> = [0.0, 20_000.0, 12_500.0, 0.5, 2e-4, 1500.0, 2.5e7, -3.25]
            .map(short)
            .into();
        assert_eq!(
            labels,
            ["0", "20k", "12.5k", "0.5", "2e-4", "1500", "2.5e7", "-3.25"]
        );
    }

    #[test]
    fn thinning_keeps_every_spike() {
        let mut points: Vec<Point> = (0..50_000).map(|step| (step, 1.0)).collect();
        points[31_234].1 = 9.0;
        points[31_240].1 = -9.0;
        let thinned = thinned(&points, 0, 49_999);
        assert!(thinned.len() <= 2 * COLUMNS, "{}", thinned.len());
        assert!(thinned.contains(&(31_234, 9.0)) && thinned.contains(&(31_240, -9.0)));
        assert!(thinned.is_sorted_by_key(|(step, _)| *step));
    }

    #[test]
    fn means_are_of_their_columns() {
        let points: Vec<Point> = (0..6000).map(|step| (step, (step % 2) as f64)).collect();
        let means = means(&points, 0, 5999);
        assert_eq!(means.len(), SMOOTH_COLUMNS);
        assert!(means.iter().all(|(_, value)| (value - 0.5).abs() < 0.01));
    }

    #[test]
    fn extreme_numbers_give_finite_paths() {
        let points = |values: &[(u64, f64)]| values.to_vec();
        for series in [
            points(&[(0, 1.0), (1, 1.0)]),
            points(&[(0, 0.0), (u64::MAX, f64::MAX)]),
            points(&[(5, -f64::MAX), (6, f64::MAX)]),
            points(&[(7, 1e-300), (7, 1e300)]),
        ] {
            let chart = draw("Loss", "loss", &[(0, series)]).unwrap();
            for series in chart.series {
                assert!(
                    !series.line.contains("NaN") && !series.line.contains("inf"),
                    "{}",
                    series.line
                );
            }
        }
    }
}
