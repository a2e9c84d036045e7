//! CLIP towers and the segmentation methods on them.
//!
//! An image passes through [`inference`] (resizing, windows), [`method::Model::encode`] ([`vision`] with [`prompts`]
//! and [`regions`]), [`method::Model::score`] and [`scores`]. Class names pass through [`text`], or a table of
//! embeddings ([`embeddings`]), to [`classes`]. The methods are in [`methods`], behind the interface in [`method`].
//! Parameters come from [`weights`], under the names and in the layouts of the reference checkpoints.
//!
//! ```
//! use zeg_model::methods::Methods;
//!
//! assert!(Methods::default().by_name("zegclip").is_ok());
//! ```

#![forbid(unsafe_code)]

pub mod checkpoint;
pub mod classes;
pub mod clip;
pub mod config;
pub mod cost;
pub mod decoder;
pub mod descriptor;
mod dropout;
mod embedding_table;
pub mod embeddings;
pub mod encoded;
mod encoder_hooks;
mod error;
pub mod examples;
pub mod generated;
pub mod inference;
pub mod layers;
pub mod mask_transformer;
pub mod method;
pub mod methods;
pub mod model;
pub mod packing;
pub mod params;
pub mod patch_maps;
mod position_table;
pub mod prompts;
pub mod recognize;
pub mod refine;
pub mod regions;
pub mod renamed;
pub mod resize;
pub mod scan;
pub mod score_map;
pub mod scores;
pub mod section;
pub mod stop;
mod strip;
pub mod test_time;
pub mod text;
pub mod trace;
pub mod transformer;
pub mod vision;
pub mod vocabulary;
pub mod weights;
mod window_scores;

pub use error::ModelError;
pub use zeg_kernels::Precision;
