//! What a report says, worked out once for all its forms.

use super::classes::ClassGroup;
use super::compare::Comparison;
use super::curves::Chart;
use super::gallery::{Gallery, galleries};
use super::making::Making;
use super::mistakes::Mistakes;
use super::notices::notices;
use super::text::{counted, percent};
use super::{ReportInput, classes, curves};
use crate::summary::Spread;
use crate::{ConfusionMatrix, EvalError, Evaluation, Metric, Protocol, Report, Summary};

/// Everything that a report says.
pub(super) struct Content {
    pub(super) title: String,
    /// Method, protocol and data.
    pub(super) facts: Vec<String>,
    /// What the protocol means.
    pub(super) protocol: &'static str,
    /// What makes the numbers other than they look; shown above them.
    pub(super) notices: Vec<String>,
    pub(super) headline: Vec<Headline>,
    pub(super) metric: Metric,
    pub(super) reports: Vec<Report>,
    pub(super) summary: Summary,
    pub(super) comparison: Comparison,
    pub(super) classes: Vec<ClassGroup>,
    pub(super) mistakes: Option<Mistakes>,
    pub(super) charts: Vec<Chart>,
    pub(super) galleries: Vec<Gallery>,
    pub(super) making: Making,
    /// Counts of all runs together.
    pub(super) confusion: ConfusionMatrix,
}

/// A number at the head of the report.
pub(super) struct Headline {
    pub(super) name: &'static str,
    /// In percent.
    pub(super) value: String,
    /// `± 0.31 over 3 runs`, where there are several.
    pub(super) spread: Option<String>,
    pub(super) meaning: &'static str,
}

impl Content {
    pub(super) fn of(input: &ReportInput) -> Result<Self, EvalError> {
        let Some((first, others)) = input.runs.split_first() else {
            return Err(EvalError::Nothing);
        };
        let first = &first.evaluation;
        first.validate()?;
        let mut confusion = first.confusion.clone();
        for other in others {
            other.evaluation.validate()?;
            first.check_comparable(&other.evaluation)?;
            confusion.merge(&other.evaluation.confusion)?;
        }
        let reports: Vec<Report> = input
            .runs
            .iter()
            .map(|run| run.evaluation.report())
            .collect::<Result<_, _>>()?;
        let summary = Summary::of_reports(&reports, first.metric);
        let comparison = Comparison::of(input, first, &reports, &summary);
        Ok(Self {
            title: input.title.clone(),
            facts: facts(first, input.runs.len()),
            protocol: meaning(first),
            notices: notices(input, first, &comparison),
            headline: headline(first, &summary),
            metric: first.metric,
            classes: classes::groups(first, &reports),
            mistakes: Mistakes::of(&confusion, &first.classes),
            charts: curves::charts(&input.runs),
            galleries: galleries(input),
            making: Making::of(input, first),
            reports,
            summary,
            comparison,
            confusion,
        })
    }
}

/// What the protocol means for these classes.
pub(super) fn meaning(evaluation: &Evaluation) -> &'static str {
    if evaluation.classes.iter().any(|class| class.unseen) {
        return evaluation.protocol.explanation();
    }
    match evaluation.protocol {
        Protocol::FullySupervised => "All classes had labelled pixels in training.",
        Protocol::Inductive | Protocol::Transductive | Protocol::TransductiveUnseen => {
            "No class is marked as unknown to the training, so there is no zero-shot score."
        }
        other => other.explanation(),
    }
}

fn facts(evaluation: &Evaluation, runs: usize) -> Vec<String> {
    let benchmark = &evaluation.benchmark;
    let unseen = evaluation
        .classes
        .iter()
        .filter(|class| class.unseen)
        .count();
    let classes = match (evaluation.classes.len() - unseen, unseen) {
        (all, 0) => counted(all as u64, "class", "classes"),
        (seen, unseen) => format!("{seen} seen and {unseen} unseen classes"),
    };
    let mut facts = vec![
        evaluation.method.clone(),
        evaluation.protocol.title().to_owned(),
        format!("{} {}", benchmark.title, benchmark.split),
        classes,
        counted(evaluation.images, "image", "images"),
    ];
    if runs > 1 {
        facts.push(format!("{runs} runs"));
    }
    facts
}

fn headline(evaluation: &Evaluation, summary: &Summary) -> Vec<Headline> {
    let p_acc = ("pAcc", summary.p_acc, "pixels with the right class");
    let miou = ("mIoU", summary.miou, "mean IoU of all classes");
    let unseen = evaluation.classes.iter().any(|class| class.unseen);
    let numbers = match evaluation.metric {
        Metric::Dice => vec![
            (
                "mDice",
                summary.mdice,
                "mean Dice coefficient of all classes",
            ),
            miou,
            p_acc,
        ],
        Metric::MeanIou if unseen => vec![
            (
                "hIoU",
                summary.hiou,
                "harmonic mean of seen and unseen mIoU",
            ),
            ("mIoU(S)", summary.miou_seen, "mean IoU of the seen classes"),
            (
                "mIoU(U)",
                summary.miou_unseen,
                "mean IoU of the unseen classes",
            ),
            p_acc,
            miou,
        ],
        Metric::MeanIou => vec![
            miou,
            p_acc,
            ("mAcc", summary.macc, "mean accuracy of all classes"),
        ],
    };
    let spread = |spread: Spread| {
        let std = spread.std?;
        Some(format!("± {:.2} over {} runs", 100.0 * std, spread.n))
    };
    numbers
        .into_iter()
        .filter_map(|(name, value, meaning)| {
            let value = value?;
            Some(Headline {
                name,
                value: percent(Some(value.mean)),
                spread: spread(value),
                meaning,
            })
        })
        .collect()
}
