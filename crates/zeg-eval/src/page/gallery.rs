//! The gallery: images with their ground truth, prediction and errors, embedded in the page.
//!
//! Thumbnails are read from files beside the record. A thumbnail that is missing, too large or not an image is replaced
//! by a sentence that says so, because the numbers are useful without it.

use std::path::Path;

use base64::{Engine as _, prelude::BASE64_STANDARD};
use image::{ImageFormat, ImageReader};
use std::io::Cursor;

use super::text::{percent, share};
use super::{ReportInput, RunInput};
use crate::record::read_limited;
use crate::{ClassRef, ClassShare, GalleryEntry, Rank};

/// Largest size of a thumbnail in bytes; one of 512 pixels takes a hundredth of this.
const MAX_THUMBNAIL_BYTES: u64 = 4 << 20;
/// Largest total size of the thumbnails of a page in bytes.
pub(super) const MAX_PAGE_BYTES: usize = 64 << 20;
/// Largest width and height of an embedded image.
const MAX_THUMBNAIL_SIDE: u32 = 8192;
/// Largest number of classes in a legend.
pub(super) const NAMED: usize = 12;

/// The images of one evaluation.
pub(super) struct Gallery {
    /// Name of the evaluation; `None` if there is only one.
    pub(super) run: Option<String>,
    pub(super) groups: Vec<Group>,
}

/// The images of one rank.
pub(super) struct Group {
    pub(super) title: &'static str,
    pub(super) items: Vec<Item>,
}

/// An image with its panels and its legend.
pub(super) struct Item {
    pub(super) id: String,
    /// Score in percent.
    pub(super) score: String,
    pub(super) panels: Vec<Panel>,
    pub(super) legend: Vec<LegendEntry>,
    /// Number of classes that are not in the legend.
    pub(super) more: usize,
}

/// One panel of an image, such as the image, the ground truth or a prediction.
pub(super) struct Panel {
    pub(super) caption: String,
    /// Score of the prediction in percent, where the caption needs it.
    pub(super) score: Option<String>,
    pub(super) alt: String,
    pub(super) image: Result<Embedded, String>,
}

pub(super) struct Embedded {
    pub(super) address: String,
    pub(super) width: u32,
    pub(super) height: u32,
}

pub(super) struct LegendEntry {
    pub(super) name: String,
    pub(super) colour: [u8; 3],
    /// CSS class of the name; see [`kind`].
    pub(super) kind: &'static str,
    /// Shares of the pixels in the ground truth and in the prediction, or in each of several predictions.
    pub(super) truth: String,
    pub(super) prediction: String,
}

/// Returns the galleries of all evaluations that have one.
///
/// - `names`: the name of every evaluation
/// - `split`: the classes, of an evaluation that tells which are unseen
/// - `budget`: remaining size of the thumbnails of the page in bytes
pub(super) fn galleries(
    input: &ReportInput,
    names: &[String],
    split: &[ClassRef],
    budget: &mut usize,
) -> Vec<Gallery> {
    let several = input.runs.len() > 1;
    let mut galleries = Vec::new();
    for (run, name) in input.runs.iter().zip(names) {
        let evaluation = &run.evaluation;
        if evaluation.gallery.is_empty() {
            continue;
        }
        let ranks = [
            (Rank::Best, "Best"),
            (Rank::Median, "Median"),
            (Rank::Worst, "Worst"),
        ];
        let groups = ranks.map(|(rank, title)| {
            let entries = evaluation.gallery.iter().filter(|entry| entry.rank == rank);
            let items = entries.map(|entry| item(entry, run, split, budget));
            Group {
                title,
                items: items.collect(),
            }
        });
        galleries.push(Gallery {
            run: several.then(|| name.clone()),
            groups: groups
                .into_iter()
                .filter(|group| !group.items.is_empty())
                .collect(),
        });
    }
    galleries
}

