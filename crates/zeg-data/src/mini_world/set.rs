//! A part of a mini world as a data set in memory: what training and evaluation read, without files.

use std::sync::Arc;

use serde::{Deserialize, Serialize};
use zeg_vocab::classes::ClassSet;

use super::{Part, World, WorldConfig};
use crate::part::SplitPart;
use crate::{DataError, Sample, SampleSource};

/// Name of the mini world where data sets are named.
pub const DATASET: &str = "mini-world";

/// A mini world as a configuration names it: which world, and how many images of each part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(default, rename_all = "kebab-case", deny_unknown_fields)]
pub struct WorldData {
    /// Images of the split `train`.
    pub train: usize,
    /// Images of the split `val`.
    pub val: usize,
    /// Images of the split `test`.
    pub test: usize,
    /// The world.
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

/// Images of a part of a mini world; each is made again whenever it is asked for.
#[derive(Debug, Clone)]
pub struct WorldSet {
    world: Arc<World>,
    part: Part,
    /// Numbers of its images within the part.
    images: Vec<u64>,
}

impl WorldSet {
    /// Images `0..len` of a part.
    pub fn new(world: Arc<World>, part: Part, len: usize) -> Self {
        Self {
            world,
            part,
            images: (0..len as u64).collect(),
        }
    }

    /// The images of a split: `train`, `val` or `test`; `train:1/5` is every fifth, `train:not-1/5` all others.
    ///
    /// # Errors
    /// The settings are out of range, or there is no such split.
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

    /// The world the images come from.
    pub fn world(&self) -> &World {
        &self.world
    }

    /// Numbers of its images within their part.
    pub(crate) fn images_mut(&mut self) -> &mut Vec<u64> {
        &mut self.images
    }

    /// The part and the numbers of its images.
    pub fn images(&self) -> (Part, &[u64]) {
        (self.part, &self.images)
    }
}

/// Whether both have the same images.
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
