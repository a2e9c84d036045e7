//! `zeg segment`: images and class names to label maps, overlays and annotations.

mod args;
mod outputs;

use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::ExitCode,
};

use anyhow::Context as _;
use serde::Serialize;
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

pub(crate) use self::args::SegmentArgs;
use self::args::SegmentSettings;
use super::{
    JsonTarget,
    model_file::{resolve_model, warn_of_dropped},
};
use crate::{Program, progress};

/// What was found in one image.
#[derive(Debug, Serialize)]
struct Found {
    #[serde(flatten)]
    summary: Summary,
    /// Files that belong to this image alone.
    files: Vec<PathBuf>,
    /// What competes for its regions, with `--explain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    regions: Option<Vec<Explanation>>,
}

/// An image to segment.
#[derive(Clone, Copy)]
struct SegmentJob<'a> {
    input: &'a InputImage,
    /// The name of its results, relative to the output folder.
    stem: &'a Path,
}

/// An image that was segmented.
struct Done<'a> {
    job: SegmentJob<'a>,
    image: RgbImage,
    result: Segmentation,
    scores: Option<SpooledScores>,
    regions: Option<Vec<Explanation>>,
}

pub(crate) fn run(program: &Program, args: SegmentArgs) -> anyhow::Result<ExitCode> {
    segment(program, &args.settings()?)
}

fn segment(program: &Program, settings: &SegmentSettings) -> anyhow::Result<ExitCode> {
    let inputs = expand(&settings.inputs, settings.recursion)?;
    let output = &settings.output;
    let stems = stems(&inputs, &output.folder, &output.kinds)?;

    settings.compute.open_device()?;
    let segmenter = load(program, settings)?;
    let encoded_classes = read_classes(&segmenter, &settings.classes)?;
    let classes = Classes::new(encoded_classes.names(), palette(&settings.classes))?;
    std::fs::create_dir_all(&output.folder).with_context(|| output.folder.display().to_string())?;
    let mut exporters = outputs::open(&classes, output, &segmenter.model().method)?;

    let work = Work {
        settings,
        segmenter: &segmenter,
        encoded_classes: &encoded_classes,
        classes: &classes,
    };
    let bar = progress::bar(inputs.len() as u64, "segmenting");
    let json_on_stdout = settings.json.as_ref().is_some_and(JsonTarget::is_stdout);
    let (mut found, mut failed) = (Vec::new(), 0_usize);
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
            match result.and_then(|done| work.write(&done, &mut exporters)) {
                Ok(one) => {
                    if !json_on_stdout {
                        bar.suspend(|| report(&one));
                    }
                    found.push(one);
                }
                // One bad image does not lose the others.
                Err(error) => {
                    failed += 1;
                    bar.suspend(|| {
                        eprintln!("error: {}", crate::hints::describe(&error));
                        if let Some(hint) = crate::hints::hint(&error) {
                            eprintln!("hint: {hint}");
                        }
                    });
                }
            }
            bar.inc(1);
            anyhow::Ok(())
        },
    )?;
    bar.finish_and_clear();
    for exporter in exporters {
        let shared = exporter.finish()?;
        let of_images = |path: &PathBuf| found.iter().any(|f| f.files.contains(path));
        for path in shared.iter().filter(|path| !of_images(path)) {
            if !json_on_stdout {
                println!("{}", path.display());
            }
        }
    }
    if let Some(json) = &settings.json {
        json.write(&serde_json::json!({ "images": found }))?;
    }
    anyhow::ensure!(
        failed == 0,
        "{failed} of {} images could not be segmented",
        inputs.len()
    );
    Ok(ExitCode::SUCCESS)
}

/// Opens the model and applies what the settings say about it.
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
        cache: settings.cache.folder(),
        templates,
    };
    let mut segmenter = Segmenter::load_with(&resolve_model(&settings.model)?, options)?;
    warn_of_dropped(segmenter.model());
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
fn read_classes(segmenter: &Segmenter, classes: &[ClassQuery]) -> anyhow::Result<EncodedClasses> {
    let bar = progress::bar(classes.len() as u64, "reading");
    let encoded = segmenter.encode_classes_with(
        classes,
        Some(&|done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }),
    );
    bar.finish_and_clear();
    encoded
}

