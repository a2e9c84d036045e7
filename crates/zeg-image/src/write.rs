//! Writes images as PNG and JPEG and label maps as PNG; a file appears complete or not at all.
//!
//! After a full disk or an interruption, the previous file is unchanged, and no reader ever sees an incomplete file
//! ([`zeg_base::file`]).

use std::io::{self, Write};
use std::path::Path;

use image::codecs::jpeg::JpegEncoder;
use png::{BitDepth, ColorType, Compression, Encoder, EncodingError};
use zeg_base::file::{NewFile, Overwrite};

use crate::{IGNORE_LABEL, ImageError, LabelMap, RgbImage, voc_palette};

/// The value of [`IGNORE_LABEL`] in 8-bit label files.
const IGNORE_BYTE: u8 = 255;

/// Keyword of the PNG text chunk with the class names, a JSON list in the order of the labels.
const CLASS_NAMES_KEYWORD: &str = "zeg:classes";
/// The largest size of the list of class names in a PNG, in bytes; readers such as Pillow refuse longer texts.
pub const MAX_CLASS_NAMES_BYTES: usize = 1 << 20;

/// Writes a label map as a PNG that viewers show in colour and programs read as indices.
///
/// If labels and `palette` both have at most 255 classes, the file is an 8-bit indexed PNG. [`IGNORE_LABEL`] becomes
/// 255 with VOC's cream, and labels beyond the palette get the colours of [`voc_palette`]. With more classes, the file
/// is a 16-bit grey PNG, where [`IGNORE_LABEL`] stays 65535 and `palette` is not used. The length of `palette` counts
/// so that all files with the same class list have the same form.
///
/// # Errors
/// Returns [`ImageError::ZeroSize`] for an empty map, which PNG cannot represent; [`ImageError::TooLarge`] if a side
/// has 2³² pixels or more; and [`ImageError::Unwritable`] if writing fails, with an existing file unchanged.
pub fn write_indexed_png(
    path: &Path,
    labels: &LabelMap,
    palette: &[[u8; 3]],
) -> Result<(), ImageError> {
    write_labels(path, labels, palette, Vec::new())
}

/// Writes a label map like [`write_indexed_png`], and stores the class names in the file.
///
/// The names are a JSON list in an international text chunk with the keyword `zeg:classes`; the entry at index `i` is
/// the name of label `i`. The chunk `Software` has the name and version of this program. A list longer than
/// [`MAX_CLASS_NAMES_BYTES`] is left out, because many programs would refuse the whole file; the returned value says
/// whether it was written.
///
/// # Errors
/// Returns the errors of [`write_indexed_png`].
pub fn write_named_png(
    path: &Path,
    labels: &LabelMap,
    palette: &[[u8; 3]],
    names: &[String],
) -> Result<ClassNames, ImageError> {
    let (texts, outcome) = name_texts(path, names)?;
    write_labels(path, labels, palette, texts)?;
    Ok(outcome)
}

/// Encodes a label map as the PNG that [`write_named_png`] writes, and returns its bytes.
///
/// - `name`: name of the output in errors
///
/// # Errors
/// Returns the errors of [`write_named_png`].
pub fn encode_named_png(
    name: &Path,
    labels: &LabelMap,
    palette: &[[u8; 3]],
    names: &[String],
) -> Result<Vec<u8>, ImageError> {
    let (texts, _) = name_texts(name, names)?;
    let (form, samples) = label_form(labels, palette, texts);
    png_bytes(name, labels.width(), labels.height(), form, &samples)
}

