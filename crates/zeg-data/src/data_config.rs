//! The data set section of a training or evaluation configuration.

use std::path::Path;

use serde::{Deserialize, Serialize};
use zeg_vocab::classes::ClassSet;

use crate::folder::Description;
use crate::{
    DataError, OpenSet, SampleSource as _, Selection,
    mini_world::{DATASET, WorldData},
};

/// A data set with its classes, prompt templates and splits, as a configuration names it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub struct DataConfig {
    /// Name of the data set: `voc12`, `coco-stuff164k`, …, or the path of a `.toml` file that describes one;
    /// `mini-world` is rendered on request and needs no folder.
    pub dataset: String,
    /// Settings of the mini world and its numbers of images.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mini_world: Option<WorldData>,
    /// Class list: `voc20`, `coco-stuff171`, …; `None` means the data set's default list, or its own list if a `.toml`
    /// file describes it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub classes: Option<String>,
    /// The unseen classes: `published`, the name of a built-in split, a file with one class name per line, or class
    /// names separated by commas; `None` means the list's published split.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unseen: Option<String>,
    /// Prompt templates of class names: `single` ("a photo of a …") or `multi` (fifteen templates, whose embeddings are
    /// averaged). A table of class embeddings was made with its own templates.
    #[serde(default = "single")]
    pub templates: String,
    /// Split to train on. A `.toml` file without a split `train` has another default: `training`, `all` or its only
    /// split.
    #[serde(default = "train")]
    pub train_split: String,
    /// Split to evaluate on. A `.toml` file without a split `val` has another default: `validation`, `valid`, `test`,
    /// `all` or its only split.
    #[serde(default = "val")]
    pub eval_split: String,
}

impl DataConfig {
    /// Returns a data set with its default classes, splits and prompt templates.
    pub fn new(dataset: &str) -> Self {
        let splits = usual_splits(dataset);
        Self {
            dataset: dataset.to_owned(),
            mini_world: None,
            classes: None,
            unseen: None,
            templates: single(),
            train_split: splits.train,
            eval_split: splits.eval,
        }
    }

    /// Makes the path of a description absolute, so that it does not depend on the folder that the program runs in.
    pub fn make_absolute(&mut self) {
        if is_description(&self.dataset)
            && let Ok(path) = std::path::absolute(&self.dataset)
            && let Some(path) = path.to_str()
        {
            path.clone_into(&mut self.dataset);
        }
    }

    /// Returns the name of the data set, without the folder of a description.
    pub fn short_name(&self) -> &str {
        let file = Path::new(&self.dataset).file_name();
        match file.and_then(|file| file.to_str()) {
            Some(file) if is_description(&self.dataset) => file,
            _ => &self.dataset,
        }
    }

    /// Returns the selection of a split in a folder.
    pub fn selection<'a>(&'a self, root: &'a Path, split: &'a str) -> Selection<'a> {
        Selection {
            dataset: &self.dataset,
            root,
            split,
            classes: self.classes.as_deref(),
            unseen: self.unseen.as_deref(),
        }
    }

    /// Opens a split.
    ///
    /// - `root`: the data set's folder; not used for a mini world
    ///
    /// # Errors
    /// Returns the errors of [`OpenSet::open`].
    pub fn open(&self, root: &Path, split: &str) -> Result<OpenSet, DataError> {
        OpenSet::open(&self.selection(root, split), self.mini_world.as_ref())
    }

    /// Returns the classes, without opening the images.
    ///
    /// # Errors
    /// Returns an error if the data set, its class list or the split of classes is unknown.
    pub fn class_set(&self) -> Result<ClassSet, DataError> {
        if self.dataset == DATASET {
            let set = self.open(Path::new(""), &self.train_split)?;
            return Ok(set.classes().clone());
        }
        let (list, unseen) = (self.classes.as_deref(), self.unseen.as_deref());
        crate::classes(&self.dataset, list, unseen)
    }
}

/// Returns whether a data set is the path of a file that describes it.
pub fn is_description(dataset: &str) -> bool {
    let ending = Path::new(dataset).extension();
    ending.is_some_and(|ending| ending.eq_ignore_ascii_case("toml"))
}

