//! Writing images and label maps as PNG, whole or not at all.
//!
//! A full disk or an interruption leaves whatever stood there before, and no reader ever sees half a file
//! ([`zeg_base::file`]).

use std::io;
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use png::{BitDepth, ColorType, Compression, Encoder, EncodingError};
use zeg_base::file::{NewFile, Overwrite};

use crate::{IGNORE_LABEL, ImageError, LabelMap, RgbImage, voc_palette};

/// How 8-bit label files write [`IGNORE_LABEL`].
const IGNORE_BYTE: u8 = 255;

/// Keyword of the PNG text chunk that holds the class names, a JSON list in the order of the labels.
const CLASS_NAMES_KEYWORD: &str = "zeg:classes";
/// Most bytes the list of class names may take in a PNG; readers refuse longer texts (Pillow's limit is the
/// same).
pub const MAX_CLASS_NAMES_BYTES: usize = 1 << 20;

/// Writes a label map as a PNG that viewers show in colour and programs read as indices.
///
/// Up to 255 classes (labels and `palette` both) give an 8-bit indexed PNG: [`IGNORE_LABEL`] becomes 255,
/// shown in VOC's cream; labels without a colour of their own are shown in those of [`voc_palette`]. With more
/// classes the file is a 16-bit grey PNG, where [`IGNORE_LABEL`] stays 65535 and `palette` has no place.
/// The length of `palette` takes part so that all files of one class list have the same form.
///
/// # Errors
/// [`ImageError::ZeroSize`] for an empty map, which PNG cannot hold; [`ImageError::TooLarge`] for sides
/// beyond 2³²; [`ImageError::Unwritable`] otherwise, with the old file untouched.
pub fn write_indexed_png(
    path: &Path,
    labels: &LabelMap,
    palette: &[[u8; 3]],
) -> Result<(), ImageError> {
    write_labels(path, labels, palette, Vec::new())
}

/// Writes a label map like [`write_indexed_png`], and into the file the names of its classes.
///
/// The names stand in an international text chunk with the keyword `zeg:classes`, as a JSON list:
/// the entry at an index names the label of that value. The chunk `Software` names this program and its
/// version. A list of more than [`MAX_CLASS_NAMES_BYTES`] is left out, since many programs would refuse the
/// whole file for it; the answer says whether that happened.
///
/// # Errors
/// As [`write_indexed_png`].
pub fn write_named_png(
    path: &Path,
    labels: &LabelMap,
    palette: &[[u8; 3]],
    names: &[String],
) -> Result<ClassNames, ImageError> {
    let list = serde_json::to_string(names).map_err(|source| ImageError::Unwritable {
        path: path.into(),
        source: source.into(),
    })?;
    let mut notes = vec![(
        "Software",
        concat!("zeg ", env!("CARGO_PKG_VERSION")).to_owned(),
    )];
    let outcome = if list.len() > MAX_CLASS_NAMES_BYTES {
        ClassNames::TooLong { bytes: list.len() }
    } else {
        notes.push((CLASS_NAMES_KEYWORD, list));
        ClassNames::Written
    };
    write_labels(path, labels, palette, notes)?;
    Ok(outcome)
}

/// Whether a label file got the names of its classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum ClassNames {
    /// The file holds the names.
    Written,
    /// The list is longer than [`MAX_CLASS_NAMES_BYTES`]; the file holds the labels alone.
    TooLong {
        /// Length of the JSON list in bytes.
        bytes: usize,
    },
}

