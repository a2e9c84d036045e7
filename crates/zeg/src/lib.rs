//! Zero-shot semantic segmentation: labels every pixel of an image with one of the class names you give.
//!
//! This crate is the library behind the command line. Other programs start with [`Segmenter`]: it loads a model
//! (ZegCLIP, CLIP-RC, ZegFormer, or plain CLIP without training), encodes class names and segments images.
//!
//! ```no_run
//! use zeg::{Segmenter, image::decode_rgb, vocab::classes::parse_class_list};
//!
//! # fn main() -> anyhow::Result<()> {
//! // "mini" is the small model that is embedded in the program; a path loads a checkpoint or CLIP weights.
//! let mut segmenter = Segmenter::load("mini".as_ref())?;
//! segmenter.set_classes(&parse_class_list("striped red, plain blue")?)?;
//! let image = decode_rgb("scene.png".as_ref())?;
//! let result = segmenter.segment(&image)?;
//! let label = result.labels.get(10, 20); // class index at column 10, row 20
//! println!("{label:?}; {:.0} % of the image is striped red", 100.0 * result.share(0));
//! # Ok(())
//! # }
//! ```
//!
//! Below the [`Segmenter`]:
//! - [`loading`] opens a model, [`text_sources`] turns class names into class embeddings
//! - [`session`] runs inference: windows, test-time augmentation, calibration, thresholds
//! - [`evaluation`] scores a model on a data set, [`explain`] lists the best classes of each region
//! - [`onnx`] exports a model for other runtimes
//! - [`data`], [`eval`], [`export`], [`image`], [`model`] and [`vocab`] are the crates that this one builds on

pub mod check;
pub mod device;
pub mod embedding_cache;
pub mod evaluation;
pub mod examples;
pub mod explain;
pub mod label_spool;
pub mod loading;
pub mod mini;
pub mod notices;
pub mod onnx;
pub mod readings;
pub mod released;
pub mod segmenter;
pub mod session;
pub mod spool;
pub mod text_sources;
pub mod work_queue;

pub use device::DeviceChoice;
pub use segmenter::{EncodedClasses, LoadOptions, Segmentation, Segmenter};
pub use {
    zeg_data as data, zeg_eval as eval, zeg_export as export, zeg_image as image,
    zeg_model as model, zeg_vocab as vocab,
};

/// Compiles the examples of the book's page about the library.
#[cfg(doctest)]
#[doc = include_str!("../../../docs/src/guide/rust.md")]
mod book {}
