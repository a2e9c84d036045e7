//! Where samples come from: a list of files, or images made while they are asked for.
//!
//! The loader and the scores need a number of samples, the classes, and one sample after the other; nothing in them
//! depends on there being files.

use zeg_vocab::classes::ClassSet;

use crate::mini_world::{DATASET, WorldData, WorldSet};
use crate::{DataError, Dataset, Metric, Sample, Selection};

/// Samples by number, of one list of classes.
pub trait SampleSource: Send + Sync {
    /// The name configurations and messages use.
    fn name(&self) -> &str;

    /// The classes; labels are their positions.
    fn classes(&self) -> &ClassSet;

    /// Number of samples.
    fn len(&self) -> usize;

    /// Whether there is no sample.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// What sample number `index` is called in messages; empty for an index past the end of a list of files.
    fn id(&self, index: usize) -> String;

    /// Sample number `index`: always the same image and labels.
    ///
    /// # Errors
    /// [`DataError::NoSuchSample`] for an index past the end; otherwise whatever kept the sample from being read.
    fn load(&self, index: usize) -> Result<Sample, DataError>;
}

impl SampleSource for Dataset {
    fn name(&self) -> &str {
        &self.name
    }

    fn classes(&self) -> &ClassSet {
        &self.classes
    }

    fn len(&self) -> usize {
        self.items.len()
    }

    fn id(&self, index: usize) -> String {
        let item = self.items.get(index);
        item.map(|item| item.id.clone()).unwrap_or_default()
    }

    fn load(&self, index: usize) -> Result<Sample, DataError> {
        Dataset::load(self, index)
    }
}

/// An opened data set: a list of files, or a world that needs none.
#[derive(Debug, Clone, PartialEq)]
pub enum OpenSet {
    /// Images and label maps in files.
    Files(Dataset),
    /// Images of a mini world.
    World(WorldSet),
}

impl OpenSet {
    /// Opens what a configuration names: [`DATASET`] is a mini world, everything else lies in a folder.
    ///
    /// - `world`: which mini world, and how many images; the default one without
    ///
    /// # Errors
    /// As [`open`](crate::open); a mini world's settings are out of range, or it has no such split.
    pub fn open(selection: &Selection, world: Option<&WorldData>) -> Result<Self, DataError> {
        if selection.dataset != DATASET {
            return crate::open(selection).map(Self::Files);
        }
        let usual = WorldData::default();
        WorldSet::open(world.unwrap_or(&usual), selection.split).map(Self::World)
    }

    /// The name messages use.
    pub fn title(&self) -> &str {
        match self {
            Self::Files(dataset) => &dataset.title,
            Self::World(_) => "the mini world",
        }
    }

    /// What results are usually reported in.
    pub fn metric(&self) -> Metric {
        match self {
            Self::Files(dataset) => dataset.metric,
            Self::World(_) => Metric::MeanIou,
        }
    }

    /// Keeps the samples whose position `keep` accepts.
    pub fn retain(&mut self, mut keep: impl FnMut(usize) -> bool) {
        let mut position = 0;
        let mut next = || {
            position += 1;
            keep(position - 1)
        };
        match self {
            Self::Files(dataset) => dataset.items.retain(|_| next()),
            Self::World(world) => world.images_mut().retain(|_| next()),
        }
    }

    fn source(&self) -> &dyn SampleSource {
        match self {
            Self::Files(dataset) => dataset,
            Self::World(world) => world,
        }
    }
}

impl SampleSource for OpenSet {
    fn name(&self) -> &str {
        self.source().name()
    }

    fn classes(&self) -> &ClassSet {
        self.source().classes()
    }

    fn len(&self) -> usize {
        self.source().len()
    }

    fn id(&self, index: usize) -> String {
        self.source().id(index)
    }

    fn load(&self, index: usize) -> Result<Sample, DataError> {
        self.source().load(index)
    }
}
