//! The work on one image: it is segmented, or read back from the journal, and passed to all writers.

use std::{
    path::{Path, PathBuf},
    sync::atomic::AtomicBool,
};

use anyhow::Context as _;
use zeg::{
    EncodedClasses, Segmenter,
    explain::Explanation,
    export::{
        Classes, ExportError, Needs, Overwrite, ProbabilitySource, SegmentedImage, StoredImage,
        Summary,
    },
    image::{
        DecodedImage, LabelMap, OVERLAY_BYTES, RgbImage, UnusedBits, inputs::InputImage, overlay,
    },
    readings::{Read, ReadingOptions, Readings},
    spool::SpooledScores,
};
use zeg_base::{memory, paths::path_text};

use super::{
    args::SegmentSettings,
    finished::{Finished, FinishedImage, Plan, exists, own_files},
    inputs::Input,
    on_ranks::Written,
    outputs::Writers,
    result::ImageResult,
};

/// An image to segment.
#[derive(Clone, Copy)]
pub(super) struct SegmentJob<'a> {
    pub(super) input: &'a Input,
    /// Path of its results without an extension, relative to the output folder.
    pub(super) stem: &'a Path,
    pub(super) plan: Plan,
}

/// An image with its labels, before its files are written.
pub(super) struct LabelledJob<'a> {
    job: SegmentJob<'a>,
    /// The image, if a writer needs it.
    image: Option<RgbImage>,
    labels: LabelMap,
    origin: Origin,
}

/// Where the labels of an image come from.
enum Origin {
    /// The model.
    Model(Box<Segmented>),
    /// The journal of an earlier run.
    Journal(Box<FinishedImage>),
}

/// What the model gives beside the labels.
struct Segmented {
    /// SHA-256 of the image.
    source: Option<String>,
    /// Whether all classes have the same score at every pixel.
    tied: bool,
    /// One value per pixel, row-major.
    confidence: Vec<f32>,
    scores: Option<SpooledScores>,
    regions: Option<Vec<Explanation>>,
}

/// A failure of writing the results of an image.
#[derive(Debug)]
pub(super) enum WriteFailure {
    /// Only this image has no results.
    OfImage(anyhow::Error),
    /// No further results can be written; what is finished is kept.
    OfWork(anyhow::Error),
}

/// The parts that segment and write an image.
pub(super) struct Work<'a> {
    pub(super) settings: &'a SegmentSettings,
    pub(super) segmenter: &'a Segmenter,
    pub(super) encoded_classes: &'a EncodedClasses,
    pub(super) classes: &'a Classes,
}

