//! Segmentation that several ranks share: each writes the files of its own images, and the first rank those of all.
//!
//! The ranks work on a few images each. The first one states in the journal whose files are about to be written, and keeps
//! what the others have finished, so that a run that was killed goes on like one of a single process.

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

use serde::{Deserialize, Serialize};
use zeg::{
    export::Overwrite,
    work_queue::{QueueOptions, work_in_order},
};
use zeg_base::{
    fingerprint::{Fingerprint, digest},
    paths::path_text,
    ranks::Ranks,
};

use super::{
    Outcome,
    finished::{FinishedImage, Plan, exists},
    inputs::{Input, STANDARD},
    outputs::Writers,
    report,
    to_folder::ToFolder,
    work::{SegmentJob, WriteFailure},
};
use crate::{
    commands::{JsonTarget, json::Failure, train::same_fingerprints},
    numbers::WrongArgument,
};

/// Number of images of a thread between two messages.
const EACH: usize = 4;

/// What one rank tells the first one of a few images.
#[derive(Serialize, Deserialize)]
struct Message {
    /// Whether the rank was asked to stop.
    stop: bool,
    images: Vec<Sent>,
}

/// What became of an image.
#[derive(Serialize, Deserialize)]
struct Sent {
    /// Position among all images.
    index: usize,
    result: Result<Written, Failure>,
}

/// An image whose own files are written.
#[derive(Serialize, Deserialize)]
pub(super) struct Written {
    pub(super) result: FinishedImage,
    /// SHA-256 of the image.
    pub(super) source: String,
    /// Those of its own files that are there.
    pub(super) files: Vec<PathBuf>,
}

/// The error for files that another rank has written and that the first one does not see.
#[derive(Debug, thiserror::Error)]
#[error("{}: {name} has written this file, but it is not there on the host of the first one", file.display())]
pub(crate) struct NotShared {
    file: PathBuf,
    /// Rank and host.
    name: String,
}

/// Checks that no image comes from standard input, which only one process can read.
///
/// # Errors
/// Returns an error for standard input, if there are several ranks.
pub(super) fn refuse_standard(ranks: &Ranks, inputs: &[Input]) -> Result<(), WrongArgument> {
    let reads = inputs.iter().any(|input| input.origin() == STANDARD);
    if ranks.is_single() || !reads {
        return Ok(());
    }
    Err(WrongArgument(
        "several processes cannot share an image from standard input; name a file".into(),
    ))
}

/// Checks that all ranks have the same images and settings.
///
/// # Errors
/// Returns an error that names the first rank that differs, or one if another rank has failed.
pub(super) fn check_same(
    ranks: &Ranks,
    settings: &Fingerprint,
    inputs: &[Input],
) -> anyhow::Result<()> {
    if ranks.is_single() {
        return Ok(());
    }
    let names = inputs.iter().map(|input| path_text(&input.image.relative));
    let own = settings
        .clone()
        .with("images", inputs.len())
        .with("names of the images", digest(names));
    same_fingerprints(ranks, &own)
}

/// Returns the plans of the first rank on all ranks; images that are finished have none on the others.
///
/// # Errors
/// Returns an error if another rank has failed.
fn plans_of_first(ranks: &Ranks, own: Option<&[Plan]>) -> anyhow::Result<Vec<Option<Overwrite>>> {
    let code = |plan: &Plan| match plan {
        Plan::Keep(_) => 0,
        Plan::Compute(Overwrite::Refuse) => 1,
        Plan::Compute(Overwrite::Replace) => 2,
    };
    let codes = || own.unwrap_or_default().iter().map(code).collect();
    let codes = ranks.of_first("what is to be done with every image", codes)?;
    let plan = |code: u8| match code {
        0 => None,
        1 => Some(Overwrite::Refuse),
        _ => Some(Overwrite::Replace),
    };
    Ok(codes.into_iter().map(plan).collect())
}

/// Segments all images together with the other ranks.
///
/// - `plans`: what is to be done with each image, on the first rank
/// - `outcome`: receives what became of the images, on the first rank
///
/// # Errors
/// Returns the first error after which no results can be written, also that of another rank.
pub(super) fn work_together(
    ranks: &Ranks,
    work: &ToFolder,
    writers: &mut Writers,
    plans: Option<&[Plan]>,
    stop: &AtomicBool,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let settings = work.work.settings;
    let computed = plans_of_first(ranks, plans)?;
    let open = computed.iter().enumerate();
    let open: Vec<(usize, Overwrite)> = open.filter_map(|(i, plan)| Some((i, (*plan)?))).collect();
    let threads = (rayon::current_num_threads() as u64).to_le_bytes();
    let threads = ranks.of_first("the size of a share", || threads.to_vec())?;
    let threads = threads.first_chunk().map_or(1, |n| u64::from_le_bytes(*n));
    let all = work.inputs.len() as u64;
    let bar = settings.verbosity.progress("segmenting", "images", all);
    let mut next = 0;
    for block in open.chunks(EACH * threads as usize * ranks.size()) {
        work.begin_others(ranks, block)?;
        // No file is written before the journal names it.
        ranks.meet("the images of a block")?;
        let own = block.iter().skip(ranks.rank()).step_by(ranks.size());
        let images = work.write_own(own.copied().collect(), writers)?;
        let message = Message {
            stop: stop.load(Ordering::SeqCst),
            images,
        };
        let messages = ranks.gather("the results of a block", &serde_json::to_vec(&message)?)?;
        let (mut stopped, mut results) = (false, BTreeMap::new());
        for (rank, message) in messages.iter().enumerate() {
            let message: Message = serde_json::from_slice(message)?;
            stopped |= message.stop;
            for sent in message.images.into_iter().filter(|_| ranks.is_first()) {
                if let (Ok(written), 1..) = (&sent.result, rank) {
                    let replaces = computed.get(sent.index) == Some(&Some(Overwrite::Replace));
                    work.keep_other(&ranks.name(rank), sent.index, written, replaces)?;
                }
                results.insert(sent.index, sent.result);
            }
        }
        if let (Some(plans), Some((last, _))) = (plans, block.last()) {
            for index in next..=*last {
                let result = results.remove(&index);
                deliver(work, writers, plans, index, result, outcome, |print| {
                    bar.suspend(print);
                })?;
                bar.inc();
            }
            next = last + 1;
        }
        if stopped {
            bar.finish();
            return Ok(());
        }
    }
    for index in next..plans.map_or(0, <[Plan]>::len) {
        if let Some(plans) = plans {
            deliver(work, writers, plans, index, None, outcome, |print| {
                bar.suspend(print);
            })?;
            bar.inc();
        }
    }
    bar.finish();
    Ok(())
}

