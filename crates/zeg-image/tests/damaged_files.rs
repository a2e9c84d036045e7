//! Tests that truncated, empty, mislabelled and hostile files give an error that names the file, and never a panic or
//! half an image.

#![allow(clippy::unwrap_used)] // test helpers may panic, like the tests

use std::fs;
use std::path::{Path, PathBuf};

use proptest::prelude::*;
use zeg_image::{ImageError, decode_labels, decode_rgb, decode_rgb_bytes};

fn golden(name: &str) -> Vec<u8> {
    fs::read(
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("tests/golden")
            .join(name),
    )
    .unwrap()
}

fn decode(bytes: &[u8]) -> Result<zeg_image::RgbImage, ImageError> {
    decode_rgb_bytes(bytes, Path::new("some/image"))
}

fn file(bytes: &[u8], name: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join(name);
    fs::write(&path, bytes).unwrap();
    (folder, path)
}

/// Returns a PNG whose header states a size and that has no pixels.
fn png_of_size(width: u32, height: u32) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, 1, 1);
    encoder.set_color(png::ColorType::Grayscale);
    drop(encoder.write_header().unwrap());
    bytes[16..20].copy_from_slice(&width.to_be_bytes());
    bytes[20..24].copy_from_slice(&height.to_be_bytes());
    let checksum = crc32(&bytes[12..29]);
    bytes[29..33].copy_from_slice(&checksum.to_be_bytes());
    bytes
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for &byte in bytes {
        crc ^= u32::from(byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (0xEDB8_8320 & (crc & 1).wrapping_neg());
        }
    }
    !crc
}

#[test]
fn a_jpeg_truncated_anywhere_is_an_error() {
    for name in [
        "baseline.jpg",
        "progressive.jpg",
        "restart.jpg",
        "grey.jpg",
        "cmyk.jpg",
        "orientation6.jpg",
    ] {
        let bytes = golden(name);
        assert!(decode(&bytes).is_ok(), "{name}");
        for length in 0..bytes.len() {
            assert!(
                decode(&bytes[..length]).is_err(),
                "{name} truncated to {length} bytes"
            );
        }
    }
}

#[test]
fn bytes_after_the_end_of_a_jpeg_are_ignored() {
    let mut bytes = golden("baseline.jpg");
    let whole = decode(&bytes).unwrap();
    bytes.extend(b"\0\0 trailing words");
    assert_eq!(decode(&bytes).unwrap(), whole);
}

#[test]
fn truncated_files_of_other_formats_are_errors() {
    for name in [
        "rgb.png",
        "rgb.webp",
        "rgb.bmp",
        "rgb.tiff",
        "rgb.gif",
        "grey16.png",
        "alpha.png",
    ] {
        let bytes = golden(name);
        for length in [1, 10, bytes.len() / 3, bytes.len() / 2] {
            assert!(
                decode(&bytes[..length]).is_err(),
                "{name} truncated to {length} bytes"
            );
        }
    }
}

#[test]
fn truncated_label_files_are_errors() {
    for name in ["indexed8.png", "indexed1.png", "grey16.png"] {
        let bytes = golden(name);
        for length in [0, 7, 20, 60, bytes.len() / 2] {
            let (_folder, path) = file(&bytes[..length], name);
            let error = decode_labels(&path).unwrap_err();
            assert!(error.to_string().contains(name), "{error}");
        }
    }
}

#[test]
fn errors_name_the_file_and_the_reason() {
    let (_folder, path) = file(b"", "empty.jpg");
    assert!(
        decode_rgb(&path)
            .unwrap_err()
            .to_string()
            .ends_with("empty.jpg: corrupt or truncated image: the file is empty")
    );

    let (_folder, path) = file(b"# notes about images\n", "notes.jpg");
    assert!(matches!(
        decode_rgb(&path),
        Err(ImageError::UnsupportedFormat { .. })
    ));
    assert!(matches!(
        decode_labels(&path),
        Err(ImageError::UnsupportedFormat { .. })
    ));

    let missing = Path::new("no/such/file.png");
    let error = decode_rgb(missing).unwrap_err();
    assert!(matches!(error, ImageError::Unreadable { .. }));
    assert!(
        error
            .to_string()
            .starts_with("no/such/file.png: cannot be read: ")
    );
    assert!(matches!(
        decode_labels(missing),
        Err(ImageError::Unreadable { .. })
    ));
}

#[test]
fn huge_sizes_are_refused_before_memory_is_allocated() {
    for (width, height) in [(1 << 30, 1 << 30), (16385, 16384), (u32::MAX >> 1, 1)] {
        let bytes = png_of_size(width, height);
        let (_folder, path) = file(&bytes, "huge.png");
        for result in [decode_rgb(&path).err(), decode_labels(&path).err()] {
            assert!(
                matches!(result, Some(ImageError::TooLarge { .. })),
                "{result:?}"
            );
        }
    }
    // The frame header of this JPEG states 65535×65535 pixels.
    let mut bytes = golden("baseline.jpg");
    let frame = bytes
        .windows(2)
        .position(|pair| pair == [0xFF, 0xC0])
        .unwrap();
    bytes[frame + 5..frame + 9].fill(0xFF);
    assert!(matches!(
        decode(&bytes),
        Err(ImageError::TooLarge { width: 65535, .. })
    ));
}

#[test]
fn sizes_of_zero_are_errors() {
    let (_folder, path) = file(&png_of_size(0, 5), "flat.png");
    assert!(decode_rgb(&path).is_err());
    assert!(decode_labels(&path).is_err());
}

proptest! {
    /// The result may be an image or an error, but not a panic.
    #[test]
    fn damaged_bytes_never_panic(
        name in prop::sample::select(vec![
            "baseline.jpg", "progressive.jpg", "restart.jpg", "grey.jpg", "cmyk.jpg", "orientation6.jpg",
            "rgb.png", "rgb.webp", "rgb.bmp", "rgb.tiff", "rgb.gif", "indexed4.png", "grey16.png",
        ]),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        let mut bytes = golden(name);
        for (position, byte) in damage {
            let position = position.index(bytes.len());
            bytes[position] = byte;
        }
        let _ = decode(&bytes);
        let (_folder, path) = file(&bytes, name);
        let _ = decode_labels(&path);
    }
}
