//! What an image's header says, without decoding a pixel: its size, its colours, how it is to be turned.

use std::io::{BufRead, BufReader, Cursor, Seek, SeekFrom};
use std::path::Path;

use image::metadata::Orientation;
use image::{ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::decode::{check_size, guarded, orientation, refusal};
use crate::{ImageError, jpeg, png_chunks, source, tiff_varieties, webp_chunks};

/// Bytes a decoder may allocate for a header.
const HEADER_BYTES: u64 = 1 << 26;

/// What kind of colours a file stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColourModel {
    /// One channel, with or without alpha.
    Grey,
    /// Red, green and blue, directly, through a palette or as brightness and colour differences.
    Rgb,
    /// The colours of printing inks.
    Cmyk,
}

/// What an image's header says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageHeader {
    /// Width and height as the file stores the pixels.
    pub stored: (usize, usize),
    /// Width and height that [`decode_rgb`](crate::decode_rgb) gives, with the orientation applied.
    pub upright: (usize, usize),
    /// The file's colours.
    pub colours: ColourModel,
}

/// Width and height that [`decode_rgb`](crate::decode_rgb) would give the image, with its orientation applied.
///
/// Only the header is read, so that a damaged or cut-off image may still have a size.
///
/// # Errors
/// Those of [`decode_rgb`](crate::decode_rgb).
pub fn image_size(path: &Path) -> Result<(usize, usize), ImageError> {
    let (file, _, format) = source::open(path)?;
    Ok(header(BufReader::new(file), format, path)?.upright)
}

/// Reads the header of an image's content; `name` is only used in errors.
///
/// # Errors
/// As [`image_size`].
pub fn image_header(bytes: &[u8], name: &Path) -> Result<ImageHeader, ImageError> {
    let format = source::recognise(bytes, name)?;
    header(Cursor::new(bytes), format, name)
}

fn header(
    mut file: impl BufRead + Seek,
    format: ImageFormat,
    path: &Path,
) -> Result<ImageHeader, ImageError> {
    let unreadable = |source| ImageError::Unreadable {
        path: path.into(),
        source,
    };
    file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
    let (width, height, orientation, colours) = guarded(path, || match format {
        ImageFormat::Jpeg => {
            let header = jpeg::read_header(file, path)?;
            Ok((
                header.width,
                header.height,
                header.orientation,
                header.colours,
            ))
        }
        ImageFormat::Tiff => tiff_varieties::read_header(file, path),
        _ => {
            let exif = match format {
                ImageFormat::Png => png_chunks::exif_of(&mut file),
                _ => None,
            };
            if format == ImageFormat::WebP {
                webp_chunks::check(&mut file, path)?;
            }
            file.seek(SeekFrom::Start(0)).map_err(unreadable)?;
            let mut limits = Limits::default();
            limits.max_alloc = Some(HEADER_BYTES);
            let mut reader = ImageReader::with_format(file, format);
            reader.limits(limits);
            let decoder = reader.into_decoder();
            let mut decoder = decoder.map_err(|error| refusal(error, path))?;
            let (width, height) = decoder.dimensions();
            let colours = colours_of(decoder.original_color_type());
            let orientation = orientation(&mut decoder, format, || exif);
            Ok((width as usize, height as usize, orientation, colours))
        }
    })?;
    check_size(width, height, path)?;
    let upright = if turns_sides(orientation) {
        (height, width)
    } else {
        (width, height)
    };
    Ok(ImageHeader {
        stored: (width, height),
        upright,
        colours,
    })
}

fn colours_of(colours: ExtendedColorType) -> ColourModel {
    match colours {
        ExtendedColorType::L1
        | ExtendedColorType::L2
        | ExtendedColorType::L4
        | ExtendedColorType::L8
        | ExtendedColorType::L16
        | ExtendedColorType::La1
        | ExtendedColorType::La2
        | ExtendedColorType::La4
        | ExtendedColorType::La8
        | ExtendedColorType::La16 => ColourModel::Grey,
        ExtendedColorType::Cmyk8 | ExtendedColorType::Cmyk16 => ColourModel::Cmyk,
        _ => ColourModel::Rgb,
    }
}

/// Whether columns become rows.
fn turns_sides(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}
