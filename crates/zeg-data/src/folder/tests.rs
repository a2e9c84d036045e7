//! Tests of the forms that lists and label files of strangers have.

use std::fs;
use std::path::{Path, PathBuf};

use image::{GrayImage, Luma, RgbImage};
use tempfile::TempDir;

use crate::doctor::{DoctorOptions, examine};
use crate::{DataError, Dataset, Selection, open};

/// A folder with a description of a data set, which each test fills.
struct Rooms(TempDir);

impl Rooms {
    fn new(text: &str) -> Self {
        let rooms = Self(tempfile::tempdir().unwrap());
        fs::write(rooms.0.path().join("rooms.toml"), text).unwrap();
        rooms
    }

    fn path(&self, file: &str) -> PathBuf {
        let path = self.0.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        path
    }

    fn image_file(&self, file: &str) {
        RgbImage::new(4, 1).save(self.path(file)).unwrap();
    }

    fn grey(&self, file: &str, values: [u8; 4]) {
        let map = GrayImage::from_fn(4, 1, |x, _| Luma([values[x as usize]]));
        map.save(self.path(file)).unwrap();
    }

    fn open(&self, split: &str) -> Result<Dataset, DataError> {
        open(&Selection {
            dataset: self.0.path().join("rooms.toml").to_str().unwrap(),
            root: Path::new(""),
            split,
            classes: None,
            unseen: None,
        })
    }

    fn labels(&self, split: &str) -> Vec<u16> {
        let sample = self.open(split).unwrap().load(0).unwrap();
        sample.labels.into_labels()
    }
}

const BINARY: &str = "name = 'lesions'\nimages = '**/{id}.png'\nlabels = '{id}_mask.png'\nexclude = ['_mask']\n\
                      kind = 'binary'\nclasses = ['background', 'lesion']\nmore-masks = '{id}_mask_{n}.png'\n";

/// BUSI draws each lesion of an image into a mask of its own.
#[test]
fn further_masks_of_an_image_are_united() {
    let rooms = Rooms::new(BINARY);
    rooms.image_file("benign/benign (4).png");
    rooms.grey("benign/benign (4)_mask.png", [255, 0, 0, 0]);
    assert_eq!(rooms.labels("all"), [1, 0, 0, 0]);
    rooms.grey("benign/benign (4)_mask_1.png", [0, 255, 0, 0]);
    rooms.grey("benign/benign (4)_mask_2.png", [0, 0, 200, 100]);
    assert_eq!(rooms.labels("all"), [1, 1, 1, 0]);
    let dataset = rooms.open("all").unwrap();
    assert_eq!(dataset.len(), 1);
    assert_eq!(dataset.items[0].files().count(), 4);

    rooms.grey("benign/benign (4)_mask_2.png", [0, 0, 100, 0]);
    let error = rooms.open("all").unwrap().load(0).unwrap_err();
    assert!(
        matches!(&error, DataError::MaskBelowThreshold { file, largest: 100, .. } if file.ends_with("benign (4)_mask_2.png")),
        "{error}"
    );
    GrayImage::new(4, 2)
        .save(rooms.path("benign/benign (4)_mask_2.png"))
        .unwrap();
    let error = rooms.open("all").unwrap().load(0).unwrap_err();
    assert!(matches!(error, DataError::MaskSizes { .. }), "{error}");
}

#[test]
fn further_masks_need_a_number_and_binary_masks() {
    for (from, to, expected) in [
        ("_{n}", "", "write `{n}` once"),
        (
            "'binary'",
            "'index'",
            "`more-masks` is only allowed with kind = \"binary\"",
        ),
    ] {
        let error = Rooms::new(&BINARY.replacen(from, to, 1)).open("all");
        let error = error.unwrap_err().to_string();
        assert!(error.contains("rooms.toml: line "), "{error}");
        assert!(error.contains(expected), "{error}");
    }
}

const LISTED: &str = "name = 'rooms'\nimages = 'JPEGImages/{id}.jpg'\nlabels = 'SegmentationClass/{id}.png'\n\
                      kind = 'index'\nclasses = ['a', 'b', 'c']\n[splits]\ntrain = 'train.txt'\n";

