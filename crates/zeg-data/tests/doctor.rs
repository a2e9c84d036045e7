//! Tests of the doctor: a faultless data set has no problems, and every fault is found with its code and its file.
//!
//! Each fault is planted in a small synthetic VOC, and in 30 real images if the excerpt exists beside the repository.
//! The file is long because it covers all faults, so that one place shows which of them are tested.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the test functions; a failure is a failed test"
)]

mod common;
#[path = "common/healthy_voc.rs"]
mod healthy_voc;

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
fn missing_images_and_labels() {
    for voc in healthy_vocs() {
        let (a, b) = (&voc.train[1], &voc.train[4]);
        fs::remove_file(voc.image(a)).unwrap();
        fs::remove_file(voc.labels(b)).unwrap();
        names(&voc.finding("missing-image"), Error, &format!("{a}.jpg"));
        names(&voc.finding("missing-labels"), Error, &format!("{b}.png"));
        assert_eq!(voc.examine("train").verdict(), Verdict::Broken);
    }
}

#[test]
fn file_name_extensions_in_upper_case() {
    for voc in healthy_vocs() {
        let id = &voc.train[2];
        fs::rename(voc.image(id), voc.image(id).with_extension("JPG")).unwrap();
        let diagnosis = voc.examine("train");
        names(
            &find(&diagnosis, "case-mismatch"),
            Error,
            &format!("{id}.JPG"),
        );
        assert!(!problems(&diagnosis).contains(&"missing-image"));
    }
}

#[test]
fn file_name_extensions_in_upper_case_without_lists() {
    let folder = tempfile::tempdir().unwrap();
    for (image, labels) in [("a.jpg", "a.png"), ("b.JPG", "b.png")] {
        write_pair(folder.path(), image, labels, 1);
    }
    let diagnosis = examine_in("ade20k", folder.path(), "val");
    names(&find(&diagnosis, "case-mismatch"), Error, "b.JPG");
    names(&find(&diagnosis, "left-out-images"), Error, "b.JPG");
    let error = common::open("ade20k", folder.path(), "val").unwrap_err();
    assert!(
        matches!(&error, DataError::LeftOut { files, .. } if files.len() == 1),
        "{error}"
    );
}

#[test]
fn empty_files() {
    for voc in healthy_vocs() {
        let (a, b) = (&voc.train[1], &voc.train[4]);
        fs::write(voc.image(a), "").unwrap();
        fs::write(voc.labels(b), "").unwrap();
        let finding = voc.finding("empty-file");
        assert_eq!((finding.severity, finding.count), (Error, 2));
        assert!(finding.examples[0].contains(&format!("{a}.jpg")));
        assert!(finding.examples[1].contains(&format!("{b}.png")));
    }
}

#[test]
fn truncated_files() {
    for voc in healthy_vocs() {
        let (a, b) = (&voc.train[1], &voc.train[4]);
        for path in [voc.image(a), voc.labels(b)] {
            let bytes = fs::read(&path).unwrap();
            fs::write(&path, &bytes[..bytes.len() * 2 / 3]).unwrap();
        }
        names(&voc.finding("unreadable-image"), Error, &format!("{a}.jpg"));
        names(
            &voc.finding("unreadable-labels"),
            Error,
            &format!("{b}.png"),
        );
    }
}

#[test]
fn illegal_label_values() {
    for voc in healthy_vocs() {
        let id = &voc.train[3];
        let path = voc.labels(id);
        let mut map = grey(&decode_labels(&path).unwrap(), |value| value as u8);
        for x in 5..12 {
            map.put_pixel(x, 7, Luma([187]));
        }
        map.save(&path).unwrap();
        let finding = voc.finding("illegal-label");
        names(&finding, Error, &format!("{id}.png"));
        let text = "value 187 in 7 pixels, first at (5, 7); legal values are 0..=20 and 255";
        assert!(finding.message.contains(text), "{finding:?}");
    }
}

#[test]
fn labels_in_colour() {
    for voc in healthy_vocs() {
        let id = &voc.train[3];
        let path = voc.labels(id);
        let map = decode_labels(&path).unwrap();
        let colour =
            RgbImage::from_pixel(map.width() as u32, map.height() as u32, Rgb([128, 0, 0]));
        colour.save(&path).unwrap();
        names(&voc.finding("colour-labels"), Error, &format!("{id}.png"));
    }
}

