//! CLIP towers and the zero-shot segmentation models on them.
//!
//! A picture's path: [`vision`] (with [`prompts`] and [`regions`]) → [`zegclip`], [`clip_rc`] or [`training_free`] →
//! [`scores`]. The words' path: [`text`] or a table ([`embeddings`]) → [`descriptor`] → [`decoder`]. Parameters come
//! from [`weights`], under the names and in the layouts of the reference checkpoints.

#![forbid(unsafe_code)]

pub mod clip;
pub mod clip_rc;
pub mod config;
pub mod count;
pub mod decoder;
pub mod dense;
pub mod descriptor;
pub mod embeddings;
pub mod encoded;
mod error;
pub mod generated;
pub mod inference;
pub mod key_tables;
pub mod layers;
pub mod method;
pub mod packing;
pub mod params;
pub mod prompts;
pub mod recognize;
pub mod recovery;
pub mod regions;
pub mod resize;
pub mod scan;
mod score_map;
pub mod scores;
mod strip;
pub mod test_time;
pub mod text;
pub mod trace;
pub mod training_free;
pub mod transformer;
pub mod vision;
pub mod vocabulary;
pub mod weights;
pub mod zegclip;
pub mod zegformer;

pub use error::ModelError;
pub use zeg_kernels::Precision;
