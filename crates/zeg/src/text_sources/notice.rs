//! What a user should know about class embeddings.

use std::path::PathBuf;

use zeg_base::plural::counted;

/// An assumption about class embeddings that may be wrong.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TextNotice {
    /// A table has no class names, so its rows are taken in the order of the classes.
    #[error(
        "{}: holds no class names; its {rows} rows are taken in the order of the class list: {first}",
        table.display()
    )]
    RowOrder {
        /// The table.
        table: PathBuf,
        /// Number of rows.
        rows: usize,
        /// The first class names.
        first: String,
    },
    /// A table has no rows for synonyms; the rows of the classes' other names are used.
    #[error(
        "{}: has no rows for {}, such as {example:?}; the rows of the other names of their classes are used",
        table.display(),
        counted(*count, "synonym")
    )]
    MissingSynonyms {
        /// The table.
        table: PathBuf,
        /// Number of synonyms without a row.
        count: usize,
        /// One of them.
        example: String,
    },
    /// The rows of a table do not have unit length, and were normalised.
    #[error(
        "{}: its rows have lengths from {} to {}, so they are divided by their lengths; models are trained with unit rows",
        table.display(),
        lengths[0],
        lengths[1]
    )]
    NotUnit {
        /// The table.
        table: PathBuf,
        /// Lengths of the shortest and the longest row.
        lengths: [String; 2],
    },
    /// Two classes have equal embeddings, so no pixel can tell them apart.
    #[error(
        "the classes {:?} and {:?} have equal class embeddings, so no pixel can have the second one{}",
        names[0],
        names[1],
        others(*more)
    )]
    Alike {
        /// Names of the first two such classes.
        names: [String; 2],
        /// Number of further classes that equal an earlier one.
        more: usize,
    },
    /// Prompt templates were asked for, but a table takes the place of the text tower.
    #[error(
        "the prompt templates {templates} have no effect: the class embeddings come from {}",
        table.display()
    )]
    TemplatesUnused {
        /// Name of the templates.
        templates: String,
        /// The table.
        table: PathBuf,
    },
    /// A table takes the place of a text tower that was fine-tuned with the model; nothing tells which one made the table.
    #[error(
        "{}: the rows are taken to come from the model's own text tower, which was fine-tuned; those of the CLIP that it was \
         trained from do not fit it",
        table.display()
    )]
    OwnTextTower {
        /// The table.
        table: PathBuf,
    },
}

/// Says that further classes equal an earlier one.
fn others(more: usize) -> String {
    match more {
        0 => String::new(),
        more => format!("; so have {more} more"),
    }
}
