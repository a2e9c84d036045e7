//! Makes the folders that the loaders read from official downloads.
//!
//! Most benchmarks cannot be used as downloaded: masks are stored in MATLAB structs, as run lengths in JSON, in colours
//! or as ids with gaps, and published lists must be combined from two data sets. Each conversion is a [`Plan`]:
//! [`plan`] reads the download and lists what was found, what is missing and what would be made, without writing
//! anything; [`Plan::run`] carries it out. The steps:
//!
//! 1. `find` finds the parts of a download, however deep the archives were unpacked.
//! 2. The data set's entry ([`datasets`]) turns its download into a list of tasks.
//! 3. `labels`, with `matlab` and `detail`, reads the label maps of the downloads' formats and converts their values.
//! 4. `run` and `place` carry out the tasks on all threads; each file is written completely or not at all.
//!
//! The download itself is never changed, and `own` keeps a conversion from replacing files of the user. A file exists in
//! the result only if it is complete, so a conversion that was stopped or killed continues where it was, and repeating a
//! finished one converts nothing.

pub(crate) mod detail;
mod error;
pub(crate) mod find;
pub(crate) mod labels;
mod matlab;
mod own;
mod place;
pub(crate) mod plan;
mod run;

use std::path::Path;

pub use error::PrepareError;
pub use matlab::MatError;
pub use plan::{Missing, Plan, SplitImages};
pub use run::{Failure, Progress, Summary};

use crate::datasets;
use find::Tree;

/// The way in which images and label maps that need no conversion are put into the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImagePlacement {
    /// As symbolic links to the download's absolute path; on systems other than Unix as hard links, or as copies
    /// where hard links cannot be made.
    #[default]
    Link,
    /// As copies, so that the result can be moved and the download can be deleted.
    Copy,
}

/// What to do when a file cannot be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBad {
    /// End the conversion with the error; files that are finished stay.
    #[default]
    Stop,
    /// List the file in [`Summary::failed`] and continue.
    Report,
}

/// Options of [`Plan::run`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrepareOptions {
    /// Number of threads; 0 means one per core.
    pub threads: usize,
    /// Whether images are linked or copied.
    pub images: ImagePlacement,
    /// What to do when a file cannot be converted.
    pub on_bad: OnBad,
    /// Largest short side of the images of ADE20K-Full, in pixels; `None` keeps every size.
    ///
    /// Published scores were measured at 512. Larger images are shrunk (bilinear, their label maps with nearest
    /// neighbour) and written as JPEG of quality [`JPEG_QUALITY`]; smaller ones are left as they are.
    pub shrink: Option<usize>,
}

/// Quality of the JPEG files that [`PrepareOptions::shrink`] writes: Pillow's default, which the published
/// preparation of ADE20K-Full uses.
pub const JPEG_QUALITY: u8 = 75;

impl Default for PrepareOptions {
    fn default() -> Self {
        Self {
            threads: 0,
            images: ImagePlacement::default(),
            on_bad: OnBad::default(),
            shrink: Some(512),
        }
    }
}

/// Plans the conversion of a download without writing anything.
///
/// - `name`: an entry of [`datasets`] with a [preparation](crate::datasets::Preparation)
/// - `from`: the folder the archives were unpacked into, or one up to five levels above it
///
/// # Errors
/// Returns [`PrepareError::UnknownDataset`] for an unknown `name`, and [`PrepareError::NotFound`] if nothing can be
/// converted at all (a missing part of a download is listed in [`Plan::missing`] instead). Returns
/// [`PrepareError::Unreadable`], [`PrepareError::IllegalId`], [`PrepareError::Json`], [`PrepareError::Ambiguous`],
/// [`PrepareError::SameName`] or [`PrepareError::Image`] if a file of the download cannot be used.
pub fn plan(name: &str, from: &Path) -> Result<Plan, PrepareError> {
    let known = datasets::find(name)
        .and_then(|entry| Some((entry, entry.preparation.as_ref()?)))
        .ok_or_else(|| PrepareError::UnknownDataset {
            name: name.to_owned(),
        });
    let (entry, preparation) = known?;
    let tree = Tree::scan(from)?;
    let mut plan = Plan::new(entry, preparation.title, from);
    preparation.plan(&mut plan, &tree)?;
    Ok(plan)
}
