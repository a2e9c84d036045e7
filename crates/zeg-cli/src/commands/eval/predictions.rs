//! Predicted label maps: written to a folder on request, and spooled for the gallery.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use zeg::{
    data::{OpenSet, SampleSource as _},
    evaluation::{self, ImageState, ScoredImage},
    image::{LabelMap, write_named_png},
    label_spool::LabelSpool,
};
use zeg_base::file::{Overwrite, behind_link};

/// Uses of the predictions of one outcome.
pub(super) struct PredictionUse {
    /// Folder to write the label maps to.
    pub(super) labels: Option<PathBuf>,
    /// Whether to keep them until all images are scored.
    pub(super) keep: bool,
}

/// Receiver of the predictions of all outcomes, image by image.
pub(super) struct Predictions {
    outcomes: Vec<OutcomePredictions>,
    names: Vec<String>,
    palette: Vec<[u8; 3]>,
}

/// Receiver of the predictions of one outcome.
struct OutcomePredictions {
    labels: Option<PathBuf>,
    spool: Option<LabelSpool>,
}

impl Predictions {
    pub(super) fn new(
        dataset: &OpenSet,
        uses: impl Iterator<Item = PredictionUse>,
    ) -> anyhow::Result<Self> {
        let outcomes = uses.map(|outcome| {
            let spool = outcome.keep.then(LabelSpool::new).transpose();
            Ok(OutcomePredictions {
                labels: outcome.labels,
                spool: spool.context("keeping predictions in a temporary file")?,
            })
        });
        Ok(Self {
            outcomes: outcomes.collect::<anyhow::Result<_>>()?,
            names: dataset.classes().classes.clone(),
            palette: dataset.classes().palette(),
        })
    }

    /// Returns whether any prediction is used.
    pub(super) fn needed(&self) -> evaluation::Predictions {
        let is_used =
            |outcome: &OutcomePredictions| outcome.labels.is_some() || outcome.spool.is_some();
        if self.outcomes.iter().any(is_used) {
            evaluation::Predictions::Kept
        } else {
            evaluation::Predictions::Dropped
        }
    }

    /// Takes the predictions of the next image, one per outcome.
    pub(super) fn take(&mut self, scored: &ScoredImage) -> anyhow::Result<()> {
        for (outcome, labels) in self.outcomes.iter_mut().zip(scored.predictions) {
            if let Some(spool) = &mut outcome.spool {
                let kept = spool.push(labels);
                kept.context("keeping predictions in a temporary file")?;
            }
            let file = outcome.labels.as_deref();
            let file = file.map(|folder| label_file(folder, scored.id));
            // A run that was killed has kept its last image in the journal, but perhaps not written the file.
            let is_missing = |file: &PathBuf| scored.state != ImageState::Kept || !file.exists();
            if let Some(file) = file.filter(is_missing) {
                write(file, labels, &self.palette, &self.names)?;
            }
        }
        Ok(())
    }

    /// Returns the spooled label maps of each outcome, in the order of the images.
    pub(super) fn finish(self) -> Vec<Option<LabelSpool>> {
        self.outcomes
            .into_iter()
            .map(|outcome| outcome.spool)
            .collect()
    }
}

/// Returns the path of the label map of an image.
pub(super) fn label_file(folder: &Path, id: &str) -> PathBuf {
    folder.join(format!("{id}.png"))
}

/// Writes a label map, and its folder: the ids of some data sets are paths (`frankfurt/frankfurt_000000_000294`).
fn write(
    path: PathBuf,
    labels: &LabelMap,
    palette: &[[u8; 3]],
    names: &[String],
) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    // Class names that do not fit into the PNG are left out of it.
    let behind =
        behind_link(&path, Overwrite::Replace).with_context(|| path.display().to_string())?;
    write_named_png(&behind, labels, palette, names).map(drop)?;
    Ok(())
}
