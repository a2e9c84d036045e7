//! `zeg eval`: scores models on a data set; `zeg eval merge` adds up the parts of a divided evaluation.

mod args;
mod confidence;
mod done;
mod examples;
mod finished;
mod gallery;
mod job;
mod merge;
mod places;
mod plan;
mod predictions;
mod record;
mod scores;
mod shared;
pub(crate) mod sweep;

use std::{
    path::PathBuf,
    process::ExitCode,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};
use zeg_base::{plural::counted, ranks::Ranks};

use burn::tensor::Device;
use zeg::{
    data::{OpenSet, SampleSource},
    eval::{Evaluation, SkippedImage},
    evaluation::{
        EvaluationOptions, EvaluationOutcome, EvaluationSetup, ImageState, KeptImages, evaluate_on,
    },
};

#[cfg(feature = "schema")]
pub(crate) use self::scores::{merge_output_schema, output_schema};
pub(crate) use self::{
    args::{EvalArgs, parse_shard},
    places::ReplacesInput,
    plan::DescriptionMissing,
};
use self::{
    args::{EvalSettings, EvalTask},
    done::Done,
    finished::{Earlier, ScoredImages},
    job::{EvalJob, EvalOutput},
    places::{check_inputs, record_places},
    plan::PlanFile,
    predictions::Predictions,
    scores::{ScoredModels, show_one, show_several, warn_of_ties},
};
use super::{
    file_contents::FileContents, interrupt, journal::Continuation, json, place::Existing,
    run_files::claim_folders, stop_flag,
};
use crate::{Program, hints, progress::Verbosity};

/// Returns the JSON schema of an evaluation plan.
#[cfg(feature = "schema")]
pub(crate) fn plan_schema() -> schemars::Schema {
    schemars::schema_for!(plan::PlanFile)
}

pub(crate) fn run(
    program: &Program,
    args: EvalArgs,
    verbosity: Verbosity,
    ranks: &Ranks,
) -> anyhow::Result<ExitCode> {
    match args.settings(verbosity)? {
        EvalTask::Score(settings) => eval(program, &settings, ranks),
        EvalTask::Merge(settings) => merge::merge(&settings).map(|()| ExitCode::SUCCESS),
    }
}

