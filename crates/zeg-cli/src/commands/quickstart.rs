//! `zeg quickstart`: zero-shot segmentation from end to end in minutes, from what is in the program alone.
//!
//! It runs the commands that a user would type, and says which: three trainings on the mini world's seen classes from
//! the embedded MiniCLIP, scores on seen and unseen ones, a few images segmented, a page about it all.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    sync::Arc,
    time::Instant,
};

use anyhow::Context as _;
use clap::Args;
use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;
use zeg::{
    data::{
        SampleSource as _,
        mini_world::{Part, World, WorldConfig, WorldSet},
    },
    eval::{Evaluation, Report},
    image::write_rgb_png,
    mini,
};

use super::{JsonTarget, eval::sweep, shared::Existing, write_result};
use crate::Program;

/// Images that are segmented.
const IMAGES: usize = 6;

/// Arguments of `zeg quickstart`.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  zeg quickstart
  zeg quickstart -o elsewhere --seed 1 --json -

Everything it does is a command of this program, which it prints before running it.")]
pub(crate) struct QuickstartArgs {
    /// Folder for everything
    #[arg(short, long, value_name = "DIR", default_value = "quickstart")]
    output: PathBuf,
    /// Of initial values, order and dropout
    #[arg(long, value_name = "SEED", default_value_t = 0)]
    seed: u64,
    /// Steps of each training [default: as the experiments say]
    #[arg(long, value_name = "N")]
    steps: Option<u64>,
    /// Images to score [default: as the experiments say]
    #[arg(long, value_name = "N")]
    limit: Option<usize>,
    /// Replace what an earlier quickstart left in the folder
    #[arg(long)]
    overwrite: bool,
    /// Write the scores as JSON; `-` writes them to standard output instead of the table
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Threads for computing [default: all cores]
    #[arg(long, value_name = "N", env = "ZEG_THREADS")]
    threads: Option<usize>,
}

/// A training that is compared.
struct QuickstartMethod {
    name: &'static str,
    title: &'static str,
    experiment: &'static str,
    /// Seen offsets of which validation images choose one; of scores from 0 to 1, or of logits.
    offsets: &'static [f32],
}

const METHODS: [QuickstartMethod; 3] = [
    QuickstartMethod {
        name: "zegclip",
        title: "ZegCLIP",
        experiment: include_str!("../../../../configs/mini-world/zegclip-inductive.toml"),
        offsets: &[0.0, 0.02, 0.05, 0.1, 0.15, 0.2, 0.3],
    },
    QuickstartMethod {
        name: "baseline-tuned",
        title: "fine-tuned baseline",
        experiment: include_str!("../../../../configs/mini-world/baseline-tuned.toml"),
        offsets: &[0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0],
    },
    QuickstartMethod {
        name: "baseline-frozen",
        title: "frozen baseline",
        experiment: include_str!("../../../../configs/mini-world/baseline-frozen.toml"),
        offsets: &[0.0, 1.0, 2.0, 3.0, 4.0, 6.0, 8.0],
    },
];

/// What came out.
#[derive(Debug, Serialize)]
struct QuickstartSummary {
    seconds: f64,
    threads: usize,
    seed: u64,
    methods: Vec<MethodScores>,
    /// The page about it.
    report: PathBuf,
    /// The page with segmented images.
    segmented: PathBuf,
}

/// A method's scores on the test images.
#[derive(Debug, Serialize)]
struct MethodScores {
    name: &'static str,
    title: &'static str,
    /// Seen and unseen classes treated alike.
    uncalibrated: Report,
    /// The seen offset with the best hIoU on the validation images.
    seen_offset: f32,
    /// With that offset.
    calibrated: Report,
}

/// How large the quickstart is, and where it goes.
#[derive(Debug)]
struct QuickstartSettings {
    output: PathBuf,
    seed: u64,
    /// Steps of each training; without, as the experiments say.
    steps: Option<u64>,
    /// Images to score; without, as the experiments say.
    limit: Option<usize>,
    existing: Existing,
    json: Option<JsonTarget>,
    threads: Option<usize>,
}

impl QuickstartArgs {
    fn settings(self) -> QuickstartSettings {
        QuickstartSettings {
            output: self.output,
            seed: self.seed,
            steps: self.steps,
            limit: self.limit,
            existing: Existing::of_flag(self.overwrite),
            json: self.json.map(JsonTarget::of_path),
            threads: self.threads,
        }
    }
}

pub(crate) fn run(_program: &Program, args: QuickstartArgs) -> anyhow::Result<ExitCode> {
    quickstart(&args.settings())?;
    Ok(ExitCode::SUCCESS)
}

