//! Tests that every format writes the files that its description names.

#![allow(clippy::unwrap_used)] // helpers of tests may panic, like the tests

use std::{fs, path::Path};

use zeg_export::{
    Classes, ExportError, ExportFormat, ExportSettings, Needs, Overwrite, ProbabilityPlanes,
    SegmentedImage, find_format, formats,
};
use zeg_image::{LabelMap, RgbImage};

/// Opens a format in a folder, exports one image with all optional data, and returns the files.
fn export(
    format: &ExportFormat,
    folder: &Path,
    overwrite: Overwrite,
) -> Result<Vec<String>, ExportError> {
    let colours = vec![[255, 0, 0], [0, 0, 255]];
    let classes = Classes::new(vec!["cat".into(), "dog".into()], colours)?;
    let settings = ExportSettings {
        folder,
        overwrite,
        minimal_area: 1,
        address_prefix: "",
        method: "test",
        link_suffix: Some(".overlay.png"),
    };
    let mut exporter = format.open(classes, &settings)?;
    let labels = LabelMap::new(4, 3, [0, 0, 1, 1].repeat(3)).unwrap();
    let overlay = RgbImage::new(4, 3);
    let planes = ProbabilityPlanes::new(&[0.5; 24], 2, 4, 3).unwrap();
    exporter.add(&SegmentedImage {
        overlay: Some(&overlay),
        probabilities: Some(&planes),
        ..SegmentedImage::new(Path::new("street/7.jpg"), &labels)
    })?;
    let mut names: Vec<String> = exporter
        .finish()?
        .iter()
        .map(|file| {
            assert!(file.is_file(), "{}", file.display());
            let name = file.strip_prefix(folder).unwrap().to_str().unwrap();
            name.to_owned()
        })
        .collect();
    names.sort();
    Ok(names)
}

#[test]
fn every_format_writes_the_files_that_it_names() {
    let expected: [(&str, Needs, &[&str]); 13] = [
        ("labels", Needs::Labels, &["7.png"]),
        ("overlay", Needs::Overlay, &["7.overlay.png"]),
        ("summary", Needs::Labels, &["7.summary.json"]),
        (
            "probabilities",
            Needs::Scores,
            &["7.probability.000.png", "7.probability.001.png"],
        ),
        (
            "probabilities-npy",
            Needs::Scores,
            &["7.probability.npy", "classes.json"],
        ),
        ("coco", Needs::Labels, &["coco.json"]),
        ("coco-polygons", Needs::Labels, &["coco-polygons.json"]),
        (
            "label-studio",
            Needs::Labels,
            &["label-studio.json", "label-studio.xml"],
        ),
        (
            "label-studio-polygons",
            Needs::Labels,
            &["label-studio-polygons.json", "label-studio-polygons.xml"],
        ),
        ("cvat", Needs::Labels, &["cvat.xml"]),
        ("cvat-polygons", Needs::Labels, &["cvat-polygons.xml"]),
        ("yolo", Needs::Labels, &["data.yaml", "labels/7.txt"]),
        ("html", Needs::Overlay, &["index.html"]),
    ];
    assert_eq!(formats().count(), expected.len());
    let all = tempfile::tempdir().unwrap();
    for (format, (name, needs, files)) in formats().zip(expected) {
        assert_eq!((format.name, format.needs), (name, needs));
        assert_eq!(find_format(name), Some(format));
        assert_eq!(
            export(format, all.path(), Overwrite::Refuse).unwrap(),
            files
        );
        // The help names the files, NAME being the image's and CLASS the label.
        let named = format.about.split_once(':').unwrap().0;
        let named = named.replace("NAME", "7").replace("CLASS", "000");
        let first = named.split(" and ").next().unwrap();
        assert!(files.contains(&first), "{named}");
        if let Some(suffix) = format.image_suffix {
            assert_eq!(files, [format!("7{suffix}")]);
        }
        // The files are known before they are written, so that none is computed in vain.
        let own = format.own_files(Path::new("out"), Path::new("7"), 2);
        let shared = format
            .shared_files
            .iter()
            .map(|name| Path::new("out").join(name));
        let mut known: Vec<_> = own.iter().cloned().chain(shared).collect();
        known.sort();
        let written: Vec<_> = files
            .iter()
            .map(|name| Path::new("out").join(name))
            .collect();
        assert_eq!(known, written, "{name}");
        assert_eq!(format.is_shared(), own.is_empty());
        // An existing file is an error, and is replaced on request.
        let refused = export(format, all.path(), Overwrite::Refuse).unwrap_err();
        assert!(matches!(refused, ExportError::Exists { .. }), "{refused}");
        assert_eq!(
            export(format, all.path(), Overwrite::Replace).unwrap(),
            files
        );
    }
    // No two formats write the same file, and there are no other files.
    let files: usize = expected.iter().map(|(_, _, files)| files.len()).sum();
    assert_eq!(fs::read_dir(all.path()).unwrap().count(), files);
    assert_eq!(find_format("coco-json"), None);
}

#[test]
fn an_overlay_that_is_not_given_is_not_written() {
    let folder = tempfile::tempdir().unwrap();
    let settings = ExportSettings {
        folder: folder.path(),
        overwrite: Overwrite::Refuse,
        minimal_area: 1,
        address_prefix: "",
        method: "test",
        link_suffix: None,
    };
    let classes = Classes::new(vec!["cat".into()], vec![[255, 0, 0]]).unwrap();
    let overlay = find_format("overlay").unwrap();
    let mut exporter = overlay.open(classes, &settings).unwrap();
    let labels = LabelMap::new(2, 1, vec![0, 0]).unwrap();
    exporter
        .add(&SegmentedImage::new(Path::new("a.jpg"), &labels))
        .unwrap();
    assert!(exporter.finish().unwrap().is_empty());
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0);
}
