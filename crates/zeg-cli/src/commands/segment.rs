//! `zeg segment`: segments images into named classes and writes label maps, overlays and annotations.

mod args;
mod outputs;
mod result;

use std::{
    collections::{BTreeMap, HashSet},
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use zeg::{
    EncodedClasses, LoadOptions, Segmentation, Segmenter,
    explain::{Explainer, Explanation},
    export::{
        Classes, ExportFormat, Exporter, Needs, ProbabilitySource, SegmentedImage, Summary,
        formats, summarize,
    },
    image::{
        RgbImage, decode_rgb, distinct_palette,
        inputs::{InputImage, expand},
        overlay,
    },
    session::{LARGE_IMAGE, StripVisitor},
    spool::{ScoreSpool, SpooledScores},
    vocab::{classes::ClassQuery, templates::TemplateSet},
    work_queue::{QueueOptions, work_in_order},
};
use zeg_base::paths::path_text;

pub(crate) use self::args::SegmentArgs;
#[cfg(feature = "schema")]
pub(crate) use self::result::output_schema;
use self::{
    args::SegmentSettings,
    result::{ImageResult, SegmentResult},
};
use super::{
    JsonTarget,
    json::Failure,
    model_file::{
        resolve_model, warn_of_activation, warn_of_assumptions, warn_of_single_class, warn_of_text,
    },
};
use crate::{Program, progress::Verbosity, say::StdoutError};

/// An image to segment.
#[derive(Clone, Copy)]
struct SegmentJob<'a> {
    input: &'a InputImage,
    /// Path of its results without an extension, relative to the output folder.
    stem: &'a Path,
}

/// A segmented image, before its files are written.
struct SegmentedJob<'a> {
    job: SegmentJob<'a>,
    image: RgbImage,
    result: Segmentation,
    scores: Option<SpooledScores>,
    regions: Option<Vec<Explanation>>,
}

pub(crate) fn run(
    program: &Program,
    args: SegmentArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    segment(program, &args.settings(verbosity)?)
}

fn segment(program: &Program, settings: &SegmentSettings) -> anyhow::Result<ExitCode> {
    let inputs = expand(&settings.inputs, settings.recursion)?;
    warn_of_names(&inputs);
    let output = &settings.output;
    let stems = stems(&inputs, &output.folder, &output.kinds)?;

    settings.compute.open_device()?;
    let segmenter = load(program, settings)?;
    let encoded_classes = embed_classes(&segmenter, settings)?;
    let classes = Classes::new(encoded_classes.names(), palette(&settings.classes))?;
    std::fs::create_dir_all(&output.folder).with_context(|| output.folder.display().to_string())?;
    let mut exporters = outputs::open(&classes, output, &segmenter.model().method)?;

    let work = Work {
        settings,
        segmenter: &segmenter,
        encoded_classes: &encoded_classes,
        classes: &classes,
    };
    let bar = settings
        .verbosity
        .progress("segmenting", "images", inputs.len() as u64);
    let json_on_stdout = settings.json.as_ref().is_some_and(JsonTarget::is_stdout);
    let mut results = SegmentResult::default();
    let mut printed = Ok(()); // files are written even if their list cannot be
    let jobs = inputs.iter().zip(&stems);
    let queue = QueueOptions {
        workers: rayon::current_num_threads().min(inputs.len()),
        stop: None,
    };
    work_in_order(
        jobs.map(|(input, stem)| SegmentJob { input, stem }),
        queue,
        |job| !is_small(job.input),
        |job| work.segment(job),
        |result| {
            let result = result.map_err(anyhow::Error::new).flatten();
            match result.and_then(|segmented| work.write(&segmented, &mut exporters)) {
                Ok(image) => {
                    if !json_on_stdout && printed.is_ok() {
                        bar.suspend(|| printed = report(&image));
                    }
                    results.images.push(image);
                }
                // The other images are still segmented.
                Err(error) => {
                    bar.suspend(|| crate::hints::print(&error));
                    // Results arrive in the order of the images.
                    let input = inputs.get(results.images.len() + results.failed.len());
                    let path = input.map_or(Path::new(""), |input| input.path.as_path());
                    results.failed.push(Failure::new(path, &error));
                }
            }
            bar.inc();
            anyhow::Ok(())
        },
    )?;
    bar.finish();
    for exporter in exporters {
        let files = exporter.finish()?;
        let of_images: HashSet<&PathBuf> = results.images.iter().flat_map(|i| &i.files).collect();
        for path in files.iter().filter(|path| !of_images.contains(path)) {
            if !json_on_stdout && printed.is_ok() {
                printed = print_result!("{}", path.display());
            }
        }
        results.files.extend(files);
    }
    if let Some(json) = &settings.json {
        json.write(&results)?;
    }
    if !results.failed.is_empty() {
        // The document lists them, so this is not an error with a document of its own.
        print_notice!(
            "error: {} of {} images could not be segmented",
            results.failed.len(),
            inputs.len()
        );
        return Ok(ExitCode::FAILURE);
    }
    printed?;
    Ok(ExitCode::SUCCESS)
}

