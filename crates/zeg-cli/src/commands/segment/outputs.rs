//! Opens the writers of the formats that `--write` names.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use zeg::export::{Classes, ExportFormat, ExportSettings, Exporter, Needs, find_format, formats};

use super::args::SegmentOutput;

/// Returns the parser of `--write`, whose possible values are the names of all formats.
pub(super) fn format_parser() -> impl TypedValueParser<Value = &'static ExportFormat> {
    let values = formats().map(|format| PossibleValue::new(format.name).help(format.about));
    PossibleValuesParser::new(values)
        .try_map(|name| find_format(&name).ok_or_else(|| format!("there is no format {name:?}")))
}

/// Opens a writer for each chosen format, so that an error shows before any image is segmented.
///
/// - `method`: name of the method, for the metadata of the files
pub(super) fn open(
    classes: &Classes,
    output: &SegmentOutput,
    method: &str,
) -> anyhow::Result<Vec<Box<dyn Exporter>>> {
    let mut overlays = output
        .kinds
        .iter()
        .filter(|kind| kind.needs == Needs::Overlay);
    let settings = ExportSettings {
        folder: &output.folder,
        overwrite: output.overwrite,
        minimal_area: output.minimal_area,
        address_prefix: &output.label_studio_prefix,
        method,
        link_suffix: overlays.find_map(|kind| kind.image_suffix),
    };
    let open = |kind: &&ExportFormat| Ok(kind.open(classes.clone(), &settings)?);
    output.kinds.iter().map(open).collect()
}
