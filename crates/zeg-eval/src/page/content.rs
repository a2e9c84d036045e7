//! The content of a report, computed once for all formats.

use super::bars::Bars;
use super::classes::ClassGroup;
use super::compare::Comparison;
use super::curves::Chart;
use super::gallery::{Gallery, MAX_PAGE_BYTES, galleries};
use super::making::Making;
use super::mistakes::Mistakes;
use super::notices::notices;
use super::panels::ComparedImages;
use super::relation::Relation;
use super::reliability::ReliabilityPlot;
use super::text::{counted, percent};
use super::{ReportInput, classes, curves};
use crate::summary::Spread;
use crate::{ClassRef, ConfusionMatrix, EvalError, Evaluation, Metric, Protocol, Report, Summary};

/// The content of a report, the same for all formats.
pub(super) struct Content {
    pub(super) title: String,
    /// Method, protocol and data.
    pub(super) facts: Vec<String>,
    /// Sentence on what the protocol means.
    pub(super) protocol: &'static str,
    /// Notices about settings that affect comparability; shown above the numbers.
    pub(super) notices: Vec<String>,
    /// The main numbers; empty where evaluations stand side by side.
    pub(super) headline: Vec<Headline>,
    pub(super) metric: Metric,
    /// The name of each evaluation; see [`Relation::names`].
    pub(super) names: Vec<String>,
    pub(super) reports: Vec<Report>,
    /// The mean over seeds; `None` where different methods or settings stand side by side.
    pub(super) summary: Option<Summary>,
    pub(super) comparison: Comparison,
    pub(super) classes: Vec<ClassGroup>,
    /// The unseen classes of several evaluations; `None` for one evaluation.
    pub(super) bars: Option<Bars>,
    pub(super) confusions: Vec<Confusion>,
    /// Accuracy by confidence; `None` if no evaluation measured it.
    pub(super) reliability: Option<ReliabilityPlot>,
    pub(super) charts: Vec<Chart>,
    /// Images that are in the galleries of several evaluations.
    pub(super) compared: ComparedImages,
    pub(super) galleries: Vec<Gallery>,
    pub(super) making: Making,
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

/// The confused classes of one configuration.
pub(super) struct Confusion {
    /// Name of the evaluation; `None` where there is only one configuration.
    pub(super) name: Option<String>,
    /// Pixel counts: of one evaluation, or summed over seeds of one configuration.
    pub(super) counts: ConfusionMatrix,
    pub(super) classes: Vec<ClassRef>,
    pub(super) mistakes: Mistakes,
}

impl Content {
    pub(super) fn of(input: &ReportInput) -> Result<Self, EvalError> {
        let Some(first) = input.runs.first() else {
            return Err(EvalError::Nothing);
        };
        for run in &input.runs {
            run.evaluation.validate()?;
        }
        let relation = Relation::of(input)?;
        // Training-free methods have no unseen classes; the split is that of the others.
        let split = input.runs.iter().find(|run| run.evaluation.has_unseen());
        let with_split = &split.unwrap_or(first).evaluation;
        let first = &first.evaluation;
        let names = relation.names(input);
        let reports: Vec<Report> = input
            .runs
            .iter()
            .map(|run| run.evaluation.report())
            .collect::<Result<_, _>>()?;
        let summary =
            (!relation.is_side_by_side()).then(|| Summary::of_reports(&reports, first.metric));
        let comparison = Comparison::of(input, &relation, &names, &reports, summary.as_ref());
        let classes = classes::groups(with_split, &reports, &relation);
        let mut budget = MAX_PAGE_BYTES;
        let compared = ComparedImages::of(input, &names, &with_split.classes, &mut budget)?;
        Ok(Self {
            title: input.title.clone(),
            facts: facts(input, &relation, with_split),
            protocol: if same_protocol(input) {
                meaning(first)
            } else {
                "The evaluations follow different protocols; the table names the protocol of each."
            },
            notices: notices(input, &names, &comparison),
            headline: summary
                .as_ref()
                .map(|summary| headline(first, summary))
                .unwrap_or_default(),
            metric: first.metric,
            bars: Bars::of(&classes, &names),
            classes,
            confusions: confusions(input, &relation, &names)?,
            reliability: ReliabilityPlot::of(&reports, &names),
            charts: curves::charts(&input.runs),
            galleries: galleries(input, &names, &with_split.classes, &mut budget),
            compared,
            making: Making::of(input, &names),
            names,
            reports,
            summary,
            comparison,
        })
    }

