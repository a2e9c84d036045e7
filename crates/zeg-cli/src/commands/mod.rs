//! The commands, one file or folder each: its arguments, its settings and its work.

pub(crate) mod ablate;
pub(crate) mod bench;
pub(crate) mod check;
pub(crate) mod completions;
pub(crate) mod data;
pub(crate) mod eval;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod json;
pub(crate) mod machine;
pub(crate) mod model_file;
pub(crate) mod models;
pub(crate) mod place;
pub(crate) mod pretrain;
pub(crate) mod pull;
pub(crate) mod quickstart;
pub(crate) mod report;
pub(crate) mod segment;
pub(crate) mod shared;
pub(crate) mod train;

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

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

/// Returns the folder of a data set; the mini world needs none.
///
/// # Errors
/// Returns an error if another data set has no folder.
fn data_folder<'a>(folder: Option<&'a Path>, dataset: &str) -> anyhow::Result<&'a Path> {
    match folder {
        Some(folder) => Ok(folder),
        None if dataset == zeg::data::mini_world::DATASET => Ok(Path::new("")),
        None => anyhow::bail!("the data set {dataset} needs a folder; name it with --data"),
    }
}

/// Returns a flag that is set when the user interrupts the program; a second interrupt ends it at once.
fn stop_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&flag);
    // Without a handler an interrupt ends the program at once, which loses work but damages nothing.
    let _ = ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        print_notice!("\nstopping after this step; press Ctrl-C again to stop at once");
    });
    flag
}
