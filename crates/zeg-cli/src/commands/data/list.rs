//! `zeg data list`: lists the known data sets.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use zeg::{
    data::{DatasetEntry, datasets},
    vocab::classes::ClassSet,
};

use crate::{
    commands::{JsonTarget, json::JsonArgs, write_result},
    say::StdoutError,
};

/// Arguments of `zeg data list`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg data list
  zeg data list --json | jq -r '.datasets[].name'")]
pub(super) struct ListArgs {
    #[command(flatten)]
    json: JsonArgs,
}

/// Settings of `zeg data list`.
#[derive(Debug)]
pub(super) struct ListSettings {
    json: Option<JsonTarget>,
}

impl ListArgs {
    /// # Errors
    /// Returns an error if the file of `--json` may not be written.
    pub(super) fn settings(self) -> anyhow::Result<ListSettings> {
        Ok(ListSettings {
            json: self.json.target("data list")?,
        })
    }
}

pub(super) fn list(settings: &ListSettings) -> anyhow::Result<ExitCode> {
    let list = datasets::all()
        .map(describe)
        .collect::<anyhow::Result<Vec<_>>>()?;
    let output = ListOutput { datasets: list };
    write_result(settings.json.as_ref(), &output, || print(&output.datasets))?;
    Ok(ExitCode::SUCCESS)
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    crate::commands::json::schema_of::<ListOutput>("data list")
}

/// The known data sets.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ListOutput {
    /// All data sets.
    datasets: Vec<DatasetDescription>,
}

/// A data set in the list.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct DatasetDescription {
    /// Its name, for `--dataset`.
    name: &'static str,
    /// Its title, as `PASCAL VOC 2012`.
    title: &'static str,
    /// Its class lists, for `--class-list`.
    class_lists: Vec<ClassListDescription>,
    /// Its official splits.
    splits: Vec<SplitDescription>,
}

/// A class list and its size.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ClassListDescription {
    /// Its name.
    name: &'static str,
    /// Number of its classes.
    classes: usize,
    /// Number of those that are unseen in the published split.
    unseen: usize,
}

/// A split and its number of images.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct SplitDescription {
    /// Its name.
    name: &'static str,
    /// Number of its images.
    images: usize,
}

fn describe(entry: &'static DatasetEntry) -> anyhow::Result<DatasetDescription> {
    let class_lists = entry
        .class_lists
        .iter()
        .map(|list| {
            let classes = ClassSet::by_name(list.name)?;
            Ok(ClassListDescription {
                name: list.name,
                classes: classes.len(),
                unseen: classes.unseen.len(),
            })
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let splits = entry.splits.iter().map(|split| SplitDescription {
        name: split.name,
        images: split.images,
    });
    Ok(DatasetDescription {
        name: entry.name,
        title: entry.title,
        class_lists,
        splits: splits.collect(),
    })
}

fn print(list: &[DatasetDescription]) -> Result<(), StdoutError> {
    for dataset in list {
        print_result!("{:<16} {}", dataset.name, dataset.title)?;
        for list in &dataset.class_lists {
            let seen = list.classes - list.unseen;
            print_result!(
                "{:16}   classes {}: {seen} seen, {} unseen",
                "",
                list.name,
                list.unseen
            )?;
        }
        let splits = dataset
            .splits
            .iter()
            .map(|split| format!("{} {}", split.name, split.images));
        let splits: Vec<String> = splits.collect();
        print_result!("{:16}   images {}", "", splits.join(", "))?;
    }
    print_result!(
        "\nA data set of your own is a .toml file; configs/datasets holds a template and examples."
    )?;
    Ok(())
}
