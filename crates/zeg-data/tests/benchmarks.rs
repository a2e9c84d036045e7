//! Tests of every benchmark's layout, on synthetic files and, if they exist beside the repository, on real excerpts.
//!
//! The expected numbers of real files were computed with Pillow 13.0.0 and numpy 2.4.6:
//!
//! ```python
//! a = np.array(Image.open(path)); dict(zip(*np.unique(a, return_counts=True))); a[y, x]
//! ```

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the test functions; a failure is a failed test"
)]

mod common;

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use common::{TinyVoc, open, shared_data};
use image::{GrayImage, ImageBuffer, Luma, RgbImage};
use tempfile::TempDir;
use zeg_data::{DataError, Metric, Selection, datasets, list};
use zeg_image::{IGNORE_LABEL, LabelMap};

/// Writes an image of 6×4 pixels.
fn image_file(root: &Path, file: &str) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    RgbImage::new(6, 4).save(path).unwrap();
}

/// Writes a label map of 6×4 pixels whose first pixels have `values`, and the other pixels the last of them.
fn labels(root: &Path, file: &str, values: &[u8]) {
    let path = root.join(file);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    let value = |x: u32, y: u32| {
        let place = (6 * y + x) as usize;
        Luma([values[place.min(values.len() - 1)]])
    };
    GrayImage::from_fn(6, 4, value).save(path).unwrap();
}

fn histogram(labels: &LabelMap) -> BTreeMap<u16, usize> {
    let mut counts = BTreeMap::new();
    for &label in labels.labels() {
        *counts.entry(label).or_default() += 1;
    }
    counts
}

fn selection<'a>(dataset: &'a str, root: &'a Path, classes: &'a str) -> Selection<'a> {
    Selection {
        dataset,
        root,
        split: "val",
        classes: Some(classes),
        unseen: None,
    }
}

#[test]
fn voc21_has_a_background_class() {
    let voc = TinyVoc::new(&["a"], &["b"]);
    let root = voc.root();
    let dataset = zeg_data::open(&selection("voc12", &root, "voc21")).unwrap();
    assert_eq!(
        (dataset.classes.len(), dataset.metric),
        (21, Metric::MeanIou)
    );
    let sample = dataset.load(0).unwrap();
    let values: Vec<Option<u16>> = [(0, 0), (8, 0), (8, 27), (16, 27)]
        .iter()
        .map(|&(x, y)| sample.labels.get(x, y))
        .collect();
    // The blocks of the second image have the values 1, 2, …, and 20 and 255 in the last row.
    assert_eq!(values, [Some(1), Some(2), Some(20), Some(IGNORE_LABEL)]);
}

#[test]
fn a_class_list_of_another_data_set_is_refused() {
    let voc = TinyVoc::new(&["a"], &["b"]);
    let error = list(&selection("voc12", &voc.root(), "coco-stuff171")).unwrap_err();
    assert_eq!(
        error.to_string(),
        "VOC cannot be read with the class list `coco-stuff171`; its class lists are voc20, voc21, voc20-zegformer"
    );
}

#[test]
fn unseen_classes_can_be_chosen() {
    let voc = TinyVoc::new(&["a"], &["b"]);
    let root = voc.root();
    let unseen = |unseen| {
        let selection = Selection {
            unseen,
            ..selection("voc12", &root, "voc20")
        };
        list(&selection).map(|dataset| dataset.classes.unseen)
    };
    assert_eq!(unseen(None).unwrap(), [15, 16, 17, 18, 19]);
    assert_eq!(unseen(Some("zs3-2")).unwrap(), [9, 13]);
    assert!(unseen(Some("none")).unwrap().is_empty());
    let error = unseen(Some("cows")).unwrap_err().to_string();
    assert!(error.contains("did you mean \"cow\"?"), "{error}");
}

/// Listing a split does not check its files; opening it does.
#[test]
fn missing_files_are_found_when_opening() {
    let voc = TinyVoc::new(&["a"], &["b"]);
    fs::remove_file(voc.labels("b")).unwrap();
    let root = voc.root();
    let selection = selection("voc12", &root, "voc20");
    assert_eq!(list(&selection).unwrap().len(), 1);
    assert!(matches!(
        zeg_data::open(&selection),
        Err(DataError::MissingFiles { missing: 1, .. })
    ));
}

#[test]
fn a_repeated_id_is_refused() {
    let voc = TinyVoc::new(&["a", "b"], &["c"]);
    voc.list("twice", "a\nb\na\n");
    assert!(matches!(
        open("voc12", &voc.root(), "twice"),
        Err(DataError::DuplicateId {
            first: 1,
            second: 3,
            ..
        })
    ));
}

