//! Tests of label maps stored as TIFF; `reference/label_tiffs.py` writes the files with Pillow and tifffile.

#![allow(clippy::unwrap_used, reason = "test helpers may panic, like the tests")]

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use zeg_image::{ImageError, decode_labels, decode_labels_bytes};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/label_tiffs")
        .join(name)
}

/// Names of the files, with the modulus of the formula for their labels.
const LABELS: [(&str, usize); 10] = [
    ("grey16_pillow.tif", 847),
    ("grey16_pillow_lzw.tif", 847),
    ("grey16_big_endian.tif", 847),
    ("grey16_big_tiff.tif", 847),
    ("grey16_deflate_predictor.tif", 847),
    ("grey16_tiles.tif", 847),
    ("grey8_pillow.tif", 251),
    ("grey8_packbits.tif", 251),
    ("grey8_white_is_zero.tif", 251),
    ("palette8.tif", 251),
];

#[test]
fn labels_are_the_values_in_the_file() {
    for (name, modulus) in LABELS {
        let labels = decode_labels(&golden(name)).unwrap();
        assert_eq!((labels.width(), labels.height()), (37, 23), "{name}");
        for (index, &label) in labels.labels().iter().enumerate() {
            let expected = (37 * (index % 37) + 101 * (index / 37)) % modulus;
            assert_eq!(usize::from(label), expected, "{name} at {index}");
        }
    }
}

#[test]
fn tiffs_that_cannot_store_labels_are_refused() {
    assert!(matches!(
        decode_labels(&golden("rgb8.tif")),
        Err(ImageError::LabelsInColour { colours: "RGB", .. })
    ));
    assert!(matches!(
        decode_labels(&golden("float32.tif")),
        Err(ImageError::LabelBitDepth { bits: 32, .. })
    ));
    let error = decode_labels(&golden("grey8_jpeg.tif")).unwrap_err();
    assert!(error.to_string().contains("compressed as JPEG"), "{error}");
}

/// The header states 16384×16384 pixels in a file of a few hundred bytes.
#[test]
fn a_size_too_large_for_the_file_is_refused() {
    let mut bytes = std::fs::read(golden("grey16_pillow_lzw.tif")).unwrap();
    let directory = u32::from_le_bytes(bytes[4..8].try_into().unwrap()) as usize;
    let entries = usize::from(bytes[directory]);
    for entry in 0..entries {
        let entry = directory + 2 + 12 * entry;
        let tag = u16::from_le_bytes(bytes[entry..entry + 2].try_into().unwrap());
        // The tags are width, height and rows per strip.
        if [256, 257, 278].contains(&tag) {
            bytes[entry + 2..entry + 4].copy_from_slice(&4_u16.to_le_bytes());
            bytes[entry + 8..entry + 12].copy_from_slice(&16384_u32.to_le_bytes());
        }
    }
    let error = decode_labels_bytes(&bytes, Path::new("x.tif")).unwrap_err();
    assert!(
        error.to_string().contains("cannot hold 16384×16384 pixels"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn damaged_files_are_labels_or_an_error(
        file in 0..LABELS.len(),
        cut in 0..2000_usize,
        changes in prop::collection::vec((0..2000_usize, any::<u8>()), 0..6),
    ) {
        let mut bytes = std::fs::read(golden(LABELS[file].0)).unwrap();
        for (position, value) in changes {
            let position = position % bytes.len();
            bytes[position] = value;
        }
        bytes.truncate(bytes.len().saturating_sub(cut.saturating_sub(1000)).max(1));
        if let Ok(labels) = decode_labels_bytes(&bytes, Path::new("x.tif")) {
            prop_assert_eq!(labels.labels().len(), labels.width() * labels.height());
        }
    }
}
