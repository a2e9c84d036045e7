//! Preprocessing settings of a configuration, with the published values as defaults.

use serde::{Deserialize, Serialize};

use crate::DataError;

/// Largest side of a training sample and of a resized image, in pixels.
const MAX_SIDE: usize = 16_384;

/// Preprocessing that converts samples of any size to training samples of one size.
///
/// In a configuration, `kind` is `"random-crop"`, `"short-sides"` or `"whole"`, and the other keys are the fields of
/// that kind; missing fields have the published values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(tag = "kind", rename_all = "kebab-case")]
pub enum Preprocess {
    /// Resize by a random ratio, crop, flip, distort: the pipeline of the published experiments.
    RandomCrop(RandomCrop),
    /// Resize to a short side from a list, crop, distort, flip, pad with grey: ZegFormer's pipeline.
    ShortSides(ShortSides),
    /// Resize the whole image to a square without keeping its aspect ratio; flip and distort only if set.
    Whole(Whole),
}

/// Settings of the published training pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct RandomCrop {
    /// Long and short side of the box that an image is fitted into, before the random ratio.
    pub base_scale: (usize, usize),
    /// Lower and upper bound of the random ratio.
    pub ratio: (f64, f64),
    /// Width and height of the crop.
    pub crop: usize,
    /// A crop is drawn again if one class covers this share of its labelled pixels or more; 1 disables the limit.
    pub max_category_ratio: f64,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Whether brightness, contrast, saturation and hue are changed at random.
    pub photometric: bool,
}

impl Default for RandomCrop {
    /// Returns ZegCLIP's and CLIP-RC's training settings for 512×512 crops.
    fn default() -> Self {
        Self {
            base_scale: (2048, 512),
            ratio: (0.5, 2.0),
            crop: 512,
            max_category_ratio: 0.75,
            flip: 0.5,
            photometric: true,
        }
    }
}

/// Settings of ZegFormer's training pipeline.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct ShortSides {
    /// Base length in pixels, of which short sides are given in tenths.
    pub base: usize,
    /// The smallest and the largest short side, in tenths of the base; all integers between them are equally likely.
    pub tenths: (usize, usize),
    /// Largest long side of a resized image, in pixels.
    pub longest: usize,
    /// Width and height of the crop.
    pub crop: usize,
    /// Probability of a horizontal flip.
    pub flip: f64,
    /// Whether brightness, contrast, saturation and hue are changed at random.
    pub photometric: bool,
}

impl Default for ShortSides {
    /// Returns ZegFormer's training settings on PASCAL VOC.
    fn default() -> Self {
        Self {
            base: 512,
            tenths: (5, 20),
            longest: 2048,
            crop: 512,
            flip: 0.5,
            photometric: true,
        }
    }
}

impl ShortSides {
    fn check(&self) -> Result<(), DataError> {
        let (low, high) = self.tenths;
        require(
            low > 0 && low <= high && high <= 100,
            "tenths",
            format!("[{low}, {high}]"),
            "two numbers within 1..=100, the smaller first",
        )?;
        check_side("base", self.base)?;
        check_side("longest", self.longest)?;
        require(
            low * self.base >= 10 && high * self.base / 10 <= MAX_SIDE,
            "base",
            self.base.to_string(),
            "such that all short sides are within 1..=16384",
        )?;
        check_side("crop", self.crop)?;
        check_probability("flip", self.flip)
    }
}

/// Settings of training on whole images.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct Whole {
    /// Width and height of the resized image.
    pub size: usize,
    /// Probability of a horizontal flip; with 0 and without distortion the pipeline is deterministic.
    pub flip: f64,
    /// Whether brightness, contrast, saturation and hue are changed at random.
    pub photometric: bool,
}

impl Default for Whole {
    fn default() -> Self {
        Self {
            size: 512,
            flip: 0.0,
            photometric: false,
        }
    }
}

impl Preprocess {
    /// Returns the width and height of every training sample.
    pub fn size(&self) -> usize {
        match self {
            Self::RandomCrop(settings) => settings.crop,
            Self::ShortSides(settings) => settings.crop,
            Self::Whole(settings) => settings.size,
        }
    }