/// Scores all models. One of several that cannot be scored does not keep the others from it.
fn eval(program: &Program, settings: &EvalSettings, ranks: &Ranks) -> anyhow::Result<ExitCode> {
    let folders = record_places(settings)?;
    let stop = stop_flag();
    let device = settings.compute.open_device()?;
    let file = settings.plan.as_deref().map(PlanFile::open).transpose()?;
    // The first rank alone writes.
    let _locks = ranks
        .is_first()
        .then(|| claim_folders(&folders))
        .transpose()?;
    let single = settings.checkpoints.len() == 1;
    let mut scored = ScoredModels::default();
    let mut jobs = Vec::new();
    let mut files = FileContents::default();
    for (number, checkpoint) in settings.checkpoints.iter().enumerate() {
        let folder = folders.get(number).cloned();
        let job = EvalJob::new(
            program,
            settings,
            checkpoint,
            file.as_ref(),
            folder,
            &device,
            &mut files,
        );
        match job {
            Ok(job) => jobs.push(job),
            Err(error) if single => return Err(error),
            Err(error) => scored.fail(checkpoint, error),
        }
    }
    shared::check_same(ranks, &jobs)?;
    // All earlier results are looked at before the first image is scored.
    let groups = jobs.chunk_by(EvalJob::shares_encoding);
    let groups: anyhow::Result<Vec<_>> = groups
        .map(|jobs| {
            let found = ranks.is_first().then(|| earlier(settings, jobs));
            Ok((jobs, found.transpose()?.flatten()))
        })
        .collect();
    for (jobs, earlier) in groups? {
        let is_complete = matches!(earlier, Some(Earlier::Records(_)));
        let is_complete = ranks.any("records that are complete already", is_complete)?;
        let kept = match earlier {
            Some(Earlier::Records(records)) => {
                add_records(settings, jobs, records, &mut scored)?;
                None
            }
            Some(Earlier::Images(kept)) => Some(*kept),
            None => None,
        };
        if !is_complete && !score_each(settings, jobs, &device, &stop, kept, &mut scored, ranks)? {
            return Ok(json::stopped(shared::json(settings, ranks)));
        }
    }
    if !ranks.is_first() {
        return Ok(ExitCode::SUCCESS);
    }
    anyhow::ensure!(
        !scored.evaluations.is_empty(),
        "none of the {} models could be scored",
        settings.checkpoints.len()
    );
    warn_of_ties(&scored.evaluations);
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

/// Adds the records of an evaluation that is complete already.
fn add_records(
    settings: &EvalSettings,
    jobs: &[EvalJob],
    records: Vec<Evaluation>,
    scored: &mut ScoredModels,
) -> anyhow::Result<()> {
    settings.verbosity.notice("the record is complete already");
    if let Some(first) = records.first() {
        for SkippedImage { id, reason } in &first.skipped {
            print_notice!("warning: image {id} is skipped: {reason}");
        }
        warn_of_skipped(first.skipped.len() as u64, first.images);
    }
    let outputs = jobs.iter().flat_map(EvalJob::outputs);
    for (evaluation, output) in records.into_iter().zip(outputs) {
        scored.add(Scored {
            evaluation,
            experiment: record::experiment(output.loaded)?,
            record: output.record,
        });
    }
    Ok(())
}

/// Returns what an earlier run has left, and checks that no label map and no image is replaced unasked.
fn earlier(settings: &EvalSettings, jobs: &[EvalJob]) -> anyhow::Result<Option<Earlier>> {
    check_inputs(settings, jobs)?;
    interrupt::clean_up(finished::folders(settings, jobs));
    let earlier = finished::open(settings, jobs)?;
    let kept = match &earlier {
        Some(Earlier::Images(kept)) => Some(&**kept),
        Some(Earlier::Records(_)) | None => None,
    };
    let is_complete = matches!(earlier, Some(Earlier::Records(_)));
    let Some(dataset) = jobs.first().map(|job| &job.dataset) else {
        return Ok(earlier);
    };
    if is_complete {
        return Ok(earlier);
    }
    let ids: Vec<String> = (0..dataset.len()).map(|index| dataset.id(index)).collect();
    // The panels of a run that goes on are its own.
    let panels = if kept.is_some_and(|kept| kept.goes_on) {
        Existing::Replace
    } else {
        settings.existing
    };
    for output in jobs.iter().flat_map(EvalJob::outputs) {
        if settings.existing == Existing::Refuse
            && let Some(folder) = &output.labels
        {
            finished::check_label_maps(folder, dataset, kept)?;
        }
        if let Some(folder) = output.record.filter(|_| settings.gallery > 0) {
            gallery::check(panels, &folder, &ids)?;
        }
    }
    Ok(earlier)
}

/// Scores models together; if that fails, each alone, so that one of them does not lose the scores of the others.
///
/// - `earlier`: what an earlier run has left
///
/// Returns false if a signal stopped the work.
///
/// # Errors
/// Returns the error if there is only one model on the command line.
fn score_each(
    settings: &EvalSettings,
    jobs: &[EvalJob],
    device: &Device,
    stop: &AtomicBool,
    earlier: Option<ScoredImages>,
    scored: &mut ScoredModels,
    ranks: &Ranks,
) -> anyhow::Result<bool> {
    let keeps_images = earlier.is_some();
    let error = match score(settings, jobs, device, stop, earlier, ranks) {
        Ok(None) => return Ok(false),
        Ok(Some(outcomes)) => {
            for outcome in outcomes {
                scored.add(outcome);
            }
            return Ok(true);
        }
        // The other ranks do not know which model failed, so they all end.
        Err(error) if settings.checkpoints.len() == 1 || !ranks.is_single() => return Err(error),
        Err(error) => error,
    };
    match jobs {
        [job] => scored.fail(job.checkpoint, error),
        // What is kept is kept of all models together, so that none can go on alone.
        jobs if keeps_images => {
            for job in jobs {
                let text = hints::describe(&error);
                scored.fail(job.checkpoint, anyhow::anyhow!(text));
            }
        }
        jobs => {
            for job in jobs.chunks(1) {
                if !score_each(settings, job, device, stop, None, scored, ranks)? {
                    return Ok(false);
                }
            }
        }
    }
    Ok(true)
}

/// An evaluation of a model.
struct Scored {
    evaluation: Evaluation,
    /// Experiment of the model's training as TOML, if it is known.
    experiment: Option<String>,
    /// Folder of the record, if one is written.
    record: Option<PathBuf>,
}

/// Scores models that share their encoder; usually there is only one.
///
/// - `earlier`: images that an earlier run has scored, and the journal of those that are scored now
///
/// Returns nothing if a signal stopped the work.
fn score(
    settings: &EvalSettings,
    jobs: &[EvalJob],
    device: &Device,
    stop: &AtomicBool,
    earlier: Option<ScoredImages>,
    ranks: &Ranks,
) -> anyhow::Result<Option<Vec<Scored>>> {
    let Some(EvalJob { dataset, .. }) = jobs.first() else {
        return Ok(Some(Vec::new()));
    };
    let kept = earlier.as_ref();
    if let Some(kept) = kept.filter(|_| settings.continuation == Continuation::Resume) {
        settings.verbosity.notice(format_args!(
            "{} of {} images are scored and kept",
            kept.count(),
            dataset.len()
        ));
    }
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
        stop: Some(stop),
        on_bad_image: settings.on_bad_image,
        kept: kept.map(|kept| kept as &dyn KeptImages),
    };
    let started = Instant::now();
    let outcomes = evaluate_with_progress(
        settings,
        &setups,
        dataset,
        options,
        kept,
        &mut predictions,
        ranks,
    );
    if outcomes.is_err() && kept.is_some() {
        print_notice!(
            "the images before this error are scored and kept; --resume goes on with the others, and --on-bad-image \
             skip leaves out images that cannot be read"
        );
    }
    let outcomes = outcomes?;
    let stopped = outcomes
        .as_ref()
        .and_then(|outcomes| outcomes.first())
        .is_some_and(|outcome| is_stopped(outcome, dataset, kept));
    if ranks.any("whether the evaluation was stopped", stopped)? {
        return Ok(None);
    }
    let Some(outcomes) = outcomes else {
        return Ok(Some(Vec::new()));
    };
    let wall = started.elapsed() + kept.map_or(Duration::ZERO, |kept| kept.wall);
    if let Some(outcome) = outcomes.first() {
        report_skipped(outcome)?;
        settings
            .verbosity
            .notice(times_text(outcome, jobs.len(), wall));
    }
    let done = Done {
        dataset,
        wall,
        threads: options.threads,
    };
    let spools = predictions.finish();
    let each = outputs.into_iter().zip(outcomes).zip(spools);
    let evaluations: anyhow::Result<Vec<Scored>> = each
        .map(|((output, outcome), spool)| done.keep(settings, output, outcome, spool))
        .collect();
    let evaluations = evaluations?;
    if let Some(scored) = earlier {
        scored.finish()?;
    }
    Ok(Some(evaluations))
}

