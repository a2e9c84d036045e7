//! Tests of opening data sets and loading samples, and of the error messages for faulty files.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the test functions; a failure is a failed test"
)]

mod common;

use std::fs;
use std::path::Path;

use common::{TinyVoc, open};
use image::{GrayImage, Luma, Rgb, RgbImage};
use zeg_data::{DataError, LabelRule};
use zeg_image::{IGNORE_LABEL, ImageError};

#[test]
fn voc_is_found_from_three_folders() {
    let voc = TinyVoc::new(&["a", "b"], &["c"]);
    for root in [
        voc.root(),
        voc.outermost().join("VOCdevkit"),
        voc.outermost().to_owned(),
    ] {
        let dataset = open("voc12", &root, "train").unwrap();
        assert_eq!(dataset.len(), 2);
        assert_eq!(dataset.classes.name, "voc20");
        assert_eq!(dataset.label_rule, LabelRule::reduce_zero());
        assert!(dataset.items[0].image.is_file());
    }
}

#[test]
fn the_error_of_a_wrong_root_names_the_folders_looked_for() {
    let folder = tempfile::tempdir().unwrap();
    let error = open("voc12", folder.path(), "train").unwrap_err();
    assert!(matches!(&error, DataError::RootNotFound { looked_for, .. } if looked_for.len() == 3));
    let text = error.to_string();
    assert!(
        text.contains("VOCdevkit/VOC2012/ImageSets/Segmentation"),
        "{text}"
    );
}

#[test]
fn the_error_of_an_unknown_data_set_lists_the_known_ones() {
    let error = open("voc13", Path::new("."), "train").unwrap_err();
    let text = error.to_string();
    assert!(
        text.contains("`voc13`") && text.contains("coco-stuff164k"),
        "{text}"
    );
}

#[test]
fn file_values_become_classes() {
    let voc = TinyVoc::new(&["a"], &["b"]);
    let sample = open("voc12", &voc.root(), "train")
        .unwrap()
        .load(0)
        .unwrap();
    assert_eq!((sample.image.width(), sample.image.height()), (48, 36));
    // Blocks of 8×9 pixels hold the values 0, 1, 2, … and 255 after 20.
    assert_eq!(sample.labels.get(0, 0), Some(IGNORE_LABEL));
    assert_eq!(sample.labels.get(8, 0), Some(0));
    assert_eq!(sample.labels.get(16, 27), Some(19));
    assert_eq!(sample.labels.get(24, 27), Some(IGNORE_LABEL));
}

#[test]
fn an_index_past_the_end_is_an_error() {
    let voc = TinyVoc::new(&["a"], &["b"]);
    let error = open("voc12", &voc.root(), "train")
        .unwrap()
        .load(1)
        .unwrap_err();
    assert!(matches!(
        error,
        DataError::NoSuchSample {
            index: 1,
            len: 1,
            ..
        }
    ));
}

#[test]
fn the_error_of_a_missing_split_lists_the_others() {
    let voc = TinyVoc::new(&["a"], &["b"]);
    for split in ["trainval", "no/such/list.txt", "train_aug"] {
        let error = open("voc12", &voc.root(), split).unwrap_err();
        let text = error.to_string();
        assert!(
            matches!(error, DataError::SplitNotFound { .. }),
            "{split}: {text}"
        );
        assert!(
            text.contains(&format!("`{split}`")) && text.ends_with("its splits are train, val")
        );
    }
}

#[test]
fn an_empty_split_is_an_error() {
    let voc = TinyVoc::new(&["a"], &["b"]);
    voc.list("nothing", "\r\n\n");
    let error = open("voc12", &voc.root(), "nothing").unwrap_err();
    assert!(matches!(error, DataError::Empty { path } if path.ends_with("nothing.txt")));
}

#[test]
fn a_split_can_be_any_text_file() {
    let voc = TinyVoc::new(&["a", "b"], &["c"]);
    let list = voc.outermost().join("mine.txt");
    fs::write(&list, "c\r\na\r\n").unwrap();
    let dataset = open("voc12", &voc.root(), &list.to_string_lossy()).unwrap();
    let ids: Vec<&str> = dataset.items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, ["c", "a"]);
}

#[test]
fn train_aug_joins_two_lists_and_two_folders() {
    let voc = TinyVoc::new(&["a", "b"], &["c"]);
    voc.add("d", 4);
    let augmented = voc.root().join("SegmentationClassAug");
    fs::create_dir(&augmented).unwrap();
    fs::rename(voc.labels("d"), augmented.join("d.png")).unwrap();
    voc.list("aug", "d\nb\n");
    let dataset = open("voc12", &voc.root(), "train_aug").unwrap();
    let ids: Vec<&str> = dataset.items.iter().map(|item| item.id.as_str()).collect();
    assert_eq!(ids, ["a", "b", "d"]);
    assert_eq!(dataset.items[1].labels, voc.labels("b"));
    assert_eq!(dataset.items[2].labels, augmented.join("d.png"));
    dataset.load(2).unwrap();
}

