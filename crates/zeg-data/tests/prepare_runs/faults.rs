//! Downloads that lack parts or hold damaged ones.

use super::*;

#[test]
fn missing_parts_are_named() {
    let missing = |name: &str, folder: &str, remove: &str| {
        let from = copy_of(folder);
        let path = from.path().join(remove);
        if path.is_dir() {
            fs::remove_dir_all(path).unwrap();
        } else {
            fs::remove_file(path).unwrap();
        }
        match plan(name, from.path()) {
            Ok(plan) => plan.to_string(),
            Err(error) => error.to_string(),
        }
    };
    for (name, folder, remove, named) in [
        ("voc12", "voc", "VOCdevkit", "ImageSets/Segmentation"),
        ("voc12", "voc", "benchmark_RELEASE", "SBD"),
        (
            "voc12",
            "voc",
            "benchmark_RELEASE/dataset/val.txt",
            "list of SBD",
        ),
        (
            "voc12",
            "voc",
            "benchmark_RELEASE/dataset/img",
            "2008_000002",
        ),
        (
            "voc12",
            "voc",
            "VOCdevkit/VOC2012/SegmentationClass",
            "masks (SegmentationClass)",
        ),
        (
            "voc12",
            "voc",
            "benchmark_RELEASE/dataset/cls/2008_000004.mat",
            "2008_000004",
        ),
        (
            "coco-stuff164k",
            "coco",
            "stuffthingmaps",
            "train2017/*.png",
        ),
        ("coco-stuff164k", "coco", "val2017", "val2017.zip"),
        (
            "coco-stuff164k",
            "coco",
            "train2017/000000000025.jpg",
            "000000000025.jpg",
        ),
        (
            "coco-stuff164k",
            "coco",
            "stuffthingmaps/train2017/000000000025.png",
            "000000000025.png",
        ),
        ("pascal-context", "context_json", "VOCdevkit", "JPEGImages"),
        (
            "pascal-context",
            "context_json",
            "trainval_merged.json",
            "trainval/*.mat",
        ),
        (
            "pascal-context",
            "context_mat",
            "VOCdevkit/VOC2010/ImageSets",
            "ImageSets/Main",
        ),
        (
            "ade20k",
            "ade20k",
            "nested/images/training",
            "split training",
        ),
        (
            "ade20k",
            "ade20k",
            "nested/images",
            "annotations/{training,validation}",
        ),
        (
            "ade20k-full",
            "ade_full",
            "ADE20K_2021_17_01/images/ADE/validation",
            "split validation",
        ),
        ("cityscapes", "cityscapes", "gtFine", "gtFine/{train,val}"),
        (
            "cityscapes",
            "cityscapes",
            "leftImg8bit/val",
            "munster_000000_000019",
        ),
    ] {
        let text = missing(name, folder, remove);
        assert!(text.contains(named), "without {remove}: {text}");
    }
}

#[test]
fn the_error_of_an_unknown_name_lists_the_known_ones() {
    let error = plan("voc13", Path::new(".")).unwrap_err().to_string();
    let mut known = datasets::all().filter(|entry| entry.preparation.is_some());
    assert!(known.all(|entry| error.contains(entry.name)), "{error}");
}

/// Damages a file of a copy of a download and returns the reason of the failure.
fn damaged(name: &str, folder: &str, file: &str, damage: impl FnOnce(&Path)) -> String {
    let from = copy_of(folder);
    damage(&from.path().join(file));
    let to = tempfile::tempdir().unwrap();
    let planned = plan(name, from.path()).unwrap();
    let summary = planned.run(to.path(), &options(), &go_on).unwrap();
    let stop = PrepareOptions {
        on_bad: OnBad::Stop,
        ..options()
    };
    let error = planned
        .run(&to.path().join("again"), &stop, &go_on)
        .unwrap_err();
    let [failure] = summary.failed.as_slice() else {
        panic!("{:?}", summary.failed)
    };
    assert!(!to.path().join(&failure.file).exists());
    assert_eq!(error.to_string(), failure.reason);
    failure.reason.clone()
}

