//! Checks the places of an export before any work: nothing that the command reads is replaced.

use std::path::{Path, PathBuf};

use zeg::onnx::Export;

use super::args::ExportSettings;

/// The places of an export do not fit together.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ExportPlaceError {
    /// A file of the export is one that the export reads.
    #[error("{}: the export would replace {}, which it reads", .output.display(), .input.display())]
    ReplacesInput { output: PathBuf, input: PathBuf },
    /// The document of `--json` has the path of a graph.
    #[error("--json {}: the export writes a graph there", .0.display())]
    JsonReplacesGraph(PathBuf),
    /// The path of the export ends as that of a folder.
    #[error("-o {}: the path of a folder; the export is a file", .0.display())]
    Folder(PathBuf),
}

impl ExportPlaceError {
    pub(crate) fn hint(&self) -> &'static str {
        match self {
            Self::ReplacesInput { .. } => "name another file after -o",
            Self::JsonReplacesGraph(_) => "write --json=FILE with another file",
            Self::Folder(_) => "name a file, such as model.onnx, after -o",
        }
    }
}

/// Refuses places that do not fit together.
pub(super) fn check(settings: &ExportSettings) -> Result<(), ExportPlaceError> {
    let output = &settings.output;
    let text = output.to_string_lossy();
    if text.ends_with(std::path::is_separator) {
        return Err(ExportPlaceError::Folder(output.clone()));
    }
    let model = &settings.model_settings;
    let inputs = [
        Some(settings.model.as_path()),
        model.weights.as_deref(),
        model.text.as_deref(),
        settings.templates.as_deref().map(Path::new),
        settings.class_source.as_deref().map(Path::new),
    ];
    let json = settings.json.as_ref().and_then(|json| json.file());
    for file in Export::files_of(output) {
        if json.is_some_and(|json| is_same_place(json, &file)) {
            return Err(ExportPlaceError::JsonReplacesGraph(file));
        }
        let Ok(place) = file.canonicalize() else {
            continue;
        };
        let is_replaced = |input: &&Path| input.canonicalize().is_ok_and(|input| input == place);
        if let Some(input) = inputs.into_iter().flatten().find(is_replaced) {
            return Err(ExportPlaceError::ReplacesInput {
                input: input.to_owned(),
                output: file,
            });
        }
    }
    Ok(())
}

/// Returns whether two paths name one file, which need not exist.
fn is_same_place(a: &Path, b: &Path) -> bool {
    let folder = |path: &Path| {
        let folder = path.parent().filter(|it| !it.as_os_str().is_empty());
        folder.unwrap_or(Path::new(".")).canonicalize().ok()
    };
    a.file_name() == b.file_name() && folder(a).is_some() && folder(a) == folder(b)
}