impl Work<'_> {
    /// Segments an image, or reads its labels from the journal if it is finished.
    pub(super) fn label<'a>(
        &self,
        job: SegmentJob<'a>,
        finished: &Finished,
    ) -> anyhow::Result<LabelledJob<'a>> {
        match job.plan {
            Plan::Keep(span) => {
                let result = finished.read(span)?;
                self.of_result(job, result)
            }
            Plan::Compute(_) => self.segment(job),
        }
    }

    /// Returns an image whose own files are written already.
    pub(super) fn of_result<'a>(
        &self,
        job: SegmentJob<'a>,
        result: FinishedImage,
    ) -> anyhow::Result<LabelledJob<'a>> {
        // The web page shows every image with its colours.
        let mut kinds = self.settings.output.kinds.iter();
        let is_shown = kinds.any(|kind| kind.needs == Needs::Overlay && kind.is_shared());
        let image = is_shown.then(|| job.input.decode()).transpose()?;
        let image = image.map(|image| image.rgb);
        if let Some(image) = &image {
            self.check_overlay(job.input, image)?;
        }
        Ok(LabelledJob {
            job,
            image,
            labels: result.stored.labels.to_map()?,
            origin: Origin::Journal(Box::new(result)),
        })
    }

    /// Segments an image; every output that needs its scores reads them in the same pass.
    pub(super) fn segment<'a>(&self, job: SegmentJob<'a>) -> anyhow::Result<LabelledJob<'a>> {
        // A file that changes from now on has another digest than the one that is kept.
        let source = job.input.digest();
        let DecodedImage {
            rgb: image,
            unused_bits,
            frames,
        } = job.input.decode()?;
        warn_of_unused_bits(&job.input.image, unused_bits);
        warn_of_frames(&job.input.image, frames);
        self.check_overlay(job.input, &image)?;
        let [height, width] = [image.height() as usize, image.width() as usize];
        let kinds = &self.settings.output.kinds;
        let options = ReadingOptions {
            keeps_scores: kinds.iter().any(|kind| kind.needs == Needs::Scores),
            explain: self.settings.explain,
            absorbed_area: self.settings.output.absorbed_area,
        };
        let names = self.encoded_classes.names();
        let mut readings = Readings::new(&names, [height, width], options)?;
        let mut result = self
            .segmenter
            .segment_classes(&image, self.encoded_classes, &mut readings.visitors())
            .with_context(|| job.input.image.path.display().to_string())?;
        let Read { scores, regions } =
            readings.finish(&mut result.labels, &AtomicBool::new(false))?;
        Ok(LabelledJob {
            job,
            image: Some(image),
            labels: result.labels,
            origin: Origin::Model(Box::new(Segmented {
                source,
                tied: result.tied,
                confidence: result.confidence,
                scores,
                regions,
            })),
        })
    }

    /// Passes an image to all writers.
    pub(super) fn write(
        &self,
        labelled: &LabelledJob,
        writers: &mut Writers,
        finished: &Finished,
    ) -> Result<ImageResult, WriteFailure> {
        let overlay_image = self.overlay(labelled);
        let plain = plain(labelled, overlay_image.as_ref());
        match &labelled.origin {
            Origin::Journal(result) => self.add_shared(labelled, result, &plain, writers),
            Origin::Model(segmented) => {
                let written =
                    self.write_model(labelled, segmented, &plain, writers, Some(finished))?;
                self.add_shared(labelled, &written.result, &plain, writers)
            }
        }
    }

    /// Writes the files that an image has for itself.
    ///
    /// - `finished`: the journal that keeps its result; another one of several ranks has it if this is `None`
    pub(super) fn write_own(
        &self,
        labelled: &LabelledJob,
        writers: &mut Writers,
        finished: Option<&Finished>,
    ) -> Result<Written, WriteFailure> {
        let overlay_image = self.overlay(labelled);
        let plain = plain(labelled, overlay_image.as_ref());
        let Origin::Model(segmented) = &labelled.origin else {
            let path = labelled.job.input.image.path.display();
            let error = anyhow::anyhow!("{path}: the image is not segmented");
            return Err(WriteFailure::OfImage(error));
        };
        self.write_model(labelled, segmented, &plain, writers, finished)
    }

    /// Passes an image whose own files are written to the writers of the files that all images share.
    pub(super) fn write_shared(
        &self,
        labelled: &LabelledJob,
        writers: &mut Writers,
    ) -> Result<ImageResult, WriteFailure> {
        let overlay_image = self.overlay(labelled);
        let plain = plain(labelled, overlay_image.as_ref());
        let Origin::Journal(result) = &labelled.origin else {
            let path = labelled.job.input.image.path.display();
            let error = anyhow::anyhow!("{path}: the files of the image are not written");
            return Err(WriteFailure::OfImage(error));
        };
        self.add_shared(labelled, result, &plain, writers)
    }

    fn add_shared(
        &self,
        labelled: &LabelledJob,
        result: &FinishedImage,
        plain: &SegmentedImage,
        writers: &mut Writers,
    ) -> Result<ImageResult, WriteFailure> {
        let shared = SegmentedImage {
            stored: Some(&result.stored),
            ..*plain
        };
        for exporter in &mut writers.shared {
            exporter.add(&shared).map_err(of_shared)?;
        }
        Ok(self.result(labelled, result))
    }

    /// Returns the paths of the files that an image has for itself.
    pub(super) fn own_files(&self, job: &SegmentJob) -> Vec<PathBuf> {
        let output = &self.settings.output;
        own_files(&output.kinds, &output.folder, job.stem, self.classes.len())
    }

    /// Writes the files that an image has for itself, and keeps its result in the journal, if this process has it.
    fn write_model(
        &self,
        labelled: &LabelledJob,
        segmented: &Segmented,
        plain: &SegmentedImage,
        writers: &mut Writers,
        finished: Option<&Finished>,
    ) -> Result<Written, WriteFailure> {
        let output = &self.settings.output;
        let SegmentJob { input, stem, plan } = labelled.job;
        let image = SegmentedImage {
            confidence: Some(&segmented.confidence),
            probabilities: segmented
                .scores
                .as_ref()
                .map(|s| s as &dyn ProbabilitySource),
            ..*plain
        };
        let stored = StoredImage::of(&image, self.classes, output.minimal_area);
        let result = FinishedImage {
            stored: stored.map_err(of_image)?,
            regions: segmented.regions.clone(),
            tied: segmented.tied,
        };
        let own = self.own_files(&labelled.job);
        // Somebody may have made a file of this name in the meantime.
        if plan == Plan::Compute(Overwrite::Refuse)
            && let Some(path) = own.iter().find(|path| exists(path))
        {
            return Err(of_image(ExportError::Exists { path: path.clone() }));
        }
        if let Some(finished) = finished {
            let begun = finished.begin_image(input, stem, &own);
            begun.map_err(WriteFailure::OfWork)?;
        }
        for exporter in &mut writers.own {
            exporter.add(&image).map_err(of_image)?;
        }
        if let Some(scores) = &segmented.scores {
            let read = scores.check();
            read.context("reading scores back from the temporary file")
                .map_err(WriteFailure::OfImage)?;
        }
        let source = segmented.source.clone().unwrap_or_default();
        if let Some(finished) = finished {
            let kept = finished.finish_image(input, stem, source.clone(), &own, &result);
            kept.map_err(WriteFailure::OfWork)?;
            if plan == Plan::Compute(Overwrite::Replace) {
                finished.remove_stale(&output.kinds, stem, &own);
            }
        }
        Ok(Written {
            result,
            source,
            files: own.into_iter().filter(|path| exists(path)).collect(),
        })
    }

    /// Whether a writer needs the image with colours.
    fn draws_overlays(&self) -> bool {
        let mut kinds = self.settings.output.kinds.iter();
        kinds.any(|kind| kind.needs == Needs::Overlay)
    }

    /// Checks that the overlay of an image can be held in memory beside its labels, before either is computed.
    fn check_overlay(&self, input: &Input, image: &RgbImage) -> anyhow::Result<()> {
        if !self.draws_overlays() {
            return Ok(());
        }
        let [width, height] = [image.width() as usize, image.height() as usize];
        let needed = memory::product(&[width, height, OVERLAY_BYTES + size_of::<u16>()]);
        memory::check(needed).with_context(|| {
            let path = input.image.path.display();
            format!("{path}: drawing the overlay of {width}×{height} pixels")
        })
    }

    /// Draws the classes over an image, if a writer needs that.
    fn overlay(&self, labelled: &LabelledJob) -> Option<RgbImage> {
        let output = &self.settings.output;
        let image = labelled.image.as_ref().filter(|_| self.draws_overlays())?;
        let palette = palette(self.classes);
        let names = self.classes.names();
        Some(overlay(
            image,
            &labelled.labels,
            names,
            &palette,
            output.opacity,
        ))
    }

    /// Returns the result of an image as `--json` lists it.
    fn result(&self, labelled: &LabelledJob, result: &FinishedImage) -> ImageResult {
        let own = self.own_files(&labelled.job);
        ImageResult {
            summary: Summary {
                image: path_text(&labelled.job.input.image.relative),
                ..result.stored.summary.clone()
            },
            files: own,
            tied: result.tied,
            regions: result.regions.clone(),
        }
    }

    /// Returns the result of an image whose files are not written, with its labels.
    pub(super) fn unwritten(&self, labelled: &LabelledJob) -> anyhow::Result<FinishedImage> {
        let relative = &labelled.job.input.image.relative;
        let plain = SegmentedImage::new(relative, &labelled.labels);
        let Origin::Model(segmented) = &labelled.origin else {
            anyhow::bail!("{}: the image is not segmented", relative.display());
        };
        let image = SegmentedImage {
            confidence: Some(&segmented.confidence),
            ..plain
        };
        let area = self.settings.output.minimal_area;
        Ok(FinishedImage {
            stored: StoredImage::of(&image, self.classes, area)?,
            regions: segmented.regions.clone(),
            tied: segmented.tied,
        })
    }
}

