//! Carries out a plan: all tasks on all threads, each file written completely or not at all.

use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use image::ExtendedColorType;
use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;
use serde::Serialize;
use zeg_base::file::{NewFile, Overwrite};
use zeg_image::{
    LabelMap, RgbImage, decode_rgb, image_size, resize_bilinear, resize_nearest, voc_palette,
    write_indexed_png,
};

use super::labels::{Form, Rule};
use super::own;
use super::place::{self, Guard, Placed};
use super::plan::{LabelSize, Plan, SplitImages, Task, Work};
use super::{ImagePlacement, JPEG_QUALITY, OnBad, PrepareError, PrepareOptions};

/// Progress of a conversion.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Number of files that are finished, including skipped and failed ones.
    pub done: usize,
    /// Number of all files of the conversion.
    pub total: usize,
}

/// A file that could not be converted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Failure {
    /// The file that was to be made, relative to the result's folder.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    pub file: PathBuf,
    /// What was wrong, with the file of the download.
    pub reason: String,
}

/// The outcome of a conversion.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Summary {
    /// The data set's name.
    pub dataset: &'static str,
    /// Number of files that were converted.
    pub converted: usize,
    /// Number of files that were linked to the download.
    pub linked: usize,
    /// Number of files that were copied from the download.
    pub copied: usize,
    /// Number of files that already existed.
    pub skipped: usize,
    /// Number of lists of ids that were written.
    pub lists: usize,
    /// Files that could not be made, sorted by name.
    pub failed: Vec<Failure>,
    /// Number of images of each split, here and as published. Failed files are not subtracted.
    pub splits: Vec<SplitImages>,
    /// Whether `progress` stopped the conversion; the lists are not written then.
    pub stopped: bool,
    /// Duration in seconds.
    pub seconds: f64,
}

