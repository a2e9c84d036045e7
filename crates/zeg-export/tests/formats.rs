//! Tests that exports equal, byte for byte, the files that `reference/export_formats.py check` has read with the
//! packages people use.

#![allow(clippy::unwrap_used)] // helpers of tests may panic, like the tests

mod common;

use std::fs;
use std::path::{Path, PathBuf};

use common::{Cases, golden};
use zeg_export::{
    CocoExporter, CocoOptions, Connectivity, CvatExporter, CvatOptions, Exporter, Grouping,
    LabelStudioExporter, LabelStudioOptions, Overwrite, ProbabilityExporter, ProbabilityFormat,
    ProbabilityPlanes, SegmentedImage, Shape, SummaryExporter,
};
use zeg_image::{decode_labels, write_named_png};

const EIGHT: Grouping = Grouping::Connected(Connectivity::Eight);
const EXACT: Shape = Shape::Polygons { tolerance: 0.0 };

/// Returns all exporters except those of probabilities.
fn exporters(cases: &Cases, folder: &Path) -> Vec<Box<dyn Exporter>> {
    let classes = || cases.classes();
    let coco = |name: &str, shape| {
        let options = CocoOptions {
            path: folder.join(name),
            overwrite: Overwrite::Replace,
            grouping: EIGHT,
            minimal_area: 1,
            shape,
            supercategory: "class".into(),
        };
        Box::new(CocoExporter::create(classes(), options).unwrap())
    };
    let label_studio = |name: &str, grouping, shape| {
        let options = LabelStudioOptions {
            tasks: folder.join(format!("{name}.json")),
            config: folder.join(format!("{name}.xml")),
            overwrite: Overwrite::Replace,
            grouping,
            minimal_area: 1,
            shape,
            address_prefix: "/data/local-files/?d=".into(),
            model_version: "zegclip \"voc\"".into(),
        };
        Box::new(LabelStudioExporter::create(classes(), options).unwrap())
    };
    let cvat = |name: &str, shape| {
        let options = CvatOptions {
            path: folder.join(name),
            overwrite: Overwrite::Replace,
            grouping: EIGHT,
            minimal_area: 1,
            shape,
        };
        Box::new(CvatExporter::create(classes(), options).unwrap())
    };
    let summary = folder.join("summary");
    vec![
        coco("coco.json", Shape::Mask),
        coco("coco_polygons.json", EXACT),
        label_studio("label_studio", Grouping::Class, Shape::Mask),
        label_studio("label_studio_polygons", EIGHT, EXACT),
        cvat("cvat.xml", Shape::Mask),
        cvat("cvat_polygons.xml", EXACT),
        Box::new(SummaryExporter::create(classes(), &summary, Overwrite::Replace).unwrap()),
    ]
}

/// Writes all images with all exporters and returns the files.
fn export(cases: &Cases, folder: &Path, mut exporters: Vec<Box<dyn Exporter>>) -> Vec<PathBuf> {
    for (index, case) in cases.images.iter().enumerate() {
        let (labels, confidence) = (case.map(), case.confidence());
        let count = cases.names.len() * labels.labels().len();
        let probabilities: Vec<f32> = (0..count).map(|i| (i * 11 % 257) as f32 / 256.0).collect();
        let planes = ProbabilityPlanes::new(
            &probabilities,
            cases.names.len(),
            labels.width(),
            labels.height(),
        );
        let stem = index.to_string();
        let image = SegmentedImage {
            stem: Path::new(&stem),
            confidence: Some(&confidence),
            probabilities: Some(&planes.unwrap()),
            ..SegmentedImage::new(&case.path, &labels)
        };
        for exporter in &mut exporters {
            exporter.add(&image).unwrap();
        }
    }
    let named = folder.join("named.png");
    let labels = cases.images[4].map();
    let _ = write_named_png(&named, &labels, &cases.palette, &cases.names).unwrap();
    let finish = |exporter: Box<dyn Exporter>| exporter.finish().unwrap();
    let mut files: Vec<_> = exporters.into_iter().flat_map(finish).collect();
    files.push(named);
    files
}

/// Returns the text of a file without the program version.
fn text(path: &Path) -> String {
    let text = fs::read_to_string(path).unwrap();
    text.replace(concat!("zeg ", env!("CARGO_PKG_VERSION")), "zeg VERSION")
}

#[test]
fn exports_are_those_that_the_packages_read() {
    let cases = Cases::read(&golden());
    if std::env::var_os("ZEG_EXPORT_GOLDEN").is_some_and(|value| value == "write") {
        export(&cases, &golden(), exporters(&cases, &golden()));
    }
    let folder = tempfile::tempdir().unwrap();
    let files = export(&cases, folder.path(), exporters(&cases, folder.path()));
    assert_eq!(files.len(), 4 + 4 + cases.images.len() + 1);
    for file in files {
        let golden = golden().join(file.strip_prefix(folder.path()).unwrap());
        if file.extension().is_some_and(|extension| extension == "png") {
            assert_eq!(
                decode_labels(&file).unwrap(),
                decode_labels(&golden).unwrap()
            );
        } else {
            assert_eq!(text(&file), text(&golden), "{}", golden.display());
        }
    }
    // There are no other files, not even temporary ones.
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 10);
}

#[test]
#[ignore = "writes into the folder named by ZEG_EXPORT_FOLDER, for reference/export_formats.py"]
fn exports_of_other_maps() {
    let folder = PathBuf::from(std::env::var_os("ZEG_EXPORT_FOLDER").unwrap());
    let cases = Cases::read(&folder);
    let mut all = exporters(&cases, &folder);
    for format in [ProbabilityFormat::Png, ProbabilityFormat::Npy] {
        let probability = folder.join("probability");
        let exporter =
            ProbabilityExporter::create(cases.classes(), format, &probability, Overwrite::Replace);
        all.push(Box::new(exporter.unwrap()));
    }
    export(&cases, &folder, all);
}
