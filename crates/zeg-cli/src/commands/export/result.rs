//! What `zeg export` wrote.

use std::path::PathBuf;

use serde::Serialize;
use zeg::{
    Segmenter,
    onnx::{Export, Exported, ExportedFile, Port, Precision},
};

use crate::say::StdoutError;

/// The exported model.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct ExportResult {
    /// The method, as `ZegCLIP`.
    pub(super) method: String,
    /// Number format: `f32`, `f16` or `int8-qdq`.
    pub(super) precision: &'static str,
    /// Version of ONNX's operators.
    opset: i64,
    /// Class names that the graph holds; empty if class embeddings are an input.
    classes: Vec<String>,
    /// The graphs, in the order in which they are computed.
    pub(super) files: Vec<GraphFile>,
    /// What of the program's inference the graphs leave out, a sentence each.
    left_out: Vec<String>,
}

/// A graph that was written.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct GraphFile {
    /// Part of the model, such as `encoder`; empty for the whole model.
    part: &'static str,
    /// The file.
    #[serde(serialize_with = "zeg_base::paths::serialize")]
    #[cfg_attr(feature = "schema", schemars(with = "String"))]
    file: PathBuf,
    /// The file with the parameters, if they are not in the first.
    data: Option<String>,
    /// Size of all files in bytes.
    bytes: u64,
    /// Number of operators.
    operators: usize,
    /// Inputs of the graph.
    inputs: Vec<GraphPort>,
    /// Outputs of the graph.
    outputs: Vec<GraphPort>,
}

/// An input or output of a graph.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct GraphPort {
    /// Name.
    name: String,
    /// Type of the elements, such as `float32`.
    element: &'static str,
    /// Lengths of the axes; a name stands for a length that is known only when the graph runs.
    shape: Vec<String>,
}

impl From<Port> for GraphPort {
    fn from(port: Port) -> Self {
        Self {
            name: port.name,
            element: port.element,
            shape: port.shape,
        }
    }
}

impl From<ExportedFile> for GraphFile {
    fn from(file: ExportedFile) -> Self {
        Self {
            part: file.part,
            data: (file.written.data.as_deref()).map(zeg_base::paths::path_text),
            bytes: file.written.bytes,
            file: file.written.file,
            operators: file.nodes,
            inputs: file.inputs.into_iter().map(GraphPort::from).collect(),
            outputs: file.outputs.into_iter().map(GraphPort::from).collect(),
        }
    }
}

/// Returns the schema of the command's output.
#[cfg(feature = "schema")]
pub(crate) fn output_schema() -> (&'static str, schemars::Schema) {
    crate::commands::json::schema_of::<ExportResult>("export")
}

impl ExportResult {
    pub(super) fn new(segmenter: &Segmenter, export: &Export, exported: Exported) -> Self {
        Self {
            method: segmenter.model().method.clone(),
            precision: match export.settings.precision {
                Precision::F32 => "f32",
                Precision::F16 => "f16",
                Precision::Int8Qdq => "int8-qdq",
            },
            opset: export.settings.opset,
            classes: export
                .classes
                .map(zeg::EncodedClasses::names)
                .unwrap_or_default(),
            files: exported.files.into_iter().map(GraphFile::from).collect(),
            left_out: exported.left_out,
        }
    }

    /// Prints a line for every file that was written.
    ///
    /// # Errors
    /// Returns an error if standard output cannot be written.
    pub(super) fn print(&self) -> Result<(), StdoutError> {
        for file in &self.files {
            print_result!("{}", file.file.display())?;
            if let Some(data) = &file.data {
                print_result!("{data}")?;
            }
        }
        Ok(())
    }
}
