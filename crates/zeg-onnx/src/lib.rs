//! Exports segmentation models as ONNX graphs, which other runtimes compute: ONNX Runtime, OpenVINO, TensorRT, browsers.
//!
//! [`graphs`] builds the graphs of a model from its parameters ([`Request`]), and [`OnnxFile`] writes one. The graph of a
//! method is in [`methods`], one file each; [`graph`] is the builder that they share. Names of nodes are those of the
//! model's parts, and names of parameters those of the reference checkpoints.

#![forbid(unsafe_code)]

mod bytes;
mod calibration;
mod decoder;
mod dense;
mod error;
mod file;
pub mod graph;
mod layers;
pub mod methods;
mod operators;
mod params;
pub mod proto;
mod regions;
mod rounding;
mod settings;
mod shapes;
mod tower;
mod value;

pub use self::{
    dense::Part,
    error::OnnxError,
    file::{OnnxFile, Written},
    graph::{Finished, Initializer, Precision},
    settings::{Classes, FixedClasses, NEWEST_OPSET, OLDEST_OPSET, Progress, Request, Settings},
    value::{Dim, Kind, Value},
};

/// Builds the graphs of a model.
///
/// # Errors
/// Returns an error if the method has no graph, or a setting does not fit the model.
pub fn graphs(request: &Request) -> Result<Vec<Part>, OnnxError> {
    request.settings.check()?;
    methods::by_name(request.method)?.graphs(request)
}

/// Returns what a program needs to know of the method besides the graphs, as keys and values.
///
/// # Errors
/// Returns an error if the method has no graph.
pub fn method_metadata(request: &Request) -> Result<Vec<(&'static str, String)>, OnnxError> {
    Ok(methods::by_name(request.method)?.metadata(request))
}

/// Returns what of the program's inference the graphs of a model leave out, a sentence each.
///
/// # Errors
/// Returns an error if the method has no graph.
pub fn left_out(request: &Request) -> Result<Vec<String>, OnnxError> {
    Ok(methods::by_name(request.method)?.left_out(request))
}
