//! Where samples come from: a list of files, or pictures made while they are asked for.
//!
//! The loader and the scores need a number of samples, the classes, and one sample after the other; nothing in them
//! depends on there being files.

use zeg_vocab::classes::ClassSet;

use crate::{DataError, Dataset, Sample};

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

    /// Sample number `index`: always the same picture and labels.
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
