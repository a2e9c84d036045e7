//! The command line as the user types it.

use std::fmt::Write as _;

use clap::{CommandFactory as _, Parser, Subcommand};
use clap_complete::Shell;

use crate::commands::{
    ablate::AblateArgs, bench::BenchArgs, check::CheckArgs, data::DataArgs, eval::EvalArgs,
    import::ImportArgs, info::InfoArgs, models::ModelsArgs, pretrain::PretrainArgs, pull::PullArgs,
    quickstart::QuickstartArgs, report::ReportArgs, segment::SegmentArgs, train::TrainArgs,
    visualize::VisualizeArgs,
};

/// Zero-shot semantic segmentation: label every pixel of an image with classes that are given by name
#[derive(Debug, Parser)]
#[command(
    name = "zeg",
    version,
    max_term_width = 100,
    after_help = "\
Examples:
  zeg quickstart
  zeg pull clip-vit-b-16
  zeg segment photo.jpg --model clip-vit-b-16 --classes \"dog, sofa|couch\" -o out

Results go to standard output, everything else to standard error.
Exit codes: 0 success; 1 the work failed; 2 the command line is wrong; stopped by a signal: 129 HUP, \
130 INT (Ctrl-C), 143 TERM."
)]
pub(crate) struct Cli {
    /// Print no progress and no notices; errors and warnings remain
    #[arg(short, long, global = true)]
    pub(crate) quiet: bool,
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// The command to run.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Train, score and segment in minutes, with nothing to download
    Quickstart(QuickstartArgs),
    /// Segment images into classes that are given by name
    Segment(SegmentArgs),
    /// Draw what a model computes on an image: class masks, similarities, patch features
    Visualize(VisualizeArgs),
    /// Train a model from an experiment file
    Train(TrainArgs),
    /// Run the experiments of a suite over several seeds and write one table
    Ablate(AblateArgs),
    /// Pre-train MiniCLIP on images and captions of the mini world
    Pretrain(PretrainArgs),
    /// Score models on a data set: pAcc, mIoU on seen and unseen classes, hIoU, Dice
    Eval(EvalArgs),
    /// Write a page about evaluations, beside the published numbers
    Report(ReportArgs),
    /// List, check and prepare data sets
    Data(DataArgs),
    /// List the public weights that can be pulled by name
    Models(ModelsArgs),
    /// Download public weights by name
    Pull(PullArgs),
    /// Convert published weights of any format to a safetensors file
    Import(ImportArgs),
    /// Describe an experiment, a checkpoint or a file of weights
    Info(InfoArgs),
    /// Measure the time and memory of inference or training
    Bench(BenchArgs),
    /// Check that this machine computes every method correctly
    Check(CheckArgs),
    /// Print a completion script for a shell
    Completions {
        /// Shell that the script is for
        shell: Shell,
    },
}

/// The commands under the headings of `zeg --help`.
const GROUPS: [(&str, &[&str]); 5] = [
    ("Segment images", &["quickstart", "segment", "visualize"]),
    ("Train", &["train", "ablate", "pretrain"]),
    ("Evaluate", &["eval", "report"]),
    (
        "Data and weights",
        &["data", "models", "pull", "import", "info"],
    ),
    ("This program", &["bench", "check", "completions", "help"]),
];

impl Cli {
    /// Returns the parser, with the commands of its help in groups.
    ///
    /// clap lists all commands under one heading, so a template holds the list.
    pub(crate) fn grouped_command() -> clap::Command {
        let command = Self::command();
        let styles = command.get_styles();
        let (header, literal) = (*styles.get_header(), *styles.get_literal());
        let mut list = String::new();
        for (group, names) in GROUPS {
            // Writing to a string cannot fail.
            let _ = writeln!(list, "\n{header}{group}:{header:#}");
            for name in names {
                let about = match command.find_subcommand(name) {
                    Some(subcommand) => subcommand.get_about().map(ToString::to_string),
                    None => Some("Print this help, or the help of a command".to_owned()),
                };
                let about = about.unwrap_or_default();
                let _ = writeln!(list, "  {literal}{name:<11}{literal:#}  {about}");
            }
        }
        let (before, after) = (
            "{about-with-newline}\n{usage-heading} {usage}\n",
            "{options}",
        );
        command.help_template(format!(
            "{before}{list}\n{header}Options:{header:#}\n{after}{{after-help}}"
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_command_is_in_one_group_of_the_help() {
        let command = Cli::command();
        let mut commands: Vec<&str> = command
            .get_subcommands()
            .map(clap::Command::get_name)
            .collect();
        commands.push("help");
        commands.sort_unstable();
        let mut grouped: Vec<&str> = GROUPS
            .iter()
            .flat_map(|(_, names)| names.iter().copied())
            .collect();
        grouped.sort_unstable();
        assert_eq!(grouped, commands);
    }

    #[test]
    fn the_definition_of_every_command_is_consistent() {
        Cli::grouped_command().debug_assert();
    }
}
