//! JSON schemas of the files that only the program reads, for the configuration reference of the book.

use schemars::Schema;

/// Returns the schema of a suite (`zeg ablate`).
pub fn suite() -> Schema {
    crate::commands::ablate::suite_schema()
}

/// Returns the schema of an evaluation plan (`zeg eval --plan`).
pub fn evaluation_plan() -> Schema {
    crate::commands::eval::plan_schema()
}
