//! Errors of label maps, class lists and the files of an evaluation.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

/// An error of an evaluation or of its files.
#[derive(Debug, Error)]
pub enum EvalError {
    /// Ground truth and prediction have different numbers of pixels.
    #[error("{truth} truth labels, but {prediction} predictions")]
    Length {
        /// Number of pixels in the ground truth.
        truth: usize,
        /// Number of pixels in the prediction.
        prediction: usize,
    },
    /// A true label is neither a class nor the ignore label.
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
    /// A class list or a matrix has another number of classes than the confusion matrix.
    #[error("{found} classes, expected {expected}")]
    Classes {
        /// Number of classes of the confusion matrix.
        expected: usize,
        /// Number of classes that was given.
        found: usize,
    },
    /// There are more pixels than can be counted exactly.
    #[error("more than {limit} pixels, which cannot be counted exactly")]
    TooManyPixels {
        /// Largest number of pixels, [`MAX_PIXELS`](crate::confusion::MAX_PIXELS).
        limit: u64,
    },
    /// A file cannot be read.
    #[error("{}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A file cannot be written.
    #[error("{}: {source}", path.display())]
    Unwritable {
        /// The file.
        path: PathBuf,
        /// Error of the operating system.
        source: io::Error,
    },
    /// A file is larger than the limit.
    #[error("{}: {bytes} bytes; at most {limit} are read", path.display())]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// Its size.
        bytes: u64,
        /// Largest size in bytes.
        limit: u64,
    },
    /// A file is not the JSON of an evaluation.
    #[error("{}: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The error, with line and column.
        source: serde_json::Error,
    },
    /// A line of a log is not a training step.
    #[error("{}, line {line}: {source}", path.display())]
    LogLine {
        /// The log.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// The error.
        source: serde_json::Error,
    },
    /// A file contains an invalid record.
    #[error("{}: {source}", path.display())]
    InFile {
        /// The file.
        path: PathBuf,
        /// The error in the record.
        source: Box<EvalError>,
    },
    /// A record has a format that this version does not support.
    #[error("evaluation record of format {found}; this version reads format {known}")]
    Format {
        /// Its format.
        found: u32,
        /// The supported format.
        known: u32,
    },
    /// A field of a record has an invalid value.
    #[error("{field} is {value}; {expected}")]
    Invalid {
        /// The field.
        field: &'static str,
        /// The value.
        value: String,
        /// Description of the valid values.
        expected: String,
    },
    /// No evaluation is given where at least one is needed.
    #[error("no evaluation given")]
    Nothing,
    /// Evaluations that must agree in a field differ in it.
    #[error("the evaluations differ in {field}: {first} and {second}")]
    Differs {
        /// The first field that differs.
        field: &'static str,
        /// Its value in the first record.
        first: String,
        /// Its value in another record.
        second: String,
    },
    /// Evaluations that must follow from the same facts differ in one, such as in how label files were read.
    #[error("the evaluations differ in {}: {first} and {second}", name.replace(": ", " "))]
    OtherFact {
        /// Name of the first fact that differs, such as `label rule: threshold`.
        name: String,
        /// Its value in the first record; a long one around the first difference.
        first: String,
        /// Its value in another record.
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
    /// A record to merge is a whole evaluation, not a shard.
    #[error(
        "the evaluation of {images} images with {model:?} is not a shard, so it cannot be merged"
    )]
    NotAShard {
        /// Number of its images.
        images: u64,
        /// Its model file.
        model: String,
    },
    /// Shards are missing.
    #[error("of {count} shards, {} missing: {}", if missing.len() == 1 { "1 is".to_owned() } else { format!("{} are", missing.len()) }, joined(missing))]
    ShardsMissing {
        /// Numbers of the missing shards, from 1; at most the first hundred.
        missing: Vec<u64>,
        /// Number of shards of the evaluation.
        count: u64,
    },
    /// A shard is given twice.
    #[error("shard {index} of {count} is given twice")]
    ShardTwice {
        /// Number of the shard, from 1.
        index: u64,
        /// Number of shards of the evaluation.
        count: u64,
    },
    /// An image cannot be compared, because at most one evaluation has it in its gallery.
    #[error("image {id:?} is in the galleries of fewer than two evaluations")]
    NotShared {
        /// Id of the image.
        id: String,
    },
    /// An image is in the evaluation twice.
    #[error("image {id:?} is in the evaluation twice")]
    ImageTwice {
        /// Id of the image.
        id: String,
    },
}

/// Returns a list of numbers such as `2, 5, 7`; at most twelve are written.
fn joined(numbers: &[u64]) -> String {
    let shown: Vec<String> = numbers.iter().take(12).map(u64::to_string).collect();
    let more = if numbers.len() > shown.len() {
        ", …"
    } else {
        ""
    };
    format!("{}{more}", shown.join(", "))
}
