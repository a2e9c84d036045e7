//! `zeg eval`: scores models on a data set; `zeg eval merge` adds up the parts of a divided evaluation.

mod args;
mod gallery;
mod job;
mod merge;
mod plan;
mod predictions;
mod record;
mod scores;
pub(crate) mod sweep;

use std::{
    path::{Path, PathBuf},
    process::ExitCode,
    time::{Duration, Instant},
};

use burn::tensor::Device;
use zeg::{
    data::{OpenSet, SampleSource},
    eval::{Evaluation, record::FILE_NAME},
    evaluation::{EvaluationOptions, EvaluationOutcome, EvaluationSetup, evaluate},
};

pub(crate) use self::args::EvalArgs;
#[cfg(feature = "schema")]
pub(crate) use self::scores::{merge_output_schema, output_schema};
use self::{
    args::{EvalSettings, EvalTask, RecordPlace},
    gallery::Gallery,
    job::{EvalJob, EvalOutput},
    plan::PlanFile,
    predictions::Predictions,
    record::RecordInput,
    scores::{ScoredModels, show_one, show_several},
};
use crate::{Program, progress::Verbosity};

/// Returns the JSON schema of an evaluation plan.
#[cfg(feature = "schema")]
pub(crate) fn plan_schema() -> schemars::Schema {
    schemars::schema_for!(plan::PlanFile)
}

pub(crate) fn run(
    program: &Program,
    args: EvalArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    match args.settings(verbosity)? {
        EvalTask::Score(settings) => eval(program, &settings),
        EvalTask::Merge(settings) => merge::merge(&settings).map(|()| ExitCode::SUCCESS),
    }
}