#[test]
fn missing_files_are_counted_when_the_data_set_is_opened() {
    let voc = TinyVoc::new(&["a", "b", "c", "d"], &["e"]);
    for id in ["a", "c", "d"] {
        fs::remove_file(voc.image(id)).unwrap();
    }
    fs::remove_file(voc.labels("a")).unwrap();
    let error = open("voc12", &voc.root(), "train").unwrap_err();
    let DataError::MissingFiles {
        missing,
        wanted,
        first,
        ..
    } = &error
    else {
        panic!("{error}");
    };
    assert_eq!((*missing, *wanted), (4, 8));
    assert_eq!(first[..], [voc.image("a"), voc.labels("a"), voc.image("c")]);
    let text = error.to_string();
    assert!(
        text.contains("4 of 8 files") && text.ends_with(", …"),
        "{text}"
    );
    assert!(open("voc12", &voc.root(), "val").is_ok());
}

#[test]
fn the_error_of_a_truncated_jpeg_names_the_file() {
    let voc = TinyVoc::new(&["a"], &["b"]);
    voc.truncate_image("a");
    let error = open("voc12", &voc.root(), "train")
        .unwrap()
        .load(0)
        .unwrap_err();
    assert!(matches!(
        &error,
        DataError::Image(ImageError::Corrupt { .. })
    ));
    assert!(error.to_string().contains("a.jpg"), "{error}");
}

#[test]
fn the_error_of_different_sizes_names_both_files_and_sizes() {
    let voc = TinyVoc::new(&["a"], &["b"]);
    GrayImage::new(36, 48).save(voc.labels("a")).unwrap();
    let error = open("voc12", &voc.root(), "train")
        .unwrap()
        .load(0)
        .unwrap_err();
    assert!(matches!(&error, DataError::SizeMismatch { .. }));
    let text = error.to_string();
    for part in ["a.jpg", "48×36", "a.png", "36×48"] {
        assert!(text.contains(part), "{part} in {text}");
    }
}

#[test]
fn the_error_of_an_illegal_label_names_its_place() {
    let voc = TinyVoc::new(&["a"], &["b"]);
    let mut labels = GrayImage::new(48, 36);
    labels.put_pixel(12, 34, Luma([187]));
    labels.put_pixel(13, 34, Luma([188]));
    labels.save(voc.labels("a")).unwrap();
    let error = open("voc12", &voc.root(), "train")
        .unwrap()
        .load(0)
        .unwrap_err();
    let text = error.to_string();
    let end = "SegmentationClass/a.png: label value 187 at (12, 34); VOC labels are 0..=20 and 255";
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn label_maps_in_colour_are_refused() {
    let voc = TinyVoc::new(&["a"], &["b"]);
    RgbImage::new(48, 36).save(voc.labels("a")).unwrap();
    let error = open("voc12", &voc.root(), "train")
        .unwrap()
        .load(0)
        .unwrap_err();
    assert!(
        matches!(
            &error,
            DataError::Image(ImageError::LabelsInColour { path, .. }) if *path == voc.labels("a")
        ),
        "{error}"
    );
}

/// Makes a folder in COCO-Stuff's layout with one training image; the name of the label file ends in `ending`.
fn tiny_coco(ending: &str, value: u8) -> tempfile::TempDir {
    let folder = tempfile::tempdir().unwrap();
    let images = folder.path().join("images/train2017");
    let labels = folder.path().join("annotations/train2017");
    fs::create_dir_all(&images).unwrap();
    fs::create_dir_all(&labels).unwrap();
    RgbImage::from_pixel(8, 8, Rgb([9, 99, 199]))
        .save(images.join("000000000009.jpg"))
        .unwrap();
    let map = GrayImage::from_fn(8, 8, |x, _| Luma([if x == 0 { 255 } else { value }]));
    map.save(labels.join(format!("000000000009{ending}")))
        .unwrap();
    folder
}

#[test]
fn coco_stuff_has_171_classes() {
    let folder = tiny_coco("_labelTrainIds.png", 170);
    let dataset = open("coco-stuff164k", folder.path(), "train").unwrap();
    assert_eq!(dataset.items[0].id, "000000000009");
    let sample = dataset.load(0).unwrap();
    assert_eq!(sample.labels.get(0, 0), Some(IGNORE_LABEL));
    assert_eq!(sample.labels.get(1, 0), Some(170));

    let folder = tiny_coco("_labelTrainIds.png", 171);
    let dataset = open("coco-stuff164k", folder.path(), "train").unwrap();
    let text = dataset.load(0).unwrap_err().to_string();
    assert!(
        text.ends_with("171 at (1, 0); COCO-Stuff labels are 0..=170 and 255"),
        "{text}"
    );
}

#[test]
fn faulty_coco_stuff_folders_have_specific_errors() {
    let raw = tiny_coco(".png", 3);
    assert!(matches!(
        open("coco-stuff164k", raw.path(), "train"),
        Err(DataError::RawCocoLabels { .. })
    ));
    let text = open("coco-stuff164k", raw.path(), "val")
        .unwrap_err()
        .to_string();
    assert!(text.ends_with("its splits are train"), "{text}");
    assert!(matches!(
        open("coco-stuff164k", &raw.path().join("images"), "train"),
        Err(DataError::RootNotFound { .. })
    ));
    let none = tiny_coco("_other.txt.png", 3);
    fs::remove_dir_all(none.path().join("annotations/train2017")).unwrap();
    fs::create_dir(none.path().join("annotations/train2017")).unwrap();
    assert!(matches!(
        open("coco-stuff164k", none.path(), "train"),
        Err(DataError::MissingFiles { missing: 1, .. })
    ));
}
