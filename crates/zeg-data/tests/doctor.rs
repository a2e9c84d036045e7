//! Tests of the doctor: a faultless data set has no problems, and every fault is found with its code and its file.
//!
//! Each fault is planted in a small synthetic VOC, and in 30 real images if the excerpt exists beside the repository.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the test functions; a failure is a failed test"
)]

mod common;
#[path = "doctor/descriptions.rs"]
mod descriptions;
#[path = "doctor/files.rs"]
mod files;
#[path = "common/healthy_voc.rs"]
mod healthy_voc;
#[path = "doctor/labels.rs"]
mod labels;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::shared_data;
use healthy_voc::{OPTIONS, find, grey, healthy_vocs, names, problems, synthetic};
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, GrayImage, ImageBuffer, Luma, Rgb, RgbImage, Rgba, RgbaImage};
use proptest::prelude::*;

use zeg_data::{DataError, Diagnosis, DoctorOptions, Selection, Severity, Verdict, examine};
use zeg_image::decode_labels;

use Severity::{Error, Note, Warning};

const MASKS: &str = "name = 'gut'\nimages = 'images/validation/{id}.jpg'\nlabels = 'annotations/validation/{id}.png'\n";

/// Examines any data set with its default classes.
fn examine_in(dataset: &str, root: &Path, split: &str) -> Diagnosis {
    let selection = Selection {
        dataset,
        root,
        split,
        classes: None,
        unseen: None,
    };
    examine(&selection, &OPTIONS, &|_, _| {}).unwrap()
}

#[test]
fn a_faultless_part_of_voc_is_only_reported_as_a_part() {
    for voc in healthy_vocs() {
        for split in ["train", "val"] {
            let diagnosis = voc.examine(split);
            assert_eq!(
                problems(&diagnosis),
                ["not-the-official-split"],
                "{diagnosis:#?}"
            );
            assert_eq!(diagnosis.verdict(), Verdict::Suspicious);
        }
        let diagnosis = voc.examine("train");
        let finding = find(&diagnosis, "not-the-official-split");
        assert!(finding.message.contains(&format!(
            "{} images here, but 1464 officially",
            voc.train.len()
        )));
        assert!(finding.message.contains("not comparable"));
        let listed = voc.root.join("mine.txt");
        fs::write(&listed, voc.train.join("\n")).unwrap();
        let selection = voc.select(listed.to_str().unwrap(), "voc20");
        let diagnosis = examine(&selection, &OPTIONS, &|_, _| {}).unwrap();
        assert_eq!(diagnosis.verdict(), Verdict::Healthy, "{diagnosis:#?}");
    }
}

/// The counts of the 311 training label maps of the excerpt, by Pillow 13.0.0 and numpy 2.4.6:
/// `np.bincount(np.concatenate([np.array(Image.open(f)).ravel() for f in files]), minlength=256)`.
#[test]
fn the_excerpt_of_voc_has_no_faults_and_the_counts_of_numpy() {
    let Some(root) = shared_data("voc2012_mini/VOCdevkit/VOC2012") else {
        return;
    };
    let diagnosis = examine_in("voc12", &root, "train");
    assert_eq!(
        problems(&diagnosis),
        ["not-the-official-split"],
        "{diagnosis:#?}"
    );
    assert_eq!((diagnosis.images, diagnosis.examined), (311, 311));
    let pixels: Vec<u64> = diagnosis.classes.iter().map(|class| class.pixels).collect();
    assert_eq!(pixels, MINI_TRAIN.map(|(pixels, _)| pixels));
    let images: Vec<u64> = diagnosis.classes.iter().map(|class| class.images).collect();
    assert_eq!(images, MINI_TRAIN.map(|(_, images)| images));
    assert_eq!(diagnosis.ignored_pixels, MINI_TRAIN_IGNORED);
}

/// Pixels and images of every class.
const MINI_TRAIN: [(u64, u64); 20] = [
    (386480, 22),
    (236266, 18),
    (763171, 22),
    (346817, 17),
    (326885, 22),
    (999211, 19),
    (592422, 26),
    (1310647, 22),
    (473000, 35),
    (368952, 16),
    (866097, 24),
    (412382, 17),
    (333814, 20),
    (793368, 21),
    (3451839, 131),
    (191284, 19),
    (631839, 14),
    (387479, 19),
    (753112, 18),
    (579349, 26),
];
/// Pixels of the values 0 and 255.
const MINI_TRAIN_IGNORED: u64 = 41481929;

#[test]
fn mixed_storage_and_a_limit_are_noted() {
    for voc in healthy_vocs() {
        let id = &voc.train[0];
        let map = decode_labels(&voc.labels(id)).unwrap();
        zeg_image::write_indexed_png(&voc.labels(id), &map, &[[0; 3]]).unwrap();
        let other = &voc.train[1];
        voc.relabel(other, |value| value as u8);
        if voc.train.len() >= 20 {
            assert_eq!(find(&voc.examine("train"), "mixed-storage").severity, Note);
        }
        fs::remove_file(voc.labels(voc.train.last().unwrap())).unwrap();
        let options = DoctorOptions {
            limit: Some(3),
            ..OPTIONS
        };
        let diagnosis = examine(&voc.select("train", "voc20"), &options, &|_, _| {}).unwrap();
        assert_eq!((diagnosis.examined, diagnosis.images), (3, voc.train.len()));
        assert_eq!(find(&diagnosis, "limited").count, voc.train.len() - 3);
        // Missing files are found beyond the limit, too.
        assert_eq!(find(&diagnosis, "missing-labels").count, 1);
    }
}

