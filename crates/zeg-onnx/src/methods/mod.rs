//! The graphs of the methods, one file each, and the list of them.

mod cat_seg;
mod clip_rc;
mod training_free;
mod zegclip;
mod zegformer;

use std::fmt::Debug;

use crate::{OnnxError, dense::Part, settings::Request};

/// The graphs of a method's models.
pub trait MethodGraphs: Debug + Sync {
    /// Returns the names of the methods whose models it exports.
    fn methods(&self) -> &'static [&'static str];

    /// Builds the graphs of a model.
    ///
    /// # Errors
    /// Returns an error if a setting does not fit the model, or the model is not one of the method.
    fn graphs(&self, request: &Request) -> Result<Vec<Part>, OnnxError>;

    /// Returns what a program needs to know of the method besides the graphs, as keys and values.
    fn metadata(&self, request: &Request) -> Vec<(&'static str, String)> {
        let _ = request;
        Vec::new()
    }

    /// Returns what of the program's inference the graphs leave out, a sentence each.
    fn left_out(&self, request: &Request) -> Vec<String> {
        let _ = request;
        Vec::new()
    }
}

/// The graphs of the built-in methods.
pub static BUILTIN: [&dyn MethodGraphs; 5] = [
    &zegclip::ZegClipGraphs,
    &clip_rc::ClipRcGraphs,
    &zegformer::ZegFormerGraphs,
    &cat_seg::CatSegGraphs,
    &training_free::TrainingFreeGraphs,
];

/// Returns the graphs of a method by its name.
///
/// # Errors
/// Returns an error that lists the methods with graphs.
pub fn by_name(method: &str) -> Result<&'static dyn MethodGraphs, OnnxError> {
    let found = BUILTIN
        .iter()
        .find(|graphs| graphs.methods().contains(&method));
    found.copied().ok_or_else(|| OnnxError::Method {
        method: method.to_owned(),
        known: BUILTIN
            .iter()
            .flat_map(|graphs| graphs.methods().iter().copied())
            .collect(),
    })
}

/// Returns a model as the type of its method.
///
/// # Errors
/// Returns an error if it is another's.
fn model_of<'a, T: 'static>(request: &'a Request) -> Result<&'a T, OnnxError> {
    request
        .model
        .as_any()
        .downcast_ref()
        .ok_or_else(|| OnnxError::Graph {
            node: request.method.to_owned(),
            reason: "the model is not one of this method".to_owned(),
        })
}
