//! COCO's detection JSON: one file for all images, with an annotation for each region.
//!
//! The file is written image by image. Only the list of images is kept in a temporary file, because it follows the
//! annotations. Category ids count from 1 in label order, since many readers reserve 0 for the background; background
//! classes, which no pixel has, are no categories. Image and annotation ids count from 1 as well.
//!
//! `iscrowd` is always 0. In COCO's own files only annotations with `iscrowd` 1 have a run-length mask, but there the
//! value marks a crowd that scoring ignores, which no region here is. pycocotools and detectron2 read masks with either
//! value.

use std::io::{self, Write};
use std::path::PathBuf;

use serde::Serialize;

use crate::formats::{ExportFormat, ExportSettings, GROUPING, Needs, Opened, POLYGONS, no_files};
use crate::output::{Spool, Target};
use crate::{
    Classes, ExportError, Exporter, Grouping, Overwrite, Polygon, Region, SegmentedImage, Shape,
    polygons, region_rle,
};

/// The format with regions as masks.
pub(crate) static MASK_FORMAT: ExportFormat = ExportFormat {
    name: "coco",
    about: "coco.json: COCO annotations, regions as run-length codes",
    needs: Needs::Labels,
    image_suffix: None,
    own_files: no_files,
    shared_files: &["coco.json"],
    open: |classes, settings| open(classes, settings, "coco.json", Shape::Mask),
};

/// The format with regions as polygons.
pub(crate) static POLYGON_FORMAT: ExportFormat = ExportFormat {
    name: "coco-polygons",
    about: "coco-polygons.json: COCO annotations, regions as polygons",
    needs: Needs::Labels,
    image_suffix: None,
    own_files: no_files,
    shared_files: &["coco-polygons.json"],
    open: |classes, settings| open(classes, settings, "coco-polygons.json", POLYGONS),
};

fn open(classes: Classes, settings: &ExportSettings, name: &str, shape: Shape) -> Opened {
    let options = CocoOptions {
        path: settings.folder.join(name),
        overwrite: settings.overwrite,
        grouping: GROUPING,
        minimal_area: settings.minimal_area,
        shape,
        supercategory: String::new(),
    };
    Ok(Box::new(CocoExporter::create(classes, options)?))
}

/// Settings of a [`CocoExporter`].
#[derive(Debug, Clone, PartialEq)]
pub struct CocoOptions {
    /// The JSON file.
    pub path: PathBuf,
    /// Whether an existing file is replaced.
    pub overwrite: Overwrite,
    /// Which pixels form one annotation.
    pub grouping: Grouping,
    /// Smallest area of an exported region, in pixels.
    pub minimal_area: u64,
    /// Masks or polygons.
    pub shape: Shape,
    /// COCO's `supercategory` of all classes, such as `animal` for cats and dogs.
    pub supercategory: String,
}

/// Writes the annotations of all images as one COCO file.
#[derive(Debug)]
pub struct CocoExporter {
    options: CocoOptions,
    classes: Classes,
    target: Target,
    /// The entries of the images, separated by commas.
    images: Spool,
    /// Number of images written so far.
    image_count: u64,
    annotation_count: u64,
}

#[derive(Serialize)]
struct Category<'a> {
    id: u32,
    name: &'a str,
    supercategory: &'a str,
    color: [u8; 3],
}

#[derive(Serialize)]
struct Image<'a> {
    id: u64,
    file_name: &'a str,
    width: u32,
    height: u32,
}

#[derive(Serialize)]
struct Annotation {
    id: u64,
    image_id: u64,
    category_id: u32,
    segmentation: Segmentation,
    area: u64,
    /// Left, top, width, height.
    bbox: [u32; 4],
    iscrowd: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Segmentation {
    Mask {
        /// Rows, then columns.
        size: [u32; 2],
        counts: String,
    },
    /// Alternating x and y.
    Polygons(Vec<Vec<u32>>),
}

impl CocoExporter {
    /// Creates the file and writes the categories.
    ///
    /// # Errors
    /// Returns [`ExportError::Exists`] or [`ExportError::Unwritable`].
    pub fn create(classes: Classes, options: CocoOptions) -> Result<Self, ExportError> {
        let mut target = Target::create(&options.path, options.overwrite)?;
        let images = Spool::create().map_err(ExportError::unwritable(&options.path))?;
        let categories: Vec<_> = classes
            .categories()
            .map(|(label, name)| Category {
                id: classes.category(label) + 1,
                name,
                supercategory: &options.supercategory,
                color: classes.colour(label),
            })
            .collect();
        target.fill(|file| {
            let version = env!("CARGO_PKG_VERSION");
            write!(
                file,
                r#"{{"info":{{"description":"written by zeg {version}"}}"#
            )?;
            file.write_all(br#","licenses":[],"categories":"#)?;
            serde_json::to_writer(&mut *file, &categories)?;
            file.write_all(br#","annotations":["#)
        })?;
        Ok(Self {
            options,
            classes,
            target,
            images,
            image_count: 0,
            annotation_count: 0,
        })
    }

    fn annotation(&self, segmented: &SegmentedImage<'_>, region: &Region<'_>) -> Annotation {
        let segmentation = match self.options.shape {
            Shape::Mask => Segmentation::Mask {
                size: [region.map_height(), region.map_width()],
                counts: region_rle(region).to_coco_string(),
            },
            Shape::Polygons { tolerance } => {
                let outlines = polygons(region, tolerance);
                Segmentation::Polygons(outlines.iter().map(flat).collect())
            }
        };
        let bounds = region.bounding_box();
        Annotation {
            id: self.annotation_count + 1,
            image_id: self.image_count + 1,
            category_id: self.classes.category(region.label()) + 1,
            segmentation,
            area: region.area(),
            bbox: [bounds.left, bounds.top, bounds.width, bounds.height],
            iscrowd: 0,
            score: segmented.score(region),
        }
    }
}

impl Exporter for CocoExporter {
    fn add(&mut self, segmented: &SegmentedImage<'_>) -> Result<(), ExportError> {
        segmented.check(&self.classes)?;
        let regions = segmented.regions(self.options.grouping, self.options.minimal_area)?;
        for region in regions.iter() {
            let annotation = self.annotation(segmented, &region);
            let separator = separator(self.annotation_count);
            self.target
                .fill(|file| write_entry(file, separator, &annotation))?;
            self.annotation_count += 1;
        }
        let image = Image {
            id: self.image_count + 1,
            file_name: &segmented.name(),
            width: segmented.width(),
            height: segmented.height(),
        };
        write_entry(&mut self.images, separator(self.image_count), &image)
            .map_err(ExportError::unwritable(&self.options.path))?;
        self.image_count += 1;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, ExportError> {
        let Self {
            mut target, images, ..
        } = *self;
        target.fill(|file| {
            file.write_all(br#"],"images":["#)?;
            images.copy_to(file)?;
            file.write_all(b"]}\n")
        })?;
        Ok(vec![target.finish()?])
    }
}

fn flat(polygon: &Polygon) -> Vec<u32> {
    polygon.bridged().concat()
}

/// Returns the text before the next entry of a list.
fn separator(written: u64) -> &'static str {
    if written == 0 { "\n" } else { ",\n" }
}

/// Writes one entry of a list, in one line.
fn write_entry(file: &mut impl Write, separator: &str, entry: &impl Serialize) -> io::Result<()> {
    file.write_all(separator.as_bytes())?;
    serde_json::to_writer(file, entry)?;
    Ok(())
}
