//! The errors of an export.

use std::{io, path::PathBuf};

use zeg_model::ModelError;

/// A problem with an export.
#[derive(Debug, thiserror::Error)]
pub enum OnnxError {
    /// No graph is known for the method.
    #[error("the method {method} cannot be exported; these can: {}", known.join(", "))]
    Method {
        /// Name of the method.
        method: String,
        /// Names of the methods with a graph.
        known: Vec<&'static str>,
    },
    /// A setting does not fit the method or another setting.
    #[error("{setting}: {reason}")]
    Setting {
        /// The setting with its value, such as `--batch 4`.
        setting: String,
        /// Why it does not fit.
        reason: String,
        /// The way out, if there is one.
        hint: Option<String>,
    },
    /// The model lacks a parameter that its graph needs.
    #[error("the model has no parameter {name:?}, which its graph needs")]
    MissingParameter {
        /// Name of the parameter.
        name: String,
    },
    /// The shapes of an operator's inputs do not fit; a fault of the exporter.
    #[error("{node}: {reason}")]
    Graph {
        /// Name of the node.
        node: String,
        /// What does not fit.
        reason: String,
    },
    /// The model or its classes cannot be read.
    #[error(transparent)]
    Model(#[from] ModelError),
    /// A file cannot be written.
    #[error("{}: {source}", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// The cause.
        source: io::Error,
    },
}

impl OnnxError {
    /// Returns the error of a setting that does not fit.
    pub(crate) fn setting(setting: impl Into<String>, reason: impl Into<String>) -> Self {
        Self::Setting {
            setting: setting.into(),
            reason: reason.into(),
            hint: None,
        }
    }

    /// Adds the way out.
    #[must_use]
    pub(crate) fn with_hint(self, hint: impl Into<String>) -> Self {
        match self {
            Self::Setting {
                setting, reason, ..
            } => Self::Setting {
                setting,
                reason,
                hint: Some(hint.into()),
            },
            other => other,
        }
    }

    /// Returns the way out, if there is one.
    pub fn hint(&self) -> Option<&str> {
        match self {
            Self::Setting { hint, .. } => hint.as_deref(),
            _ => None,
        }
    }
}
