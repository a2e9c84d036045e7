//! An evaluation whose images are all scored: its records and galleries.

use std::time::Duration;

use zeg::{
    data::{OpenSet, SampleSource as _},
    eval::record::FILE_NAME,
    evaluation::EvaluationOutcome,
    label_spool::LabelSpool,
};

use super::{
    Scored,
    args::EvalSettings,
    confidence,
    gallery::Gallery,
    job::EvalOutput,
    record::{self, RecordInput},
};

/// An evaluation whose images are all scored.
pub(super) struct Done<'a> {
    pub(super) dataset: &'a OpenSet,
    /// Wall time of scoring.
    pub(super) wall: Duration,
    /// Number of images that were processed at once.
    pub(super) threads: usize,
}

impl Done<'_> {
    /// Builds the record of an outcome, and writes it with its gallery, if it is to be written.
    ///
    /// - `spool`: the predictions, for the gallery
    pub(super) fn keep(
        &self,
        settings: &EvalSettings,
        output: EvalOutput,
        outcome: EvaluationOutcome,
        spool: Option<LabelSpool>,
    ) -> anyhow::Result<Scored> {
        let mut evaluation = record::evaluation(RecordInput {
            checkpoint: output.checkpoint,
            loaded: output.loaded,
            origin: output.origin,
            plan: &output.plan,
            fingerprint: output.fingerprint,
            dataset: self.dataset,
            outcome,
            shard: settings.shard,
            wall: self.wall,
            threads: self.threads,
        })?;
        if let Some(folder) = &output.record {
            std::fs::create_dir_all(folder)?;
            if let Some(mut predictions) = spool {
                let gallery = Gallery {
                    dataset: self.dataset,
                    each: settings.gallery,
                    colours: &self.dataset.classes().palette(),
                    folder,
                };
                evaluation.gallery = gallery.write(&evaluation, &mut predictions)?;
            }
            evaluation.save(folder)?;
            let file = folder.join(FILE_NAME);
            settings
                .verbosity
                .notice(format_args!("record: {}", file.display()));
        }
        if let Some(file) = &settings.fit_calibration {
            confidence::fit(&evaluation, file, settings.existing)?;
            let text = format_args!("calibration: {}", file.display());
            settings.verbosity.notice(text);
        }
        Ok(Scored {
            evaluation,
            experiment: record::experiment(output.loaded)?,
            record: output.record,
        })
    }
}
