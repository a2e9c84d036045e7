//! The numbers of the papers, to stand beside one's own.
//!
//! Only figures of the same benchmark, class list and protocol say anything about each other, so rows are asked for by
//! these. hIoU follows from seen and unseen mIoU; a few papers print another value, which [`Row::hiou_differs`] tells.

use std::sync::LazyLock;

use serde::Deserialize;
use zeg_vocab::classes::ClassSet;

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
    /// Name of the data set's entry (`zeg_data::datasets`), as `voc12`, or of a described one.
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

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    tables: Vec<Table>,
}

/// The file is part of the library; a test counts its rows, so that it is never empty here.
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

/// Returns the labels of the unseen classes, ascending, that published figures of a class list are of; `None` where no
/// split of its classes was published.
pub(crate) fn unseen(class_list: &str) -> Option<Vec<usize>> {
    let classes = ClassSet::by_name(class_list).ok()?;
    Some(classes.unseen).filter(|unseen| !unseen.is_empty())
}

/// Returns all published tables.
pub fn tables() -> &'static [Table] {
    &FILE.tables
}

/// Returns a published table by its name.
pub fn table(name: &str) -> Option<&'static Table> {
    FILE.tables.iter().find(|table| table.name == name)
}

/// Returns the published results of one benchmark and protocol; empty if none is known.
///
/// - `benchmark`: name of the data set's entry (`zeg_data::datasets`), as `voc12`, or of a described one
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

    /// VOC and COCO-Stuff: SPNet (CVPR 2019); Context: ZS3Net (NeurIPS 2019).
    #[test]
    fn unseen_classes_are_those_of_the_papers() {
        assert_eq!(unseen("voc20").unwrap(), [15, 16, 17, 18, 19]);
        assert_eq!(
            unseen("coco-stuff171").unwrap(),
            [
                19, 23, 28, 29, 36, 51, 76, 88, 94, 112, 133, 136, 137, 157, 160
            ]
        );
        assert_eq!(
            unseen("pascal-context60").unwrap(),
            [1, 7, 8, 15, 20, 25, 32, 34, 49, 55]
        );
        for without in ["ade20k-150", "cityscapes19", "my-rooms"] {
            assert_eq!(unseen(without), None, "{without}");
        }
    }
}
