//! Tests of the conversion of official formats, which compare every value of the label maps.
//!
//! The downloads and the expected values come from `reference/prepare_formats.py`.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the test functions; a failure is a failed test"
)]

mod prepare_common;

use std::fs;
use std::path::Path;

use prepare_common::{contents, download, go_on, options, prepare};
use zeg_data::prepare::{ImagePlacement, PrepareOptions, Summary, plan};
use zeg_image::{IGNORE_LABEL, LabelMap, decode_labels, decode_rgb, image_size};

/// Reads a label map whose ignore index is `ignore`: 255 in 8-bit files, 65535 in 16-bit files.
fn read(path: &Path, ignore: u16) -> LabelMap {
    let mut map = decode_labels(path).unwrap();
    for label in map.labels_mut() {
        if *label == ignore {
            *label = IGNORE_LABEL;
        }
    }
    map
}

/// Compares every label map that the script expects of a download; returns their number.
fn compare(name: &str, to: &Path, ignore: u16) -> usize {
    let expected = fs::read_to_string(download("expected.json")).unwrap();
    let expected: serde_json::Value = serde_json::from_str(&expected).unwrap();
    let files = expected[name].as_object().unwrap();
    for (file, map) in files {
        let number = |value: &serde_json::Value| value.as_u64().unwrap() as usize;
        let labels = map["labels"].as_array().unwrap();
        let expected = LabelMap::new(
            number(&map["width"]),
            number(&map["height"]),
            labels.iter().map(|label| number(label) as u16).collect(),
        )
        .unwrap();
        assert!(read(&to.join(file), ignore) == expected, "{file} of {name}");
    }
    files.len()
}

fn converted(name: &str, folder: &str, ignore: u16) -> (tempfile::TempDir, Summary) {
    let before = contents(&download(folder));
    let to = tempfile::tempdir().unwrap();
    let summary = prepare(name, &download(folder), to.path());
    assert!(compare(folder, to.path(), ignore) >= 2);
    assert_eq!(
        contents(&download(folder)),
        before,
        "the download was changed"
    );
    (to, summary)
}

fn lines(path: &Path) -> Vec<String> {
    fs::read_to_string(path)
        .unwrap()
        .lines()
        .map(str::to_owned)
        .collect()
}

#[test]
fn voc_with_sbd() {
    let (to, summary) = converted("voc12", "voc", 255);
    // 4 MATLAB structs and 1 mask in colour; 7 images and 2 masks of indices are linked.
    assert_eq!(
        (summary.converted, summary.linked, summary.skipped),
        (5, 9, 0)
    );
    let list = |name: &str| lines(&to.path().join("ImageSets/Segmentation").join(name));
    let aug = ["2008_000001", "2008_000002", "2008_000003", "2008_000004"];
    assert_eq!(list("aug.txt"), aug); // without 2007_000003, which is in VOC's val
    assert_eq!(list("train.txt"), ["2007_000001", "2007_000002"]);
    assert_eq!(
        list("train_aug.txt"),
        [&["2007_000001", "2007_000002"], &aug[..]].concat()
    );
    assert_eq!(list("val.txt"), ["2007_000003"]);
    assert_eq!(list("trainval.txt").len(), 3);
    assert_eq!(summary.lists, 5);
    assert!(to.path().join("JPEGImages/2008_000004.jpg").is_file()); // from SBD's own images
    let official: Vec<_> = summary
        .splits
        .iter()
        .map(|split| (split.split, split.official))
        .collect();
    assert_eq!(
        official,
        [
            ("train", 1464),
            ("val", 1449),
            ("trainval", 2913),
            ("aug", 9118),
            ("train_aug", 10582)
        ]
    );
}

#[test]
fn voc_with_a_converted_folder_of_masks() {
    // The result of the first preparation has the form of the widely circulated folder of PNGs.
    let (first, _) = converted("voc12", "voc", 255);
    let to = tempfile::tempdir().unwrap();
    let plan = plan("voc12", first.path()).unwrap();
    assert!(
        plan.to_string().contains("converted masks of SBD"),
        "{plan}"
    );
    let summary = plan.run(to.path(), &options(), &go_on).unwrap();
    assert_eq!((summary.converted, summary.failed.len()), (0, 0));
    assert_eq!(compare("voc", to.path(), 255), 7);
    assert_eq!(contents(first.path()), contents(to.path()));
}

#[test]
fn coco_stuff() {
    let (_to, summary) = converted("coco-stuff164k", "coco", 255);
    assert_eq!((summary.converted, summary.linked), (3, 3));
    assert_eq!(summary.splits[0].images, 2);
    assert_eq!(summary.splits[1].official, 5000);
}

#[test]
fn pascal_context_from_run_lengths() {
    let (to, summary) = converted("pascal-context", "context_json", 255);
    assert_eq!((summary.converted, summary.linked), (3, 3));
    let list = |name: &str| lines(&to.path().join("ImageSets/SegmentationContext").join(name));
    assert_eq!(list("train.txt"), ["2008_000002"]);
    assert_eq!(list("val.txt"), ["2008_000003", "2008_000007"]);
    assert_eq!(summary.splits[0].official, 4998);
    assert_eq!(summary.splits[1].official, 5105);
}

