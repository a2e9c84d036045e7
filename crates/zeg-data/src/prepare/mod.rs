//! From official downloads to the folders the loaders read.
//!
//! Most benchmarks are not usable as downloaded: masks lie in MATLAB structs, in a JSON of run lengths, in colours or
//! under ids with gaps, and the published lists must be put together from two data sets. Each conversion is a
//! [`Plan`]: [`plan`] looks at the download and says what is there, what is missing and what would be made, without
//! writing anything; [`Plan::run`] does it. The stations, in file order:
//!
//! 1. `find`: the parts of a download, however deep the archives were unpacked.
//! 2. The entry of the data set ([`datasets`]): its download as a list of tasks.
//! 3. `labels`, with `matlab` and `detail`: the label maps of the downloads' formats, and what their values become.
//! 4. `run`, `place`: the tasks on all threads, each file whole or not at all.
//!
//! The download itself is never changed. A file exists in the result only if it is complete, so a run that was stopped
//! or killed goes on where it was, and a second one converts nothing.

pub(crate) mod detail;
mod error;
pub(crate) mod find;
pub(crate) mod labels;
mod matlab;
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

/// How images and label maps that need no conversion get into the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ImagePlacement {
    /// As symbolic links to the download's absolute path; on systems other than Unix as hard links, or as copies
    /// where those cannot be made.
    #[default]
    Link,
    /// As copies: the result can be moved, and the download be deleted.
    Copy,
}

/// What happens when a file cannot be converted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum OnBad {
    /// The run ends with the error; what was finished before stays.
    #[default]
    Stop,
    /// The file is listed in [`Summary::failed`], and the run goes on.
    Report,
}

/// How a plan is carried out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PrepareOptions {
    /// Number of threads; 0 means one a core.
    pub threads: usize,
    /// How images get into the result.
    pub images: ImagePlacement,
    /// What happens when a file cannot be converted.
    pub on_bad: OnBad,
    /// Longest short side of the images of ADE20K-Full in pixels; `None` keeps every size.
    ///
    /// Published scores were measured at 512. Larger images are shrunk (bilinear, their label maps by the nearest
    /// pixel) and written as JPEG of quality [`JPEG_QUALITY`]; smaller ones are left as they are.
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

/// Looks at a download and says what would be made of it. Nothing is written.
///
/// - `name`: an entry of [`datasets`] with a [preparation](crate::datasets::Preparation)
/// - `from`: the folder the archives were unpacked into, or one up to five levels above it
///
/// # Errors
/// [`PrepareError::UnknownDataset`]; [`PrepareError::NotFound`] where nothing can be converted at all (a part of a
/// download that is missing is listed in [`Plan::missing`] instead); [`PrepareError::Unreadable`],
/// [`PrepareError::IllegalId`], [`PrepareError::Json`], [`PrepareError::Ambiguous`], [`PrepareError::SameName`],
/// [`PrepareError::Image`].
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
