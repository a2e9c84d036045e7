//! Training of zero-shot segmentation models.
//!
//! A sample's path: batch (from `zeg-data`, or [`features`] of a frozen encoder) → [`supervision`] → [`targets`] → model →
//! [`objective`] (joined by the criterion) → gradients → [`optimizer`] at the rate of the [`schedule`] →
//! [`checkpoint`]. The [`trainer`] holds them together; an [`experiment`] file configures them.

pub mod batch;
pub mod checkpoint;
mod criterion;
mod error;
pub mod experiment;
pub mod features;
pub mod labels;
pub mod loss;
pub mod mask_loss;
pub mod methods;
pub mod objective;
pub mod optimizer;
pub mod pretrain;
pub mod pretraining;
pub mod recipe;
pub mod schedule;
pub mod setting;
pub mod supervision;
pub mod targets;
pub mod trainer;

pub use error::TrainError;
