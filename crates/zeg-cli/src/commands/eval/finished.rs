//! Images that an evaluation has scored, in a journal beside the record, so that a stopped evaluation goes on.

use std::{
    collections::{HashMap, HashSet},
    path::{Path, PathBuf},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use zeg::{
    data::{OnBadSample, OpenSet, SampleSource as _},
    eval::{Evaluation, record::FILE_NAME},
    evaluation::{EvaluationTimes, ImageCounts, KeptImage, KeptImages, ScoredImage},
    export::LabelRuns,
    model::inference::Stages,
};
use zeg_base::{
    fingerprint::{Fingerprint, digest},
    plural::counted,
};

use super::{args::EvalSettings, job::EvalJob, predictions::label_file, sweep};
use crate::commands::{
    journal::{Continuation, Journal, ResultsError, Span, settings_of},
    shared::Existing,
};

/// Name of the journal in the folder of the record.
pub(super) const JOURNAL: &str = ".zeg-eval.jsonl";

/// An entry of the journal.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Entry {
    Image(ImageEntry),
    /// All records are written.
    Finished {},
}

/// A scored image.
#[derive(Debug, Serialize, Deserialize)]
struct ImageEntry {
    /// Position in the data set.
    index: usize,
    /// Digest of its files; none in a mini world.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    content: Option<String>,
    /// In the order of the outcomes.
    counts: Vec<ImageCounts>,
    /// Predicted label maps, in the order of the outcomes; empty if nothing needs them.
    labels: Vec<LabelRuns>,
    times: Seconds,
    /// Wall time of the evaluation so far, in seconds.
    wall_s: f64,
}

/// [`EvaluationTimes`] in seconds.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Seconds {
    load: f64,
    prepare: f64,
    model: f64,
    scores: f64,
    count: f64,
}

/// What is read of an entry when the journal is opened.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Head {
    Image {
        index: usize,
        #[serde(default)]
        content: Option<String>,
        wall_s: f64,
    },
    Finished {},
}

impl From<EvaluationTimes> for Seconds {
    fn from(times: EvaluationTimes) -> Self {
        Self {
            load: times.load.as_secs_f64(),
            prepare: times.stages.prepare.as_secs_f64(),
            model: times.stages.model.as_secs_f64(),
            scores: times.stages.scores.as_secs_f64(),
            count: times.count.as_secs_f64(),
        }
    }
}

impl From<Seconds> for EvaluationTimes {
    fn from(seconds: Seconds) -> Self {
        // A file may hold any number.
        let time = |seconds: f64| Duration::try_from_secs_f64(seconds).unwrap_or_default();
        Self {
            load: time(seconds.load),
            stages: Stages {
                prepare: time(seconds.prepare),
                model: time(seconds.model),
                scores: time(seconds.scores),
            },
            count: time(seconds.count),
        }
    }
}

/// The images that models which share an encoder have scored.
#[derive(Debug)]
pub(super) struct ScoredImages {
    journal: Journal,
    /// By position in the data set.
    places: HashMap<usize, Span>,
    /// Positions of images whose files are others than those that were scored; they are scored again.
    changed: HashSet<usize>,
    /// Digests of the files of all images; empty for a mini world.
    contents: Vec<String>,
    /// Wall time of earlier runs.
    pub(super) wall: Duration,
    /// Whether label maps are kept.
    keeps_labels: bool,
    /// Whether an earlier run has begun this work, so that what stands in the folder may be its own.
    pub(super) goes_on: bool,
}

/// What an earlier evaluation has left.
#[derive(Debug)]
pub(super) enum Earlier {
    /// Some images, or none; the others are scored now.
    Images(Box<ScoredImages>),
    /// All records.
    Records(Vec<Evaluation>),
}

