//! The scores of the single classes, seen and unseen apart, the best first.

use crate::report::Split;
use crate::summary::Spread;
use crate::{Evaluation, Metric, Report};

/// Rows of a group that are shown without being asked for; of more, the best and the worst.
const SHOWN: usize = 40;
/// How many best and worst rows are shown of a larger group.
const ENDS: usize = 10;

/// The classes of one side of the split.
pub(super) struct ClassGroup {
    /// `Seen classes`, `Unseen classes`, or `Classes` where there is one side only.
    pub(super) title: &'static str,
    /// For the page: `seen` or `unseen`.
    pub(super) kind: &'static str,
    /// Classes with a value, the best first.
    pub(super) rows: Vec<ClassRow>,
    /// Names of classes that occur neither in the truth nor in the predictions.
    pub(super) absent: Vec<String>,
}

/// The scores of a class, means over the runs.
pub(super) struct ClassRow {
    pub(super) name: String,
    pub(super) colour: [u8; 3],
    pub(super) iou: Option<Spread>,
    pub(super) dice: Option<Spread>,
    pub(super) acc: Option<Spread>,
    /// The value of the benchmark's metric, for the bar.
    pub(super) score: f64,
    /// Share of all true pixels.
    pub(super) share: f64,
}

impl ClassGroup {
    /// The rows in parts: shown, folded away, shown.
    pub(super) fn parts(&self) -> (&[ClassRow], &[ClassRow], &[ClassRow]) {
        if self.rows.len() <= SHOWN {
            return (&self.rows, &[], &[]);
        }
        let (best, rest) = self.rows.split_at(ENDS);
        let (middle, worst) = rest.split_at(rest.len().saturating_sub(ENDS));
        (best, middle, worst)
    }
}

pub(super) fn groups(evaluation: &Evaluation, reports: &[Report]) -> Vec<ClassGroup> {
    let mut groups: Vec<ClassGroup> = [
        ("Seen classes", "seen", Split::Seen),
        ("Unseen classes", "unseen", Split::Unseen),
    ]
    .into_iter()
    .map(|(title, kind, split)| {
        let (rows, absent) = rows(evaluation, reports, split);
        ClassGroup {
            title,
            kind,
            rows,
            absent,
        }
    })
    .filter(|group| !group.rows.is_empty() || !group.absent.is_empty())
    .collect();
    if let [only] = groups.as_mut_slice()
        && only.kind == "seen"
    {
        only.title = "Classes";
    }
    groups
}

fn rows(evaluation: &Evaluation, reports: &[Report], split: Split) -> (Vec<ClassRow>, Vec<String>) {
    let pixels: u64 = reports.iter().map(|report| report.pixels).sum();
    let (mut rows, mut absent) = (Vec::new(), Vec::new());
    for (position, class) in evaluation.classes.iter().enumerate() {
        let of_class = || {
            reports
                .iter()
                .filter_map(|report| report.classes.get(position))
        };
        if of_class().any(|class| class.split != split) {
            continue;
        }
        let iou = Spread::of(of_class().map(|class| class.iou));
        let dice = Spread::of(of_class().map(|class| class.dice));
        let acc = Spread::of(of_class().map(|class| class.acc));
        let score = match evaluation.metric {
            Metric::MeanIou => iou,
            Metric::Dice => dice,
        };
        let Some(score) = score else {
            absent.push(class.name.clone());
            continue;
        };
        let truth: u64 = of_class().map(|class| class.pixels).sum();
        rows.push(ClassRow {
            name: class.name.clone(),
            colour: class.colour,
            iou,
            dice,
            acc,
            score: score.mean,
            share: truth as f64 / pixels.max(1) as f64,
        });
    }
    rows.sort_by(|a, b| b.score.total_cmp(&a.score)); // stable: ties in label order
    (rows, absent)
}
