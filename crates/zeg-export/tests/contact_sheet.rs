//! Tests that the page shows the images, escapes their names and loads nothing from the network.

#![allow(clippy::unwrap_used)] // helpers of tests may panic, like the tests

use std::fs;
use std::path::{Path, PathBuf};

use zeg_export::{
    Classes, ContactSheet, ContactSheetOptions, ExportError, Exporter, Overwrite, SegmentedImage,
    Thumbnails,
};
use zeg_image::{
    IGNORE_LABEL, LabelMap, RgbImage, decode_labels, decode_rgb, distinct_palette, overlay,
};

const EVIL: &str = r#"<script>alert("1")</script>&'`{{ x }}"#;

fn classes() -> Classes {
    let names = ["sky", EVIL, "مركبة كبيرة", "never seen"];
    Classes::new(names.map(String::from).to_vec(), distinct_palette(4)).unwrap()
}

fn options(path: PathBuf, thumbnails: Thumbnails) -> ContactSheetOptions {
    ContactSheetOptions {
        path,
        overwrite: Overwrite::Refuse,
        title: format!("Run of {EVIL}"),
        thumbnails,
        link_suffix: Some(".overlay.png".into()),
    }
}

fn two_images(mut sheet: Box<ContactSheet>) -> Vec<PathBuf> {
    let labels = LabelMap::new(4, 1, vec![0, 1, 1, IGNORE_LABEL]).unwrap();
    let overlay = RgbImage::new(190, 60);
    let evil = format!("{}.jpg", EVIL.replace('/', "|"));
    let first = SegmentedImage {
        confidence: Some(&[0.5, 1.0, 0.75, 0.1]),
        overlay: Some(&overlay),
        ..SegmentedImage::new(Path::new(&evil), &labels)
    };
    sheet.add(&first).unwrap();
    let labels = LabelMap::filled(3, 2, 2);
    sheet
        .add(&SegmentedImage::new(Path::new("b/c d.jpg"), &labels))
        .unwrap();
    sheet.finish().unwrap()
}

#[test]
fn a_page_of_two_images() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index.html");
    let sheet = ContactSheet::create(classes(), options(path.clone(), Thumbnails::Embedded));
    let files = two_images(Box::new(sheet.unwrap()));
    assert_eq!(files, std::slice::from_ref(&path));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);

    let page = fs::read_to_string(&path).unwrap();
    let count = |text: &str| page.matches(text).count();
    assert_eq!(count("<article"), 2);
    assert_eq!(
        (count("<script>"), count("alert(")),
        (1, count(r"alert(&#34;1&#34;)"))
    );
    assert_eq!(count("src=\"data:image/jpeg;base64,"), 1);
    assert_eq!(count("src=\"data:image/png;base64,"), 1);
    assert_eq!(count("src="), 2);
    assert_eq!(count("http"), 1); // `http-equiv`
    assert_eq!(count("url("), 0);
    assert_eq!(count("alt=\"Image with its classes in colour: "), 2);
    assert!(page.contains("2 images · 3 classes found · mean confidence 0.75"));
    assert!(page.contains(
        "data-shares=\"1:0.5 0:0.25\" data-confidence=\"0.75\" data-unlabelled=\"0.25\""
    ));
    assert!(page.contains("unlabelled: 25.0 %"));
    assert!(page.contains("<bdi>مركبة كبيرة</bdi>"));
    assert!(!page.contains("never seen"));
    assert!(page.contains("href=\"c%20d.overlay.png\""));
    // Three chips, each pressed or not.
    assert_eq!(count("aria-pressed=\"false\" data-class"), 3);
}