/// Returns whether two names mean one data set: they are equal, or paths of descriptions that state the same `name` and
/// class list.
///
/// A description may be moved together with its images, so its folder does not count. If one of two descriptions cannot
/// be read, such as one that was moved away, their file names are compared ([`is_compared_by_file_name`]).
pub fn is_same_dataset(one: &str, other: &str) -> bool {
    if one == other {
        return true;
    }
    if !is_description(one) || !is_description(other) {
        return false;
    }
    match (stated(one), stated(other)) {
        (Some(one), Some(other)) => one == other,
        _ => Path::new(one).file_name() == Path::new(other).file_name(),
    }
}

/// Returns whether [`is_same_dataset`] can only compare the file names of two descriptions, because one cannot be read.
pub fn is_compared_by_file_name(one: &str, other: &str) -> bool {
    one != other
        && is_description(one)
        && is_description(other)
        && (stated(one).is_none() || stated(other).is_none())
}

/// Returns the name and the class names of a description; `None` if it cannot be read.
fn stated(dataset: &str) -> Option<(String, Vec<String>)> {
    let description = Description::read(Path::new(dataset)).ok()?;
    Some((description.name, description.classes.classes))
}

/// The keys of the section that belong to one data set.
const OF_ONE_DATASET: [&str; 5] = [
    "mini-world",
    "classes",
    "unseen",
    "train-split",
    "eval-split",
];

/// Adapts the section to another data set than that of its file: class list, unseen classes and splits are those of the
/// new one, unless they are set together with it.
///
/// - `section`: the section, in which `dataset` and other keys were changed
/// - `of_file`: the data set that the file names
/// - `is_changed`: whether a key of the section was changed
///
/// Returns a notice for each key that is left out.
pub fn adapt_section(
    section: &mut toml::Table,
    of_file: Option<&str>,
    is_changed: impl Fn(&str) -> bool,
) -> Vec<String> {
    let dataset = section.get("dataset").and_then(toml::Value::as_str);
    let (Some(dataset), Some(of_file)) = (dataset.map(str::to_owned), of_file) else {
        return Vec::new();
    };
    if is_same_dataset(&dataset, of_file) {
        return Vec::new();
    }
    let mut notices = Vec::new();
    for key in OF_ONE_DATASET {
        if is_changed(key) {
            continue;
        }
        if let Some(value) = section.remove(key) {
            notices.push(format!(
                "`data.{key}` = {value} belongs to {of_file} and is left out, because data.dataset is {dataset} now; \
                 --set data.{key}=… states it for {dataset}"
            ));
        }
    }
    notices
}

/// Adds the default splits to a section that names a description and no splits.
pub fn add_usual_splits(section: &mut toml::Table) {
    let dataset = section.get("dataset").and_then(toml::Value::as_str);
    let Some(dataset) = dataset.filter(|dataset| is_description(dataset)) else {
        return;
    };
    let splits = usual_splits(dataset);
    for (key, split) in [("train-split", splits.train), ("eval-split", splits.eval)] {
        if !section.contains_key(key) {
            section.insert(key.to_owned(), toml::Value::String(split));
        }
    }
}

/// The splits that are used if none are named.
struct UsualSplits {
    train: String,
    eval: String,
}

/// Returns the default splits of a data set: `train` and `val`, or those of a description that come nearest.
///
/// A description that cannot be read has the same defaults; opening it gives the error.
fn usual_splits(dataset: &str) -> UsualSplits {
    let known = if is_description(dataset) {
        crate::splits(dataset).unwrap_or_default()
    } else {
        Vec::new()
    };
    let train_names = ["train", "training", "all"];
    let eval_names = ["val", "validation", "valid", "test", "all"];
    UsualSplits {
        train: first_of(&known, &train_names).map_or_else(train, str::to_owned),
        eval: first_of(&known, &eval_names).map_or_else(val, str::to_owned),
    }
}

