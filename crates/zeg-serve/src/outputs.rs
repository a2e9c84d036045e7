//! The results of a segmented image: PNGs, annotations, and the files of every export format.

use std::{
    fs,
    io::{Cursor, Write as _},
    path::{Path, PathBuf},
};

use serde::Serialize;
use utoipa::ToSchema;
use zeg::{
    export::{
        Classes, Connectivity, ExportFormat, ExportSettings, Grouping, Overwrite,
        ProbabilitySource, Region, SegmentedImage, Summary, find_regions, polygons, region_rle,
        summarize,
    },
    image::{LabelMap, RgbImage, overlay},
    spool::SpooledScores,
};
use zeg_image::{encode_grey_png, encode_named_png, encode_rgb_png};
use zip::{CompressionMethod, ZipWriter, write::SimpleFileOptions};

use crate::{
    options::{Output, SegmentOptions},
    problem::Problem,
    scratch::Scratch,
};

/// Greatest distance of a simplified outline from the exact one, in pixels; as in the export formats.
const TOLERANCE: f32 = 1.0;
/// Prefix of an image's address in Label Studio's tasks, as `zeg segment` writes it.
const ADDRESS_PREFIX: &str = "/data/local-files/?d=";

/// A result that is a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutputFile {
    /// Name of the result, such as `labels`.
    pub output: &'static str,
    /// Content type.
    pub media_type: &'static str,
    /// Name to store it under.
    pub file_name: String,
    /// The content.
    pub bytes: Vec<u8>,
}

/// The annotations of an image.
#[derive(Debug, Clone, PartialEq, Default, Serialize, ToSchema)]
pub struct Annotations {
    /// Regions as run-length codes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub rle: Option<Vec<Annotation>>,
    /// Regions as polygons.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(nullable = false)]
    pub polygons: Option<Vec<Annotation>>,
}

/// A region of a class, in the form of COCO's annotations.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Annotation {
    /// Number of the annotation, from 1.
    pub id: u64,
    /// Label of the class.
    pub label: u16,
    /// Name of the class.
    pub class: String,
    /// Number of the class among those that are no background, from 1, as in the files of the format `coco`.
    pub category_id: u32,
    /// Number of pixels.
    pub area: u64,
    /// Left, top, width and height of the smallest rectangle around the region, in pixels.
    pub bbox: [u32; 4],
    /// Always 0.
    pub iscrowd: u8,
    /// Mean confidence, 0 to 1.
    pub score: Option<f64>,
    /// The pixels of the region.
    pub segmentation: Segmentation,
}

/// The pixels of a region.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[serde(untagged)]
#[schema(as = AnnotationSegmentation)]
pub enum Segmentation {
    /// COCO's run-length code.
    Mask {
        /// Rows, then columns.
        size: [u32; 2],
        /// The compressed code.
        counts: String,
    },
    /// Outlines, x and y in turn.
    Polygons(Vec<Vec<u32>>),
}

/// The results of a segmented image.
#[derive(Debug)]
pub(crate) struct Results {
    pub(crate) summary: Summary,
    pub(crate) files: Vec<OutputFile>,
    pub(crate) annotations: Annotations,
}

/// A segmented image, as all results need it.
struct Source<'a> {
    classes: &'a Classes,
    name: &'a str,
    stem: &'a Path,
    image: SegmentedImage<'a>,
    palette: Vec<[u8; 3]>,
    options: &'a SegmentOptions,
    method: &'a str,
}

impl Results {
    /// Makes the results that the options name.
    ///
    /// - `name`: name of the image, which is no path
    /// - `image`: its pixels, if a result shows them
    ///
    /// # Errors
    /// Returns a problem if a result cannot be made.
    #[allow(
        clippy::too_many_arguments,
        reason = "one call, in the order of the pipeline"
    )]
    pub(crate) fn make(
        classes: &Classes,
        name: &str,
        labels: &LabelMap,
        confidence: &[f32],
        scores: Option<&SpooledScores>,
        image: Option<&RgbImage>,
        method: &str,
        options: &SegmentOptions,
    ) -> Result<Self, Problem> {
        let path = Path::new(name);
        let stem = path.file_stem().map_or(path, Path::new);
        let palette: Vec<[u8; 3]> = (0..classes.len())
            .map(|label| classes.colour(label as u16))
            .collect();
        let drawn = image.filter(|_| options.draws_overlays());
        let drawn =
            drawn.map(|image| overlay(image, labels, classes.names(), &palette, options.opacity));
        let source = Source {
            classes,
            name,
            stem,
            image: SegmentedImage {
                stem,
                confidence: Some(confidence),
                probabilities: scores.map(|scores| scores as &dyn ProbabilitySource),
                overlay: drawn.as_ref(),
                ..SegmentedImage::new(path, labels)
            },
            palette,
            options,
            method,
        };
        let summary = summarize(&source.image, classes).map_err(Problem::internal)?;
        let mut files = Vec::new();
        let mut annotations = Annotations::default();
        for &output in &options.outputs {
            match output {
                Output::Rle => annotations.rle = Some(source.annotations(Shape::Mask)?),
                Output::Polygons => {
                    annotations.polygons = Some(source.annotations(Shape::Polygons)?);
                }
                Output::Runs | Output::Regions => {}
                Output::Labels | Output::Overlay | Output::Confidence => {
                    files.push(source.png(output)?);
                }
                Output::Export(format) => files.push(source.export(format)?),
            }
        }
        if let Some(scores) = scores {
            scores.check().map_err(Problem::internal)?;
        }
        Ok(Self {
            summary,
            files,
            annotations,
        })
    }
}

