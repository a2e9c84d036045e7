//! The files of a pre-training: the weights, and beside them log, manifest and checkpoint.
//!
//! ```text
//! mini.safetensors              both towers, when the run has finished
//! mini.jsonl                    one line per step
//! mini.json                     settings and final score
//! mini.checkpoint.safetensors   state of a run that has not finished
//! mini.safetensors.lock         the process that works on them, while it does
//! ```

use std::path::{Path, PathBuf};

use zeg_base::lock::Lock;
use zeg_train::{pretrain::PretrainConfig, pretrain_checkpoint::PretrainCheckpoint};

use super::Continuation;
use crate::commands::{
    place::Existing,
    run_files::{NoCheckpoint, RunExists, claim_file, differing},
};

/// The files of a pre-training, which no other process uses.
pub(super) struct PretrainFiles {
    pub(super) weights: PathBuf,
    pub(super) log: PathBuf,
    pub(super) manifest: PathBuf,
    pub(super) checkpoint: PathBuf,
    lock: Lock,
}

impl PretrainFiles {
    /// Claims the files of a run and checks what stands at their paths; returns the checkpoint of a run that continues.
    ///
    /// - `output`: file of the weights
    ///
    /// # Errors
    /// Returns an error if another process uses the files, if their folder cannot be written, if a file exists that is
    /// neither continued nor replaced, and if a run is to continue that is not there or has other settings.
    pub(super) fn open(
        output: &Path,
        continuation: Continuation,
        config: &PretrainConfig,
    ) -> anyhow::Result<(Self, Option<PretrainCheckpoint>)> {
        let beside = |extension: &str| output.with_extension(extension);
        let (log, manifest) = (beside("jsonl"), beside("json"));
        anyhow::ensure!(
            output != log && output != manifest,
            "{}: the log and the manifest of the run get the names {} and {}; name the weights .safetensors",
            output.display(),
            log.display(),
            manifest.display()
        );
        let lock = claim_file(output)?;
        let mut files = Self {
            weights: output.to_owned(),
            log,
            manifest,
            checkpoint: beside("checkpoint.safetensors"),
            lock,
        };
        if continuation == Continuation::Fresh {
            files.refuse_run()?;
        }
        for path in files.paths_mut() {
            *path = Existing::Replace.place(path)?;
        }
        let checkpoint = match continuation {
            Continuation::Resume => files.resumed(output, config)?,
            Continuation::Fresh | Continuation::Replace => None,
        };
        Ok((files, checkpoint))
    }

    fn paths_mut(&mut self) -> [&mut PathBuf; 4] {
        [
            &mut self.weights,
            &mut self.checkpoint,
            &mut self.log,
            &mut self.manifest,
        ]
    }

    /// # Errors
    /// Returns an error if one of the files exists.
    fn refuse_run(&mut self) -> anyhow::Result<()> {
        let place = self.weights.clone();
        let can_continue = self.checkpoint.is_file();
        let mut paths = self.paths_mut().into_iter();
        match paths.find(|path| path.symlink_metadata().is_ok()) {
            None => Ok(()),
            Some(found) => Err(RunExists {
                place,
                found: found.display().to_string(),
                can_continue,
            }
            .into()),
        }
    }

    /// Returns the checkpoint of a run that continues; `None` if the run ended before its first one.
    fn resumed(
        &self,
        output: &Path,
        config: &PretrainConfig,
    ) -> anyhow::Result<Option<PretrainCheckpoint>> {
        if !self.checkpoint.is_file() {
            let finished = Some(self.weights.clone()).filter(|weights| weights.exists());
            let is_begun = self.log.is_file() || self.lock.was_left();
            if finished.is_some() || !is_begun {
                return Err(NoCheckpoint {
                    place: output.to_owned(),
                    finished,
                }
                .into());
            }
            print_notice!(
                "warning: {}: the run ended before its first checkpoint, so it starts at step 0",
                output.display()
            );
            return Ok(None);
        }
        let checkpoint = PretrainCheckpoint::open(&self.checkpoint)?;
        anyhow::ensure!(
            checkpoint.config == *config,
            "{} was written with other settings: {}",
            self.checkpoint.display(),
            differing("", &checkpoint.config, config)
        );
        Ok(Some(checkpoint))
    }

    /// Removes the checkpoint, of a run that has finished or that is replaced.
    pub(super) fn remove_checkpoint(&self) -> std::io::Result<()> {
        match std::fs::remove_file(&self.checkpoint) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            other => other,
        }
    }
}
