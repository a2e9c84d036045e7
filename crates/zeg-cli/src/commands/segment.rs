//! `zeg segment`: segments images into named classes and writes label maps, overlays and annotations.

mod args;
mod finished;
mod inputs;
mod merge;
mod on_ranks;
mod outputs;
mod part;
mod places;
mod result;
mod to_folder;
mod to_stdout;
mod work;

use std::{
    collections::HashSet,
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::AtomicBool,
};

use zeg::{
    EncodedClasses, Segmenter,
    explain::Explanation,
    export::{Classes, Overwrite},
    notices::TIED,
    work_queue::{QueueOptions, work_in_order},
};
use zeg_base::{paths::path_text, plural::counted, ranks::Ranks};

#[cfg(feature = "schema")]
pub(crate) use self::result::{merge_output_schema, output_schema};
pub(crate) use self::{args::SegmentArgs, merge::MergeError, on_ranks::NotShared};
use self::{
    args::{OutputPlace, SegmentSettings, SegmentTask},
    finished::{Finished, Plan},
    inputs::Input,
    outputs::Writers,
    result::{ImageResult, SegmentResult},
    to_folder::segment_into_folder,
    work::{SegmentJob, Work, WriteFailure},
};
use super::{
    JsonTarget, interrupt,
    json::Failure,
    model_file::{SegmenterSettings, open_segmenter, warn_of_single_class, warn_of_text},
    shared::encode_examples,
};
use crate::{Program, numbers::WrongArgument, progress::Verbosity, say::StdoutError};

pub(crate) fn run(
    program: &Program,
    args: SegmentArgs,
    verbosity: Verbosity,
    ranks: &Ranks,
) -> anyhow::Result<ExitCode> {
    match args.task(verbosity)? {
        SegmentTask::Segment(settings) => segment(program, &settings, ranks),
        SegmentTask::Merge(settings) => merge::merge(&settings),
    }
}

fn segment(
    program: &Program,
    settings: &SegmentSettings,
    ranks: &Ranks,
) -> anyhow::Result<ExitCode> {
    let inputs = inputs::inputs(&settings.inputs, settings.recursion)?;
    on_ranks::refuse_standard(ranks, &inputs)?;
    match settings.output.place {
        OutputPlace::Folder => {
            let inputs = places::without_results(inputs, settings)?;
            warn_of_names(&inputs);
            segment_into_folder(program, settings, inputs, ranks)
        }
        OutputPlace::Stdout if !ranks.is_single() => Err(WrongArgument(
            "several processes cannot share one image on standard output; start the program once"
                .into(),
        )
        .into()),
        OutputPlace::Stdout => {
            warn_of_names(&inputs);
            let input = to_stdout::check(&inputs)?;
            let model = Model::open(program, settings)?;
            to_stdout::write(&model.work(settings), input, settings)?;
            Ok(ExitCode::SUCCESS)
        }
    }
}

/// A model with the classes to segment.
struct Model {
    segmenter: Segmenter,
    encoded_classes: EncodedClasses,
    classes: Classes,
}

impl Model {
    fn open(program: &Program, settings: &SegmentSettings) -> anyhow::Result<Self> {
        settings.compute.open_device()?;
        let mut segmenter = load(program, settings)?;
        let encoded_classes = embed_classes(&mut segmenter, settings)?;
        Ok(Self {
            classes: encoded_classes.export_classes()?,
            segmenter,
            encoded_classes,
        })
    }

    fn work<'a>(&'a self, settings: &'a SegmentSettings) -> Work<'a> {
        Work {
            settings,
            segmenter: &self.segmenter,
            encoded_classes: &self.encoded_classes,
            classes: &self.classes,
        }
    }
}

/// What became of the images.
#[derive(Default)]
struct Outcome {
    images: Vec<ImageResult>,
    failed: Vec<Failure>,
    /// The failure of printing; files are written even if their list cannot be.
    printed: Option<StdoutError>,
}

