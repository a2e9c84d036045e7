//! Decoder for label TIFFs, which returns the indices as the file stores them.
//!
//! ADE20K with its 847 classes is often prepared as 16-bit grey TIFF. The decoder accepts files that preserve every
//! index: one sample of 8 or 16 bits per pixel, grey or with a palette (which is ignored), and lossless compression.

use std::io::{BufRead, Cursor, Seek};
use std::path::Path;

use tiff::decoder::{Decoder, DecodingResult, Limits};
use tiff::tags::{CompressionMethod, Tag};
use tiff::{ColorType, TiffError};

use crate::decode::{MAX_PIXELS, check_plausible, check_size, corrupt};
use crate::tiff_pages::with_main_page_first;
use crate::tiff_varieties::{as_stored, refusal};
use crate::{ImageError, LabelMap};

/// Upper bound on the expansion of LZW, where a code of 12 bits stands for at most 4096 bytes. Deflate reaches 1032.
const MOST_EXPANSION: usize = 4096;
/// Lossy compression methods, which change the samples.
const LOSSY: [CompressionMethod; 2] = [CompressionMethod::JPEG, CompressionMethod::ModernJPEG];

/// Decodes a TIFF into the raw sample of every pixel.
pub(crate) fn decode(bytes: &[u8], name: &Path) -> Result<LabelMap, ImageError> {
    let refuse = |error: TiffError| refusal(error, name);
    let bytes = with_main_page_first(bytes, name)?;
    let stored = as_stored(&bytes);
    let mut limits = Limits::default();
    limits.decoding_buffer_size = 2 * MAX_PIXELS;
    let mut decoder = Decoder::new(Cursor::new(&stored))
        .map_err(refuse)?
        .with_limits(limits);
    let (width, height) = decoder.dimensions().map_err(refuse)?;
    let (width, height) = (width as usize, height as usize);
    check_size(width, height, name)?;
    check_plausible(width, height, MOST_EXPANSION, bytes.len(), name)?;
    check_samples(&mut decoder, name)?;
    let labels = match decoder.read_image().map_err(refuse)? {
        DecodingResult::U8(samples) => samples.into_iter().map(u16::from).collect(),
        DecodingResult::U16(samples) => samples,
        _ => {
            return Err(ImageError::UnsupportedVariety {
                path: name.into(),
                reason: "TIFF labels with signed or floating-point samples are not supported; they must be unsigned"
                    .into(),
            });
        }
    };
    LabelMap::new(width, height, labels).map_err(|_| {
        corrupt(
            name,
            "the number of pixels in the TIFF differs from the size that it states",
        )
    })
}

/// Returns an error unless every pixel has a single, losslessly stored sample of 8 or 16 bits, which can be an index.
fn check_samples<R: BufRead + Seek>(
    decoder: &mut Decoder<R>,
    name: &Path,
) -> Result<(), ImageError> {
    let compression = decoder.find_tag_unsigned::<u16>(Tag::Compression);
    let compression = compression.ok().flatten();
    if LOSSY
        .iter()
        .any(|lossy| compression == Some(lossy.to_u16()))
    {
        return Err(ImageError::UnsupportedVariety {
            path: name.into(),
            reason: "the labels are compressed as JPEG, which changes class indices".into(),
        });
    }
    let in_colour = |colours| ImageError::LabelsInColour {
        path: name.into(),
        colours,
    };
    match decoder.colortype().map_err(|error| refusal(error, name))? {
        ColorType::Gray(8 | 16) => Ok(()),
        ColorType::Gray(bits) => Err(ImageError::LabelBitDepth {
            path: name.into(),
            bits,
        }),
        ColorType::RGB(_) => Err(in_colour("RGB")),
        ColorType::RGBA(_) => Err(in_colour("RGBA")),
        ColorType::GrayA(_) => Err(in_colour("grey with alpha")),
        other => Err(ImageError::UnsupportedVariety {
            path: name.into(),
            reason: format!(
                "the labels have the colour type {other:?}; they must be indexed or grey"
            ),
        }),
    }
}
