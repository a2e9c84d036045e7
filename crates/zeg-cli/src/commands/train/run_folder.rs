//! The folder of a run: manifest, log, checkpoints and finally the model.
//!
//! ```text
//! run.json                          manifest: experiment, data, weights, machine
//! log.jsonl                         one line per step
//! checkpoint-00001500.safetensors   trained weights and optimiser state
//! scores.jsonl                      scores during training, if the experiment asks for them
//! best.safetensors                  trained weights with the best of these scores
//! model.safetensors                 trained weights of the finished run
//! ```

use std::{
    fs::{File, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
    time::{Duration, SystemTime, UNIX_EPOCH},
};
use zeg::data::is_same_dataset;
use zeg::model::{method::Architecture, methods::Methods, section::ModelSection};

use anyhow::Context as _;
use serde_json::json;
use zeg_base::plural::counted;
use zeg_train::{
    checkpoint::{BaseWeights, Checkpoint, write_atomically},
    experiment::{Experiment, Setting},
    trainer::StepReport,
};

use super::{
    args::{Continuation, TrainSettings},
    validation::ValidationScore,
};
use crate::commands::machine;

/// The weights that a run starts from.
pub(super) enum Start {
    /// The frozen weights and random initial values.
    Fresh,
    /// A checkpoint of this run, with the optimiser's state.
    Resumed(Box<Checkpoint>),
    /// The weights of another run.
    Init(Box<Checkpoint>),
}

/// The error for a transductive run without a model to start from.
#[derive(Debug, thiserror::Error)]
#[error("the transductive setting starts from an inductively trained model; --init is missing")]
pub(crate) struct NothingToStartFrom;

impl Start {
    /// Returns the start of a fresh run, with the weights of another run if there are any.
    ///
    /// - `checkpoint`: the value of `--init`
    pub(super) fn or_init(
        self,
        checkpoint: Option<&Path>,
        experiment: &Experiment,
        methods: &Methods,
    ) -> anyhow::Result<Self> {
        match (self, checkpoint) {
            (Self::Fresh, Some(path)) => {
                let checkpoint = Checkpoint::open(path, methods)?;
                let before = Experiment::of_checkpoint(&checkpoint)?;
                let (old, new) = (&before.model, &experiment.model);
                // Two files can spell one architecture differently, so the architectures are compared.
                let spelled_out = |section: &ModelSection| {
                    let architecture = section.architecture(methods)?;
                    anyhow::Ok(format!("{architecture:?}"))
                };
                anyhow::ensure!(
                    spelled_out(old)? == spelled_out(new)?,
                    "{} holds another model: {}",
                    path.display(),
                    differing("model", old, new)
                );
                Ok(Self::Init(Box::new(checkpoint)))
            }
            (Self::Fresh, None) if experiment.training.setting == Setting::Transductive => {
                Err(NothingToStartFrom.into())
            }
            (start, _) => Ok(start),
        }
    }

    /// Checks that the checkpoint has this architecture, including the activation, which no experiment need state.
    ///
    /// # Errors
    /// Returns an error if the architectures differ.
    pub(super) fn check_architecture(
        &self,
        architecture: &dyn Architecture,
        methods: &Methods,
    ) -> anyhow::Result<()> {
        let (Self::Resumed(checkpoint) | Self::Init(checkpoint)) = self else {
            return Ok(());
        };
        let before = checkpoint.architecture(methods)?;
        anyhow::ensure!(
            format!("{before:?}") == format!("{architecture:?}"),
            "{}: was trained with another activation of the image encoder than that of the weights; state it with \
             --activation",
            checkpoint.path().display()
        );
        Ok(())
    }
}

/// The error for a folder that holds a run already.
#[derive(Debug, thiserror::Error)]
#[error("{} holds a run already ({})", folder.display(), counted(*checkpoints, "checkpoint"))]
pub(crate) struct RunExists {
    folder: PathBuf,
    checkpoints: usize,
}

/// Everything that a manifest is written from.
pub(super) struct ManifestInput<'a> {
    pub(super) experiment: &'a Experiment,
    pub(super) settings: &'a TrainSettings,
    pub(super) base: &'a BaseWeights,
    /// Number of training images.
    pub(super) images: usize,
    /// Step that this process starts with.
    pub(super) first_step: u64,
}

