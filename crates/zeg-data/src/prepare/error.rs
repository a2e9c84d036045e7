//! Errors of converting an official download to the files the loaders read.

use std::io;
use std::path::{Path, PathBuf};

use zeg_base::names::did_you_mean;
use zeg_image::ImageError;
use zeg_image::rle::RleError;

use super::matlab::MatError;

/// An error of planning or carrying out a conversion.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// No data set that can be prepared has this name.
    #[error(
        "no data set that can be prepared is called `{name}`; known names are {}{}",
        crate::datasets::names(|entry| entry.preparation.is_some()),
        did_you_mean(name, crate::datasets::all().map(|entry| entry.name))
    )]
    UnknownDataset {
        /// The requested name.
        name: String,
    },
    /// The folder holds nothing of the data set.
    #[error("{}: no {dataset} download in this folder; looked for {}", from.display(), looked_for.join(", "))]
    NotFound {
        /// The data set's title.
        dataset: &'static str,
        /// The folder that was searched, including the folders below it.
        from: PathBuf,
        /// The files and folders that are recognised.
        looked_for: Vec<&'static str>,
    },
    /// A file or folder could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },
    /// A file, link or folder could not be made; a file that existed there before is unchanged.
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable {
        /// The file, link or folder.
        path: PathBuf,
        /// The error of the operating system or the encoder.
        source: io::Error,
    },
    /// The result would replace a file of the download.
    #[error("{}: the result would replace this file of the download in {}; no file of the download was changed", path.display(), from.display())]
    WouldReplaceSource {
        /// The file.
        path: PathBuf,
        /// The download's folder.
        from: PathBuf,
    },
    /// Another file stands where a file of the result is to be made.
    #[error("{}: the file exists already and differs from what would be made; nothing was changed", path.display())]
    Occupied {
        /// The file.
        path: PathBuf,
    },
    /// An image or a label map could not be decoded, or a label map could not be written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// No label map could be read from a MATLAB file.
    #[error("{}: {source}", path.display())]
    Matlab {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: MatError,
    },
    /// A file of annotations is not JSON of the expected form.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// A mask of a file of annotations cannot be drawn.
    #[error("{}: image {image}, annotation {annotation} of this image: {source}", path.display())]
    Mask {
        /// The file of annotations.
        path: PathBuf,
        /// Name of the image without its extension.
        image: String,
        /// Number of the annotation among those of the image, from 0.
        annotation: usize,
        /// What is wrong with the run lengths.
        source: RleError,
    },
    /// An annotation holds a mask in a form that is not supported.
    #[error("{}: image {image}: {reason}", path.display())]
    Annotation {
        /// The file of annotations.
        path: PathBuf,
        /// Name of the image without its extension.
        image: String,
        /// What is wrong.
        reason: String,
    },
    /// A label map holds a value that is illegal in the download's format.
    #[error("{}: label value {value} at ({x}, {y}); {dataset} labels are {legal}", file.display())]
    IllegalValue {
        /// The label map.
        file: PathBuf,
        /// The value in the file.
        value: u16,
        /// Column of its first occurrence.
        x: usize,
        /// Row of its first occurrence.
        y: usize,
        /// The data set's title.
        dataset: &'static str,
        /// The legal values as text.
        legal: &'static str,
    },
    /// A label map in colour holds a colour outside the VOC palette.
    #[error("{}: colour {colour:?} at ({x}, {y}) is not one of the 22 VOC colours (20 classes, background, border)", file.display())]
    IllegalColour {
        /// The label map.
        file: PathBuf,
        /// The colour in the file, as red, green and blue.
        colour: [u8; 3],
        /// Column of its first occurrence.
        x: usize,
        /// Row of its first occurrence.
        y: usize,
    },
    /// An image and its label map differ in size.
    #[error("{} is {}×{} pixels, but its label map {} is {}×{}", image.display(), image_size.0, image_size.1, labels.display(), label_size.0, label_size.1)]
    SizeMismatch {
        /// The image.
        image: PathBuf,
        /// Its width and height.
        image_size: (usize, usize),
        /// The file of the label map.
        labels: PathBuf,
        /// Width and height of the label map.
        label_size: (usize, usize),
    },
    /// The values of label maps could be read in two ways.
    #[error("{}: {reason}", folder.display())]
    Ambiguous {
        /// The folder of label maps.
        folder: PathBuf,
        /// The two ways, and what would distinguish them.
        reason: String,
    },
    /// A line of a list is not one plain file name.
    #[error("{}:{line}: `{text}` is not an id; each line must be one file name without folder and extension", list.display())]
    IllegalId {
        /// The list.
        list: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// Two files of the download would become one file of the result.
    #[error("{} and {} have the same name; their results would overwrite each other", first.display(), second.display())]
    SameName {
        /// The first file.
        first: PathBuf,
        /// The second file.
        second: PathBuf,
    },
    /// The threads could not be started.
    #[error("worker threads cannot be started: {reason}")]
    Threads {
        /// The error of the thread pool.
        reason: String,
    },
}

impl PrepareError {
    /// Returns whether a result could not be written, in which case no other file could be written either.
    pub(crate) fn is_of_the_disk(&self) -> bool {
        matches!(
            self,
            Self::Unwritable { .. } | Self::Image(ImageError::Unwritable { .. })
        )
    }

    pub(crate) fn unreadable(path: &Path, source: io::Error) -> Self {
        Self::Unreadable {
            path: path.into(),
            source,
        }
    }

    pub(crate) fn unwritable(path: &Path, source: io::Error) -> Self {
        Self::Unwritable {
            path: path.into(),
            source,
        }
    }
}
