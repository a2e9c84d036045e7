//! Exports a mini world to files in VOC's layout, with a description that makes the folder a data set like any other.
//!
//! ```text
//! mini-world.toml                         the description, with the settings as comments
//! JPEGImages/train-000000.jpg             quality 95
//! SegmentationClass/train-000000.png      0 for ignored pixels, n for class n − 1
//! ImageSets/Segmentation/train.txt        written last: a part that has its list is complete
//! ```
//!
//! The description is written first and states exactly what is exported. A folder with the same description holds an
//! earlier, unfinished export, which is continued; any other existing file at one of the paths is an error and is not
//! changed.

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use image::codecs::jpeg::JpegEncoder;
use rayon::prelude::*;
use zeg_base::file::{self, NewFile, Overwrite};
use zeg_image::{IGNORE_LABEL, LabelMap, RgbImage, voc_palette, write_indexed_png};

use super::{NAME, Part, World, WorldError};
use crate::prepare::Progress;

/// File name of the description.
pub const DESCRIPTION: &str = "mini-world.toml";

const IMAGES: &str = "JPEGImages";
const LABELS: &str = "SegmentationClass";
const LISTS: &str = "ImageSets/Segmentation";
/// Quality of the images, 1..=100.
const JPEG_QUALITY: u8 = 95;
/// Largest number of images of a part: as many as ids of six digits can count.
const MAX_COUNT: usize = 1_000_000;

/// Number of images of each part to write; a part without images is left out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counts {
    /// Number of images of [`Part::Train`].
    pub train: usize,
    /// Number of images of [`Part::Val`].
    pub val: usize,
}

impl Counts {
    fn parts(self) -> impl Iterator<Item = (Part, usize)> {
        let parts = [(Part::Train, self.train), (Part::Val, self.val)];
        parts.into_iter().filter(|(_, count)| *count > 0)
    }

    fn check(self) -> Result<(), WorldError> {
        let legal = "at most 1000000 images per part, and at least one image in all";
        let fits = self.parts().all(|(_, count)| count <= MAX_COUNT);
        if fits && self.parts().next().is_some() {
            return Ok(());
        }
        Err(WorldError::Setting {
            setting: "counts",
            value: format!("train {}, val {}", self.train, self.val),
            legal,
        })
    }
}

/// The outcome of an export.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exported {
    /// Path of the description, which `zeg train` and `zeg eval` accept as a data set.
    pub description: PathBuf,
    /// Number of images that were written, each with its label map.
    pub written: usize,
    /// Number of images that already existed from an earlier export.
    pub skipped: usize,
    /// Whether `progress` stopped the export; the lists are not written then.
    pub stopped: bool,
}

/// An image to write, with the paths of its files.
struct SampleTask {
    part: Part,
    index: u64,
    image: PathBuf,
    labels: PathBuf,
}

impl World {
    /// Writes the first images of training and validation to `folder`, which is created.
    ///
    /// - `threads`: number of threads; 0 means one per core
    /// - `progress`: called from all threads, once per image; when it returns [`ControlFlow::Break`], no further images
    ///   are started
    ///
    /// # Errors
    /// Returns [`WorldError::Setting`] if the counts are out of range; [`WorldError::Occupied`], before anything is
    /// written, if another file would be replaced; [`WorldError::Threads`] if the threads cannot be started; and
    /// [`WorldError::Unwritable`] or [`WorldError::Image`] if a file cannot be written.
    pub fn export(
        &self,
        folder: &Path,
        counts: Counts,
        threads: usize,
        progress: &(dyn Fn(Progress) -> ControlFlow<()> + Sync),
    ) -> Result<Exported, WorldError> {
        counts.check()?;
        let tasks: Vec<SampleTask> = counts
            .parts()
            .flat_map(|(part, count)| (0..count as u64).map(move |index| (part, index)))
            .map(|(part, index)| {
                let id = part.id(index);
                SampleTask {
                    part,
                    index,
                    image: folder.join(format!("{IMAGES}/{id}.jpg")),
                    labels: folder.join(format!("{LABELS}/{id}.png")),
                }
            })
            .collect();
        let lists: Vec<(PathBuf, String)> = counts
            .parts()
            .map(|(part, count)| (list_path(folder, part), list(part, count)))
            .collect();
        let description = folder.join(DESCRIPTION);
        self.begin(&description, counts, &tasks, &lists)?;
        for below in [IMAGES, LABELS, LISTS] {
            make_folder(&folder.join(below))?;
        }
        let pool = rayon::ThreadPoolBuilder::new()
            .num_threads(threads)
            .build()
            .map_err(|error| WorldError::Threads {
                reason: error.to_string(),
            })?;
        let (done, written) = (AtomicUsize::new(0), AtomicUsize::new(0));
        let stopped = AtomicBool::new(false);
        let work = |task: &SampleTask| -> Result<(), WorldError> {
            if stopped.load(Ordering::Relaxed) {
                return Ok(());
            }
            if self.write_sample(task)? {
                written.fetch_add(1, Ordering::Relaxed);
            }
            let now = Progress {
                done: done.fetch_add(1, Ordering::Relaxed) + 1,
                total: tasks.len(),
            };
            if progress(now).is_break() {
                stopped.store(true, Ordering::Relaxed);
            }
            Ok(())
        };
        pool.install(|| tasks.par_iter().try_for_each(work))?;
        let (done, written) = (done.into_inner(), written.into_inner());
        // If `progress` breaks at the last image, the export is complete nevertheless.
        let stopped = done < tasks.len();
        if !stopped {
            for (path, text) in &lists {
                write_text(path, text)?;
            }
        }
        Ok(Exported {
            description,
            written,
            skipped: done - written,
            stopped,
        })
    }

