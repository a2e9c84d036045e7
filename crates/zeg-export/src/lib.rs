//! Exports label maps in the formats that other programs and people read.
//!
//! Every format is an [`Exporter`]. It is opened before the first image is computed, so that a wrong folder costs no
//! computing time. It takes one image after the other, keeps none of them in memory, and puts its files in place when
//! it is finished. A program that ends early leaves no partial file behind.
//!
//! | exporter | files | read by |
//! | --- | --- | --- |
//! | (by name: [`formats`]) | label map or overlay as PNG | viewers, scripts |
//! | [`CocoExporter`] | one JSON file | pycocotools, detectron2, FiftyOne, … |
//! | [`LabelStudioExporter`] | tasks as JSON and the labelling configuration as XML | Label Studio |
//! | [`CvatExporter`] | one XML file | CVAT, datumaro |
//! | [`YoloExporter`] | one text file per image and `data.yaml` | Ultralytics |
//! | [`SummaryExporter`] | one JSON file per image | scripts |
//! | [`ProbabilityExporter`] | one 16-bit PNG per class, or one NumPy array per image | scripts |
//! | [`ContactSheet`] | one HTML page | people |
//!
//! The conversions themselves need no files: [`regions`] finds connected regions, [`region_rle`] computes the
//! run-length code of a region, and [`polygons`](mod@polygons) traces the outlines of a region along pixel edges.
//! [`label_studio`] has the codes of masks and points that Label Studio reads.
//!
//! Coordinates are `(x, y)` in pixels from the top left corner. Buffers are row-major. Shares and confidences lie in
//! 0..=1.
//!
//! ```
//! assert!(zeg_export::find_format("coco").is_some());
//! ```

#![forbid(unsafe_code)]

pub mod coco;
pub mod contact_sheet;
pub mod cvat;
pub mod label_studio;
pub mod polygons;
pub mod probability;
pub mod regions;
pub mod summary;
pub mod yolo;

mod address;
mod classes;
mod error;
mod formats;
mod images;
mod output;
mod rle;
mod segmented_image;
mod shapes;
mod stored;

pub use classes::Classes;
pub use coco::{CocoExporter, CocoOptions};
pub use contact_sheet::{ContactSheet, ContactSheetOptions, Thumbnails};
pub use cvat::{CvatExporter, CvatOptions};
pub use error::ExportError;
pub use formats::{
    ExportFormat, ExportSettings, Needs, USUAL_MINIMAL_AREA, USUAL_OPACITY, USUAL_TOLERANCE,
    find_format, formats,
};
pub use label_studio::{LabelStudioExporter, LabelStudioOptions};
pub use polygons::{Polygon, polygons};
pub use probability::{
    ProbabilityExporter, ProbabilityFormat, ProbabilityPlanes, ProbabilitySource,
};
pub use regions::{
    BoundingBox, Connectivity, Grouping, Region, Regions, Run, absorb_small_regions, find_regions,
};
pub use rle::region_rle;
pub use segmented_image::{Exporter, Mean, SegmentedImage};
pub use shapes::Shape;
pub use stored::{LabelRuns, StoredImage};
pub use summary::{ClassSummary, Summary, SummaryExporter, summarize};
pub use yolo::{YoloExporter, YoloOptions};
pub use zeg_base::file::Overwrite;
