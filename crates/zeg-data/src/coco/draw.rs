//! Draws annotations as label maps.

use std::cmp::Reverse;

use zeg_image::decode::MAX_PIXELS;
use zeg_image::{IGNORE_LABEL, LabelMap, RgbImage, Rle};

use super::Instance;
use super::rule::Overlap;
use super::written::{Counts, Mask, Segment};

/// Draws the masks of objects; pixels without an object have the label `rest`.
///
/// # Errors
/// Returns the reason if a mask is missing or damaged.
pub(super) fn instances(
    instances: &[Instance],
    [width, height]: [u32; 2],
    (overlap, rest): (Overlap, u16),
) -> Result<LabelMap, String> {
    let (columns, rows) = (width as usize, height as usize);
    if columns == 0 || rows == 0 || columns.saturating_mul(rows) > MAX_PIXELS {
        return Err(format!(
            "its size is {width}×{height}; it must have 1 to {MAX_PIXELS} pixels"
        ));
    }
    let mut shapes: Vec<(&Instance, Vec<Rle>)> = Vec::with_capacity(instances.len());
    for instance in instances {
        let masks = masks(instance.mask.as_ref(), width, height).map_err(|reason| {
            format!("annotation {}, counted from 0: {reason}", instance.number)
        })?;
        shapes.push((instance, masks));
    }
    if overlap == Overlap::SmallerArea {
        let area = |masks: &[Rle]| -> u64 { masks.iter().map(Rle::area).sum() };
        shapes.sort_by_cached_key(|(instance, masks)| (!instance.is_crowd, Reverse(area(masks))));
    }
    let mut map = LabelMap::filled(columns, rows, rest);
    // By pixel: whether it is in a mask already; only used if overlaps are ignored.
    let mut is_taken = match overlap {
        Overlap::Ignore => vec![false; columns * rows],
        Overlap::SmallerArea | Overlap::Later => Vec::new(),
    };
    for (instance, masks) in &shapes {
        for (x, y) in masks.iter().flat_map(Rle::pixels) {
            let place = y as usize * columns + x as usize;
            let Some(label) = map.labels_mut().get_mut(place) else {
                continue;
            };
            let taken = is_taken.get_mut(place);
            let overlaps = taken.is_some_and(|taken| std::mem::replace(taken, true));
            *label = if overlaps && *label != instance.label {
                IGNORE_LABEL
            } else {
                instance.label
            };
        }
    }
    Ok(map)
}

/// Decodes a mask: one for each polygon, or one from run lengths.
fn masks(mask: Option<&Mask>, width: u32, height: u32) -> Result<Vec<Rle>, String> {
    match mask {
        Some(Mask::Polygons(polygons))
            if width.max(height) > 2
                && polygons.iter().any(|points| !points.is_empty())
                && polygons.iter().flatten().all(|c| (0.0..=1.0).contains(c)) =>
        {
            Err("the coordinates look normalised, because all are from 0 to 1; they must be in pixels".into())
        }
        Some(Mask::Polygons(polygons)) if !polygons.is_empty() => polygons
            .iter()
            .map(|points| Rle::from_polygon(width, height, points).map_err(|e| e.to_string()))
            .collect(),
        Some(Mask::RunLengths { size, counts }) => {
            if *size != [height, width] {
                return Err(format!(
                    "the mask is {}×{}, but the image {width}×{height}",
                    size[1], size[0]
                ));
            }
            let mask = match counts {
                Counts::Compressed(text) => Rle::from_coco_string(width, height, text),
                Counts::Plain(counts) => Rle::from_counts(width, height, counts.clone()),
            };
            Ok(vec![mask.map_err(|error| error.to_string())?])
        }
        Some(Mask::Polygons(_)) | None => {
            Err("it has no mask, maybe only a box; segmentation needs masks".into())
        }
        Some(Mask::Other(_)) => Err("its mask is neither polygons nor run lengths".into()),
    }
}

/// Replaces the ids of a panoptic PNG by labels; pixels of id 0 have the label `rest`.
///
/// - `segments`: sorted by id
///
/// # Errors
/// Returns the reason if a pixel has an id that is not listed.
pub(super) fn panoptic(
    rgb: &RgbImage,
    segments: &[Segment],
    rest: u16,
) -> Result<LabelMap, String> {
    let (width, height) = (rgb.width() as usize, rgb.height() as usize);
    let mut labels = Vec::with_capacity(width * height);
    // Neighbouring pixels mostly have one id, so the last one is remembered.
    let mut last = (0, rest);
    for (place, &[red, green, blue]) in rgb.as_raw().as_chunks::<3>().0.iter().enumerate() {
        let id = u32::from(red) + 256 * u32::from(green) + 65_536 * u32::from(blue);
        if id != last.0 {
            let found = segments.binary_search_by_key(&id, |segment| segment.id);
            let found = found.ok().and_then(|place| segments.get(place));
            last = match (id, found) {
                (_, Some(segment)) => (id, segment.label),
                (0, None) => (0, rest),
                _ => {
                    return Err(format!(
                        "the segment {id} at ({}, {}) of the PNG is not listed",
                        place % width.max(1),
                        place / width.max(1)
                    ));
                }
            };
        }
        labels.push(last.1);
    }
    LabelMap::new(width, height, labels).map_err(|error| error.to_string())
}
