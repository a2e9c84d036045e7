//! `zeg info`: what an experiment or a checkpoint is and costs.

use std::process::ExitCode;

use serde::Serialize;
use zeg::model::weights::{Inspection, StateDict};
use zeg_train::{checkpoint::Checkpoint, experiment::Experiment};

use crate::cli::InfoArgs;

#[derive(Debug, Serialize)]
struct Info {
    file: String,
    encoder: String,
    classes: String,
    seen: usize,
    unseen: usize,
    setting: &'static str,
    steps: u64,
    batch: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    trained_steps: Option<u64>,
    parameters: Parameters,
    macs: Macs,
}

#[derive(Debug, Serialize)]
struct Parameters {
    encoder_and_head: u64,
    trained: u64,
    declared_by_reference: u64,
}

#[derive(Debug, Serialize)]
struct Macs {
    size: usize,
    encoder: u64,
    head: u64,
    resize: u64,
    total: u64,
    /// Crops that the encoder looks at, in a model of two stages.
    #[serde(skip_serializing_if = "Option::is_none")]
    crops: Option<usize>,
}

pub(crate) fn run(args: &InfoArgs) -> anyhow::Result<ExitCode> {
    let is_experiment = args
        .file
        .extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("toml"));
    if !is_experiment {
        let weights = zeg::mini::open_weights(&args.file)?;
        if !Checkpoint::is_checkpoint(&weights) {
            return weights_info(&weights, args.json);
        }
    }
    let (experiment, trained_steps) = if is_experiment {
        (Experiment::open(&args.file, &args.changes)?, None)
    } else {
        let info = Checkpoint::open(&args.file)?.info;
        (info.experiment, Some(info.step))
    };
    let info = describe(&experiment, trained_steps, args.file.display().to_string())?;
    if args.json {
        println!("{}", serde_json::to_string_pretty(&info)?);
    } else {
        print(&info);
    }
    Ok(ExitCode::SUCCESS)
}

fn weights_info(weights: &StateDict, json: bool) -> anyhow::Result<ExitCode> {
    let found = Inspection::of(weights)?;
    if json {
        println!("{}", serde_json::to_string_pretty(&found)?);
    } else {
        print!("{}", super::import::describe(&found));
    }
    Ok(ExitCode::SUCCESS)
}

fn describe(
    experiment: &Experiment,
    trained_steps: Option<u64>,
    file: String,
) -> anyhow::Result<Info> {
    let classes = experiment.data.class_set()?;
    let config = experiment.model.architecture()?;
    let params = config.count_params()?;
    let (size, macs) = (config.resolution(), config.count_macs(classes.len()));
    Ok(Info {
        file,
        encoder: experiment.model.encoder.to_string(),
        seen: classes.len() - classes.unseen.len(),
        unseen: classes.unseen.len(),
        classes: classes.name,
        setting: experiment.training.setting.name(),
        steps: experiment.training.steps,
        batch: experiment.training.batch,
        trained_steps,
        parameters: Parameters {
            encoder_and_head: params.all,
            trained: params.trained,
            declared_by_reference: params.declared_by_reference,
        },
        macs: Macs {
            size,
            encoder: macs.encoder,
            head: macs.head,
            resize: macs.resize,
            total: macs.total(),
            crops: config.crops(),
        },
    })
}

fn print(info: &Info) {
    let giga = |macs: u64| macs as f64 / 1e9;
    println!("{}", info.file);
    println!("  encoder      {}", info.encoder);
    println!(
        "  classes      {}: {} seen, {} unseen",
        info.classes, info.seen, info.unseen
    );
    let done = info
        .trained_steps
        .map_or_else(String::new, |done| format!("{done} of "));
    println!(
        "  training     {}, {done}{} steps of {} pictures",
        info.setting, info.steps, info.batch
    );
    println!(
        "  parameters   {} in encoder and head",
        grouped(info.parameters.encoder_and_head)
    );
    println!(
        "               {} really trained",
        grouped(info.parameters.trained)
    );
    println!(
        "               {} in the layout of the reference's checkpoints, unused modules included",
        grouped(info.parameters.declared_by_reference)
    );
    println!(
        "  cost         {:.1} G multiply-accumulates for one {}×{} crop",
        giga(info.macs.total),
        info.macs.size,
        info.macs.size
    );
    match info.macs.crops {
        Some(crops) => println!(
            "               first stage {:.1} G, {crops} crops {:.1} G",
            giga(info.macs.head),
            giga(info.macs.encoder)
        ),
        None => println!(
            "               encoder {:.1} G, head {:.1} G, masks to pixels {:.1} G",
            giga(info.macs.encoder),
            giga(info.macs.head),
            giga(info.macs.resize)
        ),
    }
}

/// Digits in groups of three.
pub(crate) fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join(",")
}
