//! Tests of files of every format that state a wrong size, are truncated or damaged. The result is an error, in bounded
//! memory and time, or the complete image, and never a panic or half an image.

#![allow(clippy::unwrap_used)] // test helpers may panic, like the tests

use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{ImageFormat, RgbImage};
use proptest::prelude::*;
use zeg_image::{ImageError, decode_rgb, decode_rgb_bytes, image_size};

/// Returns the files that `reference/image_formats.py` has written.
fn golden_files() -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/formats");
    let mut files: Vec<PathBuf> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| !path.ends_with("formats.csv") && !path.ends_with("expected.safetensors"))
        .collect();
    files.sort();
    assert!(files.len() > 80);
    files
}

fn decode(bytes: &[u8]) -> Result<RgbImage, ImageError> {
    decode_rgb_bytes(bytes, Path::new("some/image"))
}

fn encoded(image: &RgbImage, format: ImageFormat) -> Vec<u8> {
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, format).unwrap();
    bytes.into_inner()
}

/// If only bytes are missing that no pixel needs, such as an end marker or metadata, the image is complete.
#[test]
fn an_image_truncated_anywhere_is_complete_or_an_error() {
    // In a text format, the last number may be shortened to another legal number, which cannot be noticed.
    let is_text = |path: &PathBuf| {
        path.file_stem()
            .is_some_and(|stem| stem.to_string_lossy().ends_with("_text"))
    };
    for path in golden_files().into_iter().filter(|path| !is_text(path)) {
        let bytes = fs::read(&path).unwrap();
        let whole = decode(&bytes).unwrap();
        for length in 0..bytes.len() {
            if let Ok(image) = decode(&bytes[..length]) {
                let name = path.file_name().unwrap().to_string_lossy();
                // Without the orientation after the pixels, the image is complete but not rotated.
                let not_rotated =
                    name == "orientation6_after.png" && image.dimensions() == (16, 12);
                assert!(
                    image == whole || not_rotated,
                    "{name} truncated to {length} of {} bytes",
                    bytes.len()
                );
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    /// The result may be an image or an error, but not a panic.
    #[test]
    fn flipped_bits_never_panic(
        file in any::<prop::sample::Index>(),
        flips in prop::collection::vec((any::<prop::sample::Index>(), 0_u8..8), 1..6),
    ) {
        let files = golden_files();
        let path = file.get(&files);
        let mut bytes = fs::read(path).unwrap();
        for (position, bit) in flips {
            let position = position.index(bytes.len());
            bytes[position] ^= 1 << bit;
        }
        let _ = decode(&bytes);
        let folder = tempfile::tempdir().unwrap();
        let damaged = folder.path().join("damaged");
        fs::write(&damaged, &bytes).unwrap();
        let _ = image_size(&damaged);
    }
}

/// The files have a few bytes and state 65535×65535 pixels, or as many as their format allows.
#[test]
fn decompression_bombs_of_every_format_are_refused() {
    let pixel = RgbImage::new(1, 1);
    let patched = |format, patches: &[(usize, &[u8])]| {
        let mut bytes = encoded(&pixel, format);
        for (position, value) in patches {
            bytes[*position..position + value.len()].copy_from_slice(value);
        }
        bytes
    };
    let most = 65535_u32.to_le_bytes();
    // In a TIFF, width, height and the rows per strip have a directory entry each.
    let tiff = {
        let mut bytes = encoded(&pixel, ImageFormat::Tiff);
        for tag in [256_u16, 257, 278] {
            let entry = bytes
                .windows(2)
                .rposition(|pair| pair == tag.to_le_bytes())
                .unwrap();
            bytes[entry + 8..entry + 12].copy_from_slice(&most);
        }
        bytes
    };
    // A WebP states at most 16384×16384 pixels, and if all pixels have one colour, they need no bytes, so such a file
    // is a legal image. Here its signature is damaged as well.
    let size = [0x2E, 0xFE, 0xBF, 0xFF, 0x0F];
    let webp = patched(ImageFormat::WebP, &[(20, &size)]);
    for (name, bytes) in [
        (
            "bmp",
            patched(ImageFormat::Bmp, &[(18, &most), (22, &most)]),
        ),
        (
            "gif",
            patched(ImageFormat::Gif, &[(6, &most[..2]), (8, &most[..2])]),
        ),
        (
            "qoi",
            patched(
                ImageFormat::Qoi,
                &[(4, &65535_u32.to_be_bytes()), (8, &65535_u32.to_be_bytes())],
            ),
        ),
        ("ppm", b"P6\n65535 65535\n255\n123456".to_vec()),
        ("pbm", b"P4\n16384 16384\n\0\0\0\0".to_vec()),
        (
            "ppm overflowing",
            b"P6\n4294967295 4294967295\n65535\n123456".to_vec(),
        ),
        ("tiff", tiff),
        ("webp", webp),
    ] {
        let error = decode(&bytes)
            .map(|image| image.dimensions())
            .expect_err(name);
        assert!(
            matches!(
                error,
                ImageError::TooLarge { .. }
                    | ImageError::Corrupt { .. }
                    | ImageError::Memory { .. }
                    | ImageError::UnsupportedVariety { .. }
            ),
            "{name}: {error}"
        );
    }
}

#[test]
fn a_file_too_short_for_its_size_is_refused_before_memory_is_allocated() {
    for bytes in [
        b"P4\n16384 16384\n\0\0\0\0".to_vec(),
        b"qoif\0\0\x40\0\0\0\x40\0\x03\0\0\0\0\0".to_vec(),
        b"GIF89a\0\x40\0\x40\0\0\0,\0\0\0\0\0\x40\0\x40\0\x02\x02\x44\x01\0;".to_vec(),
    ] {
        let error = decode(&bytes)
            .map(|image| image.dimensions())
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("bytes cannot hold 16384×16384 pixels"),
            "{error}"
        );
    }
}

/// The decoder of lossy images continues with zeros after the end of its data.
#[test]
fn a_webp_shorter_than_it_states_is_an_error() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/formats/lossy.webp");
    let bytes = fs::read(path).unwrap();
    let error = decode(&bytes[..bytes.len() - 1]).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("states 164 bytes, but the file has 163"),
        "{error}"
    );
}

