//! `zeg data list`.

use std::process::ExitCode;

use clap::Args;
use serde_json::json;
use zeg::{
    data::{Benchmark, DATASETS, benchmark},
    vocab::classes::ClassSet,
};

/// Arguments of `zeg data list`.
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Print JSON
    #[arg(long)]
    json: bool,
}

pub(super) fn run(args: &ListArgs) -> anyhow::Result<ExitCode> {
    let benchmarks = DATASETS.iter().filter_map(|name| benchmark(name));
    if args.json {
        let list = benchmarks
            .map(describe)
            .collect::<anyhow::Result<Vec<_>>>()?;
        println!("{}", serde_json::to_string_pretty(&list)?);
        return Ok(ExitCode::SUCCESS);
    }
    for benchmark in benchmarks {
        println!("{:<16} {}", benchmark.name, benchmark.title);
        for list in benchmark.class_lists {
            let classes = ClassSet::by_name(list)?;
            let unseen = classes.unseen.len();
            let seen = classes.len() - unseen;
            println!("{:16}   classes {list}: {seen} seen, {unseen} unseen", "");
        }
        let splits: Vec<String> = benchmark
            .splits
            .iter()
            .map(|split| format!("{} {}", split.name, split.pictures))
            .collect();
        println!("{:16}   pictures {}", "", splits.join(", "));
    }
    println!(
        "\nOne's own data set is a .toml file; configs/datasets holds a template and examples."
    );
    Ok(ExitCode::SUCCESS)
}

fn describe(benchmark: &Benchmark) -> anyhow::Result<serde_json::Value> {
    let lists = benchmark
        .class_lists
        .iter()
        .map(|name| {
            let classes = ClassSet::by_name(name)?;
            Ok(json!({ "name": name, "classes": classes.len(), "unseen": classes.unseen.len() }))
        })
        .collect::<anyhow::Result<Vec<_>>>()?;
    let splits: Vec<_> = benchmark
        .splits
        .iter()
        .map(|split| json!({ "name": split.name, "pictures": split.pictures }))
        .collect();
    Ok(json!({
        "name": benchmark.name,
        "title": benchmark.title,
        "class_lists": lists,
        "splits": splits,
    }))
}
