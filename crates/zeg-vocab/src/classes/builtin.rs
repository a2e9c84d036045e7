//! The class lists and splits that come with the program.
//!
//! Short lists stand in the modules beside this one, long ones and all splits in text files under `assets`, where a
//! reader can compare them with their source line by line.

use super::{ClassError, ClassSet, coco_stuff, pascal_context, voc};

/// The names of the built-in class lists.
pub(super) const NAMES: [&str; 8] = [
    "voc20",
    "voc21",
    "coco-stuff171",
    "pascal-context60",
    "pascal-context59",
    "ade20k-150",
    "ade20k-full847",
    "cityscapes19",
];

const ADE20K_150: &str = include_str!("../../assets/classes/ade20k-150.txt");
const ADE20K_FULL_847: &str = include_str!("../../assets/classes/ade20k-full847.txt");
const CITYSCAPES_19: &str = include_str!("../../assets/classes/cityscapes19.txt");

/// The name that VOC and PASCAL Context give to what belongs to no class.
const BACKGROUND: &str = "background";

/// Lists of the same classes, which share their splits; `pascal-context60` and `voc21` have a background more.
const VOC: &[&str] = &["voc20", "voc21"];
const COCO_STUFF: &[&str] = &["coco-stuff171"];
const PASCAL_CONTEXT: &[&str] = &["pascal-context60", "pascal-context59"];
const ADE20K_FULL: &[&str] = &["ade20k-full847"];

/// A split that a paper published.
pub(super) struct PublishedSplit {
    /// The lists it belongs to.
    pub(super) lists: &'static [&'static str],
    /// Its name, alone or after the name of a list and a slash.
    pub(super) name: &'static str,
    /// One unseen class a line.
    pub(super) text: &'static str,
}

/// Reads a split from `assets/splits`.
macro_rules! split {
    ($lists:expr, $folder:literal, $name:literal) => {
        PublishedSplit {
            lists: $lists,
            name: $name,
            text: include_str!(concat!("../../assets/splits/", $folder, "/", $name, ".txt")),
        }
    };
}

/// All published splits.
pub(super) const SPLITS: [PublishedSplit; 13] = [
    split!(VOC, "voc20", "zegclip"),
    split!(VOC, "voc20", "zs3-2"),
    split!(VOC, "voc20", "zs3-4"),
    split!(VOC, "voc20", "zs3-6"),
    split!(VOC, "voc20", "zs3-8"),
    split!(VOC, "voc20", "zs3-10"),
    split!(COCO_STUFF, "coco-stuff171", "zegclip"),
    split!(PASCAL_CONTEXT, "pascal-context60", "zs3-2"),
    split!(PASCAL_CONTEXT, "pascal-context60", "zs3-4"),
    split!(PASCAL_CONTEXT, "pascal-context60", "zs3-6"),
    split!(PASCAL_CONTEXT, "pascal-context60", "zs3-8"),
    split!(PASCAL_CONTEXT, "pascal-context60", "zs3-10"),
    split!(ADE20K_FULL, "ade20k-full847", "zegformer"),
];

/// The published split of this name for a list; the name may begin with that of the list or of its sister.
pub(super) fn split_of(list: &str, name: &str) -> Option<&'static PublishedSplit> {
    let (prefix, name) = name
        .split_once('/')
        .map_or((list, name), |(prefix, name)| (prefix, name));
    SPLITS.iter().find(|split| {
        split.name == name && split.lists.contains(&list) && split.lists.contains(&prefix)
    })
}

/// The names of the published splits of a list.
pub(super) fn splits_of(list: &str) -> impl Iterator<Item = &'static str> {
    let of_list = SPLITS
        .iter()
        .filter(move |split| split.lists.contains(&list));
    of_list.map(|split| split.name)
}

/// The split that published results of a list use, where there is one.
fn default_split(list: &str) -> Option<&'static str> {
    match list {
        "voc20" | "voc21" | "coco-stuff171" => Some("zegclip"),
        "pascal-context60" | "pascal-context59" => Some("zs3-10"),
        "ade20k-full847" => Some("zegformer"),
        _ => None,
    }
}

/// A built-in list with its published split.
pub(super) fn by_name(name: &str) -> Result<ClassSet, ClassError> {
    let plain = |classes: &[&str]| {
        let classes = classes.iter().map(ToString::to_string).collect();
        (classes, Vec::new())
    };
    let (classes, synonyms): (Vec<String>, Vec<Vec<String>>) = match name {
        "voc20" => plain(&voc::CLASSES),
        "voc21" => {
            let classes: Vec<&str> = [BACKGROUND].into_iter().chain(voc::CLASSES).collect();
            plain(&classes)
        }
        "coco-stuff171" => plain(&coco_stuff::CLASSES),
        "pascal-context60" => plain(&pascal_context::CLASSES),
        "pascal-context59" => plain(pascal_context::CLASSES.get(1..).unwrap_or_default()),
        "ade20k-150" => (lines(ADE20K_150).map(str::to_owned).collect(), Vec::new()),
        "ade20k-full847" => lines(ADE20K_FULL_847).map(name_and_synonyms).unzip(),
        "cityscapes19" => (
            lines(CITYSCAPES_19).map(str::to_owned).collect(),
            Vec::new(),
        ),
        _ => {
            return Err(ClassError::UnknownSet {
                name: name.to_owned(),
            });
        }
    };
    let set = ClassSet {
        name: name.to_owned(),
        classes,
        synonyms,
        unseen: Vec::new(),
    };
    match default_split(name).and_then(|split| split_of(name, split)) {
        Some(split) => {
            let unseen: Vec<&str> = lines(split.text).collect();
            set.with_unseen(&unseen)
        }
        None => Ok(set),
    }
}

/// The lines of a text that say something: trimmed, neither empty nor a comment.
pub(super) fn lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.lines().map(str::trim);
    lines.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// `building, edifice`: the name and what else the class is called.
fn name_and_synonyms(line: &str) -> (String, Vec<String>) {
    let mut names = line.split(',').map(|name| name.trim().to_owned());
    (names.next().unwrap_or_default(), names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_fits_every_list_it_belongs_to() {
        for split in &SPLITS {
            let named: Vec<&str> = lines(split.text).collect();
            for list in split.lists {
                let set = by_name(list).unwrap().with_unseen(&named).unwrap();
                assert_eq!(set.unseen.len(), named.len(), "{list}/{}", split.name);
            }
        }
    }

    #[test]
    fn splits_are_found_with_and_without_their_list() {
        assert!(split_of("voc21", "zs3-4").is_some());
        assert!(split_of("voc21", "voc20/zs3-4").is_some());
        assert!(split_of("voc20", "pascal-context60/zs3-4").is_none());
        assert!(split_of("ade20k-150", "zegformer").is_none());
        assert!(split_of("voc20", "voc20/").is_none());
        let names: Vec<&str> = splits_of("pascal-context59").collect();
        assert_eq!(names, ["zs3-2", "zs3-4", "zs3-6", "zs3-8", "zs3-10"]);
    }

    /// ZS3Net, NeurIPS 2019: every split holds the ones before it.
    #[test]
    fn zs3_splits_are_nested() {
        for list in ["voc20", "pascal-context60"] {
            let mut before = Vec::new();
            for unseen in [2, 4, 6, 8, 10] {
                let split = split_of(list, &format!("zs3-{unseen}")).unwrap();
                let named: Vec<&str> = lines(split.text).collect();
                assert_eq!(named.len(), unseen, "{list}");
                assert!(named.starts_with(&before), "{list} {unseen}");
                before = named;
            }
        }
    }
}