#[test]
fn linked_thumbnails_lie_beside_the_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("a page.html");
    let options = options(path.clone(), Thumbnails::Linked);
    let sheet = ContactSheet::create(classes(), options.clone()).unwrap();
    let files = two_images(Box::new(sheet));
    let thumbnails = folder.path().join("a page_files");
    let (first, second) = (thumbnails.join("00001.jpg"), thumbnails.join("00002.png"));
    assert_eq!(files, [path.clone(), first.clone(), second.clone()]);
    let size = |path| decode_rgb(path).unwrap().dimensions();
    assert_eq!((size(&first), size(&second)), ((4, 1), (3, 2)));
    let page = fs::read_to_string(&path).unwrap();
    assert!(page.contains("src=\"a%20page_files/00001.jpg\""));
    assert!(!page.contains("data:image"));
    let again = ContactSheet::create(classes(), options).unwrap_err();
    assert!(matches!(again, ExportError::Exists { path: found } if found == path));
}

#[test]
fn a_page_without_images_is_a_page() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index.html");
    let none = Classes::new(vec![], vec![]).unwrap();
    let sheet = ContactSheet::create(none, options(path.clone(), Thumbnails::Embedded)).unwrap();
    Box::new(sheet).finish().unwrap();
    let page = fs::read_to_string(&path).unwrap();
    assert!(page.contains("0 images · 0 classes found"));
    assert!(page.contains("No pixel is labelled."));
}

#[test]
fn a_dropped_page_leaves_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("index.html");
    let mut sheet = ContactSheet::create(classes(), options(path, Thumbnails::Embedded)).unwrap();
    let labels = LabelMap::filled(3, 2, 2);
    sheet
        .add(&SegmentedImage::new(Path::new("a.jpg"), &labels))
        .unwrap();
    drop(sheet);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}

/// Writes a page to look at: `ZEG_EXPORT_FOLDER=DIR cargo test -p zeg-export --test contact_sheet -- --ignored`
#[test]
#[ignore = "writes a page of the COCO-Stuff sample into the folder named by ZEG_EXPORT_FOLDER"]
fn a_page_to_look_at() {
    let folder = PathBuf::from(std::env::var_os("ZEG_EXPORT_FOLDER").unwrap());
    let data = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../shared/data/cocostuff_sample");
    let Ok(list) = fs::read_to_string(data.join("labels.txt")) else {
        println!("skipped: {} is not there", data.display());
        return;
    };
    // Lines are `number: name`, the number one more than in the masks; 0 means unlabelled.
    let names = list.lines().filter_map(|line| line.split_once(": "));
    let mut names: Vec<_> = names.skip(1).map(|(_, name)| name.to_string()).collect();
    names[7] = format!("{} {EVIL}", "a very long name of a class".repeat(6));
    names[0] = "مركبة كبيرة".into();
    let palette = distinct_palette(names.len());
    let classes = Classes::new(names.clone(), palette.clone()).unwrap();
    let options = ContactSheetOptions {
        overwrite: Overwrite::Replace,
        title: "COCO-Stuff sample".into(),
        ..options(folder.join("index.html"), Thumbnails::Embedded)
    };
    let mut sheet = Box::new(ContactSheet::create(classes, options).unwrap());
    let mut paths: Vec<_> = fs::read_dir(data.join("annotations/train2017"))
        .unwrap()
        .map(|e| e.unwrap().path())
        .collect();
    paths.sort();
    for path in paths {
        let mut labels = decode_labels(&path).unwrap();
        for label in labels.labels_mut() {
            *label = if *label == 255 { IGNORE_LABEL } else { *label };
        }
        let image = path.with_extension("jpg");
        let image = data
            .join("images/train2017")
            .join(image.file_name().unwrap());
        let drawn = overlay(
            &decode_rgb(&image).unwrap(),
            &labels,
            &names,
            &palette,
            0.55,
        );
        let width = labels.width();
        let confidence: Vec<f32> = labels
            .labels()
            .iter()
            .enumerate()
            .map(|(index, &label)| {
                1.0 - (f32::from(label % 9) + (index % width) as f32 / width as f32) / 14.0
            })
            .collect();
        sheet
            .add(&SegmentedImage {
                confidence: Some(&confidence),
                overlay: Some(&drawn),
                ..SegmentedImage::new(image.strip_prefix(&data).unwrap(), &labels)
            })
            .unwrap();
    }
    println!("{:?}", sheet.finish().unwrap());
}
