//! Metrics of zero-shot semantic segmentation, evaluation records, comparisons and reports.
//!
//! [`confusion`] counts pixels by true and predicted class. [`report`] computes the metrics from the counts: pAcc, mIoU
//! on seen and unseen classes, hIoU, Dice. [`record`] stores an evaluation with everything that is needed to compare
//! its numbers with others, and merges the shards of a divided evaluation. [`summary`] computes the mean over the seeds
//! of one configuration. [`published`] holds the published results of the papers. [`page`] writes reports for people to
//! read. Nothing in this crate depends on how a model works.
//!
//! ```
//! use zeg_eval::ConfusionMatrix;
//!
//! let mut confusion = ConfusionMatrix::new(2);
//! confusion.add(&[0, 1, 255], &[0, 0, 1], 255).unwrap();
//! assert_eq!(confusion.count(1, 0), 1); // 255 is not counted
//! ```

#![forbid(unsafe_code)]

pub mod comparison;
pub mod confusion;
mod error;
pub mod gallery;
pub mod page;
pub mod published;
pub mod record;
pub mod reliability;
pub mod report;
pub mod summary;
#[cfg(feature = "tables")]
mod tables;

pub use comparison::Comparison;
pub use confusion::ConfusionMatrix;
pub use error::EvalError;
pub use gallery::{ClassShare, GalleryEntry, Rank};
pub use record::{
    BenchmarkRef, ClassRef, Evaluation, ImageScore, ModelRef, Protocol, Shard, SkippedImage, Timing,
};
pub use reliability::Reliability;
pub use report::{Metric, NanRule, Report};
pub use summary::Summary;
