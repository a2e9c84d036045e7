//! Fingerprints of data sets: everything about images, labels and classes that a stored result follows from.

use std::{fmt::Display, path::Path};

use rayon::prelude::*;
use serde_json::json;
use zeg_base::{
    file_state::FileState,
    fingerprint::{Fingerprint, digest},
    hex,
};
use zeg_image::IGNORE_LABEL;
use zeg_vocab::classes::ClassSet;

use crate::{Item, LabelKind, LabelRule, OpenSet, SampleSource as _};

/// The value of a part that does not apply.
const NONE: &str = "none";
/// Number of digits of a digest beside a number of images.
const DIGITS: usize = 16;

impl LabelRule {
    /// Returns everything that the rule is, under the keys of a data set file; parts that do not apply are `none`.
    pub fn fingerprint(&self) -> Fingerprint {
        let (mut zero, mut threshold, mut values, mut colours) =
            (NONE, NONE.to_owned(), None, None);
        let kind = match &self.kind {
            LabelKind::Identity => {
                zero = "class";
                "index"
            }
            LabelKind::ReduceZero => {
                zero = "ignore";
                "index"
            }
            LabelKind::Table(table) => {
                values = Some(pairs(table.iter().map(|(value, &class)| (value, class))));
                "index"
            }
            LabelKind::Palette(palette) => {
                let named = palette.iter();
                colours = Some(pairs(named.map(|(rgb, &class)| (hex::colour(*rgb), class))));
                "palette"
            }
            LabelKind::Binary { threshold: level } => {
                threshold = level.to_string();
                "binary"
            }
        };
        let mut ignore = self.ignore.clone();
        ignore.sort_unstable();
        ignore.dedup();
        let ignore: Vec<String> = ignore.iter().map(ToString::to_string).collect();
        let ignore = Some(ignore.join(" ")).filter(|list| !list.is_empty());
        let or_none = |part: Option<String>| part.unwrap_or_else(|| NONE.to_owned());
        Fingerprint::new()
            .with("label rule: kind", kind)
            .with("label rule: zero-is", zero)
            .with("label rule: threshold", threshold)
            .with("label rule: ignore", or_none(ignore))
            .with("label rule: values", or_none(values))
            .with("label rule: colours", or_none(colours))
    }
}

/// Writes the classes of values or colours, such as `7=0 11=1 4=ignored`.
fn pairs<T: Display>(classes: impl Iterator<Item = (T, u16)>) -> String {
    let pairs: Vec<String> = classes
        .map(|(value, class)| match class {
            IGNORE_LABEL => format!("{value}=ignored"),
            class => format!("{value}={class}"),
        })
        .collect();
    pairs.join(" ")
}

impl OpenSet {
    /// Returns everything that the labels follow from besides the contents of the files: the class list, the unseen
    /// classes, the label rule or the settings of a mini world, and the ids of the images.
    ///
    /// It is the same on every machine that holds the same files, wherever they are.
    pub fn fingerprint(&self) -> Fingerprint {
        let classes = class_list(self.classes());
        let ids = (0..self.len()).map(|index| self.id(index));
        let images = classes.with("images", counted(self.len(), &digest(ids)));
        images.and(match self {
            Self::Files(dataset) => {
                let rules = dataset.annotation_rules();
                let rule = dataset.label_rule.fingerprint();
                if rules.is_empty() {
                    rule
                } else {
                    rule.with("label rule: annotations", rules.join(" "))
                }
            }
            Self::World(set) => {
                Fingerprint::new().with("mini world: settings", json!(set.world().config()))
            }
        })
    }

    /// Returns the sizes of the files, which are the same on every machine that holds the same files.
    ///
    /// A file that cannot be read counts as empty. There are no parts for a mini world, which has no files.
    pub fn sizes(&self) -> Fingerprint {
        self.of_files("files: sizes", |path| {
            let length = FileState::of(path).map_or(0, |state| state.length());
            length.to_string()
        })
    }

    /// Returns paths, sizes, times and numbers of the files, by which this machine recognises that one was changed.
    ///
    /// A file that cannot be read counts as unchanged. There are no parts for a mini world, which has no files.
    pub fn states(&self) -> Fingerprint {
        self.of_files("files: states", |path| {
            let state = FileState::of(path).ok().map(|state| state.to_string());
            format!("{}\0{}", path.display(), state.unwrap_or_default())
        })
    }

    /// Returns the contents of the label files and files of annotations, each of which counts once; they are the same on
    /// every machine that holds the same files.
    ///
    /// A file that cannot be read counts as empty. There are no parts for a mini world, which has no files.
    pub fn label_content(&self) -> Fingerprint {
        let Self::Files(dataset) = self else {
            return Fingerprint::new();
        };
        let mut files: Vec<&Path> = dataset.items.iter().flat_map(Item::label_files).collect();
        let mut known = std::collections::HashSet::new();
        files.retain(|path| known.insert(*path));
        let contents: Vec<String> = files
            .par_iter()
            .map(|path| digest([std::fs::read(path).unwrap_or_default()]))
            .collect();
        let digest = digest(&contents);
        Fingerprint::new().with("files: label content", counted(contents.len(), &digest))
    }

