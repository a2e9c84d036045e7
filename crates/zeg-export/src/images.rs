//! Label maps and overlays as PNG files, one file per image.

use std::fs;
use std::io;
use std::path::PathBuf;

use zeg_base::file;
use zeg_image::{write_named_png, write_rgb_png};

use crate::formats::{ExportFormat, ExportSettings, Needs, own_file};
use crate::output::file_name;
use crate::{Classes, ExportError, Exporter, Overwrite, SegmentedImage};

const LABEL_SUFFIX: &str = ".png";
const OVERLAY_SUFFIX: &str = ".overlay.png";

/// The format of label maps.
pub(crate) static LABELS: ExportFormat = ExportFormat {
    name: "labels",
    about: "NAME.png: class indices with a palette and the class names; 255: unlabelled",
    needs: Needs::Labels,
    image_suffix: Some(LABEL_SUFFIX),
    own_files: |stem, _| vec![own_file(stem, LABEL_SUFFIX)],
    shared_files: &[],
    open: |classes, settings| {
        Ok(Box::new(ImageExporter::new(
            Kind::Labels,
            classes,
            settings,
        )))
    },
};

/// The format of overlays: images with class colours and a legend.
pub(crate) static OVERLAY: ExportFormat = ExportFormat {
    name: "overlay",
    about: "NAME.overlay.png: the image with colours and a legend",
    needs: Needs::Overlay,
    image_suffix: Some(OVERLAY_SUFFIX),
    own_files: |stem, _| vec![own_file(stem, OVERLAY_SUFFIX)],
    shared_files: &[],
    open: |classes, settings| {
        Ok(Box::new(ImageExporter::new(
            Kind::Overlay,
            classes,
            settings,
        )))
    },
};

#[derive(Debug, Clone, Copy)]
enum Kind {
    Labels,
    Overlay,
}

/// Writes label maps, or overlays for images that have one.
#[derive(Debug)]
struct ImageExporter {
    kind: Kind,
    classes: Classes,
    palette: Vec<[u8; 3]>,
    folder: PathBuf,
    overwrite: Overwrite,
    files: Vec<PathBuf>,
}

impl ImageExporter {
    fn new(kind: Kind, classes: Classes, settings: &ExportSettings) -> Self {
        Self {
            kind,
            palette: classes
                .iter()
                .map(|(label, _)| classes.colour(label))
                .collect(),
            classes,
            folder: settings.folder.to_owned(),
            overwrite: settings.overwrite,
            files: Vec::new(),
        }
    }
}

impl Exporter for ImageExporter {
    fn add(&mut self, image: &SegmentedImage<'_>) -> Result<(), ExportError> {
        let suffix = match self.kind {
            Kind::Labels => LABEL_SUFFIX,
            Kind::Overlay => OVERLAY_SUFFIX,
        };
        let path = self.folder.join(file_name(image.stem, suffix)?);
        // A dangling symbolic link counts as an existing file, too.
        if self.overwrite == Overwrite::Refuse && fs::symlink_metadata(&path).is_ok() {
            return Err(ExportError::Exists { path });
        }
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder).map_err(ExportError::unwritable(&path))?;
        }
        let behind =
            file::behind_link(&path, self.overwrite).map_err(ExportError::unwritable(&path))?;
        let written = match (self.kind, image.overlay) {
            (Kind::Labels, _) => {
                write_named_png(&behind, image.labels, &self.palette, self.classes.names())
                    .map(drop)
            }
            (Kind::Overlay, Some(overlay)) => write_rgb_png(&behind, overlay),
            (Kind::Overlay, None) => return Ok(()),
        };
        written.map_err(|error| {
            // The error of the image states the path as well.
            let source = match error {
                zeg_image::ImageError::Unwritable { source, .. } => source,
                other => io::Error::other(other),
            };
            ExportError::unwritable(&path)(source)
        })?;
        self.files.push(path);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, ExportError> {
        Ok(self.files)
    }
}
