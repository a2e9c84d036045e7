//! Tests of data sets whose labels are COCO annotations.

use std::fs;
use std::path::Path;

use image::{Rgb, RgbImage};
use tempfile::TempDir;
use zeg_image::IGNORE_LABEL;

use crate::doctor::{DoctorOptions, examine};
use crate::{DataError, Dataset, Selection, open};

const NONE: u16 = IGNORE_LABEL;
/// Categories, with ids that have gaps and names in another form than the class names.
const CATEGORIES: &str = r#""categories": [{"id": 3, "name": "Traffic-Light"}, {"id": 7, "name": "car"}, {"id": 9, "name": "never used"}]"#;
const CLASSES: &str =
    "classes = ['background', 'traffic light', { name = 'vehicle', synonyms = ['car'] }]";

/// A data set of one image of 4×3 pixels in a temporary folder.
struct Street(TempDir);

impl Street {
    fn new() -> Self {
        let street = Self(tempfile::tempdir().unwrap());
        fs::create_dir(street.0.path().join("images")).unwrap();
        let image = RgbImage::new(4, 3);
        image.save(street.0.path().join("images/a.png")).unwrap();
        street
    }

    fn instances(&self, annotations: &str) {
        let images = r#""images": [{"id": 5, "file_name": "a.png", "width": 4, "height": 3}]"#;
        let json = format!("{{{images}, {CATEGORIES}, \"annotations\": [{annotations}]}}");
        fs::write(self.0.path().join("a.json"), json).unwrap();
    }

    fn describe(&self, labels: &str) -> String {
        let path = self.0.path().join("street.toml");
        let text = format!("name = 'street'\nimages = 'images'\n{CLASSES}\n[labels]\n{labels}\n");
        fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    }

    fn open(&self, labels: &str) -> Result<Dataset, DataError> {
        let toml = self.describe(labels);
        open(&selection(&toml))
    }

    /// Returns the labels of the image.
    fn labels(&self, labels: &str) -> Result<Vec<u16>, DataError> {
        Ok(self.open(labels)?.load(0)?.labels.into_labels())
    }
}

fn selection(toml: &str) -> Selection<'_> {
    Selection {
        dataset: toml,
        root: Path::new(""),
        split: "all",
        classes: None,
        unseen: None,
    }
}

const INSTANCES: &str = "format = 'coco-instances'\nfile = 'a.json'";
/// A polygon of 2×2 pixels from (1, 0), a mask of the left three columns in plain run lengths, and one in the
/// compressed form with the pixel (3, 2).
const POLYGON: &str = r#"{"image_id": 5, "category_id": 3, "segmentation": [[1, 0, 3, 0, 3, 2, 1, 2]], "iscrowd": 0}"#;
const PLAIN: &str = r#"{"image_id": 5, "category_id": 7, "segmentation": {"size": [3, 4], "counts": [0, 9, 3]}, "iscrowd": 0}"#;
const PIXEL: &str = r#"{"image_id": 5, "category_id": 7, "segmentation": {"size": [3, 4], "counts": ";1"}, "iscrowd": 0}"#;

#[test]
fn polygons_and_both_forms_of_run_lengths_are_masks() {
    let street = Street::new();
    for (annotation, expected) in [
        (
            POLYGON,
            [NONE, 1, 1, NONE, NONE, 1, 1, NONE, NONE, NONE, NONE, NONE],
        ),
        (PLAIN, [2, 2, 2, NONE, 2, 2, 2, NONE, 2, 2, 2, NONE]),
        (
            PIXEL,
            [
                NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, NONE, 2,
            ],
        ),
    ] {
        street.instances(annotation);
        assert_eq!(street.labels(INSTANCES).unwrap(), expected, "{annotation}");
    }
    // Pixels without an annotation may be a class.
    street.instances(PIXEL);
    let background = format!("{INSTANCES}\nbackground = 'background'");
    let labels = street.labels(&background).unwrap();
    assert_eq!(labels, [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2]);
}

