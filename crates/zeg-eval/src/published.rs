//! Published results of the papers, for comparison.
//!
//! Only results of the same benchmark, class list and protocol are comparable, so rows are looked up by these. hIoU
//! follows from seen and unseen mIoU; a few papers print another value, which [`Row::hiou_differs`] detects.

use std::sync::LazyLock;

use serde::Deserialize;
use zeg_vocab::classes::ClassSet;

use crate::Protocol;
use crate::report::harmonic_mean;

/// Half of the last digit of a published figure: the largest rounding error.
const HALF_DIGIT: f64 = 0.05;
/// Names of the tables of results; the other tables are ablations.
const RESULTS: [&str; 3] = ["benchmarks", "cross-dataset", "medical"];

/// A published table.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Table {
    /// Its name: `benchmarks`, `designs`, `query-formats`, `prompt-depths`, `losses`, `templates`, `cross-dataset` or
    /// `medical`.
    pub name: String,
    /// Title of the table.
    pub title: String,
    /// Publication of its figures.
    pub source: String,
    /// Its rows, in the order of the publication.
    pub rows: Vec<Row>,
}

/// A published result; figures are in percent, as printed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct Row {
    /// Name of the data set, such as `voc12`: of an entry of `zeg_data::datasets`, or of a data set described in a
    /// file.
    pub benchmark: String,
    /// Class list, such as `voc20`; `None` if the data set has only one.
    pub class_list: Option<String>,
    /// What the model knew about the unseen classes in training.
    pub protocol: Protocol,
    /// Data set of the training; `None` for the data set of the benchmark.
    pub trained_on: Option<String>,
    /// Name of the method or of its variant.
    pub method: String,
    /// Pixel accuracy: share of all pixels whose predicted class is right.
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
    /// Publication.
    #[serde(default)]
    pub source: String,
    /// Note on the figures.
    pub note: Option<String>,
}

impl Row {
    /// Returns the hIoU computed from the published seen and unseen mIoU.
    pub fn recomputed_hiou(&self) -> Option<f64> {
        self.seen.zip(self.unseen).map(|(s, u)| harmonic_mean(s, u))
    }

    /// Returns true if the published hIoU does not follow from the published seen and unseen mIoU, even with rounding.
    pub fn hiou_differs(&self) -> bool {
        let (Some(hiou), Some((s, u))) = (self.hiou, self.seen.zip(self.unseen)) else {
            return false;
        };
        let slack = HALF_DIGIT + 1e-9; // figures are not exact binary fractions
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

/// The built-in file; a test counts its rows, so parsing does not fail here.
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

/// Returns the labels of the unseen classes in the published split of a class list, ascending; `None` if no split was
/// published.
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
/// - `benchmark`: name of the data set, such as `voc12`; see [`Row::benchmark`]
/// - `class_list`: name of the class list, such as `voc20`; results of another list of the data set are not comparable
/// - `trained_on`: data set of the training; `None` for the data set of the benchmark
pub fn rows(
    benchmark: &str,
    class_list: &str,
    protocol: Protocol,
    trained_on: Option<&str>,
) -> Vec<&'static Row> {
    let trained_on = trained_on.unwrap_or(benchmark);
    let class_list = ClassSet::usually_spelled(class_list);
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

    /// Sources: SPNet (CVPR 2019) for VOC and COCO-Stuff, ZS3Net (NeurIPS 2019) for Context.
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
