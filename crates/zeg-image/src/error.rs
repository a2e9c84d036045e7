//! Errors of reading, building and writing images; each names the file and the offending value.

use std::io;
use std::path::PathBuf;

/// Reason why an image or a label map could not be read, built or written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file could not be opened or read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// The path leads to a folder, a device or a pipe, which might never end.
    #[error("{}: not a regular file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// The file has more bytes than [`source::MAX_FILE_BYTES`](crate::source::MAX_FILE_BYTES).
    #[error("{}: the file has {bytes} bytes; the limit for an image is {limit} bytes", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The first bytes of the file belong to none of the formats that this crate decodes.
    #[error("{}: not a JPEG, PNG, WebP, TIFF, BMP, GIF, PNM or QOI image{}", path.display(), but(*found))]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// The actual format, such as `HEIC`, if it is recognised.
        found: Option<&'static str>,
    },
    /// The file is damaged or ends before its last pixel.
    #[error("{}: corrupt or truncated image: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// The decoder's message.
        reason: String,
    },
    /// The image has no pixels.
    #[error("{}: the image has {width}×{height} pixels; it must have at least one", path.display())]
    ZeroSize {
        /// The file.
        path: PathBuf,
        /// Number of columns.
        width: usize,
        /// Number of rows.
        height: usize,
    },
    /// The image has more pixels than [`decode::MAX_PIXELS`](crate::decode::MAX_PIXELS).
    #[error("{}: the image has {width}×{height} pixels; the limit is {limit} pixels", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Number of columns that the header states.
        width: usize,
        /// Number of rows that the header states.
        height: usize,
        /// The largest number of pixels.
        limit: usize,
    },
    /// The format is supported, but this variety of it is not.
    #[error("{}: cannot be decoded: {reason}", path.display())]
    UnsupportedVariety {
        /// The file.
        path: PathBuf,
        /// The decoder's message.
        reason: String,
    },
    /// The image has more pixels than the machine, or what is left to the process, can hold.
    #[error("{}: decoding {width}×{height} pixels: {source}", path.display())]
    Memory {
        /// The file.
        path: PathBuf,
        /// Number of columns that the header states.
        width: usize,
        /// Number of rows that the header states.
        height: usize,
        /// The estimate and the limit.
        source: zeg_base::memory::TooMuchMemory,
    },
    /// A floating-point sample is infinite or not a number.
    #[error("{}: a floating-point sample is {value}; expected 0 to 1", path.display())]
    SampleNotFinite {
        /// The file.
        path: PathBuf,
        /// The sample.
        value: f32,
    },
    /// The floating-point samples are not from 0 to 1, so what is black and what is white is not known.
    #[error("{}: the floating-point samples reach from {least} to {largest}; expected 0 to 1", path.display())]
    SampleRange {
        /// The file.
        path: PathBuf,
        /// The least sample, at most 0.
        least: f32,
        /// The largest sample, at least 0.
        largest: f32,
    },
    /// The label file is a colour image, whose pixels are not class indices.
    #[error("{}: the label image has the colour type {colours}; it must be indexed or grey", path.display())]
    LabelsInColour {
        /// The file.
        path: PathBuf,
        /// The colour type of the file: `RGB`, `RGBA` or `grey with alpha`.
        colours: &'static str,
    },
    /// The format of the label file changes values, so that they are no class indices any more.
    #[error("{}: the labels are stored as {format}, which changes class indices", path.display())]
    LabelsLossy {
        /// The file.
        path: PathBuf,
        /// Name of the format.
        format: &'static str,
    },
    /// The label file is grey, with a number of bits per pixel other than 8 and 16. A PNG with fewer than 8 bits
    /// stretches its values to the full grey range, so whether they are indices is a guess.
    #[error(
        "{}: the label image is grey with {bits} bits per pixel; it must be indexed, or grey with 8 or 16 bits",
        path.display()
    )]
    LabelBitDepth {
        /// The file.
        path: PathBuf,
        /// Number of bits per pixel.
        bits: u8,
    },
    /// The mask has one colour everywhere and differs in alpha only, which is not read.
    #[error("{}: the mask is in the alpha channel; its colour is the same in every pixel", path.display())]
    MaskInAlpha {
        /// The file.
        path: PathBuf,
    },
    /// The mask has a palette in which all values that occur have the same colour.
    #[error("{}: the mask has several values, but its palette gives all of them the same colour", path.display())]
    MaskInPalette {
        /// The file.
        path: PathBuf,
    },
    /// The mask has 16 bits per sample, of which only the upper 8 are read, and they are 0 in every pixel.
    #[error(
        "{}: the mask has 16 bits per sample, but its largest value is {largest}; only the upper 8 bits are read, which are 0",
        path.display()
    )]
    MaskBelowUpperBits {
        /// The file.
        path: PathBuf,
        /// The largest value, 1..=255.
        largest: u16,
    },
    /// The number of labels differs from the number of pixels.
    #[error("a label map of {width}×{height} pixels cannot have {labels} labels")]
    LabelCount {
        /// Number of columns.
        width: usize,
        /// Number of rows.
        height: usize,
        /// Number of labels given.
        labels: usize,
    },
    /// The file could not be written; an existing file at the path is unchanged.
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// The error of the system or of the encoder.
        source: io::Error,
    },
}

fn but(found: Option<&str>) -> String {
    found.map_or_else(String::new, |found| format!(" but {found}"))
}
