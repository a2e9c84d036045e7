//! YOLO's format for segmentation, as Ultralytics reads it: a text file per image, and `data.yaml` with the class names.
//!
//! Each line of a text file is a region: the number of its class, then x and y of its corners, as parts of the image's
//! width and height. Classes are numbered from 0 in label order, without background classes. A line is one polygon, so
//! each region that is connected by edges has a line, and holes are filled, as by Ultralytics' converter from masks
//! (`convert_segment_masks_to_yolo_seg`); where regions overlap then, Ultralytics draws the smaller one on top. An image
//! without regions has an empty file.
//!
//! Ultralytics looks for the image of `labels/street/7.txt` at `images/street/7` with the extension of an image.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::formats::{ExportFormat, ExportSettings, Needs, Opened, POLYGONS, own_file};
use crate::output::{Folder, Target};
use crate::{
    Classes, Connectivity, ExportError, Exporter, Grouping, Overwrite, Region, SegmentedImage,
    Shape, polygons,
};

/// A line holds one polygon, so regions that only meet in a corner are two.
const GROUPING: Grouping = Grouping::Connected(Connectivity::Four);
/// Name of the file of class names.
const NAMES_FILE: &str = "data.yaml";
/// Folder of the text files.
const LABELS_FOLDER: &str = "labels";
/// Suffix of the text files.
const SUFFIX: &str = ".txt";

/// The format by its name.
pub(crate) static FORMAT: ExportFormat = ExportFormat {
    name: "yolo",
    about: "labels/NAME.txt and data.yaml: YOLO segmentation, regions as polygons",
    needs: Needs::Labels,
    image_suffix: None,
    own_files: |stem, _| vec![Path::new(LABELS_FOLDER).join(own_file(stem, SUFFIX))],
    shared_files: &[NAMES_FILE],
    open,
};

fn open(classes: Classes, settings: &ExportSettings) -> Opened {
    let tolerance = match POLYGONS {
        Shape::Polygons { tolerance } => tolerance,
        Shape::Mask => 0.0,
    };
    let options = YoloOptions {
        folder: settings.folder.to_owned(),
        overwrite: settings.overwrite,
        minimal_area: settings.minimal_area,
        tolerance,
    };
    Ok(Box::new(YoloExporter::create(classes, options)?))
}

/// Settings of a [`YoloExporter`].
#[derive(Debug, Clone, PartialEq)]
pub struct YoloOptions {
    /// The folder of `data.yaml` and `labels`.
    pub folder: PathBuf,
    /// Whether existing files are replaced.
    pub overwrite: Overwrite,
    /// Smallest area of an exported region, in pixels.
    pub minimal_area: u64,
    /// Largest distance of the outline from the pixel edges, in pixels; 0 is exact.
    pub tolerance: f32,
}

/// Writes a text file of polygons for every image, and the class names.
#[derive(Debug)]
pub struct YoloExporter {
    options: YoloOptions,
    classes: Classes,
    names: Target,
    files: Folder,
}

impl YoloExporter {
    /// Creates the folder and the file of class names.
    ///
    /// # Errors
    /// Returns [`ExportError::Exists`] or [`ExportError::Unwritable`].
    pub fn create(classes: Classes, options: YoloOptions) -> Result<Self, ExportError> {
        let path = options.folder.join(NAMES_FILE);
        let mut names = Target::create(&path, options.overwrite)?;
        names.fill(|file| write_names(file, &classes))?;
        let files = Folder::create(&options.folder.join(LABELS_FOLDER), options.overwrite)?;
        Ok(Self {
            options,
            classes,
            names,
            files,
        })
    }
}

