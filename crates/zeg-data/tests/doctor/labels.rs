//! Faults of label values.

use super::*;

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
