//! Zero-shot semantic segmentation: every pixel of an image labelled with class names given as words.
//!
//! The library behind the command line; [`Segmenter`] is the way in for other programs.

pub mod check;
pub mod device;
pub mod embedding_cache;
pub mod evaluation;
pub mod explain;
pub mod label_spool;
pub mod loading;
pub mod mini;
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
