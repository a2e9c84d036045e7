//! CVAT's XML for images, version 1.1: CVAT imports it as the annotations of a task, and datumaro reads it.
//!
//! A mask is the bounding box of a region with run lengths by rows: alternating numbers of pixels outside and inside.
//! CVAT identifies images and labels by name, so the labels of a task must have the names that the head of the file
//! lists.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::path::PathBuf;

use quick_xml::Writer;
use quick_xml::events::BytesText;

use crate::classes::xml_text;
use crate::formats::{ExportFormat, ExportSettings, GROUPING, Needs, Opened, POLYGONS, no_files};
use crate::output::Target;
use crate::{
    Classes, ExportError, Exporter, Grouping, Overwrite, Region, SegmentedImage, Shape, polygons,
};

/// The format with regions as masks.
pub(crate) static MASK_FORMAT: ExportFormat = ExportFormat {
    name: "cvat",
    about: "cvat.xml: annotations for CVAT, masks",
    needs: Needs::Labels,
    image_suffix: None,
    own_files: no_files,
    shared_files: &["cvat.xml"],
    open: |classes, settings| open(classes, settings, "cvat.xml", Shape::Mask),
};

/// The format with regions as polygons.
pub(crate) static POLYGON_FORMAT: ExportFormat = ExportFormat {
    name: "cvat-polygons",
    about: "cvat-polygons.xml: annotations for CVAT, polygons",
    needs: Needs::Labels,
    image_suffix: None,
    own_files: no_files,
    shared_files: &["cvat-polygons.xml"],
    open: |classes, settings| open(classes, settings, "cvat-polygons.xml", POLYGONS),
};

fn open(classes: Classes, settings: &ExportSettings, name: &str, shape: Shape) -> Opened {
    let options = CvatOptions {
        path: settings.folder.join(name),
        overwrite: settings.overwrite,
        grouping: GROUPING,
        minimal_area: settings.minimal_area,
        shape,
    };
    Ok(Box::new(CvatExporter::create(classes, options)?))
}

/// Settings of a [`CvatExporter`].
#[derive(Debug, Clone, PartialEq)]
pub struct CvatOptions {
    /// The XML file.
    pub path: PathBuf,
    /// Whether an existing file is replaced.
    pub overwrite: Overwrite,
    /// Which pixels form one shape.
    pub grouping: Grouping,
    /// Smallest area of an exported region, in pixels.
    pub minimal_area: u64,
    /// Masks or polygons.
    pub shape: Shape,
}

/// Writes the annotations of all images as one CVAT file.
#[derive(Debug)]
pub struct CvatExporter {
    options: CvatOptions,
    classes: Classes,
    /// The class names as they are in the head of the file.
    names: Vec<String>,
    target: Target,
    images: u64,
}

impl CvatExporter {
    /// Creates the file and writes the labels.
    ///
    /// # Errors
    /// Returns [`ExportError::DuplicateName`], since CVAT identifies labels by name, [`ExportError::Exists`] or
    /// [`ExportError::Unwritable`].
    pub fn create(classes: Classes, options: CvatOptions) -> Result<Self, ExportError> {
        let names = classes.xml_names()?;
        let mut target = Target::create(&options.path, options.overwrite)?;
        target.fill(|file| write_head(file, &classes, &names))?;
        Ok(Self {
            options,
            classes,
            names,
            target,
            images: 0,
        })
    }
}

impl Exporter for CvatExporter {
    fn add(&mut self, segmented: &SegmentedImage<'_>) -> Result<(), ExportError> {
        segmented.check(&self.classes)?;
        let regions = segmented.regions(self.options.grouping, self.options.minimal_area)?;
        let (names, shape) = (&self.names, self.options.shape);
        let attributes = [
            ("id", self.images.to_string()),
            ("name", xml_text(&segmented.name())),
            ("width", segmented.width().to_string()),
            ("height", segmented.height().to_string()),
        ];
        self.target.fill(|file| {
            let mut xml = Writer::new_with_indent(&mut *file, b' ', 2);
            let image = xml.create_element("image");
            image
                .with_attributes(borrowed(&attributes))
                .write_inner_content(|xml| {
                    for region in regions.iter() {
                        let name = names.get(usize::from(region.label()));
                        let name = name.map_or("", String::as_str);
                        write_region(xml, &region, name, shape)?;
                    }
                    Ok(())
                })?;
            file.write_all(b"\n")
        })?;
        self.images += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, ExportError> {
        let mut target = self.target;
        target.fill(|file| file.write_all(b"</annotations>\n"))?;
        Ok(vec![target.finish()?])
    }
}

fn borrowed<'a, const N: usize>(
    attributes: &'a [(&'a str, String); N],
) -> impl Iterator<Item = (&'a str, &'a str)> {
    attributes.iter().map(|(key, value)| (*key, value.as_str()))
}

