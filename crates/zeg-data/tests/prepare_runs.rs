//! Tests of conversions that are repeated, stopped or made in place, and of damaged and incomplete downloads.
//!
//! The file is long because it tests every behaviour on all six data sets with the same few helpers.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the test functions; a failure is a failed test"
)]

mod prepare_common;

use std::fs;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use prepare_common::{contents, copy_of, download, go_on, options, prepare, times};
use proptest::prelude::*;
use proptest::sample::Index;
use zeg_data::datasets;
use zeg_data::prepare::{ImagePlacement, OnBad, PrepareError, PrepareOptions, Progress, plan};

/// Every conversion with its tiny download.
const ALL: [(&str, &str); 9] = [
    ("voc12", "voc"),
    ("coco-stuff164k", "coco"),
    ("pascal-context", "context_json"),
    ("pascal-context", "context_mat"),
    ("pascal-context", "context_png"),
    ("pascal-context", "context_release"),
    ("ade20k", "ade20k"),
    ("ade20k-full", "ade_full"),
    ("cityscapes", "cityscapes"),
];

#[test]
fn repeating_a_conversion_converts_nothing() {
    for (name, folder) in ALL {
        let to = tempfile::tempdir().unwrap();
        let first = prepare(name, &download(folder), to.path());
        let before = times(to.path());
        let second = prepare(name, &download(folder), to.path());
        assert_eq!(
            (second.converted, second.linked, second.copied, second.lists),
            (0, 0, 0, 0)
        );
        assert_eq!(second.skipped, first.converted + first.linked, "{name}");
        assert_eq!(times(to.path()), before, "{name}");
    }
}

#[test]
fn a_stopped_conversion_is_continued() {
    for (name, folder) in ALL {
        let whole = tempfile::tempdir().unwrap();
        let all = prepare(name, &download(folder), whole.path());
        let expected = contents(whole.path());
        let files = all.converted + all.linked;
        for stop_after in 1..files {
            let to = tempfile::tempdir().unwrap();
            let plan = plan(name, &download(folder)).unwrap();
            let stop = |progress: Progress| {
                assert_eq!(progress.total, files);
                if progress.done >= stop_after {
                    ControlFlow::Break(())
                } else {
                    ControlFlow::Continue(())
                }
            };
            let stopped = plan.run(to.path(), &options(), &stop).unwrap();
            assert!(stopped.stopped);
            assert_eq!(stopped.lists, 0);
            let made = contents(to.path());
            assert!(
                made.len() >= stop_after && made.len() <= stop_after + 1,
                "{name}"
            );
            // All existing files are complete, and no temporary file is left.
            assert!(
                made.iter()
                    .all(|(file, bytes)| expected.get(file) == Some(bytes)),
                "{name}"
            );
            let rest = prepare(name, &download(folder), to.path());
            assert!(!rest.stopped);
            assert_eq!(rest.skipped, made.len());
            assert_eq!(contents(to.path()), expected, "{name} after {stop_after}");
        }
    }
}

#[test]
fn a_result_older_than_its_source_is_made_again() {
    let to = tempfile::tempdir().unwrap();
    let from = copy_of("coco");
    prepare("coco-stuff164k", from.path(), to.path());
    let mask = from
        .path()
        .join("stuffthingmaps/train2017/000000000025.png");
    let later = SystemTime::now() + Duration::from_mins(1);
    fs::File::options()
        .write(true)
        .open(mask)
        .unwrap()
        .set_modified(later)
        .unwrap();
    let again = prepare("coco-stuff164k", from.path(), to.path());
    assert_eq!((again.converted, again.skipped), (1, 5));
}