/// Warns of images whose names are not UTF-8, because JSON and annotation files hold other names for them.
fn warn_of_names(inputs: &[InputImage]) {
    let is_odd = |input: &&InputImage| input.path.to_str().is_none();
    for input in inputs.iter().filter(is_odd) {
        print_notice!(
            "warning: {}: the name is not UTF-8; JSON and annotation files call it {}; rename the image to avoid this",
            input.path.display(),
            path_text(&input.path)
        );
    }
}

/// Opens the model and applies the settings for inference.
fn load(program: &Program, settings: &SegmentSettings) -> anyhow::Result<Segmenter> {
    let templates = settings
        .templates
        .as_deref()
        .map(TemplateSet::by_name_or_file)
        .transpose()?;
    let model = &settings.model_settings;
    let options = LoadOptions {
        base: model.weights.clone(),
        method: model.method.clone(),
        methods: program.methods.clone(),
        device: settings.compute.device,
        precision: model.precision,
        table: model.text.clone(),
        table_classes: model.text_classes.clone(),
        activation: model.activation,
        cache: settings.cache.folder(),
        templates,
    };
    let mut segmenter = Segmenter::load_with(&resolve_model(&settings.model)?, options)?;
    warn_of_assumptions(segmenter.model());
    warn_of_activation(segmenter.model())?;
    let threshold = settings.threshold.or(segmenter.default_threshold());
    segmenter.change_inference(|inference| {
        settings.inference.apply(inference)?;
        if let Some(threshold) = threshold {
            inference.threshold = (threshold > 0.0).then_some(threshold);
        }
        anyhow::Ok(())
    })?;
    settings.test_time.apply(segmenter.test_time_mut())?;
    Ok(segmenter)
}

/// Embeds the class names.
fn embed_classes(
    segmenter: &Segmenter,
    settings: &SegmentSettings,
) -> anyhow::Result<EncodedClasses> {
    let classes = &settings.classes;
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
    warn_of_single_class(
        classes.len(),
        segmenter.model().model.scoring(),
        "name what else is in the image with --background",
    );
    Ok(encoded)
}

/// Returns a colour for each class: its own, or one that differs clearly from the others.
///
/// `[classes]` RGB values.
fn palette(classes: &[ClassQuery]) -> Vec<[u8; 3]> {
    let free = distinct_palette(classes.len());
    classes
        .iter()
        .zip(free)
        .map(|(class, free)| class.colour.unwrap_or(free))
        .collect()
}

/// Whether an image is small enough to be segmented at the same time as others.
///
/// An image whose size cannot be read counts as large.
fn is_small(input: &InputImage) -> bool {
    zeg::image::image_size(&input.path).is_ok_and(|(w, h)| w.saturating_mul(h) <= LARGE_IMAGE)
}

/// The parts that segment and write an image.
struct Work<'a> {
    settings: &'a SegmentSettings,
    segmenter: &'a Segmenter,
    encoded_classes: &'a EncodedClasses,
    classes: &'a Classes,
}