    /// Returns true if any class is unseen.
    pub(super) fn has_unseen(&self) -> bool {
        self.classes.iter().any(|group| group.kind == "unseen")
    }

    /// Returns true if different methods or settings stand side by side, without a mean.
    pub(super) fn is_side_by_side(&self) -> bool {
        self.summary.is_none()
    }
}

/// Returns true if all evaluations follow one protocol.
pub(super) fn same_protocol(input: &ReportInput) -> bool {
    let mut protocols = input.runs.iter().map(|run| run.evaluation.protocol);
    let first = protocols.next();
    protocols.all(|protocol| Some(protocol) == first)
}

/// Returns the confused classes of each configuration. Counts are summed over seeds, never over methods.
fn confusions(
    input: &ReportInput,
    relation: &Relation,
    names: &[String],
) -> Result<Vec<Confusion>, EvalError> {
    let mut confusions: Vec<Confusion> = Vec::new();
    let side_by_side = relation.is_side_by_side();
    let mut parts: Vec<(Option<String>, ConfusionMatrix, &Evaluation)> = Vec::new();
    for (run, name) in input.runs.iter().zip(names) {
        let evaluation = &run.evaluation;
        match parts.last_mut().filter(|_| !side_by_side) {
            Some((_, counts, _)) => counts.merge(&evaluation.confusion)?,
            None => parts.push((
                side_by_side.then(|| name.clone()),
                evaluation.confusion.clone(),
                evaluation,
            )),
        }
    }
    for (name, counts, evaluation) in parts {
        if let Some(mistakes) = Mistakes::of(&counts, &evaluation.classes) {
            confusions.push(Confusion {
                name,
                counts,
                classes: evaluation.classes.clone(),
                mistakes,
            });
        }
    }
    Ok(confusions)
}

/// Returns a sentence on what the protocol means for these classes.
pub(super) fn meaning(evaluation: &Evaluation) -> &'static str {
    if evaluation.has_unseen() {
        return evaluation.protocol.explanation();
    }
    match evaluation.protocol {
        Protocol::FullySupervised => "All classes had labelled pixels in training.",
        Protocol::Inductive | Protocol::Transductive | Protocol::TransductiveUnseen => {
            "No class is marked as unseen, so there is no zero-shot score."
        }
        other => other.explanation(),
    }
}

fn facts(input: &ReportInput, relation: &Relation, with_split: &Evaluation) -> Vec<String> {
    let benchmark = &with_split.benchmark;
    let mut methods: Vec<String> = Vec::new();
    for run in &input.runs {
        if !methods.contains(&run.evaluation.method) {
            methods.push(run.evaluation.method.clone());
        }
    }
    let classes = &with_split.classes;
    let unseen = classes.iter().filter(|class| class.unseen).count();
    let classes = match (classes.len() - unseen, unseen) {
        (all, 0) => counted(all as u64, "class"),
        (seen, unseen) => format!("{seen} seen and {unseen} unseen classes"),
    };
    let mut facts = vec![methods.join(", ")];
    if same_protocol(input) {
        facts.push(with_split.protocol.title().to_owned());
    }
    facts.extend([
        format!("{} {}", benchmark.title, benchmark.split),
        classes,
        counted(with_split.images, "image"),
    ]);
    match relation {
        Relation::Single => {}
        Relation::Seeds => facts.push(counted(input.runs.len() as u64, "run")),
        Relation::SideBySide { .. } => facts.push(counted(input.runs.len() as u64, "evaluation")),
    }
    facts
}

fn headline(evaluation: &Evaluation, summary: &Summary) -> Vec<Headline> {
    let p_acc = (
        "pAcc",
        summary.p_acc,
        "share of pixels with the right class",
    );
    let miou = ("mIoU", summary.miou, "mean IoU of all classes");
    let unseen = evaluation.has_unseen();
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
