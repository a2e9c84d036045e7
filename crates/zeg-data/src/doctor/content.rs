//! Examines one image and its label file: whether they exist, can be decoded, have one size and hold legal values.

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::Path;

use zeg_image::source::MAX_FILE_BYTES;
use zeg_image::{ColourModel, ImageError, decode_image_bytes, image_header};

use super::collector::Collector;
use super::finding::Code;
use super::{Subject, label_file};
use crate::{DataError, Item, LabelSource};

/// Common endings of the names of label files.
const LABEL_ENDINGS: [&str; 7] = [
    "_mask",
    "_masks",
    "_label",
    "_labels",
    "_seg",
    "_segmentation",
    "_gt",
];

/// Checks only whether the files of a pair exist.
pub(super) fn examine_existence(subject: &Subject, index: usize, collector: &Collector) {
    let Some(item) = subject.dataset.items.get(index) else {
        return;
    };
    let codes = std::iter::once(Code::MissingImage).chain(std::iter::repeat(Code::MissingLabels));
    for (path, code) in item.files().zip(codes) {
        if !path.is_file() {
            missing(subject, path, code, index, collector);
        }
    }
}

/// Examines the contents of the files of a pair.
pub(super) fn examine(subject: &Subject, index: usize, collector: &Collector) {
    let Some(item) = subject.dataset.items.get(index) else {
        return;
    };
    let decoded_image = examine_image(subject, &item.image, index, collector);
    let labels = match &item.source {
        LabelSource::File => examine_labels(subject, &item.labels, index, collector),
        LabelSource::Union(_) | LabelSource::Coco(_) => {
            examine_composed(subject, item, index, collector)
        }
    };
    if let (Some(decoded_image), Some(labels)) = (decoded_image, labels)
        && decoded_image.upright != labels
    {
        let (name, label_name) = (subject.name(&item.image), subject.name(&item.labels));
        let turned = if decoded_image.stored == labels {
            ", the size of the image before its EXIF rotation"
        } else {
            ""
        };
        let (width, height) = decoded_image.upright;
        let text = format!(
            "{name} is {width}×{height}, {label_name} is {}×{}{turned}",
            labels.0, labels.1
        );
        collector.add(Code::SizeMismatch, index, text);
    }
}

/// Width and height of an image, as stored and after its EXIF rotation.
struct Sizes {
    stored: (usize, usize),
    upright: (usize, usize),
}

fn examine_image(
    subject: &Subject,
    path: &Path,
    index: usize,
    collector: &Collector,
) -> Option<Sizes> {
    let name = subject.name(path);
    let bytes = read(
        subject,
        path,
        (Code::MissingImage, Code::UnreadableImage),
        index,
        collector,
    )?;
    let decoded = image_header(&bytes, path)
        .and_then(|header| Ok((header, decode_image_bytes(&bytes, path)?)));
    let (header, decoded_image) = match decoded {
        Ok(decoded) => decoded,
        Err(error) => {
            let text = format!("{name}: {}", reason(&error, path));
            collector.add(Code::UnreadableImage, index, text);
            return None;
        }
    };
    let mut hasher = DefaultHasher::new();
    hasher.write(&bytes);
    collector.add_hash(bytes.len() as u64, hasher.finish(), index);
    if let Some(turn) = header.turn {
        let ((width, height), upright) = (header.stored, header.upright);
        let text = format!(
            "{name}: orientation {}, {}; stored {width}×{height}, upright {}×{}",
            turn.orientation,
            turn.in_words(),
            upright.0,
            upright.1
        );
        collector.add(Code::ExifRotation, index, text);
    }
    if let Some(bits) = decoded_image.unused_bits {
        collector.add(Code::UnusedBits, index, format!("{name}: {bits}"));
    }
    match header.colours {
        ColourModel::Rgb => {}
        ColourModel::Grey => collector.add(Code::GreyImage, index, name),
        ColourModel::Cmyk => collector.add(Code::CmykImage, index, name),
    }
    Some(Sizes {
        stored: header.stored,
        upright: (
            decoded_image.rgb.width() as usize,
            decoded_image.rgb.height() as usize,
        ),
    })
}

/// Counts the values of a label file; returns its size, or `None` if it cannot be decoded.
fn examine_labels(
    subject: &Subject,
    path: &Path,
    index: usize,
    collector: &Collector,
) -> Option<(usize, usize)> {
    let name = subject.name(path);
    let bytes = read(
        subject,
        path,
        (Code::MissingLabels, Code::UnreadableLabels),
        index,
        collector,
    )?;
    let rule = &subject.dataset.label_rule;
    let stored = match rule.decode(&bytes, path) {
        Ok(stored) => stored,
        Err(error) => {
            let code = code_of(&error);
            collector.add(code, index, format!("{name}: {}", reason(&error, path)));
            return None;
        }
    };
    label_file::examine(subject, (&stored, &bytes), (path, &name), index, collector);
    Some(stored.size())
}

