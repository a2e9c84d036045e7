//! The numbers of the papers, to stand beside one's own.
//!
//! Only figures of the same benchmark, class list and protocol say anything about each other, so rows are asked for by
//! these. hIoU follows from seen and unseen mIoU; a few papers print another value, which [`Row::hiou_differs`] tells.

use std::sync::LazyLock;

use serde::Deserialize;

use crate::Protocol;
use crate::report::harmonic_mean;

/// Half of the last digit of a published figure: what rounding hides.
const HALF_DIGIT: f64 = 0.05;
/// Tables whose rows are results; the others show parts of a method.
const RESULTS: [&str; 3] = ["benchmarks", "cross-dataset", "medical"];

/// A published table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name here: `benchmarks`, `designs`, `query-formats`, `prompt-depths`, `losses`, `templates`,
    /// `cross-dataset` or `medical`.
    pub name: String,
    /// What it compares.
    pub title: String,
    /// Where its figures were published.
    pub source: String,
    /// Its rows, in the order of the publication.
    pub rows: Vec<Row>,
}

/// A published result; figures in percent, as printed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Row {
    /// Data set, as `voc12`.
    pub benchmark: String,
    /// Class list, as `voc20`; `None` where a data set has only one.
    pub class_list: Option<String>,
    /// What the model knew of the unseen classes.
    pub protocol: Protocol,
    /// Data set of the training; `None` for the benchmark's own.
    pub trained_on: Option<String>,
    /// Method, or its variant.
    pub method: String,
    /// Part of all pixels that have the right class.
    pub p_acc: Option<f64>,
    /// Mean IoU of seen classes.
    pub seen: Option<f64>,
    /// Mean IoU of unseen classes.
    pub unseen: Option<f64>,
    /// hIoU as published.
    pub hiou: Option<f64>,
    /// Mean IoU of all classes.
    pub miou: Option<f64>,
    /// Mean accuracy of all classes.
    pub macc: Option<f64>,
    /// Mean Dice coefficient.
    pub mdice: Option<f64>,
    /// Where it was published.
    #[serde(default)]
    pub source: String,
    /// What else has to be known.
    pub note: Option<String>,
}

impl Row {
    /// hIoU of the published seen and unseen mIoU.
    pub fn recomputed_hiou(&self) -> Option<f64> {
        self.seen.zip(self.unseen).map(|(s, u)| harmonic_mean(s, u))
    }

    /// Whether the published hIoU cannot be that of the published seen and unseen mIoU, whatever was rounded.
    pub fn hiou_differs(&self) -> bool {
        let (Some(hiou), Some((s, u))) = (self.hiou, self.seen.zip(self.unseen)) else {
            return false;
        };
        let slack = HALF_DIGIT + 1e-9; // figures are no exact binary fractions
        let lowest = harmonic_mean(s - HALF_DIGIT, u - HALF_DIGIT) - slack;
        let highest = harmonic_mean(s + HALF_DIGIT, u + HALF_DIGIT) + slack;
        !(lowest..=highest).contains(&hiou)
    }
}

/// The split of seen and unseen classes that published figures are of.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct PublishedSplit {
    /// Class list, as `voc20`.
    pub class_list: String,
    /// Labels of its unseen classes, ascending.
    pub unseen: Vec<usize>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    splits: Vec<PublishedSplit>,
    tables: Vec<Table>,
}

/// The file is part of the program; a test reads it, so that it is never empty here.
static FILE: LazyLock<File> =
    LazyLock::new(|| parse(include_str!("../assets/published.toml")).unwrap_or_default());

fn parse(text: &str) -> Result<File, toml::de::Error> {
    let mut file: File = toml::from_str(text)?;
    for table in &mut file.tables {
        for row in &mut table.rows {
            if row.source.is_empty() {
                row.source.clone_from(&table.source);
            }
        }
    }
    Ok(file)
}

/// The split that the published figures of a class list are of.
pub fn split(class_list: &str) -> Option<&'static PublishedSplit> {
    FILE.splits
        .iter()
        .find(|split| split.class_list == class_list)
}

/// All published tables.
pub fn tables() -> &'static [Table] {
    &FILE.tables
}

/// A published table by its name.
pub fn table(name: &str) -> Option<&'static Table> {
    FILE.tables.iter().find(|table| table.name == name)
}

