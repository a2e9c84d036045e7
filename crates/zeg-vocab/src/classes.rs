//! Class lists: the lists of the benchmarks with their splits into seen and unseen classes, and the lists of users.
//!
//! A label is the position of a class in its list. Seen classes have labelled pixels in training. Unseen classes are
//! known by name only. A model is evaluated on both.

mod argument;
mod builtin;
mod class_file;
mod class_toml;
mod coco_stuff;
mod other_form;
mod pascal_context;
mod query;
mod split;
mod voc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use argument::{ClassArgumentError, parse_class_names, parse_classes_argument};
pub use class_file::{ClassFileError, parse_class_file};
pub use other_form::OtherForm;
pub(crate) use query::shortened;
pub use query::{
    ClassQuery, MAX_CLASSES, MAX_NAME_CHARACTERS, Place, QueryError, Role, parse_class_list,
};
pub use split::SplitError;

use builtin::NAMES;
use query::Collector;

/// An error about a class list or a class name.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClassError {
    /// No built-in class list has this name.
    #[error("unknown class list {name:?}; there are {}{}", NAMES.join(", "), zeg_base::names::did_you_mean(name, NAMES))]
    UnknownSet {
        /// The name as it was given.
        name: String,
    },
    /// The list has no class of this name.
    #[error("unknown class {name:?}{}", did_you_mean(closest.as_deref()))]
    UnknownClass {
        /// The name as it was given.
        name: String,
        /// The class of the list with the most similar spelling; `None` for an empty list.
        closest: Option<String>,
    },
    /// Several classes have this name.
    #[error(
        "class name {name:?} fits {}; write all names of one of these",
        quoted(classes)
    )]
    AmbiguousClass {
        /// The name as it was given.
        name: String,
        /// All names of each class it fits.
        classes: Vec<String>,
    },
    /// The names of a custom list are invalid.
    #[error("class list {list:?}: {source}")]
    Names {
        /// Name of the list.
        list: String,
        /// The error.
        source: QueryError,
    },
    /// The number of synonym lists differs from the number of classes.
    #[error("class list {list:?}: synonyms of {synonyms} classes, but {classes} classes")]
    SynonymCount {
        /// Name of the list.
        list: String,
        /// Number of classes.
        classes: usize,
        /// Number of lists of synonyms.
        synonyms: usize,
    },
    /// The label of an unseen class is beyond the list.
    #[error(
        "class list {list:?}: unseen label {label}, but there are {classes} classes, counted from 0"
    )]
    UnseenLabel {
        /// Name of the list.
        list: String,
        /// The label.
        label: usize,
        /// Number of classes.
        classes: usize,
    },
}

fn quoted(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    names.join(" and ")
}

fn did_you_mean(closest: Option<&str>) -> String {
    closest.map_or_else(String::new, |name| format!("; did you mean {name:?}?"))
}

/// A list of classes, each seen or unseen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassSet {
    /// Name of the list, for messages and reports.
    pub name: String,
    /// Class names in label order.
    ///
    /// Names are unique except in `ade20k-full847`, where some classes differ only in their synonyms.
    pub classes: Vec<String>,
    /// Synonyms by label; may be shorter than `classes` or empty if the remaining classes have none.
    #[serde(default)]
    pub synonyms: Vec<Vec<String>>,
    /// Labels of the unseen classes, ascending.
    pub unseen: Vec<usize>,
}