#[test]
fn pascal_context_from_matlab_files() {
    let (to, summary) = converted("pascal-context", "context_mat", 255);
    assert_eq!(summary.converted, 3);
    let list = to.path().join("ImageSets/SegmentationContext/train.txt");
    assert_eq!(lines(&list), ["2008_000002"]); // VOC's list except the image that has no mask
}

#[test]
fn pascal_context_from_pngs_of_all_ids() {
    converted("pascal-context", "context_png", 255);
    let plan = plan("pascal-context", &download("context_png")).unwrap();
    assert!(
        plan.findings().iter().any(|text| text.contains("459 ids")),
        "{plan}"
    );
}

#[test]
fn pascal_context_in_the_order_of_the_release() {
    converted("pascal-context", "context_release", 255);
    let plan = plan("pascal-context", &download("context_release")).unwrap();
    assert!(
        plan.findings()
            .iter()
            .any(|text| text.contains("59_labels.txt")),
        "{plan}"
    );
}

#[test]
fn ade20k_is_linked_unchanged() {
    let (to, summary) = converted("ade20k", "ade20k", 255);
    assert_eq!((summary.converted, summary.linked), (0, 4));
    assert!(
        to.path()
            .join("images/training/ADE_train_00000001.jpg")
            .is_file()
    );
}

#[test]
fn ade20k_full() {
    let (to, summary) = converted("ade20k-full", "ade_full", IGNORE_LABEL);
    // 3 label maps and 2 images of more than 24 pixels; the third is linked.
    assert_eq!((summary.converted, summary.linked), (5, 1));
    let image_file = to
        .path()
        .join("images_detectron2/training/ADE_train_00000001.jpg");
    assert_eq!(image_size(&image_file).unwrap(), (36, 24));
    // The colours are those of the original, up to the errors of JPEG and of resizing.
    let original = download("ade_full/ADE20K_2021_17_01/images/ADE/training/urban/street");
    let original = decode_rgb(&original.join("ADE_train_00000001.jpg")).unwrap();
    let small = decode_rgb(&image_file).unwrap();
    for (x, y) in [(3, 3), (30, 4), (18, 12), (33, 20)] {
        let (from, to) = (
            original.get_pixel(x * 5 / 3, y * 5 / 3),
            small.get_pixel(x, y),
        );
        for channel in 0..3 {
            assert!(from[channel].abs_diff(to[channel]) < 24, "{from:?} {to:?}");
        }
    }
    let labels = to
        .path()
        .join("annotations_detectron2/training/ADE_train_00000001.png");
    assert_eq!(image::open(labels).unwrap().color(), image::ColorType::L16);
}

#[test]
fn ade20k_full_without_shrinking() {
    let to = tempfile::tempdir().unwrap();
    let keep = PrepareOptions {
        shrink: None,
        ..options()
    };
    let plan = plan("ade20k-full", &download("ade_full")).unwrap();
    let file = to
        .path()
        .join("annotations_detectron2/training/ADE_train_00000001.png");
    let summary = plan.run(to.path(), &keep, &go_on).unwrap();
    assert_eq!((summary.converted, summary.linked), (3, 3));
    assert_eq!(image_size(&file).unwrap(), (60, 40));
    // A result of another size does not count as already made.
    let summary = plan.run(to.path(), &options(), &go_on).unwrap();
    assert_eq!((summary.converted, summary.skipped), (4, 2));
    assert_eq!(compare("ade_full", to.path(), IGNORE_LABEL), 3);
    let summary = plan.run(to.path(), &keep, &go_on).unwrap();
    assert_eq!(
        (summary.converted, summary.linked, summary.skipped),
        (2, 2, 2)
    );
    assert_eq!(image_size(&file).unwrap(), (60, 40));
}

#[test]
fn cityscapes() {
    let (to, summary) = converted("cityscapes", "cityscapes", 255);
    assert_eq!((summary.converted, summary.linked), (2, 2));
    assert!(
        to.path()
            .join("leftImg8bit/train/aachen/aachen_000000_000019_leftImg8bit.png")
            .is_file()
    );
}

#[test]
fn copies_are_regular_files() {
    let to = tempfile::tempdir().unwrap();
    let copies = PrepareOptions {
        images: ImagePlacement::Copy,
        ..options()
    };
    let plan = plan("voc12", &download("voc")).unwrap();
    let summary = plan.run(to.path(), &copies, &go_on).unwrap();
    assert_eq!((summary.copied, summary.linked), (9, 0));
    let summary = plan.run(to.path(), &copies, &go_on).unwrap();
    assert_eq!((summary.copied, summary.skipped), (0, 14));
    let image_file = to.path().join("JPEGImages/2007_000001.jpg");
    assert!(!fs::symlink_metadata(image_file).unwrap().is_symlink());
    assert_eq!(compare("voc", to.path(), 255), 7);
}

