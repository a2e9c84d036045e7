//! Removes small regions of a label map: each takes the label of its largest neighbour.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use zeg_image::LabelMap;

use super::forest::{Forest, Unlabelled};
use super::{Connectivity, Grouping, RegionError, Run};

/// Gives every region of fewer than `minimal_area` pixels the label of the largest region that it touches.
///
/// Regions are pixels of one label that are connected by edges or corners; unlabelled pixels form regions like those
/// of a class. The smallest region is absorbed first. The one that it joins grows by its pixels, and by other
/// neighbours of that label, before the next region is looked at. Of neighbours of equal size the one that begins first in
/// reading order counts. A map of a single region is unchanged.
///
/// # Errors
/// Returns [`RegionError::TooLarge`] if the map has too many pixels.
pub fn absorb_small_regions(labels: &mut LabelMap, minimal_area: u64) -> Result<(), RegionError> {
    if minimal_area <= 1 {
        return Ok(());
    }
    let grouping = Grouping::Connected(Connectivity::Eight);
    let mut forest = Forest::grow_with(labels, grouping, Unlabelled::Keep)?;
    let areas = forest.flatten();
    let roots: Vec<u32> = forest.roots().collect();
    let mut numbers = vec![0_u32; forest.runs.len()]; // region of each run that is a root
    for (number, &root) in roots.iter().enumerate() {
        numbers[root as usize] = number as u32;
    }
    let region_of = |run: usize| numbers[forest.parents[run] as usize];
    let mut regions = Merging {
        parents: (0..roots.len() as u32).collect(),
        labels: roots
            .iter()
            .map(|&root| forest.label(labels, root))
            .collect(),
        areas: roots
            .iter()
            .map(|&root| u64::from(areas[root as usize]))
            .collect(),
        neighbours: vec![Vec::new(); roots.len()],
    };
    for_touching(&forest.runs, |one, other| {
        let (one, other) = (region_of(one), region_of(other));
        if one != other {
            regions.neighbours[one as usize].push(other);
            regions.neighbours[other as usize].push(one);
        }
    });
    regions.absorb(minimal_area);
    let width = labels.width();
    for (number, run) in forest.runs.iter().enumerate() {
        let region = regions.find(region_of(number));
        let start = run.y as usize * width + run.x as usize;
        let pixels = labels
            .labels_mut()
            .get_mut(start..start + run.length as usize);
        pixels
            .unwrap_or_default()
            .fill(regions.labels[region as usize]);
    }
    Ok(())
}

/// Calls `touch` with the numbers of every two runs that share an edge or a corner.
///
/// - `runs`: all runs of a map in reading order, without gaps
fn for_touching(runs: &[Run], mut touch: impl FnMut(usize, usize)) {
    let (mut above, mut begin) = (0..0, 0);
    for row in runs.chunk_by(|run, next| run.y == next.y) {
        let current = begin..begin + row.len();
        let mut first = above.start;
        for number in current.clone() {
            if number > current.start {
                touch(number - 1, number);
            }
            let lower = runs[number];
            while first < above.end && runs[first].end() < lower.x {
                first += 1;
            }
            for (other, upper) in (first..above.end).zip(&runs[first..]) {
                if upper.x > lower.end() {
                    break;
                }
                touch(other, number);
            }
        }
        begin = current.end;
        above = current;
    }
}

/// Regions that are being merged, by their number.
struct Merging {
    /// The region that a region has become a part of, or the region itself.
    parents: Vec<u32>,
    labels: Vec<u16>,
    areas: Vec<u64>,
    /// Regions that a region touches; some occur several times or have become part of others.
    neighbours: Vec<Vec<u32>>,
}

impl Merging {
    /// Returns the region that a region is a part of.
    fn find(&mut self, mut region: u32) -> u32 {
        while self.parents[region as usize] != region {
            let parent = self.parents[region as usize];
            self.parents[region as usize] = self.parents[parent as usize];
            region = self.parents[region as usize];
        }
        region
    }

