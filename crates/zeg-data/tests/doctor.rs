//! The doctor: a healthy data set is found healthy, and every fault is found by its code and names its file.
//!
//! Each fault is planted in a small VOC made here and in 30 real images where some lie beside the repository.
//! Long, because it is the list of all faults: one place shows which of them is planted and which is not.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the test functions; a failure is a failed test"
)]

mod common;
#[path = "common/ward.rs"]
mod ward;

use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use common::shared_data;
use image::codecs::jpeg::JpegEncoder;
use image::{ExtendedColorType, GrayImage, Luma, Rgb, RgbImage};
use proptest::prelude::*;
use ward::{OPTIONS, find, grey, names, problems, synthetic, wards};
use zeg_data::{DataError, Diagnosis, DoctorOptions, Selection, Severity, Verdict, examine};
use zeg_image::decode_labels;

use Severity::{Error, Note, Warning};

/// Examines a data set in a folder that is no VOC.
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
fn a_healthy_part_of_voc_is_only_a_part() {
    for ward in wards() {
        for split in ["train", "val"] {
            let diagnosis = ward.examine(split);
            assert_eq!(
                problems(&diagnosis),
                ["not-the-official-split"],
                "{diagnosis:#?}"
            );
            assert_eq!(diagnosis.verdict(), Verdict::Suspicious);
        }
        let diagnosis = ward.examine("train");
        let finding = find(&diagnosis, "not-the-official-split");
        assert!(finding.message.contains(&format!(
            "{} images here, officially 1464",
            ward.train.len()
        )));
        assert!(finding.message.contains("not comparable"));
        let listed = ward.root.join("mine.txt");
        fs::write(&listed, ward.train.join("\n")).unwrap();
        let selection = ward.select(listed.to_str().unwrap(), "voc20");
        let diagnosis = examine(&selection, &OPTIONS, &|_, _| {}).unwrap();
        assert_eq!(diagnosis.verdict(), Verdict::Healthy, "{diagnosis:#?}");
    }
}

/// The counts of the 311 training label maps of the excerpt, by Pillow 13.0.0 and numpy 2.4.6:
/// `np.bincount(np.concatenate([np.array(Image.open(f)).ravel() for f in files]), minlength=256)`.
#[test]
fn the_whole_excerpt_of_voc_is_healthy_and_counted() {
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
fn missing_images_and_labels() {
    for ward in wards() {
        let (a, b) = (&ward.train[1], &ward.train[4]);
        fs::remove_file(ward.image(a)).unwrap();
        fs::remove_file(ward.labels(b)).unwrap();
        names(&ward.finding("missing-image"), Error, &format!("{a}.jpg"));
        names(&ward.finding("missing-labels"), Error, &format!("{b}.png"));
        assert_eq!(ward.examine("train").verdict(), Verdict::Broken);
    }
}

#[test]
fn endings_in_capitals() {
    for ward in wards() {
        let id = &ward.train[2];
        fs::rename(ward.image(id), ward.image(id).with_extension("JPG")).unwrap();
        let diagnosis = ward.examine("train");
        names(
            &find(&diagnosis, "case-mismatch"),
            Error,
            &format!("{id}.JPG"),
        );
        assert!(!problems(&diagnosis).contains(&"missing-image"));
    }
}

#[test]
fn endings_in_capitals_where_folders_are_the_lists() {
    let folder = tempfile::tempdir().unwrap();
    for (image, labels) in [("a.jpg", "a.png"), ("b.JPG", "b.png")] {
        write_pair(folder.path(), image, labels, 1);
    }
    let diagnosis = examine_in("ade20k", folder.path(), "val");
    names(&find(&diagnosis, "case-mismatch"), Error, "b.JPG");
}

#[test]
fn files_without_a_byte() {
    for ward in wards() {
        let (a, b) = (&ward.train[1], &ward.train[4]);
        fs::write(ward.image(a), "").unwrap();
        fs::write(ward.labels(b), "").unwrap();
        let finding = ward.finding("empty-file");
        assert_eq!((finding.severity, finding.count), (Error, 2));
        assert!(finding.examples[0].contains(&format!("{a}.jpg")));
        assert!(finding.examples[1].contains(&format!("{b}.png")));
    }
}

#[test]
fn truncated_files() {
    for ward in wards() {
        let (a, b) = (&ward.train[1], &ward.train[4]);
        for path in [ward.image(a), ward.labels(b)] {
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() * 2 / 3]).unwrap();
        }
        names(
            &ward.finding("unreadable-image"),
            Error,
            &format!("{a}.jpg"),
        );
        names(
            &ward.finding("unreadable-labels"),
            Error,
            &format!("{b}.png"),
        );
    }
}