#[test]
fn train_aug_has_another_name_and_may_have_its_own_list() {
    let voc = TinyVoc::new(&["a", "b"], &["c"]);
    voc.list("aug", "c\n");
    let len = |split: &str| open("voc12", &voc.root(), split).unwrap().len();
    assert_eq!((len("train_aug"), len("trainaug")), (3, 3));
    voc.list("train_aug", "a\n");
    assert_eq!(len("train_aug"), 1);
}

fn tiny_context() -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("VOCdevkit/VOC2010");
    image_file(&root, "JPEGImages/2008_1.jpg");
    labels(
        &root,
        "SegmentationClassContext/2008_1.png",
        &[0, 1, 59, 255, 15],
    );
    fs::create_dir_all(root.join("ImageSets/SegmentationContext")).unwrap();
    fs::write(
        root.join("ImageSets/SegmentationContext/val.txt"),
        "2008_1\n",
    )
    .unwrap();
    folder
}

#[test]
fn pascal_context_has_60_or_59_classes() {
    let folder = tiny_context();
    for root in ["", "VOCdevkit", "VOCdevkit/VOC2010"] {
        let dataset = open("pascal-context", &folder.path().join(root), "val").unwrap();
        assert_eq!(dataset.classes.len(), 60);
        let map = dataset.load(0).unwrap().labels;
        assert_eq!(map.labels()[..5], [0, 1, 59, IGNORE_LABEL, 15]);
    }
    let selection = selection("pascal-context", folder.path(), "pascal-context59");
    let dataset = zeg_data::open(&selection).unwrap();
    let map = dataset.load(0).unwrap().labels;
    assert_eq!(map.labels()[..5], [IGNORE_LABEL, 0, 58, IGNORE_LABEL, 14]);
    let error = open("pascal-context", folder.path(), "train").unwrap_err();
    assert!(error.to_string().ends_with("its splits are val"), "{error}");
}

#[test]
fn ade20k_splits_are_named_by_short_names_folder_names_and_lists() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("ADEChallengeData2016");
    image_file(&root, "images/validation/ADE_val_1.jpg");
    labels(&root, "annotations/validation/ADE_val_1.png", &[0, 1, 150]);
    image_file(&root, "images/training/ADE_train_1.jpg");
    labels(&root, "annotations/training/ADE_train_1.png", &[151]);
    for split in ["val", "validation"] {
        let dataset = open("ade20k", folder.path(), split).unwrap();
        assert_eq!(dataset.items[0].id, "ADE_val_1");
        let map = dataset.load(0).unwrap().labels;
        assert_eq!(map.labels()[..3], [IGNORE_LABEL, 0, 149]);
    }
    let train = open("ade20k", folder.path(), "train").unwrap();
    let error = train.load(0).unwrap_err().to_string();
    assert!(
        error.contains("151 at (0, 0); ADE20K labels are 0..=150 and 255"),
        "{error}"
    );
    let both = folder.path().join("both.txt");
    fs::write(&both, "ADE_val_1\nADE_train_1\n").unwrap();
    let both = open("ade20k", folder.path(), both.to_str().unwrap()).unwrap();
    assert!(
        both.items[0]
            .image
            .ends_with("images/validation/ADE_val_1.jpg")
    );
    assert!(
        both.items[1]
            .labels
            .ends_with("annotations/training/ADE_train_1.png")
    );
    let error = open("ade20k", folder.path(), "test")
        .unwrap_err()
        .to_string();
    assert!(error.ends_with("its splits are train, val"), "{error}");
}

/// In 16-bit label maps 255 is one of the 847 classes, and 65535 is ignored.
#[test]
fn ade20k_full_has_sixteen_bits() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("ADE20K_2021_17_01");
    let values = [0_u16, 255, 846, 65_535];
    for (id, ending) in [("ADE_1", "tif"), ("ADE_2", "png")] {
        image_file(&root, &format!("images_detectron2/validation/{id}.jpg"));
        let labels = root.join("annotations_detectron2/validation");
        fs::create_dir_all(&labels).unwrap();
        let map: ImageBuffer<Luma<u16>, Vec<u16>> =
            ImageBuffer::from_fn(6, 4, |x, _| Luma([values[(x % 4) as usize]]));
        map.save(labels.join(format!("{id}.{ending}"))).unwrap();
    }
    let dataset = open("ade20k-full", folder.path(), "val").unwrap();
    assert_eq!((dataset.len(), dataset.classes.len()), (2, 847));
    for index in 0..2 {
        let map = dataset.load(index).unwrap().labels;
        assert_eq!(map.labels()[..4], [0, 255, 846, IGNORE_LABEL]);
    }
}

