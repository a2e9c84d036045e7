//! The formats that are known by name: one entry each, in one list.
//!
//! An entry says what users type for a format, what it writes, what it needs to be given of an image, and how it is
//! opened in a folder with the settings that all formats share. A new format is a file with an [`Exporter`] and an entry,
//! and a line in the list.

use std::path::Path;

use crate::regions::{Connectivity, Grouping};
use crate::{
    Classes, ExportError, Exporter, Overwrite, Shape, coco, contact_sheet, cvat, images,
    label_studio, probability, summary,
};

/// The list, in the order in which help shows it.
static FORMATS: [&ExportFormat; 12] = [
    &images::LABELS,
    &images::OVERLAY,
    &summary::FORMAT,
    &probability::PNG_FORMAT,
    &probability::NPY_FORMAT,
    &coco::MASK_FORMAT,
    &coco::POLYGON_FORMAT,
    &label_studio::MASK_FORMAT,
    &label_studio::POLYGON_FORMAT,
    &cvat::MASK_FORMAT,
    &cvat::POLYGON_FORMAT,
    &contact_sheet::FORMAT,
];

/// Annotations group pixels of a class that hang together by edges or corners.
pub(crate) const GROUPING: Grouping = Grouping::Connected(Connectivity::Eight);
/// Outlines that leave the pixels' edges by a pixel at most have few enough corners to be dragged.
pub(crate) const POLYGONS: Shape = Shape::Polygons { tolerance: 1.0 };

/// What opening a format gives.
pub(crate) type Opened = Result<Box<dyn Exporter>, ExportError>;

/// A format that is known by name.
#[derive(Debug)]
pub struct ExportFormat {
    /// What users type, as `coco-polygons`.
    pub name: &'static str,
    /// The files and what is in them, in one line.
    pub about: &'static str,
    /// What it needs of an image beside the labels.
    pub needs: Needs,
    /// What stands behind an image's stem in the name of its PNG, as `.overlay.png`; `None` for formats of other files.
    pub image_suffix: Option<&'static str>,
    pub(crate) open: fn(Classes, &ExportSettings) -> Opened,
}

/// What a format needs of an image beside the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing; confidences where they are given.
    Labels,
    /// The scores of all classes ([`Image::probabilities`](crate::Image::probabilities)).
    Scores,
    /// The image with colours ([`Image::overlay`](crate::Image::overlay)).
    Overlay,
}

/// Settings that all formats share.
#[derive(Debug, Clone, Copy)]
pub struct ExportSettings<'a> {
    /// Where the files go.
    pub folder: &'a Path,
    /// What happens to files that stand there.
    pub overwrite: Overwrite,
    /// Smaller regions are left out of annotations; in pixels.
    pub minimal_area: u64,
    /// What stands before an image's path in its address in Label Studio.
    pub address_prefix: &'a str,
    /// What the labels come from, for people.
    pub method: &'a str,
    /// Suffix of the image that the web page's thumbnails lead to, where such images are written.
    pub link_suffix: Option<&'a str>,
}

/// Returns all formats.
pub fn formats() -> impl Iterator<Item = &'static ExportFormat> {
    FORMATS.into_iter()
}

/// Returns the format of this name.
pub fn find_format(name: &str) -> Option<&'static ExportFormat> {
    formats().find(|format| format.name == name)
}

impl ExportFormat {
    /// Opens the format's exporter, before any image is computed.
    ///
    /// # Errors
    /// Those of the exporter's constructor: [`ExportError::Exists`], [`ExportError::Unwritable`] and, for formats that
    /// know classes by their names, [`ExportError::DuplicateName`].
    pub fn open(
        &self,
        classes: Classes,
        settings: &ExportSettings,
    ) -> Result<Box<dyn Exporter>, ExportError> {
        (self.open)(classes, settings)
    }
}

/// Formats are the same where their names are.
impl PartialEq for ExportFormat {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ExportFormat {}