/// The published results of one benchmark and protocol; empty if none is known.
///
/// - `benchmark`: data set, as `voc12`
/// - `class_list`: name of the class list, as `voc20`; figures of another list of the same data set are not comparable
/// - `trained_on`: data set of the training; `None` for the benchmark's own
pub fn rows(
    benchmark: &str,
    class_list: &str,
    protocol: Protocol,
    trained_on: Option<&str>,
) -> Vec<&'static Row> {
    let trained_on = trained_on.unwrap_or(benchmark);
    let results = FILE
        .tables
        .iter()
        .filter(|table| RESULTS.contains(&table.name.as_str()));
    results
        .flat_map(|table| &table.rows)
        .filter(|row| {
            row.benchmark == benchmark
                && row
                    .class_list
                    .as_deref()
                    .is_none_or(|list| list == class_list)
                && row.protocol == protocol
                && row.trained_on.as_deref().unwrap_or(benchmark) == trained_on
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_file_is_read() {
        let tables = parse(include_str!("../assets/published.toml"))
            .unwrap()
            .tables;
        let sizes: Vec<(&str, usize)> = tables
            .iter()
            .map(|table| (table.name.as_str(), table.rows.len()))
            .collect();
        assert_eq!(
            sizes,
            [
                ("benchmarks", 48),
                ("designs", 24),
                ("query-formats", 12),
                ("prompt-depths", 8),
                ("losses", 6),
                ("templates", 4),
                ("cross-dataset", 9),
                ("medical", 3)
            ]
        );
        for row in tables.iter().flat_map(|table| &table.rows) {
            assert!(!row.source.is_empty(), "{row:?}");
            let figures = [
                row.p_acc, row.seen, row.unseen, row.hiou, row.miou, row.macc, row.mdice,
            ];
            assert!(figures.iter().any(Option::is_some), "{row:?}");
            for figure in figures.into_iter().flatten() {
                assert!((0.0..=100.0).contains(&figure), "{row:?}");
            }
            assert_eq!(
                row.hiou.is_some(),
                row.recomputed_hiou().is_some(),
                "{row:?}"
            );
        }
    }

    #[test]
    fn splits_are_those_of_the_class_lists() {
        for list in ["voc20", "coco-stuff171", "pascal-context60"] {
            let classes = zeg_vocab::classes::ClassSet::by_name(list).unwrap();
            assert_eq!(split(list).unwrap().unseen, classes.unseen, "{list}");
        }
        assert_eq!(FILE.splits.len(), 3);
    }

    #[test]
    fn rows_are_of_one_protocol_and_class_list() {
        let names = |rows: Vec<&Row>| {
            rows.iter()
                .map(|row| row.method.clone())
                .collect::<Vec<_>>()
        };
        let inductive = rows("voc12", "voc20", Protocol::Inductive, None);
        assert_eq!(inductive.len(), 9);
        let zegclip = inductive
            .iter()
            .find(|row| row.method == "ZegCLIP")
            .unwrap();
        assert_eq!((zegclip.p_acc, zegclip.hiou), (Some(94.6), Some(84.3)));
        assert_eq!(
            inductive,
            rows("voc12", "voc20", Protocol::Inductive, Some("voc12"))
        );
        assert!(rows("voc12", "voc21", Protocol::Inductive, None).is_empty());
        assert!(
            rows(
                "voc12",
                "voc20",
                Protocol::Inductive,
                Some("coco-stuff164k")
            )
            .is_empty()
        );
        assert!(rows("voc12", "voc20", Protocol::CrossDataset, None).is_empty());
        let crossed = rows(
            "voc12",
            "voc20",
            Protocol::CrossDataset,
            Some("coco-stuff164k"),
        );
        assert_eq!(names(crossed), ["ZegFormer", "ZegCLIP", "†ZegCLIP+ST"]);
        let dagger = rows(
            "pascal-context",
            "pascal-context60",
            Protocol::TransductiveUnseen,
            None,
        );
        assert_eq!(names(dagger), ["MaskCLIP+", "ZegCLIP+ST"]);
        // folder data sets name their classes themselves
        let medical = rows("cvc-clinicdb", "custom", Protocol::FullySupervised, None);
        assert_eq!(
            medical.iter().map(|row| row.mdice).collect::<Vec<_>>(),
            [Some(69.75)]
        );
    }

    #[test]
    fn figures_that_do_not_fit_are_known() {
        let rows = tables().iter().flat_map(|table| &table.rows);
        let differing: Vec<String> = rows
            .filter(|row| row.hiou_differs())
            .map(|row| {
                let (benchmark, protocol, method) = (&row.benchmark, row.protocol, &row.method);
                let hiou = row.recomputed_hiou().unwrap();
                format!("{benchmark} {protocol} {method} {hiou:.1}")
            })
            .collect();
        assert_eq!(
            differing,
            [
                "voc12 inductive zsseg (SimBase) 77.6",
                "voc12 transductive zsseg+ST 78.6",
                "coco-stuff164k inductive CaGNet 17.9",
                "coco-stuff164k transductive STRICT 32.6",
                "pascal-context inductive CaGNet 20.9",
                "pascal-context fully-supervised ZegCLIP 58.5"
            ]
        );
    }
}
