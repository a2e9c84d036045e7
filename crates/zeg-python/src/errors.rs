//! Turns errors into the exceptions of the package, which `python/zeg/_errors.py` defines.

use pyo3::prelude::*;
use zeg::{
    image::ImageError,
    loading::LoadError,
    model::{ModelError, weights::WeightsError},
    session::SessionError,
    text_sources::{NoTextEncoder, TableError},
    vocab::classes::{ClassArgumentError, ClassError, QueryError},
};
use zeg_cli::host;

/// The kind of an error; `_errors.py` has an exception class for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// No other kind fits.
    Other,
    /// An image cannot be read.
    Image,
    /// The file of an image does not exist or cannot be opened.
    File,
    /// A class list cannot be used.
    Classes,
    /// A model cannot be loaded.
    Model,
    /// A setting is wrong.
    Settings,
    /// The work would take more memory than the machine has.
    Memory,
    /// A package is not installed.
    NotInstalled,
    /// The process was forked after it had started threads.
    Forked,
    /// This package did something wrong.
    Internal,
}

impl Kind {
    fn name(self) -> &'static str {
        match self {
            Self::Other => "other",
            Self::Image => "image",
            Self::File => "file",
            Self::Classes => "classes",
            Self::Model => "model",
            Self::Settings => "settings",
            Self::Memory => "memory",
            Self::NotInstalled => "not_installed",
            Self::Forked => "forked",
            Self::Internal => "internal",
        }
    }
}

/// Returns an exception of the package.
pub(crate) fn exception(py: Python<'_>, kind: Kind, message: &str, hint: Option<&str>) -> PyErr {
    let made = py
        .import("zeg._errors")
        .and_then(|module| module.getattr("make"))
        .and_then(|make| make.call1((kind.name(), message, hint)));
    match made {
        Ok(exception) => PyErr::from_value(exception),
        Err(error) => error,
    }
}

/// Returns the exception for an error of the library, with the hint that the program would print.
///
/// - `usual`: the kind if the error does not tell
pub(crate) fn of_library(py: Python<'_>, error: &anyhow::Error, usual: Kind) -> PyErr {
    let kind = error.chain().find_map(kind_of).unwrap_or(usual);
    let hint = host::hint(error);
    let hint = hint.as_deref().or_else(|| usual_hint(kind));
    exception(py, kind, &host::describe(error), hint)
}

/// Returns the kind of one error in a chain, if it tells.
fn kind_of(cause: &(dyn std::error::Error + 'static)) -> Option<Kind> {
    if let Some(error) = cause.downcast_ref::<ImageError>() {
        return Some(match error {
            ImageError::Unreadable { .. } | ImageError::NotRegular { .. } => Kind::File,
            ImageError::Memory { .. } => Kind::Memory,
            _ => Kind::Image,
        });
    }
    if let Some(error) = cause.downcast_ref::<SessionError>() {
        return match error {
            SessionError::Memory { .. } => Some(Kind::Memory),
            SessionError::Model(_) | SessionError::Labels(_) | SessionError::Visitor(_) => None,
        };
    }
    if let Some(error) = cause.downcast_ref::<ModelError>() {
        return match error {
            ModelError::Memory { .. } => Some(Kind::Memory),
            ModelError::Config(_) | ModelError::FixedSize { .. } => Some(Kind::Settings),
            ModelError::UnknownClass { .. } => Some(Kind::Classes),
            _ => None,
        };
    }
    let is_of_classes = cause.is::<ClassArgumentError>()
        || cause.is::<ClassError>()
        || cause.is::<QueryError>()
        || cause.is::<TableError>()
        || cause.is::<NoTextEncoder>();
    if is_of_classes {
        return Some(Kind::Classes);
    }
    let is_of_model =
        cause.is::<LoadError>() || cause.is::<WeightsError>() || cause.is::<zeg_hub::HubError>();
    is_of_model.then_some(Kind::Model)
}

/// Returns what helps with most errors of a kind.
fn usual_hint(kind: Kind) -> Option<&'static str> {
    match kind {
        Kind::Image => Some(
            "give the path or the bytes of a JPEG, PNG, WebP, TIFF, BMP, GIF, PNM or QOI file, or an array of uint8",
        ),
        Kind::File => Some("check the path and the permissions of the file"),
        Kind::Classes => Some(
            "name classes as text (\"dog, sofa|couch\"), or as a list of names, lists of synonyms and dictionaries",
        ),
        Kind::Memory => Some("give a smaller image, or fewer classes"),
        Kind::Internal => Some("please report this with the image and the call"),
        _ => None,
    }
}
