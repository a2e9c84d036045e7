//! What may be wrong with a labelling configuration.

use thiserror::Error;
use zeg::vocab::classes::ClassError;

use super::MAX_DEPTH;

/// An error in a labelling configuration.
#[derive(Debug, Clone, PartialEq, Error)]
pub(in crate::label_studio) enum LabellingError {
    /// It is not well-formed XML.
    #[error("the labelling configuration is not XML: {reason}")]
    Xml {
        /// What the XML reader says.
        reason: String,
    },
    /// Tags are nested deeper than [`MAX_DEPTH`].
    #[error("the labelling configuration has tags nested more than {MAX_DEPTH} deep")]
    Depth,
    /// No tag draws masks, polygons or boxes on an image.
    #[error(
        "the labelling configuration has no BrushLabels, PolygonLabels or RectangleLabels with labels"
    )]
    NoLabels,
    /// A tag refers to an image that the configuration does not have.
    #[error("{tag} {name:?} labels {image:?}, but the labelling configuration has no such Image")]
    NoImage {
        /// The tag.
        tag: &'static str,
        /// Its name.
        name: String,
        /// The name of the image that it refers to.
        image: String,
    },
    /// The tags label several images of a task.
    #[error(
        "the labelling configuration labels several images of a task, {first:?} and {second:?}"
    )]
    SeveralImages {
        /// The image of the first tag.
        first: String,
        /// Another one.
        second: String,
    },
    /// The value of an image is no field of the task.
    #[error("the Image {name:?} has the value {value:?}, which is no field such as \"$image\"")]
    Field {
        /// Name of the image.
        name: String,
        /// Its value.
        value: String,
    },
    /// An attribute's value is illegal.
    #[error("{attribute}={value:?} in the labelling configuration; it must be {legal}")]
    Attribute {
        /// The attribute.
        attribute: &'static str,
        /// The value as it is written.
        value: String,
        /// The legal values.
        legal: &'static str,
    },
    /// A tag has an attribute whose name begins as this program's own, and is none of them.
    #[error("the tag {tag} of the labelling configuration has no attribute {attribute:?}{like}")]
    UnknownAttribute {
        /// The tag.
        tag: String,
        /// The attribute.
        attribute: String,
        /// A question for a similar one, or nothing.
        like: String,
    },
    /// An attribute stands where it has no effect.
    #[error("{attribute} of {place} in the labelling configuration has no effect: {reason}")]
    Idle {
        /// The attribute.
        attribute: &'static str,
        /// The tag that has it.
        place: String,
        /// Why it has none.
        reason: &'static str,
    },
    /// A label is written twice, and the second one says something else.
    #[error(
        "{attribute} of the label {label:?} differs from that of its first Label in the labelling configuration"
    )]
    Repeated {
        /// The attribute.
        attribute: &'static str,
        /// The label.
        label: String,
    },
    /// The labels come from each task.
    #[error(
        "{tag} has the value {value:?} in the labelling configuration: labels that come from the tasks are not predicted"
    )]
    OfTask {
        /// The tag.
        tag: &'static str,
        /// Its value.
        value: String,
    },
    /// The tags name different models, or different smallest areas.
    #[error("{attribute} has two values in the labelling configuration, {first:?} and {second:?}")]
    Conflict {
        /// The attribute.
        attribute: &'static str,
        /// Its first value.
        first: String,
        /// The other value.
        second: String,
    },
    /// Class names are empty, too long or double.
    #[error(transparent)]
    Classes(#[from] ClassError),
}
