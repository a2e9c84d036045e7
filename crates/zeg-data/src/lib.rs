//! Data sets, augmentation and the loader: everything between a folder of images and a training batch.
//!
//! The stations of a sample's journey, in file order:
//!
//! 1. [`selection`]: what a user names becomes a [`Dataset`], a checked list of file pairs with its classes. The
//!    known [`datasets`] have entries of their own; a [`folder`] of one's own is described by a TOML file.
//! 2. [`dataset`]: one pair becomes a [`Sample`], an image and a label map of class indices ([`labels`]).
//! 3. [`augment`]: a sample becomes a [`TrainSample`], two buffers of a fixed size.
//! 4. [`loader`]: training samples become [`Batch`]es, in an order that depends on the seed alone.
//!
//! Beside the journey stand [`prepare`], which makes a data set's folder from its official download, and the
//! [`doctor`], which looks at a whole split and says what is wrong with it.
//!
//! Nothing here knows tensors or models; randomness comes from [`chance`] only, so every sample of a run can be
//! computed again from the run's seed and the sample's number.

#![forbid(unsafe_code)]

pub mod augment;
pub mod chance;
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

mod data_config;
mod known;
mod listing;
mod part;
mod pattern;
mod split;

pub use augment::{Pipeline, Preprocess, RandomCrop, ShortSides, TrainSample, Whole};
pub use data_config::DataConfig;
pub use dataset::{Dataset, Item, Metric, Sample};
pub use datasets::DatasetEntry;
pub use doctor::{Diagnosis, DoctorOptions, Finding, Severity, Verdict, examine};
pub use error::DataError;
pub use known::{classes, splits};
pub use labels::{LabelKind, LabelRule};
pub use loader::{Batch, Loader, LoaderOptions, OnBadSample};
pub use selection::{Selection, list, open};
pub use source::{OpenSet, SampleSource};
