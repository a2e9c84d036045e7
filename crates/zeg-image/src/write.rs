//! Writing pictures and label maps as PNG, whole or not at all.
//!
//! Everything is written to a temporary file beside the target and renamed when it is complete. A full disk
//! or an interruption leaves whatever stood there before, and no reader ever sees half a file.

use std::io::{self, BufWriter, Write};
use std::path::Path;

use png::{BitDepth, ColorType, Compression, Encoder, EncodingError};

use crate::{IGNORE_LABEL, ImageError, LabelMap, RgbImage, voc_palette};

/// How 8-bit label files write [`IGNORE_LABEL`].
const IGNORE_BYTE: u8 = 255;

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
        }
    } else {
        Form {
            colour: ColorType::Grayscale,
            depth: BitDepth::Sixteen,
            palette: None,
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

/// Writes a picture as an 8-bit RGB PNG.
///
/// # Errors
/// [`ImageError::ZeroSize`] for an empty picture, which PNG cannot hold; [`ImageError::Unwritable`]
/// otherwise, with the old file untouched.
pub fn write_rgb_png(path: &Path, image: &RgbImage) -> Result<(), ImageError> {
    let form = Form {
        colour: ColorType::Rgb,
        depth: BitDepth::Eight,
        palette: None,
    };
    write_png(
        path,
        image.width() as usize,
        image.height() as usize,
        form,
        image.as_raw(),
    )
}

/// How the samples of a PNG are to be read.
struct Form {
    colour: ColorType,
    depth: BitDepth,
    /// 256 RGB entries, for indexed files.
    palette: Option<Vec<u8>>,
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
    fill: impl FnOnce(&mut BufWriter<&mut std::fs::File>) -> Result<(), EncodingError>,
) -> io::Result<()> {
    // A bare file name has the parent "", which no system can open.
    let folder = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
        .unwrap_or(Path::new("."));
    let mut temporary = temporary_builder().tempfile_in(folder)?;
    let mut writer = BufWriter::new(temporary.as_file_mut());
    fill(&mut writer).map_err(|error| match error {
        EncodingError::IoError(source) => source,
        other => io::Error::other(other),
    })?;
    writer.flush()?;
    drop(writer);
    temporary.persist(path).map_err(|failed| failed.error)?;
    Ok(())
}

/// Temporary files with the rights of ordinary new files; the crate's default, owner only, would stay on
/// the result.
fn temporary_builder<'a>() -> tempfile::Builder<'a, 'static> {
    let mut builder = tempfile::Builder::new();
    builder.prefix(".zeg-").suffix(".tmp");
    #[cfg(unix)]
    {
        use std::os::unix::fs::PermissionsExt;
        builder.permissions(std::fs::Permissions::from_mode(0o666)); // less the umask
    }
    builder
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

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
