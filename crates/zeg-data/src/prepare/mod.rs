//! From official downloads to the folders the loaders read.
//!
//! Most benchmarks are not usable as downloaded: masks lie in MATLAB structs, in a JSON of run lengths, in colours or
//! under ids with gaps, and the published lists must be put together from two data sets. Each conversion is a
//! [`Plan`]: [`plan`] looks at the download and says what is there, what is missing and what would be made, without
//! writing anything; [`Plan::run`] does it. The stations, in file order:
//!
//! 1. `find`: the parts of a download, however deep the archives were unpacked.
//! 2. `voc`, `coco_stuff`, `pascal_context`, `ade20k`, `ade20k_full`, `cityscapes`: one download each, as a list
//!    of tasks.
//! 3. `labels`, with `matlab`, `rle` and `detail`: the label maps of the downloads' formats, and what their values
//!    become.
//! 4. `run`, `place`: the tasks on all threads, each file whole or not at all.
//!
//! The download itself is never changed. A file exists in the result only if it is complete, so a run that was stopped
//! or killed goes on where it was, and a second one converts nothing.

mod ade20k;
mod ade20k_full;
mod cityscapes;
mod coco_stuff;
mod detail;
mod error;
mod find;
mod labels;
mod matlab;
mod pascal_context;
mod place;
mod plan;
mod rle;
mod run;
mod voc;

use std::path::Path;

pub use error::PrepareError;
pub use matlab::MatError;
pub use plan::{Missing, Plan, SplitPictures};
pub use rle::RleError;
pub use run::{Failure, Progress, Summary};

/// How pictures and label maps that need no conversion get into the result.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Pictures {
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
    /// How pictures get into the result.
    pub pictures: Pictures,
    /// What happens when a file cannot be converted.
    pub on_bad: OnBad,
    /// Longest short side of the pictures of ADE20K-Full in pixels; `None` keeps every size.
    ///
    /// Published scores were measured at 512. Larger pictures are shrunk (bilinear, their label maps by the nearest
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
            pictures: Pictures::default(),
            on_bad: OnBad::default(),
            shrink: Some(512),
        }
    }
}

/// A download that can be prepared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Preparable {
    /// The name [`plan`] takes, which is also that of the data set.
    pub name: &'static str,
    /// What the folder must hold, in one line.
    pub needs: &'static str,
}

/// The downloads that [`plan`] knows.
pub const PREPARABLE: &[Preparable] = &[
    Preparable {
        name: "voc12",
        needs: "VOCdevkit/VOC2012, and SBD (benchmark_RELEASE/dataset) or a ready folder SegmentationClassAug",
    },
    Preparable {
        name: "coco-stuff164k",
        needs: "train2017 and val2017 with pictures, and the same with the label maps of stuffthingmaps_trainval2017.zip",
    },
    Preparable {
        name: "pascal-context",
        needs: "VOCdevkit/VOC2010, and trainval_merged.json, or trainval/*.mat, or a folder of label PNGs",
    },
    Preparable {
        name: "ade20k",
        needs: "ADEChallengeData2016 with images and annotations, each with training and validation",
    },
    Preparable {
        name: "ade20k-full",
        needs: "ADE20K_2021_17_01 with images/ADE/training and images/ADE/validation",
    },
    Preparable {
        name: "cityscapes",
        needs: "leftImg8bit and gtFine, each with train and val",
    },
];

/// The names of [`PREPARABLE`], for messages.
fn names() -> String {
    let names: Vec<&str> = PREPARABLE.iter().map(|known| known.name).collect();
    names.join(", ")
}

/// Looks at a download and says what would be made of it. Nothing is written.
///
/// - `name`: one of [`PREPARABLE`]
/// - `from`: the folder the archives were unpacked into, or one up to five levels above it
///
/// # Errors
/// [`PrepareError::UnknownDataset`]; [`PrepareError::NotFound`] where nothing can be converted at all (a part of a
/// download that is missing is listed in [`Plan::missing`] instead); [`PrepareError::Unreadable`],
/// [`PrepareError::IllegalId`], [`PrepareError::Json`], [`PrepareError::Ambiguous`], [`PrepareError::SameName`],
/// [`PrepareError::Image`].
pub fn plan(name: &str, from: &Path) -> Result<Plan, PrepareError> {
    match name {
        "voc12" => voc::plan(from),
        "coco-stuff164k" => coco_stuff::plan(from),
        "pascal-context" => pascal_context::plan(from),
        "ade20k" => ade20k::plan(from),
        "ade20k-full" => ade20k_full::plan(from),
        "cityscapes" => cityscapes::plan(from),
        _ => Err(PrepareError::UnknownDataset {
            name: name.to_owned(),
        }),
    }
}