#[test]
fn values_that_are_no_class() {
    for ward in wards() {
        let id = &ward.train[3];
        let path = ward.labels(id);
        let mut map = grey(&decode_labels(&path).unwrap(), |value| value as u8);
        for x in 5..12 {
            map.put_pixel(x, 7, Luma([187]));
        }
        map.save(&path).unwrap();
        let finding = ward.finding("illegal-label");
        names(&finding, Error, &format!("{id}.png"));
        let text = "value 187 in 7 pixels, first at (5, 7); legal are 0..=20 and 255";
        assert!(finding.message.contains(text), "{finding:?}");
    }
}

#[test]
fn labels_in_colour() {
    for ward in wards() {
        let id = &ward.train[3];
        let path = ward.labels(id);
        let map = decode_labels(&path).unwrap();
        let colour =
            RgbImage::from_pixel(map.width() as u32, map.height() as u32, Rgb([128, 0, 0]));
        colour.save(&path).unwrap();
        names(&ward.finding("colour-labels"), Error, &format!("{id}.png"));
    }
}

#[test]
fn labels_in_a_jpeg() {
    for ward in wards() {
        let id = &ward.train[3];
        let path = ward.labels(id);
        let map = grey(&decode_labels(&path).unwrap(), |value| value as u8);
        fs::write(&path, jpeg(&map)).unwrap();
        names(&ward.finding("lossy-labels"), Error, &format!("{id}.png"));
    }
}

#[test]
fn labels_that_were_a_jpeg() {
    for ward in wards() {
        let id = &ward.train[3];
        let path = ward.labels(id);
        let mut map = grey(&decode_labels(&path).unwrap(), |value| value as u8);
        // Slanted borders: those of the small map lie between the blocks of JPEG, where nothing is lost.
        for (x, y, pixel) in map.enumerate_pixels_mut() {
            if (x + 2 * y) % 11 < 2 {
                *pixel = Luma([255]);
            }
        }
        let smeared = image::load_from_memory(&jpeg(&map)).unwrap();
        smeared.into_luma8().save(&path).unwrap();
        let diagnosis = ward.examine("train");
        names(
            &find(&diagnosis, "smeared-labels"),
            Error,
            &format!("{id}.png"),
        );
        assert!(!problems(&diagnosis).contains(&"illegal-label"));
    }
}

#[test]
fn labels_of_one_bit_grey() {
    for ward in wards() {
        let id = &ward.train[3];
        let mut encoder = Vec::new();
        one_bit_png(&mut encoder);
        fs::write(ward.labels(id), encoder).unwrap();
        names(
            &ward.finding("label-bit-depth"),
            Error,
            &format!("{id}.png"),
        );
    }
}

#[test]
fn pairs_of_different_sizes() {
    for ward in wards() {
        let id = &ward.train[5];
        let size = decode_labels(&ward.labels(id)).unwrap();
        let (width, height) = (size.width() as u32, size.height() as u32);
        RgbImage::new(width + 1, height)
            .save(ward.image(id))
            .unwrap();
        let finding = ward.finding("size-mismatch");
        names(
            &finding,
            Error,
            &format!("{id}.jpg is {}×{height}", width + 1),
        );
        assert!(
            finding
                .message
                .contains(&format!("{id}.png is {width}×{height}"))
        );
    }
}