/// Opens the journal of models that share an encoder; `None` if no record is written.
///
/// # Errors
/// Returns a [`ResultsError`] if earlier results may be neither kept nor replaced, and the system's error if the journal
/// cannot be read.
pub(super) fn open(settings: &EvalSettings, jobs: &[EvalJob]) -> anyhow::Result<Option<Earlier>> {
    let Some(first) = jobs.first() else {
        return Ok(None);
    };
    let Some(folder) = first.record_folder() else {
        return Ok(None);
    };
    let present = result_settings(settings, jobs, &first.dataset)?;
    let mut entries = Vec::new();
    let journal = Journal::open(&folder.join(JOURNAL), |number, span, head: Head| {
        entries.push((number, span, head));
    });
    let mut journal = journal?;
    let records = records(settings, jobs);
    journal.remove_left_behind(&folders(settings, jobs));
    let is_finished = matches!(entries.last(), Some((_, _, Head::Finished {})));
    let (mut scored, mut changed) = (HashMap::new(), HashSet::new());
    let mut wall = Duration::ZERO;
    let goes_on = settings.continuation == Continuation::Resume && !entries.is_empty();
    match settings.continuation {
        Continuation::Fresh => {
            if settings.existing == Existing::Refuse && !entries.is_empty() && !is_finished {
                return Err(ResultsError::Unfinished(folder.to_owned()).into());
            }
            journal.restart(&present)?;
        }
        Continuation::Resume => {
            let number = journal.find(&present);
            if let Some((other, ..)) = entries.iter().find(|(then, ..)| Some(*then) != number) {
                return Err(journal.other_settings(folder, *other, &present).into());
            }
            if is_finished && let Some(records) = finished_records(settings, jobs)? {
                return Ok(Some(Earlier::Records(records)));
            }
            let mut files = records.iter().map(|folder| folder.join(FILE_NAME));
            if entries.is_empty()
                && let Some(record) = files.find(|file| file.exists())
            {
                return Err(ResultsError::Unknown(record).into());
            }
            for (_, span, head) in entries {
                if let Head::Image {
                    index,
                    content,
                    wall_s,
                } = head
                {
                    if content.as_ref() == first.contents.get(index) {
                        scored.insert(index, span);
                    } else {
                        changed.insert(index);
                    }
                    let so_far = Duration::try_from_secs_f64(wall_s);
                    wall = wall.max(so_far.unwrap_or_default());
                }
            }
            changed.retain(|index| !scored.contains_key(index));
            if !changed.is_empty() {
                print_notice!(
                    "warning: the files of {} have changed since their scoring, so they are scored again",
                    counted(changed.len(), "image")
                );
            }
            journal.begin(&present)?;
        }
    }
    Ok(Some(Earlier::Images(Box::new(ScoredImages {
        journal,
        places: scored,
        changed,
        contents: first.contents.clone(),
        wall,
        keeps_labels: keeps_labels(settings, jobs),
        goes_on,
    }))))
}

/// Returns all records of a finished evaluation.
///
/// Nothing is returned if one is missing, or if images were skipped that are not to be skipped now.
///
/// # Errors
/// Returns [`ResultsError::OtherSettings`] if a record is of other images, labels or class embeddings,
/// [`ResultsError::NoLabelMap`] if a label map is asked for that is not there, and an error if a record cannot be read.
fn finished_records(
    settings: &EvalSettings,
    jobs: &[EvalJob],
) -> anyhow::Result<Option<Vec<Evaluation>>> {
    let folders = records(settings, jobs);
    if !folders.iter().all(|folder| folder.join(FILE_NAME).exists()) {
        return Ok(None);
    }
    let found: Result<Vec<_>, _> = folders.iter().map(Evaluation::open).collect();
    let found = found?;
    let lacks_images = found.iter().any(|record| !record.skipped.is_empty());
    if lacks_images && settings.on_bad_image == OnBadSample::Stop {
        return Ok(None);
    }
    let outputs = jobs.iter().flat_map(|job| {
        let outputs = job.outputs().into_iter();
        outputs.map(move |output| (job, output))
    });
    for ((job, output), (folder, record)) in outputs.zip(folders.iter().zip(&found)) {
        let same = record.fingerprint.check(output.fingerprint);
        same.map_err(|mismatch| ResultsError::OtherSettings {
            path: folder.clone(),
            difference: mismatch.to_string(),
        })?;
        let skipped: HashSet<&str> = record.skipped.iter().map(|it| it.id.as_str()).collect();
        let ids = (0..job.dataset.len()).map(|index| job.dataset.id(index));
        for id in ids.filter(|id| !skipped.contains(id.as_str())) {
            let map = output.labels.as_deref();
            let map = map.map(|folder| label_file(folder, &id));
            if let Some(missing) = map.filter(|file| !file.exists()) {
                return Err(ResultsError::NoLabelMap(missing).into());
            }
        }
    }
    Ok(Some(found))
}

/// Returns the folders of all records.
fn records(settings: &EvalSettings, jobs: &[EvalJob]) -> Vec<PathBuf> {
    let folders = jobs.iter().filter_map(EvalJob::record_folder);
    folders
        .flat_map(|folder| sweep::folders(folder, &settings.seen_offsets))
        .collect()
}

