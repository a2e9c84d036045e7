//! The settings of a mini world, with those of the feasibility study as defaults.

use serde::{Deserialize, Serialize};

use super::WorldError;

/// Smallest and largest side of an image, in pixels.
const SIDES: std::ops::RangeInclusive<usize> = 16..=1024;
/// Largest number of objects in an image; each has a different name, and the smaller pool has nine names.
const MAX_OBJECTS: usize = 9;
/// Smallest radius at which textures can still be distinguished, in pixels.
const MIN_RADIUS: f64 = 4.0;
/// Largest seed: the largest integer of a TOML file.
const MAX_SEED: u64 = i64::MAX as u64;

/// The settings of a mini world; the same settings make the same images on every machine.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct WorldConfig {
    /// Seed of all images, below 2^63.
    pub seed: u64,
    /// Width and height of an image in pixels, 16..=1024.
    pub size: usize,
    /// Smallest and largest number of objects in an image, within 1..=9.
    pub objects: (usize, usize),
    /// Smallest and largest radius of an object in pixels; a shape fits into a circle of about this radius.
    pub radius: (f64, f64),
    /// Largest angle by which an object is rotated in either direction, in radians, 0..=π.
    pub rotation: f64,
    /// Strength of the background's variation, 0 (one grey) to 1.
    pub clutter: f64,
    /// Standard deviation of the noise, as a share of the range of grey levels, 0..=0.5.
    pub noise: f64,
    /// Largest share of its brightness that the darkest corner loses, 0..=0.9.
    pub lighting: f64,
    /// Probability that an object in training, validation and test images is a distractor, 0..=1.
    ///
    /// The name of a distractor is not a class, and its pixels are ignored.
    pub distractors: f64,
    /// The difference between unseen and seen classes.
    pub split: WorldSplit,
    /// Seed of the choice of classes, below 2^63.
    pub split_seed: u64,
    /// Whether training images show objects of unseen classes.
    ///
    /// In the published protocol they do: images with unseen content stay in the training set, and their unseen
    /// pixels count as unlabelled there. The label maps always hold the true classes; the supervision decides which of
    /// them training uses. With `false` the training images show neither an unseen class nor, with
    /// [`WorldSplit::UnseenColours`], anything in a withheld colour.
    pub unseen_in_training: bool,
}

/// The difference between unseen and seen classes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum WorldSplit {
    /// Two colours are withheld: they occur in captions, but not in the seen classes.
    #[default]
    UnseenColours,
    /// Every colour and every texture occurs in seen classes, but the pairs of the unseen classes do not.
    UnseenCombinations,
}

/// Image size and number of objects in one stage of pre-training.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub struct PretrainStage {
    /// Width and height of an image in pixels, 16..=1024.
    pub size: usize,
    /// Smallest and largest number of objects in an image, within 1..=9.
    pub objects: (usize, usize),
}

impl PretrainStage {
    /// The stages of the feasibility study: single objects in small images, then in larger ones, then scenes.
    pub const CURRICULUM: [Self; 3] = [Self::single(32), Self::single(48), Self::scene(64)];

    /// Returns the stage of images of this width and height with one object.
    pub const fn single(size: usize) -> Self {
        Self {
            size,
            objects: (1, 1),
        }
    }

    /// Returns the stage of images of this width and height with two or three objects.
    pub const fn scene(size: usize) -> Self {
        Self {
            size,
            objects: (2, 3),
        }
    }

    /// Returns an error if the image size or the numbers of objects are out of range.
    pub(super) fn check(self) -> Result<(), WorldError> {
        check_image(self.size, self.objects)
    }
}

impl Default for WorldConfig {
    fn default() -> Self {
        Self {
            seed: 0,
            size: 64,
            objects: (2, 3),
            radius: (9.0, 16.0),
            rotation: 0.45,
            clutter: 0.5,
            noise: 0.02,
            lighting: 0.35,
            distractors: 0.2,
            split: WorldSplit::UnseenColours,
            split_seed: 0,
            unseen_in_training: true,
        }
    }
}

