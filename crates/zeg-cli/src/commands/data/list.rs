//! `zeg data list`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use zeg::{
    data::{DatasetEntry, datasets},
    vocab::classes::ClassSet,
};

/// Arguments of `zeg data list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

/// How the list is printed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ListForm {
    Text,
    Json,
}

impl ListArgs {
    pub(super) fn settings(self) -> ListForm {
        if self.json {
            ListForm::Json
        } else {
            ListForm::Text
        }
    }
}

pub(super) fn list(form: ListForm) -> anyhow::Result<ExitCode> {
    if form == ListForm::Json {
        let list = datasets::all()
            .map(describe)
            .collect::<anyhow::Result<Vec<_>>>()?;
        println!("{}", serde_json::to_string_pretty(&list)?);
        return Ok(ExitCode::SUCCESS);
    }
    for entry in datasets::all() {
        println!("{:<16} {}", entry.name, entry.title);
        for list in entry.class_lists {
            let classes = ClassSet::by_name(list.name)?;
            let unseen = classes.unseen.len();
            let seen = classes.len() - unseen;
            println!(
                "{:16}   classes {}: {seen} seen, {unseen} unseen",
                "", list.name
            );
        }
        let splits: Vec<String> = entry
            .splits
            .iter()
            .map(|split| format!("{} {}", split.name, split.images))
            .collect();
        println!("{:16}   images {}", "", splits.join(", "));
    }
    println!(
        "\nOne's own data set is a .toml file; configs/datasets holds a template and examples."
    );
    Ok(ExitCode::SUCCESS)
}

fn describe(entry: &DatasetEntry) -> anyhow::Result<serde_json::Value> {
    let lists = entry
        .class_lists
        .iter()
        .map(|list| {
            let classes = ClassSet::by_name(list.name)?;
            Ok(json!({ "name": list.name, "classes": classes.len(), "unseen": classes.unseen.len() }))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let splits: Vec<_> = entry
        .splits
        .iter()
        .map(|split| json!({ "name": split.name, "images": split.images }))
        .collect();
    Ok(json!({
        "name": entry.name,
        "title": entry.title,
        "class_lists": lists,
        "splits": splits,
    }))
}
