//! JSON schemas of the files that only the program reads and of its output, for the reference of the book.

use schemars::Schema;

use crate::commands;

/// Returns the schema of a suite (`zeg ablate`).
pub fn suite() -> Schema {
    commands::ablate::suite_schema()
}

/// Returns the schema of an evaluation plan (`zeg eval --plan`).
pub fn evaluation_plan() -> Schema {
    commands::eval::plan_schema()
}

/// Returns the path of every command, such as `data list`, with the schema of its JSON document.
pub fn outputs() -> Vec<(&'static str, Schema)> {
    vec![
        commands::quickstart::output_schema(),
        commands::segment::output_schema(),
        commands::segment::merge_output_schema(),
        commands::train::output_schema(),
        commands::ablate::output_schema(),
        commands::pretrain::output_schema(),
        commands::eval::output_schema(),
        commands::eval::merge_output_schema(),
        commands::report::output_schema(),
        commands::data::list_output_schema(),
        commands::data::doctor_output_schema(),
        commands::data::prepare_output_schema(),
        commands::models::output_schema(),
        commands::pull::output_schema(),
        commands::import::output_schema(),
        commands::embed::output_schema(),
        commands::export::output_schema(),
        commands::info::output_schema(),
        commands::bench::output_schema(),
        commands::check::output_schema(),
        commands::visualize::output_schema(),
        commands::serve::output_schema(),
        commands::completions::output_schema(),
    ]
}

/// Returns the schema of the JSON document of a command that failed.
pub fn error() -> Schema {
    commands::json::error_schema()
}
