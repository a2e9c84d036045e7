//! ADE20K with 150 classes (`ADEChallengeData2016`): ready as downloaded, so it is only checked and taken over.

use std::path::Path;
use std::sync::Arc;

use super::find::{self, Tree};
use super::labels::{Form, Rule};
use super::plan::Task;
use super::{Plan, PrepareError};

const TITLE: &str = "ADE20K";

pub(crate) fn plan(from: &Path) -> Result<Plan, PrepareError> {
    let tree = Tree::scan(from)?;
    let mut plan = Plan::new("ade20k", TITLE, from);
    let is_root = |folder: &Path| {
        ["training", "validation"].iter().any(|split| {
            find::holds(&folder.join("images").join(split), &[".jpg"], "")
                && find::holds(&folder.join("annotations").join(split), &[".png"], "")
        })
    };
    let Some(root) = tree.all(is_root).next() else {
        return Err(PrepareError::NotFound {
            dataset: TITLE,
            from: from.into(),
            looked_for: vec![
                "images/{training,validation}/*.jpg with annotations/{training,validation}/*.png",
            ],
        });
    };
    plan.findings
        .push(format!("ADEChallengeData2016 at {}", root.display()));
    // 0 is unlabelled and stays so: loaders leave it out.
    let pairs = (0..=150).map(|value| (value, value));
    let rule = Arc::new(Rule::new(TITLE, "0..=150", 151, pairs));
    for (split, official) in [("training", 20_210), ("validation", 2_000)] {
        let (images, annotations) = (
            root.join("images").join(split),
            root.join("annotations").join(split),
        );
        if !images.is_dir() || !annotations.is_dir() {
            plan.note_missing(
                format!("split {split}"),
                &[
                    images.display().to_string(),
                    annotations.display().to_string(),
                ],
                "the split cannot be opened",
            );
            continue;
        }
        let pictures = find::files(&images, ".jpg")?;
        let masks = find::files(&annotations, ".png")?;
        let mut without = Vec::new();
        for (id, picture) in &pictures {
            let Some(mask) = masks.get(id) else {
                without.push(format!("{id}.png"));
                continue;
            };
            plan.tasks.push(Task::place(
                Path::new("images").join(split).join(format!("{id}.jpg")),
                picture,
            ));
            plan.tasks.push(Task::labels(
                Path::new("annotations")
                    .join(split)
                    .join(format!("{id}.png")),
                (mask, Form::Index),
                &rule,
                picture,
            ));
        }
        plan.split(split, pictures.len() - without.len(), official);
        plan.note_missing(
            format!("label maps of {split}"),
            &without,
            "those pictures are left out",
        );
    }
    let names = root.join("objectInfo150.txt");
    if names.is_file() {
        plan.tasks.push(Task::place("objectInfo150.txt", names));
    }
    Ok(plan)
}
