//! Hints: the action to take after an error of a run.

use super::{
    checkpoint_files::{DamagedCheckpoint, NotWritten},
    facts::OtherFacts,
    init::{ChangedInit, OtherInit, TeacherUnknown},
    start::NothingToStartFrom,
    together::{ParametersDiffer, RanksDiffer, TooManyRanks},
};

/// Returns the hint for an error of a run, if it is one.
pub(crate) fn hint(cause: &(dyn std::error::Error + 'static)) -> Option<String> {
    if let Some(error) = cause.downcast_ref::<DamagedCheckpoint>() {
        return Some(error.hint());
    }
    if let Some(error) = cause.downcast_ref::<NotWritten>() {
        return Some(error.hint());
    }
    if let Some(error) = cause.downcast_ref::<TooManyRanks>() {
        return Some(error.hint());
    }
    let hint = if cause.is::<RanksDiffer>() {
        "give all hosts the same files, by a file system that they share, and the same version of the program"
    } else if cause.is::<ParametersDiffer>() {
        "processors of different kinds may round differently; start all processes on hosts of one kind"
    } else if cause.is::<OtherFacts>() {
        "restore what the run was trained on to continue it, or start another run with another folder after -o"
    } else if cause.is::<NothingToStartFrom>() {
        "name a checkpoint from the middle of an inductive run with --init"
    } else if cause.is::<OtherInit>() {
        "leave --init out to continue the run, or start another run with another folder after -o"
    } else if cause.is::<TeacherUnknown>() {
        "name that checkpoint with --init"
    } else if cause.is::<ChangedInit>() {
        "restore the file to continue the run, or start the run anew with --overwrite"
    } else {
        return None;
    };
    Some(hint.to_owned())
}
