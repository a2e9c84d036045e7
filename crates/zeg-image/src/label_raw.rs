//! Decoder for labels in BMP, PGM, lossless WebP and QOI, which keep class indices as PNG and TIFF do.
//!
//! BMP stores indices into a palette and PGM grey values, which are taken as they are. WebP and QOI only know colours,
//! so programs store a grey map in three equal channels, and the channel is the index.

use std::path::Path;

use image::{DynamicImage, ImageFormat};
use png::BitDepth;

use crate::decode::{self, check_plausible, check_size, corrupt};
use crate::label_png::unpack;
use crate::rgb8::to_rgb8;
use crate::{ImageError, LabelMap, webp_chunks};

/// Largest number of digits of a number in a PGM: 65535 has five, and leading zeros are tolerated.
const MOST_DIGITS: usize = 9;

/// Decodes a BMP with a palette into the raw index of every pixel (`BITMAPCOREHEADER` and `BITMAPINFOHEADER`).
pub(crate) fn decode_bmp(bytes: &[u8], name: &Path) -> Result<LabelMap, ImageError> {
    let cut = || corrupt(name, "the BMP ends within its header");
    let start = u32_at(bytes, 10).ok_or_else(cut)? as usize;
    let is_core = u32_at(bytes, 14).ok_or_else(cut)? == 12;
    let (width, height, bits, compression) = if is_core {
        let number = |place| u16_at(bytes, place).map(i64::from).ok_or_else(cut);
        let bits = u16_at(bytes, 24).ok_or_else(cut)?;
        (number(18)?, number(20)?, bits, 0)
    } else {
        let number = |place| {
            let value = u32_at(bytes, place).ok_or_else(cut)?;
            Ok::<i64, ImageError>(i64::from(value.cast_signed()))
        };
        let bits = u16_at(bytes, 28).ok_or_else(cut)?;
        let compression = u32_at(bytes, 30).ok_or_else(cut)?;
        (number(18)?, number(22)?, bits, compression)
    };
    let depth = match (bits, compression) {
        (1, 0) => BitDepth::One,
        (2, 0) => BitDepth::Two,
        (4, 0) => BitDepth::Four,
        (8, 0) => BitDepth::Eight,
        (16 | 24 | 32, _) => {
            return Err(ImageError::LabelsInColour {
                path: name.into(),
                colours: "RGB",
            });
        }
        _ => {
            let reason = format!(
                "BMP labels of {bits} bits per pixel and compression {compression} are not read; save them as PNG"
            );
            return Err(ImageError::UnsupportedVariety {
                path: name.into(),
                reason,
            });
        }
    };
    let top_down = height < 0;
    let (Ok(width), Ok(height)) = (
        usize::try_from(width),
        usize::try_from(height.unsigned_abs()),
    ) else {
        return Err(corrupt(name, format!("the width is {width}")));
    };
    check_size(width, height, name)?;
    // Rows are padded to whole 32-bit words.
    let line = (width * depth as usize).div_ceil(32) * 4;
    let pixels = bytes.get(start..).unwrap_or_default();
    let Some(pixels) = pixels.get(..line * height) else {
        return Err(corrupt(
            name,
            format!("{} bytes cannot hold {width}×{height} pixels", bytes.len()),
        ));
    };
    let mut labels = Vec::with_capacity(width * height);
    for row in 0..height {
        let row = if top_down { row } else { height - 1 - row };
        let row = pixels.get(row * line..(row + 1) * line).unwrap_or_default();
        unpack(row, depth, width, &mut labels);
    }
    LabelMap::new(width, height, labels)
}

/// Decodes a PGM (`P5`, or `P2` as text) into the raw value of every pixel, whatever its largest value is.
pub(crate) fn decode_pnm(bytes: &[u8], name: &Path) -> Result<LabelMap, ImageError> {
    let binary = match bytes.get(..2) {
        Some(b"P5") => true,
        Some(b"P2") => false,
        Some(b"P1" | b"P4") => {
            return Err(ImageError::LabelBitDepth {
                path: name.into(),
                bits: 1,
            });
        }
        Some(b"P3" | b"P6") => {
            return Err(ImageError::LabelsInColour {
                path: name.into(),
                colours: "RGB",
            });
        }
        _ => {
            return Err(ImageError::UnsupportedVariety {
                path: name.into(),
                reason: "labels in PAM are not read; save them as PGM or PNG".into(),
            });
        }
    };
    let mut text = Numbers { bytes, place: 2 };
    let mut next = || {
        text.number()
            .ok_or_else(|| corrupt(name, "the PGM ends within its header"))
    };
    let (width, height, largest) = (next()? as usize, next()? as usize, next()?);
    check_size(width, height, name)?;
    check_plausible(width, height, 1, bytes.len(), name)?;
    if !(1..=u32::from(u16::MAX)).contains(&largest) {
        return Err(corrupt(name, format!("the largest value is {largest}")));
    }
    let count = width * height;
    // One white space follows the header.
    let samples = bytes.get(text.place + 1..).unwrap_or_default();
    let labels: Vec<u16> = match (binary, largest) {
        (true, ..256) => samples.iter().take(count).map(|&v| u16::from(v)).collect(),
        (true, _) => {
            let pairs = samples.as_chunks::<2>().0.iter().take(count);
            pairs.map(|pair| u16::from_be_bytes(*pair)).collect()
        }
        (false, _) => std::iter::from_fn(|| u16::try_from(text.number()?).ok())
            .take(count)
            .collect(),
    };
    if labels.len() != count {
        let reason = format!("it holds {} of {width}×{height} pixels", labels.len());
        return Err(corrupt(name, reason));
    }
    if let Some(above) = labels.iter().find(|label| u32::from(**label) > largest) {
        let reason = format!("the value {above} is above the largest value, {largest}");
        return Err(corrupt(name, reason));
    }
    LabelMap::new(width, height, labels)
}