#[test]
fn the_findings_do_not_depend_on_the_number_of_threads() {
    for voc in healthy_vocs() {
        for id in voc.train.iter().step_by(2) {
            fs::write(voc.image(id), "").unwrap();
            voc.relabel(id, |value| value as u8 + u8::from(value < 200) * 30);
        }
        let examined = |threads| {
            let done = AtomicUsize::new(0);
            let options = DoctorOptions { threads, ..OPTIONS };
            let diagnosis = examine(&voc.select("train", "voc20"), &options, &|part, all| {
                assert!(part >= 1 && part <= all);
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), voc.train.len());
            diagnosis.unwrap()
        };
        let one = examined(1);
        assert_eq!(one, examined(2));
        assert_eq!(one, examined(5));
    }
}

#[test]
fn reports_are_json_and_tables() {
    let voc = synthetic();
    fs::remove_file(voc.labels(&voc.train[1])).unwrap();
    let diagnosis = voc.examine("train");
    let json = serde_json::to_value(&diagnosis).unwrap();
    assert_eq!(json["verdict"], "broken");
    assert_eq!(json["findings"][0]["code"], "missing-labels");
    assert_eq!(json["findings"][0]["severity"], "error");
    assert_eq!(json["classes"][15]["name"], "pottedplant");
    let table = diagnosis.to_table();
    for part in [
        "VOC, split train, class list voc20: 12 images (officially 1464)",
        "pottedplant",
        "missing-labels",
        "1 error, 1 warning, ",
        "broken: correct the errors",
    ] {
        assert!(table.contains(part), "{part} in {table}");
    }
}

#[test]
fn unknown_splits_and_zero_threads_are_refused() {
    let voc = synthetic();
    let ask = |selection: &Selection, threads| {
        let options = DoctorOptions {
            threads,
            limit: None,
        };
        examine(selection, &options, &|_, _| {}).unwrap_err()
    };
    let error = ask(&voc.select("tests", "voc20"), 1);
    assert!(matches!(error, DataError::SplitNotFound { .. }), "{error}");
    let error = ask(&voc.select("train", "voc20"), 0);
    assert!(matches!(error, DataError::Setting { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// For any content of a file, the doctor returns a diagnosis.
    #[test]
    fn arbitrary_bytes_do_not_stop_the_doctor(
        bytes in prop::collection::vec(any::<u8>(), 0..300),
        cut in 0.0..1.0_f64,
        flips in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        is_label in any::<bool>(),
        is_junk in any::<bool>(),
    ) {
        let folder = tempfile::tempdir().unwrap();
        let labels = write_pair(folder.path(), "a.jpg", "a.png", 1);
        let path = if is_label { labels } else { folder.path().join("images/validation/a.jpg") };
        let mut damaged = fs::read(&path).unwrap();
        for (place, value) in flips {
            let place = place.index(damaged.len());
            damaged[place] = value;
        }
        damaged.truncate((damaged.len() as f64 * cut) as usize);
        fs::write(&path, if is_junk { bytes } else { damaged }).unwrap();
        let diagnosis = examine_in("ade20k", folder.path(), "val");
        prop_assert_eq!(diagnosis.examined, 1);
        prop_assert!(diagnosis.to_table().contains(": 1 image (officially 2000)"));
    }
}

/// Writes an image and a label map of 16×8 pixels to ADE20K's validation folders; returns the path of the label map.
fn write_pair(root: &Path, image: &str, labels: &str, seed: u8) -> std::path::PathBuf {
    let path = |kind: &str, file: &str| root.join(kind).join("validation").join(file);
    for kind in ["images", "annotations"] {
        fs::create_dir_all(path(kind, "")).unwrap();
    }
    let image_file = RgbImage::from_fn(16, 8, |x, y| Rgb([x as u8 * 15, y as u8 * 30, seed * 20]));
    image_file.save(path("images", image)).unwrap();
    let labels = path("annotations", labels);
    let map = GrayImage::from_fn(16, 8, |x, _| Luma([u8::from(x > 7) * (1 + seed)]));
    map.save(&labels).unwrap();
    labels
}

fn jpeg(map: &GrayImage) -> Vec<u8> {
    let mut bytes = Vec::new();
    let (width, height) = map.dimensions();
    JpegEncoder::new_with_quality(&mut bytes, 60)
        .encode(map.as_raw(), width, height, ExtendedColorType::L8)
        .unwrap();
    bytes
}

/// Appends a PNG of 1×1 pixels with one grey bit.
fn one_bit_png(bytes: &mut Vec<u8>) {
    bytes.extend(include_bytes!("../../zeg-image/tests/golden/grey1.png"));
}

/// Returns the JPEG with an EXIF segment of this orientation after its first marker (Exif 2.3, 4.5.4 and 4.6.4).
fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut exif = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    exif.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    let mut bytes = jpeg[..2].to_vec();
    bytes.extend([0xFF, 0xE1]);
    bytes.extend((exif.len() as u16 + 2).to_be_bytes());
    bytes.extend(exif);
    bytes.extend(&jpeg[2..]);
    bytes
}

/// `cargo test --release -p zeg-data --test doctor -- --ignored --nocapture`
#[test]
#[ignore = "measures speed; run it by hand on an idle machine"]
fn throughput() {
    let Some(root) = shared_data("voc2012_mini/VOCdevkit/VOC2012") else {
        return;
    };
    for threads in [1, 2] {
        let selection = Selection {
            dataset: "voc12",
            root: &root,
            split: "train",
            classes: None,
            unseen: None,
        };
        let options = DoctorOptions {
            threads,
            limit: None,
        };
        let start = std::time::Instant::now();
        let diagnosis = examine(&selection, &options, &|_, _| {}).unwrap();
        let rate = diagnosis.examined as f64 / start.elapsed().as_secs_f64();
        eprintln!(
            "{}{threads} threads: {rate:.0} pairs per second",
            diagnosis.to_table()
        );
    }
}
