//! Data sets, augmentation and the loader: everything between a folder of images and a training batch.
//!
//! A sample passes through four steps:
//!
//! 1. [`selection`]: a data set's name, folder and split become a [`Dataset`], a checked list of file pairs with its
//!    classes. The known [`datasets`] have built-in entries; a user's own [`folder`] is described by a TOML file.
//! 2. [`dataset`]: one pair becomes a [`Sample`], an image and a label map of class indices ([`labels`]).
//! 3. [`augment`]: a sample becomes a [`TrainSample`], two buffers of a fixed size.
//! 4. [`loader`]: training samples become [`Batch`]es, in an order that depends on the seed alone.
//!
//! Two tools work on whole data sets: [`prepare`] makes a data set's folder from its official download, and the
//! [`doctor`] examines every file of a split and reports what is wrong with it.
//!
//! The crate does not use tensors or models. Randomness comes from [`chance`] only, so every sample of a run can be
//! computed again from the run's seed and the sample's number.
//!
//! ```
//! use zeg_data::mini_world::{Part, World, WorldConfig};
//!
//! let world = World::new(WorldConfig::default()).unwrap();
//! let sample = world.sample(Part::Test, 0);
//! assert_eq!(sample.image.width(), 64);
//! ```

#![forbid(unsafe_code)]

pub mod augment;
pub mod chance;
pub mod coco;
pub mod data_config;
pub mod dataset;
pub mod datasets;
pub mod doctor;
pub mod error;
pub mod folder;
pub mod labels;
pub mod loader;
pub mod mini_world;
pub mod prepare;
pub mod sampler;
pub mod selection;
pub mod source;

mod fingerprint;
mod known;
mod listing;
mod part;
mod pattern;
mod split;

pub use augment::{Pipeline, Preprocess, RandomCrop, ShortSides, TrainSample, Whole};
pub use data_config::{DataConfig, is_compared_by_file_name, is_description, is_same_dataset};
pub use dataset::{Dataset, Item, LabelSource, Metric, Sample};
pub use datasets::DatasetEntry;
pub use doctor::{Diagnosis, DoctorOptions, Finding, Severity, Verdict, examine};
pub use error::DataError;
pub use known::{classes, splits};
pub use labels::{LabelKind, LabelRule};
pub use loader::{Batch, Loader, LoaderOptions, OnBadSample};
pub use selection::{Selection, list, open};
pub use source::{OpenSet, SampleSource};