fn write_labels(
    path: &Path,
    labels: &LabelMap,
    palette: &[[u8; 3]],
    notes: Vec<(&'static str, String)>,
) -> Result<(), ImageError> {
    let most = usize::from(IGNORE_BYTE);
    let fits_bytes = palette.len() <= most
        && labels
            .labels()
            .iter()
            .all(|&label| label == IGNORE_LABEL || usize::from(label) < most);
    let form = if fits_bytes {
        Form {
            colour: ColorType::Indexed,
            depth: BitDepth::Eight,
            palette: Some(full_palette(palette)),
            notes,
        }
    } else {
        Form {
            colour: ColorType::Grayscale,
            depth: BitDepth::Sixteen,
            palette: None,
            notes,
        }
    };
    let samples: Vec<u8> = if fits_bytes {
        // IGNORE_LABEL, all ones, becomes 255 by losing its upper half.
        labels.labels().iter().map(|&label| label as u8).collect()
    } else {
        labels
            .labels()
            .iter()
            .flat_map(|label| label.to_be_bytes())
            .collect()
    };
    write_png(path, labels.width(), labels.height(), form, &samples)
}

/// Writes an image as an 8-bit RGB PNG.
///
/// # Errors
/// [`ImageError::ZeroSize`] for an empty image, which PNG cannot hold; [`ImageError::Unwritable`]
/// otherwise, with the old file untouched.
pub fn write_rgb_png(path: &Path, image: &RgbImage) -> Result<(), ImageError> {
    let form = Form {
        colour: ColorType::Rgb,
        depth: BitDepth::Eight,
        palette: None,
        notes: Vec::new(),
    };
    write_png(
        path,
        image.width() as usize,
        image.height() as usize,
        form,
        image.as_raw(),
    )
}

/// JPEG quality of [`write_jpeg`], 1..=100; outlines of classes stay clean from about 80 on.
const JPEG_QUALITY: u8 = 85;

/// Writes an image as a JPEG of quality 85, for people to look at.
///
/// # Errors
/// [`ImageError::ZeroSize`] for an empty image; [`ImageError::Unwritable`] otherwise, with the old file untouched.
pub fn write_jpeg(path: &Path, image: &RgbImage) -> Result<(), ImageError> {
    let (width, height) = (image.width() as usize, image.height() as usize);
    if width == 0 || height == 0 {
        return Err(ImageError::ZeroSize {
            path: path.into(),
            width,
            height,
        });
    }
    let unwritable = |source| ImageError::Unwritable {
        path: path.into(),
        source,
    };
    let mut file = NewFile::create(path, Overwrite::Replace).map_err(unwritable)?;
    let mut encoder = JpegEncoder::new_with_quality(&mut file, JPEG_QUALITY);
    encoder.encode_image(image).map_err(|error| {
        unwritable(match error {
            image::ImageError::IoError(source) => source,
            other => io::Error::other(other),
        })
    })?;
    file.finish().map_err(unwritable)
}

/// How the samples of a PNG are to be read.
struct Form {
    colour: ColorType,
    depth: BitDepth,
    /// 256 RGB entries, for indexed files.
    palette: Option<Vec<u8>>,
    /// Keywords and texts that travel with the file.
    notes: Vec<(&'static str, String)>,
}

/// All 256 colours of an 8-bit file: the given ones, VOC's for the rest, VOC's cream for 255.
fn full_palette(palette: &[[u8; 3]]) -> Vec<u8> {
    let mut colours = voc_palette(256);
    for (colour, given) in colours.iter_mut().zip(palette) {
        *colour = *given;
    }
    colours.concat()
}

fn write_png(
    path: &Path,
    width: usize,
    height: usize,
    form: Form,
    samples: &[u8],
) -> Result<(), ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::ZeroSize {
            path: path.into(),
            width,
            height,
        });
    }
    let (Ok(columns), Ok(rows)) = (u32::try_from(width), u32::try_from(height)) else {
        return Err(ImageError::TooLarge {
            path: path.into(),
            width,
            height,
            limit: u32::MAX as usize,
        });
    };
    replace_file(path, |file| {
        let mut encoder = Encoder::new(file, columns, rows);
        encoder.set_color(form.colour);
        encoder.set_depth(form.depth);
        encoder.set_compression(Compression::Balanced);
        if let Some(palette) = form.palette {
            // Neighbouring indices are names, not amounts: their differences compress worse.
            encoder.set_filter(png::Filter::NoFilter);
            encoder.set_palette(palette);
        }
        for (keyword, text) in form.notes {
            encoder.add_itxt_chunk(keyword.into(), text)?;
        }
        let mut writer = encoder.write_header()?;
        writer.write_image_data(samples)?;
        writer.finish()
    })
    .map_err(|source| ImageError::Unwritable {
        path: path.into(),
        source,
    })
}

/// Lets `fill` write a new file and puts it in the place of `path` only if all of it arrived.
fn replace_file(
    path: &Path,
    fill: impl FnOnce(&mut NewFile) -> Result<(), EncodingError>,
) -> io::Result<()> {
    let mut file = NewFile::create(path, Overwrite::Replace)?;
    fill(&mut file).map_err(|error| match error {
        EncodingError::IoError(source) => source,
        other => io::Error::other(other),
    })?;
    file.finish()
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::io::Write as _;

    use super::*;

    #[test]
    fn a_full_disk_leaves_the_old_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.png");
        fs::write(&path, b"old").unwrap();
        let result = replace_file(&path, |file| {
            file.write_all(b"half of the new")?;
            Err(io::Error::from(io::ErrorKind::StorageFull).into())
        });
        assert_eq!(result.unwrap_err().kind(), io::ErrorKind::StorageFull);
        assert_eq!(fs::read(&path).unwrap(), b"old");
        assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
