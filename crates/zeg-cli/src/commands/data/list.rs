//! `zeg data list`: lists the known data sets.

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use serde_json::json;
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
    let document = json!({ "datasets": list });
    write_result(settings.json.as_ref(), &document, || print(&list))?;
    Ok(ExitCode::SUCCESS)
}

/// A data set in the list.
#[derive(Debug, Serialize)]
struct DatasetDescription {
    name: &'static str,
    title: &'static str,
    class_lists: Vec<ClassListDescription>,
    splits: Vec<SplitDescription>,
}

/// A class list and its size.
#[derive(Debug, Serialize)]
struct ClassListDescription {
    name: &'static str,
    classes: usize,
    unseen: usize,
}

/// A split and its number of images.
#[derive(Debug, Serialize)]
struct SplitDescription {
    name: &'static str,
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
