//! Tests of decoding every supported kind of file. `golden/make_images.py` writes the images and describes them.

use std::path::{Path, PathBuf};

use image::Rgb;
use zeg_image::{ImageError, RgbImage, decode_labels, decode_rgb, image_size};

fn golden(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/golden")
        .join(name)
}

/// Returns the scene of `make_images.py`.
fn scene() -> RgbImage {
    RgbImage::from_fn(48, 32, |x, y| match (x, y) {
        (4..12, 4..12) => Rgb([255; 3]),
        _ => Rgb([x * 5, y * 8, 255 - x * 5].map(|value| value as u8)),
    })
}

/// Returns the mean absolute difference of two images, in levels of 0..=255.
fn difference(a: &RgbImage, b: &RgbImage) -> f64 {
    assert_eq!(a.dimensions(), b.dimensions());
    let sum: u64 = a
        .iter()
        .zip(b.iter())
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    sum as f64 / a.len() as f64
}

#[test]
fn lossless_formats_are_decoded_exactly() {
    for name in ["rgb.png", "rgb.bmp", "rgb.tiff", "rgb.webp"] {
        assert_eq!(decode_rgb(&golden(name)).unwrap(), scene(), "{name}");
    }
}

#[test]
fn lossy_formats_are_decoded_closely() {
    for name in [
        "baseline.jpg",
        "progressive.jpg",
        "restart.jpg",
        "cmyk.jpg",
        "rgb.gif",
    ] {
        let difference = difference(&decode_rgb(&golden(name)).unwrap(), &scene());
        assert!(difference < 6.0, "{name}: {difference}");
    }
}

/// `jpegtran -scans scans.txt one_scan.jpg > several_scans.jpg` with the scans `0;`, `1;` and `2;` keeps all
/// coefficients, so both files have the same pixels. The colours are subsampled 2×2.
#[test]
fn a_jpeg_with_one_scan_per_component_has_the_pixels_of_one_scan() {
    let image = decode_rgb(&golden("several_scans.jpg")).unwrap();
    assert_eq!(image, decode_rgb(&golden("one_scan.jpg")).unwrap());
    assert_eq!(image.dimensions(), (200, 150));
}

/// `arithmetic.jpg` is coded as SOF9; in `sampling_factor_3.jpg` the brightness has the factors 3×1.
#[test]
fn valid_jpegs_that_are_not_supported_are_not_called_corrupt() {
    for name in ["arithmetic.jpg", "sampling_factor_3.jpg"] {
        for error in [
            decode_rgb(&golden(name)).unwrap_err(),
            image_size(&golden(name)).unwrap_err(),
        ] {
            assert!(
                matches!(error, ImageError::UnsupportedVariety { .. }),
                "{error}"
            );
            assert!(error.to_string().contains("not supported"), "{error}");
        }
    }
}

#[test]
fn grey_is_repeated_in_all_channels() {
    for name in ["grey.jpg", "grey8.png", "grey_alpha.png"] {
        let image = decode_rgb(&golden(name)).unwrap();
        assert!(
            image.pixels().all(|Rgb([r, g, b])| r == g && g == b),
            "{name}"
        );
        assert!(image.get_pixel(8, 8).0[0] > 250, "{name}");
    }
}

#[test]
fn alpha_is_dropped_as_in_opencv() {
    assert_eq!(decode_rgb(&golden("alpha.png")).unwrap(), scene());
}

#[test]
fn of_sixteen_bits_the_upper_eight_are_kept() {
    let image = decode_rgb(&golden("grey16.png")).unwrap();
    assert_eq!(
        image.get_pixel(47, 31).0,
        [((47 * 1300 + 31) >> 8) as u8; 3]
    );
}

#[test]
fn images_are_turned_upright() {
    let image = decode_rgb(&golden("orientation6.jpg")).unwrap();
    assert!(difference(&image, &scene()) < 6.0);
}

#[test]
fn palette_indices_are_never_expanded() {
    for (name, values) in [
        ("indexed1.png", 2),
        ("indexed2.png", 4),
        ("indexed4.png", 16),
        ("indexed8.png", 256),
    ] {
        let labels = decode_labels(&golden(name)).unwrap();
        assert_eq!((labels.width(), labels.height()), (45, 32), "{name}");
        for (index, &label) in labels.labels().iter().enumerate() {
            let expected = (index % 45 + index / 45) % values;
            assert_eq!(usize::from(label), expected, "{name} at {index}");
        }
    }
}

#[test]
fn grey_labels_keep_their_values() {
    let labels = decode_labels(&golden("grey16.png")).unwrap();
    assert_eq!(labels.get(47, 31), Some(47 * 1300 + 31));
    assert_eq!(
        decode_labels(&golden("grey8.png")).unwrap().get(8, 8),
        Some(255)
    );
}

#[test]
fn colour_images_are_refused_as_labels() {
    for (name, expected) in [
        ("rgb.png", "RGB"),
        ("alpha.png", "RGBA"),
        ("grey_alpha.png", "grey with alpha"),
    ] {
        let error = decode_labels(&golden(name)).unwrap_err();
        assert!(
            matches!(error, ImageError::LabelsInColour { colours, .. } if colours == expected),
            "{error}"
        );
        assert!(error.to_string().contains(name));
    }
    assert!(matches!(
        decode_labels(&golden("grey1.png")),
        Err(ImageError::LabelBitDepth { bits: 1, .. })
    ));
    assert!(matches!(
        decode_labels(&golden("baseline.jpg")),
        Err(ImageError::LabelsLossy { format: "JPEG", .. })
    ));
}
