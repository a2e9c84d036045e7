//! Tests of data sets that a TOML file describes: its keys, the examples of the repository, and malformed files.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the test functions; a failure is a failed test"
)]

mod common;
#[path = "folders/errors.rs"]
mod errors;
#[path = "folders/examples.rs"]
mod examples;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use common::{open, shared_data};
use image::{GrayImage, Luma, Rgb, RgbImage};
use proptest::prelude::*;
use tempfile::TempDir;
use zeg_data::{DataError, LabelKind, LabelRule, Metric, Selection, list};
use zeg_image::IGNORE_LABEL;

/// A data set of two rooms in a temporary folder, which each test describes.
struct Rooms {
    folder: TempDir,
}

impl Rooms {
    fn new() -> Self {
        let rooms = Self {
            folder: tempfile::tempdir().unwrap(),
        };
        for id in ["one", "two"] {
            rooms.image_file(&format!("images/{id}.jpg"));
            rooms.grey(&format!("labels/{id}.png"), &[0, 1, 2, 255]);
        }
        rooms
    }

    fn path(&self, file: &str) -> PathBuf {
        let path = self.folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn image_file(&self, file: &str) {
        RgbImage::new(4, 2).save(self.path(file)).unwrap();
    }

    fn grey(&self, file: &str, values: &[u8]) {
        let map = GrayImage::from_fn(4, 2, |x, _| Luma([values[x as usize % values.len()]]));
        map.save(self.path(file)).unwrap();
    }

    fn describe(&self, text: &str) -> String {
        let path = self.path("rooms.toml");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    /// Returns the first row of the first image's labels, or the error.
    fn labels(&self, text: &str) -> Result<Vec<u16>, DataError> {
        let dataset = open(&self.describe(text), Path::new(""), "all")?;
        Ok(dataset.load(0)?.labels.labels()[..4].to_vec())
    }

    fn refusal(&self, text: &str) -> String {
        self.labels(text).unwrap_err().to_string()
    }
}

const START: &str = "name = 'rooms'\nimages = 'images/{id}.jpg'\nlabels = 'labels/{id}.png'\n";

#[test]
fn indices_with_and_without_a_background() {
    let rooms = Rooms::new();
    let three = "classes = ['wall', 'floor', 'sofa']\nkind = 'index'";
    let read = |rest: &str| rooms.labels(&format!("{START}{three}\n{rest}")).unwrap();
    assert_eq!(read(""), [0, 1, 2, IGNORE_LABEL]);
    assert_eq!(read("zero-is = 'class'"), [0, 1, 2, IGNORE_LABEL]);
    assert_eq!(
        read("zero-is = 'ignore'"),
        [IGNORE_LABEL, 0, 1, IGNORE_LABEL]
    );
    for (rest, end) in [
        (
            "ignore = [1, 255]",
            "lists 1, which is the value of class \"floor\"; leave out one of them",
        ),
        (
            "zero-is = 'ignore'\nignore = [0, 3]",
            "lists 3, which is the value of class \"sofa\"; leave out one of them",
        ),
    ] {
        let error = rooms.refusal(&format!("{START}{three}\n{rest}"));
        assert!(
            error.contains("rooms.toml: line ") && error.ends_with(end),
            "{error}"
        );
    }
    let error = rooms.refusal(&format!("{START}{three}\nignore = []"));
    assert!(
        error.ends_with("label value 255 at (3, 0); rooms labels are 0..=2"),
        "{error}"
    );
}

#[test]
fn classes_may_have_values_with_gaps() {
    let rooms = Rooms::new();
    rooms.grey("labels/one.png", &[7, 40, 3, 255]);
    let text = format!(
        "{START}kind = 'index'\nignore = [3, 255]\nclasses = [{{ name = 'wall', value = 40 }}, {{ name = 'sofa', value = 7 }}]"
    );
    assert_eq!(
        rooms.labels(&text).unwrap(),
        [1, 0, IGNORE_LABEL, IGNORE_LABEL]
    );
    let both = rooms.refusal(&text.replace("[3, 255]", "[7]"));
    assert!(
        both.contains("`ignore` lists 7, which is the value of class \"sofa\""),
        "{both}"
    );
    let missing = text.replace(", value = 7", "");
    assert!(
        rooms
            .refusal(&missing)
            .ends_with("class \"sofa\" has no `value`, but other classes have one")
    );
    let twice = text.replace("value = 7", "value = 40");
    assert!(
        rooms
            .refusal(&twice)
            .ends_with("class \"sofa\" has the same `value` 40 as another class")
    );
}

#[test]
fn colours_are_classes() {
    let rooms = Rooms::new();
    let colours = [[0, 0, 0], [192, 64, 128], [255, 255, 255], [0, 0, 0]];
    RgbImage::from_fn(4, 2, |x, _| Rgb(colours[x as usize]))
        .save(rooms.path("labels/one.png"))
        .unwrap();
    let text = format!(
        "{START}kind = 'palette'\nignore-colours = ['#ffffff']\nclasses = [{{ name = 'wall', colour = '#000000' }}, {{ name = 'sofa', color = [192, 64, 128] }}]"
    );
    assert_eq!(rooms.labels(&text).unwrap(), [0, 1, IGNORE_LABEL, 0]);
    let error = rooms.refusal(&text.replace("ignore-colours = ['#ffffff']", ""));
    let end = "colour #ffffff at (2, 0); rooms colours are #000000 and #c04080";
    assert!(error.ends_with(end), "{error}");
    for (from, to, expected) in [
        (
            "#000000",
            "#ffffff",
            "#ffffff is the colour of a class, or is listed twice",
        ),
        (
            ", colour = '#000000'",
            "",
            "class \"wall\" needs a `colour`",
        ),
        (
            "#000000",
            "black",
            "`colour` of class \"wall\" is \"black\"; write \"#rrggbb\" or [r, g, b]",
        ),
        (
            "[192, 64, 128]",
            "[192, 64, 256]",
            "write \"#rrggbb\" or [r, g, b]",
        ),
        (
            "[192, 64, 128]",
            "'#000000'",
            "class \"sofa\" has the same `colour` #000000 as another class",
        ),
    ] {
        let error = rooms.refusal(&text.replacen(from, to, 1));
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn binary_masks_may_be_any_image() {
    let rooms = Rooms::new();
    let text =
        |rest: &str| format!("{START}kind = 'binary'\nclasses = ['background', 'polyp']\n{rest}");
    rooms.grey("labels/one.png", &[0, 1, 127, 128]);
    assert_eq!(rooms.labels(&text("")).unwrap(), [0, 0, 0, 1]);
    assert_eq!(rooms.labels(&text("threshold = 1")).unwrap(), [0, 1, 1, 1]);
    assert_eq!(
        rooms.labels(&text("ignore = [127]")).unwrap(),
        [0, 0, IGNORE_LABEL, 1]
    );
    let bright = rooms.refusal(&text("ignore = [255]"));
    assert!(
        bright.contains("`ignore` lists 255, which is the value of class \"polyp\""),
        "{bright}"
    );
    // Masks of 0 and 1, and masks of 0 and 127, would be read as empty.
    for largest in [1, 127] {
        rooms.grey("labels/one.png", &[0, largest, largest, 0]);
        let error = rooms.refusal(&text(""));
        let end = format!(
            "one.png: the largest level of this mask is {largest}, below the `threshold` of 128, so that every pixel would be background"
        );
        assert!(error.ends_with(&end), "{error}");
        assert_eq!(rooms.labels(&text("threshold = 1")).unwrap(), [0, 1, 1, 0]);
    }
    rooms.grey("labels/one.png", &[0]);
    assert_eq!(rooms.labels(&text("")).unwrap(), [0; 4]);
    for threshold in ["0", "256", "-1"] {
        let error = rooms.refusal(&text(&format!("threshold = {threshold}")));
        assert!(
            error.ends_with(&format!("`threshold` is {threshold}; it must be 1 to 255")),
            "{error}"
        );
    }
    let three = text("").replace("'polyp'", "'polyp', 'wall'");
    assert!(rooms.refusal(&three).contains("needs two classes"));
}

/// A folder alone means every image in it; two images of one id would be one image, so they are refused.
#[test]
fn no_image_of_a_folder_is_left_out_without_a_word() {
    let rooms = Rooms::new();
    let text = START.replace("images/{id}.jpg", "images")
        + "kind = 'index'\nclasses = ['a', 'b', 'c']\nexclude = ['_preview']";
    for file in ["three.JPG", "four.png", "four_preview.jpg"] {
        let id = Path::new(file).file_stem().unwrap().to_str().unwrap();
        rooms.image_file(&format!("images/{file}"));
        rooms.grey(&format!("labels/{id}.png"), &[0, 1]);
    }
    let open = || open(&rooms.describe(&text), Path::new(""), "all");
    let dataset = open().unwrap();
    let ids: Vec<&str> = dataset.items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, ["four", "one", "three", "two"]);
    assert_eq!(dataset.load(2).unwrap().id, "three");
    rooms.image_file("images/four.JPEG");
    let error = open().unwrap_err();
    assert!(
        matches!(&error, DataError::LeftOut { files, .. } if files[0].ends_with("four.JPEG")),
        "{error}"
    );
}

#[test]
fn splits_are_lists_ids_and_folders() {
    let rooms = Rooms::new();
    rooms.image_file("test/images/three.jpg");
    rooms.grey("test/labels/three.png", &[0]);
    fs::create_dir(rooms.path("data")).unwrap();
    fs::rename(rooms.path("images"), rooms.path("data/images")).unwrap();
    fs::rename(rooms.path("labels"), rooms.path("data/labels")).unwrap();
    fs::rename(rooms.path("test"), rooms.path("data/test")).unwrap();
    fs::write(rooms.path("data/val.txt"), "two\n").unwrap();
    fs::write(rooms.path("beside.txt"), "one\n").unwrap();
    let toml = rooms.describe(&format!(
        "root = 'data'\n{START}kind = 'index'\nclasses = 'voc21'\n[splits]\nall = 'all'\nval = 'val.txt'\nbeside = 'beside.txt'\nown = ['two', 'one']\ntest = {{ images = 'test/images', labels = 'test/labels' }}\n"
    ));
    let ids = |root: &Path, split: &str| -> Vec<String> {
        let dataset = open(&toml, root, split).unwrap();
        dataset.items.into_iter().map(|item| item.id).collect()
    };
    let own = Path::new("");
    assert_eq!(ids(own, "all"), ["one", "two"]);
    assert_eq!(ids(own, "val"), ["two"]);
    assert_eq!(ids(own, "beside"), ["one"]);
    assert_eq!(ids(own, "own"), ["two", "one"]);
    assert_eq!(ids(own, "test"), ["three"]);
    assert_eq!(ids(&rooms.path("data"), "val"), ["two"]);
    let mixed = rooms.path("mixed.txt");
    fs::write(&mixed, "three\none").unwrap();
    assert_eq!(ids(own, mixed.to_str().unwrap()), ["three", "one"]);

    let error = open(&toml, own, "tests").unwrap_err().to_string();
    assert!(
        error.contains("its splits are all, beside, own, test, val"),
        "{error}"
    );
    let nowhere = open(&toml, Path::new("/no/such/folder"), "all").unwrap_err();
    assert!(
        matches!(nowhere, DataError::RootNotFound { .. }),
        "{nowhere}"
    );
}

#[test]
fn a_class_list_and_a_split_can_be_chosen() {
    let rooms = Rooms::new();
    let toml = rooms.describe(&format!("{START}kind = 'index'\nclasses = ['wall', {{ name = 'floor', synonyms = ['parquet'] }}]\nunseen = ['parquet']\ntitle = 'My rooms'\nmetric = 'dice'\n"));
    let selection = Selection {
        dataset: &toml,
        root: Path::new(""),
        split: "all",
        classes: None,
        unseen: None,
    };
    let dataset = list(&selection).unwrap();
    assert_eq!(
        (dataset.name.as_str(), dataset.title.as_str()),
        ("rooms", "My rooms")
    );
    assert_eq!(
        (dataset.classes.unseen.clone(), dataset.metric),
        (vec![1], Metric::Dice)
    );
    assert_eq!(dataset.classes.names_of(1), ["floor", "parquet"]);
    let seen = Selection {
        unseen: Some("none"),
        ..selection
    };
    assert!(list(&seen).unwrap().classes.unseen.is_empty());
    let other = Selection {
        classes: Some("voc20"),
        ..selection
    };
    assert!(matches!(list(&other), Err(DataError::ClassList { .. })));
}

proptest! {
    #[test]
    fn arbitrary_text_does_not_panic(
        text in prop_oneof![
            "\\PC{0,200}",
            "((name|images|labels|kind|classes|unseen|splits|ignore|threshold|zero-is|value|colour) ?= ?|'|\"|\\[|\\]|\\{|\\}|,|\n|index|binary|palette|\\{id\\}|\\*\\*/|\\.\\./|[0-9a-z#-]){0,60}",
        ],
        place in 0_usize..400,
        removed in 0_usize..20,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("any.toml");
        // Arbitrary text alone, and a valid description in which a part is replaced by arbitrary text.
        let good = format!("{START}kind = 'palette'\nclasses = [{{ name = 'wall', colour = '#000000' }}]\nignore-colours = ['#ffffff']\n[splits]\nval = 'a.txt'\n");
        let place = place.min(good.len());
        let end = (place + removed).min(good.len());
        let damaged = format!("{}{text}{}", &good[..place], &good[end..]);
        for text in [text, damaged] {
            fs::write(&path, text).unwrap();
            let _ = open(path.to_str().unwrap(), Path::new(""), "val");
        }
    }
}
