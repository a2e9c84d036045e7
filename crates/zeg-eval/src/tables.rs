//! Formats reports and summaries as text tables.

use comfy_table::{CellAlignment, Table, presets};

use crate::{
    report::{Metric, Report, Split},
    summary::{Spread, Summary},
};

impl Report {
    /// Returns the report as a text table: one row per class, then the summary, in percent with two decimals. The
    /// columns of [`metric`](Self::metric) come first.
    ///
    /// If no class is unseen, the columns of seen and unseen classes are left out.
    pub fn to_table(&self) -> String {
        let divided = self
            .classes
            .iter()
            .any(|class| class.split == Split::Unseen);
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
        format!("{classes}\n\n{summary}\n")
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
