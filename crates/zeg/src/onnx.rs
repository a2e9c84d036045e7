//! Exports a model as ONNX files, which other runtimes compute.
//!
//! ```no_run
//! use zeg::{Segmenter, onnx::{Export, Overwrite, Settings}, vocab::classes::parse_class_list};
//!
//! # fn main() -> anyhow::Result<()> {
//! let segmenter = Segmenter::load("mini".as_ref())?;
//! let classes = segmenter.encode_classes(&parse_class_list("striped red, plain blue")?)?;
//! let export = Export {
//!     classes: Some(&classes), // `None`: class embeddings are an input of the graph
//!     settings: Settings { size: None, ..Settings::default() },
//!     external_data: false,
//! };
//! for file in export.write(&segmenter, "mini.onnx".as_ref(), Overwrite::Refuse)?.files {
//!     println!("{}", file.written.file.display());
//! }
//! # Ok(())
//! # }
//! ```

use std::path::{Path, PathBuf};

use burn::tensor::Device;
use serde_json::json;
pub use zeg_base::file::Overwrite;
use zeg_model::{ModelError, inference::InferenceMode, method::Model};
use zeg_onnx::{Classes, Dim, FixedClasses, Kind, OnnxFile, Part, Progress, Request, Value};
pub use zeg_onnx::{NEWEST_OPSET, OLDEST_OPSET, OnnxError, Precision, Settings, Written};

use crate::{EncodedClasses, Segmenter, loading::LoadedModel};

/// An export: what becomes of the classes, and the settings.
#[derive(Debug, Clone)]
pub struct Export<'a> {
    /// The classes that the graph holds; `None` if their embeddings are an input of the graph.
    pub classes: Option<&'a EncodedClasses>,
    /// Settings of the graph.
    pub settings: Settings,
    /// Whether values go to a second file even if they fit in the first.
    pub external_data: bool,
}

/// The exported files.
#[derive(Debug, Clone)]
pub struct Exported {
    /// The files, in the order in which they are computed.
    pub files: Vec<ExportedFile>,
    /// What of the program's inference the graphs leave out, a sentence each.
    pub left_out: Vec<String>,
}

/// An exported graph.
#[derive(Debug, Clone)]
pub struct ExportedFile {
    /// Part of the model, such as `encoder`; empty for the whole model.
    pub part: &'static str,
    /// The files.
    pub written: Written,
    /// Inputs of the graph.
    pub inputs: Vec<Port>,
    /// Outputs of the graph.
    pub outputs: Vec<Port>,
    /// Number of operators.
    pub nodes: usize,
}

/// An input or output of a graph.
#[derive(Debug, Clone)]
pub struct Port {
    /// Name.
    pub name: String,
    /// Type of the elements, such as `float32`.
    pub element: &'static str,
    /// Lengths of the axes; a name stands for a length that is known only when the graph runs.
    pub shape: Vec<String>,
}

impl From<&Value> for Port {
    fn from(value: &Value) -> Self {
        Self {
            name: value.name.clone(),
            element: match value.kind {
                Kind::Float => "float32",
                Kind::Half => "float16",
                Kind::Int => "int64",
                Kind::Bool => "bool",
                Kind::Byte => "uint8",
                Kind::SignedByte => "int8",
            },
            shape: value.shape.iter().map(Dim::to_string).collect(),
        }
    }
}