/// Returns what all writers get of an image.
fn plain<'a>(labelled: &'a LabelledJob, overlay: Option<&'a RgbImage>) -> SegmentedImage<'a> {
    SegmentedImage {
        stem: labelled.job.stem,
        overlay,
        ..SegmentedImage::new(&labelled.job.input.image.relative, &labelled.labels)
    }
}

impl LabelledJob<'_> {
    pub(super) fn labels(&self) -> &LabelMap {
        &self.labels
    }
}

/// Returns the colour of every class.
pub(super) fn palette(classes: &Classes) -> Vec<[u8; 3]> {
    let labels = 0..classes.len();
    labels.map(|label| classes.colour(label as u16)).collect()
}

/// Returns the failure of a file of one image: without room or permission, no other image can be written either.
fn of_image(error: ExportError) -> WriteFailure {
    use std::io::ErrorKind::{PermissionDenied, QuotaExceeded, ReadOnlyFilesystem, StorageFull};
    let is_output = matches!(error, ExportError::Unwritable { .. });
    let error = anyhow::Error::new(error);
    let kinds = [
        PermissionDenied,
        QuotaExceeded,
        ReadOnlyFilesystem,
        StorageFull,
    ];
    // The error of the system may be the cause of one of the encoder.
    let concerns_all = error.chain().any(|cause| {
        let system = cause.downcast_ref::<std::io::Error>();
        system.is_some_and(|error| kinds.contains(&error.kind()))
    });
    if is_output && concerns_all {
        WriteFailure::OfWork(error)
    } else {
        WriteFailure::OfImage(error)
    }
}

/// Returns the failure of a shared file: a file that is not written to its end lacks a part of every later image.
fn of_shared(error: ExportError) -> WriteFailure {
    match error {
        ExportError::Unwritable { .. } => WriteFailure::OfWork(error.into()),
        other => WriteFailure::OfImage(other.into()),
    }
}

/// Prints a warning for an image that is read nearly black because its file uses only the lower of 16 bits.
fn warn_of_unused_bits(input: &InputImage, unused_bits: Option<UnusedBits>) {
    if let Some(bits) = unused_bits {
        print_notice!(
            "warning: {}: {bits}; multiply the values by {} first, for instance with ImageMagick: \
             `magick IN -evaluate multiply {} OUT`",
            input.path.display(),
            bits.factor(),
            bits.factor()
        );
    }
}

/// Prints a warning for a file of several pages or frames, of which the first is read.
fn warn_of_frames(input: &InputImage, frames: Option<usize>) {
    if let Some(frames) = frames {
        print_notice!(
            "warning: {}: only the first of {frames} pages or frames is segmented; save the others as files of \
             their own to segment them",
            input.path.display()
        );
    }
}
