//! Checks that the samples of a TIFF are numbers of a kind that is read: whole ones of up to 16 bits, or RGB as 32-bit
//! floating-point numbers.

use std::io::{BufRead, Seek};
use std::path::Path;

use tiff::ColorType;
use tiff::decoder::Decoder;
use tiff::tags::Tag;

use crate::ImageError;

/// Value of the tag `SampleFormat` for floating-point numbers (TIFF 6.0, section 19).
const FLOATING_POINT: u16 = 3;

/// Returns an error for samples of a kind that the image library refuses without naming it, or takes for another.
///
/// It reads whole numbers of 32 bits as the bits of floating-point numbers if the file does not say what they are.
pub(crate) fn check<R: BufRead + Seek>(
    decoder: &mut Decoder<R>,
    name: &Path,
) -> Result<(), ImageError> {
    let mut values = |tag| {
        let values = decoder.find_tag_unsigned_vec::<u16>(tag);
        values.ok().flatten().unwrap_or_default()
    };
    let bits = values(Tag::BitsPerSample).into_iter().max().unwrap_or(1);
    let is_float = values(Tag::SampleFormat).contains(&FLOATING_POINT);
    let is_read = match decoder.colortype() {
        Ok(ColorType::RGB(32) | ColorType::RGBA(32)) => is_float,
        _ => bits <= 16 && !is_float,
    };
    if is_read {
        return Ok(());
    }
    let kind = if is_float {
        "floating-point numbers"
    } else {
        "whole numbers"
    };
    Err(ImageError::UnsupportedVariety {
        path: name.into(),
        reason: format!(
            "the TIFF has {kind} of {bits} bits per sample; scale the values to 8 or 16 bits first"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns a little-endian TIFF of one RGB pixel with 32 bits per sample.
    fn rgb32(format: Option<u16>, samples: [[u8; 4]; 3]) -> Vec<u8> {
        let entries = 10 + u16::from(format.is_some());
        let bits_place = 8 + 2 + 12 * u32::from(entries) + 4;
        let mut bytes = b"II*\0\x08\0\0\0".to_vec();
        bytes.extend(entries.to_le_bytes());
        for (tag, kind, count, value) in [
            (256_u16, 3_u16, 1_u32, 1_u32), // width
            (257, 3, 1, 1),                 // height
            (258, 3, 3, bits_place),        // bits per sample
            (259, 3, 1, 1),                 // no compression
            (262, 3, 1, 2),                 // RGB
            (273, 4, 1, bits_place + 6),    // offset of the strip
            (277, 3, 1, 3),                 // samples per pixel
            (278, 3, 1, 1),                 // rows per strip
            (279, 4, 1, 12),                // bytes of the strip
            (284, 3, 1, 1),                 // interleaved
            (339, 3, 1, u32::from(format.unwrap_or_default())),
        ]
        .into_iter()
        .take(usize::from(entries))
        {
            bytes.extend(tag.to_le_bytes());
            bytes.extend(kind.to_le_bytes());
            bytes.extend(count.to_le_bytes());
            bytes.extend(value.to_le_bytes());
        }
        bytes.extend([0; 4]);
        bytes.extend([32, 0, 32, 0, 32, 0]);
        bytes.extend(samples.concat());
        bytes
    }

    #[test]
    fn whole_numbers_of_32_bits_are_not_read_as_floating_point_numbers() {
        let name = Path::new("x.tif");
        let read = |format, samples| crate::decode_rgb_bytes(&rgb32(format, samples), name);
        let whole = [u32::MAX, 1 << 31, 0].map(u32::to_le_bytes);
        for format in [None, Some(1), Some(2)] {
            let error = read(format, whole).unwrap_err().to_string();
            assert!(
                error.contains("whole numbers of 32 bits per sample"),
                "{error}"
            );
        }
        let floats = [1.0_f32, 0.5, 0.0].map(f32::to_le_bytes);
        let pixel = read(Some(3), floats).unwrap();
        assert!(
            matches!(pixel.as_raw()[..], [255, 127 | 128, 0]),
            "{pixel:?}"
        );
        let scaled = [255.0_f32, 0.5, 0.0].map(f32::to_le_bytes);
        let error = read(Some(3), scaled).unwrap_err();
        assert!(
            matches!(error, ImageError::SampleRange { largest: 255.0, .. }),
            "{error}"
        );
    }
}
