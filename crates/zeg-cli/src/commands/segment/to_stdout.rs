//! `zeg segment -o -`: the label map of one image as a PNG on standard output, and nothing else there.

use std::{
    io::{self, IsTerminal as _},
    path::Path,
};

use zeg::{export::Overwrite, image::encode_named_png};

use super::{
    args::SegmentSettings,
    finished::Plan,
    inputs::Input,
    report_lines,
    result::{ImageResult, SegmentResult},
    warn_of_ties,
    work::{SegmentJob, Work, palette},
};
use crate::say;

/// Checks that there is one image, and that standard output is no terminal.
pub(super) fn check(inputs: &[Input]) -> anyhow::Result<&Input> {
    let [input] = inputs else {
        anyhow::bail!(
            "-o - writes the label map of one image, but there are {}; name a folder with -o",
            inputs.len()
        );
    };
    anyhow::ensure!(
        !io::stdout().is_terminal(),
        "standard output is a terminal; write the label map into a file with `> FILE` or a pipe, or name a folder with -o"
    );
    Ok(input)
}

/// Segments an image and writes its label map to standard output.
pub(super) fn write(work: &Work, input: &Input, settings: &SegmentSettings) -> anyhow::Result<()> {
    let stem = input.image.relative.with_extension("");
    let labelled = work.segment(SegmentJob {
        input,
        stem: &stem,
        plan: Plan::Compute(Overwrite::Refuse),
    })?;
    let result = work.unwritten(&labelled)?;
    let result = ImageResult {
        summary: result.stored.summary,
        files: Vec::new(),
        tied: result.tied,
        regions: result.regions,
    };
    let name = Path::new("standard output");
    let bytes = encode_named_png(
        name,
        labelled.labels(),
        &palette(work.classes),
        work.classes.names(),
    )?;
    say::result_text(&bytes)?;
    warn_of_ties(std::slice::from_ref(&result));
    for line in report_lines(&result) {
        print_notice!("{line}");
    }
    if let Some(json) = &settings.json {
        json.write(&SegmentResult {
            images: vec![result],
            ..SegmentResult::default()
        })?;
    }
    Ok(())
}
