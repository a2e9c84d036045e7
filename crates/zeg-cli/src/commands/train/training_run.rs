//! A training run: steps, their log, checkpoints and scores on the way.

use std::{
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use zeg::{
    data::{Loader, LoaderOptions, OpenSet, Pipeline, SampleSource as _},
    model::{embeddings::ClassEmbeddings, method::Architecture, text::ClassTexts},
};
use zeg_base::ranks::Ranks;
use zeg_train::{
    TrainError,
    batch::{Inputs, Samples},
    checkpoint::{CheckpointInfo, Contents, save},
    experiment::Experiment,
    features::FeatureCache,
    trainer::{StepReport, Trainer},
    whole_batch::positions,
};

use super::{
    args::TrainSettings,
    cached_copies::{self, CopiesInput},
    run_folder::RunFolder,
    together,
    validation::{ValidationScore, Validator},
};
use crate::{commands::run_files::Log, progress::Progress};

/// The source of a run's training samples.
enum TrainingSamples {
    Images(Box<Loader>),
    Features(FeatureCache),
}

/// Ids and errors of images that were replaced by others.
type Skipped = Vec<(String, String)>;

impl TrainingSamples {
    /// Returns this rank's samples of a step, and the images that were skipped for them.
    ///
    /// - `batch`: number of images of the whole batch
    /// - `positions`: positions of this rank's images in it
    fn next(
        &mut self,
        step: u64,
        batch: usize,
        positions: &[usize],
    ) -> Result<(Samples, Skipped), TrainError> {
        match self {
            Self::Features(cache) => {
                let positions = positions.iter().copied();
                Ok((cache.part_of_batch(step, batch, positions), Vec::new()))
            }
            Self::Images(loader) => {
                let batch = loader.next_batch()?;
                let samples = Samples {
                    inputs: Inputs::Images(batch.images),
                    labels: batch.labels,
                    size: batch.size,
                    ids: batch.ids,
                };
                Ok((samples, batch.skipped))
            }
        }
    }
}

/// The files that a run writes on the way.
struct RunLogs {
    log: Log,
    /// Is only written if the run is scored during training.
    scores: Option<Log>,
    /// The best score so far.
    best: Option<f64>,
}

/// A training run with everything that is written to its folder.
pub(super) struct TrainingRun {
    /// The folder of the run, on the first rank.
    pub(super) folder: Option<RunFolder>,
    /// The processes that train together.
    pub(super) ranks: Ranks,
    pub(super) info: CheckpointInfo,
    pub(super) experiment: Experiment,
    pub(super) architecture: Arc<dyn Architecture>,
    /// Class embeddings of all classes, before training.
    pub(super) embeddings: ClassEmbeddings,
    /// Texts of all classes, for a text tower that is trained.
    pub(super) texts: Option<ClassTexts>,
    pub(super) validator: Option<Validator>,
}

impl TrainingRun {
    /// Trains to the end and writes the model; returns `false` if the user stopped it.
    ///
    /// # Errors
    /// Returns the error of a step, or [`NotWritten`](super::checkpoint_files::NotWritten) for a file.
    pub(super) fn complete(
        &mut self,
        trainer: &mut Trainer,
        dataset: &Arc<OpenSet>,
        settings: &TrainSettings,
        stop: &AtomicBool,
    ) -> anyhow::Result<bool> {
        let mut trained = self.train(trainer, dataset, settings, stop);
        if matches!(trained, Ok(true))
            && let Some(folder) = &self.folder
        {
            let saved = self.save_model(trainer, &folder.model());
            trained = saved.map(|()| true);
        }
        trained.map_err(|error| match &self.folder {
            Some(folder) => folder.explain(error),
            None => error,
        })
    }

    /// Trains to the end; returns `false` if the user stopped it.
    fn train(
        &mut self,
        trainer: &mut Trainer,
        dataset: &Arc<OpenSet>,
        settings: &TrainSettings,
        stop: &AtomicBool,
    ) -> anyhow::Result<bool> {
        let training = self.experiment.training.clone();
        let ranks = self.ranks.clone();
        let positions = positions(training.batch, training.micro_batch(), &ranks);
        let pipeline = Pipeline::new(training.preprocess.clone(), trainer.model().normalization())?;
        let mut source = match training.cached_copies {
            Some(copies) => {
                let input = CopiesInput {
                    info: &self.info,
                    experiment: &self.experiment,
                    architecture: &*self.architecture,
                    trainer,
                    ranks: &ranks,
                    dataset,
                    pipeline: &pipeline,
                    copies,
                    folder: settings.feature_cache.as_deref(),
                    device: settings.compute.device,
                    verbosity: settings.verbosity,
                };
                match cached_copies::features(&input, stop)? {
                    Some(cache) => TrainingSamples::Features(cache),
                    None => return Ok(false),
                }
            }
            None => TrainingSamples::Images(Box::new(Loader::of_positions(
                Arc::clone(dataset),
                pipeline,
                LoaderOptions {
                    batch_size: training.batch,
                    seed: training.seed,
                    start_batch: trainer.step_number(),
                    workers: settings.loaders,
                    on_bad_sample: training.on_bad_sample,
                },
                positions.clone(),
            )?)),
        };
        let bar = settings
            .verbosity
            .progress("training", "steps", training.steps);
        bar.set_position(trainer.step_number());
        let mut logs = self.open_logs(trainer.step_number())?;
        let mut warned = false;
        if trainer.step_number() == 0 && ranks.any("the first step", stop.load(Ordering::SeqCst))? {
            bar.finish();
            return Ok(false); // there is nothing to keep yet
        }
        while trainer.step_number() < training.steps {
            let started = Instant::now();
            let step = trainer.step_number();
            let (samples, skipped) = source.next(step, training.batch, &positions)?;
            let report = trainer.train_step(samples)?;
            let (stopping, skipped) = together::end_step(&ranks, stop, skipped)?;
            if !skipped.is_empty() {
                bar.suspend(|| tell_skipped(&skipped));
            }
            trainer.check_labels(dataset.len())?;
            warn_of_unlabelled(&report, &mut warned, &bar);
            if let Some(logs) = &mut logs {
                write_step(&mut logs.log, &report, started.elapsed())?;
            }
            // A program that is told the step may stop the run at once; several ranks agree on it after the next one.
            let stopping = stopping || ranks.is_single() && stop.load(Ordering::SeqCst);
            show_step(&bar, &report);
            let done = trainer.step_number();
            // The score comes before the checkpoint, so that a run killed between the two scores this step again.
            if let Some(validator) = &self.validator
                && validator.is_due(done, training.steps)
                && !stopping
                && let Some(score) = validator.score(trainer, &ranks)?
                && let Some(logs) = &mut logs
            {
                bar.suspend(|| settings.verbosity.notice(score.line()));
                self.keep_score(trainer, logs, &score)?;
            }
            if stopping
                || done.is_multiple_of(training.checkpoint_every())
                || done == training.steps
            {
                together::check_parameters(&ranks, trainer)?;
                self.save_checkpoint(trainer)?;
            }
            if stopping && done < training.steps {
                bar.finish();
                return Ok(false);
            }
        }
        bar.finish();
        Ok(true)
    }

    /// Opens the files that the first rank writes on the way; `None` on the others.
    ///
    /// - `first_step`: number of the next step
    fn open_logs(&self, first_step: u64) -> anyhow::Result<Option<RunLogs>> {
        let Some(folder) = &self.folder else {
            return Ok(None);
        };
        let log = folder.open_log(first_step)?;
        let scores = self.validator.as_ref();
        let scores = scores.map(|_| folder.open_scores(first_step));
        let (scores, earlier) = scores.transpose()?.unzip();
        let earlier = earlier.unwrap_or_default();
        let best = earlier.iter().map(ValidationScore::value).reduce(f64::max);
        Ok(Some(RunLogs { log, scores, best }))
    }

    /// Writes a score, and the model if it is the best one so far.
    fn keep_score(
        &self,
        trainer: &Trainer,
        logs: &mut RunLogs,
        score: &ValidationScore,
    ) -> anyhow::Result<()> {
        if let Some(folder) = &self.folder
            && logs.best.is_none_or(|best| score.value() > best)
        {
            logs.best = Some(score.value());
            self.save_model(trainer, &folder.best())?;
        }
        match &mut logs.scores {
            Some(scores) => scores.write(score),
            None => Ok(()),
        }
    }

    /// Writes a checkpoint with the optimiser's state and removes old ones.
    fn save_checkpoint(&mut self, trainer: &Trainer) -> anyhow::Result<()> {
        let Some(folder) = &self.folder else {
            return Ok(());
        };
        let path = folder.checkpoint(trainer.step_number());
        self.info.step = trainer.step_number();
        let moments = Some(trainer.moments()?);
        let contents = Contents {
            info: self.info.clone(),
            architecture: &*self.architecture,
            model: trainer.model(),
            embeddings: &self.embeddings_of(trainer)?,
            moments,
        };
        save(&path, contents)?;
        folder.remove_old_checkpoints(self.experiment.training.keep_checkpoints)
    }

    /// Returns the class embeddings of the model as trained so far.
    fn embeddings_of(&self, trainer: &Trainer) -> anyhow::Result<ClassEmbeddings> {
        let model = trainer.inference_model();
        let Some((texts, tower)) = self.texts.as_ref().zip(model.text_tower()) else {
            return Ok(self.embeddings.clone());
        };
        let embedded = tower.embed_texts(texts).into_data().convert::<f32>();
        let values = embedded
            .try_into_vec()
            .map_err(|error| TrainError::Backend(format!("{error:?}")))?;
        let names = self.embeddings.names().to_vec();
        let (dim, origin) = (self.embeddings.dim(), self.embeddings.origin().to_owned());
        Ok(ClassEmbeddings::new(names, values, dim, origin)?)
    }

    /// Writes the trained weights without the optimiser's state.
    fn save_model(&self, trainer: &Trainer, path: &Path) -> anyhow::Result<()> {
        let info = CheckpointInfo {
            step: trainer.step_number(),
            ..self.info.clone()
        };
        let contents = Contents {
            info,
            architecture: &*self.architecture,
            model: trainer.model(),
            embeddings: &self.embeddings_of(trainer)?,
            moments: None,
        };
        Ok(save(path, contents)?)
    }
}

/// Prints a warning for each image that was replaced by another.
fn tell_skipped(skipped: &Skipped) {
    for (id, reason) in skipped {
        print_notice!("warning: image {id} is skipped: {reason}");
    }
}

/// Writes the numbers of a step and its time into the log, and tells them to a program that has called the command.
fn write_step(log: &mut Log, report: &StepReport, took: Duration) -> anyhow::Result<()> {
    let mut line = serde_json::to_value(report)?;
    line["seconds"] = serde_json::json!((took.as_secs_f64() * 1e4).round() / 1e4);
    log.write(&line)?;
    crate::host::tell_step(&line);
    Ok(())
}

/// Prints a warning for the first batch without a label of a training class.
fn warn_of_unlabelled(report: &StepReport, warned: &mut bool, bar: &Progress) {
    if report.unlabelled.is_empty() || *warned {
        return;
    }
    *warned = true;
    bar.suspend(|| {
        print_notice!(
            "warning: step {}: no pixel of {} has the label of a training class, so only negatives are learned from it; \
             later batches like this are not reported",
            report.step,
            report.unlabelled.join(", ")
        );
    });
}

/// Shows the numbers of a step beside the progress.
fn show_step(bar: &Progress, report: &StepReport) {
    let terms: Vec<String> = report
        .terms
        .iter()
        .map(|(name, value)| format!("{name} {value:.3}"))
        .collect();
    bar.set_message(format!(
        "loss {:.3} ({}), lr {:.2e}",
        report.loss,
        terms.join(", "),
        report.lr
    ));
    bar.set_position(report.step + 1);
}
