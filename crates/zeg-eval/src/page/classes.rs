//! The scores of each class, grouped into seen and unseen classes, the best first.

use super::relation::Relation;
use crate::summary::Spread;
use crate::{Evaluation, Metric, Report};

/// Largest group that is shown unfolded; a larger group shows its best and its worst rows.
const SHOWN: usize = 40;
/// Number of best and of worst rows that a larger group shows.
const ENDS: usize = 10;

/// The seen or the unseen classes.
pub(super) struct ClassGroup {
    /// `Seen classes`, `Unseen classes`, or `Classes` where no class is unseen.
    pub(super) title: &'static str,
    /// CSS class in the page: `seen` or `unseen`.
    pub(super) kind: &'static str,
    /// Classes with a value, the best first.
    pub(super) rows: Vec<ClassRow>,
    /// Names of classes that occur neither in the truth nor in the predictions.
    pub(super) absent: Vec<String>,
}

/// The scores of one class.
pub(super) struct ClassRow {
    pub(super) name: String,
    pub(super) colour: [u8; 3],
    /// Mean over seeds; `None` where different methods stand side by side. So are `dice` and `acc`.
    pub(super) iou: Option<Spread>,
    pub(super) dice: Option<Spread>,
    pub(super) acc: Option<Spread>,
    /// The benchmark's metric of every evaluation, in their order.
    pub(super) each: Vec<Option<f64>>,
    /// The benchmark's metric, 0..=1, by which rows are ordered and bars drawn: the mean over seeds, or the value of
    /// the first evaluation that has one.
    pub(super) score: f64,
    /// Share of all true pixels.
    pub(super) share: f64,
}

impl ClassGroup {
    /// Returns the rows in three parts: shown, folded, shown.
    pub(super) fn parts(&self) -> (&[ClassRow], &[ClassRow], &[ClassRow]) {
        if self.rows.len() <= SHOWN {
            return (&self.rows, &[], &[]);
        }
        let (best, rest) = self.rows.split_at(ENDS);
        let (middle, worst) = rest.split_at(rest.len().saturating_sub(ENDS));
        (best, middle, worst)
    }
}

/// Groups the classes by the split of `evaluation`.
pub(super) fn groups(
    evaluation: &Evaluation,
    reports: &[Report],
    relation: &Relation,
) -> Vec<ClassGroup> {
    let mut groups: Vec<ClassGroup> = [
        ("Seen classes", "seen", false),
        ("Unseen classes", "unseen", true),
    ]
    .into_iter()
    .map(|(title, kind, unseen)| {
        let (rows, absent) = rows(evaluation, reports, relation, unseen);
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

fn rows(
    evaluation: &Evaluation,
    reports: &[Report],
    relation: &Relation,
    unseen: bool,
) -> (Vec<ClassRow>, Vec<String>) {
    let pixels: u64 = reports.iter().map(|report| report.pixels).sum();
    let (mut rows, mut absent) = (Vec::new(), Vec::new());
    let classes = evaluation.classes.iter().enumerate();
    for (position, class) in classes.filter(|(_, class)| class.unseen == unseen) {
        let of_class = || {
            reports
                .iter()
                .filter_map(|report| report.classes.get(position))
        };
        let each: Vec<Option<f64>> = of_class()
            .map(|class| match evaluation.metric {
                Metric::MeanIou => class.iou,
                Metric::Dice => class.dice,
            })
            .collect();
        let [iou, dice, acc] = if relation.is_side_by_side() {
            [None; 3]
        } else {
            [
                Spread::of(of_class().map(|class| class.iou)),
                Spread::of(of_class().map(|class| class.dice)),
                Spread::of(of_class().map(|class| class.acc)),
            ]
        };
        let mean = match evaluation.metric {
            Metric::MeanIou => iou,
            Metric::Dice => dice,
        };
        let first = || each.iter().flatten().next().copied();
        let Some(score) = mean.map(|mean| mean.mean).or_else(first) else {
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
            each,
            score,
            share: truth as f64 / pixels.max(1) as f64,
        });
    }
    rows.sort_by(|a, b| b.score.total_cmp(&a.score)); // stable: ties in label order
    (rows, absent)
}
