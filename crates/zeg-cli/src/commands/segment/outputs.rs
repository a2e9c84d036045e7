//! What `zeg segment` writes: the files that `--write` names.

use std::path::PathBuf;

use clap::ValueEnum;
use zeg::{
    export::{
        Classes, CocoExporter, CocoOptions, Connectivity, ContactSheet, ContactSheetOptions,
        CvatExporter, CvatOptions, Exporter, Grouping, LabelStudioExporter, LabelStudioOptions,
        Overwrite, Picture, ProbabilityExporter, ProbabilityFormat, Shape, SummaryExporter,
        Thumbnails,
    },
    image::{write_named_png, write_rgb_png},
};

use super::args::SegmentOutput;

/// How far a polygon may leave the pixels' edges, in pixels.
const POLYGON_TOLERANCE: f32 = 1.0;

/// A kind of file.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Output {
    /// NAME.png: class indices with a palette and the class names; 255: no class
    Labels,
    /// NAME.overlay.png: the picture with colours and a legend
    Overlay,
    /// NAME.summary.json: area, confidence and regions of each class
    Summary,
    /// NAME.probability.CLASS.png: 16-bit grey, 65535 times the score
    Probabilities,
    /// NAME.probability.npy: all scores, float16 [classes, height, width]
    ProbabilitiesNpy,
    /// coco.json: COCO annotations, regions as run-length codes
    Coco,
    /// coco-polygons.json: COCO annotations, regions as polygons
    CocoPolygons,
    /// label-studio.json and .xml: tasks for Label Studio with brush masks
    LabelStudio,
    /// label-studio-polygons.json and .xml: the same with polygons
    LabelStudioPolygons,
    /// cvat.xml: annotations for CVAT, masks
    Cvat,
    /// cvat-polygons.xml: annotations for CVAT, polygons
    CvatPolygons,
    /// index.html: one page with all pictures
    Html,
}

impl Output {
    /// Whether the scores of all classes are needed.
    pub(super) fn needs_scores(self) -> bool {
        matches!(self, Self::Probabilities | Self::ProbabilitiesNpy)
    }

    /// Whether the picture with colours is needed.
    pub(super) fn needs_overlay(self) -> bool {
        matches!(self, Self::Overlay | Self::Html)
    }
}

/// Opens the writers of all kinds, before any picture is computed.
///
/// - `method`: what the predictions come from
pub(super) fn open(
    classes: &Classes,
    settings: &SegmentOutput,
    method: &str,
) -> anyhow::Result<Vec<Box<dyn Exporter>>> {
    settings
        .kinds
        .iter()
        .map(|output| open_one(*output, classes.clone(), settings, method))
        .collect()
}

fn open_one(
    output: Output,
    classes: Classes,
    settings: &SegmentOutput,
    method: &str,
) -> anyhow::Result<Box<dyn Exporter>> {
    let SegmentOutput {
        ref folder,
        overwrite,
        minimal_area,
        ..
    } = *settings;
    let grouping = Grouping::Connected(Connectivity::Eight);
    let polygons = Shape::Polygons {
        tolerance: POLYGON_TOLERANCE,
    };
    let coco = |name: &str, shape| CocoOptions {
        path: folder.join(name),
        overwrite,
        grouping,
        minimal_area,
        shape,
        supercategory: String::new(),
    };
    let label_studio = |name: &str, shape| LabelStudioOptions {
        tasks: folder.join(format!("{name}.json")),
        config: folder.join(format!("{name}.xml")),
        overwrite,
        grouping,
        minimal_area,
        shape,
        address_prefix: settings.label_studio_prefix.clone(),
        model_version: method.to_owned(),
    };
    let cvat = |name: &str, shape| CvatOptions {
        path: folder.join(name),
        overwrite,
        grouping,
        minimal_area,
        shape,
    };
    Ok(match output {
        Output::Labels | Output::Overlay => Box::new(Images::new(output, classes, settings)),
        Output::Summary => Box::new(SummaryExporter::create(classes, folder, overwrite)?),
        Output::Probabilities | Output::ProbabilitiesNpy => {
            let format = match output {
                Output::Probabilities => ProbabilityFormat::Png,
                _ => ProbabilityFormat::Npy,
            };
            Box::new(ProbabilityExporter::create(
                classes, format, folder, overwrite,
            )?)
        }
        Output::Coco => Box::new(CocoExporter::create(
            classes,
            coco("coco.json", Shape::Mask),
        )?),
        Output::CocoPolygons => Box::new(CocoExporter::create(
            classes,
            coco("coco-polygons.json", polygons),
        )?),
        Output::LabelStudio => Box::new(LabelStudioExporter::create(
            classes,
            label_studio("label-studio", Shape::Mask),
        )?),
        Output::LabelStudioPolygons => Box::new(LabelStudioExporter::create(
            classes,
            label_studio("label-studio-polygons", polygons),
        )?),
        Output::Cvat => Box::new(CvatExporter::create(
            classes,
            cvat("cvat.xml", Shape::Mask),
        )?),
        Output::CvatPolygons => Box::new(CvatExporter::create(
            classes,
            cvat("cvat-polygons.xml", polygons),
        )?),
        Output::Html => Box::new(ContactSheet::create(
            classes,
            ContactSheetOptions {
                path: folder.join("index.html"),
                overwrite,
                title: format!("Segmented pictures · {method}"),
                thumbnails: Thumbnails::Embedded,
                link_suffix: settings
                    .kinds
                    .contains(&Output::Overlay)
                    .then(|| Output::Overlay.suffix().to_owned()),
            },
        )?),
    })
}

impl Output {
    /// What stands behind a picture's name, of the kinds that are a picture each.
    pub(super) fn suffix(self) -> &'static str {
        match self {
            Self::Overlay => ".overlay.png",
            _ => ".png",
        }
    }
}

/// Label maps or overlays, one file a picture.
struct Images {
    kind: Output,
    classes: Classes,
    palette: Vec<[u8; 3]>,
    folder: PathBuf,
    overwrite: Overwrite,
    files: Vec<PathBuf>,
}

impl Images {
    fn new(kind: Output, classes: Classes, settings: &SegmentOutput) -> Self {
        Self {
            kind,
            palette: (0..classes.len())
                .map(|i| classes.colour(i as u16))
                .collect(),
            classes,
            folder: settings.folder.clone(),
            overwrite: settings.overwrite,
            files: Vec::new(),
        }
    }
}

impl Exporter for Images {
    fn add(&mut self, picture: &Picture<'_>) -> Result<(), zeg::export::ExportError> {
        use zeg::export::ExportError;

        let mut name = picture.stem.as_os_str().to_owned();
        name.push(self.kind.suffix());
        let path = self.folder.join(name);
        if self.overwrite == Overwrite::Refuse && path.exists() {
            return Err(ExportError::Exists { path });
        }
        let unwritable = |source| ExportError::Unwritable {
            path: path.clone(),
            source,
        };
        if let Some(folder) = path.parent() {
            std::fs::create_dir_all(folder).map_err(unwritable)?;
        }
        let written = match (self.kind, picture.overlay) {
            (Output::Overlay, Some(overlay)) => write_rgb_png(&path, overlay),
            (Output::Overlay, None) => Ok(()),
            _ => write_named_png(&path, picture.labels, &self.palette, self.classes.names())
                .map(drop),
        };
        written.map_err(|error| unwritable(std::io::Error::other(error)))?;
        self.files.push(path);
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, zeg::export::ExportError> {
        Ok(self.files)
    }
}