    /// Merges regions until none is smaller than `minimal_area`, or only one is left.
    fn absorb(&mut self, minimal_area: u64) {
        let sizes = self.areas.iter().zip(0_u32..);
        let small = sizes.filter(|(area, _)| **area < minimal_area);
        let mut waiting: BinaryHeap<_> = small
            .map(|(&area, region)| Reverse((area, region)))
            .collect();
        while let Some(Reverse((area, region))) = waiting.pop() {
            let has_changed =
                self.parents[region as usize] != region || self.areas[region as usize] != area;
            if has_changed {
                continue;
            }
            if let Some(grown) = self.join_largest(region)
                && self.areas[grown as usize] < minimal_area
            {
                waiting.push(Reverse((self.areas[grown as usize], grown)));
            }
        }
    }

    /// Merges a region with its largest neighbour and returns that one; `None` if it has no neighbour.
    fn join_largest(&mut self, region: u32) -> Option<u32> {
        let list = std::mem::take(&mut self.neighbours[region as usize]);
        let mut list: Vec<u32> = list.into_iter().map(|other| self.find(other)).collect();
        list.sort_unstable();
        list.dedup();
        list.retain(|&other| other != region);
        let size = |other: &u32| (self.areas[*other as usize], Reverse(*other));
        let largest = *list.iter().max_by_key(|&other| size(other))?;
        let label = self.labels[largest as usize];
        self.join(region, largest);
        for &other in &list {
            // The region connects its largest neighbour with others of the same label.
            if other != largest && self.labels[other as usize] == label {
                self.join(other, largest);
            }
        }
        self.neighbours[largest as usize].extend(list);
        Some(largest)
    }

    /// Makes a region a part of another.
    fn join(&mut self, region: u32, whole: u32) {
        self.parents[region as usize] = whole;
        self.areas[whole as usize] += self.areas[region as usize];
        let more = std::mem::take(&mut self.neighbours[region as usize]);
        self.neighbours[whole as usize].extend(more);
    }
}

#[cfg(test)]
mod tests {
    use zeg_image::IGNORE_LABEL;

    use super::*;

    /// Returns the map after small regions are absorbed; `.` is an unlabelled pixel.
    fn cleaned(width: usize, text: &str, minimal_area: u64) -> String {
        let labels: Vec<u16> = text
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .map(|byte| match byte {
                b'.' => IGNORE_LABEL,
                digit => u16::from(digit - b'0'),
            })
            .collect();
        let mut map = LabelMap::new(width, labels.len() / width, labels).unwrap();
        absorb_small_regions(&mut map, minimal_area).unwrap();
        let digits = map.labels().iter().map(|&label| match label {
            IGNORE_LABEL => '.',
            digit => char::from(b'0' + digit as u8),
        });
        let digits: Vec<char> = digits.collect();
        let rows: Vec<String> = digits
            .chunks(width)
            .map(|row| row.iter().collect())
            .collect();
        rows.join(" ")
    }

    #[test]
    fn a_small_region_takes_the_label_of_its_largest_neighbour() {
        let map = "0000 0120 0110 3333";
        assert_eq!(cleaned(4, map, 1), map);
        // The 2 touches zeros, which are more than the ones.
        assert_eq!(cleaned(4, map, 2), "0000 0100 0110 3333");
        assert_eq!(cleaned(4, map, 4), "0000 0000 0000 3333");
        assert_eq!(cleaned(4, map, 100), "0000 0000 0000 0000");
    }

    #[test]
    fn unlabelled_pixels_are_a_region_too() {
        assert_eq!(cleaned(4, "0000 0.00 0000", 2), "0000 0000 0000");
        assert_eq!(cleaned(4, ".... .1.. ....", 2), ".... .... ....");
        assert_eq!(cleaned(2, ".. ..", 9), ".. ..");
    }

    #[test]
    fn a_region_grows_while_others_wait() {
        // The 2 joins the ones on both sides, which are then large enough to stay.
        assert_eq!(cleaned(11, "00000112111", 5), "00000111111");
        // Pixels that touch at corners are connected.
        assert_eq!(cleaned(3, "100 010 001", 3), "100 010 001");
    }

    #[test]
    fn of_equal_neighbours_the_first_counts() {
        assert_eq!(cleaned(5, "00211 00011", 2), "00011 00011");
        assert_eq!(cleaned(5, "00211 00211", 3), "00011 00011");
    }
}
