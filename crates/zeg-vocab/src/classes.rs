//! Class lists: those of the benchmarks with their seen/unseen splits, and those a user types.
//!
//! A label is the position of a class in its list. Seen classes have labelled pixels in training; unseen classes are
//! known by name only, and a model is measured on both.

mod argument;
mod builtin;
pub mod class_file;
mod class_toml;
mod coco_stuff;
mod pascal_context;
mod query;
mod split;
mod voc;

use serde::{Deserialize, Serialize};
use thiserror::Error;

pub use argument::{ClassArgumentError, parse_classes_argument};
pub use class_file::{ClassFileError, parse_class_file, read_class_file};
pub(crate) use query::shortened;
pub use query::{
    ClassQuery, MAX_CLASSES, MAX_NAME_CHARACTERS, Place, QueryError, Role, parse_class_list,
};
pub use split::SplitError;

use builtin::NAMES;
use query::Collector;

/// A class list that does not exist or cannot be made, or a class name that is not in it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ClassError {
    /// No built-in class list has this name.
    #[error("unknown class list {name:?}; there are {}", NAMES.join(", "))]
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
    /// Several classes have this name, and none has it alone.
    #[error("class name {name:?} fits {}; write one of these out", quoted(classes))]
    AmbiguousClass {
        /// The name as it was given.
        name: String,
        /// All names of every class it fits.
        classes: Vec<String>,
    },
    /// The names of a list of one's own cannot be used.
    #[error("class list {list:?}: {source}")]
    Names {
        /// Name of the list.
        list: String,
        /// What is wrong with them.
        source: QueryError,
    },
    /// Synonyms are given for another number of classes than there are.
    #[error("class list {list:?}: synonyms of {synonyms} classes, but {classes} classes")]
    SynonymCount {
        /// Name of the list.
        list: String,
        /// Number of classes.
        classes: usize,
        /// Number of lists of synonyms.
        synonyms: usize,
    },
    /// An unseen label is beyond the list.
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
    /// Class names; a class's label is its position.
    ///
    /// Names differ but in `ade20k-full847`, where some classes differ in their synonyms alone.
    pub classes: Vec<String>,
    /// Further names of each class; shorter than `classes`, or empty, where the rest has none.
    #[serde(default)]
    pub synonyms: Vec<Vec<String>>,
    /// Labels of the unseen classes, ascending.
    pub unseen: Vec<usize>,
}

impl ClassSet {
    /// The names that [`ClassSet::by_name`] knows.
    pub fn names() -> &'static [&'static str] {
        &NAMES
    }

    /// A built-in list with its published split; `ade20k-150` and `cityscapes19` have none, and all their classes are
    /// seen.
    ///
    /// `pascal-context59` is the list of 60 without its background, which moves every label down by one; `voc21` is
    /// `voc20` after a background.
    ///
    /// # Errors
    /// [`ClassError::UnknownSet`] if there is no such list.
    pub fn by_name(name: &str) -> Result<Self, ClassError> {
        builtin::by_name(name)
    }

    /// A list of one's own.
    ///
    /// - `synonyms`: further names, one entry a class; or empty where no class has any
    /// - `unseen`: labels of the unseen classes, in any order
    ///
    /// # Errors
    /// [`ClassError::Names`] for a list without classes or with too many, and for names that are empty, too long or
    /// not the only ones of their kind; [`ClassError::SynonymCount`]; [`ClassError::UnseenLabel`].
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

    /// The same classes with a split of one's own, given by the names of the unseen classes.
    ///
    /// # Errors
    /// [`ClassError::UnknownClass`] and [`ClassError::AmbiguousClass`] if a name does not lead to one class.
    pub fn with_unseen(self, unseen: &[impl AsRef<str>]) -> Result<Self, ClassError> {
        let unseen = self.labels_of(unseen)?;
        Ok(Self { unseen, ..self })
    }

    /// All names of a class, its own first, then its synonyms; none for a label beyond the list.
    pub fn names_of(&self, label: usize) -> Vec<String> {
        self.all_names(label).map(str::to_owned).collect()
    }

    fn all_names(&self, label: usize) -> impl Iterator<Item = &str> {
        let synonyms = self.synonyms.get(label).into_iter().flatten();
        let name = self.classes.get(label).into_iter();
        name.chain(synonyms).map(String::as_str)
    }

    /// Label of the class that a name means: the class with exactly these names, separated by commas; else the only
    /// class of this name; else the only class with this synonym.
    ///
    /// # Errors
    /// [`ClassError::UnknownClass`] with the most similar spelling; [`ClassError::AmbiguousClass`].
    pub fn label_of(&self, name: &str) -> Result<usize, ClassError> {
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

    /// Labels of several classes, ascending, each once.
    fn labels_of(&self, names: &[impl AsRef<str>]) -> Result<Vec<usize>, ClassError> {
        let labels = names.iter().map(|name| self.label_of(name.as_ref()));
        let mut labels = labels.collect::<Result<Vec<_>, _>>()?;
        labels.sort_unstable();
        labels.dedup();
        Ok(labels)
    }

    /// Number of classes.
    pub fn len(&self) -> usize {
        self.classes.len()
    }

    /// True if there are no classes.
    pub fn is_empty(&self) -> bool {
        self.classes.is_empty()
    }

    /// Labels of the seen classes, ascending.
    pub fn seen(&self) -> Vec<usize> {
        (0..self.len())
            .filter(|label| !self.is_unseen(*label))
            .collect()
    }

    /// True if the class of this label is unseen.
    pub fn is_unseen(&self, label: usize) -> bool {
        self.unseen.contains(&label)
    }

    /// One flag a class: true where it is unseen.
    pub fn unseen_flags(&self) -> Vec<bool> {
        (0..self.len()).map(|label| self.is_unseen(label)).collect()
    }

    /// Label of the first class with exactly this name.
    pub fn index_of(&self, name: &str) -> Option<usize> {
        self.classes.iter().position(|class| class == name)
    }

    /// One colour (RGB) a class, distinct for the first 255.
    pub fn palette(&self) -> Vec<[u8; 3]> {
        // Colour 0 is black, which the VOC palette keeps for the background.
        (1..=self.len()).map(voc_colour).collect()
    }
}