impl Plan {
    /// Carries out the plan in the folder `to`, which is created.
    ///
    /// Files that exist and are not older than their source are left alone, so the conversion can be repeated, and it
    /// continues after an interruption. `to` may be the download's folder or lie in it, as long as no file of the
    /// download is replaced. A file that no conversion of this source made is not replaced either.
    ///
    /// `progress` is called from all threads, once per file; when it returns [`ControlFlow::Break`], the files being
    /// made are finished and no further ones are started.
    ///
    /// # Errors
    /// Returns [`PrepareError::WouldReplaceSource`] or [`PrepareError::Occupied`] before anything is written, if a file
    /// of the download or another file would be replaced; [`PrepareError::Threads`] if the threads cannot be started;
    /// an error if a file cannot be written; [`PrepareError::Unreadable`] or [`PrepareError::Json`] if the file of all
    /// annotations cannot be read; and with [`OnBad::Stop`] the error of the first file that cannot be converted.
    pub fn run(
        &self,
        to: &Path,
        options: &PrepareOptions,
        progress: &(dyn Fn(Progress) -> ControlFlow<()> + Sync),
    ) -> Result<Summary, PrepareError> {
        let begin = Instant::now();
        self.check_nothing_is_replaced(to, options)?;
        self.make_folders(to)?;
        let runner = Runner {
            to,
            options,
            progress,
            total: self.files(),
            done: AtomicUsize::new(0),
            stopped: AtomicBool::new(false),
            tally: Mutex::new(Tally::default()),
        };
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(options.threads)
            .build()
            .map_err(|error| PrepareError::Threads {
                reason: error.to_string(),
            })?;
        pool.install(|| {
            self.tasks
                .par_iter()
                .try_for_each(|task| runner.file(&task.to, |path| do_task(task, path, options)))?;
            match &self.detail {
                Some(detail) => detail.run(&runner),
                None => Ok(()),
            }
        })?;
        let stopped = runner.is_stopped();
        let mut tally = runner.tally.into_inner().unwrap_or_default();
        tally.failed.sort_by(|a, b| a.file.cmp(&b.file));
        let mut lists = 0;
        if !stopped {
            for list in &self.lists {
                lists += usize::from(place::write_list(&to.join(&list.to), &list.ids)?);
            }
        }
        Ok(Summary {
            dataset: self.name(),
            converted: tally.converted,
            linked: tally.linked,
            copied: tally.copied,
            skipped: tally.skipped,
            lists,
            failed: tally.failed,
            splits: self.splits.clone(),
            stopped,
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// Checks all files before the first one is written.
    fn check_nothing_is_replaced(
        &self,
        to: &Path,
        options: &PrepareOptions,
    ) -> Result<(), PrepareError> {
        let mut guard = Guard::new(&self.from)?;
        for task in &self.tasks {
            let path = to.join(&task.to);
            let from = task.from();
            let is_there = match &task.work {
                Work::Place { .. } => place::is_placed(&path, from, options.images),
                Work::Labels { rule, .. } if rule.keeps_values() => {
                    place::is_placed(&path, from, options.images)
                        || place::is_converted(&path, from)
                }
                Work::Labels { .. } => {
                    place::is_converted(&path, from) && !place::is_same_file(&path, from)
                }
                Work::Image { .. } => {
                    place::is_placed(&path, from, options.images)
                        || place::is_converted(&path, from)
                }
            };
            let is_own = |path: &Path| own::is_own(path, task, options.images);
            check_place(&mut guard, path, is_there, is_own)?;
        }
        for image in self.detail.iter().flat_map(|detail| &detail.images) {
            let path = to.join(&image.to);
            let is_made = image.is_made(&path);
            let is_own =
                |path: &Path| own::is_free(path) || own::is_label_map(path, &image.image_path);
            check_place(&mut guard, path, is_made, is_own)?;
        }
        for list in &self.lists {
            let path = to.join(&list.to);
            let same = fs::read_to_string(&path).is_ok_and(|text| text.lines().eq(&list.ids));
            check_place(&mut guard, path, same, |path| same || own::is_free(path))?;
        }
        Ok(())
    }

    fn make_folders(&self, to: &Path) -> Result<(), PrepareError> {
        let files = self.tasks.iter().map(|task| &task.to);
        let images = self.detail.iter().flat_map(|detail| &detail.images);
        let files = files.chain(images.map(|image| &image.to));
        let files = files.chain(self.lists.iter().map(|list| &list.to));
        let folders: std::collections::BTreeSet<&Path> =
            files.filter_map(|file| file.parent()).collect();
        for folder in folders {
            let folder = to.join(folder);
            fs::create_dir_all(&folder)
                .map_err(|source| PrepareError::unwritable(&folder, source))?;
        }
        Ok(())
    }
}

/// Checks that a file of the result replaces neither one of the download nor one of the user.
///
/// - `is_there`: whether the file that exists is kept
/// - `is_own`: whether the path is free, or holds a file of an earlier conversion
fn check_place(
    guard: &mut Guard,
    path: PathBuf,
    is_there: bool,
    is_own: impl Fn(&Path) -> bool,
) -> Result<(), PrepareError> {
    match guard.check(&path) {
        Err(error) if !is_there => Err(error),
        Err(_) => Ok(()), // a file of the download that is used as it is
        Ok(()) if is_own(&path) => Ok(()),
        Ok(()) => Err(PrepareError::Occupied { path }),
    }
}

/// What was done for a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outcome {
    Converted,
    Linked,
    Copied,
    Skipped,
}

impl From<Placed> for Outcome {
    fn from(placed: Placed) -> Self {
        match placed {
            Placed::Linked => Self::Linked,
            Placed::Copied => Self::Copied,
        }
    }
}

#[derive(Debug, Default)]
struct Tally {
    converted: usize,
    linked: usize,
    copied: usize,
    skipped: usize,
    failed: Vec<Failure>,
}

/// State that all threads of a conversion share.
pub(crate) struct Runner<'a> {
    to: &'a Path,
    options: &'a PrepareOptions,
    progress: &'a (dyn Fn(Progress) -> ControlFlow<()> + Sync),
    total: usize,
    done: AtomicUsize,
    stopped: AtomicBool,
    tally: Mutex<Tally>,
}

impl Runner<'_> {
    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Relaxed)
    }

    /// Returns the full path of a file of the result.
    pub(crate) fn path(&self, file: &Path) -> PathBuf {
        self.to.join(file)
    }

    /// Makes one file with `make`, which gets its full path; does nothing after the conversion was stopped.
    pub(crate) fn file(
        &self,
        file: &Path,
        make: impl FnOnce(&Path) -> Result<Outcome, PrepareError>,
    ) -> Result<(), PrepareError> {
        if self.is_stopped() {
            return Ok(());
        }
        let outcome = make(&self.path(file));
        if let Ok(mut tally) = self.tally.lock() {
            match outcome {
                Ok(Outcome::Converted) => tally.converted += 1,
                Ok(Outcome::Linked) => tally.linked += 1,
                Ok(Outcome::Copied) => tally.copied += 1,
                Ok(Outcome::Skipped) => tally.skipped += 1,
                Err(error) if self.options.on_bad == OnBad::Stop || error.is_of_the_disk() => {
                    return Err(error);
                }
                Err(error) => tally.failed.push(Failure {
                    file: file.into(),
                    reason: error.to_string(),
                }),
            }
        }
        let progress = Progress {
            done: self.done.fetch_add(1, Ordering::Relaxed) + 1,
            total: self.total,
        };
        if (self.progress)(progress).is_break() {
            self.stopped.store(true, Ordering::Relaxed);
        }
        Ok(())
    }
}

fn do_task(task: &Task, to: &Path, options: &PrepareOptions) -> Result<Outcome, PrepareError> {
    match &task.work {
        Work::Place { from } => place_unless_there(to, from, options.images),
        Work::Image { from } => shrink_image(to, from, options),
        Work::Labels {
            from,
            form,
            rule,
            image,
            size,
        } => convert_labels(to, (from, *form), rule, (image, *size), options),
    }
}

