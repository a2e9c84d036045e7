//! The table of results, with the published results of the same benchmark and protocol.

use super::ReportInput;
use super::content::same_protocol;
use super::relation::{Relation, trainings};
use super::text::percent;
use crate::published::{self, Row};
use crate::report::Split;
use crate::summary::{Spread, group_seeds};
use crate::{Evaluation, Metric, Protocol, Report, Summary};

/// The evaluations and the published rows, in the same columns.
pub(super) struct Comparison {
    pub(super) columns: Vec<&'static str>,
    /// One row per evaluation; for several seeds of one configuration also a row with their mean, among other
    /// configurations as well.
    pub(super) own: Vec<OwnRow>,
    /// Published rows, grouped by publication.
    pub(super) published: Vec<Publication>,
    /// Footnotes: the meaning of marks in published rows, and why there is no mean.
    pub(super) footnotes: Vec<String>,
    /// Sentence on the difference from the published numbers of the same method.
    pub(super) difference: Option<String>,
}

pub(super) struct OwnRow {
    pub(super) name: String,
    /// Facts that distinguish the run from the others.
    pub(super) detail: String,
    pub(super) values: Vec<String>,
    pub(super) is_mean: bool,
}

/// Rows of one publication.
pub(super) struct Publication {
    pub(super) source: String,
    pub(super) rows: Vec<PublishedRow>,
}

pub(super) struct PublishedRow {
    pub(super) method: String,
    pub(super) values: Vec<String>,
}

/// A column: its name, and how its value is taken from a report, from a mean over seeds and from a published row.
struct Column {
    name: &'static str,
    own: fn(&Report) -> Option<f64>,
    mean: fn(&Summary) -> Option<Spread>,
    published: fn(&Row) -> Option<f64>,
}

const P_ACC: Column = Column {
    name: "pAcc",
    own: |report| report.p_acc,
    mean: |summary| summary.p_acc,
    published: |row| row.p_acc,
};
const SEEN: Column = Column {
    name: "mIoU(S)",
    own: |report| of_split(report, report.miou_seen),
    mean: |summary| summary.miou_seen,
    published: |row| row.seen,
};
const UNSEEN: Column = Column {
    name: "mIoU(U)",
    own: |report| of_split(report, report.miou_unseen),
    mean: |summary| summary.miou_unseen,
    published: |row| row.unseen,
};
const H_IOU: Column = Column {
    name: "hIoU",
    own: |report| report.hiou,
    mean: |summary| summary.hiou,
    // Computed from the published mIoU(S) and mIoU(U) where the printed value differs; a footnote says so.
    published: |row| {
        if row.hiou_differs() {
            row.recomputed_hiou()
        } else {
            row.hiou
        }
    },
};
const M_IOU: Column = Column {
    name: "mIoU",
    own: |report| report.miou,
    mean: |summary| summary.miou,
    published: |row| row.miou,
};
const M_ACC: Column = Column {
    name: "mAcc",
    own: |report| report.macc,
    mean: |summary| summary.macc,
    published: |row| row.macc,
};
const M_DICE: Column = Column {
    name: "mDice",
    own: |report| report.mdice,
    mean: |summary| summary.mdice,
    published: |row| row.mdice,
};

/// A value of the seen or the unseen classes; `None` for an evaluation without unseen classes.
fn of_split(report: &Report, value: Option<f64>) -> Option<f64> {
    let is_split = report
        .classes
        .iter()
        .any(|class| class.split == Split::Unseen);
    value.filter(|_| is_split)
}

