//! COCO-Stuff 164k: raw ids with gaps become the 171 train ids.
//!
//! The label maps of `stuffthingmaps_trainval2017.zip` hold ids from 0 to 181, of which 11 things were never
//! annotated, and 255. The 171 that remain, in their order, are the classes of mmsegmentation and so of the published
//! zero-shot splits; mmsegmentation names the files `*_labelTrainIds.png`.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeg_image::IGNORE_LABEL;

use super::find::{self, Tree};
use super::labels::{Form, IGNORE_BYTE, Rule};
use super::plan::Task;
use super::{Plan, PrepareError};

const TITLE: &str = "COCO-Stuff 164k";
const SUFFIX: &str = "_labelTrainIds.png";
/// Largest raw id.
const LAST_ID: u16 = 181;
/// Raw ids of the things that COCO has a name for and no annotation of (street sign, hat, shoe, eye glasses, plate,
/// mirror, window, desk, door, blender, hair brush). Source: the list of labels in the COCO-Stuff repository.
const UNUSED_IDS: [u16; 11] = [11, 25, 28, 29, 44, 65, 67, 68, 70, 82, 90];

/// The raw ids that are classes, in the classes' order.
fn train_ids() -> impl Iterator<Item = (u16, u16)> {
    (0..=LAST_ID).filter(|id| !UNUSED_IDS.contains(id)).zip(0..)
}

pub(crate) fn plan(from: &Path) -> Result<Plan, PrepareError> {
    let tree = Tree::scan(from)?;
    let mut plan = Plan::new("coco-stuff164k", TITLE, from);
    let pairs = train_ids().chain([(IGNORE_BYTE, IGNORE_LABEL)]);
    let raw_rule = Arc::new(Rule::new(
        TITLE,
        "raw ids 0..=181 without the 11 unused ones, and 255",
        171,
        pairs,
    ));
    let done_rule = Arc::new(Rule::identity(TITLE, "train ids 0..=170 and 255", 170));
    for (split, official) in [("train", 118_287), ("val", 5_000)] {
        let name = format!("{split}2017");
        let with = |endings: &'static [&'static str], but: &'static str| {
            tree.named(&name)
                .find(|folder| find::holds(folder, endings, but))
                .map(Path::to_owned)
        };
        let images = with(&[".jpg"], "");
        let raw = with(&[".png"], SUFFIX);
        // Converted before, here or elsewhere: checked and taken over.
        let done = with(&[SUFFIX], "");
        let (masks, form): (BTreeMap<String, PathBuf>, _) = match (&raw, &done) {
            (Some(folder), _) => {
                let files = find::files(folder, ".png")?;
                let raw = files
                    .into_iter()
                    .filter(|(id, _)| !id.ends_with("_labelTrainIds"));
                (raw.collect(), Some(("raw ids", folder, &raw_rule)))
            }
            (None, Some(folder)) => (
                find::files(folder, SUFFIX)?,
                Some(("train ids", folder, &done_rule)),
            ),
            (None, None) => (BTreeMap::new(), None),
        };
        let Some((words, folder, rule)) = form else {
            plan.note_missing(
                format!("label maps of {split}"),
                &[format!("{name}/*.png (stuffthingmaps_trainval2017.zip)")],
                "the split cannot be opened",
            );
            continue;
        };
        plan.findings.push(format!(
            "{} label maps of {split} at {}: {words}",
            masks.len(),
            folder.display()
        ));
        let Some(images) = images else {
            plan.note_missing(
                format!("pictures of {split}"),
                &[format!("{name}/*.jpg ({name}.zip)")],
                "the split cannot be opened",
            );
            continue;
        };
        let pictures = find::files(&images, ".jpg")?;
        plan.findings.push(format!(
            "{} pictures of {split} at {}",
            pictures.len(),
            images.display()
        ));
        let mut without = Vec::new();
        let mut count = 0;
        for (id, picture) in &pictures {
            let Some(mask) = masks.get(id) else {
                without.push(format!("{id}.png"));
                continue;
            };
            count += 1;
            plan.tasks.push(Task::place(
                Path::new("images").join(&name).join(format!("{id}.jpg")),
                picture,
            ));
            plan.tasks.push(Task::labels(
                Path::new("annotations")
                    .join(&name)
                    .join(format!("{id}{SUFFIX}")),
                (mask, Form::Index),
                rule,
                picture,
            ));
        }
        plan.note_missing(
            format!("label maps of pictures of {split}"),
            &without,
            "those pictures are left out",
        );
        let alone: Vec<String> = masks
            .keys()
            .filter(|id| !pictures.contains_key(*id))
            .map(|id| format!("{id}.jpg"))
            .collect();
        plan.note_missing(
            format!("pictures of label maps of {split}"),
            &alone,
            "those label maps are left out",
        );
        plan.split(split, count, official);
    }
    if plan.tasks.is_empty() {
        return Err(PrepareError::NotFound {
            dataset: TITLE,
            from: from.into(),
            looked_for: vec![
                "train2017/*.jpg or val2017/*.jpg",
                "train2017/*.png or val2017/*.png",
            ],
        });
    }
    Ok(plan)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_171_classes_in_the_order_of_their_ids() {
        let ids: Vec<(u16, u16)> = train_ids().collect();
        assert_eq!(ids.len(), 171);
        assert_eq!(ids.first(), Some(&(0, 0)));
        assert!(ids.contains(&(12, 11)) && ids.contains(&(10, 10))); // stop sign after fire hydrant
        assert_eq!(ids.last(), Some(&(181, 170))); // wood
    }
}
