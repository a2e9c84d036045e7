//! A part of a mini world as a data set without files, for training and evaluation.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeg_vocab::classes::ClassSet;

use super::{Part, World, WorldConfig};
use crate::part::SplitPart;
use crate::{DataError, Sample, SampleSource};

/// The mini world's name among the data sets.
pub const DATASET: &str = "mini-world";

/// The mini world section of a configuration: the settings of the world and the number of images of each split.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct WorldData {
    /// Number of images of the split `train`.
    pub train: usize,
    /// Number of images of the split `val`.
    pub val: usize,
    /// Number of images of the split `test`.
    pub test: usize,
    /// The settings of the world.
    pub world: WorldConfig,
}

impl Default for WorldData {
    fn default() -> Self {
        Self {
            train: 1000,
            val: 200,
            test: 400,
            world: WorldConfig::default(),
        }
    }
}

/// Images of a part of a mini world; an image is rendered again whenever it is loaded.
#[derive(Debug, Clone)]
pub struct WorldSet {
    world: Arc<World>,
    part: Part,
    /// Numbers of its images within the part.
    images: Vec<u64>,
}

impl WorldSet {
    /// Returns images `0..len` of a part.
    pub fn new(world: Arc<World>, part: Part, len: usize) -> Self {
        Self {
            world,
            part,
            images: (0..len as u64).collect(),
        }
    }

    /// Opens a split: `train`, `val` or `test`; `train:1/5` is every fifth image, `train:not-1/5` all others.
    ///
    /// # Errors
    /// Returns an error if the settings are out of range or there is no such split.
    pub fn open(data: &WorldData, split: &str) -> Result<Self, DataError> {
        let name = SplitPart::parse(split);
        let (part, len) = match name.split {
            "train" => (Part::Train, data.train),
            "val" => (Part::Val, data.val),
            "test" => (Part::Test, data.test),
            _ => {
                return Err(DataError::SplitNotFound {
                    dataset: DATASET.to_owned(),
                    split: split.to_owned(),
                    folder: DATASET.into(),
                    available: ["test", "train", "val"].map(str::to_owned).to_vec(),
                });
            }
        };
        let world =
            World::new(data.world.clone()).map_err(|error| DataError::World(error.into()))?;
        let mut set = Self::new(Arc::new(world), part, len);
        name.keep(&mut set.images);
        Ok(set)
    }

    /// Returns the world of the images.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Returns the numbers of the images within their part, for changing them.
    pub(crate) fn images_mut(&mut self) -> &mut Vec<u64> {
        &mut self.images
    }

    /// Returns the part and the numbers of the images.
    pub fn images(&self) -> (Part, &[u64]) {
        (self.part, &self.images)
    }
}

/// Two sets are equal if they have the same images.
impl PartialEq for WorldSet {
    fn eq(&self, other: &Self) -> bool {
        self.world.config() == other.world.config() && self.images() == other.images()
    }
}

impl SampleSource for WorldSet {
    fn name(&self) -> &str {
        DATASET
    }

    fn classes(&self) -> &ClassSet {
        self.world.classes()
    }

    fn len(&self) -> usize {
        self.images.len()
    }

    fn id(&self, index: usize) -> String {
        let number = self.images.get(index);
        number
            .map(|&number| self.part.id(number))
            .unwrap_or_default()
    }

    fn load(&self, index: usize) -> Result<Sample, DataError> {
        let Some(&number) = self.images.get(index) else {
            return Err(DataError::NoSuchSample {
                dataset: self.name().to_owned(),
                index,
                len: self.len(),
            });
        };
        let sample = self.world.sample(self.part, number);
        Ok(sample.into_sample(self.id(index)))
    }
}