impl Comparison {
    pub(super) fn of(
        input: &ReportInput,
        relation: &Relation,
        names: &[String],
        reports: &[Report],
        summary: Option<&Summary>,
    ) -> Self {
        let columns = columns(input);
        let is_measured =
            |column: &Column| reports.iter().any(|report| (column.own)(report).is_some());
        // pAcc alone compares nothing: a row needs another number of the benchmark that was measured too.
        let is_comparable = |row: &&Row| {
            columns.iter().any(|column| {
                column.name != P_ACC.name
                    && (column.published)(row).is_some()
                    && is_measured(column)
            })
        };
        let rows: Vec<&Row> = published_rows(input)
            .into_iter()
            .filter(is_comparable)
            .collect();
        let columns: Vec<Column> = columns
            .into_iter()
            .filter(|column| {
                is_measured(column) || rows.iter().any(|row| (column.published)(row).is_some())
            })
            .collect();
        let mut footnotes = Vec::new();
        let means = seed_means(input, relation, reports);
        match relation {
            Relation::SideBySide { reason } if means.is_empty() => footnotes.push(reason.clone()),
            Relation::SideBySide { reason } => footnotes.push(format!(
                "Means are over seeds of one configuration. Over all evaluations: {reason}"
            )),
            Relation::Seeds if columns.iter().any(|column| column.name == H_IOU.name) => {
                footnotes.push("The mean of hIoU is the mean of the runs' hIoU.".to_owned());
            }
            Relation::Single | Relation::Seeds => {}
        }
        let mut published: Vec<Publication> = Vec::new();
        for row in &rows {
            let note = row
                .note
                .as_ref()
                .map(|note| format!("; {note}"))
                .unwrap_or_default();
            let source = format!("{}{note}", row.source);
            let shown = published_row(row, &columns, &mut footnotes);
            match published
                .iter_mut()
                .find(|publication| publication.source == source)
            {
                Some(publication) => publication.rows.push(shown),
                None => published.push(Publication {
                    source,
                    rows: vec![shown],
                }),
            }
        }
        let mut own = own_rows(input, relation, names, reports, &columns);
        if let (Relation::Seeds, Some(summary)) = (relation, summary) {
            own.push(mean_row(summary, &columns));
        }
        own.extend(means.iter().map(|mean| {
            let row = mean_row(&mean.scores, &columns);
            OwnRow {
                name: format!("{}: {}", row.name, mean.method),
                ..row
            }
        }));
        Self {
            own,
            difference: summary.and_then(|summary| difference(input, &rows, summary, &columns)),
            columns: columns.iter().map(|column| column.name).collect(),
            published,
            footnotes,
        }
    }
}

/// Returns the published rows of the benchmark; none where the evaluations do not all follow one protocol.
fn published_rows(input: &ReportInput) -> Vec<&'static Row> {
    let Some(first) = input.runs.first().map(|run| &run.evaluation) else {
        return Vec::new();
    };
    let same_training = input
        .runs
        .iter()
        .all(|run| run.evaluation.trained_on == first.trained_on);
    if !same_training || !same_protocol(input) {
        return Vec::new();
    }
    published::rows(
        &first.benchmark.dataset,
        &first.benchmark.class_list,
        first.protocol,
        first.trained_on.as_deref(),
    )
}

fn columns(input: &ReportInput) -> Vec<Column> {
    let evaluations = || input.runs.iter().map(|run| &run.evaluation);
    if evaluations().any(|evaluation| evaluation.metric == Metric::Dice) {
        return vec![M_DICE, M_IOU, P_ACC];
    }
    // Cross-dataset results are published over all classes at once, whatever the class list calls unseen.
    if evaluations().all(|evaluation| evaluation.protocol == Protocol::CrossDataset) {
        return vec![P_ACC, M_IOU, M_ACC];
    }
    if evaluations().all(Evaluation::has_unseen) {
        return vec![P_ACC, SEEN, UNSEEN, H_IOU];
    }
    if evaluations().any(Evaluation::has_unseen) {
        return vec![P_ACC, SEEN, UNSEEN, H_IOU, M_IOU];
    }
    vec![P_ACC, M_IOU, M_ACC]
}

fn own_rows(
    input: &ReportInput,
    relation: &Relation,
    names: &[String],
    reports: &[Report],
    columns: &[Column],
) -> Vec<OwnRow> {
    let names_protocol = !same_protocol(input);
    input
        .runs
        .iter()
        .zip(names)
        .zip(reports)
        .map(|((run, name), report)| OwnRow {
            name: name.clone(),
            detail: detail(&run.evaluation, relation, names_protocol),
            values: columns
                .iter()
                .map(|column| percent((column.own)(report)))
                .collect(),
            is_mean: false,
        })
        .collect()
}

