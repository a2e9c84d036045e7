//! Images of tests, and what a segmenter without a server makes of them.

use std::path::Path;

use zeg::{
    Segmentation, Segmenter,
    image::{RgbImage, distinct_palette},
    vocab::classes::parse_class_list,
};
use zeg_image::{encode_named_png, encode_rgb_png};

/// The colours of stripes.
const COLOURS: [[u8; 3]; 5] = [
    [220, 40, 40],
    [40, 60, 220],
    [40, 180, 60],
    [230, 210, 40],
    [150, 50, 170],
];

/// Returns an image of blocks whose colours follow from a number, so that images of different numbers differ.
pub(crate) fn blocks(width: u32, height: u32, number: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let block = (x / 24).wrapping_mul(7) ^ (y / 24).wrapping_mul(13) ^ number.wrapping_mul(31);
        let [r, g, b] = COLOURS[(block % 5) as usize];
        let shade = ((x * 3 + y * 5 + number) % 17) as u8;
        image::Rgb([r.saturating_add(shade), g.saturating_sub(shade / 2), b])
    })
}

/// Returns the image as a PNG.
pub(crate) fn png(width: u32, height: u32, number: u32) -> Vec<u8> {
    encode_rgb_png(Path::new("a.png"), &blocks(width, height, number)).unwrap()
}

/// Segments with the library alone, as `zeg segment --model mini` does.
pub(crate) fn segmented(image: &RgbImage, classes: &str) -> Segmentation {
    let mut segmenter = Segmenter::load(Path::new("mini")).unwrap();
    let threshold = segmenter.default_threshold();
    segmenter
        .change_inference(|inference| {
            inference.threshold = threshold;
            anyhow::Ok(())
        })
        .unwrap();
    segmenter
        .set_classes(&parse_class_list(classes).unwrap())
        .unwrap();
    segmenter.segment(image).unwrap()
}

/// Returns the label map that `zeg segment --write labels` writes.
pub(crate) fn labels_png(image: &RgbImage, classes: &str) -> Vec<u8> {
    let found = segmented(image, classes);
    let names = parse_class_list(classes).unwrap();
    let names: Vec<String> = names.into_iter().map(|class| class.name).collect();
    let palette = distinct_palette(names.len());
    encode_named_png(Path::new("a.png"), &found.labels, &palette, &names).unwrap()
}

/// Returns a PNG of 60000×60000 pixels in about 200 bytes: a header that lies about what follows.
pub(crate) fn bomb() -> Vec<u8> {
    let mut bytes = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut chunk = |kind: &[u8; 4], data: &[u8]| {
        bytes.extend((data.len() as u32).to_be_bytes());
        let start = bytes.len();
        bytes.extend(kind);
        bytes.extend(data);
        let sum = crc(&bytes[start..]);
        bytes.extend(sum.to_be_bytes());
    };
    let mut header = Vec::new();
    header.extend(60_000_u32.to_be_bytes());
    header.extend(60_000_u32.to_be_bytes());
    header.extend([8, 2, 0, 0, 0]);
    chunk(b"IHDR", &header);
    chunk(
        b"IDAT",
        &[
            0x78, 0x9c, 0xed, 0xc1, 0x01, 0x0d, 0, 0, 0, 0xc2, 0xa0, 0xf7,
        ],
    );
    chunk(b"IEND", &[]);
    bytes
}

/// CRC-32 as in PNG (ISO 3309).
fn crc(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            let bit = crc & 1;
            crc >>= 1;
            if bit == 1 {
                crc ^= 0xedb8_8320;
            }
        }
    }
    !crc
}