/// The classes with every name checked.
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

/// The class name with the most similar spelling.
fn closest(classes: &[String], name: &str) -> Option<String> {
    // The comparison takes time in proportion to both lengths.
    let name = query::shortened(name);
    let distance = |class: &&String| strsim::damerau_levenshtein(class, &name);
    classes.iter().min_by_key(distance).cloned()
}

/// Colour `index` of the PASCAL VOC palette: its bits, three at a time, become the high bits of red, green and blue.
///
/// Index 0 is black, and indices repeat modulo 256. Source: `VOClabelcolormap` of the VOC development kit.
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
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn lists_have_their_published_sizes() {
        for (name, classes, unseen) in [
            ("voc20", 20, 5),
            ("voc21", 21, 5),
            ("coco-stuff171", 171, 15),
            ("pascal-context60", 60, 10),
            ("pascal-context59", 59, 10),
            ("ade20k-150", 150, 0),
            ("ade20k-full847", 847, 275),
            ("cityscapes19", 19, 0),
        ] {
            let set = ClassSet::by_name(name).unwrap();
            assert_eq!((set.len(), set.unseen.len()), (classes, unseen), "{name}");
            assert_eq!(set.seen().len(), classes - unseen, "{name}");
            assert!(set.unseen.is_sorted(), "{name}");
            let names: HashSet<Vec<String>> =
                (0..classes).map(|label| set.names_of(label)).collect();
            assert_eq!(names.len(), classes, "{name}");
            assert_eq!(
                set.palette().iter().collect::<HashSet<_>>().len(),
                classes.min(256),
                "{name}"
            );
        }
        assert_eq!(ClassSet::names().len(), 8);
    }

    /// Unseen classes as the papers list them.
    #[test]
    fn labels_are_the_published_ones() {
        let names = |name: &str| -> Vec<(usize, String)> {
            let set = ClassSet::by_name(name).unwrap();
            set.unseen
                .iter()
                .map(|label| (*label, set.classes[*label].clone()))
                .collect()
        };
        let expect = |name: &str, expected: &[(usize, &str)]| {
            let expected: Vec<_> = expected
                .iter()
                .map(|(i, n)| (*i, (*n).to_owned()))
                .collect();
            assert_eq!(names(name), expected);
        };
        expect(
            "voc20",
            &[
                (15, "pottedplant"),
                (16, "sheep"),
                (17, "sofa"),
                (18, "train"),
                (19, "tvmonitor"),
            ],
        );
        expect(
            "coco-stuff171",
            &[
                (19, "cow"),
                (23, "giraffe"),
                (28, "suitcase"),
                (29, "frisbee"),
                (36, "skateboard"),
                (51, "carrot"),
                (76, "scissors"),
                (88, "cardboard"),
                (94, "clouds"),
                (112, "grass"),
                (133, "playingfield"),
                (136, "river"),
                (137, "road"),
                (157, "tree"),
                (160, "wall-concrete"),
            ],
        );
        expect(
            "pascal-context60",
            &[
                (1, "aeroplane"),
                (7, "bird"),
                (8, "boat"),
                (15, "cat"),
                (20, "cow"),
                (25, "fence"),
                (32, "keyboard"),
                (34, "motorbike"),
                (49, "sofa"),
                (55, "tvmonitor"),
            ],
        );
        let context = ClassSet::by_name("pascal-context59").unwrap();
        assert_eq!(context.index_of("background"), None);
        assert_eq!(context.index_of("cat"), Some(14));
        assert!(context.is_unseen(14) && !context.is_unseen(15));
        let coco = ClassSet::by_name("coco-stuff171").unwrap();
        assert_eq!(
            (coco.index_of("person"), coco.index_of("wood")),
            (Some(0), Some(170))
        );
    }

    #[test]
    fn unknown_names_are_errors_with_a_hint() {
        let error = ClassSet::by_name("voc22").unwrap_err();
        assert!(error.to_string().contains("voc20"), "{error}");
        let voc = ClassSet::by_name("voc20").unwrap();
        let error = voc.with_unseen(&["dog", "motorbyke"]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "unknown class \"motorbyke\"; did you mean \"motorbike\"?"
        );
    }

    #[test]
    fn a_split_of_ones_own_replaces_the_published_one() {
        let voc = ClassSet::by_name("voc20")
            .unwrap()
            .with_unseen(&["dog", "bird"])
            .unwrap();
        assert_eq!(voc.unseen, [2, 11]);
        assert_eq!(
            voc.unseen_flags().iter().filter(|unseen| **unseen).count(),
            2
        );
    }

    /// Labels that ZegFormer's list of the 847 states, and its counts of seen and unseen classes.
    #[test]
    fn ade20k_full_is_in_the_order_of_its_train_ids() {
        let set = ClassSet::by_name("ade20k-full847").unwrap();
        for (label, names) in [
            (0, "wall"),
            (11, "person, individual, someone, somebody, mortal, soul"),
            (
                99,
                "aircraft carrier, carrier, flattop, attack aircraft carrier",
            ),
            (300, "altar, communion table, lord's table"),
            (500, "cat"),
            (
                768,
                "control panel, instrument panel, control board, board, panel",
            ),
            (846, "adding machine, totalizer, totaliser"),
        ] {
            assert_eq!(set.names_of(label).join(", "), names);
            assert_eq!(set.label_of(names).unwrap(), label);
        }
        assert_eq!(set.names_of(847), [""; 0]);
        assert_eq!((set.seen().len(), set.unseen.len()), (572, 275));
        for (label, unseen) in [(166, true), (167, false), (846, true), (0, false)] {
            assert_eq!(set.is_unseen(label), unseen, "{label}");
        }
    }

    #[test]
    fn short_lists_are_in_the_order_of_their_benchmark() {
        let ade = ClassSet::by_name("ade20k-150").unwrap();
        for (label, name) in [
            (0, "wall"),
            (7, "bed"),
            (89, "television receiver"),
            (149, "flag"),
        ] {
            assert_eq!(ade.index_of(name), Some(label));
        }
        let city = ClassSet::by_name("cityscapes19").unwrap();
        assert_eq!(city.index_of("rider"), Some(12));
        let voc = ClassSet::by_name("voc21").unwrap();
        assert_eq!(voc.index_of("background"), Some(0));
        assert_eq!(voc.unseen, [16, 17, 18, 19, 20]);
    }

    #[test]
    fn lists_of_ones_own_are_checked() {
        let owned = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let set = ClassSet::custom(
            "gut",
            owned(&["background", " polyp "]),
            vec![owned(&["bowel wall"]), vec![]],
            vec![1, 1],
        )
        .unwrap();
        assert_eq!(
            (set.names_of(1), set.unseen.clone()),
            (owned(&["polyp"]), vec![1])
        );
        assert_eq!(set.names_of(0), ["background", "bowel wall"]);
        let plain = ClassSet::custom("gut", owned(&["a", "b"]), vec![vec![], vec![]], vec![]);
        assert!(plain.unwrap().synonyms.is_empty());

        let refused = |classes: &[&str], synonyms, unseen| {
            let set = ClassSet::custom("gut", owned(classes), synonyms, unseen);
            set.unwrap_err().to_string()
        };
        assert_eq!(
            refused(&["a", "b"], vec![vec![]], vec![]),
            "class list \"gut\": synonyms of 1 classes, but 2 classes"
        );
        assert_eq!(
            refused(&["a", "b"], vec![], vec![2]),
            "class list \"gut\": unseen label 2, but there are 2 classes, counted from 0"
        );
        for (classes, synonyms) in [
            (&["a", "A"][..], vec![]),
            (&["a", "b"], vec![vec![], owned(&["a"])]),
            (&["a", " "], vec![]),
            (&[], vec![]),
        ] {
            let error = refused(classes, synonyms, vec![]);
            assert!(error.starts_with("class list \"gut\": "), "{error}");
        }
    }

    /// Lists that were stored before classes had synonyms are read.
    #[test]
    fn stored_lists_need_no_synonyms() {
        let json = r#"{"name":"pets","classes":["cat","dog"],"unseen":[1]}"#;
        let set: ClassSet = serde_json::from_str(json).unwrap();
        assert_eq!(set.names_of(1), ["dog"]);
        let again = serde_json::to_string(&set).unwrap();
        assert_eq!(serde_json::from_str::<ClassSet>(&again).unwrap(), set);
    }

    #[test]
    fn colours_are_those_of_voc() {
        assert_eq!(voc_colour(0), [0, 0, 0]);
        assert_eq!(voc_colour(1), [128, 0, 0]);
        assert_eq!(voc_colour(15), [192, 128, 128]);
        assert_eq!(voc_colour(20), [0, 64, 128]);
        assert_eq!(voc_colour(255), [224, 224, 192]);
    }
}
