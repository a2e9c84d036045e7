//! Built-in class lists and splits.
//!
//! Short lists are in the modules beside this one. Long lists and all splits are in text files under `assets`, where
//! they can be compared with their source line by line.

use super::{ClassError, ClassSet, coco_stuff, pascal_context, voc};
use crate::sections::{Section, lines, sections};

/// A built-in class list.
struct BuiltinList {
    /// Name of the list.
    name: &'static str,
    /// Class names in label order.
    classes: ClassNames,
    /// Its published splits, one section per split; lists with the same text share their splits.
    splits: &'static str,
}

/// Source of the class names of a list.
enum ClassNames {
    /// An array in a module.
    Listed(&'static [&'static str]),
    /// An array in a module, preceded by a background class.
    WithBackground(&'static [&'static str]),
    /// A text with one class per line: its name and its synonyms, separated by commas.
    Text(&'static str),
}

/// Name of the background class of VOC and PASCAL Context.
const BACKGROUND: &str = "background";

const VOC_ZEGFORMER: &str = include_str!("../../assets/splits/voc20-zegformer.txt");
const VOC: &str = include_str!("../../assets/splits/voc20.txt");
const COCO_STUFF: &str = include_str!("../../assets/splits/coco-stuff171.txt");
const PASCAL_CONTEXT: &str = include_str!("../../assets/splits/pascal-context60.txt");
const ADE20K_FULL: &str = include_str!("../../assets/splits/ade20k-full847.txt");
/// Splits of a list without published splits.
const NO_SPLITS: &str = "";

/// All built-in lists.
const LISTS: [BuiltinList; 9] = [
    BuiltinList {
        name: "voc20",
        classes: ClassNames::Listed(&voc::CLASSES),
        splits: VOC,
    },
    BuiltinList {
        name: "voc21",
        classes: ClassNames::WithBackground(&voc::CLASSES),
        splits: VOC,
    },
    BuiltinList {
        name: "voc20-zegformer",
        classes: ClassNames::Listed(&voc::ZEGFORMER_CLASSES),
        splits: VOC_ZEGFORMER,
    },
    BuiltinList {
        name: "coco-stuff171",
        classes: ClassNames::Listed(&coco_stuff::CLASSES),
        splits: COCO_STUFF,
    },
    BuiltinList {
        name: "pascal-context60",
        classes: ClassNames::WithBackground(&pascal_context::CLASSES),
        splits: PASCAL_CONTEXT,
    },
    BuiltinList {
        name: "pascal-context59",
        classes: ClassNames::Listed(&pascal_context::CLASSES),
        splits: PASCAL_CONTEXT,
    },
    BuiltinList {
        name: "ade20k-150",
        classes: ClassNames::Text(include_str!("../../assets/classes/ade20k-150.txt")),
        splits: NO_SPLITS,
    },
    BuiltinList {
        name: "ade20k-full847",
        classes: ClassNames::Text(include_str!("../../assets/classes/ade20k-full847.txt")),
        splits: ADE20K_FULL,
    },
    BuiltinList {
        name: "cityscapes19",
        classes: ClassNames::Text(include_str!("../../assets/classes/cityscapes19.txt")),
        splits: NO_SPLITS,
    },
];

/// The names of the built-in class lists.
pub(super) const NAMES: [&str; LISTS.len()] = {
    let mut names = [""; LISTS.len()];
    let mut index = 0;
    while index < names.len() {
        names[index] = LISTS[index].name;
        index += 1;
    }
    names
};

/// Returns the name of the list that an argument means, whatever its case and its separators.
pub(super) fn named(argument: &str) -> Option<&'static str> {
    let wanted = normalised(argument);
    NAMES.into_iter().find(|name| *name == wanted)
}

/// Returns the lists of the data set that an argument names, such as `ade20k` or `VOC2012`; empty for anything else.
pub(super) fn of_dataset(argument: &str) -> Vec<&'static str> {
    let wanted = stem(argument);
    let lists = NAMES.into_iter();
    lists.filter(|name| stem(name) == wanted).collect()
}

fn normalised(name: &str) -> String {
    name.trim().to_lowercase().replace([' ', '_'], "-")
}

/// Returns the list that holds the same classes in their usual spelling.
pub(super) fn usually_spelled(list: &str) -> &str {
    match list {
        "voc20-zegformer" => "voc20",
        other => other,
    }
}

/// Returns a name without the numbers at its end: `ade20k-150` and `ade20k` have the stem `ade`.
fn stem(name: &str) -> String {
    let name = normalised(name);
    let mut stem = name.as_str();
    loop {
        let shorter = stem.trim_end_matches('-');
        let without_k = shorter.strip_suffix('k');
        let thousands = without_k.filter(|rest| rest.ends_with(|c: char| c.is_ascii_digit()));
        let shorter = thousands
            .unwrap_or(shorter)
            .trim_end_matches(|c: char| c.is_ascii_digit());
        if shorter.len() == stem.len() {
            return stem.to_owned();
        }
        stem = shorter;
    }
}