fn item(entry: &GalleryEntry, run: &RunInput, split: &[ClassRef], budget: &mut usize) -> Item {
    let (id, classes) = (&entry.id, &run.evaluation.classes);
    let panels = [
        ("image", &entry.image, format!("Image {id}")),
        (
            "ground truth",
            &entry.truth,
            format!(
                "True classes of {id}{}",
                present(entry, classes, |share| share.truth)
            ),
        ),
        (
            "prediction",
            &entry.prediction,
            format!(
                "Predicted classes of {id}{}",
                present(entry, classes, |share| share.prediction)
            ),
        ),
        (
            "errors",
            &entry.error,
            format!("Where the prediction of {id} is wrong"),
        ),
    ];
    let legend = entry.classes.iter().take(NAMED).filter_map(|of| {
        let class = classes.get(of.class)?;
        Some(LegendEntry {
            name: class.name.clone(),
            colour: class.colour,
            kind: kind(of.class, split),
            truth: share(of.truth),
            prediction: share(of.prediction),
        })
    });
    Item {
        id: id.clone(),
        score: percent(Some(entry.score)),
        panels: panels
            .into_iter()
            .map(|(caption, file, alt)| Panel::of(caption, alt, &run.folder, file, budget))
            .collect(),
        legend: legend.collect(),
        more: entry.classes.len().saturating_sub(NAMED),
    }
}

/// Returns the names of the classes with a share above 0, as `: sheep, grass`; an empty text if there is none.
pub(super) fn present(
    entry: &GalleryEntry,
    classes: &[ClassRef],
    of: fn(&ClassShare) -> f64,
) -> String {
    let present = entry.classes.iter().filter(|share| of(share) > 0.0);
    let names: Vec<&str> = present
        .filter_map(|share| classes.get(share.class))
        .map(|class| class.name.as_str())
        .take(NAMED)
        .collect();
    if names.is_empty() {
        String::new()
    } else {
        format!(": {}", names.join(", "))
    }
}

/// Returns the CSS class of a class name: `seen` or `unseen`; empty where no class is unseen.
pub(super) fn kind(label: usize, classes: &[ClassRef]) -> &'static str {
    let is_divided = classes.iter().any(|class| class.unseen);
    match classes.get(label) {
        Some(class) if class.unseen => "unseen",
        Some(_) if is_divided => "seen",
        _ => "",
    }
}

impl Panel {
    /// Embeds an image file of a record.
    pub(super) fn of(
        caption: &str,
        alt: String,
        folder: &Path,
        file: &str,
        budget: &mut usize,
    ) -> Self {
        Self {
            caption: caption.to_owned(),
            score: None,
            alt,
            image: embed(&folder.join(file), budget).map_err(|why| format!("{file} {why}")),
        }
    }
}

fn embed(path: &Path, budget: &mut usize) -> Result<Embedded, &'static str> {
    let bytes = read_limited(path, MAX_THUMBNAIL_BYTES).map_err(|_| "cannot be read")?;
    let rest = budget
        .checked_sub(bytes.len())
        .ok_or("would make the page too large")?;
    let media = match image::guess_format(&bytes) {
        Ok(ImageFormat::Png) => "image/png",
        Ok(ImageFormat::Jpeg) => "image/jpeg",
        _ => return Err("is neither PNG nor JPEG"),
    };
    let reader = ImageReader::new(Cursor::new(&bytes)).with_guessed_format();
    let sides = reader
        .map_err(image::ImageError::from)
        .and_then(ImageReader::into_dimensions);
    let (width, height) = sides.map_err(|_| "is damaged")?;
    if !(1..=MAX_THUMBNAIL_SIDE).contains(&width) || !(1..=MAX_THUMBNAIL_SIDE).contains(&height) {
        return Err("is not of the size of a thumbnail");
    }
    *budget = rest;
    Ok(Embedded {
        address: format!("data:{media};base64,{}", BASE64_STANDARD.encode(&bytes)),
        width,
        height,
    })
}
