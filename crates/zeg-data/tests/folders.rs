//! Tests of data sets that a TOML file describes: its keys, the examples of the repository, and malformed files.
//!
//! The file is long because it shows the accepted and the refused forms of every key side by side.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the test functions; a failure is a failed test"
)]

mod common;

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

#[test]
fn errors_name_the_line() {
    let rooms = Rooms::new();
    let rest = "kind = 'index'\nclasses = ['wall', 'floor', 'sofa']\n";
    let good = format!("{START}{rest}");
    assert!(rooms.labels(&good).is_ok());
    for (from, to, line, expected) in [
        (
            "name = 'rooms'",
            "name = 'rooms'\nimage = 'x'",
            2,
            "unknown field `image`, expected one of `name`, `title`, `root`, `images`, `labels`",
        ),
        ("name = 'rooms'\n", "", 1, "missing field `name`"),
        (
            "'rooms'",
            "' '",
            1,
            "`name` is \"\"; it must not be empty or contain `/`, `\\` or control characters",
        ),
        (
            "images/{id}",
            "images/*",
            2,
            "write `{id}` for the id of an image",
        ),
        ("'labels/{id}.png'", "[]", 3, "`labels` must be a path"),
        (
            "'labels/{id}.png'",
            "'../labels/{id}.png'",
            3,
            "leads out of the data set's folder",
        ),
        (
            "'index'",
            "'grey'",
            4,
            "unknown variant `grey`, expected one of `index`, `palette`, `binary`",
        ),
        (
            "'index'",
            "'index'\nthreshold = 3",
            5,
            "`threshold` is only allowed with kind = \"binary\"",
        ),
        (
            "'index'",
            "'palette'\nzero-is = 'class'",
            5,
            "`zero-is` is only allowed with kind = \"index\"",
        ),
        (
            "'index'",
            "'index'\nzero-is = 'background'",
            5,
            "unknown variant `background`, expected `ignore` or `class`",
        ),
        (
            "'index'",
            "'index'\nmetric = 'iou'",
            5,
            "unknown variant `iou`, expected `miou` or `dice`",
        ),
        (
            "'index'",
            "'index'\nignore = [70000]",
            5,
            "invalid value: integer `70000`",
        ),
        (
            "['wall', 'floor', 'sofa']",
            "['wall', 'Wall']",
            5,
            "\"Wall\" is already named",
        ),
        ("['wall', 'floor', 'sofa']", "[]", 5, "names no class"),
        (
            "['wall', 'floor', 'sofa']",
            "['wall', 'sofa | couch|settee']",
            5,
            "write synonyms as { name = \"sofa\", synonyms = [\"couch\", \"settee\"] }",
        ),
        (
            "['wall', 'floor', 'sofa']",
            "'voc22'",
            5,
            "unknown class list \"voc22\"",
        ),
        (
            "['wall', 'floor', 'sofa']",
            "['wall', 3]",
            5,
            "a class must be a name or a table with a `name`",
        ),
        (
            "'floor'",
            "{ name = 'floor', id = 3 }",
            5,
            "unknown field `id`, expected one of `name`, `synonyms`, `value`, `color`, `colour`",
        ),
        (
            "'floor'",
            "{ name = 'floor', value = -3 }",
            5,
            "`value` of class \"floor\" is -3",
        ),
        (
            "'floor'",
            "{ name = 'floor', colour = '#000000' }",
            5,
            "which is only allowed with kind = \"palette\"",
        ),
        (
            "'sofa']",
            "'sofa']\nunseen = ['soffa']",
            6,
            "unknown class \"soffa\"; did you mean \"sofa\"?",
        ),
        (
            "'sofa']",
            "'sofa']\nunseen = 3",
            6,
            "`unseen` must be a list of class names",
        ),
        (
            "'sofa']",
            "'sofa']\n[splits]\nval = ['a', 'a']",
            7,
            "the split lists an id twice",
        ),
        (
            "'sofa']",
            "'sofa']\n[splits]\nval = ['../a']",
            7,
            "a split needs at least one id",
        ),
        (
            "'sofa']",
            "'sofa']\n[splits]\nval = 3",
            7,
            "a split must be \"all\"",
        ),
        (
            "'sofa']",
            "'sofa']\n[splits]\nval = { images = 'a' }",
            7,
            "missing field `labels`",
        ),
        ("'sofa']", "'sofa'", 5, ""),
    ] {
        let error = rooms.refusal(&good.replacen(from, to, 1));
        assert!(
            error.contains(&format!("rooms.toml: line {line}: ")),
            "{to}: {error}"
        );
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn invalid_descriptions_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    for (path, bytes) in [("a.toml", &b"name = \xff"[..]), ("b.TOML", b"")] {
        let path = folder.path().join(path);
        fs::write(&path, bytes).unwrap();
        let error = open(path.to_str().unwrap(), Path::new(""), "all").unwrap_err();
        assert!(
            matches!(error, DataError::Text(_) | DataError::Description { .. }),
            "{error}"
        );
    }
    let missing = open("no/such.toml", Path::new(""), "all").unwrap_err();
    assert!(matches!(missing, DataError::Text(_)), "{missing}");
}

fn example(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../configs/datasets")
        .join(name)
}

/// The layouts are those that the first lines of the examples name.
#[test]
fn the_example_descriptions_read_their_layouts() {
    for (toml, split, image_file, mask) in [
        ("kvasir-seg", "all", "images/cju0.jpg", "masks/cju0.jpg"),
        (
            "isic2018",
            "train",
            "ISIC2018_Task1-2_Training_Input/ISIC_0000000.jpg",
            "ISIC2018_Task1_Training_GroundTruth/ISIC_0000000_segmentation.png",
        ),
        (
            "isic2018",
            "test",
            "ISIC2018_Task1-2_Test_Input/ISIC_0012169.jpg",
            "ISIC2018_Task1_Test_GroundTruth/ISIC_0012169_segmentation.png",
        ),
        (
            "cvc-clinicdb",
            "all",
            "Original/1.tif",
            "Ground Truth/1.tif",
        ),
        (
            "cvc-clinicdb",
            "all",
            "Original/1.png",
            "Ground Truth/1.png",
        ),
        (
            "busi",
            "all",
            "benign/benign (1).png",
            "benign/benign (1)_mask.png",
        ),
        (
            "busi",
            "malignant",
            "malignant/malignant (2).png",
            "malignant/malignant (2)_mask.png",
        ),
        ("btmri", "all", "images/1.png", "masks/1.png"),
        ("eus", "all", "images/1.jpg", "masks/1.png"),
        ("eus", "all", "images/1.png", "masks/1.png"),
        (
            "qata-cov19",
            "train",
            "Train Set/Images/covid_1.png",
            "Train Set/Ground-truths/mask_covid_1.png",
        ),
        (
            "qata-cov19",
            "test",
            "Test Set/Images/covid_2.png",
            "Test Set/Ground-truths/mask_covid_2.png",
        ),
    ] {
        let folder = tempfile::tempdir().unwrap();
        for (file, value) in [(image_file, 77), (mask, 255)] {
            let path = folder.path().join(file);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            GrayImage::from_pixel(8, 8, Luma([value]))
                .save(path)
                .unwrap();
        }
        let toml = example(&format!("{toml}.toml"));
        let dataset = open(toml.to_str().unwrap(), folder.path(), split).unwrap();
        assert_eq!(dataset.len(), 1, "{}", toml.display());
        assert!(dataset.items[0].labels.ends_with(mask));
        assert_eq!(dataset.label_rule, LabelRule::binary(128));
        assert_eq!((dataset.classes.len(), dataset.metric), (2, Metric::Dice));
        assert_eq!(dataset.classes.unseen, [1]);
        assert!(
            dataset
                .load(0)
                .unwrap()
                .labels
                .labels()
                .iter()
                .all(|label| *label == 1)
        );
    }
}

#[test]
fn the_template_is_a_valid_description() {
    let toml = example("folder-template.toml");
    let folder = tempfile::tempdir().unwrap();
    let dataset = list(&Selection {
        dataset: toml.to_str().unwrap(),
        root: folder.path(),
        split: "train",
        classes: None,
        unseen: None,
    })
    .unwrap();
    assert_eq!(
        dataset.items[1].image,
        folder.path().join("images/room-02.jpg")
    );
    assert_eq!(dataset.label_rule.kind, LabelKind::Identity);
    assert_eq!(dataset.classes.unseen, [3]);
}

/// Expected counts by Pillow 13.0.0: `(np.array(Image.open(path).convert("L")) >= 128).sum()`.
#[test]
fn real_kvasir_masks_have_the_counts_of_pillow() {
    let Some(root) = shared_data("kvasir_sample/Kvasir-SEG") else {
        return;
    };
    let dataset = open(example("kvasir-seg.toml").to_str().unwrap(), &root, "all").unwrap();
    let polyp: BTreeMap<String, usize> = (0..dataset.len())
        .map(|index| {
            let sample = dataset.load(index).unwrap();
            let bright = sample.labels.labels().iter().filter(|label| **label == 1);
            (sample.id, bright.count())
        })
        .collect();
    let expected = [
        ("cju0qkwl35piu0993l0dewei2", 93_043),
        ("cju0qoxqj9q6s0835b43399p4", 390_295),
        ("cju0qx73cjw570799j4n5cjze", 104_400),
        ("cju0roawvklrq0799vmjorwfv", 35_632),
        ("cju0rx1idathl0835detmsp84", 23_706),
    ];
    assert_eq!(
        polyp,
        expected.map(|(id, count)| (id.to_owned(), count)).into()
    );
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