#[test]
fn labels_stored_as_jpeg() {
    for voc in healthy_vocs() {
        let id = &voc.train[3];
        let path = voc.labels(id);
        let map = grey(&decode_labels(&path).unwrap(), |value| value as u8);
        fs::write(&path, jpeg(&map)).unwrap();
        names(&voc.finding("lossy-labels"), Error, &format!("{id}.png"));
    }
}

#[test]
fn labels_converted_from_jpeg() {
    for voc in healthy_vocs() {
        let id = &voc.train[3];
        let path = voc.labels(id);
        let mut map = grey(&decode_labels(&path).unwrap(), |value| value as u8);
        // Slanted lines are added, because the straight borders of the small map lie between JPEG blocks and are exact.
        for (x, y, pixel) in map.enumerate_pixels_mut() {
            if (x + 2 * y) % 11 < 2 {
                *pixel = Luma([255]);
            }
        }
        let smeared = image::load_from_memory(&jpeg(&map)).unwrap();
        smeared.into_luma8().save(&path).unwrap();
        let diagnosis = voc.examine("train");
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
    for voc in healthy_vocs() {
        let id = &voc.train[3];
        let mut encoder = Vec::new();
        one_bit_png(&mut encoder);
        fs::write(voc.labels(id), encoder).unwrap();
        names(&voc.finding("label-bit-depth"), Error, &format!("{id}.png"));
    }
}

#[test]
fn pairs_of_different_sizes() {
    for voc in healthy_vocs() {
        let id = &voc.train[5];
        let size = decode_labels(&voc.labels(id)).unwrap();
        let (width, height) = (size.width() as u32, size.height() as u32);
        RgbImage::new(width + 1, height)
            .save(voc.image(id))
            .unwrap();
        let finding = voc.finding("size-mismatch");
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
fn images_rotated_by_exif() {
    for voc in healthy_vocs() {
        let id = &voc.train[5];
        let bytes = fs::read(voc.image(id)).unwrap();
        fs::write(voc.image(id), with_orientation(&bytes, 6)).unwrap();
        let diagnosis = voc.examine("train");
        names(
            &find(&diagnosis, "exif-rotation"),
            Warning,
            &format!("{id}.jpg"),
        );
        let finding = find(&diagnosis, "size-mismatch");
        assert!(
            finding
                .message
                .contains("the size of the image before its EXIF rotation"),
            "{finding:?}"
        );
    }
}

/// Labels may have been drawn on the stored pixels whatever the orientation is, even if the sizes fit.
#[test]
fn every_exif_orientation_but_the_first_is_found() {
    let folder = tempfile::tempdir().unwrap();
    for orientation in 1..=8 {
        let (image, labels) = (format!("{orientation}.jpg"), format!("{orientation}.png"));
        write_pair(folder.path(), &image, &labels, orientation);
        let path = folder.path().join("images/validation").join(image);
        let bytes = fs::read(&path).unwrap();
        fs::write(&path, with_orientation(&bytes, orientation)).unwrap();
    }
    let diagnosis = examine_in("ade20k", folder.path(), "val");
    let finding = find(&diagnosis, "exif-rotation");
    assert_eq!((finding.severity, finding.count), (Warning, 7));
    let example = "3.jpg: orientation 3, rotated by 180°";
    assert!(finding.examples[1].contains(example), "{finding:?}");
    assert_eq!(find(&diagnosis, "size-mismatch").count, 4);
}

#[test]
fn repeated_ids() {
    for voc in healthy_vocs() {
        let mut ids = voc.train.clone();
        ids.push(voc.train[1].clone());
        voc.list("train", &ids);
        let finding = voc.finding("repeated-id");
        let text = format!("train.txt: `{}` in lines 2 and {}", voc.train[1], ids.len());
        names(&finding, Error, &text);
    }
}

#[test]
fn images_in_both_splits() {
    for voc in healthy_vocs() {
        let mut ids = voc.train.clone();
        ids.push(voc.val[0].clone());
        voc.list("train", &ids);
        names(&voc.finding("train-val-overlap"), Error, &voc.val[0]);
        names(
            &find(&voc.examine("val"), "train-val-overlap"),
            Error,
            &voc.val[0],
        );
    }
}

#[test]
fn label_maps_with_ignored_pixels_only() {
    for voc in healthy_vocs() {
        let (a, b) = (&voc.train[0], &voc.train[6]);
        voc.relabel(a, |_| 255);
        voc.relabel(b, |_| 0);
        let finding = voc.finding("all-ignored");
        assert_eq!((finding.severity, finding.count), (Warning, 2));
        assert!(finding.examples[0].contains(&format!("{a}.png")));
        assert!(finding.examples[1].contains(&format!("{b}.png")));
    }
}

#[test]
fn label_maps_of_one_class() {
    for voc in healthy_vocs() {
        let id = &voc.train[6];
        voc.relabel(id, |_| 12);
        names(
            &voc.finding("one-value"),
            Note,
            &format!("{id}.png: all pixels are dog"),
        );
    }
}

#[test]
fn two_images_with_the_same_content() {
    for voc in healthy_vocs() {
        let (a, b) = (&voc.train[2], &voc.train[7]);
        fs::copy(voc.image(a), voc.image(b)).unwrap();
        let text = format!("{b}.jpg has the same content as");
        let finding = voc.finding("same-image");
        names(&finding, Warning, &text);
        assert!(finding.message.contains(&format!("{a}.jpg")));
    }
}

#[test]
fn label_files_without_an_image() {
    for voc in healthy_vocs() {
        fs::copy(voc.labels(&voc.train[0]), voc.labels("2006_000001")).unwrap();
        names(&voc.finding("orphan-labels"), Warning, "2006_000001.png");
    }
}

/// Some tools store labels without the background, which the class list would then remove a second time.
#[test]
fn labels_whose_background_was_already_removed() {
    for voc in healthy_vocs() {
        for id in &voc.train {
            // Most of a real image is background; the small synthetic images get as many ignored pixels.
            voc.relabel(id, |value| match value {
                0 | 255 => 255,
                1..=5 if voc.train.len() < 20 => 255,
                value => value as u8 - 1,
            });
        }
        let diagnosis = voc.examine("train");
        let finding = find(&diagnosis, "shifted-labels");
        assert_eq!(finding.severity, Warning);
        assert!(finding.message.contains("largest value 19"), "{finding:?}");
        let selection = voc.select("train", "voc21");
        let diagnosis = examine(&selection, &OPTIONS, &|_, _| {}).unwrap();
        let finding = find(&diagnosis, "shifted-labels");
        assert!(
            finding.message.contains("class 0, is missing"),
            "{finding:?}"
        );
    }
}

/// A wall or floor with the number 0 is in every image, so 0 is not seldom, and the last number never occurs.
#[test]
fn labels_from_zero_that_are_read_with_zero_ignored() {
    let folder = tempfile::tempdir().unwrap();
    for number in 0..10_u8 {
        let (image, labels) = (format!("{number}.jpg"), format!("{number}.png"));
        let path = write_pair(folder.path(), &image, &labels, number);
        let map = GrayImage::from_fn(16, 8, |x, _| match x {
            0..8 => Luma([0]),
            15 => Luma([255]),
            _ => Luma([number % 5]),
        });
        map.save(path).unwrap();
    }
    let toml = folder.path().join("rooms.toml");
    let text = |zero_is: &str| {
        format!(
            "{MASKS}kind = 'index'\nzero-is = '{zero_is}'\nclasses = ['wall', 'floor', 'sofa', 'plant', 'tv']"
        )
    };
    for (zero_is, shifted) in [("ignore", true), ("class", false)] {
        fs::write(&toml, text(zero_is)).unwrap();
        let diagnosis = examine_in(toml.to_str().unwrap(), Path::new(""), "all");
        assert_eq!(
            problems(&diagnosis).contains(&"shifted-labels"),
            shifted,
            "{diagnosis:#?}"
        );
    }
}

/// With `voc21`, the official files have no fault either.
#[test]
fn a_background_class_is_not_reported_as_a_shift() {
    for voc in healthy_vocs() {
        let diagnosis = examine(&voc.select("train", "voc21"), &OPTIONS, &|_, _| {}).unwrap();
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
    for voc in healthy_vocs() {
        for id in &voc.train {
            voc.relabel(id, |value| if value == 255 { 0 } else { value as u8 });
        }
        let finding = voc.finding("no-border");
        assert_eq!(finding.severity, Warning);
        let text = format!("0 of {} label files have the value", voc.train.len());
        assert!(finding.message.contains(&text), "{finding:?}");
    }
}

#[test]
fn grey_and_cmyk_images() {
    for voc in healthy_vocs() {
        let id = &voc.train[1];
        let map = decode_labels(&voc.labels(id)).unwrap();
        fs::write(voc.image(id), jpeg(&grey(&map, |value| value as u8))).unwrap();
        names(&voc.finding("grey-image"), Note, &format!("{id}.jpg"));
    }
    let cmyk = Path::new(env!("CARGO_MANIFEST_DIR")).join("../zeg-image/tests/golden/cmyk.jpg");
    let voc = synthetic();
    let id = &voc.train[1];
    fs::copy(cmyk, voc.image(id)).unwrap();
    names(&voc.finding("cmyk-image"), Note, &format!("{id}.jpg"));
}

#[test]
fn classes_that_never_occur() {
    for voc in healthy_vocs() {
        for id in &voc.train {
            voc.relabel(id, |value| {
                if (16..=20).contains(&value) {
                    255
                } else {
                    value as u8
                }
            });
        }
        let diagnosis = voc.examine("train");
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
fn unconverted_cityscapes_labels() {
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
fn masks_below_the_threshold_and_grey_masks() {
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

/// Masks in the alpha channel, and masks of 16 bits with 0 and 255, have the same upper bits in every pixel.
#[test]
fn masks_that_would_be_read_as_empty() {
    let folder = tempfile::tempdir().unwrap();
    let alpha = write_pair(folder.path(), "a.jpg", "a.png", 1);
    let is_object = |x: u32| x >= 8;
    RgbaImage::from_fn(16, 8, |x, _| Rgba([0, 0, 0, 255 * u8::from(is_object(x))]))
        .save(alpha)
        .unwrap();
    let deep = write_pair(folder.path(), "b.jpg", "b.png", 2);
    let map: ImageBuffer<Luma<u16>, Vec<u16>> =
        ImageBuffer::from_fn(16, 8, |x, _| Luma([255 * u16::from(is_object(x))]));
    map.save(deep).unwrap();
    let toml = folder.path().join("gut.toml");
    for kind in [
        "'binary'\nclasses = ['background', 'polyp']",
        "'palette'\nclasses = [{ name = 'wall', colour = '#000000' }, { name = 'polyp', colour = '#0000ff' }]",
    ] {
        fs::write(&toml, format!("{MASKS}kind = {kind}")).unwrap();
        let toml = toml.to_str().unwrap();
        let diagnosis = examine_in(toml, Path::new(""), "all");
        names(&find(&diagnosis, "mask-in-alpha"), Error, "a.png");
        names(&find(&diagnosis, "mask-below-upper-bits"), Error, "b.png");
        let dataset = common::open(toml, Path::new(""), "all").unwrap();
        assert!(dataset.load(0).is_err() && dataset.load(1).is_err());
    }
}

#[test]
fn a_class_that_fills_the_whole_split_is_a_warning() {
    let folder = tempfile::tempdir().unwrap();
    for (image, labels) in [("a.jpg", "a.png"), ("b.jpg", "b.png")] {
        let path = write_pair(folder.path(), image, labels, labels.len() as u8);
        GrayImage::new(16, 8).save(path).unwrap();
    }
    let toml = folder.path().join("gut.toml");
    let text = format!("{MASKS}kind = 'binary'\nclasses = ['background', 'polyp']");
    fs::write(&toml, text).unwrap();
    let diagnosis = examine_in(toml.to_str().unwrap(), Path::new(""), "all");
    names(
        &find(&diagnosis, "one-class"),
        Warning,
        "only background occurs",
    );
}

#[test]
fn illegal_colours() {
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
fn overlapping_splits_of_a_description() {
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