impl Export<'_> {
    /// Returns the settings that suit a model: one image of the size of its windows.
    pub fn usual_settings(segmenter: &Segmenter) -> Settings {
        let crop = segmenter.model().inference.crop;
        Settings {
            size: Some([crop, crop]),
            ..Settings::default()
        }
    }

    /// Returns the path of a part: `model.onnx` becomes `model.encoder.onnx`.
    pub fn path_of(output: &Path, part: &str) -> PathBuf {
        if part.is_empty() {
            return output.to_owned();
        }
        let extension = output
            .extension()
            .map_or("onnx".into(), |it| it.to_string_lossy());
        output.with_extension(format!("{part}.{extension}"))
    }

    /// Returns every file that an export may write for an output path, whatever the model and the settings.
    pub fn files_of(output: &Path) -> Vec<PathBuf> {
        let parts = ["", "encoder", "head", "regions", "crops"];
        let graphs = parts.iter().map(|part| Self::path_of(output, part));
        graphs
            .flat_map(|graph| [OnnxFile::data_path(&graph), graph])
            .collect()
    }

    /// Builds the graphs and writes them.
    ///
    /// A model in parts becomes several files beside each other ([`Export::path_of`]).
    ///
    /// # Errors
    /// Returns an error if the method has no graph, a setting does not fit the model, or a file cannot be written.
    pub fn write(
        &self,
        segmenter: &Segmenter,
        output: &Path,
        overwrite: Overwrite,
    ) -> Result<Exported, OnnxError> {
        self.write_with(segmenter, output, overwrite, None)
    }

    /// Builds the graphs and writes them as [`Export::write`] does.
    ///
    /// - `progress`: is called with the number of blocks whose matrices are rounded to 8 bits, and that of all of them
    ///
    /// # Errors
    /// Returns the errors of [`Export::write`].
    pub fn write_with(
        &self,
        segmenter: &Segmenter,
        output: &Path,
        overwrite: Overwrite,
        progress: Option<&dyn Fn(usize, usize)>,
    ) -> Result<Exported, OnnxError> {
        let loaded = segmenter.model();
        let model = unpacked(segmenter)?;
        let classes = self.class_values()?;
        let request = Request {
            model: &*model,
            method: loaded.architecture.method(),
            classes: &classes,
            seen_offset: segmenter.inference().seen_offset,
            settings: &self.settings,
            progress: Progress(progress),
        };
        let parts = zeg_onnx::graphs(&request)?;
        let left_out = zeg_onnx::left_out(&request)?;
        let mut metadata = metadata(segmenter, &request, &left_out);
        let of_method = zeg_onnx::method_metadata(&request)?;
        metadata.extend(
            of_method
                .into_iter()
                .map(|(key, value)| (format!("zeg.{key}"), value)),
        );
        if overwrite == Overwrite::Refuse {
            // No part is written if another cannot be.
            let paths = parts.iter().map(|part| Self::path_of(output, part.part));
            refuse_existing(paths)?;
        }
        let files = parts.iter().map(|part| {
            let path = Self::path_of(output, part.part);
            self.write_part(loaded, part, &path, (&metadata, overwrite))
        });
        Ok(Exported {
            files: files.collect::<Result<_, _>>()?,
            left_out,
        })
    }

    fn write_part(
        &self,
        loaded: &LoadedModel,
        part: &Part,
        path: &Path,
        (metadata, overwrite): (&[(String, String)], Overwrite),
    ) -> Result<ExportedFile, OnnxError> {
        let mut metadata = metadata.to_vec();
        if !part.part.is_empty() {
            metadata.push(("zeg.part".to_owned(), part.part.to_owned()));
        }
        let file = OnnxFile {
            graph: &part.graph,
            name: format!("{} {}", loaded.method, part.part).trim().to_owned(),
            opset: self.settings.opset,
            description: format!("{}, exported by zeg", loaded.method),
            metadata,
            external_data: self.external_data,
        };
        let ports =
            |values: &[(Value, String)]| values.iter().map(|(value, _)| value.into()).collect();
        Ok(ExportedFile {
            part: part.part,
            written: file.write(path, overwrite)?,
            inputs: ports(&part.graph.inputs),
            outputs: ports(&part.graph.outputs),
            nodes: part.graph.nodes.len(),
        })
    }

    /// Returns the class embeddings in main memory.
    fn class_values(&self) -> Result<Classes, OnnxError> {
        let Some(classes) = self.classes else {
            return Ok(Classes::Input);
        };
        let read = |tensor: &burn::tensor::Tensor<2>| {
            let data = tensor.clone().into_data().convert::<f32>();
            data.try_into_vec::<f32>()
                .map_err(|error| ModelError::Config(format!("{error:?}")))
        };
        let queries = classes.question().classes;
        Ok(Classes::Fixed(FixedClasses {
            names: classes.names(),
            embeddings: read(&queries.text)?,
            crop_embeddings: queries.crop_text.as_ref().map(read).transpose()?,
            seen: queries.seen.clone(),
        }))
    }
}

/// Refuses files that exist.
fn refuse_existing(paths: impl Iterator<Item = PathBuf>) -> Result<(), OnnxError> {
    let all = paths.flat_map(|path| [OnnxFile::data_path(&path), path]);
    for path in all {
        if path.symlink_metadata().is_ok() {
            let kind = std::io::ErrorKind::AlreadyExists;
            let source = std::io::Error::new(kind, "the file exists already");
            return Err(OnnxError::Write { path, source });
        }
    }
    Ok(())
}

/// Builds the model again with its parameters as they are in the files, not packed for the kernels.
fn unpacked(segmenter: &Segmenter) -> Result<Box<dyn Model>, OnnxError> {
    let loaded = segmenter.model();
    let (mut model, _) = loaded
        .architecture
        .build(&loaded.weights, &Device::flex(), 0)?;
    model.set_options(&segmenter.inference().method)?;
    Ok(model)
}

/// Returns what a program needs to know besides the graph.
fn metadata(
    segmenter: &Segmenter,
    request: &Request,
    left_out: &[String],
) -> Vec<(String, String)> {
    let loaded = segmenter.model();
    let inference = segmenter.inference();
    let facts = request.model.facts();
    let settings = request.settings;
    let mode = match inference.mode {
        InferenceMode::Slide => "slide",
        InferenceMode::Whole => "whole",
    };
    let seen: Vec<&str> = loaded
        .trained_on
        .iter()
        .filter(|it| it.seen)
        .map(|it| it.name.as_str())
        .collect();
    let size = match settings.size {
        Some([height, width]) => json!([height, width]),
        None => json!("any"),
    };
    let mut all = vec![
        ("method", request.method.to_owned()),
        (
            "layout",
            if settings.preprocessing {
                "NHWC, RGB, uint8"
            } else {
                "NCHW, RGB, normalised"
            }
            .to_owned(),
        ),
        ("image_mean", json!(facts.normalization.mean).to_string()),
        ("image_std", json!(facts.normalization.std).to_string()),
        ("image_size", size.to_string()),
        ("stride", facts.stride.to_string()),
        (
            "resize",
            json!({
                "short-side": inference.short_side,
                "crop": inference.crop,
                "stride": inference.stride,
                "mode": mode,
                "interpolation": "bilinear, half-pixel centres",
            })
            .to_string(),
        ),
        (
            "scoring",
            json!(facts.scoring).as_str().unwrap_or_default().to_owned(),
        ),
        ("embed_dim", facts.embed_dim.to_string()),
        ("seen_offset", inference.seen_offset.to_string()),
        ("seen_classes", json!(seen).to_string()),
        (
            "seen_offset_applied",
            matches!(request.classes, Classes::Fixed(_)).to_string(),
        ),
    ];
    if let Classes::Fixed(classes) = request.classes {
        all.push(("classes", json!(classes.names).to_string()));
    }
    if let Some(templates) = loaded.templates() {
        all.push(("templates", templates.to_owned()));
    }
    if !left_out.is_empty() {
        all.push(("left_out", json!(left_out).to_string()));
    }
    all.into_iter()
        .map(|(key, value)| (format!("zeg.{key}"), value))
        .collect()
}