/// The folder of a run.
pub(super) struct RunFolder(PathBuf);

impl RunFolder {
    /// Opens the folder of a run, and returns the newest checkpoint if the run continues.
    ///
    /// # Errors
    /// Returns an error if the folder holds a run that is not continued, or one of another experiment.
    pub(super) fn open(
        path: &Path,
        continuation: Continuation,
        experiment: &Experiment,
        methods: &Methods,
    ) -> anyhow::Result<(Self, Start)> {
        std::fs::create_dir_all(path).with_context(|| path.display().to_string())?;
        let folder = Self(path.to_owned());
        let checkpoints = folder.checkpoints()?;
        let Some(newest) = checkpoints.last() else {
            return Ok((folder, Start::Fresh));
        };
        if continuation == Continuation::Fresh {
            return Err(RunExists {
                folder: path.to_owned(),
                checkpoints: checkpoints.len(),
            }
            .into());
        }
        let checkpoint = Checkpoint::open(newest, methods)?;
        let mut before = Experiment::of_checkpoint(&checkpoint)?;
        // A description may have been moved; earlier versions kept its path as it was typed.
        if is_same_dataset(&before.data.dataset, &experiment.data.dataset) {
            before.data.dataset.clone_from(&experiment.data.dataset);
        }
        anyhow::ensure!(
            before == *experiment,
            "{} was written by another experiment: {}",
            newest.display(),
            differing("", &before, experiment)
        );
        Ok((folder, Start::Resumed(Box::new(checkpoint))))
    }

    pub(super) fn checkpoint(&self, step: u64) -> PathBuf {
        self.0.join(format!("checkpoint-{step:08}.safetensors"))
    }

    pub(super) fn model(&self) -> PathBuf {
        self.0.join("model.safetensors")
    }

    /// Returns the checkpoints, the oldest first.
    fn checkpoints(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut found: Vec<PathBuf> = std::fs::read_dir(&self.0)
            .with_context(|| self.0.display().to_string())?
            .filter_map(|entry| Some(entry.ok()?.path()))
            .filter(|path| {
                let name = path
                    .file_name()
                    .and_then(|name| name.to_str())
                    .unwrap_or_default();
                name.starts_with("checkpoint-") && name.ends_with(".safetensors")
            })
            .collect();
        found.sort();
        Ok(found)
    }

    /// Removes all but the newest `keep` checkpoints.
    pub(super) fn remove_old_checkpoints(&self, keep: usize) -> anyhow::Result<()> {
        let checkpoints = self.checkpoints()?;
        for old in checkpoints.iter().rev().skip(keep.max(1)) {
            std::fs::remove_file(old).with_context(|| old.display().to_string())?;
        }
        Ok(())
    }

    pub(super) fn best(&self) -> PathBuf {
        self.0.join("best.safetensors")
    }

    /// Opens the log for appending.
    ///
    /// For a run that continues, the lines of steps that will be repeated are removed, and so is a line that a crash
    /// cut off.
    ///
    /// - `first_step`: number of the next step
    pub(super) fn open_log(&self, first_step: u64) -> anyhow::Result<Log> {
        let path = self.0.join("log.jsonl");
        keep_lines(&path, |line| {
            line["step"].as_u64().is_some_and(|step| step < first_step)
        })?;
        Log::open(&path)
    }

    /// Opens the scores for appending and returns those of earlier steps; see [`RunFolder::open_log`].
    pub(super) fn open_scores(
        &self,
        first_step: u64,
    ) -> anyhow::Result<(Log, Vec<ValidationScore>)> {
        let path = self.0.join("scores.jsonl");
        let kept = keep_lines(&path, |line| {
            line["step"].as_u64().is_some_and(|step| step <= first_step)
        })?;
        let scores = kept
            .into_iter()
            .filter_map(|line| serde_json::from_value(line).ok())
            .collect();
        Ok((Log::open(&path)?, scores))
    }

