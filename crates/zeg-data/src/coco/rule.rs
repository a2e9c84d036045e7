//! The rule by which the categories of a COCO file become classes.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use zeg_image::IGNORE_LABEL;
use zeg_vocab::classes::ClassSet;

/// The format of a COCO file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub(crate) enum Format {
    /// Masks of objects.
    #[serde(rename = "coco-instances")]
    Instances,
    /// A PNG of segments for each image.
    #[serde(rename = "coco-panoptic")]
    Panoptic,
}

/// The label of a pixel in masks of several objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub(crate) enum Overlap {
    /// The smaller object lies on top; crowds lie below all objects.
    #[default]
    SmallerArea,
    /// The later object of the file lies on top.
    Later,
    /// The pixel is ignored if the objects have different classes.
    Ignore,
}

/// How the annotations of a data set become labels.
#[derive(Debug, Clone)]
pub(crate) struct CocoRule {
    pub(crate) format: Format,
    pub(crate) overlap: Overlap,
    /// Label of the pixels without an annotation.
    pub(crate) rest: u16,
    /// Title of the data set, for messages.
    pub(crate) title: String,
    /// All names of each class, the class name first.
    pub(crate) classes: Vec<Vec<String>>,
    /// Names of classes by names of categories.
    pub(crate) map: BTreeMap<String, String>,
    /// Names of categories whose pixels are ignored.
    pub(crate) ignore: BTreeSet<String>,
}

impl CocoRule {
    /// Returns the label of a category; `None` if it is not one class.
    pub(crate) fn label(&self, category: &str) -> Option<u16> {
        if self.ignore.contains(category) {
            return Some(IGNORE_LABEL);
        }
        let name = self.map.get(category).map_or(category, String::as_str);
        class_named(&self.classes, name)
    }

    /// Returns the class names.
    pub(crate) fn class_names(&self) -> Vec<String> {
        let names = self.classes.iter().filter_map(|names| names.first());
        names.cloned().collect()
    }
}

/// Returns all names of each class.
pub(crate) fn all_names(classes: &ClassSet) -> Vec<Vec<String>> {
    (0..classes.len()).map(|c| classes.names_of(c)).collect()
}

/// Returns the only class with this name, or else the only class with this synonym, without regard to case, spaces,
/// hyphens and underscores.
pub(crate) fn class_named(classes: &[Vec<String>], name: &str) -> Option<u16> {
    let wanted = folded(name);
    let with = |has: &dyn Fn(&[String]) -> bool| {
        let found = (0..).zip(classes).filter(|(_, names)| has(names));
        found.map(|(class, _)| class).collect::<Vec<u16>>()
    };
    let own = with(&|names| names.first().is_some_and(|name| folded(name) == wanted));
    let other = || with(&|names| names.iter().any(|name| folded(name) == wanted));
    match own[..] {
        [class] => Some(class),
        [] => match other()[..] {
            [class] => Some(class),
            _ => None,
        },
        _ => None,
    }
}

fn folded(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, ' ' | '-' | '_'))
        .flat_map(char::to_lowercase)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn categories_are_classes_by_their_names_and_only_if_one_fits() {
        let classes = [
            vec!["traffic light"],
            vec!["bag", "handbag"],
            vec!["bag", "backpack"],
        ];
        let owned = |names: &Vec<&str>| names.iter().map(ToString::to_string).collect();
        let classes: Vec<Vec<String>> = classes.iter().map(owned).collect();
        for (name, class) in [
            ("traffic light", Some(0)),
            ("Traffic-Light", Some(0)),
            ("backpack", Some(2)),
            ("bag", None),
            ("person", None),
        ] {
            assert_eq!(class_named(&classes, name), class, "{name}");
        }
    }
}
