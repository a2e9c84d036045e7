//! One file a command.

pub(crate) mod ablate;
pub(crate) mod bench;
pub(crate) mod data;
pub(crate) mod eval;
pub(crate) mod import;
pub(crate) mod info;
pub(crate) mod machine;
pub(crate) mod model_file;
pub(crate) mod models;
pub(crate) mod pretrain;
pub(crate) mod pull;
pub(crate) mod quickstart;
pub(crate) mod report;
pub(crate) mod segment;
pub(crate) mod train;

use std::{
    io::Write as _,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::Context as _;
use clap::CommandFactory as _;
use clap_complete::Shell;
use zeg::model::inference::Inference;
use zeg_train::checkpoint::write_atomically;

use crate::cli::{Cli, ComputeArgs, InferenceArgs};

/// Prints a completion script.
pub(crate) fn completions(shell: Shell) {
    clap_complete::generate(shell, &mut Cli::command(), "zeg", &mut std::io::stdout());
}

/// Opens the device and sets the number of threads.
fn open_device(args: &ComputeArgs) -> anyhow::Result<burn::tensor::Device> {
    if let Some(threads) = args.threads {
        anyhow::ensure!(threads > 0, "--threads 0: at least one thread is needed");
        rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build_global()
            .context("starting threads")?;
    }
    args.device.open().map_err(anyhow::Error::msg)
}

/// The folder of a data set; the mini world needs none.
fn data_folder<'a>(folder: Option<&'a Path>, dataset: &str) -> anyhow::Result<&'a Path> {
    match folder {
        Some(folder) => Ok(folder),
        None if dataset == zeg::data::mini_world::DATASET => Ok(Path::new("")),
        None => anyhow::bail!("the data set {dataset} lies in a folder; name it with --data"),
    }
}

/// Applies what the command line says about inference.
fn change_inference(settings: &mut Inference, args: &InferenceArgs) -> anyhow::Result<()> {
    if let Some(short_side) = args.short_side {
        settings.short_side = short_side;
    }
    if let Some(crop) = args.crop {
        settings.crop = crop;
        settings.stride = settings.stride.min(crop);
    }
    if let Some(stride) = args.stride {
        settings.stride = stride;
    }
    if let Some(offset) = args.seen_offset {
        settings.seen_offset = offset;
    }
    if let Some(view) = args.view {
        settings.view = view.view();
    }
    Ok(settings.check()?)
}

/// Where results as JSON go.
enum JsonTarget {
    Stdout,
    File(PathBuf),
}

impl JsonTarget {
    fn new(path: &Path) -> Self {
        if path == Path::new("-") {
            Self::Stdout
        } else {
            Self::File(path.to_owned())
        }
    }

    fn write(&self, value: &impl serde::Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_string_pretty(value)?;
        text.push('\n');
        match self {
            Self::Stdout => std::io::stdout().write_all(text.as_bytes())?,
            Self::File(path) => write_atomically(path, text.as_bytes())?,
        }
        Ok(())
    }
}

/// Set when the user asked the program to stop.
fn stop_flag() -> Arc<AtomicBool> {
    let flag = Arc::new(AtomicBool::new(false));
    let handler = Arc::clone(&flag);
    // Without a handler an interrupt ends the program at once, which is safe too, only less tidy.
    let _ = ctrlc::set_handler(move || {
        if handler.swap(true, Ordering::SeqCst) {
            std::process::exit(130);
        }
        eprintln!("\nstopping after this step; once more to stop at once");
    });
    flag
}