#[test]
fn images_that_a_note_turns() {
    for ward in wards() {
        let id = &ward.train[5];
        let bytes = fs::read(ward.image(id)).unwrap();
        fs::write(ward.image(id), with_orientation(&bytes, 6)).unwrap();
        let diagnosis = ward.examine("train");
        names(
            &find(&diagnosis, "exif-rotation"),
            Warning,
            &format!("{id}.jpg"),
        );
        let finding = find(&diagnosis, "size-mismatch");
        assert!(
            finding
                .message
                .contains("before the turn that its EXIF note asks for"),
            "{finding:?}"
        );
    }
}

#[test]
fn repeated_lines() {
    for ward in wards() {
        let mut ids = ward.train.clone();
        ids.push(ward.train[1].clone());
        ward.list("train", &ids);
        let finding = ward.finding("repeated-id");
        let text = format!(
            "train.txt: `{}` in lines 2 and {}",
            ward.train[1],
            ids.len()
        );
        names(&finding, Error, &text);
    }
}

#[test]
fn images_of_both_splits() {
    for ward in wards() {
        let mut ids = ward.train.clone();
        ids.push(ward.val[0].clone());
        ward.list("train", &ids);
        names(&ward.finding("train-val-overlap"), Error, &ward.val[0]);
        names(
            &find(&ward.examine("val"), "train-val-overlap"),
            Error,
            &ward.val[0],
        );
    }
}

#[test]
fn label_maps_without_a_label() {
    for ward in wards() {
        let (a, b) = (&ward.train[0], &ward.train[6]);
        ward.relabel(a, |_| 255);
        ward.relabel(b, |_| 0);
        let finding = ward.finding("all-ignored");
        assert_eq!((finding.severity, finding.count), (Warning, 2));
        assert!(finding.examples[0].contains(&format!("{a}.png")));
        assert!(finding.examples[1].contains(&format!("{b}.png")));
    }
}

#[test]
fn label_maps_of_one_class() {
    for ward in wards() {
        let id = &ward.train[6];
        ward.relabel(id, |_| 12);
        names(
            &ward.finding("one-value"),
            Note,
            &format!("{id}.png: all dog"),
        );
    }
}

#[test]
fn two_images_of_one_content() {
    for ward in wards() {
        let (a, b) = (&ward.train[2], &ward.train[7]);
        fs::copy(ward.image(a), ward.image(b)).unwrap();
        let text = format!("{b}.jpg is the same as");
        let finding = ward.finding("same-image");
        names(&finding, Warning, &text);
        assert!(finding.message.contains(&format!("{a}.jpg")));
    }
}

#[test]
fn label_files_without_an_image() {
    for ward in wards() {
        fs::copy(ward.labels(&ward.train[0]), ward.labels("2006_000001")).unwrap();
        names(&ward.finding("orphan-labels"), Warning, "2006_000001.png");
    }
}

/// The background taken away from the files, as some tools store it, and then once more by the class list.
#[test]
fn labels_that_were_reduced_before() {
    for ward in wards() {
        for id in &ward.train {
            // Most of a real image is background; the small ones made here get as much.
            ward.relabel(id, |value| match value {
                0 | 255 => 255,
                1..=5 if ward.train.len() < 20 => 255,
                value => value as u8 - 1,
            });
        }
        let diagnosis = ward.examine("train");
        let finding = find(&diagnosis, "shifted-labels");
        assert_eq!(finding.severity, Warning);
        assert!(finding.message.contains("largest value 19"), "{finding:?}");
        let selection = ward.select("train", "voc21");
        let diagnosis = examine(&selection, &OPTIONS, &|_, _| {}).unwrap();
        let finding = find(&diagnosis, "shifted-labels");
        assert!(
            finding.message.contains("class 0, is missing"),
            "{finding:?}"
        );
    }
}

/// Read with the background, the same files are as they should be.
#[test]
fn the_background_as_a_class_is_no_shift() {
    for ward in wards() {
        let diagnosis = examine(&ward.select("train", "voc21"), &OPTIONS, &|_, _| {}).unwrap();
        assert_eq!(
            problems(&diagnosis),
            ["not-the-official-split"],
            "{diagnosis:#?}"
        );
    }
}