    /// Writes the description unless it exists; returns an error if other files of the folder would be replaced.
    fn begin(
        &self,
        description: &Path,
        counts: Counts,
        tasks: &[SampleTask],
        lists: &[(PathBuf, String)],
    ) -> Result<(), WorldError> {
        let text = self.describe(counts);
        if fs::read(description).is_ok_and(|there| there == text.as_bytes()) {
            return Ok(());
        }
        let image_files = tasks
            .iter()
            .flat_map(|task| [task.image.as_path(), &task.labels]);
        let lists = lists.iter().map(|(path, _)| path.as_path());
        for path in std::iter::once(description).chain(image_files).chain(lists) {
            // A broken link counts as an existing file, too.
            if fs::symlink_metadata(path).is_ok() {
                return Err(WorldError::Occupied { path: path.into() });
            }
        }
        if let Some(folder) = description.parent() {
            make_folder(folder)?;
        }
        write_text(description, &text)
    }

    /// Returns the description in the form that [`folder`](crate::folder) reads, with the settings as comments.
    fn describe(&self, counts: Counts) -> String {
        let quoted = |names: &[String]| {
            let names = names.iter().map(|name| format!("  {name:?},\n"));
            names.collect::<String>()
        };
        let settings = toml::to_string(&self.config).unwrap_or_default();
        let settings: Vec<&str> = settings.lines().collect();
        let settings = settings.join("\n#   ");
        let (seen, unseen) = self.classes.classes.split_at(super::SEEN);
        let mut text = format!(
            "# A mini world: {} images for training and {} for validation, made by zeg {} from these settings.\n\
             #\n#   {settings}\n\n\
             name = \"{NAME}\"\n\
             title = \"Mini world\"\n\
             images = \"{IMAGES}/{{id}}.jpg\"\n\
             labels = \"{LABELS}/{{id}}.png\"\n\
             kind = \"index\"\n\
             zero-is = \"ignore\"\n\
             classes = [\n{}{}]\n\
             unseen = [\n{}]\n\n\
             [splits]\n",
            counts.train,
            counts.val,
            env!("CARGO_PKG_VERSION"),
            quoted(seen),
            quoted(unseen),
            quoted(unseen),
        );
        for (part, _) in counts.parts() {
            // Writing to a `String` cannot fail.
            let _ = writeln!(text, "{part} = \"{LISTS}/{part}.txt\"");
        }
        text
    }

    /// Writes an image and its label map; returns `false` if both already exist.
    fn write_sample(&self, task: &SampleTask) -> Result<bool, WorldError> {
        if task.image.is_file() && task.labels.is_file() {
            return Ok(false);
        }
        let sample = self.sample(task.part, task.index);
        // The label map is written first, so that every image that exists has its label map.
        write_indexed_png(&task.labels, &stored(&sample.labels)?, &voc_palette(255))?;
        write_jpeg(&task.image, &sample.image)?;
        Ok(true)
    }
}

/// Converts class indices to the values of the files: 0 for ignored pixels, `n` for class `n − 1`.
fn stored(labels: &LabelMap) -> Result<LabelMap, WorldError> {
    let values = labels.labels().iter().map(|&label| match label {
        IGNORE_LABEL => 0,
        class => class + 1,
    });
    let values = values.collect();
    Ok(LabelMap::new(labels.width(), labels.height(), values)?)
}

fn list_path(folder: &Path, part: Part) -> PathBuf {
    folder.join(format!("{LISTS}/{part}.txt"))
}

fn list(part: Part, count: usize) -> String {
    let ids = (0..count as u64).map(|index| part.id(index) + "\n");
    ids.collect()
}

fn make_folder(folder: &Path) -> Result<(), WorldError> {
    fs::create_dir_all(folder).map_err(|source| unwritable(folder, source))
}

/// Writes a text file unless it already holds the same text; returns an error if it holds another text.
fn write_text(path: &Path, text: &str) -> Result<(), WorldError> {
    if fs::read(path).is_ok_and(|there| there == text.as_bytes()) {
        return Ok(());
    }
    file::write(path, text, Overwrite::Refuse).map_err(|source| match source.kind() {
        io::ErrorKind::AlreadyExists => WorldError::Occupied { path: path.into() },
        _ => unwritable(path, source),
    })
}

fn write_jpeg(path: &Path, image: &RgbImage) -> Result<(), WorldError> {
    let write = || -> io::Result<()> {
        let mut file = NewFile::create(path, Overwrite::Replace)?;
        let mut encoder = JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY);
        encoder.encode_image(image).map_err(io::Error::other)?;
        file.finish()
    };
    write().map_err(|source| unwritable(path, source))
}

fn unwritable(path: &Path, source: io::Error) -> WorldError {
    WorldError::Unwritable {
        path: path.into(),
        source,
    }
}