impl WorldConfig {
    /// Returns an error if a setting is out of range, naming the setting, its value and the range.
    pub(super) fn check(&self) -> Result<(), WorldError> {
        for (setting, seed) in [("seed", self.seed), ("split-seed", self.split_seed)] {
            require(seed <= MAX_SEED, setting, || seed.to_string(), "below 2^63")?;
        }
        check_image(self.size, self.objects)?;
        let (low, high) = self.radius;
        require(
            low >= MIN_RADIUS && low <= high && high <= self.size as f64 / 2.0,
            "radius",
            || format!("[{low}, {high}] in images of {} pixels", self.size),
            "two numbers of pixels from 4 to half the image side, the smaller first",
        )?;
        for (setting, value, most, legal) in [
            (
                "rotation",
                self.rotation,
                std::f64::consts::PI,
                "within 0..=π",
            ),
            ("clutter", self.clutter, 1.0, "within 0..=1"),
            ("noise", self.noise, 0.5, "within 0..=0.5"),
            ("lighting", self.lighting, 0.9, "within 0..=0.9"),
            ("distractors", self.distractors, 1.0, "within 0..=1"),
        ] {
            let fits = (0.0..=most).contains(&value);
            require(fits, setting, || value.to_string(), legal)?;
        }
        Ok(())
    }
}

fn check_image(size: usize, (least, most): (usize, usize)) -> Result<(), WorldError> {
    let fits = SIDES.contains(&size);
    require(fits, "size", || size.to_string(), "within 16..=1024")?;
    require(
        1 <= least && least <= most && most <= MAX_OBJECTS,
        "objects",
        || format!("[{least}, {most}]"),
        "two numbers within 1..=9, the smaller first",
    )
}

fn require(
    holds: bool,
    setting: &'static str,
    value: impl FnOnce() -> String,
    legal: &'static str,
) -> Result<(), WorldError> {
    if holds {
        return Ok(());
    }
    Err(WorldError::Setting {
        setting,
        value: value(),
        legal,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_fields_have_defaults_and_integers_are_accepted_as_floats() {
        let text =
            "radius = [9, 16]\nsplit = \"unseen-combinations\"\nunseen-in-training = false\n";
        let config: WorldConfig = toml::from_str(text).unwrap();
        let expected = WorldConfig {
            split: WorldSplit::UnseenCombinations,
            unseen_in_training: false,
            ..WorldConfig::default()
        };
        assert_eq!(config, expected);
        let again: WorldConfig = toml::from_str(&toml::to_string(&config).unwrap()).unwrap();
        assert_eq!(again, config);
        assert!(toml::from_str::<WorldConfig>("sise = 3").is_err());
    }

    #[test]
    fn settings_out_of_range_are_named() {
        type Change = fn(&mut WorldConfig);
        let cases: [(&str, Change); 14] = [
            ("seed", |config| config.seed = u64::MAX),
            ("split-seed", |config| config.split_seed = 1 << 63),
            ("size", |config| config.size = 0),
            ("size", |config| config.size = 1025),
            ("objects", |config| config.objects = (0, 1)),
            ("objects", |config| config.objects = (3, 2)),
            ("objects", |config| config.objects = (1, 10)),
            ("radius", |config| config.radius = (3.0, 9.0)),
            ("radius", |config| config.radius = (9.0, 33.0)),
            ("radius", |config| config.radius = (f64::NAN, 9.0)),
            ("rotation", |config| config.rotation = f64::INFINITY),
            ("clutter", |config| config.clutter = -0.1),
            ("noise", |config| config.noise = f64::NAN),
            ("lighting", |config| config.lighting = 1.0),
        ];
        for (wanted, change) in cases {
            let mut config = WorldConfig::default();
            change(&mut config);
            match config.check() {
                Err(WorldError::Setting { setting, .. }) => assert_eq!(setting, wanted),
                other => panic!("{wanted}: {other:?}"),
            }
        }
        WorldConfig::default().check().unwrap();
        assert!(PretrainStage::single(8).check().is_err());
        for stage in PretrainStage::CURRICULUM {
            stage.check().unwrap();
        }
    }
}