/// Passes an image to the writers of the files that all images share.
///
/// - `result`: what a rank has made of it; `None` if it is kept
/// - `suspend`: calls a function that prints
fn deliver(
    work: &ToFolder,
    writers: &mut Writers,
    plans: &[Plan],
    index: usize,
    result: Option<Result<Written, Failure>>,
    outcome: &mut Outcome,
    suspend: impl Fn(&mut dyn FnMut()),
) -> anyhow::Result<()> {
    let Some(job) = work.job(index, plans.get(index).copied()) else {
        return Ok(());
    };
    let written = match result {
        Some(Err(failure)) => {
            suspend(&mut || failure.print());
            outcome.failed.push(failure);
            return Ok(());
        }
        Some(Ok(written)) => work.work.of_result(job, written.result),
        None => work.work.label(job, work.finished()?),
    };
    let written = written.map_err(WriteFailure::OfImage);
    let added = written.and_then(|labelled| work.work.write_shared(&labelled, writers));
    match added {
        Ok(image) => {
            let json = work.work.settings.json.as_ref();
            if !json.is_some_and(JsonTarget::is_stdout) && outcome.printed.is_none() {
                suspend(&mut || outcome.printed = report(&image).err());
            }
            outcome.images.push(image);
        }
        Err(WriteFailure::OfImage(error)) => {
            suspend(&mut || crate::hints::print(&error));
            outcome
                .failed
                .push(Failure::new(&job.input.image.path, &error));
        }
        Err(WriteFailure::OfWork(error)) => return Err(error),
    }
    Ok(())
}

impl ToFolder<'_> {
    /// States that the files of the images of other ranks are about to be written.
    fn begin_others(&self, ranks: &Ranks, block: &[(usize, Overwrite)]) -> anyhow::Result<()> {
        let Some(finished) = self.finished else {
            return Ok(());
        };
        for (place, (index, overwrite)) in block.iter().enumerate() {
            if let Some(job) = self.job(*index, Some(Plan::Compute(*overwrite)))
                && place % ranks.size() != ranks.rank()
            {
                finished.begin_image(job.input, job.stem, &self.work.own_files(&job))?;
            }
        }
        Ok(())
    }

    /// Segments images of this rank and writes their own files.
    fn write_own(
        &self,
        images: Vec<(usize, Overwrite)>,
        writers: &mut Writers,
    ) -> anyhow::Result<Vec<Sent>> {
        let mut sent = Vec::with_capacity(images.len());
        let mut indices = images.iter().map(|(index, _)| *index);
        let queue = QueueOptions {
            workers: rayon::current_num_threads().min(images.len()),
            stop: None,
        };
        let jobs = images
            .iter()
            .filter_map(|(index, overwrite)| self.job(*index, Some(Plan::Compute(*overwrite))));
        let jobs: Vec<SegmentJob> = jobs.collect();
        work_in_order(
            jobs.into_iter(),
            queue,
            |job| !job.input.is_small(),
            |job| self.work.segment(job),
            |result| {
                let index = indices.next().unwrap_or_default();
                let labelled = result.map_err(anyhow::Error::new).flatten();
                let labelled = labelled.map_err(WriteFailure::OfImage);
                let written =
                    labelled.and_then(|it| self.work.write_own(&it, writers, self.finished));
                let result = match written {
                    Ok(written) => Ok(written),
                    Err(WriteFailure::OfImage(error)) => {
                        let input = self.inputs.get(index);
                        let path = input.map_or(Path::new(""), |input| &input.image.path);
                        Err(Failure::new(path, &error))
                    }
                    Err(WriteFailure::OfWork(error)) => return Err(error),
                };
                sent.push(Sent { index, result });
                anyhow::Ok(())
            },
        )?;
        Ok(sent)
    }

    /// Keeps what another rank has finished in the journal.
    ///
    /// - `name`: the rank and its host
    /// - `replaces`: whether files of an earlier run may be left
    fn keep_other(
        &self,
        name: &str,
        index: usize,
        written: &Written,
        replaces: bool,
    ) -> anyhow::Result<()> {
        let job = self.job(index, None);
        let (Some(finished), Some(job)) = (self.finished, job) else {
            return Ok(());
        };
        if let Some(file) = written.files.iter().find(|file| !exists(file)) {
            return Err(NotShared {
                file: file.clone(),
                name: name.to_owned(),
            }
            .into());
        }
        let own = self.work.own_files(&job);
        let source = written.source.clone();
        finished.finish_image(job.input, job.stem, source, &own, &written.result)?;
        if replaces {
            finished.remove_stale(&self.work.settings.output.kinds, job.stem, &own);
        }
        Ok(())
    }
}
