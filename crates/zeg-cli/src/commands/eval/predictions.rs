//! What happens to predicted label maps: they are written where that is asked for, and kept for the gallery.

use std::path::PathBuf;

use anyhow::Context as _;
use zeg::{
    data::{OpenSet, SampleSource as _},
    evaluation::ScoredImage,
    image::{LabelMap, write_named_png},
    label_spool::LabelSpool,
};

/// What is wanted of one outcome's predictions.
pub(super) struct Wanted {
    /// Folder to write them to.
    pub(super) labels: Option<PathBuf>,
    /// Whether they are looked at again when all are known.
    pub(super) keep: bool,
}

/// Takes the predictions of all outcomes, image by image.
pub(super) struct Predictions {
    outcomes: Vec<Taker>,
    names: Vec<String>,
    palette: Vec<[u8; 3]>,
}

struct Taker {
    labels: Option<PathBuf>,
    spool: Option<LabelSpool>,
}

impl Predictions {
    pub(super) fn new(
        dataset: &OpenSet,
        wanted: impl Iterator<Item = Wanted>,
    ) -> anyhow::Result<Self> {
        let outcomes = wanted.map(|wanted| {
            let spool = wanted.keep.then(LabelSpool::new).transpose();
            Ok(Taker {
                labels: wanted.labels,
                spool: spool.context("keeping predictions in a temporary file")?,
            })
        });
        Ok(Self {
            outcomes: outcomes.collect::<anyhow::Result<_>>()?,
            names: dataset.classes().classes.clone(),
            palette: dataset.classes().palette(),
        })
    }

    /// Takes the predictions of the next image, one an outcome.
    pub(super) fn take(&mut self, scored: &ScoredImage) -> anyhow::Result<()> {
        for (taker, labels) in self.outcomes.iter_mut().zip(scored.predictions) {
            if let Some(spool) = &mut taker.spool {
                let kept = spool.push(labels);
                kept.context("keeping predictions in a temporary file")?;
            }
            if let Some(folder) = &taker.labels {
                write(
                    folder.join(format!("{}.png", scored.id)),
                    labels,
                    &self.palette,
                    &self.names,
                )?;
            }
        }
        Ok(())
    }

    /// What was kept of each outcome, in the images' order.
    pub(super) fn finish(self) -> Vec<Option<LabelSpool>> {
        self.outcomes.into_iter().map(|taker| taker.spool).collect()
    }
}

/// Writes a label map; ids of some data sets are paths (`frankfurt/frankfurt_000000_000294`).
fn write(
    path: PathBuf,
    labels: &LabelMap,
    palette: &[[u8; 3]],
    names: &[String],
) -> anyhow::Result<()> {
    if let Some(folder) = path.parent() {
        std::fs::create_dir_all(folder).with_context(|| folder.display().to_string())?;
    }
    // A list of names that is too long for the file is left out of it.
    write_named_png(&path, labels, palette, names).map(drop)?;
    Ok(())
}