/// Counts the values of labels that are composed of several masks or drawn from annotations; returns their size, or
/// `None` if they cannot be composed.
fn examine_composed(
    subject: &Subject,
    item: &Item,
    index: usize,
    collector: &Collector,
) -> Option<(usize, usize)> {
    let path = item.labels.as_path();
    let name = subject.name(path);
    if !path.is_file() {
        missing(subject, path, Code::MissingLabels, index, collector);
        return None;
    }
    let stored = match item.read_labels(&subject.dataset.label_rule) {
        Ok(stored) => stored,
        Err(error) => {
            let code = match &error {
                DataError::Image(error) => code_of(error),
                DataError::MaskBelowThreshold { .. } => Code::MaskBelowThreshold,
                _ => Code::UnreadableLabels,
            };
            let start = format!("{}: ", path.display());
            let text = error.to_string();
            let text = text.strip_prefix(&start).unwrap_or(&text);
            collector.add(code, index, format!("{name}: {text}"));
            return None;
        }
    };
    // Annotations of all images are in one file, so a finding names the image.
    let name = match &item.source {
        LabelSource::Coco(_) => format!("{name}, image {}", item.id),
        LabelSource::File | LabelSource::Union(_) => name,
    };
    label_file::examine(subject, (&stored, &[]), (path, &name), index, collector);
    Some(stored.size())
}

/// Returns the kind of finding for a label file that cannot be decoded.
fn code_of(error: &ImageError) -> Code {
    match error {
        ImageError::LabelsInColour { .. } => Code::ColourLabels,
        ImageError::LabelsLossy { .. } => Code::LossyLabels,
        ImageError::LabelBitDepth { .. } => Code::LabelBitDepth,
        ImageError::MaskInAlpha { .. } => Code::MaskInAlpha,
        ImageError::MaskBelowUpperBits { .. } => Code::MaskBelowUpperBits,
        _ => Code::UnreadableLabels,
    }
}

/// Returns the content of a file, or adds a finding if it cannot be read.
fn read(
    subject: &Subject,
    path: &Path,
    (absent, unreadable): (Code, Code),
    index: usize,
    collector: &Collector,
) -> Option<Vec<u8>> {
    let report_unreadable = |reason: String| {
        collector.add(
            unreadable,
            index,
            format!("{}: {reason}", subject.name(path)),
        );
        None
    };
    // The file type is checked before opening, because opening a pipe that nobody writes to would block for ever.
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            missing(subject, path, absent, index, collector);
            return None;
        }
        Err(error) => return report_unreadable(error.to_string()),
    };
    if !metadata.is_file() {
        return report_unreadable("not a regular file".into());
    }
    if metadata.len() == 0 {
        collector.add(Code::EmptyFile, index, subject.name(path));
        return None;
    }
    if metadata.len() > MAX_FILE_BYTES {
        return report_unreadable(format!(
            "{} bytes; the limit is {MAX_FILE_BYTES} bytes",
            metadata.len()
        ));
    }
    fs::read(path).map_or_else(|error| report_unreadable(error.to_string()), Some)
}

fn missing(subject: &Subject, path: &Path, code: Code, index: usize, collector: &Collector) {
    if code == Code::MissingLabels && subject.unconverted {
        return;
    }
    let name = subject.name(path);
    if let Some(other) = subject.in_other_case(path) {
        let text = format!("{name} is missing, but {} exists", subject.name(&other));
        collector.add(Code::CaseMismatch, index, text);
        return;
    }
    let is_of_labels = code == Code::MissingLabels;
    let advice = is_of_labels.then(|| exclusion(subject, index)).flatten();
    collector.add(code, index, name + &advice.unwrap_or_default());
}

/// Returns how to leave out an image without labels whose id ends like the name of a label file.
fn exclusion(subject: &Subject, index: usize) -> Option<String> {
    let id = subject.dataset.items.get(index)?.id.as_str();
    let mut endings = LABEL_ENDINGS.iter();
    let ending = endings.find(|ending| id.ends_with(**ending))?;
    Some(format!(
        "; if {id} is a label file among the images, leave it out with exclude = [{ending:?}]"
    ))
}

/// Returns an error's text without the path it begins with.
fn reason(error: &ImageError, path: &Path) -> String {
    let text = error.to_string();
    let start = format!("{}: ", path.display());
    text.strip_prefix(&start).unwrap_or(&text).to_owned()
}
