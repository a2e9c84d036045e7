//! `zeg export`: writes a model as ONNX files, which other runtimes compute.

mod args;
mod places;
mod result;

use std::{path::Path, process::ExitCode};

use zeg::{
    EncodedClasses, Segmenter,
    onnx::{Export, Exported, OnnxError, Overwrite, Precision, Settings},
};
use zeg_base::plural::counted;

#[cfg(feature = "schema")]
pub(crate) use self::result::output_schema;
pub(crate) use self::{
    args::{ExportArgs, UnusedText},
    places::ExportPlaceError,
};
use self::{
    args::{ExportSettings, Size},
    result::ExportResult,
};
use super::{
    model_file::{SegmenterSettings, open_segmenter, warn_of_text},
    shared::Existing,
    write_result,
};
use crate::{Program, progress::Verbosity};

pub(crate) fn run(
    program: &Program,
    args: ExportArgs,
    verbosity: Verbosity,
) -> anyhow::Result<ExitCode> {
    export(program, &args.settings()?, verbosity)?;
    Ok(ExitCode::SUCCESS)
}

fn export(
    program: &Program,
    settings: &ExportSettings,
    verbosity: Verbosity,
) -> anyhow::Result<()> {
    places::check(settings)?;
    let output = settings.existing.place(&settings.output)?;
    settings.compute.open_device()?;
    let segmenter = open_segmenter(
        program,
        &SegmenterSettings {
            model: &settings.model,
            templates: settings.templates.as_deref(),
            model_settings: &settings.model_settings,
            compute: &settings.compute,
            cache: settings.cache,
        },
    )?;
    let classes = embed(&segmenter, settings, verbosity)?;
    let export = Export {
        classes: classes.as_ref(),
        settings: graph_settings(&segmenter, settings),
        external_data: settings.external_data,
    };
    let overwrite = match settings.existing {
        Existing::Refuse => Overwrite::Refuse,
        Existing::Replace => Overwrite::Replace,
    };
    let exported = write(&export, &segmenter, (&output, overwrite), verbosity)?;
    for sentence in &exported.left_out {
        print_notice!("warning: {sentence}");
    }
    let result = ExportResult::new(&segmenter, &export, exported);
    verbosity.notice(format_args!(
        "{}, {} in {}",
        result.method,
        counted(result.files.len(), "graph"),
        result.precision
    ));
    write_result(settings.json.as_ref(), &result, || result.print())
}

/// Writes the graphs, with a bar while matrices are rounded to 8 bits.
fn write(
    export: &Export,
    segmenter: &Segmenter,
    (output, overwrite): (&Path, Overwrite),
    verbosity: Verbosity,
) -> Result<Exported, OnnxError> {
    if export.settings.precision != Precision::Int8Qdq {
        return export.write(segmenter, output, overwrite);
    }
    let bar = verbosity.progress("rounding to 8 bits", "blocks", 0);
    let tell = |done: usize, all: usize| {
        bar.set_length(all as u64);
        bar.set_position(done as u64);
    };
    let exported = export.write_with(segmenter, output, overwrite, Some(&tell));
    bar.finish();
    exported
}

/// Returns the settings of the graph; the size is that of the model's windows if none is given.
fn graph_settings(segmenter: &Segmenter, settings: &ExportSettings) -> Settings {
    let usual = Export::usual_settings(segmenter);
    Settings {
        size: match settings.size {
            Size::OfModel => usual.size,
            Size::Fixed(size) => Some(size),
            Size::Any => None,
        },
        batch: settings.batch,
        precision: settings.precision,
        opset: settings.opset,
        preprocessing: settings.preprocessing,
        split: settings.split,
    }
}

/// Encodes the classes, if the graph holds them.
fn embed(
    segmenter: &Segmenter,
    settings: &ExportSettings,
    verbosity: Verbosity,
) -> anyhow::Result<Option<EncodedClasses>> {
    let Some(classes) = &settings.classes else {
        return Ok(None);
    };
    let bar = verbosity.progress("embedding", "class names", classes.len() as u64);
    let encoded = segmenter.encode_classes_with(
        classes,
        Some(&|done, all| {
            bar.set_length(all as u64);
            bar.set_position(done as u64);
        }),
    );
    bar.finish();
    let encoded = encoded?;
    warn_of_text(encoded.notices());
    Ok(Some(encoded))
}
