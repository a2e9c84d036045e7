//! Metrics of zero-shot semantic segmentation, and what is made of them: records, comparisons, reports.
//!
//! [`confusion`] counts pixels by true and predicted class; [`report`] turns the counts into the published numbers:
//! pAcc, mIoU on seen and unseen classes, hIoU, Dice. [`record`] keeps an evaluation with everything that has to be
//! known to compare its numbers with others, and puts the shards of a divided one together; [`summary`] is the mean
//! over several runs; [`published`] holds the numbers of the papers; [`page`] writes all of it for people to read.
//! Nothing here knows how a model works.

#![forbid(unsafe_code)]

pub mod confusion;
mod error;
pub mod gallery;
pub mod page;
pub mod published;
pub mod record;
pub mod report;
pub mod summary;
#[cfg(feature = "tables")]
mod tables;

pub use confusion::ConfusionMatrix;
pub use error::EvalError;
pub use gallery::{ClassShare, GalleryEntry, Rank};
pub use record::{
    BenchmarkRef, ClassRef, Evaluation, ImageScore, ModelRef, Protocol, Shard, Timing,
};
pub use report::{Metric, NanRule, Report};
pub use summary::Summary;
