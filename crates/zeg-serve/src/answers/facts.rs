//! The JSON documents about the server itself: models, class lists, state.

use serde::Serialize;
use utoipa::ToSchema;

/// The models and what the server can do.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct ModelsAnswer {
    /// Version of the program.
    pub(crate) version: String,
    /// The models, the default first.
    pub(crate) models: Vec<ModelAnswer>,
    /// The results that a request can ask for.
    pub(crate) formats: Vec<FormatAnswer>,
    /// Limits of requests.
    pub(crate) limits: LimitsAnswer,
}

/// A model.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct ModelAnswer {
    /// Name that requests call it by.
    pub(crate) name: String,
    /// Whether it is used where a request names none.
    pub(crate) default: bool,
    /// Name of its method.
    pub(crate) method: String,
    /// Meaning of its scores: `softmax`, `sigmoid` or `mask-sum`.
    pub(crate) scoring: String,
    /// The threshold where a request names none; `null` labels every pixel.
    pub(crate) default_threshold: Option<f32>,
    /// Number format that it computes with.
    pub(crate) precision: String,
    /// Side of its windows, in pixels.
    pub(crate) window: usize,
    /// The classes that it was trained on, if they are known.
    pub(crate) trained_on: Vec<TrainedAnswer>,
    /// Class names to begin with.
    pub(crate) suggestions: Vec<String>,
}

/// A class that a model was trained on.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct TrainedAnswer {
    /// Its name.
    pub(crate) name: String,
    /// Whether training had masks of it.
    pub(crate) seen: bool,
}

/// A result that a request can ask for.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub(crate) struct FormatAnswer {
    /// Its name.
    pub(crate) name: String,
    /// What it is.
    pub(crate) about: String,
    /// Whether it is a file; others are parts of the JSON document.
    pub(crate) file: bool,
}

/// Limits of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct LimitsAnswer {
    /// Most pixels of an image.
    pub(crate) max_pixels: u64,
    /// Most bytes of a request.
    pub(crate) max_body: usize,
    /// Most requests that wait.
    pub(crate) queue: usize,
    /// Most bytes of all encoded images.
    pub(crate) cache_memory: u64,
    /// Most classes of a request.
    pub(crate) max_classes: usize,
    /// Longest time until an answer, in seconds.
    pub(crate) timeout_s: u64,
}

/// The built-in class lists.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ListsAnswer {
    /// The lists.
    pub(crate) lists: Vec<ListAnswer>,
}

/// A built-in class list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ListAnswer {
    /// Its name, which `classes` of a request can be.
    pub(crate) name: String,
    /// Number of classes.
    pub(crate) classes: usize,
}

/// The classes of a built-in list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ListClassesAnswer {
    /// Name of the list.
    pub(crate) name: String,
    /// Its classes, by label.
    pub(crate) classes: Vec<ListClassAnswer>,
}

/// A class of a built-in list.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct ListClassAnswer {
    /// Its name.
    pub(crate) name: String,
    /// Its other names.
    pub(crate) synonyms: Vec<String>,
    /// Whether it is unseen in the published split.
    pub(crate) unseen: bool,
}

/// What the server is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct StatusAnswer {
    /// Whether the models are loaded and the queue has room.
    pub(crate) ready: bool,
    /// The queue.
    pub(crate) queue: QueueAnswer,
    /// The encoded images.
    pub(crate) encodings: EncodingsAnswer,
}

/// The queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct QueueAnswer {
    /// Requests that wait.
    pub(crate) waiting: usize,
    /// Requests that are worked on.
    pub(crate) running: usize,
    /// Most requests that wait.
    pub(crate) limit: usize,
}

/// The encoded images.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct EncodingsAnswer {
    /// Their number.
    pub(crate) count: usize,
    /// Memory that they take.
    pub(crate) bytes: u64,
    /// Most memory that they may take.
    pub(crate) limit: u64,
}

/// Whether the server lives or is ready.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub(crate) struct HealthAnswer {
    /// `alive` or `ready`.
    pub(crate) status: &'static str,
}
