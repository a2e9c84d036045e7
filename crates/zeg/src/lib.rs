//! Zero-shot semantic segmentation: every pixel of a picture labelled with class names given as words.
//!
//! The library behind the command line; [`Segmenter`] is the way in for other programs.

pub mod device;
pub mod evaluation;
pub mod loading;
pub mod parity;
pub mod segmenter;
pub mod words;

pub use device::DeviceChoice;
pub use segmenter::Segmenter;
pub use {
    zeg_data as data, zeg_eval as eval, zeg_image as image, zeg_model as model, zeg_train as train,
    zeg_vocab as vocab,
};