#[test]
fn a_download_may_be_prepared_in_its_own_folder() {
    for (name, folder, target) in [
        ("voc12", "voc", "VOCdevkit/VOC2012"),
        ("coco-stuff164k", "coco", ""),
        ("pascal-context", "context_json", "VOCdevkit/VOC2010"),
        ("pascal-context", "context_mat", "VOCdevkit/VOC2010"),
        ("ade20k", "ade20k", "nested"),
        ("ade20k-full", "ade_full", "ADE20K_2021_17_01"),
        ("cityscapes", "cityscapes", ""),
    ] {
        let from = copy_of(folder);
        if name == "voc12" {
            // Otherwise its converted form would replace the file in colour.
            fs::copy(
                from.path()
                    .join("VOCdevkit/VOC2012/SegmentationClass/2007_000001.png"),
                from.path()
                    .join("VOCdevkit/VOC2012/SegmentationClass/2007_000002.png"),
            )
            .unwrap();
        }
        let before = contents(from.path());
        prepare(name, from.path(), &from.path().join(target));
        let after = contents(from.path());
        assert!(
            before
                .iter()
                .all(|(file, bytes)| after.get(file) == Some(bytes)),
            "{name}"
        );
        let again = prepare(name, from.path(), &from.path().join(target));
        assert_eq!(again.converted, 0, "{name}");
    }
}

#[test]
fn files_of_the_download_are_never_replaced() {
    // The label maps of 459 ids have the paths of the label maps of 60 classes.
    let from = copy_of("context_png");
    let before = contents(from.path());
    let planned = plan("pascal-context", from.path()).unwrap();
    let to = from.path().join("VOCdevkit/VOC2010");
    let error = planned.run(&to, &options(), &go_on).unwrap_err();
    assert!(
        matches!(error, PrepareError::WouldReplaceSource { .. }),
        "{error}"
    );
    assert_eq!(contents(from.path()), before);

    // The mask in colour is only recognised when it is read.
    let from = copy_of("voc");
    let before = contents(from.path());
    let planned = plan("voc12", from.path()).unwrap();
    let summary = planned
        .run(&from.path().join("VOCdevkit/VOC2012"), &options(), &go_on)
        .unwrap();
    let [failure] = summary.failed.as_slice() else {
        panic!("{:?}", summary.failed)
    };
    assert!(
        failure
            .reason
            .contains("the result would replace this file"),
        "{failure:?}"
    );
    let after = contents(from.path());
    assert!(
        before
            .iter()
            .all(|(file, bytes)| after.get(file) == Some(bytes))
    );
}

#[test]
fn files_of_the_user_are_never_replaced() {
    let planned = plan("voc12", &download("voc")).unwrap();
    for file in [
        "JPEGImages/2007_000001.jpg",
        "SegmentationClass/2007_000001.png",
        "SegmentationClassAug/2008_000001.png",
        "ImageSets/Segmentation/train.txt",
    ] {
        let to = tempfile::tempdir().unwrap();
        let path = to.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, "mine").unwrap();
        let error = planned.run(to.path(), &options(), &go_on).unwrap_err();
        assert!(
            matches!(&error, PrepareError::Occupied { path: named } if *named == path),
            "{file}: {error}"
        );
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
        assert_eq!(contents(to.path()).len(), 1, "{file}");
    }
}

#[test]
#[cfg(unix)]
fn files_of_the_download_are_not_replaced_through_a_linked_folder() {
    // The result's folder of masks is a link to a folder of the download.
    let from = copy_of("context_png");
    let before = contents(from.path());
    let to = tempfile::tempdir().unwrap();
    std::os::unix::fs::symlink(
        from.path()
            .join("VOCdevkit/VOC2010/SegmentationClassContext"),
        to.path().join("SegmentationClassContext"),
    )
    .unwrap();
    let planned = plan("pascal-context", from.path()).unwrap();
    let error = planned.run(to.path(), &options(), &go_on).unwrap_err();
    assert!(
        matches!(error, PrepareError::WouldReplaceSource { .. }),
        "{error}"
    );
    assert_eq!(contents(from.path()), before);
}

