//! The command line as the user types it.

use std::{fmt::Write as _, time::Duration};

use clap::{CommandFactory as _, Parser, Subcommand};

use crate::commands::{
    ablate::AblateArgs, bench::BenchArgs, check::CheckArgs, completions::CompletionsArgs,
    data::DataArgs, embed::EmbedArgs, eval::EvalArgs, export::ExportArgs, import::ImportArgs,
    info::InfoArgs, models::ModelsArgs, pretrain::PretrainArgs, pull::PullArgs,
    quickstart::QuickstartArgs, report::ReportArgs, segment::SegmentArgs, serve::ServeArgs,
    train::TrainArgs, visualize::VisualizeArgs,
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
    /// Print details as well: the machine, time and memory, and every cause of an error
    #[arg(short, long, global = true, conflicts_with = "quiet")]
    pub(crate) verbose: bool,
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
    /// Serve models over HTTP: an API, a web page and a backend for Label Studio
    Serve(ServeArgs),
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
    /// Write a table of class embeddings from a text tower
    Embed(EmbedArgs),
    /// Export a model as ONNX, for other runtimes and browsers
    Export(ExportArgs),
    /// Describe an experiment, a checkpoint, a file of weights or a table of class embeddings
    Info(InfoArgs),
    /// Measure the time and memory of inference or training
    Bench(BenchArgs),
    /// Check that this machine computes every method correctly
    Check(CheckArgs),
    /// Print a completion script for a shell
    Completions(CompletionsArgs),
}

impl Command {
    /// Returns the time that the command waits for other ranks; `None` if it is work for one process.
    pub(crate) fn rank_timeout(&self) -> Option<Duration> {
        match self {
            Self::Train(args) => Some(args.ranks.timeout()),
            Self::Eval(args) => args.rank_timeout(),
            Self::Segment(args) => args.rank_timeout(),
            _ => None,
        }
    }

    /// Whether the command is one part of work that the user has divided, so that processes do not share it.
    pub(crate) fn is_shard(&self) -> bool {
        match self {
            Self::Eval(args) => args.is_shard(),
            Self::Segment(args) => args.is_shard(),
            _ => false,
        }
    }

    /// Returns the name of the command.
    pub(crate) fn name(&self) -> &'static str {
        match self {
            Self::Quickstart(_) => "quickstart",
            Self::Segment(_) => "segment",
            Self::Visualize(_) => "visualize",
            Self::Serve(_) => "serve",
            Self::Train(_) => "train",
            Self::Ablate(_) => "ablate",
            Self::Pretrain(_) => "pretrain",
            Self::Eval(_) => "eval",
            Self::Report(_) => "report",
            Self::Data(_) => "data",
            Self::Models(_) => "models",
            Self::Pull(_) => "pull",
            Self::Import(_) => "import",
            Self::Embed(_) => "embed",
            Self::Export(_) => "export",
            Self::Info(_) => "info",
            Self::Bench(_) => "bench",
            Self::Check(_) => "check",
            Self::Completions(_) => "completions",
        }
    }
}

/// The commands under the headings of `zeg --help`.
const GROUPS: [(&str, &[&str]); 5] = [
    (
        "Segment images",
        &["quickstart", "segment", "visualize", "serve"],
    ),
    ("Train", &["train", "ablate", "pretrain"]),
    ("Evaluate", &["eval", "report"]),
    (
        "Data and weights",
        &[
            "data", "models", "pull", "import", "embed", "export", "info",
        ],
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

    /// Calls a function for every command that does something, with its path.
    fn for_each_command(visit: &mut dyn FnMut(&str, &clap::Command)) {
        let mut program = Cli::command();
        program.build();
        let mut left: Vec<(String, &clap::Command)> = vec![(String::new(), &program)];
        while let Some((path, command)) = left.pop() {
            if !command.is_subcommand_required_set() && !path.is_empty() {
                visit(&path, command);
            }
            for sub in command.get_subcommands() {
                if sub.get_name() != "help" {
                    left.push((format!("{path} {}", sub.get_name()).trim().to_owned(), sub));
                }
            }
        }
    }

    #[test]
    fn every_command_has_json_quiet_and_verbose() {
        let mut count = 0;
        for_each_command(&mut |path, command| {
            count += 1;
            let find = |name: &str| {
                let found = command.get_arguments().find(|arg| arg.get_id() == name);
                found.unwrap_or_else(|| panic!("zeg {path} has no --{name}"))
            };
            let json = find("json");
            assert_eq!(json.get_long(), Some("json"), "{path}");
            assert_eq!(json.get_num_args(), Some((0..=1).into()), "{path}");
            assert_eq!(find("quiet").get_short(), Some('q'), "{path}");
            assert_eq!(find("verbose").get_short(), Some('v'), "{path}");
        });
        assert!(count >= 18, "{count}");
    }

    #[cfg(feature = "schema")]
    #[test]
    fn every_command_has_a_schema_of_its_output() {
        let mut commands = Vec::new();
        for_each_command(&mut |path, _| commands.push(path.to_owned()));
        let outputs = crate::schema::outputs();
        let mut named: Vec<_> = outputs.iter().map(|(name, _)| (*name).to_owned()).collect();
        commands.sort_unstable();
        named.sort_unstable();
        assert_eq!(named, commands);
    }

    #[test]
    fn completions_cover_the_options_of_every_command() {
        use clap_complete::{Shell, generate};
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let mut script = Vec::new();
            generate(shell, &mut Cli::command(), "zeg", &mut script);
            let script = String::from_utf8(script).unwrap();
            for_each_command(&mut |path, _| {
                let name = path.split(' ').next_back().unwrap_or_default();
                assert!(script.contains(name), "{shell}: {path}");
            });
            for option in ["json", "verbose", "quiet"] {
                assert!(script.contains(option), "{shell}: {option}");
            }
        }
    }

    #[test]
    fn the_definition_of_every_command_is_consistent() {
        Cli::grouped_command().debug_assert();
    }
}