#[test]
fn bad_files_are_reported_and_leave_no_result() {
    let cls = "benchmark_RELEASE/dataset/cls/2008_000001.mat";
    let cut = |path: &Path| {
        let bytes = fs::read(path).unwrap();
        fs::write(path, &bytes[..bytes.len() / 2]).unwrap();
    };
    let reason = damaged("voc12", "voc", cls, cut);
    assert!(
        reason.contains("2008_000001.mat: the file is cut off"),
        "{reason}"
    );
    let reason = damaged("voc12", "voc", cls, |path| {
        fs::copy(path.with_file_name("../img/2008_000002.jpg"), path).unwrap();
    });
    assert!(reason.contains("not a MATLAB 5 file"), "{reason}");

    let mask = "stuffthingmaps/train2017/000000000025.png";
    let reason = damaged("coco-stuff164k", "coco", mask, |path| {
        image::GrayImage::from_fn(20, 10, |x, y| {
            image::Luma([if (x, y) == (3, 2) { 90 } else { 5 }])
        })
        .save(path)
        .unwrap();
    });
    assert!(
        reason.contains("000000000025.png: label value 90 at (3, 2)"),
        "{reason}"
    );
    let reason = damaged("coco-stuff164k", "coco", mask, |path| {
        image::GrayImage::new(10, 20).save(path).unwrap();
    });
    assert!(
        reason.contains("20×10") && reason.contains("10×20"),
        "{reason}"
    );

    let mask = "VOCdevkit/VOC2012/SegmentationClass/2007_000002.png";
    let reason = damaged("voc12", "voc", mask, |path| {
        image::RgbImage::from_pixel(23, 17, image::Rgb([1, 2, 3]))
            .save(path)
            .unwrap();
    });
    assert!(reason.contains("colour [1, 2, 3] at (0, 0)"), "{reason}");

    let json = "trainval_merged.json";
    let replace = |from: &'static str, to: &'static str| {
        move |path: &Path| {
            let text = fs::read_to_string(path).unwrap();
            assert!(text.contains(from));
            fs::write(path, text.replacen(from, to, 1)).unwrap();
        }
    };
    let reason = damaged(
        "pascal-context",
        "context_json",
        json,
        replace("[17, 23]", "[23, 17]"),
    );
    assert!(
        reason.contains("23×17") && reason.contains("17×23"),
        "{reason}"
    );
    let reason = damaged(
        "pascal-context",
        "context_json",
        json,
        replace("\"category_id\": 7", "\"category_id\": 460"),
    );
    assert!(reason.contains("category 460"), "{reason}");
    let polygons = replace("\"counts\": \"", "\"polygons\": \"");
    let reason = damaged("pascal-context", "context_json", json, polygons);
    assert!(reason.contains("not given as run lengths"), "{reason}");
}

#[test]
fn ids_that_lead_out_of_the_folder_are_refused() {
    let from = copy_of("voc");
    let list = from.path().join("benchmark_RELEASE/dataset/train.txt");
    fs::write(list, "2008_000001\n../../../etc/passwd\n").unwrap();
    let error = plan("voc12", from.path()).unwrap_err();
    assert!(
        matches!(error, PrepareError::IllegalId { line: 2, .. }),
        "{error}"
    );
}

#[test]
#[cfg(unix)]
fn an_unwritable_result_ends_the_conversion() {
    let to = tempfile::tempdir().unwrap();
    let planned = plan("voc12", &download("voc")).unwrap();
    fs::write(
        to.path().join("JPEGImages"),
        "a file where a folder is needed",
    )
    .unwrap();
    let error = planned.run(to.path(), &options(), &go_on).unwrap_err();
    assert!(matches!(error, PrepareError::Unwritable { .. }), "{error}");
}

#[test]
fn an_image_that_is_listed_twice_is_made_once() {
    let from = copy_of("voc");
    let list = from
        .path()
        .join("VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt");
    fs::write(list, "2007_000003\n2007_000001\n2007_000003\n").unwrap();
    let files = plan("voc12", from.path()).unwrap().files();
    assert_eq!(files, plan("voc12", &download("voc")).unwrap().files());
}

#[test]
fn two_images_with_the_same_name_are_refused() {
    let from = copy_of("ade_full");
    let validation = from
        .path()
        .join("ADE20K_2021_17_01/images/ADE/validation/home_or_hotel");
    fs::create_dir(validation.join("attic")).unwrap();
    fs::copy(
        validation.join("bedroom/ADE_val_00000001.jpg"),
        validation.join("attic/ADE_val_00000001.jpg"),
    )
    .unwrap();
    let error = plan("ade20k-full", from.path()).unwrap_err();
    assert!(matches!(error, PrepareError::SameName { .. }), "{error}");
}