#[test]
fn cityscapes_is_read_from_folders_of_cities() {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("cityscapes");
    for city in ["zurich", "aachen"] {
        let name = format!("{city}_000000_000019");
        image_file(
            &root,
            &format!("leftImg8bit/train/{city}/{name}_leftImg8bit.png"),
        );
        let file = format!("gtFine/train/{city}/{name}_gtFine_labelTrainIds.png");
        labels(&root, &file, &[0, 18, 255]);
    }
    let dataset = open("cityscapes", folder.path(), "train").unwrap();
    let ids: Vec<&str> = dataset.items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, ["aachen_000000_000019", "zurich_000000_000019"]);
    let map = dataset.load(1).unwrap().labels;
    assert_eq!(map.labels()[..3], [0, 18, IGNORE_LABEL]);

    let one = folder.path().join("one.txt");
    fs::write(&one, "zurich/zurich_000000_000019").unwrap();
    let one = open("cityscapes", folder.path(), one.to_str().unwrap()).unwrap();
    assert_eq!(one.items[0], dataset.items[1]);

    let missing = &dataset.items[0].labels;
    let raw = missing.with_file_name("aachen_000000_000019_gtFine_labelIds.png");
    fs::rename(missing, raw).unwrap();
    let error = open("cityscapes", folder.path(), "train")
        .unwrap_err()
        .to_string();
    assert!(
        error.contains(
            "labelTrainIds.png: this label map is missing; Cityscapes needs it, converted from"
        ),
        "{error}"
    );
}

#[test]
fn the_error_of_an_empty_folder_names_the_benchmark() {
    let empty = tempfile::tempdir().unwrap();
    for entry in datasets::all() {
        let error = open(entry.name, empty.path(), "val").unwrap_err();
        assert!(matches!(error, DataError::RootNotFound { .. }), "{error}");
        assert!(error.to_string().contains(entry.title), "{error}");
    }
}

#[test]
fn real_context_files_have_the_values_of_numpy() {
    let Some(root) = shared_data("context_sample") else {
        return;
    };
    let dataset = open("pascal-context", &root, "val").unwrap();
    assert_eq!(dataset.len(), 4);
    let map = dataset.load(1).unwrap().labels; // 2009_000637
    assert_eq!((map.width(), map.height()), (442, 500));
    let expected = [
        (0, 20246),
        (29, 43704),
        (30, 16397),
        (34, 32725),
        (37, 38072),
        (47, 69856),
    ];
    assert_eq!(histogram(&map), BTreeMap::from(expected));
    assert_eq!((map.get(20, 10), map.get(200, 100)), (Some(47), Some(37)));
    let names = &dataset.classes.classes;
    assert_eq!(
        (names[34].as_str(), names[47].as_str()),
        ("motorbike", "sky")
    );

    let dataset = zeg_data::open(&selection("pascal-context", &root, "pascal-context59")).unwrap();
    let map = dataset.load(1).unwrap().labels;
    let expected = [
        (28, 43704),
        (29, 16397),
        (33, 32725),
        (36, 38072),
        (46, 69856),
        (IGNORE_LABEL, 20246),
    ];
    assert_eq!(histogram(&map), BTreeMap::from(expected));
}

#[test]
fn real_ade20k_files_have_the_values_of_numpy() {
    let Some(root) = shared_data("ade20k_sample") else {
        return;
    };
    let dataset = open("ade20k", &root, "validation").unwrap();
    assert_eq!(dataset.len(), 3);
    let map = dataset.load(0).unwrap().labels; // ADE_val_00000001
    let expected = [
        (0, 14538),
        (1, 123_406),
        (2, 134_492),
        (4, 8784),
        (6, 1755),
        (9, 53099),
        (17, 10009),
        (IGNORE_LABEL, 3613),
    ];
    assert_eq!(histogram(&map), BTreeMap::from(expected));
    assert_eq!(map.get(20, 10), Some(2));

    // The classes are in the order of the file that comes with the data.
    let info = root.join("ADEChallengeData2016/objectInfo150.txt");
    let info = fs::read_to_string(info).unwrap();
    for (label, line) in info.lines().skip(1).enumerate() {
        let names = line.split('\t').nth(4).unwrap();
        let name = &dataset.classes.classes[label];
        assert!(
            names.split(',').any(|other| other.trim() == name),
            "{names}: {name}"
        );
    }
}

#[test]
fn real_coco_stuff_files_are_raw_and_refused() {
    let Some(root) = shared_data("cocostuff_sample") else {
        return;
    };
    for split in ["train", "val"] {
        let error = open("coco-stuff164k", &root, split).unwrap_err();
        assert!(matches!(error, DataError::RawCocoLabels { .. }), "{error}");
    }
}
