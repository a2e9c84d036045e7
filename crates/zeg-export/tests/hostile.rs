//! Tests unusual sizes and names and very many regions: every exporter writes valid files or returns a clear error.

#![allow(clippy::unwrap_used)] // helpers of tests may panic, like the tests

use std::fs;
use std::path::Path;

use serde_json::Value;
use zeg_export::{
    Classes, CocoExporter, CocoOptions, Connectivity, ContactSheet, ContactSheetOptions,
    CvatExporter, CvatOptions, ExportError, Exporter, Grouping, LabelStudioExporter,
    LabelStudioOptions, Overwrite, ProbabilityExporter, ProbabilityFormat, SegmentedImage, Shape,
    SummaryExporter, Thumbnails,
};
use zeg_image::{IGNORE_LABEL, LabelMap, distinct_palette};

const FOUR: Grouping = Grouping::Connected(Connectivity::Four);

type Opened = Result<Box<dyn Exporter>, ExportError>;

fn boxed<E: Exporter + 'static>(exporter: Result<E, ExportError>) -> Opened {
    exporter.map(|exporter| Box::new(exporter) as Box<dyn Exporter>)
}

/// Opens one exporter of each kind, all in `folder`.
fn open_all(names: &[&str], shape: Shape, folder: &Path, overwrite: Overwrite) -> Vec<Opened> {
    let classes = || {
        let names: Vec<_> = names.iter().map(ToString::to_string).collect();
        let palette = distinct_palette(names.len());
        Classes::new(names, palette).unwrap()
    };
    vec![
        boxed(CocoExporter::create(
            classes(),
            CocoOptions {
                path: folder.join("coco.json"),
                overwrite,
                grouping: FOUR,
                minimal_area: 0,
                shape,
                supercategory: "\"".into(),
            },
        )),
        boxed(LabelStudioExporter::create(
            classes(),
            LabelStudioOptions {
                tasks: folder.join("tasks.json"),
                config: folder.join("config.xml"),
                overwrite,
                grouping: Grouping::Class,
                minimal_area: 0,
                shape,
                address_prefix: String::new(),
                model_version: "\"".into(),
            },
        )),
        boxed(CvatExporter::create(
            classes(),
            CvatOptions {
                path: folder.join("cvat.xml"),
                overwrite,
                grouping: FOUR,
                minimal_area: 0,
                shape,
            },
        )),
        boxed(SummaryExporter::create(
            classes(),
            &folder.join("summary"),
            overwrite,
        )),
        boxed(ContactSheet::create(
            classes(),
            ContactSheetOptions {
                path: folder.join("sheet.html"),
                overwrite,
                title: String::new(),
                thumbnails: Thumbnails::Linked,
                link_suffix: None,
            },
        )),
    ]
}

/// Exports one map with all exporters and reads the JSON files.
fn export(names: &[&str], labels: &LabelMap, shape: Shape) -> (Value, Value) {
    let folder = tempfile::tempdir().unwrap();
    for exporter in open_all(names, shape, folder.path(), Overwrite::Refuse) {
        let mut exporter = exporter.unwrap();
        exporter
            .add(&SegmentedImage::new(Path::new("a/b.jpg"), labels))
            .unwrap();
        for file in exporter.finish().unwrap() {
            assert!(fs::metadata(&file).unwrap().len() > 0, "{}", file.display());
        }
    }
    let read = |name: &str| {
        let text = fs::read_to_string(folder.path().join(name)).unwrap();
        serde_json::from_str(&text).unwrap()
    };
    (read("coco.json"), read("summary/b.summary.json"))
}

#[test]
fn the_smallest_and_the_longest_maps() {
    for shape in [Shape::Mask, Shape::Polygons { tolerance: 1.0 }] {
        for (width, height) in [(1, 1), (30_000, 2), (2, 30_000)] {
            let pattern = (0..width * height).map(|index| (index / 7 % 3) as u16);
            let labels = LabelMap::new(width, height, pattern.collect()).unwrap();
            let (coco, summary) = export(&["a", "b", "c"], &labels, shape);
            let areas = coco["annotations"]
                .as_array()
                .unwrap()
                .iter()
                .map(|one| one["area"].as_u64().unwrap());
            assert_eq!(areas.sum::<u64>(), (width * height) as u64);
            assert_eq!(summary["unlabelled"], 0.0);
        }
    }
}

#[test]
fn seventy_thousand_regions() {
    let side = 265;
    let checks = (0..side * side).map(|index| ((index / side + index % side) % 2) as u16);
    let labels = LabelMap::new(side, side, checks.collect()).unwrap();
    for shape in [Shape::Mask, Shape::Polygons { tolerance: 0.0 }] {
        let (coco, summary) = export(&["a", "b"], &labels, shape);
        let annotations = coco["annotations"].as_array().unwrap();
        assert_eq!(annotations.len(), 70_225);
        assert_eq!(summary["classes"][0]["pixels"], 35_113);
        let last = annotations.last().unwrap();
        assert_eq!((&last["id"], &last["area"]), (&70_225.into(), &1.into()));
        if shape == Shape::Mask {
            let text = last["segmentation"]["counts"].as_str().unwrap();
            let mask = zeg_image::Rle::from_coco_string(265, 265, text).unwrap();
            assert_eq!(mask.pixels().count(), 1);
        }
    }
}

