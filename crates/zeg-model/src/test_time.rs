//! Test-time augmentation: an image is processed at several scales and mirrored, and the scores are averaged.
//!
//! The scores are averaged after calibration. mmsegmentation's `aug_test` averages a softmax over them instead; with
//! sigmoid scores between 0 and 1 that is nearly linear, so the best class is almost always the same, but this is not
//! guaranteed.

use serde::{Deserialize, Serialize};
use zeg_image::RgbImage;

use crate::{ModelError, inference::Inference, method::Model};

/// Most scales of an image.
const MOST_SCALES: usize = 32;

/// Settings of test-time augmentation; by default the image is processed once, unchanged.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct TestTime {
    /// Factors on the length of the short side.
    pub scales: Vec<f64>,
    /// Whether every scale is processed mirrored, too.
    pub flip: bool,
}

impl Default for TestTime {
    fn default() -> Self {
        Self {
            scales: vec![1.0],
            flip: false,
        }
    }
}

impl TestTime {
    /// Checks the number and range of the scales.
    ///
    /// # Errors
    /// Returns an error if there is no scale, there are too many, or one is not between 0.05 and 20.
    pub fn check(&self) -> Result<(), ModelError> {
        if self.scales.is_empty() || self.scales.len() > MOST_SCALES {
            return Err(ModelError::Config(format!(
                "test-time scales: there are {}; give 1 to {MOST_SCALES}",
                self.scales.len()
            )));
        }
        match self
            .scales
            .iter()
            .find(|scale| !(0.05..=20.0).contains(*scale))
        {
            Some(scale) => Err(ModelError::Config(format!(
                "test-time scale {scale}: a scale must lie between 0.05 and 20"
            ))),
            None => Ok(()),
        }
    }

    /// Checks that the scales have an effect with a model; a flip has one with every model.
    ///
    /// # Errors
    /// Returns [`ModelError::FixedSize`] for a scale other than 1 if the model sees all images at one size.
    pub fn check_model(&self, model: &dyn Model) -> Result<(), ModelError> {
        let changes = |scale: &&f64| (**scale - 1.0).abs() > f64::EPSILON;
        match self.scales.iter().find(changes) {
            Some(scale) if !model.rescales() => Err(ModelError::FixedSize {
                setting: format!("the test-time scale {scale}"),
            }),
            _ => Ok(()),
        }
    }

    /// Returns the settings for one scale: the short side becomes `short side · scale`, cut to a whole number as
    /// mmsegmentation does.
    pub fn scaled(settings: &Inference, image: &RgbImage, scale: f64) -> Inference {
        #[allow(clippy::float_cmp)]
        // At exactly the default scale, the size must not pass through a floating-point number.
        if scale == 1.0 {
            return settings.clone();
        }
        let own = image.width().min(image.height()) as usize;
        let short_side = if settings.short_side == 0 {
            own
        } else {
            settings.short_side
        };
        Inference {
            short_side: ((short_side as f64 * scale) as usize).max(1),
            ..settings.clone()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_change_the_short_side_as_mmsegmentation_cuts_it() {
        let image = RgbImage::new(500, 375);
        let settings = Inference::default();
        let short = |scale| TestTime::scaled(&settings, &image, scale).short_side;
        assert_eq!((short(1.0), short(0.75), short(1.25)), (512, 384, 640));
        let own = Inference {
            short_side: 0,
            ..settings.clone()
        };
        assert_eq!(TestTime::scaled(&own, &image, 1.0).short_side, 0);
        assert_eq!(TestTime::scaled(&own, &image, 0.5).short_side, 187);
    }

    #[test]
    fn scales_out_of_range_are_refused() {
        for scales in [
            vec![],
            vec![0.0],
            vec![1.0, f64::NAN],
            vec![21.0],
            vec![1.0; 33],
        ] {
            let test_time = TestTime {
                scales,
                flip: false,
            };
            assert!(test_time.check().is_err(), "{test_time:?}");
        }
        assert!(TestTime::default().check().is_ok());
    }
}
