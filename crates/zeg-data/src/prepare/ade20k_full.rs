//! ADE20K-Full (`ADE20K_2021_17_01`): 847 classes out of the colours of `*_seg.png`.
//!
//! Red and green of a colour are the index of an object name in the data set's own list of 3,688; MaskFormer (Cheng et
//! al. 2021) chose the 847 that occur in both splits, ordered by how much of the pictures they cover, and ZegFormer
//! took them over. Pixels of all other objects, and those of none, become 65535. As there, the result is
//! `images_detectron2` and `annotations_detectron2`; label maps are 16-bit grey PNGs, where MaskFormer writes TIFFs.
//! Pictures beyond [`PrepareOptions::shrink`](super::PrepareOptions::shrink) are made smaller as there; unlike
//! there, the others are not compressed a second time.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeg_image::IGNORE_LABEL;

use super::find::Tree;
use super::labels::{Form, Rule};
use super::plan::{LabelSize, Task, Work};
use super::{Plan, PrepareError};

const TITLE: &str = "ADE20K-Full";
/// A line a class: object index, train id, names. Source: `datasets/prepare_ade20k_full_sem_seg.py` of MaskFormer.
const IDS: &str = include_str!("../../assets/ade20k_full_ids.txt");
const SEGMENTS: &str = "_seg.png";
/// How deep pictures lie below a split: `<group>/<scene>`, or one more.
const DEPTH: usize = 6;

/// Object indices and the classes they are.
fn train_ids() -> impl Iterator<Item = (u16, u16)> {
    IDS.lines().filter_map(|line| {
        let mut words = line.split_whitespace();
        Some((words.next()?.parse().ok()?, words.next()?.parse().ok()?))
    })
}

pub(crate) fn plan(from: &Path) -> Result<Plan, PrepareError> {
    let tree = Tree::scan(from)?;
    let mut plan = Plan::new("ade20k-full", TITLE, from);
    let has_split = |folder: &Path| {
        ["training", "validation"]
            .iter()
            .any(|split| folder.join("images/ADE").join(split).is_dir())
    };
    let Some(root) = tree.all(has_split).next() else {
        return Err(PrepareError::NotFound {
            dataset: TITLE,
            from: from.into(),
            looked_for: vec!["ADE20K_2021_17_01/images/ADE/{training,validation}"],
        });
    };
    plan.findings.push(format!("ADE20K at {}", root.display()));
    let rule = Rule::new(TITLE, "any colour", 847, train_ids()).with_others(IGNORE_LABEL);
    let rule = Arc::new(rule);
    for (split, official) in [("training", 25_574), ("validation", 2_000)] {
        let folder = root.join("images/ADE").join(split);
        let mut pictures = BTreeMap::new();
        if folder.is_dir() {
            collect(&folder, DEPTH, &mut pictures)?;
        } else {
            plan.note_missing(
                format!("split {split}"),
                &[folder.display().to_string()],
                "the split cannot be opened",
            );
        }
        let mut without = Vec::new();
        let mut count = 0;
        for (id, picture) in &pictures {
            let segments = picture.with_file_name(format!("{id}{SEGMENTS}"));
            if !segments.is_file() {
                without.push(format!("{id}{SEGMENTS}"));
                continue;
            }
            count += 1;
            plan.tasks.push(Task {
                to: Path::new("images_detectron2")
                    .join(split)
                    .join(format!("{id}.jpg")),
                work: Work::Picture {
                    from: picture.clone(),
                },
            });
            plan.tasks.push(Task {
                to: Path::new("annotations_detectron2")
                    .join(split)
                    .join(format!("{id}.png")),
                work: Work::Labels {
                    from: segments,
                    form: Form::AdeColours,
                    rule: Arc::clone(&rule),
                    picture: picture.clone(),
                    size: LabelSize::Shrunk,
                },
            });
        }
        plan.split(split, count, official);
        plan.note_missing(
            format!("label maps of {split}"),
            &without,
            "those pictures are left out",
        );
    }
    Ok(plan)
}

/// The pictures below a folder by their names; each name may occur once, since they all go to one folder.
fn collect(
    folder: &Path,
    depth: usize,
    pictures: &mut BTreeMap<String, PathBuf>,
) -> Result<(), PrepareError> {
    let unreadable = |source| PrepareError::unreadable(folder, source);
    for entry in fs::read_dir(folder).map_err(unreadable)? {
        let entry = entry.map_err(unreadable)?;
        let name = entry.file_name();
        let Some(name) = name.to_str().filter(|name| !name.starts_with('.')) else {
            continue;
        };
        let path = entry.path();
        if let Some(id) = name.strip_suffix(".jpg") {
            if let Some(first) = pictures.insert(id.to_owned(), path.clone()) {
                return Err(PrepareError::SameName {
                    first,
                    second: path,
                });
            }
        } else if depth > 0 && !name.contains('.') && path.is_dir() {
            // Beside each picture lies a folder of its masks, `ADE_train_…`, which holds no pictures.
            if !name.starts_with("ADE_") {
                collect(&path, depth - 1, pictures)?;
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_class_has_one_object_index() {
        let ids: Vec<(u16, u16)> = train_ids().collect();
        assert_eq!(ids.len(), 847);
        assert_eq!(IDS.lines().count(), 847);
        assert!((0..).zip(&ids).all(|(place, &(_, class))| place == class));
        let objects: HashSet<u16> = ids.iter().map(|&(object, _)| object).collect();
        assert_eq!(objects.len(), 847);
        // wall, and the last class
        assert_eq!((ids[0], ids[846]), ((2978, 0), (3148, 846)));
    }

    /// The data set numbered its object names in the order of the alphabet; those from 3101 on were added later.
    #[test]
    fn object_indices_are_in_the_order_of_the_names() {
        let mut objects: Vec<(u16, String)> = IDS
            .lines()
            .map(|line| {
                let mut parts = line.splitn(3, ' ');
                let id = parts.next().unwrap().parse().unwrap();
                (id, parts.nth(1).unwrap().replace('-', " "))
            })
            .filter(|&(id, _)| id <= 3100)
            .collect();
        objects.sort();
        assert!(objects.len() > 820);
        for pair in objects.windows(2) {
            assert!(pair[0].1 < pair[1].1, "{pair:?}");
        }
    }
}