/// Text chunks of a PNG file: keyword and text.
type Texts = Vec<(&'static str, String)>;

/// Returns the text chunks of a label map, and whether the class names are among them.
fn name_texts(path: &Path, names: &[String]) -> Result<(Texts, ClassNames), ImageError> {
    let list = serde_json::to_string(names).map_err(|source| ImageError::Unwritable {
        path: path.into(),
        source: source.into(),
    })?;
    let mut texts = vec![(
        "Software",
        concat!("zeg ", env!("CARGO_PKG_VERSION")).to_owned(),
    )];
    let outcome = if list.len() > MAX_CLASS_NAMES_BYTES {
        ClassNames::TooLong { bytes: list.len() }
    } else {
        texts.push((CLASS_NAMES_KEYWORD, list));
        ClassNames::Written
    };
    Ok((texts, outcome))
}

/// Whether the class names were written into a label file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[must_use]
pub enum ClassNames {
    /// The file contains the class names.
    Written,
    /// The list is longer than [`MAX_CLASS_NAMES_BYTES`], so the file contains only the labels.
    TooLong {
        /// Length of the JSON list in bytes.
        bytes: usize,
    },
}

fn write_labels(
    path: &Path,
    labels: &LabelMap,
    palette: &[[u8; 3]],
    texts: Vec<(&'static str, String)>,
) -> Result<(), ImageError> {
    let (form, samples) = label_form(labels, palette, texts);
    write_png(path, labels.width(), labels.height(), form, &samples)
}

/// Returns the form of a label map's PNG and its samples, row-major.
fn label_form(
    labels: &LabelMap,
    palette: &[[u8; 3]],
    texts: Vec<(&'static str, String)>,
) -> (Form, Vec<u8>) {
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
            texts,
        }
    } else {
        Form {
            colour: ColorType::Grayscale,
            depth: BitDepth::Sixteen,
            palette: None,
            texts,
        }
    };
    let samples: Vec<u8> = if fits_bytes {
        // The cast keeps the lower 8 bits, so that IGNORE_LABEL, all ones, becomes 255.
        labels.labels().iter().map(|&label| label as u8).collect()
    } else {
        labels
            .labels()
            .iter()
            .flat_map(|label| label.to_be_bytes())
            .collect()
    };
    (form, samples)
}

/// Writes an image as an 8-bit RGB PNG.
///
/// # Errors
/// Returns [`ImageError::ZeroSize`] for an empty image, which PNG cannot represent, and [`ImageError::Unwritable`] if
/// writing fails, with an existing file unchanged.
pub fn write_rgb_png(path: &Path, image: &RgbImage) -> Result<(), ImageError> {
    let form = Form::plain(ColorType::Rgb);
    write_png(
        path,
        image.width() as usize,
        image.height() as usize,
        form,
        image.as_raw(),
    )
}

/// Encodes an image as the PNG that [`write_rgb_png`] writes, and returns its bytes.
///
/// - `name`: name of the output in errors
///
/// # Errors
/// Returns the errors of [`write_rgb_png`].
pub fn encode_rgb_png(name: &Path, image: &RgbImage) -> Result<Vec<u8>, ImageError> {
    let form = Form::plain(ColorType::Rgb);
    let (width, height) = (image.width() as usize, image.height() as usize);
    png_bytes(name, width, height, form, image.as_raw())
}

/// Encodes numbers from 0 to 1 as an 8-bit grey PNG, 255 for 1, and returns its bytes.
///
/// - `name`: name of the output in errors
/// - `values`: `[height, width]`; what is outside of 0..=1 or no number counts as the nearest end, or as 0
///
/// # Errors
/// Returns the errors of [`write_rgb_png`], and [`ImageError::LabelCount`] if the number of values does not fit the
/// size.
pub fn encode_grey_png(
    name: &Path,
    width: usize,
    height: usize,
    values: &[f32],
) -> Result<Vec<u8>, ImageError> {
    if values.len() != width.saturating_mul(height) {
        return Err(ImageError::LabelCount {
            width,
            height,
            labels: values.len(),
        });
    }
    // The cast turns NaN into 0.
    let grey = |value: &f32| (value.clamp(0.0, 1.0) * 255.0).round() as u8;
    let samples: Vec<u8> = values.iter().map(grey).collect();
    png_bytes(
        name,
        width,
        height,
        Form::plain(ColorType::Grayscale),
        &samples,
    )
}

/// Encodes samples as a PNG in memory.
fn png_bytes(
    name: &Path,
    width: usize,
    height: usize,
    form: Form,
    samples: &[u8],
) -> Result<Vec<u8>, ImageError> {
    let sides = sides(name, width, height)?;
    let mut bytes = Vec::new();
    encode_png(&mut bytes, sides, form, samples).map_err(|error| ImageError::Unwritable {
        path: name.into(),
        source: into_io(error),
    })?;
    Ok(bytes)
}

/// JPEG quality of [`write_jpeg`], 1..=100; contours of classes look clean from about 80 on.
const JPEG_QUALITY: u8 = 85;

/// Writes an image for viewing, as a JPEG of quality 85.
///
/// # Errors
/// Returns [`ImageError::ZeroSize`] for an empty image, and [`ImageError::Unwritable`] if writing fails, with an
/// existing file unchanged.
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

/// The sample format and metadata of a PNG.
struct Form {
    colour: ColorType,
    depth: BitDepth,
    /// 256 RGB entries, for indexed files only.
    palette: Option<Vec<u8>>,
    /// Keywords and contents of the text chunks.
    texts: Vec<(&'static str, String)>,
}

impl Form {
    /// Returns the form of samples of 8 bits without a palette and texts.
    fn plain(colour: ColorType) -> Self {
        Self {
            colour,
            depth: BitDepth::Eight,
            palette: None,
            texts: Vec::new(),
        }
    }
}

/// Returns all 256 colours of an indexed file: the given ones, and VOC's for the rest, with VOC's cream for 255.
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
    let sides = sides(path, width, height)?;
    replace_file(path, |file| encode_png(file, sides, form, samples)).map_err(|source| {
        ImageError::Unwritable {
            path: path.into(),
            source,
        }
    })
}

/// Returns the number of columns and rows as PNG stores them.
fn sides(path: &Path, width: usize, height: usize) -> Result<[u32; 2], ImageError> {
    if width == 0 || height == 0 {
        return Err(ImageError::ZeroSize {
            path: path.into(),
            width,
            height,
        });
    }
    match (u32::try_from(width), u32::try_from(height)) {
        (Ok(columns), Ok(rows)) => Ok([columns, rows]),
        _ => Err(ImageError::TooLarge {
            path: path.into(),
            width,
            height,
            limit: u32::MAX as usize,
        }),
    }
}

fn encode_png(
    file: &mut impl Write,
    [columns, rows]: [u32; 2],
    form: Form,
    samples: &[u8],
) -> Result<(), EncodingError> {
    let mut encoder = Encoder::new(file, columns, rows);
    encoder.set_color(form.colour);
    encoder.set_depth(form.depth);
    encoder.set_compression(Compression::Balanced);
    if let Some(palette) = form.palette {
        // Indices are names, not amounts, so differences of neighbouring indices compress worse than the indices.
        encoder.set_filter(png::Filter::NoFilter);
        encoder.set_palette(palette);
    }
    for (keyword, text) in form.texts {
        encoder.add_itxt_chunk(keyword.into(), text)?;
    }
    let mut writer = encoder.write_header()?;
    writer.write_image_data(samples)?;
    writer.finish()
}

/// Writes a new file with `fill` and moves it to `path` only if it is complete.
fn replace_file(
    path: &Path,
    fill: impl FnOnce(&mut NewFile) -> Result<(), EncodingError>,
) -> io::Result<()> {
    let mut file = NewFile::create(path, Overwrite::Replace)?;
    fill(&mut file).map_err(into_io)?;
    file.finish()
}

fn into_io(error: EncodingError) -> io::Error {
    match error {
        EncodingError::IoError(source) => source,
        other => io::Error::other(other),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_label_map_in_memory_has_the_bytes_of_the_file() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("labels.png");
        let labels = LabelMap::new(2, 2, vec![0, 1, IGNORE_LABEL, 1]).unwrap();
        let (palette, names) = ([[1, 2, 3], [4, 5, 6]], ["cat", "dog"].map(String::from));
        let _ = write_named_png(&path, &labels, &palette, &names).unwrap();
        let bytes = encode_named_png(&path, &labels, &palette, &names).unwrap();
        assert_eq!(bytes, fs::read(&path).unwrap());
        let empty = LabelMap::filled(0, 2, 0);
        assert!(encode_named_png(&path, &empty, &palette, &names).is_err());
    }

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
