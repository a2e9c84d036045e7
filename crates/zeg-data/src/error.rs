//! Errors of opening a data set, loading its samples and building batches.
//!
//! Every message names the file and the wrong value; where a name is unknown, it lists the known names.

use std::io;
use std::path::PathBuf;

use zeg_base::names::did_you_mean;
use zeg_base::plural::{counted, noun_for};
use zeg_image::ImageError;
use zeg_vocab::classes::{ClassError, SplitError};
use zeg_vocab::text_file::TextFileError;

/// Largest number of files that a message lists.
const SHOWN: usize = 4;

/// An error of opening a data set, loading a sample or building a batch.
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

    /// The requested unseen classes are not a valid split of the class list.
    #[error("unseen classes: {0}")]
    Unseen(#[from] SplitError),

    /// The data set cannot be read with this class list.
    #[error("{dataset} cannot be read with the class list `{list}`; its class lists are {}{}", known.join(", "), did_you_mean(list, known.iter().map(String::as_str)))]
    ClassList {
        /// The data set's title.
        dataset: String,
        /// The requested class list.
        list: String,
        /// The class lists the data set can be read with.
        known: Vec<String>,
    },

    /// A data set's description is not TOML, has unknown keys, or has illegal values.
    #[error("{}: line {line}: {reason}", path.display())]
    Description {
        /// The file.
        path: PathBuf,
        /// Line, from 1.
        line: usize,
        /// What is wrong, with the value.
        reason: String,
    },

    /// A file or folder could not be read.
    #[error("{}: cannot be read: {source}", path.display())]
    Unreadable {
        /// The file or folder.
        path: PathBuf,
        /// The operating system's error.
        source: io::Error,
    },

    /// No data set has this name.
    #[error("no data set is called `{name}`; known names are {}, or the path of a .toml file that describes a data set{}", crate::datasets::names(|_| true), closest_dataset(name))]
    UnknownDataset {
        /// The requested name.
        name: String,
    },

    /// The settings of a mini world are out of range.
    #[error("the mini world: {0}")]
    World(#[source] Box<crate::mini_world::WorldError>),

    /// A class list or unseen classes are named for a mini world, which has its own.
    #[error("the mini world takes no {what} (`{value}`): {instead}")]
    WorldClasses {
        /// What was named: `class list` or `list of unseen classes`.
        what: &'static str,
        /// The name.
        value: String,
        /// Where its classes come from.
        instead: &'static str,
    },

    /// The folder does not hold the data set.
    #[error("{}: this folder holds no {dataset} data set; looked for {}", root.display(), paths(looked_for))]
    RootNotFound {
        /// The data set's title.
        dataset: String,
        /// The folder that was given.
        root: PathBuf,
        /// The folders of which at least one must exist.
        looked_for: Vec<PathBuf>,
    },

    /// The data set has no such split.
    #[error("{dataset} has no split `{split}` in {}; {}{}", folder.display(), available_splits(available), did_you_mean(split, available.iter().map(String::as_str)))]
    SplitNotFound {
        /// The data set's title.
        dataset: String,
        /// The requested split.
        split: String,
        /// The folder that was searched.
        folder: PathBuf,
        /// The splits that exist, sorted.
        available: Vec<String>,
    },

    /// A line of a split list names no image.
    #[error("{}:{line}: `{text}` is not an id; each line must be a file name without folder and extension, the path of an image, or the paths of an image and its label file", list.display())]
    IllegalId {
        /// The split list.
        list: PathBuf,
        /// Line number, from 1.
        line: usize,
        /// The line.
        text: String,
    },

    /// A split list names an image twice, which would count it twice.
    #[error("{}:{second}: `{id}` is already listed in line {first}", list.display())]
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

    /// A split list, a folder of images or a data set holds no image.
    #[error("{}: no image is listed or found", path.display())]
    Empty {
        /// The list or folder, or the name of a data set in memory.
        path: PathBuf,
    },

    /// Files in the folder of images look like images of the data set and are not part of it.
    #[error("{}: {} would be left out: {}{}", folder.display(), counted(files.len(), "image"), paths(files.get(..SHOWN).unwrap_or(files)), if files.len() > SHOWN { ", …" } else { "" })]
    LeftOut {
        /// The folder of images.
        folder: PathBuf,
        /// The files: their names differ from `images` in upper and lower case, or another image has the same id.
        files: Vec<PathBuf>,
    },

    /// The name of an image or label file is not UTF-8, so it has no id.
    #[error("{}: the name of the file is not UTF-8", path.display())]
    NameNotUtf8 {
        /// The file.
        path: PathBuf,
    },

    /// Images or label maps of the split do not exist.
    #[error("{dataset}, split {split}: {missing} of {} {} missing: {}{}", counted(*wanted, "file"), if *missing == 1 { "is" } else { "are" }, paths(first), if *missing > first.len() { ", …" } else { "" })]
    MissingFiles {
        /// The data set's title.
        dataset: String,
        /// The split.
        split: String,
        /// Number of missing files.
        missing: usize,
        /// Number of files the split needs.
        wanted: usize,
        /// The first few of the missing files.
        first: Vec<PathBuf>,
    },

    /// COCO-Stuff's label maps are not converted: they hold raw ids, which have gaps.
    #[error("{}: holds label maps of raw COCO ids ({example}) but no `*_labelTrainIds.png`; the 171 classes need converted label maps", folder.display())]
    RawCocoLabels {
        /// The folder of label maps.
        folder: PathBuf,
        /// A raw label map in the folder.
        example: String,
    },

    /// Label maps are not converted: they hold the ids of the download instead of class indices.
    #[error("{}: this label map is missing; {dataset} needs it, converted from {}", wanted.display(), found.display())]
    UnconvertedLabels {
        /// The data set's title.
        dataset: String,
        /// The label map that is needed.
        wanted: PathBuf,
        /// The unconverted label map that was found.
        found: PathBuf,
    },

    /// The sample index is beyond the end of the data set.
    #[error("sample {index} does not exist: {dataset} has {}, counted from 0", counted(*len, "sample"))]
    NoSuchSample {
        /// The data set's name.
        dataset: String,
        /// The requested index.
        index: usize,
        /// Number of samples.
        len: usize,
    },

    /// An image and its label map differ in size.
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

    /// Two masks of one image differ in size.
    #[error("{} is {}×{} pixels, but {}, a mask of the same image, is {}×{}", first.display(), first_size.0, first_size.1, second.display(), second_size.0, second_size.1)]
    MaskSizes {
        /// A mask.
        first: PathBuf,
        /// Its width and height.
        first_size: (usize, usize),
        /// Another mask.
        second: PathBuf,
        /// Its width and height.
        second_size: (usize, usize),
    },

    /// A file of COCO annotations cannot be read, or the annotations of an image cannot be drawn.
    #[error("{}: {reason}", path.display())]
    Annotations {
        /// The file.
        path: PathBuf,
        /// What is wrong, with the image and the value.
        reason: String,
    },

    /// A binary mask has levels above 0, but none reaches the threshold, so that it would be read as empty.
    #[error("{}: the largest level of this mask is {largest}, below the `threshold` of {threshold}, so that every pixel would be background", file.display())]
    MaskBelowThreshold {
        /// The mask.
        file: PathBuf,
        /// Its largest grey level, at least 1; pure red is 76 and pure blue is 29.
        largest: u16,
        /// The grey level from which on pixels are foreground.
        threshold: u8,
    },

    /// Two images of a split have the same id, after which results are named.
    #[error("{}: this image and {} have the same id `{id}`, after which results are named", second.display(), first.display())]
    SameId {
        /// The id.
        id: String,
        /// The image that is listed first.
        first: PathBuf,
        /// The other image, which may be the same file.
        second: PathBuf,
    },

    /// The description of a data set with COCO annotations names no file of them for a split.
    #[error(
        "{dataset}: no file of COCO annotations is named for this split; name it with labels.file"
    )]
    NoAnnotations {
        /// The data set's title.
        dataset: String,
    },

    /// Categories of COCO annotations are not classes of the data set.
    #[error("{}: no class of {dataset} has the name of the {}; its classes are {}", path.display(), categories(names), listed(classes))]
    UnknownCategories {
        /// The file.
        path: PathBuf,
        /// The data set's title.
        dataset: String,
        /// Names of the categories.
        names: Vec<String>,
        /// The class names.
        classes: Vec<String>,
    },

    /// A label map holds a value that is neither a class nor the ignore index.
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
        /// The legal values as text.
        legal: String,
    },

    /// A label image holds a colour that stands for neither a class nor ignored pixels.
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
        /// The legal colours as text.
        legal: String,
    },

    /// A setting of the preprocessing or the loader is out of range.
    #[error("{setting} is {value}; it must be {legal}")]
    Setting {
        /// The setting's name in a configuration.
        setting: &'static str,
        /// Its value.
        value: String,
        /// A description of the legal values.
        legal: &'static str,
    },

    /// Bad samples are skipped, but there are too many in a row.
    #[error("{tried} samples in a row cannot be loaded; the first error is: {first}")]
    TooManyBadSamples {
        /// Number of samples that were tried.
        tried: usize,
        /// The error of the first sample.
        first: String,
    },

    /// A loader thread could not be started.
    #[error("a loader thread cannot be started: {0}")]
    Spawn(#[source] io::Error),

    /// A loader thread panicked. This is a defect of the program and not of the data.
    #[error("a loader thread panicked at draw {draw}: {message}")]
    WorkerPanicked {
        /// Number of the sample in the run.
        draw: u64,
        /// The panic message.
        message: String,
    },

    /// The loader returned an error before and cannot continue.
    #[error("the loader stopped because of an earlier error")]
    LoaderStopped,
}

/// Returns the end of a message about an unknown data set.
fn closest_dataset(name: &str) -> String {
    let known = crate::datasets::all().map(|entry| entry.name);
    did_you_mean(name, known.chain([crate::mini_world::DATASET]))
}

fn paths(paths: &[PathBuf]) -> String {
    let names: Vec<String> = paths
        .iter()
        .map(|path| path.display().to_string())
        .collect();
    names.join(", ")
}

fn categories(names: &[String]) -> String {
    let noun = noun_for(names.len(), "category");
    format!("{noun} {}", listed(names))
}

/// Returns the first names, quoted.
fn listed(names: &[String]) -> String {
    const SHOWN: usize = 12;
    let shown = names.iter().take(SHOWN).map(|name| format!("{name:?}"));
    let mut shown: Vec<String> = shown.collect();
    if names.len() > SHOWN {
        shown.push(format!("… ({} in all)", names.len()));
    }
    shown.join(", ")
}

fn available_splits(available: &[String]) -> String {
    if available.is_empty() {
        "the folder holds no split list".to_owned()
    } else {
        format!("its splits are {}", available.join(", "))
    }
}
