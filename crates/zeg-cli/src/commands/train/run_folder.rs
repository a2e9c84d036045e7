//! The folder of a run: manifest, log, checkpoints and finally the model.
//!
//! ```text
//! run.json                          manifest: experiment, data, weights, machine
//! log.jsonl                         one line per step
//! checkpoint-00001500.safetensors   trained weights and optimiser state
//! scores.jsonl                      scores during training, if the experiment asks for them
//! best.safetensors                  trained weights with the best of these scores
//! model.safetensors                 trained weights of the finished run
//! zeg.lock                          the process that works in the folder, while it does
//! ```

use std::{
    path::{Path, PathBuf},
    time::{SystemTime, UNIX_EPOCH},
};
use zeg::model::methods::Methods;

use anyhow::Context as _;
use serde_json::json;
use zeg_base::fingerprint::Fingerprint;
use zeg_base::lock::Lock;
use zeg_base::plural::counted;
use zeg_base::ranks::Ranks;
use zeg_train::{
    checkpoint::{BaseWeights, write_atomically},
    experiment::Experiment,
};

use super::{
    args::{Continuation, TrainSettings},
    begun_run::{BegunRun, MANIFEST, with_dataset_of},
    checkpoint_files::{NotWritten, checkpoints, name_of, open_newest},
    file_name,
    init::{Init, TeacherUnknown},
    start::Start,
    validation::ValidationScore,
};
use crate::commands::{
    machine,
    place::Existing,
    run_files::{Log, NoCheckpoint, RunExists, claim_folder, differing},
};

/// Everything that a manifest is written from.
pub(super) struct ManifestInput<'a> {
    pub(super) experiment: &'a Experiment,
    pub(super) settings: &'a TrainSettings,
    pub(super) base: &'a BaseWeights,
    /// Everything that the training follows from besides the experiment.
    pub(super) fingerprint: &'a Fingerprint,
    /// Number of training images.
    pub(super) images: usize,
    /// Step that this process starts with.
    pub(super) first_step: u64,
    /// The checkpoint that the run started from.
    pub(super) init: Option<&'a Init>,
    /// Names of the parameters that start fresh; empty in a run that continues.
    pub(super) fresh: &'a [String],
    /// The processes that train together.
    pub(super) ranks: &'a Ranks,
}

/// The folder of a run, which no other process uses.
pub(super) struct RunFolder {
    path: PathBuf,
    lock: Lock,
    /// Files of an earlier run that this one replaces.
    replaced: Vec<PathBuf>,
    /// The manifest of the run that continues; `None` for another run, and if it cannot be read beside a checkpoint.
    begun: Option<BegunRun>,
}

impl RunFolder {
    /// Opens the folder of a run, and returns the newest checkpoint if the run continues.
    ///
    /// # Errors
    /// Returns an error if another process uses the folder, if it cannot be written, if it holds a run that is neither
    /// continued nor replaced, or one of another experiment, and if a run is to continue that the folder does not hold.
    pub(super) fn open(
        settings: &TrainSettings,
        experiment: &Experiment,
        methods: &Methods,
    ) -> anyhow::Result<(Self, Start)> {
        let path = settings.output.clone();
        if settings.continuation == Continuation::Resume && !path.is_dir() {
            return Err(NoCheckpoint {
                place: path,
                finished: None,
            }
            .into());
        }
        let mut folder = Self {
            lock: claim_folder(&path)?,
            path,
            replaced: Vec::new(),
            begun: None,
        };
        let start = match settings.continuation {
            Continuation::Fresh => {
                folder.refuse_run()?;
                Start::Fresh
            }
            Continuation::Replace => {
                folder.replaced = folder.files_to_replace(&settings.inputs())?;
                Start::Fresh
            }
            Continuation::Resume => folder.resumed(experiment, methods)?,
        };
        Ok((folder, start))
    }

    /// Returns the files of a run that the folder holds, whatever they are.
    fn files(&self) -> anyhow::Result<Vec<PathBuf>> {
        let mut files = self.checkpoints()?;
        let others = [
            self.model(),
            self.best(),
            self.manifest(),
            self.log(),
            self.scores(),
        ];
        files.extend(
            others
                .into_iter()
                .filter(|path| path.symlink_metadata().is_ok()),
        );
        Ok(files)
    }

