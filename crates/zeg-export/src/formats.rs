//! The list of export formats by name.
//!
//! An entry holds the name that users type, the files that the format writes, what it needs of an image, and how it is
//! opened with the settings that all formats share. A new format is a file with an [`Exporter`] and an entry, and a
//! line in the list.

use std::path::{Path, PathBuf};

use crate::regions::{Connectivity, Grouping};
use crate::{
    Classes, ExportError, Exporter, Overwrite, Shape, coco, contact_sheet, cvat, images,
    label_studio, probability, summary, yolo,
};

/// All formats, in the order in which the help text lists them.
static FORMATS: [&ExportFormat; 13] = [
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
    &yolo::FORMAT,
    &contact_sheet::FORMAT,
];

/// Annotations are regions of a class that are connected by edges or corners.
pub(crate) const GROUPING: Grouping = Grouping::Connected(Connectivity::Eight);
/// Smallest area of an annotated region unless another one is given, in pixels.
pub const USUAL_MINIMAL_AREA: u64 = 16;
/// Largest distance of an outline from the pixel edges, in pixels; outlines then have few enough corners to be edited by
/// hand.
pub const USUAL_TOLERANCE: f32 = 1.0;
pub(crate) const POLYGONS: Shape = Shape::Polygons {
    tolerance: USUAL_TOLERANCE,
};

/// Result of opening a format.
pub(crate) type Opened = Result<Box<dyn Exporter>, ExportError>;

/// An export format with its name.
#[derive(Debug)]
pub struct ExportFormat {
    /// Name that users type, such as `coco-polygons`.
    pub name: &'static str,
    /// Names and contents of the files, in one line.
    pub about: &'static str,
    /// What the format needs of an image in addition to the labels.
    pub needs: Needs,
    /// Suffix of the PNG of an image, such as `.overlay.png`; `None` for formats that write other files.
    pub image_suffix: Option<&'static str>,
    /// Paths in the folder of the files that an image has for itself, from its stem and the number of classes; none for
    /// formats whose files all images share.
    pub(crate) own_files: fn(&Path, usize) -> Vec<PathBuf>,
    /// Names of the files that all images share, such as `coco.json`.
    pub shared_files: &'static [&'static str],
    pub(crate) open: fn(Classes, &ExportSettings) -> Opened,
}

/// What a format needs of an image in addition to the labels.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Needs {
    /// Nothing; confidences are used if there are any.
    Labels,
    /// The scores of all classes ([`Image::probabilities`](crate::SegmentedImage::probabilities)).
    Scores,
    /// The image with colours ([`Image::overlay`](crate::SegmentedImage::overlay)).
    Overlay,
}

/// Opacity of the colours in overlays, where a user names no other one.
pub const USUAL_OPACITY: f32 = 0.55;

/// Settings that all formats share.
#[derive(Debug, Clone, Copy)]
pub struct ExportSettings<'a> {
    /// Folder of the files.
    pub folder: &'a Path,
    /// Whether existing files are replaced.
    pub overwrite: Overwrite,
    /// Smallest area of an annotated region, in pixels.
    pub minimal_area: u64,
    /// Prefix of an image's path in its URL in Label Studio.
    pub address_prefix: &'a str,
    /// Name of the method that predicted the labels; shown to people.
    pub method: &'a str,
    /// Suffix of the image files that the thumbnails of the web page link to; `None` if no such files are written.
    pub link_suffix: Option<&'a str>,
}

/// Returns all formats.
pub fn formats() -> impl Iterator<Item = &'static ExportFormat> {
    FORMATS.into_iter()
}

/// Returns the format with this name.
pub fn find_format(name: &str) -> Option<&'static ExportFormat> {
    formats().find(|format| format.name == name)
}

impl ExportFormat {
    /// Opens the exporter of the format; call it before any image is computed.
    ///
    /// # Errors
    /// Returns [`ExportError::Exists`], [`ExportError::Unwritable`] or, for formats that identify classes by name,
    /// [`ExportError::DuplicateName`].
    pub fn open(
        &self,
        classes: Classes,
        settings: &ExportSettings,
    ) -> Result<Box<dyn Exporter>, ExportError> {
        (self.open)(classes, settings)
    }

    /// Returns the paths of the files that an image has for itself; empty if the format has only shared files.
    ///
    /// - `folder`: folder of all files
    /// - `stem`: as in [`SegmentedImage::stem`](crate::SegmentedImage::stem)
    /// - `classes`: number of classes
    pub fn own_files(&self, folder: &Path, stem: &Path, classes: usize) -> Vec<PathBuf> {
        let files = (self.own_files)(stem, classes).into_iter();
        files.map(|file| folder.join(file)).collect()
    }

    /// Whether all images share the files of the format.
    pub fn is_shared(&self) -> bool {
        (self.own_files)(Path::new("image"), 1).is_empty()
    }
}

/// Returns the path of a file of an image: its stem with a suffix, such as `.summary.json`.
pub(crate) fn own_file(stem: &Path, suffix: &str) -> PathBuf {
    let mut name = stem.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Returns no files, for formats whose files all images share.
pub(crate) fn no_files(_: &Path, _: usize) -> Vec<PathBuf> {
    Vec::new()
}

/// Two formats are equal if their names are equal.
impl PartialEq for ExportFormat {
    fn eq(&self, other: &Self) -> bool {
        self.name == other.name
    }
}

impl Eq for ExportFormat {}
