//! Data sets, augmentation and the loader: everything between a folder of pictures and a training batch.
//!
//! The stations of a sample's journey, in file order:
//!
//! 1. [`voc`], [`coco_stuff`]: a folder on disk becomes a [`Dataset`], a checked list of file pairs.
//! 2. [`dataset`]: one pair becomes a [`Sample`], a picture and a label map of class indices.
//! 3. [`augment`]: a sample becomes a [`TrainSample`], two buffers of a fixed size.
//! 4. [`loader`]: training samples become [`Batch`]es, in an order that depends on the seed alone.
//!
//! Nothing here knows tensors, models or class names; randomness comes from [`chance`] only, so every
//! sample of a run can be computed again from the run's seed and the sample's number.

#![forbid(unsafe_code)]

pub mod augment;
pub mod chance;
pub mod coco_stuff;
pub mod dataset;
pub mod error;
pub mod loader;
pub mod sampler;
pub mod voc;

mod split;

pub use augment::{Pipeline, Preprocess, RandomCrop, TrainSample, Whole};
pub use coco_stuff::open_coco_stuff;
pub use dataset::{Dataset, Item, LabelRule, Sample};
pub use error::DataError;
pub use loader::{Batch, Loader, LoaderOptions, OnBadSample};
pub use voc::open_voc;

use std::path::Path;

/// The data sets [`open`] knows, by the names that configurations use.
pub const DATASETS: [&str; 2] = ["voc12", "coco-stuff164k"];

/// Opens a data set by its name in [`DATASETS`].
///
/// - `root`: the data set's folder
/// - `split`: `train`, `val`, … or whatever else the data set's own function accepts
///
/// # Errors
/// [`DataError::UnknownDataset`], and those of [`open_voc`] and [`open_coco_stuff`].
pub fn open(name: &str, root: &Path, split: &str) -> Result<Dataset, DataError> {
    match name {
        "voc12" => open_voc(root, split),
        "coco-stuff164k" => open_coco_stuff(root, split),
        _ => Err(DataError::UnknownDataset {
            name: name.to_owned(),
        }),
    }
}