    /// Checks that the folder holds no run; one that ended before its first step is none.
    ///
    /// # Errors
    /// Returns an error if the folder holds files of a run.
    fn refuse_run(&self) -> anyhow::Result<()> {
        let mut files = self.files()?;
        if BegunRun::open(&self.path).is_ok_and(|run| run.is_some()) {
            files.retain(|file| *file != self.manifest() && !is_empty(file));
        }
        let Some(first) = files.first() else {
            return Ok(());
        };
        let checkpoints = self.checkpoints()?.len();
        let found = match checkpoints {
            0 => file_name(first),
            _ => counted(checkpoints, "checkpoint"),
        };
        Err(RunExists {
            place: self.path.clone(),
            found,
            can_continue: checkpoints > 0 || (self.is_begun() && !self.model().exists()),
        }
        .into())
    }

    /// Returns the files of a run that this one replaces.
    ///
    /// # Errors
    /// Returns an error if one of them is not a file, or a file that this run reads.
    fn files_to_replace(&self, inputs: &[&Path]) -> anyhow::Result<Vec<PathBuf>> {
        let files = self.files()?;
        for file in &files {
            let place = Existing::Replace.place(file)?;
            let is_input = |input: &&Path| input.canonicalize().is_ok_and(|input| input == place);
            anyhow::ensure!(
                !inputs.iter().any(is_input),
                "{}: the run reads this file, so it does not replace it; choose another folder with -o",
                file.display()
            );
        }
        Ok(files)
    }

    /// Returns the start of a run that continues.
    fn resumed(&mut self, experiment: &Experiment, methods: &Methods) -> anyhow::Result<Start> {
        for file in self.files()? {
            Existing::Replace.place(&file)?;
        }
        let Some(checkpoint) = open_newest(&self.checkpoints()?, methods)? else {
            self.begun = self.check_begun(experiment)?;
            print_notice!(
                "warning: {}: the run ended before its first checkpoint, so it starts at step 0",
                self.path.display()
            );
            return Ok(Start::Fresh);
        };
        self.begun = BegunRun::open(&self.path).ok().flatten();
        let before = with_dataset_of(Experiment::of_checkpoint(&checkpoint)?, experiment);
        anyhow::ensure!(
            before == *experiment,
            "{} was written by another experiment: {}",
            checkpoint.path().display(),
            differing("", &before, experiment)
        );
        Ok(Start::Resumed(Box::new(checkpoint)))
    }

    /// Checks that a run of this experiment has begun in the folder, which has no checkpoint, and returns its manifest; a
    /// run that was killed early has none.
    fn check_begun(&self, experiment: &Experiment) -> anyhow::Result<Option<BegunRun>> {
        let finished = Some(self.model()).filter(|model| model.exists());
        if finished.is_some() || !self.is_begun() {
            return Err(NoCheckpoint {
                place: self.path.clone(),
                finished,
            }
            .into());
        }
        let Some(run) = BegunRun::open(&self.path)? else {
            return Ok(None);
        };
        let before = with_dataset_of(run.experiment.clone(), experiment);
        anyhow::ensure!(
            before == *experiment,
            "{} was written by another experiment: {}",
            self.manifest().display(),
            differing("", &before, experiment)
        );
        Ok(Some(run))
    }

    /// Returns the checkpoint that the run starts from: the one that is named, or that of the run that continues.
    ///
    /// - `asked`: the value of `--init`
    /// - `teaches`: whether it gives the pseudo labels, so that a run that continues reads it again
    ///
    /// # Errors
    /// Returns an error if the run that continues began with another one, if that one has changed and is read again, or if
    /// it teaches and is not known.
    pub(super) fn init(
        &self,
        asked: Option<&Path>,
        start: &Start,
        teaches: bool,
    ) -> anyhow::Result<Option<Init>> {
        let Some(begun) = &self.begun else {
            if let (Some(asked), Start::Resumed(_)) = (asked, start) {
                if teaches {
                    print_notice!(
                        "warning: no run.json says what the run began with; --init {} is taken for it, and gives the pseudo labels",
                        asked.display()
                    );
                    return Ok(Some(Init::of_file(asked)));
                }
                print_notice!(
                    "warning: --init {} is not used: the run continues from its own checkpoint, and no run.json says what \
                     it began with",
                    asked.display()
                );
                return Ok(None);
            }
            if teaches && matches!(start, Start::Resumed(_)) {
                let folder = self.path.clone();
                return Err(TeacherUnknown { folder }.into());
            }
            return Ok(asked.map(Init::of_file));
        };
        let init = Init::of_continued(begun.init.as_ref(), asked, &self.path)?;
        match (&init, start) {
            (Some(init), Start::Fresh) => init.check(&self.path)?,
            (Some(init), _) if teaches => init.check(&self.path)?,
            (None, Start::Resumed(_)) if teaches => {
                let folder = self.path.clone();
                return Err(TeacherUnknown { folder }.into());
            }
            _ => {}
        }
        Ok(init)
    }