/// Returns all folders that files are written into.
pub(super) fn folders(settings: &EvalSettings, jobs: &[EvalJob]) -> Vec<PathBuf> {
    let mut folders = records(settings, jobs);
    for output in jobs.iter().flat_map(EvalJob::outputs) {
        let (Some(maps), Some(job)) = (output.labels, jobs.first()) else {
            continue;
        };
        let files = (0..job.dataset.len()).map(|index| label_file(&maps, &job.dataset.id(index)));
        folders.extend(files.filter_map(|file| file.parent().map(Path::to_owned)));
    }
    folders.sort();
    folders.dedup();
    folders
}

/// Whether label maps are needed later: for the gallery, or for files.
fn keeps_labels(settings: &EvalSettings, jobs: &[EvalJob]) -> bool {
    settings.gallery > 0 || jobs.iter().any(EvalJob::writes_labels)
}

/// Returns everything that the scores follow from.
fn result_settings(
    settings: &EvalSettings,
    jobs: &[EvalJob],
    dataset: &OpenSet,
) -> anyhow::Result<Fingerprint> {
    let images: Vec<String> = (0..dataset.len()).map(|index| dataset.id(index)).collect();
    let mut values = serde_json::json!({
        "command": "eval",
        "program": concat!("zeg ", env!("CARGO_PKG_VERSION")),
        "dataset": dataset.name(),
        "classes": dataset.classes().classes,
        "unseen": dataset.classes().unseen_flags(),
        "images": images.len(),
        "image_ids": digest(&images),
        // Files, label rules and synonyms, too.
        "dataset_content": digest([format!("{dataset:?}")]),
        "seen_offsets": settings.seen_offsets,
        "label_maps": keeps_labels(settings, jobs),
    });
    for (number, job) in jobs.iter().enumerate() {
        values[format!("models[{number}]")] = job.values(settings)?;
    }
    Ok(settings_of(&values))
}

impl ScoredImages {
    /// Returns the number of images that earlier runs have scored.
    pub(super) fn count(&self) -> usize {
        self.places.len()
    }

    /// Whether an earlier run has scored an image, perhaps with other files.
    pub(super) fn contains(&self, index: usize) -> bool {
        self.places.contains_key(&index) || self.changed.contains(&index)
    }

    /// Keeps an image that was scored now.
    ///
    /// - `wall`: wall time of this run so far
    pub(super) fn add(&self, scored: &ScoredImage, wall: Duration) -> anyhow::Result<()> {
        let labels = scored.predictions.iter().filter(|_| self.keeps_labels);
        self.journal.append(&Entry::Image(ImageEntry {
            index: scored.index,
            content: self.contents.get(scored.index).cloned(),
            counts: scored.counts.to_vec(),
            labels: labels.map(LabelRuns::of).collect(),
            times: scored.times.into(),
            wall_s: (self.wall + wall).as_secs_f64(),
        }))
    }

    /// States that all records are written, and drops the images.
    pub(super) fn finish(self) -> anyhow::Result<()> {
        self.journal.finish(&Entry::Finished {})
    }
}

impl KeptImages for ScoredImages {
    fn image(&self, index: usize) -> anyhow::Result<Option<KeptImage>> {
        let Some(&span) = self.places.get(&index) else {
            return Ok(None);
        };
        let Entry::Image(entry) = self.journal.read(span)? else {
            return Ok(None);
        };
        let maps: Result<Vec<_>, _> = entry.labels.iter().map(LabelRuns::to_map).collect();
        Ok(Some(KeptImage {
            counts: entry.counts,
            predictions: maps?,
            times: entry.times.into(),
        }))
    }
}

/// Checks that no label map stands where one is to be written, unless it may be replaced.
///
/// - `folder`: folder of the label maps
/// - `kept`: images of an earlier run, whose label maps are there already
///
/// # Errors
/// Returns [`ResultsError::Exist`].
pub(super) fn check_label_maps(
    folder: &Path,
    dataset: &OpenSet,
    kept: Option<&ScoredImages>,
) -> Result<(), ResultsError> {
    let is_new = |index: &usize| kept.is_none_or(|kept| !kept.contains(*index));
    for index in (0..dataset.len()).filter(is_new) {
        let file = label_file(folder, &dataset.id(index));
        if file.symlink_metadata().is_ok() {
            return Err(ResultsError::Exist(file));
        }
    }
    Ok(())
}
