//! Tests probability maps by reading the written files.

#![allow(clippy::unwrap_used)] // helpers of tests may panic, like the tests

use std::fs::{self, File};
use std::io::BufReader;
use std::path::Path;

use half::f16;
use zeg_export::probability::CLASS_NAME_KEYWORD;
use zeg_export::{
    Classes, Exporter, Overwrite, ProbabilityExporter, ProbabilityFormat, ProbabilityPlanes,
    SegmentedImage,
};
use zeg_image::LabelMap;

const VALUES: [f32; 12] = [
    0.0,
    0.25,
    0.5,
    1.0,
    0.1,
    0.9, // first class
    1.0,
    0.75,
    0.5,
    0.0,
    f32::NAN,
    7.0, // second class
];

fn export(format: ProbabilityFormat, folder: &Path) -> Vec<std::path::PathBuf> {
    let names = ["sky", "sea \0 & 人"].map(String::from).to_vec();
    let classes = Classes::new(names, vec![]).unwrap();
    let exporter = ProbabilityExporter::create(classes, format, folder, Overwrite::Refuse);
    let mut exporter = Box::new(exporter.unwrap());
    let labels = LabelMap::filled(3, 2, 0);
    let planes = ProbabilityPlanes::new(&VALUES, 2, 3, 2).unwrap();
    let image = SegmentedImage {
        probabilities: Some(&planes),
        ..SegmentedImage::new(Path::new("a.jpg"), &labels)
    };
    exporter.add(&image).unwrap();
    exporter.finish().unwrap()
}

#[test]
fn a_grey_image_for_each_class() {
    let folder = tempfile::tempdir().unwrap();
    let files = export(ProbabilityFormat::Png, folder.path());
    let expected = [
        (
            "a.probability.000.png",
            "sky",
            [0, 16384, 32768, 65535, 6554, 58981],
        ),
        (
            "a.probability.001.png",
            "sea \u{fffd} & 人",
            [65535, 49151, 32768, 0, 0, 65535],
        ),
    ];
    assert_eq!(files.len(), 2);
    for (file, (name, class, greys)) in files.iter().zip(expected) {
        assert_eq!(file, &folder.path().join(name));
        let decoder = png::Decoder::new(BufReader::new(File::open(file).unwrap()));
        let mut reader = decoder.read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        assert_eq!(
            (info.width, info.height, info.bit_depth),
            (3, 2, png::BitDepth::Sixteen)
        );
        let found: Vec<_> = bytes
            .chunks(2)
            .map(|pair| u16::from_be_bytes([pair[0], pair[1]]))
            .collect();
        assert_eq!(found, greys);
        let text = &reader.info().utf8_text[0];
        assert_eq!(text.keyword, CLASS_NAME_KEYWORD);
        assert_eq!(text.get_text().unwrap(), class);
    }
}

#[test]
fn one_array_for_all_classes() {
    let folder = tempfile::tempdir().unwrap();
    let files = export(ProbabilityFormat::Npy, folder.path());
    assert_eq!(
        files,
        ["a.probability.npy", "classes.json"].map(|name| folder.path().join(name))
    );
    let array = npyz::NpyFile::new(BufReader::new(File::open(&files[0]).unwrap())).unwrap();
    assert_eq!(array.shape(), [2, 2, 3]);
    let found: Vec<f16> = array.into_vec().unwrap();
    let clamped = VALUES.map(|value| {
        if value.is_nan() {
            0.0
        } else {
            value.clamp(0.0, 1.0)
        }
    });
    assert_eq!(found, clamped.map(f16::from_f32));
    let names: Vec<String> = serde_json::from_slice(&fs::read(&files[1]).unwrap()).unwrap();
    assert_eq!(names, ["sky", "sea \0 & 人"]);
}
