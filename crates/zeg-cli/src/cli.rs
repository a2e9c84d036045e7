//! The command line, as typed.

use clap::{Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::{
    ablate::AblateArgs, bench::BenchArgs, check::CheckArgs, data::DataArgs, eval::EvalArgs,
    import::ImportArgs, info::InfoArgs, models::ModelsArgs, pretrain::PretrainArgs, pull::PullArgs,
    quickstart::QuickstartArgs, report::ReportArgs, segment::SegmentArgs, train::TrainArgs,
};

/// Zero-shot semantic segmentation: label every pixel of an image with class names given as words.
#[derive(Debug, Parser)]
#[command(
    name = "zeg",
    version,
    max_term_width = 100,
    after_help = "\
Exit codes: 0 done; 1 the work failed; 2 the command line is wrong; 130 interrupted.
Results go to standard output, everything else to standard error."
)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// See zero-shot segmentation happen in minutes, without a download
    Quickstart(QuickstartArgs),
    /// Pre-train MiniCLIP on images and captions of the mini world
    Pretrain(PretrainArgs),
    /// Train a model from an experiment file
    Train(TrainArgs),
    /// Run a suite of experiments over seeds, into one table
    Ablate(AblateArgs),
    /// Score models on a data set: pAcc, mIoU on seen and unseen classes, hIoU, Dice
    Eval(EvalArgs),
    /// Write a page about evaluations, beside the published numbers
    Report(ReportArgs),
    /// List, prepare and examine data sets
    Data(DataArgs),

    /// Label images with class names
    Segment(SegmentArgs),
    /// List public weights that can be fetched by name
    Models(ModelsArgs),
    /// Fetch public weights by name
    Pull(PullArgs),
    /// Convert published weights of any format to one safetensors file
    Import(ImportArgs),
    /// Show what an experiment, a checkpoint or a file of weights is
    Info(InfoArgs),
    /// Time a model: images to scores, or steps of its training
    Bench(BenchArgs),
    /// Try this machine: compute models of every method with and without the kernels, and compare
    Check(CheckArgs),
    /// Print a completion script for a shell
    Completions {
        /// The shell
        shell: Shell,
    },
}
