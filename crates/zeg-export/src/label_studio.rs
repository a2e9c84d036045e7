//! Label Studio: tasks with predictions to import, and the labelling configuration for them.
//!
//! The tasks are one JSON list, written image by image. Masks are in Label Studio's own code: RGBA bytes (0 outside the
//! mask, 255 inside, in all four channels), packed bit by bit in the format of thi.ng's rle-pack. Polygons are in
//! percent of the image size.

use std::io::{self, Write};
use std::path::PathBuf;

use quick_xml::Writer;
use serde::Serialize;

use crate::address::address;
use crate::formats::{ExportFormat, ExportSettings, GROUPING, Needs, Opened, POLYGONS, no_files};
use crate::output::Target;
use crate::{
    Classes, ExportError, Exporter, Grouping, Overwrite, Region, SegmentedImage, Shape, polygons,
};

/// Names that connect results, configuration and task data.
const LABEL_TAG: &str = "label";
const IMAGE_TAG: &str = "image";

/// Channels of a mask image.
const CHANNELS: u64 = 4;
/// Bits per value.
const VALUE_BITS: u32 = 8;
/// Sizes of run lengths in bits, as Label Studio itself uses them.
const LENGTH_BITS: [u32; 4] = [3, 4, 8, 16];
/// Steps per percent: three decimals.
const PERCENT_STEPS: f64 = 1000.0;

/// The format with regions as masks.
pub(crate) static MASK_FORMAT: ExportFormat = ExportFormat {
    name: "label-studio",
    about: "label-studio.json and .xml: tasks for Label Studio with brush masks",
    needs: Needs::Labels,
    image_suffix: None,
    own_files: no_files,
    shared_files: &["label-studio.json", "label-studio.xml"],
    open: |classes, settings| open(classes, settings, "label-studio", Shape::Mask),
};

/// The format with regions as polygons.
pub(crate) static POLYGON_FORMAT: ExportFormat = ExportFormat {
    name: "label-studio-polygons",
    about: "label-studio-polygons.json and .xml: the same with polygons",
    needs: Needs::Labels,
    image_suffix: None,
    own_files: no_files,
    shared_files: &["label-studio-polygons.json", "label-studio-polygons.xml"],
    open: |classes, settings| open(classes, settings, "label-studio-polygons", POLYGONS),
};

fn open(classes: Classes, settings: &ExportSettings, name: &str, shape: Shape) -> Opened {
    let options = LabelStudioOptions {
        tasks: settings.folder.join(format!("{name}.json")),
        config: settings.folder.join(format!("{name}.xml")),
        overwrite: settings.overwrite,
        grouping: GROUPING,
        minimal_area: settings.minimal_area,
        shape,
        address_prefix: settings.address_prefix.to_owned(),
        model_version: settings.method.to_owned(),
    };
    Ok(Box::new(LabelStudioExporter::create(classes, options)?))
}

/// Settings of a [`LabelStudioExporter`].
#[derive(Debug, Clone, PartialEq)]
pub struct LabelStudioOptions {
    /// The JSON file of tasks.
    pub tasks: PathBuf,
    /// The XML file with the labelling configuration.
    pub config: PathBuf,
    /// Whether existing files are replaced.
    pub overwrite: Overwrite,
    /// Which pixels form one result.
    pub grouping: Grouping,
    /// Smallest area of an exported region, in pixels.
    pub minimal_area: u64,
    /// Brush masks or polygons.
    pub shape: Shape,
    /// Prefix of an image's path in its URL; `/data/local-files/?d=` if Label Studio serves the images from a local
    /// folder.
    pub address_prefix: String,
    /// Label Studio's `model_version` of the predictions.
    pub model_version: String,
}

/// Writes images as Label Studio tasks with predictions.
#[derive(Debug)]
pub struct LabelStudioExporter {
    options: LabelStudioOptions,
    classes: Classes,
    /// The class names as they are in the configuration.
    names: Vec<String>,
    target: Target,
    config: Target,
    tasks: u64,
}

#[derive(Serialize)]
struct LabelResult<'a> {
    id: String,
    r#type: &'static str,
    from_name: &'static str,
    to_name: &'static str,
    original_width: u32,
    original_height: u32,
    image_rotation: u8,
    #[serde(skip_serializing_if = "Option::is_none")]
    score: Option<f64>,
    value: Value<'a>,
}