/// Whether a signal stopped an evaluation before its last image; says how to go on.
fn is_stopped(outcome: &EvaluationOutcome, dataset: &OpenSet, kept: Option<&ScoredImages>) -> bool {
    let done = outcome.images.len() + outcome.skipped.len();
    if done >= dataset.len() {
        return false;
    }
    let advice = match kept {
        Some(_) => "--resume goes on",
        None => "nothing is kept; with -o the evaluation can be continued",
    };
    print_notice!("stopped after {done} of {} images; {advice}", dataset.len());
    true
}

/// Says how many images are not among the scores.
///
/// # Errors
/// Returns an error if there are no others.
fn report_skipped(outcome: &EvaluationOutcome) -> anyhow::Result<()> {
    let (skipped, scored) = (outcome.skipped.len(), outcome.images.len());
    if let Some(first) = outcome.skipped.first() {
        anyhow::ensure!(
            scored > 0,
            "none of the {skipped} images can be read: {}",
            first.reason
        );
    }
    warn_of_skipped(skipped as u64, scored as u64);
    Ok(())
}

/// Warns if the scores are not over all images.
fn warn_of_skipped(skipped: u64, scored: u64) {
    if skipped > 0 {
        print_notice!(
            "warning: {skipped} of {} images are skipped; the scores are over the other {scored}",
            skipped + scored
        );
    }
}

fn evaluate_with_progress(
    settings: &EvalSettings,
    setups: &[EvaluationSetup],
    dataset: &OpenSet,
    options: EvaluationOptions,
    kept: Option<&ScoredImages>,
    predictions: &mut Predictions,
    ranks: &Ranks,
) -> anyhow::Result<Option<Vec<EvaluationOutcome>>> {
    let bar = settings
        .verbosity
        .progress("scoring", "images", dataset.len() as u64);
    let started = Instant::now();
    let needed = predictions.needed();
    let outcomes = evaluate_on(ranks, setups, dataset, options, needed, |scored| {
        match (scored.state, kept) {
            (ImageState::Skipped { reason }, _) => bar.suspend(|| {
                print_notice!("warning: image {} is skipped: {reason}", scored.id);
            }),
            (ImageState::Scored, Some(kept)) => kept.add(scored, started.elapsed())?,
            _ => {}
        }
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
        "{}{together} in {:.1} s; model {:.1} % (including {:.1} % for the scores of pixels), reading {:.1} %, \
         resizing {:.1} %, counting {:.1} %",
        counted(outcome.images.len(), "image"),
        wall.as_secs_f64(),
        share(times.model()),
        share(times.stages.scores),
        share(times.load),
        share(times.stages.prepare),
        share(times.count)
    )
}