/// Found by fuzzing: the decoder panics at the last colour.
#[test]
fn a_palette_of_13_bytes_is_an_error() {
    let mut bytes = Cursor::new(Vec::new());
    let mut encoder = png::Encoder::new(&mut bytes, 4, 1);
    encoder.set_color(png::ColorType::Indexed);
    encoder.set_palette(vec![7; 13]);
    let mut writer = encoder.write_header().unwrap();
    writer.write_image_data(&[0, 1, 2, 3]).unwrap();
    writer.finish().unwrap();
    let error = decode(bytes.get_ref()).unwrap_err().to_string();
    assert!(error.contains("palette has 13 bytes"), "{error}");
}

#[test]
fn sizes_of_zero_are_errors() {
    for bytes in [
        b"P6\n0 5\n255\n".to_vec(),
        b"qoif\0\0\0\0\0\0\0\x05\x03\0\0\0\0\0\0\0\0\x01".to_vec(),
        b"GIF89a\0\0\x05\0\0\0\0;".to_vec(),
    ] {
        assert!(decode(&bytes).is_err());
    }
}

#[test]
fn extreme_aspect_ratios_are_decoded() {
    for (width, height) in [(1, 1), (30_000, 2), (2, 30_000)] {
        let image = RgbImage::from_fn(width, height, |x, y| {
            image::Rgb([x, y, x ^ y].map(|value| value as u8))
        });
        for format in [
            ImageFormat::Png,
            ImageFormat::Tiff,
            ImageFormat::Bmp,
            ImageFormat::Qoi,
            ImageFormat::Pnm,
        ] {
            assert_eq!(
                decode(&encoded(&image, format)).unwrap(),
                image,
                "{format:?} {width}×{height}"
            );
        }
    }
}

/// The pixels take more bytes than a decoder may allocate for everything else.
#[test]
fn the_memory_limit_of_decoders_does_not_include_pixels() {
    let image = image::RgbaImage::new(4200, 4200);
    let mut bytes = Cursor::new(Vec::new());
    image.write_to(&mut bytes, ImageFormat::Png).unwrap();
    assert_eq!(decode(bytes.get_ref()).unwrap().dimensions(), (4200, 4200));
}

#[test]
fn the_format_is_recognised_from_the_content_not_the_extension() {
    let folder = tempfile::tempdir().unwrap();
    let image = RgbImage::from_pixel(3, 2, image::Rgb([1, 2, 3]));
    for format in [
        ImageFormat::Png,
        ImageFormat::Tiff,
        ImageFormat::Gif,
        ImageFormat::WebP,
    ] {
        let path = folder.path().join("image.jpg");
        fs::write(&path, encoded(&image, format)).unwrap();
        assert_eq!(decode_rgb(&path).unwrap(), image, "{format:?}");
        assert_eq!(image_size(&path).unwrap(), (3, 2), "{format:?}");
    }
}

#[cfg(unix)]
#[test]
fn folders_devices_and_pipes_are_refused_at_once() {
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe.png");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    let mut paths = vec![folder.path().to_owned(), PathBuf::from("/dev/zero")];
    if made.is_ok_and(|status| status.success()) {
        paths.push(pipe);
    }
    for path in paths {
        for error in [
            decode_rgb(&path).unwrap_err(),
            zeg_image::decode_labels(&path).unwrap_err(),
            image_size(&path).unwrap_err(),
        ] {
            assert!(matches!(error, ImageError::NotRegular { .. }), "{error}");
        }
    }
}