#[derive(Serialize)]
#[serde(untagged)]
enum Value<'a> {
    Brush {
        format: &'static str,
        rle: Vec<u8>,
        brushlabels: [&'a str; 1],
    },
    Polygon {
        points: Vec<[f64; 2]>,
        closed: bool,
        polygonlabels: [&'a str; 1],
    },
}

impl LabelStudioExporter {
    /// Creates the file of tasks and writes the configuration.
    ///
    /// # Errors
    /// Returns [`ExportError::DuplicateName`], since Label Studio identifies labels by name, [`ExportError::Exists`] or
    /// [`ExportError::Unwritable`].
    pub fn create(classes: Classes, options: LabelStudioOptions) -> Result<Self, ExportError> {
        let names = classes.xml_names()?;
        let mut target = Target::create(&options.tasks, options.overwrite)?;
        let mut config = Target::create(&options.config, options.overwrite)?;
        config.fill(|file| write_config(file, &classes, &names, options.shape))?;
        target.fill(|file| file.write_all(b"["))?;
        Ok(Self {
            options,
            classes,
            names,
            target,
            config,
            tasks: 0,
        })
    }
}

impl Exporter for LabelStudioExporter {
    fn add(&mut self, segmented: &SegmentedImage<'_>) -> Result<(), ExportError> {
        segmented.check(&self.classes)?;
        let regions = segmented.regions(self.options.grouping, self.options.minimal_area)?;
        let head = TaskHead {
            image: format!(
                "{}{}",
                self.options.address_prefix,
                address(&segmented.name_bytes())
            ),
            model_version: &self.options.model_version,
            score: segmented.mean_confidence(),
        };
        let task = self.tasks + 1;
        self.target.fill(|file| head.write(file, task == 1))?;
        let mut count = 0_u64;
        for region in regions.iter() {
            let name = self.names.get(usize::from(region.label()));
            let name = name.map_or("", String::as_str);
            for mut result in results(segmented, &region, name, self.options.shape) {
                let separator = if count == 0 { "\n" } else { ",\n" };
                count += 1;
                result.id = format!("zeg-{task}-{count}");
                let line = serde_json::to_vec(&result);
                self.target.fill(|file| {
                    file.write_all(separator.as_bytes())?;
                    file.write_all(&line?)
                })?;
            }
        }
        self.target.fill(|file| file.write_all(b"]}]}"))?;
        self.tasks = task;
        Ok(())
    }

    fn finish(self: Box<Self>) -> Result<Vec<PathBuf>, ExportError> {
        let Self {
            mut target, config, ..
        } = *self;
        target.fill(|file| file.write_all(b"\n]\n"))?;
        Ok(vec![target.finish()?, config.finish()?])
    }
}

/// Returns the results of one region: its mask, or one polygon for each connected part.
fn results<'a>(
    segmented: &SegmentedImage<'_>,
    region: &Region<'_>,
    name: &'a str,
    shape: Shape,
) -> Vec<LabelResult<'a>> {
    let label = [name];
    let (kind, values) = match shape {
        Shape::Mask => {
            let value = Value::Brush {
                format: "rle",
                rle: brush_rle(region),
                brushlabels: label,
            };
            ("brushlabels", vec![value])
        }
        Shape::Polygons { tolerance } => {
            let outlines = polygons(region, tolerance);
            let value = |polygon: &crate::Polygon| Value::Polygon {
                points: percentages(&polygon.bridged(), region),
                closed: true,
                polygonlabels: label,
            };
            ("polygonlabels", outlines.iter().map(value).collect())
        }
    };
    let score = segmented.score(region);
    let result = |value| LabelResult {
        id: String::new(),
        r#type: kind,
        from_name: LABEL_TAG,
        to_name: IMAGE_TAG,
        original_width: region.map_width(),
        original_height: region.map_height(),
        image_rotation: 0,
        score,
        value,
    };
    values.into_iter().map(result).collect()
}

/// The fields of a task that come before the results of its prediction.
struct TaskHead<'a> {
    image: String,
    model_version: &'a str,
    score: Option<f64>,
}

impl TaskHead<'_> {
    fn write(&self, file: &mut impl Write, is_first: bool) -> io::Result<()> {
        let image = serde_json::to_string(&self.image)?;
        let model = serde_json::to_string(self.model_version)?;
        let separator = if is_first { "" } else { "," };
        write!(file, "{separator}\n{{\"data\":{{\"{IMAGE_TAG}\":{image}}},")?;
        write!(file, "\"predictions\":[{{\"model_version\":{model},")?;
        if let Some(score) = self.score {
            write!(file, "\"score\":{score},")?;
        }
        file.write_all(b"\"result\":[")
    }
}