#[test]
fn labels_counted_from_one() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..10 {
        let (image, labels) = (format!("{number}.jpg"), format!("{number}.png"));
        let path = write_pair(folder.path(), &image, &labels, number);
        let map = GrayImage::from_fn(16, 8, |x, _| Luma([if x < 8 { 171 } else { 1 + x as u8 }]));
        fs::remove_file(&path).unwrap();
        let name = format!("{number}_labelTrainIds.png");
        map.save(path.with_file_name(name)).unwrap();
    }
    for kind in ["images", "annotations"] {
        fs::rename(
            folder.path().join(kind).join("validation"),
            folder.path().join(kind).join("val2017"),
        )
        .unwrap();
    }
    let diagnosis = examine_in("coco-stuff164k", folder.path(), "val");
    let finding = find(&diagnosis, "shifted-labels");
    assert!(
        finding.message.contains("from 1 to the number of classes"),
        "{finding:?}"
    );
    assert_eq!(find(&diagnosis, "illegal-label").count, 10);
}

#[test]
fn borders_that_became_background() {
    for ward in wards() {
        for id in &ward.train {
            ward.relabel(id, |value| if value == 255 { 0 } else { value as u8 });
        }
        let finding = ward.finding("no-border");
        assert_eq!(finding.severity, Warning);
        let text = format!("0 of {} label files have it", ward.train.len());
        assert!(finding.message.contains(&text), "{finding:?}");
    }
}

#[test]
fn images_without_colour_and_in_printing_colours() {
    for ward in wards() {
        let id = &ward.train[1];
        let map = decode_labels(&ward.labels(id)).unwrap();
        fs::write(ward.image(id), jpeg(&grey(&map, |value| value as u8))).unwrap();
        names(&ward.finding("grey-image"), Note, &format!("{id}.jpg"));
    }
    let cmyk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../zeg-image/tests/golden/cmyk.jpg");
    let ward = synthetic();
    let id = &ward.train[1];
    fs::copy(cmyk, ward.image(id)).unwrap();
    names(&ward.finding("cmyk-image"), Note, &format!("{id}.jpg"));
}

#[test]
fn classes_that_never_occur() {
    for ward in wards() {
        for id in &ward.train {
            ward.relabel(id, |value| {
                if (16..=20).contains(&value) {
                    255
                } else {
                    value as u8
                }
            });
        }
        let diagnosis = ward.examine("train");
        let finding = find(&diagnosis, "absent-class");
        assert!(
            finding.count >= 5 && finding.severity == Note,
            "{finding:?}"
        );
        let texts = finding.examples.join("\n");
        assert!(texts.contains("15 pottedplant (unseen)"), "{texts}");
        assert_eq!(find(&diagnosis, "no-unseen-pixels").severity, Warning);
        assert_eq!(diagnosis.unseen_pixels, 0);
    }
}

#[test]
fn files_stored_in_two_ways_and_a_limit_are_noted() {
    for ward in wards() {
        let id = &ward.train[0];
        let map = decode_labels(&ward.labels(id)).unwrap();
        zeg_image::write_indexed_png(&ward.labels(id), &map, &[[0; 3]]).unwrap();
        let other = &ward.train[1];
        ward.relabel(other, |value| value as u8);
        if ward.train.len() >= 20 {
            assert_eq!(find(&ward.examine("train"), "mixed-storage").severity, Note);
        }
        fs::remove_file(ward.labels(ward.train.last().unwrap())).unwrap();
        let options = DoctorOptions {
            limit: Some(3),
            ..OPTIONS
        };
        let diagnosis = examine(&ward.select("train", "voc20"), &options, &|_, _| {}).unwrap();
        assert_eq!(
            (diagnosis.examined, diagnosis.images),
            (3, ward.train.len())
        );
        assert_eq!(find(&diagnosis, "limited").count, ward.train.len() - 3);
        // Files are missed beyond the limit too.
        assert_eq!(find(&diagnosis, "missing-labels").count, 1);
    }
}