/// Scores all models. One of several that cannot be scored does not keep the others from it.
fn eval(program: &Program, settings: &EvalSettings) -> anyhow::Result<ExitCode> {
    let device = settings.compute.open_device()?;
    let file = settings.plan.as_deref().map(PlanFile::open).transpose()?;
    let folders = record_places(settings)?;
    let single = settings.checkpoints.len() == 1;
    let mut scored = ScoredModels::default();
    let mut jobs = Vec::new();
    for (number, checkpoint) in settings.checkpoints.iter().enumerate() {
        let folder = folders.get(number).cloned();
        let job = EvalJob::new(
            program,
            settings,
            checkpoint,
            file.as_ref(),
            folder,
            &device,
        );
        match job {
            Ok(job) => jobs.push(job),
            Err(error) if single => return Err(error),
            Err(error) => scored.fail(checkpoint, error),
        }
    }
    for jobs in jobs.chunk_by(EvalJob::shares_encoding) {
        score_each(settings, jobs, &device, &mut scored)?;
    }
    anyhow::ensure!(
        !scored.evaluations.is_empty(),
        "none of the {} models could be scored",
        settings.checkpoints.len()
    );
    let failed = scored.failed.len();
    let json = settings.json.as_ref();
    if !settings.seen_offsets.is_empty() {
        sweep::show(scored, &settings.seen_offsets, json)?;
    } else if single && let [evaluation] = &scored.evaluations[..] {
        show_one(evaluation, json)?;
    } else {
        show_several(scored, json)?;
    }
    if failed > 0 {
        // The document lists them, so this is not an error with a document of its own.
        print_notice!(
            "error: {failed} of {} models could not be scored",
            settings.checkpoints.len()
        );
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}

/// Scores models together; if that fails, each alone, so that one of them does not lose the scores of the others.
///
/// # Errors
/// Returns the error if there is only one model on the command line.
fn score_each(
    settings: &EvalSettings,
    jobs: &[EvalJob],
    device: &Device,
    scored: &mut ScoredModels,
) -> anyhow::Result<()> {
    match (score(settings, jobs, device), jobs) {
        (Ok(outcomes), _) => {
            for outcome in outcomes {
                scored.evaluations.push(outcome.evaluation);
                scored.experiments.push(outcome.experiment);
                scored.records.extend(outcome.record);
            }
        }
        (Err(error), _) if settings.checkpoints.len() == 1 => return Err(error),
        (Err(error), [job]) => scored.fail(job.checkpoint, error),
        (Err(_), jobs) => {
            for job in jobs.chunks(1) {
                score_each(settings, job, device, scored)?;
            }
        }
    }
    Ok(())
}

/// An evaluation of a model.
struct Scored {
    evaluation: Evaluation,
    /// Experiment of the model's training as TOML, if it is known.
    experiment: Option<String>,
    /// Folder of the record, if one is written.
    record: Option<PathBuf>,
}

/// Returns the folder of every model's record, or no folder if no record is written.
///
/// # Errors
/// Returns an error if a record exists already and may not be replaced; this is checked before any model is opened.
fn record_places(settings: &EvalSettings) -> anyhow::Result<Vec<PathBuf>> {
    let models = &settings.checkpoints;
    let folders: Vec<PathBuf> = match &settings.records {
        RecordPlace::Nowhere => return Ok(Vec::new()),
        RecordPlace::BesideModels(name) => {
            let beside = |model: &PathBuf| model.parent().unwrap_or(Path::new("")).join(name);
            models.iter().map(beside).collect()
        }
        RecordPlace::Folder(folder) => folders_of_models(folder, models),
    };
    for folder in &folders {
        for record in sweep::folders(folder, &settings.seen_offsets) {
            settings.existing.check(&record.join(FILE_NAME))?;
        }
    }
    Ok(folders)
}

/// Returns a folder for each model's results: the folder itself for one model, folders in it for several.
fn folders_of_models(folder: &Path, models: &[PathBuf]) -> Vec<PathBuf> {
    match models {
        [_] => vec![folder.to_owned()],
        models => record::run_names(models)
            .iter()
            .map(|name| folder.join(name))
            .collect(),
    }
}

/// Scores models that share their encoder; usually there is only one.
fn score(
    settings: &EvalSettings,
    jobs: &[EvalJob],
    device: &Device,
) -> anyhow::Result<Vec<Scored>> {
    let Some(EvalJob { dataset, .. }) = jobs.first() else {
        return Ok(Vec::new());
    };
    let setups: Vec<EvaluationSetup> = jobs.iter().map(|job| job.setup(device)).collect();
    let outputs: Vec<EvalOutput> = jobs.iter().flat_map(EvalJob::outputs).collect();
    // Only a gallery that is written needs the label maps later.
    let needs_spool = |output: &EvalOutput| output.record.is_some() && settings.gallery > 0;
    let mut predictions = Predictions::new(
        dataset,
        outputs.iter().map(|output| {
            let labels = output.labels.clone();
            predictions::PredictionUse {
                labels,
                keep: needs_spool(output),
            }
        }),
    )?;
    let options = EvaluationOptions {
        threads: rayon::current_num_threads(),
        stop: None,
    };
    let started = Instant::now();
    let outcomes = evaluate_with_progress(settings, &setups, dataset, options, &mut predictions)?;
    let wall = started.elapsed();
    if let Some(outcome) = outcomes.first() {
        settings
            .verbosity
            .notice(times_text(outcome, jobs.len(), wall));
    }
    let colours = dataset.classes().palette();
    let mut evaluations = Vec::new();
    let spools = predictions.finish();
    for ((output, outcome), spool) in outputs.into_iter().zip(outcomes).zip(spools) {
        let mut evaluation = record::evaluation(RecordInput {
            checkpoint: output.checkpoint,
            loaded: output.loaded,
            origin: output.origin,
            plan: &output.plan,
            dataset,
            outcome,
            shard: settings.shard,
            wall,
            threads: options.threads,
        })?;
        if let Some(folder) = &output.record {
            std::fs::create_dir_all(folder)?;
            if let Some(mut predictions) = spool {
                let gallery = Gallery {
                    dataset,
                    each: settings.gallery,
                    colours: &colours,
                    folder,
                };
                evaluation.gallery = gallery.write(&evaluation, &mut predictions)?;
            }
            evaluation.save(folder)?;
            let file = folder.join(FILE_NAME);
            settings
                .verbosity
                .notice(format_args!("record: {}", file.display()));
        }
        evaluations.push(Scored {
            evaluation,
            experiment: record::experiment(output.loaded)?,
            record: output.record,
        });
    }
    Ok(evaluations)
}

fn evaluate_with_progress(
    settings: &EvalSettings,
    setups: &[EvaluationSetup],
    dataset: &OpenSet,
    options: EvaluationOptions,
    predictions: &mut Predictions,
) -> anyhow::Result<Vec<EvaluationOutcome>> {
    let bar = settings
        .verbosity
        .progress("scoring", "images", dataset.len() as u64);
    let outcomes = evaluate(setups, dataset, options, |scored| {
        predictions.take(scored)?;
        bar.set_message(scored.id.to_owned());
        bar.inc();
        Ok(())
    });
    bar.finish();
    outcomes
}

/// Describes what the time was spent on.
fn times_text(outcome: &EvaluationOutcome, models: usize, wall: Duration) -> String {
    let times = outcome.times;
    let total = times.total().as_secs_f64().max(1e-9);
    let together = if models > 1 {
        format!(" for {models} models with one encoder")
    } else {
        String::new()
    };
    let share = |part: Duration| 100.0 * part.as_secs_f64() / total;
    format!(
        "{} images{together} in {:.1} s; model {:.1} % (including {:.1} % for the scores of pixels), reading {:.1} %, \
         resizing {:.1} %, counting {:.1} %",
        outcome.images.len(),
        wall.as_secs_f64(),
        share(times.model()),
        share(times.stages.scores),
        share(times.load),
        share(times.stages.prepare),
        share(times.count)
    )
}
