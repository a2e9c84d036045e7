//! The table of the runs beside what was published for the same benchmark and protocol.

use super::ReportInput;
use super::text::percent;
use crate::published::{self, Row};
use crate::summary::Spread;
use crate::{Evaluation, Metric, Protocol, Report, Summary};

/// The runs and the published rows, in the same columns.
pub(super) struct Comparison {
    pub(super) columns: Vec<&'static str>,
    /// Each run, and with several their mean.
    pub(super) own: Vec<OwnRow>,
    /// Published rows by where they were published.
    pub(super) published: Vec<Publication>,
    /// What the marks in published rows mean.
    pub(super) footnotes: Vec<String>,
    /// The difference to the published numbers of the same method, in a sentence.
    pub(super) difference: Option<String>,
}

pub(super) struct OwnRow {
    pub(super) name: String,
    /// What tells the run from the others.
    pub(super) detail: String,
    pub(super) values: Vec<String>,
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

/// A column: its name, its value of a report, of a summary and of a published row.
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
    own: |report| report.miou_seen,
    mean: |summary| summary.miou_seen,
    published: |row| row.seen,
};
const UNSEEN: Column = Column {
    name: "mIoU(U)",
    own: |report| report.miou_unseen,
    mean: |summary| summary.miou_unseen,
    published: |row| row.unseen,
};
const H_IOU: Column = Column {
    name: "hIoU",
    own: |report| report.hiou,
    mean: |summary| summary.hiou,
    // The one that seen and unseen give; a footnote tells where another was printed.
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

impl Comparison {
    pub(super) fn of(
        input: &ReportInput,
        evaluation: &Evaluation,
        reports: &[Report],
        summary: &Summary,
    ) -> Self {
        let columns = columns(evaluation);
        let benchmark = &evaluation.benchmark;
        let rows = published::rows(
            &benchmark.dataset,
            &benchmark.class_list,
            evaluation.protocol,
            evaluation.trained_on.as_deref(),
        );
        // pAcc alone compares nothing: a row needs a number of the benchmark's own kind that was measured too.
        let shared = |row: &&Row| {
            columns.iter().any(|column| {
                column.name != P_ACC.name
                    && (column.published)(row).is_some()
                    && (column.mean)(summary).is_some()
            })
        };
        let rows: Vec<&Row> = rows.into_iter().filter(shared).collect();
        let columns: Vec<Column> = columns
            .into_iter()
            .filter(|column| {
                (column.mean)(summary).is_some()
                    || rows.iter().any(|row| (column.published)(row).is_some())
            })
            .collect();
        let mut footnotes = Vec::new();
        if reports.len() > 1 && columns.iter().any(|column| column.name == H_IOU.name) {
            footnotes.push("The mean of hIoU is the mean of the runs' hIoU.".to_owned());
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
        Self {
            own: own_rows(input, reports, summary, &columns),
            difference: difference(evaluation, &rows, summary, &columns),
            columns: columns.iter().map(|column| column.name).collect(),
            published,
            footnotes,
        }
    }
}

fn columns(evaluation: &Evaluation) -> Vec<Column> {
    let unseen = evaluation.classes.iter().any(|class| class.unseen);
    match (evaluation.metric, evaluation.protocol) {
        (Metric::Dice, _) => vec![M_DICE, M_IOU, P_ACC],
        // Published over all classes at once, whatever the list calls unseen.
        (Metric::MeanIou, Protocol::CrossDataset) => vec![P_ACC, M_IOU, M_ACC],
        (Metric::MeanIou, _) if unseen => vec![P_ACC, SEEN, UNSEEN, H_IOU],
        (Metric::MeanIou, _) => vec![P_ACC, M_IOU, M_ACC],
    }
}

fn own_rows(
    input: &ReportInput,
    reports: &[Report],
    summary: &Summary,
    columns: &[Column],
) -> Vec<OwnRow> {
    let single = reports.len() == 1;
    let mut rows: Vec<OwnRow> = input
        .runs
        .iter()
        .zip(reports)
        .enumerate()
        .map(|(position, (run, report))| OwnRow {
            name: if single {
                "This run".to_owned()
            } else {
                format!("Run {}", position + 1)
            },
            detail: detail(&run.evaluation, single),
            values: columns
                .iter()
                .map(|column| percent((column.own)(report)))
                .collect(),
        })
        .collect();
    if !single {
        let value = |column: &Column| {
            (column.mean)(summary).map_or("–".to_owned(), |spread| {
                // may break before the sign, not behind it
                spread.percent().replace("± ", "±\u{a0}")
            })
        };
        rows.push(OwnRow {
            name: format!("Mean of {} runs", reports.len()),
            detail: "± sample standard deviation".to_owned(),
            values: columns.iter().map(value).collect(),
        });
    }
    rows
}

fn detail(evaluation: &Evaluation, single: bool) -> String {
    let mut parts = Vec::new();
    if single {
        parts.push(evaluation.method.clone());
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
            "* {}: published with hIoU {hiou:.1}, which its own mIoU(S) and mIoU(U) do not give.",
            row.method
        ));
    }
    PublishedRow {
        method: row.method.clone(),
        values,
    }
}

/// `Against the published ZegCLIP: pAcc +0.12, …`, in percentage points.
fn difference(
    evaluation: &Evaluation,
    rows: &[&Row],
    summary: &Summary,
    columns: &[Column],
) -> Option<String> {
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
            "Against the published {}, in percentage points: {}.",
            row.method,
            differences.join(", ")
        )
    })
}
