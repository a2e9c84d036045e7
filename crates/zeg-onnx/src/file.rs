//! Writes a graph as a file, with large values in a second file beside it.

use std::{
    io::Write as _,
    path::{Path, PathBuf},
};

use prost::Message as _;
use zeg_base::file::{self, NewFile, Overwrite};

use crate::{
    OnnxError,
    graph::{Finished, Initializer},
    proto::{GraphProto, ModelProto, OperatorSetIdProto, StringStringEntryProto, TensorProto},
    value::{Dim, Kind, Value},
};

/// Most bytes of values in the file itself; a protocol buffer of 2 GB cannot be read.
const MOST_BYTES: usize = 1_900_000_000;
/// Values of fewer bytes stay in the file itself, so that shapes can be inferred without the second file.
const LEAST_EXTERNAL: usize = 1024;
/// Alignment of values in the second file, so that it can be mapped into memory.
const ALIGNMENT: usize = 4096;

/// A graph as it is written.
#[derive(Debug)]
pub struct OnnxFile<'a> {
    /// The graph.
    pub graph: &'a Finished,
    /// Name of the graph.
    pub name: String,
    /// Version of ONNX's operators.
    pub opset: i64,
    /// Description of the model.
    pub description: String,
    /// Metadata: keys and values.
    pub metadata: Vec<(String, String)>,
    /// Whether values go to a second file even if they fit in the first.
    pub external_data: bool,
}

/// The files that were written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// The graph.
    pub file: PathBuf,
    /// The file with the values, if there is one.
    pub data: Option<PathBuf>,
    /// Size of all files in bytes.
    pub bytes: u64,
}

impl OnnxFile<'_> {
    /// Returns whether values go to a second file.
    pub fn has_data(&self) -> bool {
        let bytes: usize = self
            .graph
            .initializers
            .iter()
            .map(|it| it.bytes.len())
            .sum();
        self.external_data || bytes > MOST_BYTES
    }

    /// Returns the path of the file with the values.
    pub fn data_path(path: &Path) -> PathBuf {
        let mut name = path.as_os_str().to_owned();
        name.push(".data");
        PathBuf::from(name)
    }

    /// Writes the file, and the second one if there is one.
    ///
    /// # Errors
    /// Returns an error if a file cannot be written.
    pub fn write(&self, path: &Path, overwrite: Overwrite) -> Result<Written, OnnxError> {
        let failed = |path: &Path| {
            let path = path.to_owned();
            move |source| OnnxError::Write { path, source }
        };
        file::make_folder_of(path).map_err(failed(path))?;
        let mut bytes = 0;
        let data = if self.has_data() {
            let data = Self::data_path(path);
            bytes += self.write_data(&data, overwrite).map_err(failed(&data))?;
            Some(data)
        } else {
            None
        };
        let model = self.model(data.as_deref()).encode_to_vec();
        bytes += model.len() as u64;
        file::write(path, &model, overwrite).map_err(failed(path))?;
        Ok(Written {
            file: path.to_owned(),
            data,
            bytes,
        })
    }

    /// Writes the values of all large tensors; returns their bytes.
    fn write_data(&self, path: &Path, overwrite: Overwrite) -> std::io::Result<u64> {
        let mut target = NewFile::create(path, overwrite)?;
        let mut written = 0;
        for initializer in self.graph.initializers.iter().filter(|it| is_external(it)) {
            let start = offset_after(written);
            target.write_all(&vec![0; start - written])?;
            target.write_all(&initializer.bytes)?;
            written = start + initializer.bytes.len();
        }
        target.finish()?;
        Ok(written as u64)
    }

    fn model(&self, data: Option<&Path>) -> ModelProto {
        let graph = self.graph;
        let location = data.and_then(Path::file_name);
        let location = location.map(|name| name.to_string_lossy().into_owned());
        let mut offset = 0;
        let mut tensor = |initializer: &Initializer| match &location {
            Some(location) if is_external(initializer) => {
                let start = offset_after(offset);
                offset = start + initializer.bytes.len();
                external(initializer, location, start)
            }
            _ => TensorProto {
                raw_data: Some(initializer.bytes.clone()),
                ..empty_tensor(&initializer.value)
            },
        };
        let described = |(value, about): &(Value, String)| value.proto(Some(about));
        ModelProto {
            ir_version: Some(ir_version(self.opset)),
            producer_name: Some("zeg".to_owned()),
            producer_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            doc_string: Some(self.description.clone()),
            graph: Some(GraphProto {
                node: graph.nodes.clone(),
                name: Some(self.name.clone()),
                initializer: graph.initializers.iter().map(&mut tensor).collect(),
                doc_string: None,
                input: graph.inputs.iter().map(described).collect(),
                output: graph.outputs.iter().map(described).collect(),
                value_info: graph.shapes.clone(),
            }),
            opset_import: vec![OperatorSetIdProto {
                domain: Some(String::new()),
                version: Some(self.opset),
            }],
            metadata_props: self
                .metadata
                .iter()
                .map(|(key, value)| entry(key, value))
                .collect(),
        }
    }
}

/// Returns the version of the file format that came with a version of the operators.
fn ir_version(opset: i64) -> i64 {
    match opset {
        ..=18 => 8,
        19 | 20 => 9,
        21 | 22 => 10,
        _ => 11,
    }
}

fn is_external(initializer: &Initializer) -> bool {
    initializer.bytes.len() >= LEAST_EXTERNAL && initializer.value.kind != Kind::Int
}

/// Returns where the next values start in the second file.
fn offset_after(written: usize) -> usize {
    written.next_multiple_of(ALIGNMENT)
}

fn entry(key: &str, value: &str) -> StringStringEntryProto {
    StringStringEntryProto {
        key: Some(key.to_owned()),
        value: Some(value.to_owned()),
    }
}

fn empty_tensor(value: &Value) -> TensorProto {
    let length = |dim: &Dim| dim.known().unwrap_or(0) as i64;
    TensorProto {
        dims: value.shape.iter().map(length).collect(),
        data_type: Some(value.kind.number()),
        name: Some(value.name.clone()),
        ..TensorProto::default()
    }
}

fn external(initializer: &Initializer, location: &str, offset: usize) -> TensorProto {
    TensorProto {
        external_data: vec![
            entry("location", location),
            entry("offset", &offset.to_string()),
            entry("length", &initializer.bytes.len().to_string()),
        ],
        data_location: Some(1),
        ..empty_tensor(&initializer.value)
    }
}