/// Segments all images, or reads those that are finished from the journal, and passes them to the writers.
///
/// - `plans`: for each image its stem and what is to be done with it
///
/// # Errors
/// Returns the first error after which no results can be written.
fn work_on<'a>(
    work: &Work,
    finished: &Finished,
    writers: &mut Writers,
    inputs: &'a [Input],
    plans: impl ExactSizeIterator<Item = (&'a PathBuf, Plan)> + Send,
    stop: &AtomicBool,
    outcome: &mut Outcome,
) -> anyhow::Result<()> {
    let settings = work.settings;
    let verbosity = settings.verbosity;
    let bar = verbosity.progress("segmenting", "images", inputs.len() as u64);
    let json_on_stdout = settings.json.as_ref().is_some_and(JsonTarget::is_stdout);
    let queue = QueueOptions {
        workers: rayon::current_num_threads().min(inputs.len()),
        stop: Some(stop),
    };
    let worked = work_in_order(
        inputs
            .iter()
            .zip(plans)
            .map(|(input, (stem, plan))| SegmentJob { input, stem, plan }),
        queue,
        |job| !job.input.is_small(),
        |job| work.label(job, finished),
        |result| {
            let result = result.map_err(anyhow::Error::new).flatten();
            let result = result.map_err(WriteFailure::OfImage);
            match result.and_then(|labelled| work.write(&labelled, writers, finished)) {
                Ok(image) => {
                    if !json_on_stdout && outcome.printed.is_none() {
                        bar.suspend(|| outcome.printed = report(&image).err());
                    }
                    outcome.images.push(image);
                }
                // The other images are still segmented.
                Err(WriteFailure::OfImage(error)) => {
                    // Results arrive in the order of the images.
                    let input = inputs.get(outcome.images.len() + outcome.failed.len());
                    let path = input.map_or(Path::new(""), |input| &input.image.path);
                    outcome.failed.push(Failure::new(path, &error));
                    bar.suspend(|| crate::hints::print(&error));
                }
                Err(WriteFailure::OfWork(error)) => return Err(error),
            }
            bar.inc();
            Ok(())
        },
    );
    bar.finish();
    worked
}

/// Returns the options with which a run goes on that was stopped.
fn resuming(settings: &SegmentSettings) -> &'static str {
    match settings.output.overwrite {
        Overwrite::Refuse => "--resume",
        // Results of other settings may still be there.
        Overwrite::Replace => "--resume --overwrite",
    }
}

/// Completes the files that all images share, lists them, and writes the JSON.
///
/// - `all`: number of images
fn finish(
    settings: &SegmentSettings,
    finished: &Finished,
    mut writers: Writers,
    outcome: Outcome,
    all: usize,
) -> anyhow::Result<ExitCode> {
    let Outcome {
        images,
        failed,
        mut printed,
    } = outcome;
    warn_of_ties(&images);
    let done = images.len() + failed.len();
    let is_stopped = done < all;
    let mut shared = finished::shared_files(&settings.output);
    let mut kept = finished::collected_files(&settings.output);
    if is_stopped && !finished.may_be_incomplete(&kept) {
        // The run that goes on writes them.
        writers = writers.without_shared();
        shared.retain(|file| !kept.contains(file));
    } else {
        kept.clear();
    }
    finished.begin_shared(&shared)?;
    writers.finish()?;
    finished.finish_shared(&shared, is_stopped)?;
    // An image that was kept has files that no writer of this run has written.
    let mut files: Vec<PathBuf> = Vec::new();
    files.extend(images.iter().flat_map(|image| image.files.clone()));
    files.extend(shared.iter().cloned());
    let json_on_stdout = settings.json.as_ref().is_some_and(JsonTarget::is_stdout);
    let of_images: HashSet<&PathBuf> = images.iter().flat_map(|image| &image.files).collect();
    for path in files.iter().filter(|path| !of_images.contains(path)) {
        if !json_on_stdout && printed.is_none() {
            printed = print_result!("{}", path.display()).err();
        }
    }
    let result = SegmentResult {
        images,
        failed,
        not_reached: is_stopped.then(|| all - done),
        files,
    };
    if let Some(json) = &settings.json {
        json.write(&result)?;
    }
    let failed = result.failed.len();
    if is_stopped {
        let resuming = resuming(settings);
        let about_shared = about_shared(&shared, &kept);
        print_notice!("stopped after {done} of {all} images{about_shared}; {resuming} goes on");
        return Ok(interrupt::exit_code());
    }
    if failed > 0 {
        // The document lists them, so this is not an error with a document of its own.
        print_notice!(
            "error: {failed} of {} could not be segmented",
            counted(all, "image")
        );
        return Ok(ExitCode::FAILURE);
    }
    match printed {
        Some(error) => Err(error.into()),
        None => Ok(ExitCode::SUCCESS),
    }
}