    /// Checks the range of every setting.
    ///
    /// # Errors
    /// Returns [`DataError::Setting`] with the setting, its value and the range.
    pub fn check(&self) -> Result<(), DataError> {
        match self {
            Self::RandomCrop(settings) => settings.check(),
            Self::ShortSides(settings) => settings.check(),
            Self::Whole(settings) => {
                check_side("size", settings.size)?;
                check_probability("flip", settings.flip)
            }
        }
    }
}

impl RandomCrop {
    fn check(&self) -> Result<(), DataError> {
        let (long, short) = self.base_scale;
        let (low, high) = self.ratio;
        require(
            low > 0.0 && low <= high && high.is_finite(),
            "ratio",
            format!("[{low}, {high}]"),
            "two finite numbers above 0, the smaller first",
        )?;
        let largest = long.max(short) as f64 * high;
        let smallest = long.min(short) as f64 * low;
        require(
            smallest >= 1.0 && largest <= MAX_SIDE as f64,
            "base-scale",
            format!("[{long}, {short}] with ratios up to {high}"),
            "two sizes that stay within 1..=16384 after the ratio",
        )?;
        check_side("crop", self.crop)?;
        require(
            self.max_category_ratio > 0.0 && self.max_category_ratio <= 1.0,
            "max-category-ratio",
            self.max_category_ratio.to_string(),
            "above 0 and at most 1",
        )?;
        check_probability("flip", self.flip)
    }
}

fn check_side(setting: &'static str, side: usize) -> Result<(), DataError> {
    require(
        (1..=MAX_SIDE).contains(&side),
        setting,
        side.to_string(),
        "within 1..=16384",
    )
}

fn check_probability(setting: &'static str, probability: f64) -> Result<(), DataError> {
    require(
        (0.0..=1.0).contains(&probability),
        setting,
        probability.to_string(),
        "a probability within 0..=1",
    )
}

fn require(
    fulfilled: bool,
    setting: &'static str,
    value: String,
    legal: &'static str,
) -> Result<(), DataError> {
    if fulfilled {
        return Ok(());
    }
    Err(DataError::Setting {
        setting,
        value,
        legal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Preprocess, toml::de::Error> {
        toml::from_str(text)
    }

    #[test]
    fn missing_fields_have_the_published_values() {
        let settings = parse("kind = 'random-crop'").unwrap();
        assert_eq!(settings, Preprocess::RandomCrop(RandomCrop::default()));
        let settings = parse("kind = 'random-crop'\nmax-category-ratio = 1.0\nratio = [1.0, 1.0]");
        assert_eq!(
            settings.unwrap(),
            Preprocess::RandomCrop(RandomCrop {
                max_category_ratio: 1.0,
                ratio: (1.0, 1.0),
                ..RandomCrop::default()
            })
        );
    }

    #[test]
    fn settings_survive_a_round_trip() {
        for settings in [
            Preprocess::RandomCrop(RandomCrop::default()),
            Preprocess::ShortSides(ShortSides::default()),
            Preprocess::Whole(Whole::default()),
        ] {
            let text = toml::to_string(&settings).unwrap();
            assert_eq!(parse(&text).unwrap(), settings, "{text}");
        }
    }

    #[test]
    fn unknown_kinds_and_fields_are_refused() {
        assert!(parse("kind = 'squeeze'").is_err());
        let error = parse("kind = 'whole'\ncrop = 512").unwrap_err();
        assert!(error.to_string().contains("crop"), "{error}");
        assert!(parse("kind = 'random-crop'\nsize = 512").is_err());
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let refused = |settings: RandomCrop| {
            let error = Preprocess::RandomCrop(settings).check().unwrap_err();
            match error {
                DataError::Setting { setting, .. } => setting,
                other => panic!("{other}"),
            }
        };
        let base = RandomCrop::default;
        assert_eq!(refused(RandomCrop { crop: 0, ..base() }), "crop");
        let flip = f64::NAN;
        assert_eq!(refused(RandomCrop { flip, ..base() }), "flip");
        let ratio = (2.0, 0.5);
        assert_eq!(refused(RandomCrop { ratio, ..base() }), "ratio");
        let ratio = (0.5, 1e9);
        assert_eq!(refused(RandomCrop { ratio, ..base() }), "base-scale");
        let max_category_ratio = 0.0;
        assert_eq!(
            refused(RandomCrop {
                max_category_ratio,
                ..base()
            }),
            "max-category-ratio"
        );
        let whole = Whole {
            size: usize::MAX,
            ..Whole::default()
        };
        assert!(Preprocess::Whole(whole).check().is_err());
    }
}
