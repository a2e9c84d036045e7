//! What can go wrong between a data set's folder and a batch.
//!
//! Every message names the file and the value at fault, and where a choice was wrong, the choices there are.

use std::io;
use std::path::PathBuf;

use zeg_image::ImageError;
use zeg_vocab::classes::{ClassError, SplitError};
use zeg_vocab::text_file::TextFileError;

/// Why a data set could not be opened, a sample not loaded or a batch not built.
#[derive(Debug, thiserror::Error)]
pub enum DataError {
    /// An image or a label map could not be decoded.
    #[error(transparent)]
    Image(#[from] ImageError),

    /// A list or a data set's description could not be read as text.
    #[error(transparent)]
    Text(#[from] TextFileError),

    /// A class list does not exist, or its names cannot be used.
    #[error(transparent)]
    Classes(#[from] ClassError),

    /// The unseen classes that were asked for are not a split of the class list.
    #[error("unseen classes: {0}")]
    Unseen(#[from] SplitError),

    /// The data set cannot be read with this class list.
    #[error("{dataset} is not labelled with the class list `{list}`; it can be read with {}", known.join(", "))]
    ClassList {
        /// The data set's title.
        dataset: String,
        /// The class list asked for.
        list: String,
        /// The class lists it can be read with.
        known: Vec<String>,
    },

    /// A data set's description is not TOML, has unknown keys, or values that do not fit.
    #[error("{}: line {line}: {reason}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, with the value.
        reason: String,
    },

    /// A folder could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// What the operating system said.
        source: io::Error,
    },

    /// No data set goes by this name.
    #[error("no data set is called `{name}`; known are {}, and files that end in .toml and describe one", crate::datasets::names(|_| true))]
    UnknownDataset {
        /// The name asked for.
        name: String,
    },

    /// The settings of a mini world are out of range.
    #[error("the mini world: {0}")]
    World(#[source] Box<crate::mini_world::WorldError>),

    /// The folder does not hold the data set.
    #[error("{}: no {dataset} data set here; looked for {}", root.display(), paths(looked_for))]
    RootNotFound {
        /// The data set's title.
        dataset: String,
        /// The folder that was given.
        root: PathBuf,
        /// The folders of which at least one must exist.
        looked_for: Vec<PathBuf>,
    },

    /// The data set has no such split.
    #[error("{dataset} has no split `{split}` in {}; {}", folder.display(), available_splits(available))]
    SplitNotFound {
        /// The data set's title.
        dataset: String,
        /// The split asked for.
        split: String,
        /// The folder that was searched.
        folder: PathBuf,
        /// The splits that exist, sorted.
        available: Vec<String>,
    },

    /// A line of a split list is not one plain file name.
    #[error("{}:{line}: `{text}` is not an id; a line holds one file name without folder and ending", list.display())]
    IllegalId {
        /// The split list.
        list: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The line.
        text: String,
    },

    /// A split list names an image twice, which would count it twice.
    #[error("{}:{second}: `{id}` stands in line {first} already", list.display())]
    DuplicateId {
        /// The split list.
        list: PathBuf,
        /// The repeated id.
        id: String,
        /// Line number of the first mention, from 1.
        first: usize,
        /// Line number of the second mention, from 1.
        second: usize,
    },

    /// A split list, a folder of images or a data set holds nothing.
    #[error("{}: names no image", path.display())]
    Empty {
        /// The list or folder; for a data set in memory, its name.
        path: PathBuf,
    },

    /// Images or label maps of the split do not exist.
    #[error("{dataset}, split {split}: {missing} of {wanted} files are missing: {}{}", paths(first), if *missing > first.len() { ", …" } else { "" })]
    MissingFiles {
        /// The data set's title.
        dataset: String,
        /// The split.
        split: String,
        /// How many files are missing.
        missing: usize,
        /// How many files the split needs.
        wanted: usize,
        /// The first few of the missing files.
        first: Vec<PathBuf>,
    },

    /// COCO-Stuff's label maps are still the raw ones, whose ids have gaps.
    #[error("{}: holds raw COCO ids ({example}) but no `*_labelTrainIds.png`; the 171 classes need converted label maps", folder.display())]
    RawCocoLabels {
        /// The folder of label maps.
        folder: PathBuf,
        /// A file that lies there.
        example: String,
    },

    /// Label maps lie there as they were downloaded, in other numbers than the classes have.
    #[error("{}: {dataset} needs this file, made from {}", wanted.display(), found.display())]
    UnconvertedLabels {
        /// The data set's title.
        dataset: String,
        /// The label map that is needed.
        wanted: PathBuf,
        /// The unconverted one.
        found: PathBuf,
    },

    /// The data set has fewer samples.
    #[error("sample {index} does not exist: {dataset} has {len} samples, counted from 0")]
    NoSuchSample {
        /// The data set's name.
        dataset: String,
        /// The index asked for.
        index: usize,
        /// Number of samples.
        len: usize,
    },

    /// Image and label map differ in size.
    #[error("{} is {}×{} pixels, but its label map {} is {}×{}", image.display(), image_size.0, image_size.1, labels.display(), label_size.0, label_size.1)]
    SizeMismatch {
        /// The image.
        image: PathBuf,
        /// Its width and height.
        image_size: (usize, usize),
        /// The label map.
        labels: PathBuf,
        /// Its width and height.
        label_size: (usize, usize),
    },

    /// A label map holds a value that is no class.
    #[error("{}: label value {value} at ({x}, {y}); {dataset} labels are {legal}", file.display())]
    IllegalLabel {
        /// The label map.
        file: PathBuf,
        /// The value in the file.
        value: u16,
        /// Column of its first occurrence.
        x: usize,
        /// Row of its first occurrence.
        y: usize,
        /// The data set's title.
        dataset: String,
        /// The legal values, in words.
        legal: String,
    },

    /// A label image holds a colour that is no class.
    #[error("{}: colour {colour} at ({x}, {y}); {dataset} colours are {legal}", file.display())]
    IllegalColour {
        /// The label image.
        file: PathBuf,
        /// The colour in the file, `#rrggbb`.
        colour: String,
        /// Column of its first occurrence.
        x: usize,
        /// Row of its first occurrence.
        y: usize,
        /// The data set's title.
        dataset: String,
        /// The legal colours, in words.
        legal: String,
    },

    /// A setting of the preprocessing or the loader is out of range.
    #[error("{setting} is {value}; it must be {legal}")]
    Setting {
        /// The setting's name in a configuration.
        setting: &'static str,
        /// Its value.
        value: String,
        /// What is allowed, in words.
        legal: &'static str,
    },

    /// Bad samples are skipped, but there are too many in a row.
    #[error("{tried} samples in a row cannot be used; the first says: {first}")]
    TooManyBadSamples {
        /// How many were tried.
        tried: usize,
        /// What was wrong with the first.
        first: String,
    },

    /// A loader thread could not be started.
    #[error("a loader thread cannot be started: {0}")]
    Spawn(#[source] io::Error),

    /// A loader thread died. This is a defect of the program and not of the data.
    #[error("a loader thread stopped at draw {draw}: {message}")]
    WorkerPanicked {
        /// Number of the sample in the run.
        draw: u64,
        /// What the thread said.
        message: String,
    },

    /// The loader gave an error before and cannot go on.
    #[error("the loader stopped at an earlier error")]
    LoaderStopped,
}

fn paths(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    names.join(", ")
}

fn available_splits(available: &[String]) -> String {
    if available.is_empty() {
        "no split list is there".to_owned()
    } else {
        format!("there are {}", available.join(", "))
    }
}
