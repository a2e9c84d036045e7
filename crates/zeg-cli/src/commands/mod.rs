//! The commands, one file or folder each: its arguments, its settings and its work.

pub(crate) mod ablate;
pub(crate) mod bench;
pub(crate) mod check;
mod children;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod embed;
pub(crate) mod eval;
pub(crate) mod export;
mod facts;
mod file_contents;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod interrupt;
pub(crate) mod journal;
pub(crate) mod json;
pub(crate) mod machine;
pub(crate) mod model_file;
pub(crate) mod models;
pub(crate) mod place;
pub(crate) mod pretrain;
pub(crate) mod pull;
pub(crate) mod quickstart;
pub(crate) mod report;
pub(crate) mod run_files;
mod same_images;
pub(crate) mod segment;
pub(crate) mod serve;
pub(crate) mod shared;
mod stated;
pub(crate) mod train;
pub(crate) mod visualize;

use std::{
    path::Path,
    sync::{Arc, atomic::AtomicBool},
};

use zeg::data::is_description;
use zeg_train::experiment::{Experiment, ExperimentFile};

use self::json::{JsonTarget, write_result};
use crate::Program;

/// Whether the name of a file is that of an experiment.
fn is_experiment(file: &Path) -> bool {
    file.extension()
        .is_some_and(|extension| extension.eq_ignore_ascii_case("toml"))
}

/// Opens an experiment file, applies changes, and prints a warning for each renamed key.
///
/// - `changes`: settings, `key=value`
fn open_experiment(
    program: &Program,
    file: &Path,
    changes: &[String],
) -> anyhow::Result<Experiment> {
    let Program { methods, recipes } = program;
    let ExperimentFile {
        experiment,
        notices,
    } = Experiment::open(file, changes, methods, recipes)?;
    for notice in notices {
        print_notice!("warning: {}: {notice}", file.display());
    }
    Ok(experiment)
}

/// Returns the folder of a data set; the mini world needs none, and a description names its own.
///
/// # Errors
/// Returns an error if another data set has no folder, or the mini world has one.
fn data_folder<'a>(folder: Option<&'a Path>, dataset: &str) -> anyhow::Result<&'a Path> {
    let is_world = dataset == zeg::data::mini_world::DATASET;
    match folder {
        Some(folder) if is_world => Err(crate::numbers::WrongArgument(format!(
            "the data set {dataset} takes no folder (--data {}): its images are made while they are read; leave \
             --data out",
            folder.display()
        ))
        .into()),
        Some(folder) => Ok(folder),
        None if is_world || is_description(dataset) => Ok(Path::new("")),
        None => Err(crate::numbers::WrongArgument(format!(
            "the data set {dataset} needs a folder; name it with --data"
        ))
        .into()),
    }
}

/// Returns a flag that is set when the user or the system asks the program to stop; a second request ends it at once.
fn stop_flag() -> Arc<AtomicBool> {
    interrupt::on_request(|| {
        print_notice!("\nstopping after the work in progress; press Ctrl-C again to stop at once");
    });
    interrupt::flag()
}
