//! Metrics of zero-shot semantic segmentation, from label maps alone.
//!
//! [`confusion`] counts pixels by true and predicted class; [`report`] turns the counts into the published numbers:
//! pAcc, mIoU on seen and unseen classes, hIoU. Nothing here knows about models or images.

pub mod confusion;
mod error;
pub mod report;

pub use confusion::ConfusionMatrix;
pub use error::EvalError;
pub use report::Report;
