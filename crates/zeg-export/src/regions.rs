//! Connected regions of a label map.
//!
//! The map is read once, row by row, as runs of equal labels. A run that touches a run of the same label in the row
//! above joins its region (union-find; the earliest run represents the region). The time is linear in the number of
//! pixels. The memory grows with the number of runs, not of pixels: 16 bytes per run while searching, 32 while
//! grouping. The worst map, in which no two neighbours have the same label, has as many runs as pixels; labels of
//! natural images have about a hundred times fewer.

use std::collections::BTreeMap;
use std::path::Path;

use zeg_image::LabelMap;
use zeg_image::decode::MAX_PIXELS;

use crate::ExportError;

mod absorb;
mod forest;

pub use absorb::absorb_small_regions;
use forest::Forest;

/// Largest number of regions of one map.
pub const MAX_REGIONS: usize = 1 << 22;

/// Which pixels count as neighbours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Connectivity {
    /// Pixels that share an edge.
    Four,
    /// Pixels that share an edge or a corner.
    #[default]
    Eight,
}

/// Which pixels form one region.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Grouping {
    /// All pixels of a class, connected or not.
    Class,
    /// Connected pixels of a class.
    Connected(Connectivity),
}

/// Consecutive pixels of one row: `length` pixels from `(x, y)` to the right.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// Column of the first pixel.
    pub x: u32,
    /// Row.
    pub y: u32,
    /// Number of pixels, at least 1.
    pub length: u32,
}

impl Run {
    /// Returns the column after the last pixel.
    pub fn end(&self) -> u32 {
        self.x + self.length
    }
}

/// A bounding box, in pixels from the top left corner.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct BoundingBox {
    /// First column.
    pub left: u32,
    /// First row.
    pub top: u32,
    /// Columns.
    pub width: u32,
    /// Rows.
    pub height: u32,
}

/// One region of a [`Regions`].
#[derive(Debug, Clone, Copy)]
pub struct Region<'a> {
    entry: &'a Entry,
    runs: &'a [Run],
    map_width: u32,
    map_height: u32,
}

impl<'a> Region<'a> {
    /// Returns the label.
    pub fn label(&self) -> u16 {
        self.entry.label
    }

    /// Returns the number of pixels.
    pub fn area(&self) -> u64 {
        self.entry.area
    }

    /// Returns the bounding box.
    pub fn bounding_box(&self) -> BoundingBox {
        self.entry.bounding_box
    }

    /// Returns the mean of the pixel centres, `[x, y]`; the centre of the first pixel of a map is `[0.5, 0.5]`.
    pub fn centroid(&self) -> [f64; 2] {
        self.entry.centroid
    }

    /// Returns the runs, sorted by row, then by column; runs of a row neither touch nor overlap.
    pub fn runs(&self) -> &'a [Run] {
        self.runs
    }

    /// Returns the runs of each non-empty row, from top to bottom.
    pub fn rows(&self) -> impl Iterator<Item = &'a [Run]> {
        self.runs.chunk_by(|run, next| run.y == next.y)
    }

    /// Returns the number of columns of the label map.
    pub fn map_width(&self) -> u32 {
        self.map_width
    }

    /// Returns the number of rows of the label map.
    pub fn map_height(&self) -> u32 {
        self.map_height
    }
}

/// The regions of a map, sorted by label, then by their first pixel in reading order.
#[derive(Debug, Clone)]
pub struct Regions {
    width: u32,
    height: u32,
    /// Sorted by region, then by row and column.
    runs: Vec<Run>,
    entries: Vec<Entry>,
}

#[derive(Debug, Clone)]
struct Entry {
    label: u16,
    area: u64,
    bounding_box: BoundingBox,
    centroid: [f64; 2],
    /// Its runs are `first..behind` of [`Regions::runs`].
    first: usize,
    behind: usize,
}

impl Regions {
    /// Returns the number of regions.
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Returns true if there are no regions.
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Returns an iterator over the regions.
    pub fn iter(&self) -> impl Iterator<Item = Region<'_>> {
        self.entries.iter().map(|entry| Region {
            entry,
            runs: self.runs.get(entry.first..entry.behind).unwrap_or(&[]),
            map_width: self.width,
            map_height: self.height,
        })
    }
}

/// An error of finding the regions of a map.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum RegionError {
    /// The map has more than [`MAX_PIXELS`] pixels.
    #[error("label map of {width}×{height} pixels exceeds the limit of {MAX_PIXELS} pixels")]
    TooLarge {
        /// Columns.
        width: usize,
        /// Rows.
        height: usize,
    },
    /// The map has more than [`MAX_REGIONS`] regions.
    #[error("more than {MAX_REGIONS} regions of at least {minimal_area} pixels")]
    TooMany {
        /// The smallest area of a counted region, in pixels.
        minimal_area: u64,
    },
}