/// The form of a region's pixels.
#[derive(Clone, Copy)]
enum Shape {
    Mask,
    Polygons,
}

impl Source<'_> {
    /// Encodes a result that is a PNG.
    fn png(&self, output: Output) -> Result<OutputFile, Problem> {
        let path = Path::new(self.name);
        let labels = self.image.labels;
        let (encoded, suffix) = match (output, self.image.overlay) {
            (Output::Overlay, Some(overlay)) => (encode_rgb_png(path, overlay), ".overlay.png"),
            (Output::Confidence, _) => {
                let confidence = self.image.confidence.unwrap_or(&[]);
                let (width, height) = (labels.width(), labels.height());
                let encoded = encode_grey_png(path, width, height, confidence);
                (encoded, ".confidence.png")
            }
            _ => {
                let names = self.classes.names();
                let encoded = encode_named_png(path, labels, &self.palette, names);
                (encoded, ".png")
            }
        };
        Ok(OutputFile {
            output: output.name(),
            media_type: "image/png",
            file_name: format!("{}{suffix}", self.stem.display()),
            bytes: encoded.map_err(Problem::internal)?,
        })
    }

    /// Returns the annotations of the regions.
    fn annotations(&self, shape: Shape) -> Result<Vec<Annotation>, Problem> {
        let grouping = Grouping::Connected(Connectivity::Eight);
        let regions = find_regions(self.image.labels, grouping, self.options.minimal_area);
        let regions = regions.map_err(Problem::internal)?;
        let annotation = |(id, region): (u64, Region<'_>)| {
            let bounds = region.bounding_box();
            Annotation {
                id,
                label: region.label(),
                class: self.classes.name(region.label()).to_owned(),
                category_id: self.classes.category(region.label()) + 1,
                area: region.area(),
                bbox: [bounds.left, bounds.top, bounds.width, bounds.height],
                iscrowd: 0,
                score: self.image.score(&region),
                segmentation: match shape {
                    Shape::Mask => Segmentation::Mask {
                        size: [region.map_height(), region.map_width()],
                        counts: region_rle(&region).to_coco_string(),
                    },
                    Shape::Polygons => {
                        let outlines = polygons(&region, TOLERANCE);
                        let flat = outlines.iter().map(|outline| outline.bridged().concat());
                        Segmentation::Polygons(flat.collect())
                    }
                },
            }
        };
        Ok((1..).zip(regions.iter()).map(annotation).collect())
    }

    /// Writes the files of an export format, and returns the only one, or an archive of all.
    fn export(&self, format: &'static ExportFormat) -> Result<OutputFile, Problem> {
        let scratch = Scratch::new().map_err(Problem::internal)?;
        let settings = ExportSettings {
            folder: scratch.path(),
            overwrite: Overwrite::Refuse,
            minimal_area: self.options.minimal_area,
            address_prefix: ADDRESS_PREFIX,
            method: self.method,
            link_suffix: None,
        };
        let written = format
            .open(self.classes.clone(), &settings)
            .and_then(|mut exporter| {
                exporter.add(&self.image)?;
                exporter.finish()
            });
        let paths = written.map_err(|error| match error {
            // Names that differ only in characters that the format cannot hold are the request's.
            error @ zeg::export::ExportError::DuplicateName { .. } => {
                Problem::new(crate::problem::Code::BadClasses, error.to_string())
            }
            other => Problem::internal(other),
        })?;
        let mut files = Vec::new();
        for path in paths {
            let name = path.strip_prefix(scratch.path()).unwrap_or(&path);
            let name = name.to_string_lossy().replace('\\', "/");
            files.push((name, fs::read(&path).map_err(Problem::internal)?));
        }
        drop(scratch);
        // The archive lists its files in one order, whatever the exporter does.
        files.sort();
        if files.len() == 1
            && let Some((name, bytes)) = files.pop()
        {
            return Ok(OutputFile {
                output: format.name,
                media_type: media_type(&name),
                file_name: name,
                bytes,
            });
        }
        Ok(OutputFile {
            output: format.name,
            media_type: "application/zip",
            file_name: format!("{}.{}.zip", self.stem.display(), format.name),
            bytes: archive(&files)?,
        })
    }
}

/// Packs files into an archive without compression.
fn archive(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>, Problem> {
    let mut archive = ZipWriter::new(Cursor::new(Vec::new()));
    let options = SimpleFileOptions::default().compression_method(CompressionMethod::Stored);
    for (name, bytes) in files {
        archive
            .start_file(name.as_str(), options)
            .map_err(Problem::internal)?;
        archive.write_all(bytes).map_err(Problem::internal)?;
    }
    let finished = archive.finish().map_err(Problem::internal)?;
    Ok(finished.into_inner())
}

/// Returns the content type of a file by the end of its name.
pub(crate) fn media_type(name: &str) -> &'static str {
    let ending = PathBuf::from(name);
    let ending = ending.extension().and_then(|ending| ending.to_str());
    match ending.unwrap_or_default() {
        "html" => "text/html; charset=utf-8",
        "js" | "mjs" => "text/javascript; charset=utf-8",
        "css" => "text/css; charset=utf-8",
        "svg" => "image/svg+xml",
        "png" => "image/png",
        "jpg" | "jpeg" => "image/jpeg",
        "webp" => "image/webp",
        "ico" => "image/x-icon",
        "json" | "map" => "application/json",
        "xml" => "application/xml",
        "txt" => "text/plain; charset=utf-8",
        "woff2" => "font/woff2",
        "zip" => "application/zip",
        _ => "application/octet-stream",
    }
}
