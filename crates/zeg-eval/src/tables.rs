//! Formats reports and summaries as text tables.

use comfy_table::{CellAlignment, Table, presets};

use crate::{
    comparison::{ComparedModel, Comparison},
    report::{Metric, NanRule, Report, Split},
    summary::{Spread, Summary},
};

impl Report {
    /// Returns the report as a text table: one row per class, then the summary, in percent with two decimals. The
    /// columns of [`metric`](Self::metric) come first.
    ///
    /// If no class is unseen, the columns of seen and unseen classes are left out. A line tells a rule for classes without
    /// pixels that is not mmsegmentation's.
    pub fn to_table(&self) -> String {
        let divided = self.is_divided();
        let mut metrics = ["IoU", "Acc", "Dice"];
        let mut overall = vec![("pAcc", self.p_acc), ("mIoU", self.miou)];
        if divided {
            overall.extend([
                ("mIoU(S)", self.miou_seen),
                ("mIoU(U)", self.miou_unseen),
                ("hIoU", self.hiou),
            ]);
        }
        overall.extend([("mAcc", self.macc), ("mDice", self.mdice)]);
        if self.metric == Metric::Dice {
            metrics = ["Dice", "IoU", "Acc"];
            overall.rotate_right(1);
        }
        let split = divided.then_some("split");
        let header: Vec<&str> = ["class"].into_iter().chain(split).chain(metrics).collect();
        let mut classes = table(&header);
        for class in &self.classes {
            let (iou, acc, dice) = (class.iou, class.acc, class.dice);
            let values = match self.metric {
                Metric::MeanIou => [iou, acc, dice],
                Metric::Dice => [dice, iou, acc],
            };
            let mut row = vec![class.name.clone()];
            row.extend(divided.then(|| class.split.name().to_owned()));
            row.extend(values.map(percent));
            classes.add_row(row);
        }
        let header: Vec<&str> = overall.iter().map(|(name, _)| *name).collect();
        let mut summary = table(&[&["images"], header.as_slice()].concat());
        let mut row = vec![self.images.to_string()];
        row.extend(overall.iter().map(|(_, value)| percent(*value)));
        summary.add_row(row);
        align_right(&mut classes, 1 + usize::from(divided));
        align_right(&mut summary, 0);
        let rule = match self.nan_rule {
            NanRule::Mmseg => String::new(),
            rule => format!("{}\n", rule.explanation()),
        };
        format!("{classes}\n\n{summary}\n{rule}")
    }

    /// Returns true if any class is unseen.
    fn is_divided(&self) -> bool {
        let mut classes = self.classes.iter();
        classes.any(|class| class.split == Split::Unseen)
    }
}