impl RegionError {
    /// Returns the error with the path of the image.
    pub(crate) fn of(self, image: &Path) -> ExportError {
        match self {
            Self::TooLarge { width, height } => ExportError::TooLarge {
                image: image.into(),
                width,
                height,
                limit: MAX_PIXELS,
            },
            Self::TooMany { minimal_area } => ExportError::TooManyRegions {
                image: image.into(),
                limit: MAX_REGIONS,
                minimal_area,
            },
        }
    }
}

/// Finds the regions of at least `minimal_area` pixels; pixels of [`IGNORE_LABEL`](zeg_image::IGNORE_LABEL) belong to
/// no region.
///
/// # Errors
/// Returns an error if the map has too many pixels or regions.
pub fn find_regions(
    labels: &LabelMap,
    grouping: Grouping,
    minimal_area: u64,
) -> Result<Regions, RegionError> {
    let mut forest = Forest::grow(labels, grouping)?;
    let areas = forest.flatten();
    let large = |root: u32| u64::from(areas[root as usize]) >= minimal_area.max(1);
    let mut roots: Vec<u32> = forest.roots().filter(|&root| large(root)).collect();
    if roots.len() > MAX_REGIONS {
        return Err(RegionError::TooMany { minimal_area });
    }
    // The sort is stable: regions of a class stay in the order of their first pixels.
    roots.sort_by_key(|&root| forest.label(labels, root));

    // Index of the region of each root; `u32::MAX` for a root whose region is too small.
    let mut places = areas; // reuses the memory of the areas
    places.fill(u32::MAX);
    for (index, &root) in roots.iter().enumerate() {
        places[root as usize] = index as u32;
    }
    let region_of = |run: usize| {
        let index = places[forest.parents[run] as usize] as usize;
        (index < roots.len()).then_some(index)
    };

    let mut counts = vec![0_usize; roots.len()];
    for run in 0..forest.runs.len() {
        if let Some(index) = region_of(run) {
            counts[index] += 1;
        }
    }
    let mut builders = Vec::with_capacity(roots.len());
    let mut first = 0;
    for (&root, count) in roots.iter().zip(&counts) {
        builders.push(Builder::new(forest.label(labels, root), first));
        first += count;
    }
    let nothing = Run {
        x: 0,
        y: 0,
        length: 0,
    };
    let mut runs = vec![nothing; first];
    for (run, &pixels) in forest.runs.iter().enumerate() {
        if let Some(index) = region_of(run) {
            let builder = &mut builders[index];
            runs[builder.behind] = pixels;
            builder.add(pixels);
        }
    }
    Ok(Regions {
        width: labels.width() as u32,
        height: labels.height() as u32,
        runs,
        entries: builders.into_iter().map(Builder::finish).collect(),
    })
}

/// Counts the regions of each label without storing them, so that there is no limit on their number.
///
/// # Errors
/// Returns [`RegionError::TooLarge`] if the map has too many pixels.
pub fn count_regions(
    labels: &LabelMap,
    connectivity: Connectivity,
    minimal_area: u64,
) -> Result<BTreeMap<u16, usize>, RegionError> {
    let mut forest = Forest::grow(labels, Grouping::Connected(connectivity))?;
    let areas = forest.flatten();
    let mut counts = BTreeMap::new();
    for root in forest.roots() {
        if u64::from(areas[root as usize]) >= minimal_area.max(1) {
            *counts.entry(forest.label(labels, root)).or_default() += 1;
        }
    }
    Ok(counts)
}

/// Measures of a region while its runs are being added.
struct Builder {
    label: u16,
    area: u64,
    left: u32,
    right: u32,
    top: Option<u32>,
    bottom: u32,
    /// Twice the sums of the pixel centres, so that they are integers.
    doubled: [u64; 2],
    first: usize,
    behind: usize,
}

impl Builder {
    fn new(label: u16, first: usize) -> Self {
        Self {
            label,
            area: 0,
            left: u32::MAX,
            right: 0,
            top: None,
            bottom: 0,
            doubled: [0; 2],
            first,
            behind: first,
        }
    }

    fn add(&mut self, run: Run) {
        let length = u64::from(run.length);
        self.area += length;
        self.left = self.left.min(run.x);
        self.right = self.right.max(run.end());
        self.top.get_or_insert(run.y);
        self.bottom = run.y + 1;
        // The mean centre of a run is half the sum of its two ends.
        self.doubled[0] += length * (u64::from(run.x) + u64::from(run.end()));
        self.doubled[1] += length * (2 * u64::from(run.y) + 1);
        self.behind += 1;
    }

