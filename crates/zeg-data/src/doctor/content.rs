//! One image and its label file: do they exist, decode, fit together, and hold what they should?

use std::fs;
use std::hash::{DefaultHasher, Hasher};
use std::io;
use std::path::Path;

use zeg_image::source::MAX_FILE_BYTES;
use zeg_image::{ColourModel, ImageError, decode_rgb_bytes, image_header};

use super::collector::Collector;
use super::finding::Code;
use super::{Patient, label_file};

/// Asks only whether the files of a pair exist.
pub(super) fn examine_existence(patient: &Patient, index: usize, collector: &Collector) {
    let Some(item) = patient.dataset.items.get(index) else {
        return;
    };
    for (path, code) in [
        (&item.image, Code::MissingImage),
        (&item.labels, Code::MissingLabels),
    ] {
        if !path.is_file() {
            missing(patient, path, code, index, collector);
        }
    }
}

/// Looks into the files of a pair.
pub(super) fn examine(patient: &Patient, index: usize, collector: &Collector) {
    let Some(item) = patient.dataset.items.get(index) else {
        return;
    };
    let decoded_image = examine_image(patient, &item.image, index, collector);
    let labels = examine_labels(patient, &item.labels, index, collector);
    if let (Some(decoded_image), Some(labels)) = (decoded_image, labels)
        && decoded_image.upright != labels
    {
        let (name, label_name) = (patient.name(&item.image), patient.name(&item.labels));
        let turned = if decoded_image.stored == labels {
            ", before the turn that its EXIF note asks for"
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

/// Sizes of an image.
struct Sizes {
    stored: (usize, usize),
    upright: (usize, usize),
}

fn examine_image(
    patient: &Patient,
    path: &Path,
    index: usize,
    collector: &Collector,
) -> Option<Sizes> {
    let name = patient.name(path);
    let bytes = read(
        patient,
        path,
        (Code::MissingImage, Code::UnreadableImage),
        index,
        collector,
    )?;
    let decoded =
        image_header(&bytes, path).and_then(|header| Ok((header, decode_rgb_bytes(&bytes, path)?)));
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
    if header.stored != header.upright {
        let (width, height) = header.stored;
        let text = format!("{name}: stored {width}×{height}, upright {height}×{width}");
        collector.add(Code::ExifRotation, index, text);
    }
    match header.colours {
        ColourModel::Rgb => {}
        ColourModel::Grey => collector.add(Code::GreyImage, index, name),
        ColourModel::Cmyk => collector.add(Code::CmykImage, index, name),
    }
    Some(Sizes {
        stored: header.stored,
        upright: (
            decoded_image.width() as usize,
            decoded_image.height() as usize,
        ),
    })
}

/// Counts what a label file holds; its size, if it has one.
fn examine_labels(
    patient: &Patient,
    path: &Path,
    index: usize,
    collector: &Collector,
) -> Option<(usize, usize)> {
    let name = patient.name(path);
    let bytes = read(
        patient,
        path,
        (Code::MissingLabels, Code::UnreadableLabels),
        index,
        collector,
    )?;
    let rule = &patient.dataset.label_rule;
    let stored = match rule.decode(&bytes, path) {
        Ok(stored) => stored,
        Err(error) => {
            let code = match error {
                ImageError::LabelsInColour { .. } => Code::ColourLabels,
                ImageError::LabelsNotPng { .. } => Code::LossyLabels,
                ImageError::LabelBitDepth { .. } => Code::LabelBitDepth,
                _ => Code::UnreadableLabels,
            };
            collector.add(code, index, format!("{name}: {}", reason(&error, path)));
            return None;
        }
    };
    label_file::examine(patient, (&stored, &bytes), (path, &name), index, collector);
    Some(stored.size())
}

/// The content of a file, or a finding.
fn read(
    patient: &Patient,
    path: &Path,
    (absent, unreadable): (Code, Code),
    index: usize,
    collector: &Collector,
) -> Option<Vec<u8>> {
    let refuse = |reason: String| {
        collector.add(
            unreadable,
            index,
            format!("{}: {reason}", patient.name(path)),
        );
        None
    };
    // Asked before opening: opening a pipe that nobody writes to would wait for ever.
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            missing(patient, path, absent, index, collector);
            return None;
        }
        Err(error) => return refuse(error.to_string()),
    };
    if !metadata.is_file() {
        return refuse("not a regular file".into());
    }
    if metadata.len() == 0 {
        collector.add(Code::EmptyFile, index, patient.name(path));
        return None;
    }
    if metadata.len() > MAX_FILE_BYTES {
        return refuse(format!("{} bytes", metadata.len()));
    }
    fs::read(path).map_or_else(|error| refuse(error.to_string()), Some)
}

fn missing(patient: &Patient, path: &Path, code: Code, index: usize, collector: &Collector) {
    if code == Code::MissingLabels && patient.unconverted {
        return;
    }
    let name = patient.name(path);
    match patient.in_other_case(path) {
        Some(other) => {
            let text = format!("{name} is missing, {} is there", patient.name(&other));
            collector.add(Code::CaseMismatch, index, text);
        }
        None => collector.add(code, index, name),
    }
}

/// An error's text without the path that it begins with.
fn reason(error: &ImageError, path: &Path) -> String {
    let text = error.to_string();
    let start = format!("{}: ", path.display());
    text.strip_prefix(&start).unwrap_or(&text).to_owned()
}