/// A fact about a model with the name of its column.
type Fact = (&'static str, fn(&ComparedModel) -> String);

/// Facts about models, each a column where the models differ in it.
const FACTS: [Fact; 5] = [
    ("method", |model| model.method.clone()),
    ("protocol", |model| model.protocol.title().to_owned()),
    ("seed", |model| {
        model
            .seed
            .map_or_else(|| "-".to_owned(), |seed| seed.to_string())
    }),
    ("data", |model| {
        format!("{} {}, {}", model.dataset, model.split, model.class_list)
    }),
    ("images", |model| model.scores.images.to_string()),
];

/// A column of scores: its name, whether it needs unseen classes, and its value for a model and for a mean.
struct Column {
    name: &'static str,
    of_split: bool,
    own: fn(&Report) -> Option<f64>,
    mean: fn(&Summary) -> Option<Spread>,
}

/// The scores of a model, in the order of tables.
const COLUMNS: [Column; 7] = [
    Column {
        name: "pAcc",
        of_split: false,
        own: |report| report.p_acc,
        mean: |summary| summary.p_acc,
    },
    Column {
        name: "mIoU",
        of_split: false,
        own: |report| report.miou,
        mean: |summary| summary.miou,
    },
    Column {
        name: "mIoU(S)",
        of_split: true,
        own: |report| report.miou_seen,
        mean: |summary| summary.miou_seen,
    },
    Column {
        name: "mIoU(U)",
        of_split: true,
        own: |report| report.miou_unseen,
        mean: |summary| summary.miou_unseen,
    },
    Column {
        name: "hIoU",
        of_split: true,
        own: |report| report.hiou,
        mean: |summary| summary.hiou,
    },
    Column {
        name: "mAcc",
        of_split: false,
        own: |report| report.macc,
        mean: |summary| summary.macc,
    },
    Column {
        name: "mDice",
        of_split: false,
        own: |report| report.mdice,
        mean: |summary| summary.mdice,
    },
];

impl Comparison {
    /// Returns the scores as a text table: one row per model and one per mean over seeds, in percent with two decimals.
    ///
    /// Facts in which the models differ have a column, as `method` and `data`.
    pub fn to_table(&self) -> String {
        let facts = FACTS.iter().filter(|(_, fact)| {
            let mut values = self.models.iter().map(fact);
            let first = values.next();
            values.any(|value| Some(&value) != first.as_ref())
        });
        let facts: Vec<&Fact> = facts.collect();
        let divided = self.models.iter().any(|model| model.scores.is_divided());
        let mut columns: Vec<&Column> = COLUMNS
            .iter()
            .filter(|column| divided || !column.of_split)
            .collect();
        let mut metrics = self.models.iter().map(|model| model.scores.metric);
        if metrics.any(|metric| metric == Metric::Dice) {
            columns.rotate_right(1);
        }
        let mut header = vec!["model"];
        header.extend(facts.iter().map(|(name, _)| *name));
        header.extend(columns.iter().map(|column| column.name));
        let mut rows = table(&header);
        for model in &self.models {
            let mut row = vec![model.model.clone()];
            row.extend(facts.iter().map(|(_, fact)| fact(model)));
            row.extend(columns.iter().map(|column| {
                let is_defined = !column.of_split || model.scores.is_divided();
                percent((column.own)(&model.scores).filter(|_| is_defined))
            }));
            rows.add_row(row);
        }
        for mean in &self.means {
            let mut row = vec![format!("mean of {} seeds", mean.models.len())];
            let members: Vec<&ComparedModel> = self
                .models
                .iter()
                .filter(|model| mean.models.contains(&model.model))
                .collect();
            let has_split = members.iter().any(|model| model.scores.is_divided());
            row.extend(facts.iter().map(|(_, fact)| shared(&members, *fact)));
            row.extend(columns.iter().map(|column| {
                let spread = (column.mean)(&mean.scores).filter(|_| !column.of_split || has_split);
                spread.map_or_else(|| percent(None), |spread| spread.percent())
            }));
            rows.add_row(row);
        }
        align_right(&mut rows, 1 + facts.len());
        let mut text = format!("{rows}\n");
        if let Some(mean) = self.means.first() {
            text.push_str(&mean.scores.note);
            text.push('\n');
        }
        text
    }
}

/// Returns a fact that all models share, or else nothing.
fn shared(models: &[&ComparedModel], fact: fn(&ComparedModel) -> String) -> String {
    let mut values = models.iter().map(|model| fact(model));
    let first = values.next().unwrap_or_default();
    if values.all(|value| value == first) {
        first
    } else {
        String::new()
    }
}

impl Summary {
    /// Returns the summary as a text table: one row per metric, in percent with two decimals.
    pub fn to_table(&self) -> String {
        let mut rows = table(&["", "mean", "std", "n"]);
        for (name, spread) in self.named() {
            let Some(Spread { mean, std, n }) = spread else {
                continue;
            };
            rows.add_row([
                name.to_owned(),
                format!("{:.2}", 100.0 * mean),
                std.map_or_else(|| "-".to_owned(), |std| format!("{:.2}", 100.0 * std)),
                n.to_string(),
            ]);
        }
        align_right(&mut rows, 1);
        format!("{rows}\n{}\n", self.note)
    }
}

impl Split {
    fn name(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::Unseen => "unseen",
        }
    }
}

/// Formats a fraction in percent with two decimals; a dash if it is undefined.
fn percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(|| "-".to_owned(), |value| format!("{:.2}", 100.0 * value))
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_style(presets::UTF8_HORIZONTAL_ONLY);
    table.set_header(header.iter().copied());
    table
}

/// Right-aligns all columns from column `from` on, which hold numbers.
fn align_right(table: &mut Table, from: usize) {
    for column in table.column_iter_mut().skip(from) {
        column.set_cell_alignment(CellAlignment::Right);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ConfusionMatrix;

    fn report(truth: &[u16], prediction: &[u16], unseen: &[bool]) -> Report {
        let mut confusion = ConfusionMatrix::new(unseen.len());
        confusion.add(truth, prediction, 255).unwrap();
        let names: Vec<String> = (0..unseen.len()).map(|class| format!("c{class}")).collect();
        Report::new(&confusion, &names, unseen, 1).unwrap()
    }

    #[test]
    fn the_table_shows_percent() {
        let text = report(&[0, 0, 255], &[0, 1, 2], &[false, true, true]).to_table();
        let row = |name: &str| -> Vec<String> {
            let line = text
                .lines()
                .find(|line| line.trim().starts_with(name))
                .unwrap();
            line.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(row("c0"), ["c0", "seen", "50.00", "50.00", "66.67"]);
        assert_eq!(row("c2"), ["c2", "unseen", "-", "-", "-"]);
        assert!(text.contains("hIoU"), "{text}");
    }

    #[test]
    fn dice_comes_first_where_it_is_the_metric() {
        let mut report = report(&[0, 0, 255], &[0, 1, 2], &[false, false, false]);
        report.metric = Metric::Dice;
        let text = report.to_table();
        let cells = |start: &str| -> Vec<String> {
            let line = text.lines().find(|line| line.trim().starts_with(start));
            line.unwrap()
                .split_whitespace()
                .map(str::to_owned)
                .collect()
        };
        assert_eq!(cells("class"), ["class", "Dice", "IoU", "Acc"]);
        assert_eq!(cells("c0"), ["c0", "66.67", "50.00", "50.00"]);
        assert_eq!(cells("images"), ["images", "mDice", "pAcc", "mIoU", "mAcc"]);
        assert_eq!(cells("1")[..3], ["1", "33.33", "50.00"]);
    }
}