    /// Returns an error of the run, with what is left of the run if a file could not be written.
    pub(super) fn explain(&self, error: anyhow::Error) -> anyhow::Error {
        NotWritten::explain(error, &self.path)
    }

    /// Returns the manifest of the run that continues.
    pub(super) fn begun(&self) -> Option<&BegunRun> {
        self.begun.as_ref()
    }

    /// Whether a run has begun in the folder: it left its manifest or its lock.
    fn is_begun(&self) -> bool {
        self.manifest().is_file() || self.lock.was_left()
    }

    pub(super) fn checkpoint(&self, step: u64) -> PathBuf {
        self.path.join(name_of(step))
    }

    pub(super) fn model(&self) -> PathBuf {
        self.path.join("model.safetensors")
    }

    pub(super) fn manifest(&self) -> PathBuf {
        self.path.join(MANIFEST)
    }

    fn log(&self) -> PathBuf {
        self.path.join("log.jsonl")
    }

    fn scores(&self) -> PathBuf {
        self.path.join("scores.jsonl")
    }

    /// Returns the checkpoints, the oldest first.
    fn checkpoints(&self) -> anyhow::Result<Vec<PathBuf>> {
        checkpoints(&self.path)
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
        self.path.join("best.safetensors")
    }

    /// Opens the log for appending, without the lines of steps that will be repeated.
    ///
    /// - `first_step`: number of the next step
    pub(super) fn open_log(&self, first_step: u64) -> anyhow::Result<Log> {
        let is_done =
            |line: &serde_json::Value| line["step"].as_u64().is_some_and(|step| step < first_step);
        Ok(Log::open(self.log(), is_done)?.0)
    }

    /// Opens the scores for appending and returns those of earlier steps; see [`RunFolder::open_log`].
    pub(super) fn open_scores(
        &self,
        first_step: u64,
    ) -> anyhow::Result<(Log, Vec<ValidationScore>)> {
        let is_done =
            |line: &serde_json::Value| line["step"].as_u64().is_some_and(|step| step <= first_step);
        let (log, kept) = Log::open(self.scores(), is_done)?;
        let scores = kept
            .into_iter()
            .filter_map(|line| serde_json::from_value(line).ok())
            .collect();
        Ok((log, scores))
    }

    /// Begins the run: removes the files of a run that it replaces, and writes the manifest.
    pub(super) fn begin(&mut self, input: &ManifestInput) -> anyhow::Result<()> {
        for file in self.replaced.drain(..) {
            std::fs::remove_file(&file).with_context(|| file.display().to_string())?;
        }
        self.write_manifest(input)
            .map_err(|error| self.explain(error))
    }

    /// Returns the parameters that the run began with fresh; for a run that continues, those of its first manifest.
    fn started_fresh(&self, first_step: u64, fresh: &[String]) -> serde_json::Value {
        let before = (first_step > 0).then(|| std::fs::read(self.manifest()).ok());
        let before: Option<serde_json::Value> = before
            .flatten()
            .and_then(|json| serde_json::from_slice(&json).ok());
        match before {
            Some(manifest) => manifest["started_fresh"].clone(),
            None => json!(fresh),
        }
    }

    /// Writes the manifest, which holds everything needed to repeat the run.
    fn write_manifest(&self, input: &ManifestInput) -> anyhow::Result<()> {
        let ManifestInput {
            experiment,
            settings,
            base,
            fingerprint,
            images,
            first_step,
            init,
            fresh,
            ranks,
        } = *input;
        let mut manifest = json!({
            "program": concat!("zeg ", env!("CARGO_PKG_VERSION")),
            "command": std::env::args().collect::<Vec<_>>(),
            "started_unix": SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs(),
            "first_step": first_step,
            "experiment": experiment,
            "seed": experiment.training.seed,
            "data": { "folder": settings.data, "images": images },
            "weights": base,
            "fingerprint": fingerprint,
            "text": settings.text,
            "init": init,
            "started_fresh": self.started_fresh(first_step, fresh),
            "device": settings.compute.device.to_string(),
            "machine": {
                "os": std::env::consts::OS,
                "arch": std::env::consts::ARCH,
                "threads": rayon::current_num_threads(),
                "processor": machine::processor(),
            },
            "git_revision": git_revision(),
        });
        if !ranks.is_single() {
            manifest["ranks"] = json!({ "count": ranks.size(), "hosts": ranks.hosts() });
        }
        let mut text = serde_json::to_string_pretty(&manifest)?;
        text.push('\n');
        Ok(write_atomically(&self.manifest(), text.as_bytes())?)
    }
}

/// Whether a file exists and has no content.
fn is_empty(file: &Path) -> bool {
    std::fs::symlink_metadata(file).is_ok_and(|found| found.is_file() && found.len() == 0)
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