/// Says what a stopped run has made of the files that all images share.
///
/// - `written`, `kept`: those that hold the finished images, and those that stay as they were
fn about_shared(written: &[PathBuf], kept: &[PathBuf]) -> String {
    let names = |files: &[PathBuf]| -> String {
        let names = files.iter().filter_map(|file| file.file_name());
        let names: Vec<_> = names.map(|name| name.to_string_lossy()).collect();
        names.join(", ")
    };
    match (written, kept) {
        ([], []) => String::new(),
        (written, []) => format!("; these alone are in {}", names(written)),
        (_, kept) => format!(
            "; until all are finished, earlier files stay: {}",
            names(kept)
        ),
    }
}

/// Warns once of images in which the model tells no classes apart.
fn warn_of_ties(images: &[ImageResult]) {
    let mut tied = images.iter().filter(|image| image.tied);
    if let Some(first) = tied.next() {
        print_notice!(
            "warning: in {} of {}, such as {}, {TIED}",
            1 + tied.count(),
            counted(images.len(), "image"),
            first.summary.image
        );
    }
}

/// Warns of images whose names are not UTF-8, because JSON and annotation files hold other names for them.
fn warn_of_names(inputs: &[Input]) {
    let is_odd = |path: &&PathBuf| path.to_str().is_none();
    for path in inputs.iter().map(|input| &input.image.path).filter(is_odd) {
        print_notice!(
            "warning: {}: the name is not UTF-8; JSON and annotation files call it {}; rename the image to avoid this",
            path.display(),
            path_text(path)
        );
    }
}

/// Opens the model and applies the settings for inference.
fn load(program: &Program, settings: &SegmentSettings) -> anyhow::Result<Segmenter> {
    let mut segmenter = open_segmenter(
        program,
        &SegmenterSettings {
            model: &settings.model,
            templates: settings.templates.as_deref(),
            model_settings: &settings.model_settings,
            compute: &settings.compute,
            cache: settings.cache,
        },
    )?;
    settings.inference.check(&*segmenter.model().model)?;
    let threshold = settings.threshold.or(segmenter.default_threshold());
    segmenter.change_inference(|inference| {
        settings.inference.apply(inference)?;
        if let Some(threshold) = threshold {
            inference.threshold = (threshold > 0.0).then_some(threshold);
        }
        anyhow::Ok(())
    })?;
    let mut test_time = segmenter.test_time().clone();
    settings
        .test_time
        .apply(&mut test_time, &*segmenter.model().model)?;
    *segmenter.test_time_mut() = test_time;
    Ok(segmenter)
}

/// Embeds the class names and encodes the examples.
fn embed_classes(
    segmenter: &mut Segmenter,
    settings: &SegmentSettings,
) -> anyhow::Result<EncodedClasses> {
    let mut classes = settings.classes.clone();
    if let Some(folder) = &settings.examples {
        encode_examples(segmenter, folder, settings.cache, settings.verbosity)?;
        let alone = segmenter.add_example_classes(&mut classes);
        if !alone.is_empty() {
            settings.verbosity.notice(format_args!(
                "given by examples alone, because --classes does not name them: {}",
                alone.join(", ")
            ));
        }
    }
    let classes = &classes;
    let bar = settings
        .verbosity
        .progress("embedding", "class names", classes.len() as u64);
    let encoded = segmenter.encode_classes_with(
        classes,
        Some(&|done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }),
    );
    bar.finish();
    let encoded = encoded?;
    warn_of_text(encoded.notices());
    let advice = match &classes[..] {
        [class] if !class.synonyms.is_empty() => {
            "its names count as synonyms: a class file takes one class per line, and --classes separates classes by \
             commas; name what else is in the image with --background"
        }
        _ => "name what else is in the image with --background",
    };
    warn_of_single_class(classes.len(), segmenter.model().model.scoring(), advice);
    Ok(encoded)
}

/// Prints the files of an image and the best classes of its regions.
fn report(result: &ImageResult) -> Result<(), StdoutError> {
    for file in &result.files {
        print_result!("{}", file.display())?;
    }
    for line in report_lines(result) {
        print_result!("{line}")?;
    }
    Ok(())
}

/// Returns the best classes of an image's regions, one line for each region.
fn report_lines(result: &ImageResult) -> Vec<String> {
    let regions = result.regions.iter().flatten();
    let line = |region: &Explanation| {
        let candidates: Vec<String> = region
            .candidates
            .iter()
            .map(|c| format!("{} {:.2}", c.class, c.score))
            .collect();
        let [x, y, width, height] = region.bounding_box;
        format!(
            "{}: {:>5.1} %  {} in {width}×{height}+{x}+{y}: {}",
            result.summary.image,
            100.0 * region.share,
            region.class.as_deref().unwrap_or("(unlabelled)"),
            candidates.join(", ")
        )
    };
    regions.map(line).collect()
}