impl Work<'_> {
    /// Segments an image; every output that needs its scores reads them in the same pass.
    fn segment<'a>(&self, job: SegmentJob<'a>) -> anyhow::Result<SegmentedJob<'a>> {
        let image = decode_rgb(&job.input.path)?;
        let [height, width] = [image.height() as usize, image.width() as usize];
        let kinds = &self.settings.output.kinds;
        let mut spool = if kinds.iter().any(|kind| kind.needs == Needs::Scores) {
            Some(ScoreSpool::new(self.classes.len(), width)?)
        } else {
            None
        };
        let mut explainer = self
            .settings
            .explain
            .map(|options| Explainer::new(self.encoded_classes.names(), [height, width], options));
        let mut visitors: Vec<&mut dyn StripVisitor> = Vec::new();
        if let Some(spool) = &mut spool {
            visitors.push(spool);
        }
        if let Some(explainer) = &mut explainer {
            visitors.push(explainer);
        }
        let result = self
            .segmenter
            .segment_classes(&image, self.encoded_classes, &mut visitors)?;
        Ok(SegmentedJob {
            job,
            image,
            result,
            scores: spool.map(ScoreSpool::finish).transpose()?,
            regions: explainer.map(Explainer::finish),
        })
    }

    /// Passes a segmented image to all writers.
    fn write(
        &self,
        segmented: &SegmentedJob,
        exporters: &mut [Box<dyn Exporter>],
    ) -> anyhow::Result<ImageResult> {
        let SegmentJob { input, stem } = segmented.job;
        let output = &self.settings.output;
        let labels = &segmented.result.labels;
        let palette: Vec<[u8; 3]> = (0..self.classes.len())
            .map(|label| self.classes.colour(label as u16))
            .collect();
        let overlay_image = output
            .kinds
            .iter()
            .any(|kind| kind.needs == Needs::Overlay)
            .then(|| {
                overlay(
                    &segmented.image,
                    labels,
                    self.classes.names(),
                    &palette,
                    output.opacity,
                )
            });
        let input = SegmentedImage {
            path: &input.relative,
            stem,
            labels,
            confidence: Some(&segmented.result.confidence),
            probabilities: segmented
                .scores
                .as_ref()
                .map(|s| s as &dyn ProbabilitySource),
            overlay: overlay_image.as_ref(),
        };
        for exporter in exporters {
            exporter.add(&input)?;
        }
        if let Some(scores) = &segmented.scores {
            scores
                .check()
                .context("reading scores back from the temporary file")?;
        }
        let files = formats()
            .filter(|format| output.kinds.contains(format))
            .filter_map(|format| Some(image_file(&output.folder, stem, format.image_suffix?)))
            .collect();
        Ok(ImageResult {
            summary: Summary {
                image: path_text(input.path),
                ..summarize(&input, self.classes)?
            },
            files,
            regions: segmented.regions.clone(),
        })
    }
}

/// Prints the files of an image and the best classes of its regions.
fn report(result: &ImageResult) -> Result<(), StdoutError> {
    for file in &result.files {
        print_result!("{}", file.display())?;
    }
    for region in result.regions.iter().flatten() {
        let candidates: Vec<String> = region
            .candidates
            .iter()
            .map(|c| format!("{} {:.2}", c.class, c.score))
            .collect();
        let [x, y, width, height] = region.bounding_box;
        print_result!(
            "{}: {:>5.1} %  {} in {width}×{height}+{x}+{y}: {}",
            result.summary.image,
            100.0 * region.share,
            region.class.as_deref().unwrap_or("(unlabelled)"),
            candidates.join(", ")
        )?;
    }
    Ok(())
}

/// Returns the path of a file of one image in the output folder.
///
/// - `suffix`: end of the file's name, such as `.overlay.png`
fn image_file(folder: &Path, stem: &Path, suffix: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(suffix);
    folder.join(name)
}

/// Returns the path of each image's results without an extension, relative to the output folder.
///
/// # Errors
/// Returns an error if the results of two images have the same path, or if a result would overwrite its image.
fn stems(
    images: &[InputImage],
    folder: &Path,
    kinds: &[&ExportFormat],
) -> anyhow::Result<Vec<PathBuf>> {
    let mut taken: BTreeMap<PathBuf, &Path> = BTreeMap::new();
    images
        .iter()
        .map(|input| {
            let stem = input.relative.with_extension("");
            let labels = image_file(folder, &stem, ".png");
            let mut suffixes = kinds.iter().filter_map(|kind| kind.image_suffix);
            anyhow::ensure!(
                !suffixes
                    .any(|suffix| { same_file(&image_file(folder, &stem, suffix), &input.path) }),
                "{}: the results would overwrite the image; choose another folder with -o",
                input.path.display()
            );
            if let Some(other) = taken.insert(stem.clone(), &input.path) {
                anyhow::bail!(
                    "{} and {}: both results would be written to {}",
                    other.display(),
                    input.path.display(),
                    labels.display()
                );
            }
            Ok(stem)
        })
        .collect()
}

fn same_file(a: &Path, b: &Path) -> bool {
    matches!((a.canonicalize(), b.canonicalize()), (Ok(a), Ok(b)) if a == b)
}
