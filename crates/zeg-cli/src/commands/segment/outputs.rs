//! What `zeg segment` writes: the formats that `--write` names.

use clap::builder::{PossibleValue, PossibleValuesParser, TypedValueParser};
use zeg::export::{Classes, ExportFormat, ExportSettings, Exporter, Needs, find_format, formats};

use super::args::SegmentOutput;

/// Returns the parser of `--write`: the names of all formats, with what each writes as their help.
pub(super) fn format_parser() -> impl TypedValueParser<Value = &'static ExportFormat> {
    let values = formats().map(|format| PossibleValue::new(format.name).help(format.about));
    PossibleValuesParser::new(values)
        .try_map(|name| find_format(&name).ok_or_else(|| format!("no format is called {name:?}")))
}

/// Opens the writers of all formats, before any image is computed.
///
/// - `method`: what the predictions come from
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
