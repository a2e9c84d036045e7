//! What can be wrong with label maps, class lists and the files of an evaluation.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// Input that cannot be evaluated.
#[derive(Debug, Error)]
pub enum EvalError {
    /// Truth and prediction do not cover the same pixels.
    #[error("{truth} truth labels, but {prediction} predictions")]
    Length {
        /// Pixels in the truth.
        truth: usize,
        /// Pixels in the prediction.
        prediction: usize,
    },
    /// A truth label is neither a class nor the ignore label.
    #[error(
        "truth label {value} at pixel {position}; labels are below {classes}, or the ignore label"
    )]
    Label {
        /// The label.
        value: u16,
        /// Index of its pixel.
        position: usize,
        /// Number of classes.
        classes: usize,
    },
    /// A predicted label is not a class.
    #[error("predicted label {value} at pixel {position}; labels are below {classes}")]
    Prediction {
        /// The label.
        value: u16,
        /// Index of its pixel.
        position: usize,
        /// Number of classes.
        classes: usize,
    },
    /// Two things that belong together have different numbers of classes.
    #[error("{found} classes, expected {expected}")]
    Classes {
        /// Classes of the confusion matrix.
        expected: usize,
        /// Classes of what was to go with it.
        found: usize,
    },
    /// More pixels than the counts can hold exactly.
    #[error("more than {limit} pixels, which counts cannot hold exactly")]
    TooManyPixels {
        /// Most pixels, [`MAX_PIXELS`](crate::confusion::MAX_PIXELS).
        limit: u64,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file is larger than any evaluation.
    #[error("{}: {bytes} bytes; at most {limit} are read", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Most bytes that are read.
        limit: u64,
    },
    /// A file is not the JSON of an evaluation.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// What is wrong, with line and column.
        source: serde_json::Error,
    },
    /// A line of a log is no step of a training.
    #[error("{}, line {line}: {source}", path.display())]
    LogLine {
        /// The log.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// A file holds a value that no evaluation has.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// The value.
        source: Box<EvalError>,
    },
    /// A record is of a form that this version does not know.
    #[error("evaluation record of format {found}; this version reads format {known}")]
    Format {
        /// Its format.
        found: u32,
        /// The format that is read.
        known: u32,
    },
    /// A field of a record holds what it cannot hold.
    #[error("{field} is {value}; {expected}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// What it holds.
        value: String,
        /// What it should hold.
        expected: String,
    },
    /// No record where at least one is needed.
    #[error("no evaluation given")]
    Nothing,
    /// Records that should be of one kind are not.
    #[error("the evaluations differ in {field}: {first} and {second}")]
    Differs {
        /// The first field that differs.
        field: &'static str,
        /// Its value in the first record.
        first: String,
        /// Its value in another.
        second: String,
    },
    /// Two models are not known to be trainings of one configuration with different seeds, so no mean is taken over
    /// them.
    #[error("the models are not of different seeds: {first} and {second}")]
    NotSeeds {
        /// Path and seed of one model.
        first: String,
        /// Path and seed of the other.
        second: String,
    },
    /// A record that should be a shard is a whole evaluation.
    #[error(
        "the evaluation of {images} images of {model:?} is no shard; there is nothing to put together"
    )]
    NotAShard {
        /// Its images.
        images: u64,
        /// Its model file.
        model: String,
    },
    /// Shards are missing.
    #[error("of {count} shards, {} missing: {}", if missing.len() == 1 { "1 is".to_owned() } else { format!("{} are", missing.len()) }, joined(missing))]
    ShardsMissing {
        /// The shards, from 1; the first hundred.
        missing: Vec<u64>,
        /// How many there should be.
        count: u64,
    },
    /// A shard is there twice.
    #[error("shard {index} of {count} is given twice")]
    ShardTwice {
        /// The shard, from 1.
        index: u64,
        /// How many there are.
        count: u64,
    },
    /// An image was counted twice.
    #[error("image {id:?} is in the evaluation twice")]
    ImageTwice {
        /// The image.
        id: String,
    },
}

/// Numbers in words, as `2, 5, 7`; no more than fit a line.
fn joined(numbers: &[u64]) -> String {
    let shown: Vec<String> = numbers.iter().take(12).map(u64::to_string).collect();
    let more = if numbers.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    format!("{}{more}", shown.join(", "))
}
