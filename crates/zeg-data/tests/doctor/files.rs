//! Faults of files, of their names and of the lists that name them.

use super::*;

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