#[test]
fn of_overlapping_objects_the_smaller_one_lies_on_top() {
    let street = Street::new();
    // The smaller polygon comes first in the file.
    street.instances(&format!("{POLYGON}, {PLAIN}"));
    let smaller = [2, 1, 1, NONE, 2, 1, 1, NONE, 2, 2, 2, NONE];
    let larger = [2, 2, 2, NONE, 2, 2, 2, NONE, 2, 2, 2, NONE];
    let ignored = [2, NONE, NONE, NONE, 2, NONE, NONE, NONE, 2, 2, 2, NONE];
    let labels = |rest: &str| street.labels(&format!("{INSTANCES}\n{rest}")).unwrap();
    assert_eq!(labels(""), smaller);
    assert_eq!(labels("overlap = 'smaller-area'"), smaller);
    assert_eq!(labels("overlap = 'later'"), larger);
    assert_eq!(labels("overlap = 'ignore'"), ignored);
    // A cache of labels depends on the rule.
    let rule = |rest: &str| {
        let dataset = street.open(&format!("{INSTANCES}\n{rest}")).unwrap();
        crate::OpenSet::Files(dataset).fingerprint()
    };
    assert_ne!(rule("overlap = 'later'"), rule("overlap = 'ignore'"));
    assert_ne!(rule("ignore = ['car']"), rule(""));
    // A crowd lies below all objects, even if it is smaller.
    let crowd = POLYGON.replace("\"iscrowd\": 0", "\"iscrowd\": 1");
    street.instances(&format!("{PLAIN}, {crowd}"));
    assert_eq!(labels(""), larger);
}

#[test]
fn categories_that_are_no_classes_are_errors_until_they_are_mapped_or_ignored() {
    let street = Street::new();
    street.instances(PLAIN);
    let text = fs::read_to_string(street.describe(INSTANCES)).unwrap();
    let text = text.replace("{ name = 'vehicle', synonyms = ['car'] }", "'tram'");
    let read = |rest: &str| {
        let path = street.0.path().join("other.toml");
        fs::write(&path, format!("{text}{rest}\n")).unwrap();
        let dataset = open(&selection(path.to_str().unwrap()))?;
        Ok::<_, DataError>(dataset.load(0)?.labels.into_labels())
    };
    let error = read("").unwrap_err();
    let expected = "no class of street has the name of the category \"car\"; its classes are \"background\", \"traffic light\", \"tram\"";
    assert!(error.to_string().ends_with(expected), "{error}");
    let expected = [2, 2, 2, NONE, 2, 2, 2, NONE, 2, 2, 2, NONE];
    assert_eq!(read("map = { car = 'tram' }").unwrap(), expected);
    assert_eq!(read("ignore = ['car']").unwrap(), [NONE; 12]);
    let error = read("map = { car = 'tramway' }").unwrap_err().to_string();
    assert!(
        error.contains("`labels.map`: \"tramway\" is not one class"),
        "{error}"
    );
    for (rest, expected) in [
        (
            "map = { car = 'tram', Trafic-Light = 'tram' }",
            "the file has no category \"Trafic-Light\", which `labels.map` names; did you mean \"Traffic-Light\"?",
        ),
        (
            "ignore = ['car', 'bus stop']",
            "the file has no category \"bus stop\", which `labels.ignore` names",
        ),
        (
            "map = { car = 'tram' }\nignore = ['car']",
            "the category \"car\" is both in `labels.map` and in `labels.ignore`; leave it out of one of them",
        ),
    ] {
        let error = read(rest).unwrap_err().to_string();
        assert!(error.ends_with(expected), "{error}");
    }
}

#[test]
fn panoptic_segments_are_classes_by_the_colours_of_their_png() {
    let street = Street::new();
    let json = format!(
        r#"{{"images": [{{"id": 5, "file_name": "a.png", "width": 4, "height": 3}}, {{"id": 6, "file_name": "b.png", "width": 4, "height": 3}}], {CATEGORIES},
        "annotations": [{{"image_id": 5, "file_name": "a.png", "segments_info": [{{"id": 65793, "category_id": 7}}, {{"id": 2, "category_id": 3}}]}}]}}"#
    );
    fs::write(street.0.path().join("a.json"), &json).unwrap();
    fs::create_dir(street.0.path().join("png")).unwrap();
    let png = street.0.path().join("png/a.png");
    let mut map = RgbImage::new(4, 3);
    map.put_pixel(0, 0, Rgb([1, 1, 1])); // 1 + 256 + 65536
    map.put_pixel(3, 2, Rgb([2, 0, 0]));
    map.save(&png).unwrap();
    let panoptic = "format = 'coco-panoptic'\nfile = 'a.json'\nfolder = 'png'";
    let dataset = street.open(panoptic).unwrap();
    assert_eq!(dataset.len(), 1);
    assert_eq!(dataset.items[0].labels, png);
    let mut expected = [NONE; 12];
    (expected[0], expected[11]) = (2, 1);
    assert_eq!(street.labels(panoptic).unwrap(), expected);

    map.put_pixel(1, 1, Rgb([0, 1, 0]));
    map.save(&png).unwrap();
    let error = street.labels(panoptic).unwrap_err().to_string();
    assert!(
        error.ends_with("image a.png: the segment 256 at (1, 1) of the PNG is not listed"),
        "{error}"
    );

    let json = json.replace("\"id\": 2,", "\"id\": 65793,");
    fs::write(street.0.path().join("a.json"), json).unwrap();
    let error = street.labels(panoptic).unwrap_err().to_string();
    assert!(
        error.ends_with("`segments_info` lists the segment 65793 twice"),
        "{error}"
    );
}

