//! Cityscapes: the 34 label ids become the 19 classes that are scored.
//!
//! The archive of fine annotations has `*_gtFine_labelIds.png` only; `*_gtFine_labelTrainIds.png` is left to the user
//! and a script. Files that are there already are checked and taken over.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeg_image::IGNORE_LABEL;

use super::find::{self, Tree};
use super::labels::{Form, IGNORE_BYTE, Rule};
use super::plan::Task;
use super::{Plan, PrepareError};

const TITLE: &str = "Cityscapes";
/// The label ids of the 19 classes in their order, road to bicycle. Source: `labels.py` of the official scripts.
const CLASS_IDS: [u16; 19] = [
    7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33,
];
const LAST_ID: u16 = 33;
const PICTURE: &str = "_leftImg8bit.png";
const IDS: &str = "_gtFine_labelIds.png";
const TRAIN_IDS: &str = "_gtFine_labelTrainIds.png";

pub(crate) fn plan(from: &Path) -> Result<Plan, PrepareError> {
    let tree = Tree::scan(from)?;
    let mut plan = Plan::new("cityscapes", TITLE, from);
    let has_split = |folder: &Path| folder.join("train").is_dir() || folder.join("val").is_dir();
    let find = |name| tree.named(name).find(|folder| has_split(folder));
    let (Some(images), Some(labels)) = (find("leftImg8bit"), find("gtFine")) else {
        return Err(PrepareError::NotFound {
            dataset: TITLE,
            from: from.into(),
            looked_for: vec!["leftImg8bit/{train,val}", "gtFine/{train,val}"],
        });
    };
    plan.findings
        .push(format!("pictures at {}", images.display()));
    plan.findings
        .push(format!("label maps at {}", labels.display()));
    let pairs = CLASS_IDS.into_iter().zip(0..);
    let ids_rule = Arc::new(
        Rule::new(
            TITLE,
            "label ids 0..=33 and 255",
            19,
            pairs.chain([(IGNORE_BYTE, IGNORE_LABEL)]),
        )
        .with_others_up_to(LAST_ID, IGNORE_LABEL),
    );
    let done_rule = Arc::new(Rule::identity(TITLE, "train ids 0..=18 and 255", 18));
    for (split, official) in [("train", 2_975), ("val", 500)] {
        let pictures = files_of_cities(&images.join(split), PICTURE)?;
        let ids = files_of_cities(&labels.join(split), IDS)?;
        let done = files_of_cities(&labels.join(split), TRAIN_IDS)?;
        let mut without = Vec::new();
        for (id, picture) in &pictures {
            let (mask, rule) = match (ids.get(id), done.get(id)) {
                (Some(mask), _) => (mask, &ids_rule),
                (None, Some(mask)) => (mask, &done_rule),
                (None, None) => {
                    without.push(format!("{id}{IDS}"));
                    continue;
                }
            };
            plan.tasks.push(Task::place(
                Path::new("leftImg8bit")
                    .join(split)
                    .join(format!("{id}{PICTURE}")),
                picture,
            ));
            plan.tasks.push(Task::labels(
                Path::new("gtFine")
                    .join(split)
                    .join(format!("{id}{TRAIN_IDS}")),
                (mask, Form::Index),
                rule,
                picture,
            ));
        }
        plan.split(split, pictures.len() - without.len(), official);
        plan.note_missing(
            format!("label maps of {split}"),
            &without,
            "those pictures are left out",
        );
        let alone: Vec<String> = ids
            .keys()
            .filter(|id| !pictures.contains_key(*id))
            .map(|id| format!("{id}{PICTURE}"))
            .collect();
        plan.note_missing(
            format!("pictures of {split}"),
            &alone,
            "those label maps are left out",
        );
    }
    Ok(plan)
}

/// The files of all cities of a split, by city and name without the ending.
fn files_of_cities(split: &Path, ending: &str) -> Result<BTreeMap<String, PathBuf>, PrepareError> {
    let mut all = BTreeMap::new();
    if !split.is_dir() {
        return Ok(all);
    }
    let unreadable = |source| PrepareError::unreadable(split, source);
    for entry in fs::read_dir(split).map_err(unreadable)? {
        let city = entry.map_err(unreadable)?.path();
        let Some(name) = city.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        if !city.is_dir() || name.starts_with('.') {
            continue;
        }
        let files = find::files(&city, ending)?;
        all.extend(
            files
                .into_iter()
                .map(|(id, path)| (format!("{name}/{id}"), path)),
        );
    }
    Ok(all)
}
