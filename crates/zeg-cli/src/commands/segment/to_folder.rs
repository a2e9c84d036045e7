//! Segments images into a folder, alone or together with other ranks.

use std::{path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use zeg::export::Overwrite;
use zeg_base::ranks::Ranks;

use super::{
    Model, Outcome,
    args::SegmentSettings,
    finish,
    finished::{self, Finished, Plan},
    inputs::Input,
    on_ranks,
    outputs::{self, Writers},
    part::Division,
    places, resuming,
    work::{SegmentJob, Work, WriteFailure},
    work_on,
};
use crate::{
    Program,
    commands::{
        interrupt,
        journal::{Continuation, check_writable},
        json::Failure,
        stop_flag,
    },
};

/// Images that are segmented into a folder.
pub(super) struct ToFolder<'a> {
    pub(super) work: Work<'a>,
    pub(super) inputs: &'a [Input],
    /// Paths of the results without an extension, one for each image.
    stems: &'a [PathBuf],
    /// The journal, on the first of several ranks.
    pub(super) finished: Option<&'a Finished>,
}

impl<'a> ToFolder<'a> {
    /// Returns the work on an image; its plan is to replace files if it is not known.
    pub(super) fn job(&self, index: usize, plan: Option<Plan>) -> Option<SegmentJob<'a>> {
        Some(SegmentJob {
            input: self.inputs.get(index)?,
            stem: self.stems.get(index)?,
            plan: plan.unwrap_or(Plan::Compute(Overwrite::Replace)),
        })
    }

    /// Returns the journal.
    pub(super) fn finished(&self) -> anyhow::Result<&'a Finished> {
        self.finished
            .context("the first of several processes keeps the journal")
    }
}

pub(super) fn segment_into_folder(
    program: &Program,
    settings: &SegmentSettings,
    inputs: Vec<Input>,
    ranks: &Ranks,
) -> anyhow::Result<ExitCode> {
    let output = &settings.output;
    let stems = places::stems(&inputs, settings)?;
    let division = Division::of(settings.shard, inputs, stems)?;
    let Division { inputs, stems, .. } = &division;
    // The first rank looks for all.
    if ranks.is_first() {
        finished::refuse_existing(settings, stems)?;
        check_writable(&output.folder)?;
    }
    let stop = stop_flag();
    let model = Model::open(program, settings)?;
    let results = finished::result_settings(settings, &model.segmenter)?;
    on_ranks::check_same(ranks, &results, inputs)?;
    std::fs::create_dir_all(&output.folder).with_context(|| output.folder.display().to_string())?;
    let folders = places::folders(settings, stems);
    let journal = ranks
        .is_first()
        .then(|| Finished::open(&output.folder, &results));
    let journal = journal.transpose()?;
    if let Some(finished) = &journal {
        finished.remove_left_behind(&folders);
    }
    interrupt::clean_up(folders);
    let method = &model.segmenter.model().method;
    let mut outcome = Outcome::default();
    let to_folder = ToFolder {
        work: model.work(settings),
        inputs,
        stems,
        finished: journal.as_ref(),
    };
    let Some(finished) = &journal else {
        let mut writers = outputs::open(&model.classes, output, method)?.without_shared();
        on_ranks::work_together(ranks, &to_folder, &mut writers, None, &stop, &mut outcome)?;
        writers.finish()?;
        return Ok(ExitCode::SUCCESS);
    };
    let plans = finished.plan(settings, inputs, stems)?;
    if let Some(part) = division.part(settings, &model.classes, method) {
        finished.state_part(part)?;
    }
    let mut writers = outputs::open(&model.classes, output, method)?;
    let kept = plans.iter().filter(|plan| matches!(plan, Plan::Keep(_)));
    let kept = kept.count();
    if output.continuation == Continuation::Resume {
        settings.verbosity.notice(format_args!(
            "{kept} of {} images are finished and kept",
            inputs.len()
        ));
    }

    let work = &to_folder.work;
    let worked = if ranks.is_single() {
        work_on(
            work,
            finished,
            &mut writers,
            inputs,
            stems.iter().zip(plans.iter().copied()),
            &stop,
            &mut outcome,
        )
    } else {
        on_ranks::work_together(
            ranks,
            &to_folder,
            &mut writers,
            Some(&plans),
            &stop,
            &mut outcome,
        )
    };
    let jobs = inputs.iter().zip(stems).zip(&plans);
    let jobs = jobs.map(|((input, stem), &plan)| SegmentJob { input, stem, plan });
    let worked = worked.and_then(|()| {
        let behind = jobs.skip(outcome.images.len() + outcome.failed.len());
        keep_behind_stop(work, finished, &mut writers, behind, &mut outcome)
    });
    if let Err(error) = worked {
        print_notice!(
            "{} of {} images are finished and kept; {} goes on as soon as the results can be written",
            outcome.images.len(),
            inputs.len(),
            resuming(settings)
        );
        return Err(error);
    }
    finish(settings, finished, writers, outcome, inputs.len())
}

/// Passes the finished images behind the place of a stop to the writers, so that no shared file loses an image.
///
/// # Errors
/// Returns the first error after which no results can be written.
fn keep_behind_stop<'a>(
    work: &Work,
    finished: &Finished,
    writers: &mut Writers,
    behind: impl Iterator<Item = SegmentJob<'a>>,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    for job in behind.filter(|job| matches!(job.plan, Plan::Keep(_))) {
        let labelled = work.label(job, finished).map_err(WriteFailure::OfImage);
        match labelled.and_then(|labelled| work.write(&labelled, writers, finished)) {
            Ok(image) => outcome.images.push(image),
            Err(WriteFailure::OfImage(error)) => {
                let failure = Failure::new(&job.input.image.path, &error);
                outcome.failed.push(failure);
                crate::hints::print(&error);
            }
            Err(WriteFailure::OfWork(error)) => return Err(error),
        }
    }
    Ok(())
}
