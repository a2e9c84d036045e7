//! Doctor: looks at every file of a split before a run of days does, and says what is wrong and what to do.
//!
//! Most lost weeks come from data that load without an error: labels shifted by one, a border that became a class, a
//! list that holds test images. So beside what fails, the doctor counts what is unusual. Its findings are of three
//! kinds: with an error, training or scores would fail or be wrong; a warning is suspicious; a note is good to know.
//!
//! Files are read once, by several threads; in memory are one image a thread, and 24 bytes an image.

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

/// How the doctor works.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DoctorOptions {
    /// Threads that read files, at least 1; they do not change what is found.
    pub threads: usize,
    /// How many images to look into, from the start of the list; `None` for all. Lists, and whether files exist, are
    /// examined whole.
    pub limit: Option<usize>,
}

/// Examines a split.
///
/// `progress` is told how many of how many images are done; several threads call it.
///
/// # Errors
/// Those of [`list`](crate::list) but for [`DataError::DuplicateId`], [`DataError::RawCocoLabels`] and
/// [`DataError::UnconvertedLabels`], which are findings; [`DataError::Setting`] for no threads; [`DataError::Spawn`].
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
    let patient = Patient::new(&found, selection);
    let collector = Collector::new(patient.dataset.classes.len());
    lists::examine(&patient, &collector);

    let total = patient.dataset.len();
    let limit = options.limit.unwrap_or(total).min(total);
    let done = AtomicUsize::new(0);
    let pool = ThreadPoolBuilder::new()
        .num_threads(options.threads.min(total.max(1)))
        .build()
        .map_err(|error| DataError::Spawn(io::Error::other(error)))?;
    pool.install(|| {
        (0..total).into_par_iter().for_each(|index| {
            if index < limit {
                content::examine(&patient, index, &collector);
            } else {
                content::examine_existence(&patient, index, &collector);
            }
            progress(done.fetch_add(1, Ordering::Relaxed) + 1, total);
        });
    });
    let mut seen = collector.into_seen();
    shares::examine(&patient, limit, &mut seen);
    Ok(report::diagnosis(&patient, selection, limit, seen))
}

/// What is examined.
struct Patient<'a> {
    dataset: &'a Dataset,
    found: &'a Found,
    /// The folder that files are named relative to.
    root: &'a Path,
    split: &'a str,
    given: &'a Path,
    /// Label maps lie there in the numbers of the download: that they are missing is known.
    unconverted: bool,
    /// Names in folders of missing files, by their lower case.
    folders: Mutex<HashMap<PathBuf, HashMap<String, String>>>,
}

impl<'a> Patient<'a> {
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

    /// The file as messages name it: relative to the data set's folder.
    fn name(&self, path: &Path) -> String {
        let path = path.strip_prefix(self.root).unwrap_or(path);
        path.display().to_string()
    }

    /// The same file under a name that differs in upper and lower case alone.
    ///
    /// A folder is listed once, for thousands of its files may be missing.
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