    fn finish(self) -> Entry {
        let top = self.top.unwrap_or(0);
        Entry {
            label: self.label,
            area: self.area,
            bounding_box: BoundingBox {
                left: self.left,
                top,
                width: self.right.saturating_sub(self.left),
                height: self.bottom - top,
            },
            centroid: self.doubled.map(|sum| sum as f64 / (2 * self.area) as f64),
            first: self.first,
            behind: self.behind,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeg_image::IGNORE_LABEL;

    fn map(width: usize, text: &str) -> LabelMap {
        let labels: Vec<u16> = text
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .map(|byte| {
                if byte == b'.' {
                    IGNORE_LABEL
                } else {
                    u16::from(byte - b'0')
                }
            })
            .collect();
        LabelMap::new(width, labels.len() / width, labels).unwrap()
    }

    fn areas(labels: &LabelMap, grouping: Grouping, minimal_area: u64) -> Vec<(u16, u64)> {
        let regions = find_regions(labels, grouping, minimal_area).unwrap();
        regions
            .iter()
            .map(|region| (region.label(), region.area()))
            .collect()
    }

    #[test]
    fn corners_connect_in_eight_directions_only() {
        let labels = map(4, "0.10 .0.. 1.00");
        let four = Grouping::Connected(Connectivity::Four);
        let eight = Grouping::Connected(Connectivity::Eight);
        assert_eq!(
            areas(&labels, four, 0),
            [(0, 1), (0, 1), (0, 1), (0, 2), (1, 1), (1, 1)]
        );
        assert_eq!(areas(&labels, eight, 0), [(0, 4), (0, 1), (1, 1), (1, 1)]);
        assert_eq!(areas(&labels, Grouping::Class, 0), [(0, 5), (1, 2)]);
        assert_eq!(areas(&labels, four, 2), [(0, 2)]);
        assert_eq!(
            count_regions(&labels, Connectivity::Four, 1).unwrap(),
            [(0, 4), (1, 2)].into()
        );
        assert_eq!(
            count_regions(&labels, Connectivity::Four, 2).unwrap(),
            [(0, 1)].into()
        );
    }

    #[test]
    fn arms_that_meet_late_are_one_region() {
        let labels = map(5, "1.1.1 1.1.1 1.111 111..");
        let four = Grouping::Connected(Connectivity::Four);
        let regions = find_regions(&labels, four, 1).unwrap();
        assert_eq!(regions.len(), 1);
        let region = regions.iter().next().unwrap();
        assert_eq!(region.area(), 13);
        assert_eq!(
            region.bounding_box(),
            BoundingBox {
                left: 0,
                top: 0,
                width: 5,
                height: 4
            }
        );
        assert_eq!(region.rows().count(), 4);
    }

    #[test]
    fn measures_of_a_rectangle() {
        let labels = map(4, ".... .777 .777");
        let regions = find_regions(&labels, Grouping::Class, 1).unwrap();
        let region = regions.iter().next().unwrap();
        assert_eq!(region.centroid().map(|mean| (2.0 * mean) as u32), [5, 4]);
        assert_eq!(
            region.bounding_box(),
            BoundingBox {
                left: 1,
                top: 1,
                width: 3,
                height: 2
            }
        );
        assert_eq!((region.label(), region.area()), (7, 6));
        assert_eq!((region.map_width(), region.map_height()), (4, 3));
    }

    #[test]
    fn an_empty_map_has_no_regions() {
        for labels in [
            LabelMap::filled(0, 0, 0),
            LabelMap::filled(0, 5, 0),
            LabelMap::filled(5, 0, 0),
            LabelMap::filled(3, 2, IGNORE_LABEL),
        ] {
            assert!(
                find_regions(&labels, Grouping::Class, 1)
                    .unwrap()
                    .is_empty()
            );
        }
    }

    #[test]
    fn more_regions_than_a_file_can_hold_are_an_error_that_a_larger_area_avoids() {
        // Single pixels of two classes: no two neighbours have the same label.
        let (width, height) = (2050, 2050);
        let labels = (0..width * height).map(|index| ((index / width + index % width) % 2) as u16);
        let labels = LabelMap::new(width, height, labels.collect()).unwrap();
        let four = Grouping::Connected(Connectivity::Four);
        assert_eq!(
            find_regions(&labels, four, 1).unwrap_err(),
            RegionError::TooMany { minimal_area: 1 }
        );
        assert!(find_regions(&labels, four, 2).unwrap().is_empty());
        let counts = count_regions(&labels, Connectivity::Four, 1).unwrap();
        assert_eq!(counts[&0] + counts[&1], width * height);
        // Connected over corners, each class is one region.
        let eight = Grouping::Connected(Connectivity::Eight);
        assert_eq!(find_regions(&labels, eight, 1).unwrap().len(), 2);
    }
}
