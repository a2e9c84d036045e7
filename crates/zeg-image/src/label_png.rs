//! Decoder for label PNGs, which returns the indices as the file stores them.
//!
//! General image libraries expand palettes to colours and grey values of few bits to 0..=255, and either destroys class
//! indices. Here the samples are only unpacked.

use std::io::Cursor;
use std::path::Path;

use png::{BitDepth, ColorType, Decoder, DecodingError, Limits, Transformations};

use crate::decode::{check_plausible, check_size, corrupt};
use crate::{ImageError, LabelMap};

/// Number of bytes that the decoder may use for chunks and rows, not counting the image itself.
const MAX_DECODER_BYTES: usize = 1 << 26;
/// Upper bound on the expansion of deflate: 258 bytes take at least 2 bits (RFC 1951, 3.2.5), so 1032 take a byte.
const MOST_EXPANSION: usize = 1032;

/// Decodes a PNG into the raw sample of every pixel.
pub(crate) fn decode(bytes: &[u8], name: &Path) -> Result<LabelMap, ImageError> {
    check_header(bytes, name)?;
    let refuse = |error: DecodingError| corrupt(name, error);
    let mut decoder = open(bytes);
    decoder.set_transformations(Transformations::IDENTITY);
    let mut reader = decoder.read_info().map_err(refuse)?;
    let (colour, depth) = reader.output_color_type();
    check_samples(colour, depth, name)?;

    let info = reader.info();
    let (width, height) = (info.width as usize, info.height as usize);
    let size = reader
        .output_buffer_size()
        .ok_or_else(|| corrupt(name, "the image does not fit into memory"))?;
    let mut packed = vec![0; size]; // [height, line], rows padded to whole bytes
    let frame = reader.next_frame(&mut packed).map_err(refuse)?;

    let mut labels = Vec::with_capacity(width * height);
    for row in packed.chunks_exact(frame.line_size).take(height) {
        unpack(row, depth, width, &mut labels);
    }
    LabelMap::new(width, height, labels)
}

/// Checks the size that a PNG states, before memory for it is allocated.
pub(crate) fn check_header(bytes: &[u8], name: &Path) -> Result<(), ImageError> {
    let mut decoder = open(bytes);
    let info = decoder
        .read_header_info()
        .map_err(|error| corrupt(name, error))?;
    let (width, height) = (info.width as usize, info.height as usize);
    check_size(width, height, name)?;
    let pixel_bits = info.color_type.samples() * info.bit_depth as usize;
    let most_pixels = (8 * MOST_EXPANSION).div_ceil(pixel_bits);
    check_plausible(width, height, most_pixels, bytes.len(), name)
}

fn open(bytes: &[u8]) -> Decoder<Cursor<&[u8]>> {
    let limits = Limits {
        bytes: MAX_DECODER_BYTES,
    };
    let mut decoder = Decoder::new_with_limits(Cursor::new(bytes), limits);
    // Texts and colour profiles are not used, and a compressed one may take a thousand times its size in memory.
    decoder.set_ignore_text_chunk(true);
    decoder.set_ignore_iccp_chunk(true);
    decoder
}

/// Returns an error unless every pixel has a single sample, which can be an index.
fn check_samples(colour: ColorType, depth: BitDepth, name: &Path) -> Result<(), ImageError> {
    let colours = match (colour, depth) {
        (ColorType::Indexed, _) | (ColorType::Grayscale, BitDepth::Eight | BitDepth::Sixteen) => {
            return Ok(());
        }
        (ColorType::Grayscale, depth) => {
            return Err(ImageError::LabelBitDepth {
                path: name.into(),
                bits: depth as u8,
            });
        }
        (ColorType::Rgb, _) => "RGB",
        (ColorType::Rgba, _) => "RGBA",
        (ColorType::GrayscaleAlpha, _) => "grey with alpha",
    };
    Err(ImageError::LabelsInColour {
        path: name.into(),
        colours,
    })
}

/// Appends the first `width` samples of a row; within a byte the leftmost pixel has the highest bits.
pub(crate) fn unpack(row: &[u8], depth: BitDepth, width: usize, labels: &mut Vec<u16>) {
    match depth {
        BitDepth::Sixteen => {
            let samples = row.as_chunks::<2>().0.iter().take(width);
            labels.extend(samples.map(|sample| u16::from_be_bytes(*sample)));
        }
        BitDepth::Eight => labels.extend(row.iter().take(width).map(|&sample| u16::from(sample))),
        BitDepth::One | BitDepth::Two | BitDepth::Four => {
            let bits = depth as u8;
            let mask = (1 << bits) - 1;
            let samples = row
                .iter()
                .flat_map(|&byte| (0..8 / bits).rev().map(move |place| byte >> (place * bits)));
            labels.extend(samples.take(width).map(|sample| u16::from(sample & mask)));
        }
    }
}
