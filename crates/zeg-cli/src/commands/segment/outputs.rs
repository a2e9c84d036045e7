//! Opens the writers of the formats that `--write` names.

use std::path::PathBuf;

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use zeg::export::{
    Classes, ExportError, ExportFormat, ExportSettings, Exporter, Needs, Overwrite, find_format,
    formats,
};

use super::args::SegmentOutput;
use crate::commands::journal::Continuation;

/// Returns the parser of `--write`, whose possible values are the names of all formats.
pub(super) fn format_parser() -> impl TypedValueParser<Value = &'static ExportFormat> {
    let values = formats().map(|format| PossibleValue::new(format.name).help(format.about));
    PossibleValuesParser::new(values)
        .try_map(|name| find_format(&name).ok_or_else(|| format!("there is no format {name:?}")))
}

/// The writers of all chosen formats.
#[derive(Default)]
pub(super) struct Writers {
    /// Writers of files that an image has for itself.
    pub(super) own: Vec<Box<dyn Exporter>>,
    /// Writers of files that all images share.
    pub(super) shared: Vec<Box<dyn Exporter>>,
}

impl Writers {
    /// Drops the files that all images share; what stands at their paths stays.
    pub(super) fn without_shared(self) -> Self {
        Self {
            own: self.own,
            shared: Vec::new(),
        }
    }

    /// Moves all files to their final paths and returns these paths.
    pub(super) fn finish(self) -> Result<Vec<PathBuf>, ExportError> {
        let mut files = Vec::new();
        for exporter in self.own.into_iter().chain(self.shared) {
            files.extend(exporter.finish()?);
        }
        Ok(files)
    }
}

/// Opens a writer for each chosen format, so that an error shows before any image is segmented.
///
/// - `method`: name of the method, for the metadata of the files
pub(super) fn open(
    classes: &Classes,
    output: &SegmentOutput,
    method: &str,
) -> anyhow::Result<Writers> {
    let mut overlays = output
        .kinds
        .iter()
        .filter(|kind| kind.needs == Needs::Overlay);
    let settings = ExportSettings {
        folder: &output.folder,
        // Results that may not be replaced were found before; those of a run that goes on are its own.
        overwrite: match output.continuation {
            Continuation::Fresh => output.overwrite,
            Continuation::Resume => Overwrite::Replace,
        },
        minimal_area: output.minimal_area,
        address_prefix: &output.label_studio_prefix,
        method,
        link_suffix: overlays.find_map(|kind| kind.image_suffix),
    };
    let mut writers = Writers::default();
    for kind in &output.kinds {
        let exporter = kind.open(classes.clone(), &settings)?;
        if kind.is_shared() {
            writers.shared.push(exporter);
        } else {
            writers.own.push(exporter);
        }
    }
    Ok(writers)
}
