//! Hints for the errors of commands.

use crate::commands::{
    eval::{DescriptionMissing, ReplacesInput},
    export::{ExportPlaceError, UnusedText},
    journal::ResultsError,
    json::JsonRefused,
    model_file::NotPulled,
    place::{NotAFile, NotAFolder, OutputExists},
    report::NoEvaluation,
    segment::{MergeError, NotShared},
    serve::ServeError,
};

/// Returns the hint for an error of a command.
pub(super) fn of_commands(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if cause.is::<DescriptionMissing>() {
        return Some("name the file with --dataset".into());
    }
    if cause.is::<NotShared>() {
        return Some("name a folder with -o on a file system that all hosts share".into());
    }
    if cause.is::<ReplacesInput>() {
        return Some("name another folder after --write-labels, or after -o".into());
    }
    if cause.is::<NoEvaluation>() {
        return Some("`zeg eval … -o FOLDER` writes one".into());
    }
    if let Some(NotPulled(name)) = cause.downcast_ref::<NotPulled>() {
        return Some(format!(
            "`zeg pull {name}` downloads them; `zeg models` lists their size"
        ));
    }
    if let Some(error) = cause.downcast_ref::<ServeError>() {
        return Some(error.hint().into());
    }
    if let Some(refused) = cause.downcast_ref::<JsonRefused>() {
        return Some(refused.hint().into());
    }
    if let Some(error) = cause.downcast_ref::<ResultsError>() {
        return Some(error.hint().into());
    }
    if let Some(error) = cause.downcast_ref::<MergeError>() {
        return Some(error.hint().into());
    }
    if let Some(error) = cause.downcast_ref::<ExportPlaceError>() {
        return Some(error.hint().into());
    }
    if cause.is::<UnusedText>() {
        return Some(
            "add --classes, or leave --text out and give the table's rows to the graph".into(),
        );
    }
    if cause.is::<OutputExists>() {
        return Some("use --overwrite to replace it".into());
    }
    if cause.is::<NotAFile>() || cause.is::<NotAFolder>() {
        return Some("choose another path".into());
    }
    None
}