#[test]
#[cfg(unix)]
fn links_in_the_download_stay_links() {
    let from = copy_of("voc");
    let image_file = from
        .path()
        .join("VOCdevkit/VOC2012/JPEGImages/2007_000003.jpg");
    fs::rename(&image_file, from.path().join("elsewhere.jpg")).unwrap();
    std::os::unix::fs::symlink("../../../elsewhere.jpg", &image_file).unwrap();
    let copies = PrepareOptions {
        images: ImagePlacement::Copy,
        ..options()
    };
    let planned = plan("voc12", from.path()).unwrap();
    let to = from.path().join("VOCdevkit/VOC2012");
    let summary = planned.run(&to, &copies, &go_on).unwrap();
    assert_eq!(summary.failed.len(), 1); // the mask in colour
    assert_eq!(
        fs::read_link(&image_file).unwrap(),
        Path::new("../../../elsewhere.jpg")
    );
    let to = tempfile::tempdir().unwrap();
    planned.run(to.path(), &copies, &go_on).unwrap();
    let copy = to.path().join("JPEGImages/2007_000003.jpg");
    assert!(fs::symlink_metadata(copy).unwrap().is_file());
}

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

#[test]
fn context_labels_without_background_are_recognised_by_255() {
    let from = copy_of("context_png");
    let voc = from.path().join("VOCdevkit/VOC2010");
    fs::remove_dir_all(voc.join("SegmentationClassContext")).unwrap();
    fs::create_dir(voc.join("SegmentationClassContext")).unwrap();
    let save = |number: usize| {
        let file = |folder: &str, ending: &str| {
            voc.join(folder).join(format!("2010_{number:06}.{ending}"))
        };
        image::GrayImage::from_raw(4, 1, vec![0, 58, 255, number as u8])
            .unwrap()
            .save(file("SegmentationClassContext", "png"))
            .unwrap();
        image::RgbImage::new(4, 1)
            .save(file("JPEGImages", "jpg"))
            .unwrap();
    };
    (0..5).for_each(save);
    let error = plan("pascal-context", from.path()).unwrap_err();
    assert!(matches!(error, PrepareError::Ambiguous { .. }), "{error}");
    (5..30).for_each(save);
    let to = tempfile::tempdir().unwrap();
    let summary = prepare("pascal-context", from.path(), to.path());
    assert_eq!(summary.converted, 30);
    let made = to.path().join("SegmentationClassContext/2010_000007.png");
    assert_eq!(
        zeg_image::decode_labels(&made).unwrap().labels(),
        [1, 59, 0, 8]
    );
}

/// Overwrites some bytes of a file and may cut it.
fn scramble(path: &Path, flips: &[(Index, u8)], cut: Option<Index>) {
    let mut bytes = fs::read(path).unwrap();
    for (index, value) in flips {
        let index = index.index(bytes.len());
        bytes[index] = *value;
    }
    if let Some(cut) = cut {
        bytes.truncate(cut.index(bytes.len()));
    }
    fs::write(path, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn a_damaged_file_does_not_stop_the_others(
        which in 0..ALL.len(),
        file in any::<Index>(),
        flips in prop::collection::vec((any::<Index>(), any::<u8>()), 1..8),
        cut in prop::option::of(any::<Index>()),
    ) {
        let (name, folder) = ALL[which];
        let from = copy_of(folder);
        let files: Vec<PathBuf> = contents(from.path()).into_keys().collect();
        scramble(&from.path().join(file.get(&files)), &flips, cut);
        let to = tempfile::tempdir().unwrap();
        if let Ok(planned) = plan(name, from.path()) {
            // The other files are made, unless the damaged file is one that is needed for all of them.
            let result = planned.run(to.path(), &options(), &go_on);
            let harm = matches!(result, Err(PrepareError::Threads { .. } | PrepareError::Unwritable { .. }));
            prop_assert!(!harm, "{:?}", result);
        }
        prop_assert!(!contents(to.path()).keys().any(|file| file.to_string_lossy().contains(".zeg-")));
    }

    #[test]
    fn damaged_annotations_do_not_panic(
        flips in prop::collection::vec((any::<Index>(), 32_u8..127), 1..4),
        cut in prop::option::of(any::<Index>()),
    ) {
        let from = copy_of("context_json");
        scramble(&from.path().join("trainval_merged.json"), &flips, cut);
        let to = tempfile::tempdir().unwrap();
        if let Ok(planned) = plan("pascal-context", from.path()) {
            let _ = planned.run(to.path(), &options(), &go_on);
        }
    }
}
