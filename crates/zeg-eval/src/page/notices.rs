//! Notices about settings that affect comparability.
//!
//! Most wrong comparisons have one of these causes: only a part of the images, other test settings, or another split of
//! the classes. All of them can be seen in the record, so a report names them above the numbers.

use super::ReportInput;
use super::compare::Comparison;
use super::content::same_protocol;
use super::text::{counted, plain, thousands};
use crate::{Evaluation, Protocol, published};

/// Test settings of the published numbers: short side 512, windows of 512 pixels with a stride of 426, from the
/// released configurations of ZegCLIP and CLIP-RC.
const PUBLISHED_SETTINGS: [(&str, f64); 3] =
    [("short-side", 512.0), ("crop", 512.0), ("stride", 426.0)];
/// Seen offset of the published inductive results: subtracted from the scores of seen classes. For other protocols it
/// is 0, or the same for all classes.
const INDUCTIVE_OFFSET: f64 = 0.1;
/// Largest number of skipped images that a notice names.
const NAMED: usize = 5;
/// Names of the split of the published numbers in the data sets.
const PUBLISHED_SPLITS: [&str; 3] = ["val", "validation", "test"];

/// Returns the notices of all evaluations; a notice that does not hold for all of them starts with a name.
pub(super) fn notices(
    input: &ReportInput,
    names: &[String],
    comparison: &Comparison,
) -> Vec<String> {
    let each: Vec<Vec<String>> = input
        .runs
        .iter()
        .map(|run| of_evaluation(&run.evaluation, comparison))
        .collect();
    let mut notices = Vec::new();
    if !same_protocol(input) {
        notices.push(
            "The evaluations follow different protocols: their scores are not comparable."
                .to_owned(),
        );
    }
    for (name, own) in names.iter().zip(&each) {
        for notice in own {
            let holds_for_all = each.iter().all(|other| other.contains(notice));
            let notice = if holds_for_all {
                notice.clone()
            } else {
                format!("{name}: {notice}")
            };
            if !notices.contains(&notice) {
                notices.push(notice);
            }
        }
    }
    notices
}

fn of_evaluation(evaluation: &Evaluation, comparison: &Comparison) -> Vec<String> {
    let mut notices = Vec::new();
    let incomparable = if comparison.published.is_empty() {
        ""
    } else {
        ": not comparable with the published rows"
    };
    if evaluation.images == 0 {
        notices.push("No image was scored.".to_owned());
    }
    notices.extend(of_skipped(evaluation));
    notices.extend(of_tied(evaluation));
    if let Some(shard) = evaluation.shard {
        notices.push(format!(
            "This is shard {} of {} of an evaluation; merge all shards first{incomparable}.",
            shard.index, shard.count
        ));
    }
    if let Some(official) = evaluation.benchmark.official_images
        && official != evaluation.images
        && evaluation.images > 0
    {
        notices.push(format!(
            "Only {} of {} official images were scored{incomparable}.",
            thousands(evaluation.images),
            thousands(official)
        ));
    }
    if !comparison.published.is_empty() {
        beside_published(&mut notices, evaluation);
    }
    notices
}

/// Returns a notice that names the images that could not be read.
fn of_skipped(evaluation: &Evaluation) -> Option<String> {
    let count = evaluation.skipped.len();
    let named = evaluation.skipped.iter().take(NAMED);
    let named: Vec<&str> = named.map(|image| image.id.as_str()).collect();
    let verb = if count == 1 { "is" } else { "are" };
    let more = if count > NAMED { ", …" } else { "" };
    (count > 0).then(|| {
        format!(
            "{} could not be read and {verb} not among the scored ones: {}{more}.",
            counted(count as u64, "image"),
            named.join(", ")
        )
    })
}