fn quickstart(settings: &QuickstartSettings) -> anyhow::Result<()> {
    let started = Instant::now();
    let runs = settings.output.join("runs");
    settings.existing.check(&runs)?;
    if runs.exists() {
        // Only what a quickstart left is removed, never somebody's own runs.
        let first = settings.output.join(format!("{}.toml", METHODS[0].name));
        anyhow::ensure!(
            first.is_file(),
            "{} was not made by a quickstart ({} is not there); choose another folder with -o",
            runs.display(),
            first.display()
        );
        for part in ["runs", "scores", "images", "segmented", "report"] {
            let folder = settings.output.join(part);
            if folder.exists() {
                fs::remove_dir_all(&folder).with_context(|| folder.display().to_string())?;
            }
        }
    }
    fs::create_dir_all(&settings.output).with_context(|| settings.output.display().to_string())?;
    eprintln!(
        "MiniCLIP has read captions about every colour and texture. Training now sees masks of 15 classes; 5 more are\n\
         scored that it never saw a mask of."
    );
    let quickstart = Quickstart { settings };
    for method in &METHODS {
        quickstart.train(method)?;
    }
    let methods = METHODS
        .iter()
        .map(|method| quickstart.score(method))
        .collect::<anyhow::Result<Vec<_>>>()?;
    quickstart.segment()?;
    let summary = QuickstartSummary {
        report: quickstart.report()?,
        segmented: settings.output.join("segmented/index.html"),
        threads: settings.threads.unwrap_or_else(rayon::current_num_threads),
        seed: settings.seed,
        methods,
        seconds: (started.elapsed().as_secs_f64() * 10.0).round() / 10.0,
    };
    write_result(settings.json.as_ref(), &summary, || {
        println!("{}", summary.to_text());
    })
}

/// One evaluation of a training.
struct Scoring<'a> {
    method: &'a QuickstartMethod,
    split: &'a str,
    offsets: &'a [f32],
    /// Folder of the records.
    folder: &'a Path,
    /// Images of each rank for the gallery.
    gallery: usize,
}

struct Quickstart<'a> {
    settings: &'a QuickstartSettings,
}