fn place_unless_there(
    to: &Path,
    from: &Path,
    files: ImagePlacement,
) -> Result<Outcome, PrepareError> {
    if place::is_placed(to, from, files) {
        return Ok(Outcome::Skipped);
    }
    Ok(place::place(to, from, files)?.into())
}

fn convert_labels(
    to: &Path,
    (from, form): (&Path, Form),
    rule: &Rule,
    (image_path, size): (&Path, LabelSize),
    options: &PrepareOptions,
) -> Result<Outcome, PrepareError> {
    let keeps = rule.keeps_values() && size == LabelSize::Own;
    // A file that is its own source exists, but its values have not been checked.
    let in_place = place::is_in_place(to, from);
    let is_made = !in_place
        && (place::is_converted(to, from) || keeps && place::is_placed(to, from, options.images));
    if is_made && size == LabelSize::Own {
        return Ok(Outcome::Skipped);
    }
    let image_size = zeg_image::image_size(image_path)?;
    let (width, height) = match size {
        LabelSize::Own => image_size,
        LabelSize::Shrunk => shrunk_size(image_size, options.shrink),
    };
    if is_made && zeg_image::image_size(to).is_ok_and(|made| made == (width, height)) {
        return Ok(Outcome::Skipped);
    }
    let raw = form.read(from)?;
    check_size(image_path, image_size, from, &raw.map)?;
    let is_index_file = raw.is_index_file;
    let mut labels = rule.apply(raw.map, from)?;
    if keeps && is_index_file {
        return place_unless_there(to, from, options.images);
    }
    if in_place {
        return Err(PrepareError::WouldReplaceSource {
            path: to.into(),
            from: from.parent().unwrap_or(from).into(),
        });
    }
    labels = resize_nearest(&labels, width, height); // changes nothing if this is already its size
    write_indexed_png(to, &labels, &voc_palette(rule.classes()))?;
    Ok(Outcome::Converted)
}

/// Checks that a label map has the size of its image.
///
/// A label map of another size is rotated, or belongs to another image or to another version of it.
pub(crate) fn check_size(
    image_path: &Path,
    image_size: (usize, usize),
    file: &Path,
    labels: &LabelMap,
) -> Result<(), PrepareError> {
    let label_size = (labels.width(), labels.height());
    if label_size == image_size {
        return Ok(());
    }
    Err(PrepareError::SizeMismatch {
        image: image_path.into(),
        image_size,
        labels: file.into(),
        label_size,
    })
}

/// Returns the size that MaskFormer's preparation gives an image: the shorter side is at most `limit`, and the other
/// is rounded as in Python, halves to the even number.
pub(super) fn shrunk_size((width, height): (usize, usize), limit: Option<usize>) -> (usize, usize) {
    let Some(limit) = limit.filter(|&limit| limit > 0 && width.min(height) > limit) else {
        return (width, height);
    };
    let scaled = |long: usize, short: usize| {
        (long as f64 / short as f64 * limit as f64).round_ties_even() as usize
    };
    if width >= height {
        (scaled(width, height), limit)
    } else {
        (limit, scaled(height, width))
    }
}

fn shrink_image(to: &Path, from: &Path, options: &PrepareOptions) -> Result<Outcome, PrepareError> {
    let size = image_size(from)?;
    let target = shrunk_size(size, options.shrink);
    if size == target {
        // A shrunk image of an earlier conversion is replaced, because it is not the original.
        return place_unless_there(to, from, options.images);
    }
    if place::is_converted(to, from) && image_size(to).is_ok_and(|made| made == target) {
        return Ok(Outcome::Skipped);
    }
    let pixels = resize_bilinear(&decode_rgb(from)?, target.0, target.1);
    write_jpeg(to, &pixels).map_err(|source| PrepareError::unwritable(to, source))?;
    Ok(Outcome::Converted)
}

fn write_jpeg(to: &Path, pixels: &RgbImage) -> io::Result<()> {
    let mut file = NewFile::create(to, Overwrite::Replace)?;
    JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY)
        .encode(
            pixels.as_raw(),
            pixels.width(),
            pixels.height(),
            ExtendedColorType::Rgb8,
        )
        .map_err(io::Error::other)?;
    file.finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_those_of_the_published_preparation() {
        // Expected: Python's round(w / h * 512).
        assert_eq!(shrunk_size((2048, 1536), Some(512)), (683, 512));
        assert_eq!(shrunk_size((1536, 2048), Some(512)), (512, 683));
        assert_eq!(shrunk_size((1025, 1024), Some(512)), (512, 512)); // 512.5
        assert_eq!(shrunk_size((1027, 1024), Some(512)), (514, 512)); // 513.5
        assert_eq!(shrunk_size((683, 512), Some(512)), (683, 512));
        assert_eq!(shrunk_size((2048, 1536), None), (2048, 1536));
    }
}