fn write_head(file: &mut impl Write, classes: &Classes, names: &[String]) -> io::Result<()> {
    let head = "<?xml version=\"1.0\" encoding=\"utf-8\"?>\n<annotations>\n";
    file.write_all(head.as_bytes())?;
    let mut xml = Writer::new_with_indent(&mut *file, b' ', 2);
    write_text(&mut xml, "version", "1.1")?;
    xml.create_element("meta").write_inner_content(|xml| {
        xml.create_element("task").write_inner_content(|xml| {
            write_text(xml, "name", "zeg")?;
            write_text(xml, "mode", "annotation")?;
            xml.create_element("labels").write_inner_content(|xml| {
                for (label, _) in classes.categories() {
                    let name = names.get(usize::from(label)).map_or("", String::as_str);
                    xml.create_element("label").write_inner_content(|xml| {
                        write_text(xml, "name", name)?;
                        write_text(xml, "color", &classes.hex_colour(label))?;
                        write_text(xml, "type", "any")?;
                        xml.create_element("attributes").write_empty()?;
                        Ok(())
                    })?;
                }
                Ok(())
            })?;
            Ok(())
        })?;
        Ok(())
    })?;
    file.write_all(b"\n")
}

fn write_text<W: Write>(xml: &mut Writer<W>, element: &str, text: &str) -> io::Result<()> {
    xml.create_element(element)
        .write_text_content(BytesText::new(text))?;
    Ok(())
}

/// Writes a region as its mask, or as one polygon for each connected part.
fn write_region<W: Write>(
    xml: &mut Writer<W>,
    region: &Region<'_>,
    name: &str,
    shape: Shape,
) -> io::Result<()> {
    let common = [
        ("label", name),
        ("source", "auto"),
        ("occluded", "0"),
        ("z_order", "0"),
    ];
    match shape {
        Shape::Mask => {
            let bounds = region.bounding_box();
            let place = [
                ("rle", row_counts(region)),
                ("left", bounds.left.to_string()),
                ("top", bounds.top.to_string()),
                ("width", bounds.width.to_string()),
                ("height", bounds.height.to_string()),
            ];
            let element = xml.create_element("mask").with_attributes(common);
            element.with_attributes(borrowed(&place)).write_empty()?;
        }
        Shape::Polygons { tolerance } => {
            for polygon in polygons(region, tolerance) {
                let points = point_list(&polygon.bridged());
                let element = xml.create_element("polygon").with_attributes(common);
                element
                    .with_attribute(("points", points.as_str()))
                    .write_empty()?;
            }
        }
    }
    Ok(())
}

/// Returns the run lengths of a region within its bounding box, row by row.
fn row_counts(region: &Region<'_>) -> String {
    let bounds = region.bounding_box();
    let width = u64::from(bounds.width);
    let mut counts: Vec<u64> = Vec::new();
    let mut position = 0;
    for run in region.runs() {
        let start = u64::from(run.y - bounds.top) * width + u64::from(run.x - bounds.left);
        let length = u64::from(run.length);
        match counts.last_mut() {
            // A run that reaches the right edge continues in the next row.
            Some(last) if start == position => *last += length,
            _ => counts.extend([start - position, length]),
        }
        position = start + length;
    }
    let rest = width * u64::from(bounds.height) - position;
    counts.extend((rest > 0).then_some(rest));
    let counts: Vec<_> = counts.iter().map(u64::to_string).collect();
    counts.join(", ")
}

fn point_list(points: &[[u32; 2]]) -> String {
    let mut list = String::new();
    for [x, y] in points {
        let separator = if list.is_empty() { "" } else { ";" };
        // Writing to a string cannot fail.
        let _ = write!(list, "{separator}{x}.0,{y}.0");
    }
    list
}