fn list(name: &str) -> Option<&'static BuiltinList> {
    LISTS.iter().find(|list| list.name == name)
}

/// Returns the published split with this name, a section with one unseen class per line. The name may begin with the
/// name of the list, or of another list with the same splits, and a slash.
pub(super) fn split_of(list_name: &str, name: &str) -> Option<Section> {
    let (prefix, name) = name.split_once('/').unwrap_or((list_name, name));
    let splits = list(list_name)?.splits;
    let mut found = sections(splits).filter(|split| split.name == name);
    found.find(|_| list(prefix).is_some_and(|list| list.splits == splits))
}

/// Returns the names of the published splits of a list.
pub(super) fn splits_of(list_name: &str) -> impl Iterator<Item = &'static str> {
    let splits = list(list_name).map_or(NO_SPLITS, |list| list.splits);
    sections(splits).map(|split| split.name)
}

/// Returns a built-in list with the split that published results use, if there is one.
pub(super) fn by_name(name: &str) -> Result<ClassSet, ClassError> {
    let Some(list) = list(name) else {
        return Err(ClassError::UnknownSet {
            name: name.to_owned(),
        });
    };
    let owned = |classes: &[&str]| classes.iter().map(ToString::to_string).collect();
    let (classes, synonyms): (Vec<String>, Vec<Vec<String>>) = match list.classes {
        ClassNames::Listed(classes) => (owned(classes), Vec::new()),
        ClassNames::WithBackground(classes) => {
            (owned(&[&[BACKGROUND], classes].concat()), Vec::new())
        }
        ClassNames::Text(text) => {
            let (classes, synonyms): (_, Vec<_>) = lines(text).map(name_and_synonyms).unzip();
            let has_synonyms = synonyms.iter().any(|names| !names.is_empty());
            (classes, if has_synonyms { synonyms } else { Vec::new() })
        }
    };
    let set = ClassSet {
        name: name.to_owned(),
        classes,
        synonyms,
        unseen: Vec::new(),
    };
    match sections(list.splits).find(|split| split.is_default) {
        Some(split) => {
            let unseen: Vec<&str> = split.lines().collect();
            set.with_unseen(&unseen)
        }
        None => Ok(set),
    }
}

/// Splits a line such as `building, edifice` into the class name and its synonyms.
fn name_and_synonyms(line: &str) -> (String, Vec<String>) {
    let mut names = line.split(',').map(|name| name.trim().to_owned());
    (names.next().unwrap_or_default(), names.collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_split_fits_every_list_it_belongs_to() {
        let mut count = 0;
        for list in NAMES {
            for split in splits_of(list) {
                let named: Vec<&str> = split_of(list, split).unwrap().lines().collect();
                let set = by_name(list).unwrap().with_unseen(&named).unwrap();
                assert_eq!(set.unseen.len(), named.len(), "{list}/{split}");
                count += 1;
            }
            let splits = sections(super::list(list).unwrap().splits);
            let defaults = splits.filter(|split| split.is_default).count();
            assert_eq!(defaults, usize::from(splits_of(list).count() > 0), "{list}");
        }
        assert_eq!(count, 6 + 6 + 1 + 1 + 5 + 5 + 1);
    }

    #[test]
    fn lists_are_found_by_the_name_of_their_data_set() {
        assert_eq!(named(" VOC20 "), Some("voc20"));
        assert_eq!(named("ade20k_150"), Some("ade20k-150"));
        assert_eq!(named("voc12"), None);
        for (dataset, lists) in [
            ("voc12", &["voc20", "voc21"][..]),
            ("VOC2012", &["voc20", "voc21"]),
            ("ade20k", &["ade20k-150"]),
            ("ade20k-full", &["ade20k-full847"]),
            ("coco-stuff164k", &["coco-stuff171"]),
            ("cityscapes", &["cityscapes19"]),
            ("pascal context", &["pascal-context60", "pascal-context59"]),
            ("dog", &[]),
            ("20k", &[]),
        ] {
            assert_eq!(of_dataset(dataset), lists, "{dataset}");
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

    /// Source: ZS3Net, NeurIPS 2019. Every split contains the smaller ones.
    #[test]
    fn zs3_splits_are_nested() {
        for list in ["voc20", "pascal-context60"] {
            let mut before = Vec::new();
            for unseen in [2, 4, 6, 8, 10] {
                let split = split_of(list, &format!("zs3-{unseen}")).unwrap();
                let named: Vec<&str> = split.lines().collect();
                assert_eq!(named.len(), unseen, "{list}");
                assert!(named.starts_with(&before), "{list} {unseen}");
                before = named;
            }
        }
    }
}