    /// Writes the manifest, which holds everything needed to repeat the run.
    pub(super) fn write_manifest(&self, input: &ManifestInput) -> anyhow::Result<()> {
        let ManifestInput {
            experiment,
            settings,
            base,
            images,
            first_step,
        } = *input;
        let manifest = json!({
            "program": concat!("zeg ", env!("CARGO_PKG_VERSION")),
            "command": std::env::args().collect::<Vec<_>>(),
            "started_unix": SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            "first_step": first_step,
            "experiment": experiment,
            "seed": experiment.training.seed,
            "data": { "folder": settings.data, "images": images },
            "weights": base,
            "text": settings.text,
            "init": settings.init,
            "device": settings.compute.device.to_string(),
            "machine": {
                "os": std::env::consts::OS,
                "arch": std::env::consts::ARCH,
                "threads": rayon::current_num_threads(),
                "processor": machine::processor(),
            },
            "git_revision": git_revision(),
        });
        let mut text = serde_json::to_string_pretty(&manifest)?;
        text.push('\n');
        Ok(write_atomically(&self.0.join("run.json"), text.as_bytes())?)
    }
}

/// Removes all lines of a JSON Lines file that `keep` rejects, and returns the others.
fn keep_lines(
    path: &Path,
    keep: impl Fn(&serde_json::Value) -> bool,
) -> anyhow::Result<Vec<serde_json::Value>> {
    if !path.exists() {
        return Ok(Vec::new());
    }
    let old = std::fs::read(path).with_context(|| path.display().to_string())?;
    let old = String::from_utf8_lossy(&old);
    let (mut lines, mut kept) = (Vec::new(), String::new());
    for line in old.lines() {
        if let Ok(value) = serde_json::from_str(line)
            && keep(&value)
        {
            kept.push_str(line);
            kept.push('\n');
            lines.push(value);
        }
    }
    if kept != old {
        write_atomically(path, kept.as_bytes())?;
    }
    Ok(lines)
}

/// A JSON Lines file that is appended to.
pub(super) struct Log(File);

impl Log {
    fn open(path: &Path) -> anyhow::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        Ok(Self(file.with_context(|| path.display().to_string())?))
    }

    /// Writes the numbers of a step and its time.
    pub(super) fn write_step(&mut self, report: &StepReport, took: Duration) -> anyhow::Result<()> {
        let mut line = serde_json::to_value(report)?;
        line["seconds"] = json!((took.as_secs_f64() * 1e4).round() / 1e4);
        self.write(&line)
    }

    pub(super) fn write(&mut self, line: &impl serde::Serialize) -> anyhow::Result<()> {
        let mut text = serde_json::to_string(line)?;
        text.push('\n');
        Ok(self.0.write_all(text.as_bytes())?)
    }
}

/// Describes the first setting in which two experiments, or parts of them, differ.
///
/// - `path`: key of the part
fn differing<T: serde::Serialize>(path: &str, old: &T, new: &T) -> String {
    fn walk(path: &str, old: &serde_json::Value, new: &serde_json::Value) -> Option<String> {
        let (Some(a), Some(b)) = (old.as_object(), new.as_object()) else {
            return (old != new).then(|| format!("{path} was {old}, now {new}"));
        };
        let absent = serde_json::Value::Null;
        a.keys().chain(b.keys()).find_map(|key| {
            let path = if path.is_empty() {
                key.clone()
            } else {
                format!("{path}.{key}")
            };
            walk(
                &path,
                a.get(key).unwrap_or(&absent),
                b.get(key).unwrap_or(&absent),
            )
        })
    }
    let value = |part: &T| serde_json::to_value(part).unwrap_or_default();
    walk(path, &value(old), &value(new)).unwrap_or_else(|| "no setting differs".to_owned())
}

/// Returns the revision of the git checkout that the program runs in, if there is one.
fn git_revision() -> Option<String> {
    let output = std::process::Command::new("git")
        .args(["rev-parse", "HEAD"])
        .output()
        .ok()?;
    let revision = String::from_utf8(output.stdout).ok()?.trim().to_owned();
    (output.status.success() && !revision.is_empty()).then_some(revision)
}
