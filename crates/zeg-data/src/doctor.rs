//! The doctor examines every file of a split before a long training, and reports what is wrong and what to do.
//!
//! The costliest faults are those of data that load without an error: labels shifted by one, a border that became a
//! class, a list that holds test images. The doctor therefore reports unusual counts, too, and not only files that
//! cannot be read. A finding is an error (training or scores would fail or be wrong), a warning (suspicious) or a note
//! (good to know).
//!
//! Several threads read each file once. Memory holds one image per thread and 24 bytes per image of the split.

mod collector;
mod content;
mod finding;
mod label_file;
mod lists;
mod report;
mod shares;
#[cfg(feature = "tables")]
mod tables;

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::{fs, io};

use rayon::ThreadPoolBuilder;
use rayon::iter::{IntoParallelIterator, ParallelIterator};

pub use finding::{Code, Finding, Severity};
pub use report::{ClassCount, Diagnosis, Verdict};

use crate::selection::{Found, Selection, find};
use crate::{DataError, Dataset};
use collector::Collector;

/// Options of [`examine`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoctorOptions {
    /// Number of threads that read files, at least 1. The findings do not depend on it.
    pub threads: usize,
    /// Number of images whose contents are examined, from the start of the list; `None` means all. The lists and the
    /// existence of files are always checked for the whole split.
    pub limit: Option<usize>,
}

/// Examines a split and returns its findings and counts.
///
/// `progress` is called by several threads with the number of images that are done and the number of all images.
///
/// # Errors
/// Returns the errors of [`list`](crate::list) except [`DataError::DuplicateId`], [`DataError::SameId`], [`DataError::LeftOut`],
/// [`DataError::RawCocoLabels`] and [`DataError::UnconvertedLabels`], which become findings; [`DataError::Setting`] if `threads` is 0; and
/// [`DataError::Spawn`] if the threads cannot be started.
pub fn examine(
    selection: &Selection,
    options: &DoctorOptions,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<Diagnosis, DataError> {
    if options.threads == 0 {
        return Err(DataError::Setting {
            setting: "threads",
            value: "0".into(),
            legal: "at least 1",
        });
    }
    let found = find(selection)?;
    let subject = Subject::new(&found, selection);
    let collector = Collector::new(subject.dataset.classes.len());
    lists::examine(&subject, &collector);

    let total = subject.dataset.len();
    let limit = options.limit.unwrap_or(total).min(total);
    let done = AtomicUsize::new(0);
    let pool = ThreadPoolBuilder::new()
        .num_threads(options.threads.min(total.max(1)))
        .build()
        .map_err(|error| DataError::Spawn(io::Error::other(error)))?;
    pool.install(|| {
        (0..total).into_par_iter().for_each(|index| {
            if index < limit {
                content::examine(&subject, index, &collector);
            } else {
                content::examine_existence(&subject, index, &collector);
            }
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        });
    });
    let mut seen = collector.into_seen();
    shares::examine(&subject, limit, &mut seen);
    Ok(report::diagnosis(&subject, selection, limit, seen))
}

/// The split that is examined.
struct Subject<'a> {
    dataset: &'a Dataset,
    found: &'a Found,
    /// The folder relative to which messages name files.
    root: &'a Path,
    split: &'a str,
    /// The folder as the user gave it.
    given: &'a Path,
    /// Whether the label maps are those of the download, not converted. Missing label maps are then not reported again.
    unconverted: bool,
    /// For each folder with missing files: the names of its files by their lower-case form.
    folders: Mutex<HashMap<PathBuf, HashMap<String, String>>>,
}

impl<'a> Subject<'a> {
    fn new(found: &'a Found, selection: &Selection<'a>) -> Self {
        let raw = |defect: &DataError| {
            matches!(
                defect,
                DataError::RawCocoLabels { .. } | DataError::UnconvertedLabels { .. }
            )
        };
        Self {
            dataset: &found.dataset,
            found,
            root: &found.listing.root,
            split: selection.split,
            given: selection.root,
            unconverted: found.listing.defects.iter().any(raw),
            folders: Mutex::default(),
        }
    }

    /// Returns the file's name for messages: its path relative to the data set's folder.
    fn name(&self, path: &Path) -> String {
        let path = path.strip_prefix(self.root).unwrap_or(path);
        path.display().to_string()
    }

    /// Returns an existing file whose name differs from the file name of `path` in upper and lower case only.
    ///
    /// Each folder is listed only once, because thousands of its files may be missing.
    fn in_other_case(&self, path: &Path) -> Option<PathBuf> {
        let (folder, wanted) = (path.parent()?, path.file_name()?.to_str()?);
        let mut folders = self.folders.lock().unwrap_or_else(PoisonError::into_inner);
        let names = folders.entry(folder.to_owned()).or_insert_with(|| {
            let entries = fs::read_dir(folder).into_iter().flatten().flatten();
            let names = entries.filter_map(|entry| entry.file_name().into_string().ok());
            names.map(|name| (name.to_lowercase(), name)).collect()
        });
        let name = names.get(&wanted.to_lowercase())?;
        (name != wanted).then(|| folder.join(name))
    }
}