#[test]
fn raw_coco_ids_are_one_finding() {
    let folder = tempfile::tempdir().unwrap();
    for (image, labels) in [("a.jpg", "a.png"), ("b.jpg", "b.png")] {
        write_pair(folder.path(), image, labels, 3);
    }
    for kind in ["images", "annotations"] {
        fs::rename(
            folder.path().join(kind).join("validation"),
            folder.path().join(kind).join("val2017"),
        )
        .unwrap();
    }
    let diagnosis = examine_in("coco-stuff164k", folder.path(), "val");
    names(
        &find(&diagnosis, "raw-coco-ids"),
        Error,
        "annotations/val2017",
    );
    assert!(!problems(&diagnosis).contains(&"missing-labels"));
    if let Some(root) = shared_data("cocostuff_sample") {
        let diagnosis = examine_in("coco-stuff164k", &root, "val");
        names(
            &find(&diagnosis, "raw-coco-ids"),
            Error,
            "annotations/val2017",
        );
    }
}

#[test]
fn cityscapes_as_it_was_downloaded() {
    let folder = tempfile::tempdir().unwrap();
    for (file, pixel) in [
        ("leftImg8bit/val/ulm/ulm_0_leftImg8bit.png", 90),
        ("gtFine/val/ulm/ulm_0_gtFine_labelIds.png", 7),
    ] {
        let path = folder.path().join(file);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        GrayImage::from_pixel(4, 4, Luma([pixel]))
            .save(path)
            .unwrap();
    }
    let diagnosis = examine_in("cityscapes", folder.path(), "val");
    names(
        &find(&diagnosis, "unconverted-labels"),
        Error,
        "labelIds.png",
    );
}

const MASKS: &str = "name = 'gut'\nimages = 'images/validation/{id}.jpg'\nlabels = 'annotations/validation/{id}.png'\n";

#[test]
fn masks_of_zero_and_one_and_grey_ones() {
    let folder = tempfile::tempdir().unwrap();
    write_pair(folder.path(), "a.jpg", "a.png", 1);
    write_pair(folder.path(), "b.jpg", "b.png", 2);
    let grey = write_pair(folder.path(), "c.jpg", "c.png", 3);
    GrayImage::from_fn(16, 8, |x, _| Luma([16 * x as u8]))
        .save(grey)
        .unwrap();
    let toml = folder.path().join("gut.toml");
    fs::write(
        &toml,
        format!("{MASKS}kind = 'binary'\nclasses = ['background', 'polyp']"),
    )
    .unwrap();
    let diagnosis = examine_in(toml.to_str().unwrap(), Path::new(""), "all");
    let finding = find(&diagnosis, "mask-below-threshold");
    assert_eq!((finding.severity, finding.count), (Error, 2));
    assert!(
        finding.message.contains("a.png: the brightest level is 2"),
        "{finding:?}"
    );
    names(&find(&diagnosis, "grey-mask"), Warning, "c.png");
}

#[test]
fn colours_that_are_no_class() {
    let folder = tempfile::tempdir().unwrap();
    let labels = write_pair(folder.path(), "a.jpg", "a.png", 1);
    let colour = |x: u32| {
        if x < 3 {
            Rgb([9, 8, 7])
        } else {
            Rgb([0, 0, 0])
        }
    };
    RgbImage::from_fn(16, 8, |x, _| colour(x))
        .save(labels)
        .unwrap();
    let toml = folder.path().join("gut.toml");
    let text = format!(
        "{MASKS}kind = 'palette'\nclasses = [{{ name = 'wall', colour = '#000000' }}, {{ name = 'polyp', colour = '#ffffff' }}]"
    );
    fs::write(&toml, text).unwrap();
    let diagnosis = examine_in(toml.to_str().unwrap(), Path::new(""), "all");
    names(
        &find(&diagnosis, "illegal-colour"),
        Error,
        "a.png: colour #090807 in 24 pixels",
    );
    assert_eq!(diagnosis.classes[0].pixels, 16 * 8 - 24);
}

