//! Reads, resizes, normalises and writes images and label maps.
//!
//! Each step of the pipeline that needs no tensors is a module: `inputs` → `decode` → `resize` → `normalize` → `window`
//! → (model) → `palette` → `overlay` → `write`. Sizes and coordinates follow the reference pipeline (OpenCV and
//! mmsegmentation), because published scores depend on them.
//!
//! Sizes are always given as `(width, height)`, coordinates as `(x, y)`, and buffers are row-major.
//!
//! ```
//! let windows = zeg_image::sliding_windows(1000, 512, 512, 426);
//! assert_eq!(windows.len(), 3);
//! ```

#![forbid(unsafe_code)]

mod antialias;
pub mod decode;
mod error;
pub mod inputs;
pub mod normalize;
mod overlay;
mod palette;
mod probe;
mod resize;
pub mod rle;
pub mod rle_polygon;
pub mod source;
mod window;
pub mod write;

mod float_samples;
mod frames;
mod jpeg;
mod jpeg_frame;
mod jpeg_huffman;
mod jpeg_scans;
mod label_png;
mod label_raw;
mod label_tiff;
mod labels;
mod legend;
mod mask;
mod png_chunks;
mod rgb8;
mod text;
mod tiff_pages;
mod tiff_samples;
mod tiff_varieties;
mod unused_bits;
mod webp_chunks;

pub use antialias::resize_antialiased;
pub use decode::{
    DecodedImage, decode_image, decode_image_bytes, decode_labels, decode_labels_bytes, decode_rgb,
    decode_rgb_bytes,
};
pub use error::ImageError;
pub use image::{RgbImage, imageops::flip_horizontal};
pub use inputs::{IMAGE_EXTENSIONS, InputError, InputImage, Recursion, expand};
pub use labels::{IGNORE_LABEL, LabelMap, PADDING_LABEL};
pub use mask::{decode_mask, decode_mask_bytes};
pub use normalize::Normalization;
pub use overlay::{OVERLAY_BYTES, overlay};
pub use palette::{distinct_palette, voc_palette};
pub use probe::{ColourModel, ImageHeader, Turn, image_header, image_size};
pub use resize::{fit_box, fit_short_side, resize_bilinear, resize_nearest};
pub use rle::Rle;
pub use unused_bits::UnusedBits;
pub use window::{Window, sliding_windows};
pub use write::{
    encode_grey_png, encode_named_png, encode_rgb_png, write_indexed_png, write_jpeg,
    write_named_png, write_rgb_png,
};
