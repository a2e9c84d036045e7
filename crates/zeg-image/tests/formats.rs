//! Compares every variety of image file that `reference/image_formats.py` writes with the pixels of OpenCV or Pillow.

#![allow(clippy::unwrap_used)] // test helpers may panic, like the tests

use std::fs;
use std::path::{Path, PathBuf};

use safetensors::SafeTensors;
use zeg_image::{RgbImage, decode_rgb, image_size};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden/formats")
        .join(name)
}

/// Returns the rows of `formats.csv`: the name of a file and the largest allowed difference of a channel.
fn table() -> Vec<(String, u8)> {
    let table = fs::read_to_string(golden("formats.csv")).unwrap();
    let rows = table.lines().filter(|line| !line.starts_with('#'));
    rows.map(|row| {
        let fields: Vec<&str> = row.split(',').collect();
        (fields[0].to_owned(), fields[2].parse().unwrap())
    })
    .collect()
}

fn largest_difference(image: &RgbImage, expected: &[u8]) -> u8 {
    assert_eq!(image.len(), expected.len());
    let pairs = image.iter().zip(expected);
    pairs.map(|(a, b)| a.abs_diff(*b)).max().unwrap()
}

#[test]
fn every_variety_is_decoded_as_by_the_reference() {
    let bytes = fs::read(golden("expected.safetensors")).unwrap();
    let expected = SafeTensors::deserialize(&bytes).unwrap();
    let mut wrong = Vec::new();
    for (name, allowed) in table() {
        let expected = expected.tensor(&name).unwrap(); // [height, width, 3]
        let image = match decode_rgb(&golden(&name)) {
            Ok(image) => image,
            Err(error) => {
                wrong.push(error.to_string());
                continue;
            }
        };
        let size = [image.height() as usize, image.width() as usize, 3];
        if expected.shape() != size {
            wrong.push(format!("{name}: {size:?}, not {:?}", expected.shape()));
            continue;
        }
        let largest = largest_difference(&image, expected.data());
        if largest > allowed {
            wrong.push(format!(
                "{name}: differs by {largest}, allowed is {allowed}"
            ));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn the_size_is_read_from_the_header_alone() {
    for (name, _) in table() {
        let image = decode_rgb(&golden(&name)).unwrap();
        let size = (image.width() as usize, image.height() as usize);
        assert_eq!(image_size(&golden(&name)).unwrap(), size, "{name}");
    }
}