/// Decodes an image in colours whose channels are equal: the channel is the index.
///
/// # Errors
/// Returns [`ImageError::LabelsLossy`] for a lossy WebP, and [`ImageError::LabelsInColour`] if the channels of a pixel
/// differ or a pixel is not opaque.
pub(crate) fn decode_equal_channels(
    bytes: &[u8],
    format: ImageFormat,
    name: &Path,
) -> Result<LabelMap, ImageError> {
    if format == ImageFormat::WebP && !webp_chunks::is_lossless(bytes) {
        return Err(ImageError::LabelsLossy {
            path: name.into(),
            format: "lossy WebP",
        });
    }
    let in_colour = |colours| ImageError::LabelsInColour {
        path: name.into(),
        colours,
    };
    let decoded = decode::decode(bytes, format, name)?;
    if let DynamicImage::ImageRgba8(image) = &decoded
        && image.pixels().any(|pixel| pixel.0[3] != u8::MAX)
    {
        return Err(in_colour("RGBA"));
    }
    let rgb = to_rgb8(decoded);
    let labels = rgb
        .pixels()
        .map(|pixel| match pixel.0 {
            [r, g, b] if r == g && g == b => Ok(u16::from(r)),
            _ => Err(in_colour("RGB")),
        })
        .collect::<Result<Vec<u16>, _>>()?;
    LabelMap::new(rgb.width() as usize, rgb.height() as usize, labels)
}

fn u16_at(bytes: &[u8], place: usize) -> Option<u16> {
    let bytes = bytes.get(place..)?.first_chunk::<2>()?;
    Some(u16::from_le_bytes(*bytes))
}

fn u32_at(bytes: &[u8], place: usize) -> Option<u32> {
    let bytes = bytes.get(place..)?.first_chunk::<4>()?;
    Some(u32::from_le_bytes(*bytes))
}

/// The decimal numbers of a PNM, between white space and comments.
struct Numbers<'a> {
    bytes: &'a [u8],
    /// The byte after the last number.
    place: usize,
}

