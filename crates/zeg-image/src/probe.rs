//! Reads an image's header without decoding pixels: its size, colour model and orientation.

use std::io::{BufRead, BufReader, Cursor, Seek, SeekFrom};
use std::path::Path;

use image::metadata::Orientation;
use image::{ExtendedColorType, ImageDecoder, ImageFormat, ImageReader, Limits};

use crate::decode::{check_size, guarded, orientation, refusal};
use crate::{ImageError, jpeg, png_chunks, source, tiff_varieties, webp_chunks};

/// Number of bytes that a decoder may allocate for a header.
const HEADER_BYTES: u64 = 1 << 26;

/// The kind of colours that a file stores.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ColourModel {
    /// One channel, with or without alpha.
    Grey,
    /// Red, green and blue: stored directly, through a palette, or as brightness and colour differences.
    Rgb,
    /// Cyan, magenta, yellow and black, the colours of printing inks.
    Cmyk,
}

/// What turns the stored pixels upright, by the EXIF orientation of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// The EXIF orientation, 2..=8 (Exif 2.3, 4.6.4).
    pub orientation: u8,
}

impl Turn {
    fn new(orientation: Orientation) -> Option<Self> {
        let turned = orientation != Orientation::NoTransforms;
        turned.then(|| Self {
            orientation: orientation.to_exif(),
        })
    }

    /// Returns the change in words, such as `rotated by 180°`.
    pub fn in_words(self) -> &'static str {
        match self.orientation {
            2 => "mirrored left to right",
            3 => "rotated by 180°",
            4 => "mirrored top to bottom",
            5 => "mirrored along its diagonal",
            6 => "rotated by a quarter turn to the right",
            7 => "mirrored along its other diagonal",
            8 => "rotated by a quarter turn to the left",
            _ => "unchanged",
        }
    }
}

/// The size and colour model that an image's header states.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ImageHeader {
    /// Width and height as the file stores the pixels.
    pub stored: (usize, usize),
    /// Width and height of the decoded image ([`decode_rgb`](crate::decode_rgb)), with the orientation applied.
    pub upright: (usize, usize),
    /// What turns the stored pixels upright; `None` if they are upright already.
    pub turn: Option<Turn>,
    /// The colour model of the file.
    pub colours: ColourModel,
}

/// Returns the width and height that [`decode_rgb`](crate::decode_rgb) would return, with the orientation applied.
///
/// Only the header is read, so a damaged or truncated image may still have a size.
///
/// # Errors
/// Returns the errors of [`decode_rgb`](crate::decode_rgb), as far as the header shows them.
pub fn image_size(path: &Path) -> Result<(usize, usize), ImageError> {
    let (file, _, format) = source::open(path)?;
    Ok(header(BufReader::new(file), format, path)?.upright)
}

/// Reads the header of an image from the content of its file; `name` is used in error messages only.
///
/// # Errors
/// Returns the errors of [`image_size`], except for those of reading the file.
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
    let upright = if swaps_sides(orientation) {
        (height, width)
    } else {
        (width, height)
    };
    Ok(ImageHeader {
        stored: (width, height),
        upright,
        turn: Turn::new(orientation),
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

/// Returns whether the orientation exchanges width and height.
fn swaps_sides(orientation: Orientation) -> bool {
    matches!(
        orientation,
        Orientation::Rotate90
            | Orientation::Rotate270
            | Orientation::Rotate90FlipH
            | Orientation::Rotate270FlipH
    )
}