/// Returns points `[x, y]` in percent of the map's size, to three decimals: a hundredth of a pixel in an image of 1,000
/// pixels.
///
/// - `points`: in pixels, such as those of a polygon of the region
pub fn percentages(points: &[[u32; 2]], region: &Region<'_>) -> Vec<[f64; 2]> {
    let share = |value: u32, all: u32| {
        (f64::from(value) / f64::from(all) * 100.0 * PERCENT_STEPS).round() / PERCENT_STEPS
    };
    points
        .iter()
        .map(|&[x, y]| [share(x, region.map_width()), share(y, region.map_height())])
        .collect()
}

/// Writes the labelling interface: the image, and one tool whose labels have the names and colours of the classes.
fn write_config(
    file: &mut impl Write,
    classes: &Classes,
    names: &[String],
    shape: Shape,
) -> io::Result<()> {
    let tool = match shape {
        Shape::Mask => "BrushLabels",
        Shape::Polygons { .. } => "PolygonLabels",
    };
    let mut xml = Writer::new_with_indent(&mut *file, b' ', 2);
    xml.create_element("View").write_inner_content(|xml| {
        let image = [("name", IMAGE_TAG), ("value", "$image"), ("zoom", "true")];
        xml.create_element("Image")
            .with_attributes(image)
            .write_empty()?;
        let tag = [("name", LABEL_TAG), ("toName", IMAGE_TAG)];
        xml.create_element(tool)
            .with_attributes(tag)
            .write_inner_content(|xml| {
                for (label, _) in classes.categories() {
                    let name = names.get(usize::from(label)).map_or("", String::as_str);
                    let colour = classes.hex_colour(label);
                    let attributes = [("value", name), ("background", colour.as_str())];
                    xml.create_element("Label")
                        .with_attributes(attributes)
                        .write_empty()?;
                }
                Ok(())
            })?;
        Ok(())
    })?;
    file.write_all(b"\n")
}

/// Returns the mask of a region in Label Studio's code, as the bytes of `rle`.
///
/// The header is the number of values (32 bits), the bits per value minus 1 (5 bits) and the bits of each of the four
/// sizes of run lengths minus 1 (4 bits each). Then follow stretches: 1 bit that is set if one value repeats, 2 bits
/// for the size, the length minus 1, and the value. Every value occurs four times, once per channel.
pub fn brush_rle(region: &Region<'_>) -> Vec<u8> {
    let pixels = u64::from(region.map_width()) * u64::from(region.map_height());
    let mut bits = BitWriter::default();
    // `MAX_PIXELS` pixels have 2³⁰ values.
    bits.push((pixels * CHANNELS) as u32, 32);
    bits.push(VALUE_BITS - 1, 5);
    for size in LENGTH_BITS {
        bits.push(size - 1, 4);
    }
    let mut position = 0;
    for run in region.runs() {
        let start = u64::from(run.y) * u64::from(region.map_width()) + u64::from(run.x);
        bits.push_stretch(0, (start - position) * CHANNELS);
        bits.push_stretch(255, u64::from(run.length) * CHANNELS);
        position = start + u64::from(run.length);
    }
    bits.push_stretch(0, (pixels - position) * CHANNELS);
    bits.bytes
}

/// A buffer of bits, highest bit of a byte first; the last byte is padded with zeros.
#[derive(Default)]
struct BitWriter {
    bytes: Vec<u8>,
    /// Number of used bits in the last byte; 0 if it is full.
    taken: u32,
}

impl BitWriter {
    /// Appends the lowest `count` bits of `value`, `count` up to 32.
    fn push(&mut self, value: u32, count: u32) {
        for place in (0..count).rev() {
            if self.taken == 0 {
                self.bytes.push(0);
            }
            if let Some(last) = self.bytes.last_mut() {
                *last |= ((value >> place & 1) as u8) << (7 - self.taken);
            }
            self.taken = (self.taken + 1) % 8;
        }
    }

    /// Appends `value` `length` times, in as many stretches as needed.
    fn push_stretch(&mut self, value: u32, mut length: u64) {
        while length > 0 {
            let fitting = LENGTH_BITS.iter().position(|&bits| length <= 1 << bits);
            let size = fitting.unwrap_or(LENGTH_BITS.len() - 1);
            let part = length.min(1 << LENGTH_BITS[size]);
            self.push(1, 1);
            self.push(size as u32, 2);
            self.push((part - 1) as u32, LENGTH_BITS[size]);
            self.push(value, VALUE_BITS);
            length -= part;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bits_fill_bytes_from_the_top() {
        let mut bits = BitWriter::default();
        bits.push(0b101, 3);
        bits.push(0xff, 8);
        assert_eq!(bits.bytes, [0b1011_1111, 0b1110_0000]);
    }
}