impl Quickstart<'_> {
    fn path(&self, name: impl AsRef<Path>) -> PathBuf {
        self.settings.output.join(name)
    }

    fn model(&self, method: &QuickstartMethod) -> PathBuf {
        self.path("runs")
            .join(method.name)
            .join("model.safetensors")
    }

    fn train(&self, method: &QuickstartMethod) -> anyhow::Result<()> {
        let experiment = self.path(format!("{}.toml", method.name));
        fs::write(&experiment, method.experiment)
            .with_context(|| experiment.display().to_string())?;
        let mut command = zeg("train");
        command.arg(experiment).args(["--weights", mini::NAME]);
        command.arg("-o").arg(self.path("runs").join(method.name));
        command.args(["--set", &format!("training.seed={}", self.settings.seed)]);
        if let Some(steps) = self.settings.steps {
            command.args(["--set", &format!("training.steps={steps}")]);
        }
        self.carry_out(command)
    }

    /// Scores on the test images, with the seen offset that is best on the validation images and without.
    fn score(&self, method: &QuickstartMethod) -> anyhow::Result<MethodScores> {
        let chosen = self.path("scores").join("val").join(method.name);
        self.evaluate(&Scoring {
            method,
            split: "val",
            offsets: method.offsets,
            folder: &chosen,
            gallery: 0,
        })?;
        let (mut seen_offset, mut best) = (0.0, f64::NEG_INFINITY);
        for &offset in method.offsets {
            let report = Evaluation::open(sweep::folder(&chosen, offset))?.report()?;
            let hiou = report.hiou.unwrap_or(0.0);
            if hiou > best {
                (seen_offset, best) = (offset, hiou);
            }
        }
        let scores = self.path("scores").join(method.name);
        let mut offsets = vec![0.0, seen_offset];
        offsets.dedup();
        self.evaluate(&Scoring {
            method,
            split: "test",
            offsets: &offsets,
            folder: &scores,
            gallery: 2,
        })?;
        let report = |offset| {
            let record = Evaluation::open(sweep::folder(&scores, offset))?;
            anyhow::Ok(record.report()?)
        };
        Ok(MethodScores {
            name: method.name,
            title: method.title,
            uncalibrated: report(0.0)?,
            seen_offset,
            calibrated: report(seen_offset)?,
        })
    }

    fn evaluate(&self, scoring: &Scoring) -> anyhow::Result<()> {
        let Scoring {
            method,
            split,
            offsets,
            folder,
            gallery,
        } = *scoring;
        let mut command = zeg("eval");
        command.arg(self.model(method)).args(["--split", split]);
        let offsets: Vec<String> = offsets.iter().map(ToString::to_string).collect();
        command.arg(format!("--seen-offsets={}", offsets.join(",")));
        if let Some(limit) = self.settings.limit {
            command.args(["--limit", &limit.to_string()]);
        }
        command.args(["--gallery", &gallery.to_string()]);
        command.arg("-o").arg(folder);
        self.carry_out(command)
    }

    /// Segments a few test images with ZegCLIP, of all 20 classes.
    fn segment(&self) -> anyhow::Result<()> {
        let images = self.path("images");
        fs::create_dir_all(&images).with_context(|| images.display().to_string())?;
        let world = Arc::new(World::new(WorldConfig::default())?);
        let classes = world.classes().classes.join(", ");
        let set = WorldSet::new(world, Part::Test, IMAGES);
        for index in 0..set.len() {
            let sample = set.load(index)?;
            write_rgb_png(&images.join(format!("{}.png", sample.id)), &sample.image)?;
        }
        let [zegclip, ..] = &METHODS;
        let mut command = zeg("segment");
        command.arg(&images).arg("--model").arg(self.model(zegclip));
        command.args(["--classes", &classes, "--write", "labels,overlay,html"]);
        command.arg("-o").arg(self.path("segmented"));
        self.carry_out(command)
    }

    fn report(&self) -> anyhow::Result<PathBuf> {
        let folder = self.path("report");
        let mut command = zeg("report");
        for method in &METHODS {
            let scores = self.path("scores").join(method.name);
            command.arg(sweep::folder(&scores, 0.0));
        }
        command.args(["--title", "Quickstart: the mini world", "-o"]);
        command.arg(&folder);
        self.carry_out(command)?;
        Ok(folder.join("report.html"))
    }

    /// Runs this very program with a command's arguments.
    fn carry_out(&self, command: Command) -> anyhow::Result<()> {
        let mut arguments: Vec<OsString> = command.get_args().map(ToOwned::to_owned).collect();
        let computes = arguments.first().is_some_and(|what| what != "report");
        if let Some(threads) = self.settings.threads.filter(|_| computes) {
            arguments.extend(["--threads".into(), threads.to_string().into()]);
        }
        let words: Vec<String> = arguments
            .iter()
            .map(|word| quoted(&word.to_string_lossy()))
            .collect();
        eprintln!("\n$ zeg {}", words.join(" "));
        let program = std::env::current_exe().context("finding this program")?;
        let status = Command::new(program)
            .args(arguments)
            .stdout(Stdio::null())
            .status()
            .context("starting a process of this program")?;
        anyhow::ensure!(
            status.success(),
            "`zeg {}` ended with {status}",
            words.join(" ")
        );
        Ok(())
    }
}

/// A command of this program.
fn zeg(command: &str) -> Command {
    let mut zeg = Command::new("zeg");
    zeg.arg(command);
    zeg
}

/// A word as a shell takes it.
fn quoted(word: &str) -> String {
    if word.contains([' ', '"', '\'']) {
        format!("{word:?}")
    } else {
        word.to_owned()
    }
}

impl QuickstartSummary {
    /// The scores as a table, and where to look.
    fn to_text(&self) -> String {
        let mut table = Table::new();
        table.load_style(presets::UTF8_HORIZONTAL_ONLY);
        table.set_header([
            "",
            "unseen mIoU",
            "seen mIoU",
            "hIoU",
            "offset",
            "unseen mIoU",
            "seen mIoU",
            "hIoU",
        ]);
        let percent = |value: Option<f64>| {
            value.map_or_else(|| "-".to_owned(), |v| format!("{:.1}", 100.0 * v))
        };
        for scores in &self.methods {
            let figures =
                |report: &Report| [report.miou_unseen, report.miou_seen, report.hiou].map(percent);
            let [u, s, h] = figures(&scores.uncalibrated);
            let [cu, cs, ch] = figures(&scores.calibrated);
            let offset = scores.seen_offset.to_string();
            table.add_row([scores.title.to_owned(), u, s, h, offset, cu, cs, ch]);
        }
        for column in table.column_iter_mut().skip(1) {
            column.set_cell_alignment(CellAlignment::Right);
        }
        format!(
            "\n{table}\nAs trained, then with the seen offset that is best on validation images.\n\
             {:.0} s on {} threads. Look at {}, and at {}.",
            self.seconds,
            self.threads,
            self.report.display(),
            self.segmented.display(),
        )
    }
}