#[test]
fn ids_are_whole_numbers_and_each_stands_for_one_thing() {
    let street = Street::new();
    let path = street.0.path().join("a.json");
    street.instances(&PLAIN.replace("\"category_id\": 7", "\"category_id\": 7.0"));
    let expected = [2, 2, 2, NONE, 2, 2, 2, NONE, 2, 2, 2, NONE];
    assert_eq!(street.labels(INSTANCES).unwrap(), expected);
    let json = fs::read_to_string(&path).unwrap();
    fs::write(&path, format!("\u{feff}{json}")).unwrap();
    assert_eq!(street.labels(INSTANCES).unwrap(), expected);
    let two_images = r#"{"id": 6, "file_name": "a.jpg", "width": 4, "height": 3}, {"id": 5,"#;
    for (from, to, expected) in [
        (": 7.0", ": 7.5", "the id 7.5 is not a whole number"),
        (
            "\"id\": 9",
            "\"id\": 7",
            "the categories \"car\" and \"never used\" have the same id 7",
        ),
        (
            "{\"id\": 5,",
            two_images,
            "have the same id `a`, after which results are named",
        ),
    ] {
        fs::write(&path, json.replacen(from, to, 1)).unwrap();
        let error = street.labels(INSTANCES).unwrap_err().to_string();
        assert!(error.contains(expected), "{error}");
    }
    let options = DoctorOptions {
        threads: 1,
        limit: None,
    };
    let toml = street.describe(INSTANCES);
    let diagnosis = examine(&selection(&toml), &options, &|_, _| {}).unwrap();
    let mut findings = diagnosis.findings.iter();
    let finding = findings.find(|f| f.code.as_str() == "repeated-id").unwrap();
    assert!(finding.message.contains("have the id `a`"), "{finding:?}");
}

#[test]
fn splits_have_files_of_their_own_and_lists_name_images() {
    let street = Street::new();
    street.instances(PLAIN);
    fs::write(street.0.path().join("list.txt"), "a\n").unwrap();
    let text = format!(
        "name = 'street'\nimages = 'images'\nlabels = {{ format = 'coco-instances' }}\n{CLASSES}\n\
         [splits]\nval = {{ images = 'images', labels = {{ file = 'a.json' }} }}\nlist = 'list.txt'\nall = 'all'\n"
    );
    let path = street.0.path().join("splits.toml");
    fs::write(&path, text).unwrap();
    let open = |split| {
        open(&Selection {
            split,
            ..selection(path.to_str().unwrap())
        })
    };
    for split in ["val", "list"] {
        let dataset = open(split).unwrap();
        assert_eq!(dataset.items[0].id, "a", "{split}");
        assert_eq!(
            dataset.load(0).unwrap().labels.get(0, 0),
            Some(2),
            "{split}"
        );
    }
    let error = open("all").unwrap_err();
    assert!(matches!(error, DataError::NoAnnotations { .. }), "{error}");
}