#[test]
fn odd_names() {
    let long = "n".repeat(10_000);
    let names = [
        "",
        &long,
        "مركبة",
        "\u{202e}drawkcab",
        "</script>\0\u{1b}]]>",
        "\n\t",
        "\u{1f408}",
    ];
    let labels = LabelMap::new(7, 1, (0..7).collect()).unwrap();
    let (coco, summary) = export(&names, &labels, Shape::Mask);
    let written: Vec<_> = coco["categories"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(written, names);
    let written: Vec<_> = summary["classes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|one| one["name"].as_str().unwrap())
        .collect();
    assert_eq!(written, names);
}

#[test]
fn no_class_at_all() {
    let labels = LabelMap::filled(5, 4, IGNORE_LABEL);
    let (coco, summary) = export(&[], &labels, Shape::Mask);
    assert_eq!(coco["annotations"].as_array().unwrap().len(), 0);
    assert_eq!(coco["images"].as_array().unwrap().len(), 1);
    assert_eq!(summary["unlabelled"], 1.0);
}

#[test]
fn a_bad_image_does_not_spoil_the_others() {
    let folder = tempfile::tempdir().unwrap();
    let good = LabelMap::new(2, 1, vec![0, IGNORE_LABEL]).unwrap();
    let bad = LabelMap::new(2, 1, vec![0, 1]).unwrap();
    let empty = LabelMap::filled(0, 9, 0);
    for exporter in open_all(&["a"], Shape::Mask, folder.path(), Overwrite::Refuse) {
        let mut exporter = exporter.unwrap();
        for labels in [&bad, &empty] {
            let error = exporter
                .add(&SegmentedImage::new(Path::new("bad.jpg"), labels))
                .unwrap_err();
            assert!(error.to_string().starts_with("bad.jpg: label"), "{error}");
        }
        let confident = SegmentedImage {
            confidence: Some(&[f32::NAN, f32::INFINITY]),
            ..SegmentedImage::new(Path::new("good.jpg"), &good)
        };
        exporter.add(&confident).unwrap();
        exporter.finish().unwrap();
    }
    let coco: Value =
        serde_json::from_slice(&fs::read(folder.path().join("coco.json")).unwrap()).unwrap();
    assert_eq!(coco["images"][0]["file_name"], "good.jpg");
    assert_eq!(coco["annotations"].as_array().unwrap().len(), 1);
    assert_eq!(coco["annotations"][0].get("score"), None);
}

#[test]
fn existing_files_are_refused_before_the_work() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str| fs::write(folder.path().join(name), "mine").unwrap();
    for name in ["coco.json", "config.xml", "cvat.xml", "sheet.html"] {
        write(name);
    }
    fs::create_dir(folder.path().join("summary")).unwrap();
    write("summary/a.summary.json");
    let labels = LabelMap::filled(1, 1, 0);
    let image = SegmentedImage::new(Path::new("a.jpg"), &labels);
    let mut refused = 0;
    for opened in open_all(&["a"], Shape::Mask, folder.path(), Overwrite::Refuse) {
        // The names of the summaries depend on the images.
        let error = match opened {
            Ok(mut exporter) => exporter.add(&image).unwrap_err(),
            Err(error) => error,
        };
        assert!(matches!(&error, ExportError::Exists { .. }), "{error}");
        refused += 1;
    }
    assert_eq!(refused, 5);
    let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
    assert_eq!(
        (read("coco.json"), read("config.xml")),
        ("mine".into(), "mine".into())
    );
    assert!(!folder.path().join("tasks.json").exists());

    for opened in open_all(&["a"], Shape::Mask, folder.path(), Overwrite::Replace) {
        let mut exporter = opened.unwrap();
        exporter.add(&image).unwrap();
        exporter.finish().unwrap();
    }
    assert_ne!(read("summary/a.summary.json"), "mine");
    assert_ne!(read("cvat.xml"), "mine");
}

#[test]
fn duplicate_stems_and_stems_outside_the_folder_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let classes = Classes::new(vec!["a".into()], vec![]).unwrap();
    let mut exporter = SummaryExporter::create(classes, folder.path(), Overwrite::Replace).unwrap();
    let labels = LabelMap::filled(1, 1, 0);
    let mut add = |path: &str, stem: &str| {
        let stem = Path::new(stem);
        exporter.add(&SegmentedImage {
            stem,
            ..SegmentedImage::new(Path::new(path), &labels)
        })
    };
    add("x/a.jpg", "a").unwrap();
    assert!(matches!(
        add("y/a.jpg", "a"),
        Err(ExportError::DuplicateOutput { .. })
    ));
    for stem in ["../a", "/a", "", ".."] {
        assert!(
            matches!(add("a.jpg", stem), Err(ExportError::Stem { .. })),
            "{stem}"
        );
    }
    add("y/a.jpg", "y/a").unwrap();
    assert!(folder.path().join("y/a.summary.json").exists());
}

#[test]
fn duplicate_names_are_refused_by_formats_that_identify_classes_by_name() {
    let folder = tempfile::tempdir().unwrap();
    let opened = open_all(
        &["a", "b", "a"],
        Shape::Mask,
        folder.path(),
        Overwrite::Refuse,
    );
    let refused: Vec<_> = opened.iter().map(Result::is_err).collect();
    assert_eq!(refused, [false, true, true, false, false]);
}

#[test]
fn missing_probabilities_are_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let classes = Classes::new(vec!["a".into()], vec![]).unwrap();
    let mut exporter = ProbabilityExporter::create(
        classes,
        ProbabilityFormat::Npy,
        folder.path(),
        Overwrite::Refuse,
    )
    .unwrap();
    let labels = LabelMap::filled(1, 1, 0);
    let error = exporter
        .add(&SegmentedImage::new(Path::new("a.jpg"), &labels))
        .unwrap_err();
    assert_eq!(error.to_string(), "a.jpg: no probabilities were given");
}