/// The mean over seeds of one configuration among others.
struct MethodMean {
    method: String,
    scores: Summary,
}

/// Returns the means over seeds of one configuration, where several configurations stand side by side.
fn seed_means(input: &ReportInput, relation: &Relation, reports: &[Report]) -> Vec<MethodMean> {
    if !relation.is_side_by_side() {
        return Vec::new();
    }
    let groups = group_seeds(&trainings(input));
    let groups = groups.iter().filter(|group| group.len() > 1);
    groups
        .filter_map(|group| {
            let first = &input.runs.get(*group.first()?)?.evaluation;
            let of_group = group.iter().filter_map(|&position| reports.get(position));
            let of_group: Vec<Report> = of_group.cloned().collect();
            Some(MethodMean {
                method: first.method.clone(),
                scores: Summary::of_reports(&of_group, first.metric),
            })
        })
        .collect()
}

/// Returns the row with the mean over seeds of one configuration.
fn mean_row(summary: &Summary, columns: &[Column]) -> OwnRow {
    let value = |column: &Column| {
        (column.mean)(summary).map_or("–".to_owned(), |spread| {
            // A line may break before the sign, but not after it.
            spread.percent().replace("± ", "±\u{a0}")
        })
    };
    OwnRow {
        name: format!("Mean of {} runs", summary.runs),
        detail: "± sample standard deviation".to_owned(),
        values: columns.iter().map(value).collect(),
        is_mean: true,
    }
}

fn detail(evaluation: &Evaluation, relation: &Relation, names_protocol: bool) -> String {
    let mut parts = Vec::new();
    if matches!(relation, Relation::Single) {
        parts.push(evaluation.method.clone());
    }
    if names_protocol {
        parts.push(evaluation.protocol.title().to_owned());
    }
    if let Some(step) = evaluation.model.step {
        parts.push(format!("step {step}"));
    }
    if let Some(seed) = evaluation.model.seed {
        parts.push(format!("seed {seed}"));
    }
    parts.join(", ")
}

fn published_row(row: &Row, columns: &[Column], footnotes: &mut Vec<String>) -> PublishedRow {
    let figure = |column: &Column| {
        let Some(value) = (column.published)(row) else {
            return "–".to_owned();
        };
        let digits = if column.name == M_DICE.name { 2 } else { 1 };
        let mark = if column.name == H_IOU.name && row.hiou_differs() {
            " *"
        } else {
            ""
        };
        format!("{value:.digits$}{mark}")
    };
    let values = columns.iter().map(figure).collect();
    if row.hiou_differs()
        && let Some(hiou) = row.hiou
        && columns.iter().any(|column| column.name == H_IOU.name)
    {
        footnotes.push(format!(
            "* {}: the published hIoU is {hiou:.1}; the table shows the hIoU computed from the published mIoU(S) and mIoU(U).",
            row.method
        ));
    }
    PublishedRow {
        method: row.method.clone(),
        values,
    }
}

/// Returns a sentence such as `Difference from the published ZegCLIP in percentage points: pAcc +0.12, …`.
fn difference(
    input: &ReportInput,
    rows: &[&Row],
    summary: &Summary,
    columns: &[Column],
) -> Option<String> {
    let evaluation = &input.runs.first()?.evaluation;
    let method = |row: &&&Row| row.method.eq_ignore_ascii_case(&evaluation.method);
    let mut same = rows.iter().filter(method);
    let row = same.next()?;
    if same.next().is_some() || evaluation.is_subset() {
        return None;
    }
    let differences: Vec<String> = columns
        .iter()
        .filter_map(|column| {
            let own = (column.mean)(summary)?.mean * 100.0;
            let published = (column.published)(row)?;
            let sign = if own < published { "−" } else { "+" };
            Some(format!(
                "{} {sign}{:.2}",
                column.name,
                (own - published).abs()
            ))
        })
        .collect();
    (!differences.is_empty()).then(|| {
        format!(
            "Difference from the published {} in percentage points: {}.",
            row.method,
            differences.join(", ")
        )
    })
}
