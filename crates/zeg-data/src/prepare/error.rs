//! What can go wrong between an official download and the files the loaders read.

use std::io;
use std::path::{Path, PathBuf};

use zeg_image::ImageError;
use zeg_image::rle::RleError;

use super::matlab::MatError;

/// Why a download could not be planned or a file not converted.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    /// No conversion goes by this name.
    #[error(
        "no data set to prepare is called `{name}`; known are {}",
        crate::datasets::names(|entry| entry.preparation.is_some())
    )]
    UnknownDataset {
        /// The name asked for.
        name: String,
    },
    /// The folder holds nothing of the data set.
    #[error("{}: no {dataset} download here; looked for {}", from.display(), looked_for.join(", "))]
    NotFound {
        /// The data set's title.
        dataset: &'static str,
        /// The folder that was searched, with those below it.
        from: PathBuf,
        /// What would have been recognised.
        looked_for: Vec<&'static str>,
    },
    /// A file or folder could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },
    /// A file, link or folder could not be made; what stood there before is untouched.
    #[error("{}: cannot be written: {source}", path.display())]
    Unwritable {
        /// The file, link or folder.
        path: PathBuf,
        /// What the operating system or the encoder said.
        source: io::Error,
    },
    /// The result would take the place of a file of the download.
    #[error("{}: would replace a file of the download {}; nothing there is changed", path.display(), from.display())]
    WouldReplaceSource {
        /// The file.
        path: PathBuf,
        /// The download's folder.
        from: PathBuf,
    },
    /// An image or a label map could not be decoded, or a label map not be written.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// A MATLAB file gives no label map.
    #[error("{}: {source}", path.display())]
    Matlab {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        source: MatError,
    },
    /// A file of annotations is not the JSON it should be.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// A mask of a file of annotations cannot be drawn.
    #[error("{}: image {image}, annotation {annotation} of it: {source}", path.display())]
    Mask {
        /// The file of annotations.
        path: PathBuf,
        /// Name of the image without its ending.
        image: String,
        /// Number of the annotation among those of the image, from 0.
        annotation: usize,
        /// What is wrong with the run lengths.
        source: RleError,
    },
    /// An annotation holds a mask in a form that is not read.
    #[error("{}: image {image}: {reason}", path.display())]
    Annotation {
        /// The file of annotations.
        path: PathBuf,
        /// Name of the image without its ending.
        image: String,
        /// What is wrong.
        reason: String,
    },
    /// A label map holds a value that the download's format does not have.
    #[error("{}: label value {value} at ({x}, {y}); {dataset} has {legal}", file.display())]
    IllegalValue {
        /// The label map.
        file: PathBuf,
        /// The value.
        value: u16,
        /// Column of its first occurrence.
        x: usize,
        /// Row of its first occurrence.
        y: usize,
        /// The data set's title.
        dataset: &'static str,
        /// The legal values, in words.
        legal: &'static str,
    },
    /// A label map in colour holds a colour that stands for no class.
    #[error("{}: colour {colour:?} at ({x}, {y}) is none of the VOC palette", file.display())]
    IllegalColour {
        /// The label map.
        file: PathBuf,
        /// Red, green, blue.
        colour: [u8; 3],
        /// Column of its first occurrence.
        x: usize,
        /// Row of its first occurrence.
        y: usize,
    },
    /// Image and label map differ in size.
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
    /// Label maps could be read in two ways.
    #[error("{}: {reason}", folder.display())]
    Ambiguous {
        /// The folder of label maps.
        folder: PathBuf,
        /// The two ways and what would tell them apart.
        reason: String,
    },
    /// A line of a list is not one plain file name.
    #[error("{}:{line}: `{text}` is not an id; a line holds one file name without folder and ending", list.display())]
    IllegalId {
        /// The list.
        list: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The line.
        text: String,
    },
    /// Two files of the download would become one.
    #[error("{} and {} have the same name; results would overwrite each other", first.display(), second.display())]
    SameName {
        /// One file.
        first: PathBuf,
        /// The other.
        second: PathBuf,
    },
    /// The threads could not be started.
    #[error("worker threads cannot be started: {reason}")]
    Threads {
        /// What was said.
        reason: String,
    },
}

impl PrepareError {
    /// Whether the place for the results is at fault, so that no other file would fare better.
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