/// DeepLab's lists have two columns of paths with a slash before each.
#[test]
fn lists_may_name_the_files_of_an_image() {
    let rooms = Rooms::new(LISTED);
    for id in ["x", "y"] {
        rooms.image_file(&format!("JPEGImages/{id}.jpg"));
        rooms.grey(&format!("SegmentationClass/{id}.png"), [0; 4]);
        rooms.grey(&format!("SegmentationClassAug/{id}.png"), [2; 4]);
    }
    for (line, expected) in [
        ("x", 0),
        ("/JPEGImages/x.jpg", 0),
        ("x.jpg", 0),
        ("/JPEGImages/x.jpg /SegmentationClassAug/x.png", 2),
        ("/JPEGImages/x.jpg\t/SegmentationClass/x.png", 0),
        ("JPEGImages/x.jpg SegmentationClassAug/x.png", 2),
        ("x.jpg x.png", 0),
        (
            "/data/VOC2012/JPEGImages/x.jpg /data/VOC2012/SegmentationClassAug/x.png",
            2,
        ),
    ] {
        fs::write(rooms.path("train.txt"), format!("{line}\ny\n")).unwrap();
        let dataset = rooms.open("train").unwrap();
        let ids: Vec<&str> = dataset.items.iter().map(|item| &*item.id).collect();
        assert_eq!(ids, ["x", "y"], "{line}");
        assert_eq!(rooms.labels("train"), [expected; 4], "{line}");
    }
    fs::write(rooms.path("train.txt"), "x\ny\nJPEGImages/x.jpg\n").unwrap();
    let error = rooms.open("train").unwrap_err();
    assert!(
        matches!(&error, DataError::SameId { id, .. } if id == "x"),
        "{error}"
    );
    for (line, expected) in [
        (
            "/JPEGImages/z.jpg /SegmentationClass/z.png",
            "2 of 2 files are missing",
        ),
        ("/Images/x.jpg", ":1: `Images/x.jpg` is not an id"),
        ("../x.jpg", ":1: `../x.jpg` is not an id"),
    ] {
        fs::write(rooms.path("train.txt"), line).unwrap();
        let error = rooms.open("train").unwrap_err().to_string();
        assert!(error.contains(expected), "{line}: {error}");
    }
}

#[test]
fn labels_may_be_bmp_pgm_or_lossless_webp() {
    let index = "name = 'rooms'\nimages = 'images'\nlabels = 'labels'\nkind = 'index'\nclasses = ['a', 'b', 'c']\n";
    for ending in ["bmp", "pgm", "webp"] {
        let rooms = Rooms::new(index);
        rooms.image_file("images/x.jpg");
        let map = GrayImage::from_raw(4, 1, vec![0, 1, 2, 255]).unwrap();
        let path = rooms.path(&format!("labels/x.{ending}"));
        match ending {
            "pgm" => fs::write(path, b"P5 4 1 255\n\x00\x01\x02\xff").unwrap(),
            "webp" => image::DynamicImage::from(map).to_rgb8().save(path).unwrap(),
            _ => map.save(path).unwrap(),
        }
        assert_eq!(rooms.labels("all"), [0, 1, 2, u16::MAX], "{ending}");
    }
}

/// A label file among the images is an image without labels.
#[test]
fn the_doctor_says_how_label_files_among_the_images_are_left_out() {
    let rooms = Rooms::new(
        "name = 'rooms'\nimages = 'images'\nlabels = 'labels/{id}.png'\nkind = 'index'\nclasses = ['a', 'b']\n",
    );
    rooms.image_file("images/x.png");
    rooms.grey("labels/x.png", [0, 1, 0, 1]);
    rooms.grey("images/x_mask.png", [0; 4]);
    let toml = rooms.0.path().join("rooms.toml");
    let selection = Selection {
        dataset: toml.to_str().unwrap(),
        root: Path::new(""),
        split: "all",
        classes: None,
        unseen: None,
    };
    let options = DoctorOptions {
        threads: 1,
        limit: None,
    };
    let diagnosis = examine(&selection, &options, &|_, _| {}).unwrap();
    let mut findings = diagnosis.findings.iter();
    let finding = findings.find(|finding| finding.code.as_str() == "missing-labels");
    let example = finding.unwrap().examples[0].clone();
    assert!(
        example.ends_with("leave it out with exclude = [\"_mask\"]"),
        "{example}"
    );
}