/// A colour for each class: its own, or one that is easy to tell from the others.
fn palette(classes: &[ClassQuery]) -> Vec<[u8; 3]> {
    let free = distinct_palette(classes.len());
    classes
        .iter()
        .zip(free)
        .map(|(class, free)| class.colour.unwrap_or(free))
        .collect()
}

/// Whether an image is small enough to be worked on beside others; one whose size cannot be told is not.
fn is_small(input: &InputImage) -> bool {
    zeg::image::image_size(&input.path).is_ok_and(|(w, h)| w.saturating_mul(h) <= LARGE_IMAGE)
}

/// Everything that an image meets.
struct Work<'a> {
    settings: &'a SegmentSettings,
    segmenter: &'a Segmenter,
    encoded_classes: &'a EncodedClasses,
    classes: &'a Classes,
}

impl Work<'_> {
    /// Segments an image in one pass over its scores, whatever is wanted of them.
    fn segment<'a>(&self, job: SegmentJob<'a>) -> anyhow::Result<Done<'a>> {
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
        Ok(Done {
            job,
            image,
            result,
            scores: spool.map(ScoreSpool::finish).transpose()?,
            regions: explainer.map(Explainer::finish),
        })
    }

    /// Hands an image to all writers.
    fn write(&self, done: &Done, exporters: &mut [Box<dyn Exporter>]) -> anyhow::Result<Found> {
        let SegmentJob { input, stem } = done.job;
        let output = &self.settings.output;
        let labels = &done.result.labels;
        let palette: Vec<[u8; 3]> = (0..self.classes.len())
            .map(|label| self.classes.colour(label as u16))
            .collect();
        let painted = output
            .kinds
            .iter()
            .any(|kind| kind.needs == Needs::Overlay)
            .then(|| {
                overlay(
                    &done.image,
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
            confidence: Some(&done.result.confidence),
            probabilities: done.scores.as_ref().map(|s| s as &dyn ProbabilitySource),
            overlay: painted.as_ref(),
        };
        for exporter in exporters {
            exporter.add(&input)?;
        }
        if let Some(scores) = &done.scores {
            scores
                .check()
                .context("reading scores back from the temporary file")?;
        }
        let files = formats()
            .filter(|format| output.kinds.contains(format))
            .filter_map(|format| Some(image_file(&output.folder, stem, format.image_suffix?)))
            .collect();
        Ok(Found {
            summary: Summary {
                image: input.path.display().to_string(),
                ..summarize(&input, self.classes)?
            },
            files,
            regions: done.regions.clone(),
        })
    }
}

/// Says what was written for an image, and with `--explain` why.
fn report(found: &Found) {
    for file in &found.files {
        println!("{}", file.display());
    }
    for region in found.regions.iter().flatten() {
        let candidates: Vec<String> = region
            .candidates
            .iter()
            .map(|c| format!("{} {:.2}", c.class, c.score))
            .collect();
        let [x, y, width, height] = region.bounding_box;
        println!(
            "{}: {:>5.1} %  {} in {width}×{height}+{x}+{y}: {}",
            found.summary.image,
            100.0 * region.share,
            region.class.as_deref().unwrap_or("(no class)"),
            candidates.join(", ")
        );
    }
}

/// The PNG of an image in the output folder.
fn image_file(folder: &Path, stem: &Path, suffix: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(suffix);
    folder.join(name)
}

/// The name of each image's results, relative to the output folder. Images of one name are refused, as one would
/// overwrite the other, and so are results that would overwrite an image.
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
                "{}: its labels would overwrite it; choose another folder with -o",
                input.path.display()
            );
            if let Some(other) = taken.insert(stem.clone(), &input.path) {
                anyhow::bail!(
                    "{} and {} would both be written to {}",
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