impl Numbers<'_> {
    /// Returns the next number; `None` at the end, or if something else follows.
    fn number(&mut self) -> Option<u32> {
        loop {
            match self.bytes.get(self.place)? {
                b'#' => {
                    let rest = self.bytes.get(self.place..)?;
                    self.place += rest.iter().position(|byte| *byte == b'\n')?;
                }
                byte if byte.is_ascii_whitespace() => self.place += 1,
                _ => break,
            }
        }
        let rest = self.bytes.get(self.place..)?;
        let digits = rest
            .iter()
            .take(MOST_DIGITS)
            .take_while(|byte| byte.is_ascii_digit())
            .count();
        self.place += digits;
        std::str::from_utf8(rest.get(..digits)?).ok()?.parse().ok()
    }
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::{GrayImage, Rgb, RgbImage};

    use super::*;
    use crate::decode_labels_bytes;

    const VALUES: [u16; 6] = [0, 1, 2, 20, 255, 7];

    fn decode(bytes: &[u8]) -> Result<LabelMap, ImageError> {
        decode_labels_bytes(bytes, Path::new("a"))
    }

    fn saved(format: ImageFormat, image: &DynamicImage) -> Vec<u8> {
        let mut bytes = Cursor::new(Vec::new());
        image.write_to(&mut bytes, format).unwrap();
        bytes.into_inner()
    }

    fn grey() -> DynamicImage {
        let bytes = VALUES.iter().map(|value| *value as u8).collect();
        GrayImage::from_raw(3, 2, bytes).unwrap().into()
    }

    /// A BMP as other programs write it: 40 bytes of header, a palette, rows of 4 bytes from the bottom up.
    fn bmp(bits: u16, compression: u32, height: i32, rows: &[[u8; 4]]) -> Vec<u8> {
        let palette = vec![9_u8; 4 << bits];
        let start = 54 + palette.len() as u32;
        let mut bytes = b"BM".to_vec();
        bytes.extend((start + 4 * rows.len() as u32).to_le_bytes());
        bytes.extend([0; 4]);
        bytes.extend(start.to_le_bytes());
        bytes.extend(40_u32.to_le_bytes());
        bytes.extend(3_i32.to_le_bytes());
        bytes.extend(height.to_le_bytes());
        bytes.extend(1_u16.to_le_bytes());
        bytes.extend(bits.to_le_bytes());
        bytes.extend(compression.to_le_bytes());
        bytes.extend([0; 20]);
        bytes.extend(palette);
        bytes.extend(rows.concat());
        bytes
    }

    #[test]
    fn bmp_pgm_lossless_webp_and_qoi_labels_are_indices() {
        let rgb = DynamicImage::ImageRgb8(grey().to_rgb8());
        for (what, bytes) in [
            ("BMP", saved(ImageFormat::Bmp, &grey())),
            ("PGM", b"P5\n3 2\n255\n\x00\x01\x02\x14\xff\x07".to_vec()),
            ("WebP", saved(ImageFormat::WebP, &rgb)),
            ("QOI", saved(ImageFormat::Qoi, &rgb)),
            ("text", b"P2\n# labels\n3 2 255\n0 1 2\n20 255 7\n".to_vec()),
            ("bottom up", bmp(8, 0, 2, &[[20, 255, 7, 0], [0, 1, 2, 0]])),
            ("top down", bmp(8, 0, -2, &[[0, 1, 2, 0], [20, 255, 7, 0]])),
        ] {
            let labels = decode(&bytes).unwrap_or_else(|error| panic!("{what}: {error}"));
            assert_eq!((labels.width(), labels.height()), (3, 2), "{what}");
            assert_eq!(labels.labels(), VALUES, "{what}");
        }
        // Values count as they are, whatever the largest value of a PGM is.
        let small = decode(b"P5 2 1 20\n\x01\x14").unwrap();
        assert_eq!(small.labels(), [1, 20]);
        let deep = decode(b"P5 2 1 846\n\x00\x05\x03\x4e").unwrap();
        assert_eq!(deep.labels(), [5, 846]);
        let packed = decode(&bmp(4, 0, 1, &[[0x12, 0x30, 0, 0]])).unwrap();
        assert_eq!(packed.labels(), [1, 2, 3]);
    }

    #[test]
    fn labels_that_lost_their_indices_are_refused_by_their_format() {
        let colour = DynamicImage::ImageRgb8(RgbImage::from_pixel(2, 2, Rgb([1, 1, 2])));
        for bytes in [
            saved(ImageFormat::Bmp, &colour),
            saved(ImageFormat::WebP, &colour),
            saved(ImageFormat::Qoi, &colour),
            b"P6 1 1 255\n\x01\x01\x02".to_vec(),
        ] {
            let error = decode(&bytes).unwrap_err();
            assert!(
                matches!(error, ImageError::LabelsInColour { .. }),
                "{error}"
            );
        }
        let jpeg = decode(&saved(ImageFormat::Jpeg, &colour)).unwrap_err();
        assert_eq!(
            jpeg.to_string(),
            "a: the labels are stored as JPEG, which changes class indices"
        );
        let gif = decode(&saved(ImageFormat::Gif, &colour)).unwrap_err();
        assert!(
            matches!(gif, ImageError::UnsupportedVariety { .. }),
            "{gif}"
        );
        let coded = decode(&bmp(8, 1, 2, &[[0; 4], [0; 4]])).unwrap_err();
        assert!(
            matches!(coded, ImageError::UnsupportedVariety { .. }),
            "{coded}"
        );
    }

    #[test]
    fn damaged_files_are_errors() {
        let whole = bmp(8, 0, 2, &[[20, 255, 7, 0], [0, 1, 2, 0]]);
        for length in 0..whole.len() {
            assert!(decode(&whole[..length]).is_err(), "{length}");
        }
        for text in [
            &b"P5\n"[..],
            b"P5 3 2",
            b"P5 3 2 255\n\0\0",
            b"P5 2 1 5\n\x09\x01",
            b"P2 2 1 9\n1",
            b"P2 2 1 9\n1 x",
            b"P5 2 1 0\n\0\0",
            b"P5 2 1 70000\n\0\0\0\0",
            b"P5 99999 99999 255\n",
            b"P5 99999999999 1 255\n",
            b"P5 # comment",
        ] {
            assert!(decode(text).is_err(), "{text:?}");
        }
    }
}