impl Exporter for YoloExporter {
    fn add(&mut self, segmented: &SegmentedImage<'_>) -> Result<(), ExportError> {
        segmented.check(&self.classes)?;
        let regions = segmented.regions(GROUPING, self.options.minimal_area)?;
        let mut text = String::new();
        for region in regions.iter() {
            let class = self.classes.category(region.label());
            push_lines(&mut text, class, &region, self.options.tolerance);
        }
        let mut target = self.files.target(segmented.stem, SUFFIX)?;
        target.fill(|file| file.write_all(text.as_bytes()))?;
        self.files.finish(target)
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, ExportError> {
        let mut files = self.files.into_files();
        files.push(self.names.finish()?);
        Ok(files)
    }
}

/// Appends a line for each outline of a region; a region that is connected by edges has one.
fn push_lines(text: &mut String, class: u32, region: &Region<'_>, tolerance: f32) {
    let (width, height) = (region.map_width(), region.map_height());
    for polygon in polygons(region, tolerance) {
        // Writing to a string cannot fail.
        let _ = write!(text, "{class}");
        for &[x, y] in polygon.exterior() {
            let _ = write!(text, " {} {}", share(x, width), share(y, height));
        }
        text.push('\n');
    }
}

/// Returns a coordinate as a part of the image's side, to six decimals.
fn share(value: u32, all: u32) -> f64 {
    const STEPS: f64 = 1e6;
    (f64::from(value) / f64::from(all) * STEPS).round() / STEPS
}

fn write_names(file: &mut impl Write, classes: &Classes) -> io::Result<()> {
    let version = env!("CARGO_PKG_VERSION");
    writeln!(file, "# written by zeg {version}")?;
    writeln!(
        file,
        "# {LABELS_FOLDER}/a.txt holds the regions of images/a.jpg"
    )?;
    writeln!(file, "train: images\nval: images\nnames:")?;
    for (label, name) in classes.categories() {
        // A JSON string is a quoted string of YAML, too.
        let name = serde_json::to_string(name)?;
        writeln!(file, "  {}: {name}", classes.category(label))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use zeg_image::{IGNORE_LABEL, LabelMap};

    use super::*;

    const NONE: u16 = IGNORE_LABEL;

    fn export(classes: Classes, labels: &LabelMap) -> (String, String) {
        let folder = tempfile::tempdir().unwrap();
        let options = YoloOptions {
            folder: folder.path().to_owned(),
            overwrite: Overwrite::Refuse,
            minimal_area: 1,
            tolerance: 0.0,
        };
        let mut exporter = Box::new(YoloExporter::create(classes, options).unwrap());
        let image = SegmentedImage::new(Path::new("street/7.jpg"), labels);
        exporter.add(&image).unwrap();
        let files = exporter.finish().unwrap();
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).unwrap();
        assert_eq!(files.len(), 2);
        (read("labels/7.txt"), read("data.yaml"))
    }

    fn classes(names: &[&str]) -> Classes {
        let names = names.iter().map(ToString::to_string).collect();
        Classes::new(names, vec![]).unwrap()
    }

    #[test]
    fn a_line_is_a_region_with_its_corners_as_parts_of_the_sides() {
        let map = [
            [NONE, 0, 0, NONE, NONE],
            [NONE, 0, 0, NONE, NONE],
            [NONE, NONE, NONE, 1, NONE],
            [NONE, NONE, NONE, NONE, 1],
        ];
        let labels = LabelMap::new(5, 4, map.concat()).unwrap();
        let (text, names) = export(classes(&["cat", "a \"big\" dog: no. 1"]), &labels);
        // Regions that only meet in a corner are two.
        assert_eq!(
            text,
            "0 0.2 0 0.6 0 0.6 0.5 0.2 0.5\n\
             1 0.6 0.5 0.8 0.5 0.8 0.75 0.6 0.75\n\
             1 0.8 0.75 1 0.75 1 1 0.8 1\n"
        );
        let end =
            "train: images\nval: images\nnames:\n  0: \"cat\"\n  1: \"a \\\"big\\\" dog: no. 1\"\n";
        assert!(names.ends_with(end), "{names}");
    }

    #[test]
    fn holes_are_filled_and_the_region_in_a_hole_has_its_own_line() {
        let map = [[0, 0, 0], [0, 1, 0], [0, 0, 0]];
        let labels = LabelMap::new(3, 3, map.concat()).unwrap();
        let (text, _) = export(classes(&["wall", "window"]), &labels);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 2);
        let corners = lines[0].split(' ').skip(1).map(str::parse::<f64>);
        let corners: Vec<f64> = corners.collect::<Result<_, _>>().unwrap();
        let inner = corners.iter().any(|part| *part > 0.5 && *part < 1.0);
        assert!(!inner, "{text}");
        assert_eq!(
            lines[1],
            "1 0.333333 0.333333 0.666667 0.333333 0.666667 0.666667 0.333333 0.666667"
        );
    }

    #[test]
    fn background_classes_have_no_number_and_an_empty_image_an_empty_file() {
        let names = classes(&["wall", "cat", "dog"]).with_background([0]);
        let labels = LabelMap::new(2, 1, vec![NONE, 2]).unwrap();
        let (text, yaml) = export(names.clone(), &labels);
        assert_eq!(text, "1 0.5 0 1 0 1 1 0.5 1\n");
        assert!(
            yaml.ends_with("names:\n  0: \"cat\"\n  1: \"dog\"\n"),
            "{yaml}"
        );
        let (text, _) = export(names, &LabelMap::filled(2, 1, NONE));
        assert_eq!(text, "");
    }
}