    /// Returns a part with the digest of what `describe` says of each file.
    fn of_files(&self, part: &str, describe: impl Fn(&Path) -> String) -> Fingerprint {
        let Self::Files(dataset) = self else {
            return Fingerprint::new();
        };
        let files = dataset.items.iter();
        let files: Vec<String> = files
            .flat_map(Item::files)
            .map(|path| describe(path))
            .collect();
        Fingerprint::new().with(part, counted(files.len(), &digest(&files)))
    }
}

/// Returns the names of all classes with their synonyms, and those of the unseen ones.
fn class_list(classes: &ClassSet) -> Fingerprint {
    let names: Vec<String> = (0..classes.len())
        .map(|label| classes.names_of(label).join("|"))
        .collect();
    let unseen = classes.unseen.iter().filter_map(|&label| names.get(label));
    let unseen: Vec<&str> = unseen.map(String::as_str).collect();
    let unseen = if unseen.is_empty() {
        NONE.to_owned()
    } else {
        unseen.join(", ")
    };
    Fingerprint::new()
        .with("class list: names", names.join(", "))
        .with("class list: unseen", unseen)
}

/// Writes a number with the first digits of a digest.
fn counted(number: usize, digest: &str) -> String {
    let digits = digest.get(..DIGITS).unwrap_or(digest);
    format!("{number} ({digits})")
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeMap, fs};

    use super::*;
    use crate::{Dataset, Metric};

    /// Every key of a data set file that changes how label files are read is a part of its own.
    #[test]
    fn every_reading_of_labels_has_its_own_fingerprint() {
        let ignoring = |ignore: &[u16]| LabelRule {
            ignore: ignore.to_vec(),
            ..LabelRule::identity()
        };
        let table = |value: u16| LabelRule::new(LabelKind::Table(BTreeMap::from([(value, 0)])));
        let palette =
            |class: u16| LabelRule::new(LabelKind::Palette(BTreeMap::from([([9, 9, 9], class)])));
        let cases = [
            ("zero-is", LabelRule::identity(), LabelRule::reduce_zero()),
            ("threshold", LabelRule::binary(128), LabelRule::binary(1)),
            ("ignore", ignoring(&[255]), ignoring(&[0, 255])),
            ("ignore", ignoring(&[255]), ignoring(&[])),
            ("values", table(7), table(8)),
            ("colours", palette(0), palette(IGNORE_LABEL)),
            ("kind", LabelRule::identity(), LabelRule::binary(128)),
        ];
        for (key, then, now) in cases {
            assert!(then.fingerprint().check(&then.fingerprint()).is_ok());
            let mismatch = then.fingerprint().check(&now.fingerprint()).unwrap_err();
            let name = format!("label rule: {key}");
            let mut differences = mismatch.differences.iter();
            assert!(
                differences.any(|found| found.name == name),
                "{key}: {mismatch}"
            );
        }
        let mismatch = LabelRule::binary(128)
            .fingerprint()
            .check(&LabelRule::binary(1).fingerprint());
        assert_eq!(
            mismatch.unwrap_err().to_string(),
            "label rule: threshold 128 then, 1 now"
        );
        assert_eq!(
            ignoring(&[255, 0, 255]).fingerprint(),
            ignoring(&[0, 255]).fingerprint()
        );
    }

    #[test]
    fn classes_images_and_files_are_parts_of_their_own() {
        let folder = tempfile::tempdir().unwrap();
        let item = |id: &str| Item {
            id: id.to_owned(),
            image: folder.path().join(format!("{id}.jpg")),
            labels: folder.path().join(format!("{id}.png")),
            source: crate::LabelSource::File,
        };
        let set = |names: &[&str], unseen: Vec<usize>, ids: &[&str]| {
            let names = names.iter().map(ToString::to_string).collect();
            OpenSet::Files(Dataset {
                name: "own".into(),
                title: "Own".into(),
                items: ids.iter().map(|id| item(id)).collect(),
                label_rule: LabelRule::identity(),
                classes: ClassSet::custom("own", names, Vec::new(), unseen).unwrap(),
                metric: Metric::MeanIou,
            })
        };
        for file in ["a.jpg", "a.png"] {
            fs::write(folder.path().join(file), "1234").unwrap();
        }
        let then = set(&["cat", "dog"], vec![], &["a"]);
        let differs = |now: &OpenSet| {
            let mismatch = then.fingerprint().check(&now.fingerprint()).unwrap_err();
            mismatch.differences[0].name.clone()
        };
        assert_eq!(
            differs(&set(&["cat", "cow"], vec![], &["a"])),
            "class list: names"
        );
        assert_eq!(
            differs(&set(&["cat", "dog"], vec![1], &["a"])),
            "class list: unseen"
        );
        assert_eq!(differs(&set(&["cat", "dog"], vec![], &["b"])), "images");
        let (sizes, states) = (then.sizes(), then.states());
        // Other labels in a file of the same size.
        let content = then.label_content();
        assert!(content.check(&then.label_content()).is_ok());
        fs::write(folder.path().join("a.png"), "1243").unwrap();
        let mismatch = content.check(&then.label_content()).unwrap_err();
        assert_eq!(mismatch.differences[0].name, "files: label content");
        assert!(sizes.check(&then.sizes()).is_ok());
        fs::remove_file(folder.path().join("a.png")).unwrap();
        fs::write(folder.path().join("a.png"), "123").unwrap();
        assert!(sizes.check(&then.sizes()).is_err());
        assert!(states.check(&then.states()).is_err());
    }
}