#[test]
fn splits_of_a_description_that_overlap() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..3 {
        write_pair(
            folder.path(),
            &format!("{number}.jpg"),
            &format!("{number}.png"),
            number,
        );
    }
    let toml = folder.path().join("gut.toml");
    let text = format!(
        "{MASKS}kind = 'index'\nclasses = ['a', 'b', 'c', 'd', 'e']\n[splits]\ntrain = ['0', '1']\nval = ['1', '2']\nall = 'all'"
    );
    fs::write(&toml, text).unwrap();
    let toml = toml.to_str().unwrap();
    let diagnosis = examine_in(toml, Path::new(""), "train");
    names(
        &find(&diagnosis, "train-val-overlap"),
        Error,
        "`1` is in train and in val",
    );
    assert!(!problems(&examine_in(toml, Path::new(""), "all")).contains(&"train-val-overlap"));
}

#[test]
fn the_number_of_threads_changes_nothing() {
    for ward in wards() {
        for id in ward.train.iter().step_by(2) {
            fs::write(ward.image(id), "").unwrap();
            ward.relabel(id, |value| value as u8 + u8::from(value < 200) * 30);
        }
        let examined = |threads| {
            let done = AtomicUsize::new(0);
            let options = DoctorOptions { threads, ..OPTIONS };
            let diagnosis = examine(&ward.select("train", "voc20"), &options, &|part, all| {
                assert!(part >= 1 && part <= all);
                done.fetch_add(1, Ordering::Relaxed);
            });
            assert_eq!(done.into_inner(), ward.train.len());
            diagnosis.unwrap()
        };
        let one = examined(1);
        assert_eq!(one, examined(2));
        assert_eq!(one, examined(5));
    }
}

#[test]
fn reports_are_for_people_and_programs() {
    let ward = synthetic();
    fs::remove_file(ward.labels(&ward.train[1])).unwrap();
    let diagnosis = ward.examine("train");
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
fn what_is_asked_for_must_exist() {
    let ward = synthetic();
    let ask = |selection: &Selection, threads| {
        let options = DoctorOptions {
            threads,
            limit: None,
        };
        examine(selection, &options, &|_, _| {}).unwrap_err()
    };
    let error = ask(&ward.select("tests", "voc20"), 1);
    assert!(matches!(error, DataError::SplitNotFound { .. }), "{error}");
    let error = ask(&ward.select("train", "voc20"), 0);
    assert!(matches!(error, DataError::Setting { .. }), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever a file holds, the doctor ends with a diagnosis.
    #[test]
    fn any_bytes_are_a_finding_or_fine(
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
        prop_assert!(diagnosis.to_table().contains("1 images"));
    }
}

/// An image and a label map of 16×8 pixels in ADE20K's validation folders; the map's path.
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

/// The smallest PNG of one grey bit: 1×1.
fn one_bit_png(bytes: &mut Vec<u8>) {
    bytes.extend(include_bytes!("../../zeg-image/tests/golden/grey1.png"));
}

/// A JPEG with an EXIF note of this orientation after its first marker (Exif 2.3, 4.5.4 and 4.6.4).
fn with_orientation(jpeg: &[u8], orientation: u8) -> Vec<u8> {
    let mut note = b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0".to_vec();
    note.extend([orientation, 0, 0, 0, 0, 0, 0, 0]);
    let mut bytes = jpeg[..2].to_vec();
    bytes.extend([0xFF, 0xE1]);
    bytes.extend((note.len() as u16 + 2).to_be_bytes());
    bytes.extend(note);
    bytes.extend(&jpeg[2..]);
    bytes
}

/// `cargo test --release -p zeg-data --test doctor -- --ignored --nocapture`
#[test]
#[ignore = "measures; run it by hand on a quiet machine"]
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
            "{}{threads} threads: {rate:.0} pairs a second",
            diagnosis.to_table()
        );
    }
}