/// Returns the first of `names` that is a known split, or else the only known split.
fn first_of<'a>(known: &'a [String], names: &[&'a str]) -> Option<&'a str> {
    let mut names = names.iter().copied();
    let named = names.find(|name| known.iter().any(|split| split == name));
    named.or(match known {
        [only] => Some(only.as_str()),
        _ => None,
    })
}

fn single() -> String {
    "single".to_owned()
}
fn train() -> String {
    "train".to_owned()
}
fn val() -> String {
    "val".to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn section(text: &str) -> toml::Table {
        text.parse().unwrap()
    }

    /// The recipe of another data set is often the start of an experiment on an own one.
    #[test]
    fn another_data_set_has_its_own_class_list_and_splits_unless_they_are_set_too() {
        let text = "dataset = 'mine.toml'\nclasses = 'voc20'\nunseen = 'published'\ntrain-split = 'train_aug'\ntemplates = 'multi'";
        let mut data = section(text);
        let notices = adapt_section(&mut data, Some("voc12"), |key| key == "unseen");
        assert_eq!(
            data,
            section("dataset = 'mine.toml'\nunseen = 'published'\ntemplates = 'multi'")
        );
        assert_eq!(notices.len(), 2);
        assert!(
            notices[0].starts_with("`data.classes` = \"voc20\" belongs to voc12"),
            "{notices:?}"
        );
        // The data set of the file itself keeps its keys, wherever it lies.
        for own in ["mine.toml", "/data/mine.toml"] {
            let mut data = section(text);
            assert!(adapt_section(&mut data, Some(own), |_| false).is_empty());
            assert_eq!(data, section(text));
        }
    }

    /// A renamed copy is the same data set, and a file of the same name may describe another one.
    #[test]
    fn descriptions_are_the_same_data_set_by_what_they_state() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("b")).unwrap();
        let write = |file: &str, name: &str, classes: &str| {
            let path = folder.path().join(file);
            let text = format!(
                "name = '{name}'\nimages = 'i'\nlabels = 'l'\nkind = 'index'\nclasses = [{classes}]\n"
            );
            std::fs::write(&path, text).unwrap();
            path.to_str().unwrap().to_owned()
        };
        let mine = write("mine.toml", "mine", "'a', 'b'");
        let copy = write("copy.toml", "mine", "'a', 'b'");
        let namesake = write("b/mine.toml", "yours", "'a', 'b'");
        let grown = write("grown.toml", "mine", "'a', 'b', 'c'");
        assert!(is_same_dataset(&mine, &copy));
        assert!(!is_same_dataset(&mine, &namesake));
        assert!(!is_same_dataset(&mine, &grown));
        assert!(!is_compared_by_file_name(&mine, &namesake));
        std::fs::remove_file(&namesake).unwrap();
        assert!(is_same_dataset(&mine, &namesake));
        assert!(!is_same_dataset(&copy, &namesake));
        assert!(is_compared_by_file_name(&mine, &namesake));
        assert!(!is_compared_by_file_name("voc12", &mine));
    }

    #[test]
    fn the_default_splits_of_a_description_are_splits_that_it_has() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("mine.toml");
        let start = "name = 'mine'\nimages = 'i'\nlabels = 'l'\nkind = 'index'\nclasses = ['a']\n[splits]\n";
        for (splits, train, eval) in [
            ("train = 'all'\nval = 'all'\ntest = 'all'", "train", "val"),
            ("train = 'all'\ntest = 'all'", "train", "test"),
            ("all = 'all'\nsmall = ['x']", "all", "all"),
            ("rooms = 'all'", "rooms", "rooms"),
            ("", "all", "all"),
            ("one = 'all'\ntwo = ['x']", "train", "val"),
        ] {
            std::fs::write(&path, format!("{start}{splits}\n")).unwrap();
            let data = DataConfig::new(path.to_str().unwrap());
            assert_eq!((&*data.train_split, &*data.eval_split), (train, eval));
        }
        let data = DataConfig::new("voc12");
        assert_eq!((&*data.train_split, &*data.eval_split), ("train", "val"));
        assert_eq!(DataConfig::new("none.toml").eval_split, "val");
    }

    #[test]
    fn the_path_of_a_description_does_not_depend_on_the_working_folder() {
        let mut data = DataConfig::new("mine.toml");
        data.make_absolute();
        assert!(Path::new(&data.dataset).is_absolute());
        assert!(is_same_dataset(&data.dataset, "mine.toml"));
        assert!(!is_same_dataset(&data.dataset, "yours.toml"));
        let mut built_in = DataConfig::new("voc12");
        built_in.make_absolute();
        assert_eq!(built_in.dataset, "voc12");
        assert!(!is_same_dataset("voc12", "a/voc12"));
    }
}