impl ClassSet {
    /// Returns the names of the built-in lists.
    pub fn names() -> &'static [&'static str] {
        &NAMES
    }

    /// Returns a built-in list with its published split. `ade20k-150` and `cityscapes19` have no split, and all their
    /// classes are seen.
    ///
    /// `voc20-zegformer` is `voc20` as ZegFormer spells it, with "potted plant" in place of "pottedplant".
    /// `pascal-context59` is `pascal-context60` without its background, so every label is lower by one; `voc21` is a
    /// background followed by `voc20`.
    ///
    /// # Errors
    /// Returns [`ClassError::UnknownSet`] if there is no such list.
    pub fn by_name(name: &str) -> Result<Self, ClassError> {
        builtin::by_name(name)
    }

    /// Returns the name of the built-in list that has the same classes in their usual spelling: `voc20` for
    /// `voc20-zegformer`, and the given name for every other list.
    ///
    /// Results of both are comparable.
    pub fn usually_spelled(list: &str) -> &str {
        builtin::usually_spelled(list)
    }

    /// Creates a custom list.
    ///
    /// - `synonyms`: one entry per class, or empty if no class has synonyms
    /// - `unseen`: labels of the unseen classes, in any order
    ///
    /// # Errors
    /// Returns [`ClassError::Names`] for a list without classes or with too many, and for names that are empty, too
    /// long or duplicate; [`ClassError::SynonymCount`]; [`ClassError::UnseenLabel`].
    pub fn custom(
        name: impl Into<String>,
        classes: Vec<String>,
        synonyms: Vec<Vec<String>>,
        mut unseen: Vec<usize>,
    ) -> Result<Self, ClassError> {
        let list = name.into();
        if !synonyms.is_empty() && synonyms.len() != classes.len() {
            return Err(ClassError::SynonymCount {
                list,
                classes: classes.len(),
                synonyms: synonyms.len(),
            });
        }
        let checked = match checked(classes, synonyms) {
            Ok(checked) => checked,
            Err(source) => return Err(ClassError::Names { list, source }),
        };
        if let Some(&label) = unseen.iter().find(|label| **label >= checked.len()) {
            return Err(ClassError::UnseenLabel {
                list,
                label,
                classes: checked.len(),
            });
        }
        unseen.sort_unstable();
        unseen.dedup();
        let (classes, synonyms): (_, Vec<Vec<String>>) = checked
            .into_iter()
            .map(|class| (class.name, class.synonyms))
            .unzip();
        let any = synonyms.iter().any(|names| !names.is_empty());
        Ok(Self {
            name: list,
            classes,
            synonyms: if any { synonyms } else { Vec::new() },
            unseen,
        })
    }

    /// Returns the same classes with a custom split, given by the names of the unseen classes.
    ///
    /// # Errors
    /// Returns [`ClassError::UnknownClass`] or [`ClassError::AmbiguousClass`] if a name does not identify one class.
    pub fn with_unseen(self, unseen: &[impl AsRef<str>]) -> Result<Self, ClassError> {
        let unseen = self.labels_of(unseen)?;
        Ok(Self { unseen, ..self })
    }

    /// Returns all names of a class, the class name first, then its synonyms; empty for a label beyond the list.
    pub fn names_of(&self, label: usize) -> Vec<String> {
        self.all_names(label).map(str::to_owned).collect()
    }

    fn all_names(&self, label: usize) -> impl Iterator<Item = &str> {
        let synonyms = self.synonyms.get(label).into_iter().flatten();
        let name = self.classes.get(label).into_iter();
        name.chain(synonyms).map(String::as_str)
    }

    /// Returns the label of the class with a name: the class with exactly these names, separated by commas; else the
    /// only class with this class name; else the only class with this synonym.
    ///
    /// # Errors
    /// Returns [`ClassError::UnknownClass`] with the most similar class name, or [`ClassError::AmbiguousClass`].
    pub(crate) fn label_of(&self, name: &str) -> Result<usize, ClassError> {
        let wanted: Vec<&str> = name.split(',').map(str::trim).collect();
        let has_all = |label: &usize| self.all_names(*label).eq(wanted.iter().copied());
        if let Some(label) = (0..self.len()).find(has_all) {
            return Ok(label);
        }
        let own = |label: &usize| self.classes.get(*label).is_some_and(|class| class == name);
        let other = |label: &usize| self.all_names(*label).any(|synonym| synonym == name);
        let mut found: Vec<usize> = (0..self.len()).filter(own).collect();
        if found.is_empty() {
            found = (0..self.len()).filter(other).collect();
        }
        match found[..] {
            [label] => Ok(label),
            [] => Err(ClassError::UnknownClass {
                name: query::shortened(name),
                closest: closest(&self.classes, name),
            }),
            _ => Err(ClassError::AmbiguousClass {
                name: name.to_owned(),
                classes: found
                    .iter()
                    .map(|label| self.names_of(*label).join(", "))
                    .collect(),
            }),
        }
    }

    /// Returns the labels of several classes, ascending, without duplicates.
    fn labels_of(&self, names: &[impl AsRef<str>]) -> Result<Vec<usize>, ClassError> {
        let labels = names.iter().map(|name| self.label_of(name.as_ref()));
        let mut labels = labels.collect::<Result<Vec<_>, _>>()?;
        labels.sort_unstable();
        labels.dedup();
        Ok(labels)
    }

    /// Returns the number of classes.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// Returns true if there are no classes.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// Returns the labels of the seen classes, ascending.
    pub fn seen(&self) -> Vec<usize> {
        (0..self.len())
            .filter(|label| !self.is_unseen(*label))
            .collect()
    }

    /// Returns true if the class with this label is unseen.
    pub fn is_unseen(&self, label: usize) -> bool {
        self.unseen.contains(&label)
    }

    /// Returns one flag per class, in label order: true if the class is unseen.
    pub fn unseen_flags(&self) -> Vec<bool> {
        (0..self.len()).map(|label| self.is_unseen(label)).collect()
    }

    /// Returns the label of the first class with exactly this class name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.classes.iter().position(|class| class == name)
    }

    /// Returns one RGB colour per class; the first 255 are distinct.
    pub fn palette(&self) -> Vec<[u8; 3]> {
        // Colour 0 is black, which the VOC palette reserves for the background.
        (1..=self.len()).map(voc_colour).collect()
    }
}

/// Checks every name and returns the classes.
fn checked(
    classes: Vec<String>,
    synonyms: Vec<Vec<String>>,
) -> Result<Vec<ClassQuery>, QueryError> {
    let mut collector = Collector::default();
    let synonyms = synonyms.into_iter().chain(std::iter::repeat(Vec::new()));
    for ((position, name), synonyms) in (1..).zip(classes).zip(synonyms) {
        let place = Place::Entry(position);
        let name = query::check_name(&name, place)?;
        let synonyms = synonyms.iter().map(|name| query::check_name(name, place));
        let class = ClassQuery {
            synonyms: synonyms.collect::<Result<_, _>>()?,
            ..ClassQuery::new(name)
        };
        collector.push(class, place)?;
    }
    collector.finish()
}

/// Returns the class name with the most similar spelling.
fn closest(classes: &[String], name: &str) -> Option<String> {
    // The time of the comparison is proportional to the product of both lengths.
    let name = query::shortened(name);
    let distance = |class: &&String| strsim::damerau_levenshtein(class, &name);
    classes.iter().min_by_key(distance).cloned()
}

/// Returns colour `index` of the PASCAL VOC palette: the bits of the index, three at a time, become the high bits of
/// red, green and blue.
///
/// Index 0 is black, and colours repeat modulo 256. Source: `VOClabelcolormap` of the VOC development kit.
pub fn voc_colour(index: usize) -> [u8; 3] {
    let mut colour = [0; 3];
    for bit in 0..8 {
        for (channel, value) in colour.iter_mut().enumerate() {
            let source = 3 * bit + channel;
            if source < 8 && index >> source & 1 == 1 {
                *value |= 0x80 >> bit;
            }
        }
    }
    colour
}

#[cfg(test)]
mod tests;