#[test]
fn unusable_annotations_are_errors_that_name_the_file_and_the_image() {
    let street = Street::new();
    let two = "[[1, 1, 2, 2]]";
    let square = "[[1, 0, 3, 0, 3, 2, 1, 2]]";
    for (from, to, expected) in [
        (
            square,
            two,
            "image a.png: annotation 0, counted from 0: a polygon has 4 coordinates",
        ),
        (
            square,
            "[[0, 0, 0.5, 0, 0.5, 1]]",
            "the coordinates look normalised",
        ),
        (square, "[]", "it has no mask, maybe only a box"),
        (square, "null", "it has no mask, maybe only a box"),
        (square, "3", "its mask is neither polygons nor run lengths"),
        (
            square,
            r#"{"size": [4, 3], "counts": [12]}"#,
            "the mask is 3×4, but the image 4×3",
        ),
        (
            square,
            r#"{"size": [3, 4], "counts": [13]}"#,
            "the run lengths add up to 13",
        ),
        (
            square,
            r#"{"size": [3, 4], "counts": "\u0000"}"#,
            "is not legal there",
        ),
        (
            "\"category_id\": 3",
            "\"category_id\": 4",
            "the file has no category 4",
        ),
        ("\"category_id\": 3, ", "", "has no `category_id`"),
        ("\"image_id\": 5", "\"image_id\": 6", "belongs to no image"),
    ] {
        street.instances(&POLYGON.replace(from, to));
        let error = street.labels(INSTANCES).unwrap_err().to_string();
        assert!(error.contains("a.json: "), "{to}: {error}");
        assert!(error.contains(expected), "{to}: {error}");
    }
    street.instances(POLYGON);
    let json = fs::read_to_string(street.0.path().join("a.json")).unwrap();
    for (from, to, expected) in [
        ("\"width\": 4", "\"width\": 5", "but its label map"),
        (
            "\"width\": 4",
            "\"width\": 4000000000",
            "its size is 4000000000×3",
        ),
        ("a.png", "../a.png", "lies outside of the folder"),
        (
            "\"images\"",
            "\"photos\"",
            "not COCO annotations: missing field `images`",
        ),
        ("{", "", "not COCO annotations"),
    ] {
        fs::write(street.0.path().join("a.json"), json.replacen(from, to, 1)).unwrap();
        let error = street.labels(INSTANCES).unwrap_err().to_string();
        assert!(error.contains(expected), "{to}: {error}");
    }
}

#[test]
fn keys_of_label_files_and_of_annotations_do_not_mix() {
    let street = Street::new();
    street.instances(POLYGON);
    let panoptic = INSTANCES.replace("instances", "panoptic");
    for (labels, expected) in [
        (
            format!("{INSTANCES}\nfolder = 'png'"),
            "`folder` is only allowed with format = \"coco-panoptic\"",
        ),
        (panoptic, "needs `folder`, the folder of the PNGs"),
        (
            INSTANCES.replace("coco-instances", "coco"),
            "unknown variant `coco`",
        ),
        (
            format!("{INSTANCES}\nbackground = 'sky'"),
            "`labels.background`: \"sky\" is not one class",
        ),
        (format!("{INSTANCES}\nfiles = 'x'"), "unknown field `files`"),
    ] {
        let error = street.open(&labels).unwrap_err().to_string();
        assert!(error.contains("street.toml: line "), "{error}");
        assert!(error.contains(expected), "{labels}: {error}");
    }
    let toml = street.describe(INSTANCES);
    let text = fs::read_to_string(&toml).unwrap();
    fs::write(&toml, format!("kind = 'index'\n{text}")).unwrap();
    let error = open(&selection(&toml)).unwrap_err().to_string();
    assert!(
        error.contains("line 1: `kind` is about label files"),
        "{error}"
    );
}

#[test]
fn the_doctor_counts_annotations() {
    let street = Street::new();
    street.instances(&format!("{POLYGON}, {PLAIN}"));
    let options = DoctorOptions {
        threads: 1,
        limit: None,
    };
    let toml = street.describe(INSTANCES);
    let examine = || examine(&selection(&toml), &options, &|_, _| {}).unwrap();
    let diagnosis = examine();
    let pixels: Vec<u64> = diagnosis.classes.iter().map(|class| class.pixels).collect();
    assert_eq!(pixels, [0, 4, 5]);
    assert_eq!(diagnosis.ignored_pixels, 3);
    street.instances(&PLAIN.replace("[0, 9, 3]", "[0, 9]"));
    let broken = examine();
    let finding = broken
        .findings
        .iter()
        .find(|f| f.code.as_str() == "unreadable-labels");
    let message = &finding.unwrap().message;
    assert!(
        message.contains("a.json: image a.png: annotation 0"),
        "{message}"
    );
}
