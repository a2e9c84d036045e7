//! Checks that the floating-point samples of an image lie from 0 to 1.
//!
//! A file does not say what its largest value stands for. Samples from 0 to 255 would all be read as white, so they are
//! refused instead of being guessed at.

use std::path::Path;

use image::DynamicImage;

use crate::ImageError;

/// Half a step of 8 bits: samples that lie outside by less have the colours of 0 and 1 anyway.
const TOLERANCE: f32 = 0.5 / 255.0;

/// Returns an error if the colours of an image are floating-point numbers that are not finite or not from 0 to 1.
///
/// Alpha is dropped later and does not count.
pub(crate) fn check(image: &DynamicImage, name: &Path) -> Result<(), ImageError> {
    let (samples, channels) = match image {
        DynamicImage::ImageRgb32F(image) => (image.as_raw(), 3),
        DynamicImage::ImageRgba32F(image) => (image.as_raw(), 4),
        _ => return Ok(()),
    };
    let (mut least, mut largest) = (0.0_f32, 0.0_f32);
    for &sample in samples.chunks_exact(channels).flat_map(|pixel| &pixel[..3]) {
        if !sample.is_finite() {
            return Err(ImageError::SampleNotFinite {
                path: name.into(),
                value: sample,
            });
        }
        (least, largest) = (least.min(sample), largest.max(sample));
    }
    if least < -TOLERANCE || largest > 1.0 + TOLERANCE {
        return Err(ImageError::SampleRange {
            path: name.into(),
            least,
            largest,
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use image::{ImageBuffer, Rgb, Rgba};

    use super::*;

    #[test]
    fn floating_point_samples_must_lie_from_0_to_1() {
        let checked = |sample: f32| {
            let image = ImageBuffer::from_pixel(2, 1, Rgb([0.5, sample, 0.25]));
            check(&image.into(), Path::new("x.tif"))
        };
        for sample in [0.0, 1.0, -0.001, 1.001] {
            assert!(checked(sample).is_ok(), "{sample}");
        }
        assert_eq!(
            checked(255.0).unwrap_err().to_string(),
            "x.tif: the floating-point samples reach from 0 to 255; expected 0 to 1"
        );
        assert!(matches!(
            checked(-0.5),
            Err(ImageError::SampleRange { least: -0.5, .. })
        ));
        for sample in [f32::NAN, f32::INFINITY] {
            assert!(matches!(
                checked(sample),
                Err(ImageError::SampleNotFinite { .. })
            ));
        }
        let with_alpha = ImageBuffer::from_pixel(1, 1, Rgba([0.5_f32, 0.5, 0.5, 7.0]));
        assert!(check(&with_alpha.into(), Path::new("x.tif")).is_ok());
    }
}
