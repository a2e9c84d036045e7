//! A part of a mini world as a data set in memory: what training and evaluation read, without files.

use std::sync::Arc;

use zeg_vocab::classes::ClassSet;

use super::{Part, World};
use crate::{DataError, Sample, SampleSource};

/// The first pictures of a part of a mini world; each is made again whenever it is asked for.
#[derive(Debug, Clone)]
pub struct WorldSet {
    world: Arc<World>,
    part: Part,
    len: usize,
}

impl WorldSet {
    /// Pictures `0..len` of a part.
    pub fn new(world: Arc<World>, part: Part, len: usize) -> Self {
        Self { world, part, len }
    }

    /// The world the pictures come from.
    pub fn world(&self) -> &World {
        &self.world
    }
}

impl SampleSource for WorldSet {
    fn name(&self) -> &str {
        &self.world.classes().name
    }

    fn classes(&self) -> &ClassSet {
        self.world.classes()
    }

    fn len(&self) -> usize {
        self.len
    }

    fn id(&self, index: usize) -> String {
        self.part.id(index as u64)
    }

    fn load(&self, index: usize) -> Result<Sample, DataError> {
        if index >= self.len {
            return Err(DataError::NoSuchSample {
                dataset: self.name().to_owned(),
                index,
                len: self.len,
            });
        }
        let sample = self.world.sample(self.part, index as u64);
        Ok(sample.into_sample(self.id(index)))
    }
}