/// Returns a notice that names the images in which the model tells no classes apart.
fn of_tied(evaluation: &Evaluation) -> Option<String> {
    let first = evaluation.tied.first()?;
    Some(format!(
        "In {} of {} images, such as {first}, all classes have the same score at every pixel, so the labels mean nothing.",
        thousands(evaluation.tied.len() as u64),
        thousands(evaluation.images)
    ))
}

/// Adds the notices that only matter if published rows are shown.
fn beside_published(notices: &mut Vec<String>, evaluation: &Evaluation) {
    let split = &evaluation.benchmark.split;
    if !PUBLISHED_SPLITS.contains(&split.as_str()) {
        notices.push(format!(
            "Scored on the split {split:?}; the published rows are results on the validation split, so they are not comparable."
        ));
    }
    if let Some(notice) = other_classes(evaluation) {
        notices.push(notice);
    }
    let deviations = deviations(evaluation);
    if !deviations.is_empty() {
        notices.push(format!(
            "Test settings differ from the published ones: {}. They cause a part of the difference from the published rows.",
            deviations.join(", ")
        ));
    }
}

/// Returns a notice if the unseen classes are not those of the published split.
fn other_classes(evaluation: &Evaluation) -> Option<String> {
    let zero_shot = matches!(
        evaluation.protocol,
        Protocol::Inductive
            | Protocol::Transductive
            | Protocol::TransductiveUnseen
            | Protocol::FullySupervised
    );
    let published = published::unseen(&evaluation.benchmark.class_list).filter(|_| zero_shot)?;
    let classes = evaluation.classes.iter().enumerate();
    let unseen: Vec<usize> = classes
        .filter(|(_, class)| class.unseen)
        .map(|(label, _)| label)
        .collect();
    (unseen != published).then(|| {
        format!(
            "Of the {}, {} unseen, which are not the {} of the published split: not comparable with the published rows.",
            counted(evaluation.classes.len() as u64, "class"),
            if unseen.len() == 1 { "1 is".to_owned() } else { format!("{} are", unseen.len()) },
            published.len()
        )
    })
}

fn deviations(evaluation: &Evaluation) -> Vec<String> {
    let mut deviations = Vec::new();
    if evaluation.scales != [1.0] {
        let scales: Vec<String> = evaluation.scales.iter().map(f64::to_string).collect();
        deviations.push(format!("scales {} instead of 1", scales.join(", ")));
    }
    if evaluation.flip {
        deviations.push("test-time flip".to_owned());
    }
    let mut expected = PUBLISHED_SETTINGS.to_vec();
    if let Some(offset) = published_offset(evaluation) {
        expected.push(("seen-offset", offset));
    }
    for (name, published) in expected {
        let Some(used) = evaluation.inference.get(name) else {
            continue;
        };
        let same = used
            .as_f64()
            .is_some_and(|used| (used - published).abs() < 1e-6);
        if !same {
            deviations.push(format!("{name} {} instead of {published}", plain(used)));
        }
    }
    if let Some(mode) = evaluation
        .inference
        .get("mode")
        // Records of earlier versions call the mode "view" and the default "windows".
        .or_else(|| evaluation.inference.get("view"))
        .filter(|mode| *mode != "slide" && *mode != "windows")
    {
        deviations.push(format!("mode {} instead of slide", plain(mode)));
    }
    if evaluation
        .inference
        .get("threshold")
        .is_some_and(|threshold| !threshold.is_null())
    {
        deviations.push("a threshold leaves pixels unlabelled".to_owned());
    }
    deviations
}

/// Returns the seen offset of the published numbers; `None` where it does not change the result.
fn published_offset(evaluation: &Evaluation) -> Option<f64> {
    let unseen = evaluation
        .classes
        .iter()
        .filter(|class| class.unseen)
        .count();
    let split = unseen > 0 && unseen < evaluation.classes.len();
    let offset = match evaluation.protocol {
        Protocol::Inductive => INDUCTIVE_OFFSET,
        _ => 0.0,
    };
    split.then_some(offset)
}