#[test]
#[cfg(unix)]
fn copies_replace_links() {
    let to = tempfile::tempdir().unwrap();
    prepare("voc12", &download("voc"), to.path());
    let copies = PrepareOptions {
        images: ImagePlacement::Copy,
        ..options()
    };
    let plan = plan("voc12", &download("voc")).unwrap();
    let summary = plan.run(to.path(), &copies, &go_on).unwrap();
    assert_eq!((summary.copied, summary.skipped), (9, 5));
    let image_file = to.path().join("JPEGImages/2007_000001.jpg");
    assert!(!fs::symlink_metadata(image_file).unwrap().is_symlink());
}

/// Returns a folder of real files; if there is none, prints so and returns `None`.
fn sample(name: &str) -> Option<std::path::PathBuf> {
    use std::io::Write;
    let sample = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../../shared/data")
        .join(name);
    if !sample.is_dir() {
        // Written directly to standard error, because the test harness captures `eprintln!`.
        let line = format!("skipped: no real files at {}\n", sample.display());
        std::io::stderr().write_all(line.as_bytes()).unwrap();
        return None;
    }
    Some(sample)
}

#[test]
fn real_voc() {
    let Some(sample) = sample("voc2012_mini") else {
        return;
    };
    let to = tempfile::tempdir().unwrap();
    let plan = plan("voc12", &sample).unwrap();
    assert_eq!(plan.missing()[0].what, "SBD");
    assert_eq!(plan.splits()[0].images, 311);
    assert_eq!(plan.splits()[1].images, 240);
    let summary = plan.run(to.path(), &options(), &go_on).unwrap();
    assert_eq!((summary.linked, summary.failed), (2 * (311 + 240), vec![]));
    // The masks are links to those of the archive.
    let ids = lines(&to.path().join("ImageSets/Segmentation/train.txt"));
    let mask = format!("SegmentationClass/{}.png", ids[0]);
    assert_eq!(
        fs::canonicalize(to.path().join(&mask)).unwrap(),
        fs::canonicalize(sample.join("VOCdevkit/VOC2012").join(mask)).unwrap()
    );
}

#[test]
fn real_pascal_context() {
    let Some(sample) = sample("context_sample") else {
        return;
    };
    let to = tempfile::tempdir().unwrap();
    let plan = plan("pascal-context", &sample).unwrap();
    assert!(
        plan.to_string().contains("value 59 in 2008_008376.png"),
        "{plan}"
    );
    let summary = plan.run(to.path(), &options(), &go_on).unwrap();
    assert_eq!((summary.converted, summary.linked), (0, 8));
    assert_eq!(summary.splits[0].images, 4);
}

#[test]
fn real_ade20k() {
    let Some(sample) = sample("ade20k_sample") else {
        return;
    };
    let to = tempfile::tempdir().unwrap();
    let summary = prepare("ade20k", &sample, to.path());
    assert_eq!((summary.converted, summary.linked), (0, 7)); // and objectInfo150.txt
}

/// Expected numbers by numpy on the raw files: `a = np.array(Image.open(f)); np.unique(a, return_counts=True)`; the
/// names of ids are those of `labels.txt`.
#[test]
fn real_coco_stuff() {
    let Some(sample) = sample("cocostuff_sample") else {
        return;
    };
    let to = tempfile::tempdir().unwrap();
    let summary = prepare("coco-stuff164k", &sample, to.path());
    assert_eq!((summary.converted, summary.linked), (21, 21));
    let names = fs::read_to_string(sample.join("labels.txt")).unwrap();
    let names: Vec<&str> = names
        .lines()
        .filter_map(|line| Some(line.split_once(": ")?.1))
        .collect();
    let classes = zeg_vocab::classes::ClassSet::by_name("coco-stuff171").unwrap();
    for split in ["train2017", "val2017"] {
        for (file, _) in contents(&sample.join("annotations").join(split)) {
            let raw = decode_labels(&sample.join("annotations").join(split).join(&file)).unwrap();
            let made = format!(
                "{}_labelTrainIds.png",
                file.file_stem().unwrap().to_str().unwrap()
            );
            let made =
                decode_labels(&to.path().join("annotations").join(split).join(made)).unwrap();
            for (&raw, &class) in raw.labels().iter().zip(made.labels()) {
                if raw == 255 {
                    assert_eq!(class, 255);
                } else {
                    // The ids of labels.txt are one higher, because its id 0 is "unlabeled".
                    assert_eq!(
                        classes.classes[usize::from(class)],
                        names[usize::from(raw) + 1]
                    );
                }
            }
        }
    }
    let made = to
        .path()
        .join("annotations/val2017/000000000139_labelTrainIds.png");
    let made = decode_labels(&made).unwrap();
    let count = |class: u16| {
        made.labels()
            .iter()
            .filter(|&&label| label == class)
            .count()
    };
    assert_eq!(REAL_139.map(|(class, _)| (class, count(class))), REAL_139);
}

/// Train ids and numbers of pixels of 000000000139.png, by the command at [`real_coco_stuff`].
const REAL_139: [(u16, usize); 5] = [
    (0, 3279),
    (56, 5413),
    (106, 49754),
    (160, 83201),
    (255, 1960),
];
