//! The option for example images with masks.

use std::path::{Path, PathBuf};

use clap::Args;
use zeg::{Segmenter, examples::ExampleFolder};

use super::{CacheUse, heading};
use crate::progress::Verbosity;

/// The option for classes given by example images.
#[derive(Debug, Args)]
pub(crate) struct ExamplesArgs {
    /// Folder of example images with masks: CLASS/NAME.jpg with CLASS/NAME_mask.png, which is 0 outside the class. A class
    /// of that name is scored by its name and its examples
    #[arg(long, value_name = "DIR", help_heading = heading::CLASSES)]
    examples: Option<PathBuf>,
}

impl ExamplesArgs {
    /// Returns the folder, if one is given.
    pub(crate) fn folder(self) -> Option<PathBuf> {
        self.examples
    }
}

/// Encodes a folder of examples for a segmenter, and warns of masks that may mean something else.
///
/// # Errors
/// Returns an error if the folder is not complete, or an example cannot be encoded.
pub(crate) fn encode_examples(
    segmenter: &mut Segmenter,
    folder: &Path,
    cache: CacheUse,
    verbosity: Verbosity,
) -> anyhow::Result<()> {
    let folder = ExampleFolder::open(folder)?;
    warn_of_masks(&folder)?;
    let bar = verbosity.progress("encoding", "examples", folder.pairs() as u64);
    let encoded = segmenter.set_examples(&folder, cache.folder().as_deref(), &|done, _| {
        bar.set_position(done as u64);
    });
    bar.finish();
    Ok(encoded?)
}

/// Warns of masks of several values, and of those that cover a whole image.
///
/// # Errors
/// Returns an error if an example cannot be read.
pub(crate) fn warn_of_masks(folder: &ExampleFolder) -> anyhow::Result<()> {
    for pair in folder.classes.iter().flat_map(|class| &class.pairs) {
        for warning in pair.read_with_warnings()?.2 {
            print_notice!("warning: {warning}");
        }
    }
    Ok(())
}
