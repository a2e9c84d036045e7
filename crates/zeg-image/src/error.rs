//! What can go wrong between a file and its pixels; every error names the file and the offending value.

use std::io;
use std::path::PathBuf;

/// Why an image or a label map could not be read, built or written.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The file could not be opened or read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A folder, a device or a pipe, which might never end.
    #[error("{}: not a regular file", path.display())]
    NotRegular {
        /// The path.
        path: PathBuf,
    },
    /// The file has more bytes than [`source::MAX_FILE_BYTES`](crate::source::MAX_FILE_BYTES).
    #[error("{}: {bytes} bytes; the limit for an image is {limit}", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size in bytes.
        bytes: u64,
        /// The limit in bytes.
        limit: u64,
    },
    /// The first bytes of the file are none of the formats this crate decodes.
    #[error("{}: not a JPEG, PNG, WebP, TIFF, BMP, GIF, PNM or QOI image{}", path.display(), but(*found))]
    UnsupportedFormat {
        /// The file.
        path: PathBuf,
        /// What it is instead, such as `HEIC`, if that is known.
        found: Option<&'static str>,
    },
    /// The file is damaged or ends before its last pixel.
    #[error("{}: corrupt or cut-off image: {reason}", path.display())]
    Corrupt {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
    /// The image has no pixels.
    #[error("{}: image of {width}×{height} pixels has no content", path.display())]
    ZeroSize {
        /// The file.
        path: PathBuf,
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The image holds more pixels than [`decode::MAX_PIXELS`](crate::decode::MAX_PIXELS).
    #[error("{}: image of {width}×{height} pixels exceeds the limit of {limit} pixels", path.display())]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Columns the file announces.
        width: usize,
        /// Rows the file announces.
        height: usize,
        /// The limit on columns · rows.
        limit: usize,
    },
    /// The format is known, but this variety of it is not decoded.
    #[error("{}: cannot be decoded: {reason}", path.display())]
    UnsupportedVariety {
        /// The file.
        path: PathBuf,
        /// What the decoder said.
        reason: String,
    },
    /// The label file is an image in colour: its pixels are not class indices.
    #[error("{}: label image is {colours}; labels must be indexed or grey", path.display())]
    LabelsInColour {
        /// The file.
        path: PathBuf,
        /// The file's colour type: `RGB`, `RGBA` or `grey with alpha`.
        colours: &'static str,
    },
    /// The label file is neither a PNG nor a TIFF; other formats may change class indices.
    #[error("{}: label image is neither PNG nor TIFF; other formats do not keep class indices", path.display())]
    LabelsNotPng {
        /// The file.
        path: PathBuf,
    },
    /// Grey labels stored with fewer than 8 bits. PNG stretches such values to the full grey range, so
    /// whether they are indices is a guess.
    #[error("{}: grey label image of {bits} bits a pixel; labels must be indexed, or grey of 8 or 16 bits", path.display())]
    LabelBitDepth {
        /// The file.
        path: PathBuf,
        /// Bits a pixel.
        bits: u8,
    },
    /// A label buffer does not fit its stated size.
    #[error("{labels} labels do not fill a map of {width}×{height}")]
    LabelCount {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
        /// Number of labels given.
        labels: usize,
    },
    /// A file could not be written; whatever stood there before is untouched.
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// What the operating system or the encoder said.
        source: io::Error,
    },
}

fn but(found: Option<&str>) -> String {
    found.map_or_else(String::new, |found| format!(" but {found}"))
}
