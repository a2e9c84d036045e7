//! Traces the outlines of a region along the edges of its pixels.
//!
//! Every run of a region has a left and a right side, each one pixel high. An outline goes up the left sides and down
//! the right sides, with the region always to its right. At the grid line between two rows it continues straight where
//! both rows have a side of the same kind at the same place; otherwise it turns and follows the line to the next side.
//! Where two pixels only share a corner, it turns so that they stay separate. The time is linear in the number of runs.
//!
//! Outlines with tolerance 0, filled by the even-odd rule, contain exactly the centres of the region's pixels.
//! Coordinates are those of grid lines: pixel `(x, y)` covers `x..x+1` by `y..y+1`, as in COCO and its rasteriser.

use std::collections::BTreeMap;

use crate::regions::{Region, Run};

mod simplify;

use simplify::simplified;

/// An outline with its holes.
///
/// Exteriors run clockwise as seen on the screen, holes counter-clockwise; no ring repeats its first point.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Polygon {
    /// The exterior, then the holes.
    rings: Vec<Ring>,
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
struct Ring {
    /// Corners of the ring; the first point of a hole is the one that is connected to another ring.
    points: Vec<[u32; 2]>,
    /// By index of a point: the hole that is connected to it.
    hanging: BTreeMap<usize, usize>,
}

impl Polygon {
    /// Returns the outer outline, `[x, y]` in pixels.
    ///
    /// It has extra points on straight edges where the cuts of [`bridged`](Self::bridged) begin; so have holes.
    pub fn exterior(&self) -> &[[u32; 2]] {
        self.rings.first().map_or(&[], |ring| &ring.points)
    }

    /// Returns the outlines of the holes.
    pub fn holes(&self) -> impl Iterator<Item = &[[u32; 2]]> {
        self.rings.iter().skip(1).map(|ring| ring.points.as_slice())
    }

    /// Returns the whole polygon as one ring, for formats without holes.
    ///
    /// Each hole is connected to the ring on its left by a cut, which is walked in both directions. The cuts enclose no
    /// area: filled by the even-odd or by the non-zero rule, the ring covers the polygon.
    pub fn bridged(&self) -> Vec<[u32; 2]> {
        let mut path = Vec::new();
        // Stack of the rings being walked, each with the index of its next point.
        let mut walk = vec![(0, 0)];
        while let Some((ring, next)) = walk.last_mut() {
            let points = self.rings.get(*ring).map_or(&[][..], |ring| &ring.points);
            if let Some(&point) = points.get(*next) {
                path.push(point);
                let hole = self
                    .rings
                    .get(*ring)
                    .and_then(|ring| ring.hanging.get(next));
                *next += 1;
                walk.extend(hole.map(|&hole| (hole, 0)));
                continue;
            }
            // The ring is complete. A hole returns to its first point, and over the cut to the outer ring.
            let hook = points.first().copied();
            walk.pop();
            if let Some(&(outer, next)) = walk.last() {
                path.extend(hook);
                path.extend(
                    self.rings
                        .get(outer)
                        .and_then(|ring| ring.points.get(next - 1)),
                );
            }
        }
        path
    }
}

/// Returns the outlines of a region: one polygon for each part that is connected by edges.
///
/// With a `tolerance` above 0, points are left out as long as the outline stays within this many pixels of the exact
/// one. Outlines of neighbouring regions then no longer fit exactly, and outlines of narrow parts may cross. A ring
/// that would shrink to nothing stays as it is.
pub fn polygons(region: &Region<'_>, tolerance: f32) -> Vec<Polygon> {
    let outlines = Outlines::trace(region);
    outlines.polygons(tolerance)
}

/// The left (even) or right (odd) side of a run: twice the index of the run, plus 1 for the right side.
type Side = u32;

fn left(run: usize) -> Side {
    2 * run as Side
}

fn right(run: usize) -> Side {
    2 * run as Side + 1
}

fn is_left(side: Side) -> bool {
    side.is_multiple_of(2)
}

/// The point at which a side meets a grid line.
#[derive(Clone, Copy)]
struct End {
    x: u32,
    side: Side,
    /// Whether the side lies above the line.
    above: bool,
}

impl End {
    /// Returns true if an outline with the region to its right leaves the side here.
    fn is_exit(self) -> bool {
        is_left(self.side) != self.above
    }
}

/// Closed walks along the sides of a region's runs.
struct Outlines<'a> {
    runs: &'a [Run],
    /// By side: the side that follows it.
    next: Vec<Side>,
    /// By side: the walk it belongs to.
    walk_of: Vec<u32>,
    walks: Vec<Walk>,
}

struct Walk {
    /// The leftmost side; the topmost of several.
    leftmost: Side,
    /// Enclosed area in square pixels; negative for holes.
    area: i64,
}

impl<'a> Outlines<'a> {
    fn trace(region: &Region<'a>) -> Self {
        let runs = region.runs();
        let mut outlines = Self {
            runs,
            next: vec![0; 2 * runs.len()],
            walk_of: vec![u32::MAX; 2 * runs.len()],
            walks: Vec::new(),
        };
        let mut above = 0..0;
        for row in region.rows() {
            let current = above.end..above.end + row.len();
            let adjacent = match (runs.get(above.start), row.first()) {
                (Some(upper), Some(lower)) => upper.y + 1 == lower.y,
                _ => false,
            };
            if adjacent {
                outlines.link_line(above, current.clone());
            } else {
                outlines.link_line(above, 0..0);
                outlines.link_line(0..0, current.clone());
            }
            above = current;
        }
        outlines.link_line(above, 0..0);
        for side in 0..2 * runs.len() as Side {
            if outlines.walk_of[side as usize] == u32::MAX {
                outlines.walk_from(side);
            }
        }
        outlines
    }

    /// Links the ends of sides on the grid line between two rows of runs.
    fn link_line(&mut self, above: std::ops::Range<usize>, below: std::ops::Range<usize>) {
        let ends = |runs: std::ops::Range<usize>, above| {
            let all = self.runs;
            runs.flat_map(move |run| {
                let (x, behind) = (all[run].x, all[run].end());
                let end = move |x, side| End { x, side, above };
                [end(x, left(run)), end(behind, right(run))]
            })
        };
        let mut links = Vec::new();
        let (mut upper, mut lower) = (ends(above, true).peekable(), ends(below, false).peekable());
        // The end at which the outline reached the line, while it follows the line.
        let mut open: Option<End> = None;
        loop {
            let end = match (upper.peek(), lower.peek()) {
                (Some(a), Some(b)) if a.x == b.x && is_left(a.side) == is_left(b.side) => {
                    // The outline continues straight.
                    links.push((*a, *b));
                    upper.next();
                    lower.next();
                    continue;
                }
                // The pixels only share a corner: the run that ends here comes first, so that they stay separate.
                (Some(a), Some(b)) if (a.x, is_left(a.side)) < (b.x, is_left(b.side)) => {
                    upper.next()
                }
                (Some(_), None) => upper.next(),
                _ => lower.next(),
            };
            let Some(end) = end else { break };
            match open.take() {
                Some(other) => links.push((other, end)),
                None => open = Some(end),
            }
        }
        for (one, other) in links {
            let (exit, entry) = if one.is_exit() {
                (one, other)
            } else {
                (other, one)
            };
            self.next[exit.side as usize] = entry.side;
        }
    }

    fn walk_from(&mut self, start: Side) {
        let index = self.walks.len() as u32;
        let mut walk = Walk {
            leftmost: start,
            area: 0,
        };
        let mut side = start;
        loop {
            self.walk_of[side as usize] = index;
            let x = self.x(side);
            walk.area += if is_left(side) {
                -i64::from(x)
            } else {
                i64::from(x)
            };
            let rank = |side| (self.x(side), side);
            if rank(side) < rank(walk.leftmost) {
                walk.leftmost = side;
            }
            side = self.next[side as usize];
            if side == start {
                break;
            }
        }
        self.walks.push(walk);
    }

    fn polygons(&self, tolerance: f32) -> Vec<Polygon> {
        // The leftmost side of a hole is the right side of a run. The left side of this run belongs to a walk that
        // begins further left; the hole is connected to that walk.
        let mut order: Vec<usize> = (0..self.walks.len()).collect();
        order.sort_by_key(|&index| {
            let walk = &self.walks[index];
            (
                walk.area < 0,
                if walk.area < 0 {
                    self.x(walk.leftmost)
                } else {
                    0
                },
            )
        });
        let mut polygons: Vec<Vec<usize>> = Vec::new(); // walks of each polygon
        let mut place = vec![(0, 0); self.walks.len()]; // polygon of each walk, and ring therein
        let mut hanging = BTreeMap::new(); // by side: the walk of the hole connected to it
        for index in order {
            let walk = &self.walks[index];
            let polygon = if walk.area < 0 {
                let across = left(walk.leftmost as usize / 2);
                hanging.insert(across, index);
                place[self.walk_of[across as usize] as usize].0
            } else {
                polygons.push(Vec::new());
                polygons.len() - 1
            };
            place[index] = (polygon, polygons[polygon].len());
            polygons[polygon].push(index);
        }
        let ring_on = |side: Side| hanging.get(&side).map(|&walk| place[walk].1);
        let ring = |&walk: &usize| self.ring(&self.walks[walk], tolerance, ring_on);
        polygons
            .iter()
            .map(|walks| Polygon {
                rings: walks.iter().map(ring).collect(),
            })
            .collect()
    }

    /// Returns the corners of a walk, beginning at its leftmost side, and the points that holes are connected to.
    ///
    /// The upper end of that side is a corner: a hole starts there and an exterior goes there.
    fn ring(&self, walk: &Walk, tolerance: f32, ring_on: impl Fn(Side) -> Option<usize>) -> Ring {
        let mut points = Vec::new();
        let mut hanging = BTreeMap::new();
        let mut side = walk.leftmost;
        let is_hole = walk.area < 0;
        let mut turned = is_hole;
        loop {
            let run = self.runs[side as usize / 2];
            let (x, next) = (self.x(side), self.next[side as usize]);
            let turns = self.x(next) != x;
            let (entry, exit) = if is_left(side) {
                (run.y + 1, run.y)
            } else {
                (run.y, run.y + 1)
            };
            if turned {
                points.push([x, entry]);
            }
            let hole = ring_on(side);
            if let Some(hole) = hole {
                hanging.insert(points.len(), hole);
            }
            if turns || hole.is_some() {
                points.push([x, exit]);
            }
            turned = turns;
            side = next;
            if side == walk.leftmost {
                if turned && !is_hole {
                    points.push([self.x(side), self.runs[side as usize / 2].y + 1]);
                }
                break;
            }
        }
        let ring = Ring { points, hanging };
        if tolerance > 0.0 {
            simplified(ring, f64::from(tolerance))
        } else {
            ring
        }
    }

    fn x(&self, side: Side) -> u32 {
        let run = self.runs[side as usize / 2];
        if is_left(side) { run.x } else { run.end() }
    }
}

#[cfg(test)]
mod tests {
    use super::simplify::doubled_area;
    use super::*;
    use crate::regions::{Connectivity, Grouping, find_regions};
    use zeg_image::{IGNORE_LABEL, LabelMap};

    /// Returns the polygons of all `#`.
    fn drawn(width: usize, text: &str, tolerance: f32) -> Vec<Polygon> {
        let labels: Vec<u16> = text
            .bytes()
            .filter(|byte| !byte.is_ascii_whitespace())
            .map(|byte| if byte == b'#' { 0 } else { IGNORE_LABEL })
            .collect();
        let labels = LabelMap::new(width, labels.len() / width, labels).unwrap();
        let regions = find_regions(&labels, Grouping::Connected(Connectivity::Eight), 1).unwrap();
        regions
            .iter()
            .flat_map(|region| polygons(&region, tolerance))
            .collect()
    }

    #[test]
    fn a_pixel_is_a_square_that_runs_clockwise() {
        let found = drawn(3, "... .#. ...", 0.0);
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].exterior(), [[1, 1], [2, 1], [2, 2], [1, 2]]);
        assert!(doubled_area(found[0].exterior()) > 0);
        assert_eq!(found[0].bridged(), found[0].exterior());
    }

    #[test]
    fn pixels_that_meet_in_a_corner_stay_apart() {
        let found = drawn(2, "#. .#", 0.0);
        assert_eq!(found.len(), 2);
        assert_eq!(found[0].exterior(), [[0, 0], [1, 0], [1, 1], [0, 1]]);
        assert_eq!(found[1].exterior(), [[1, 1], [2, 1], [2, 2], [1, 2]]);
    }

    #[test]
    fn a_hole_is_connected_to_the_outline_to_its_left() {
        let found = drawn(4, "#### #..# ####", 0.0);
        assert_eq!(found.len(), 1);
        let holes: Vec<_> = found[0].holes().collect();
        assert_eq!(holes, [[[1, 1], [1, 2], [3, 2], [3, 1]]]);
        assert!(doubled_area(holes[0]) < 0);
        let path = found[0].bridged();
        assert_eq!(
            path,
            [
                [0, 0],
                [4, 0],
                [4, 3],
                [0, 3],
                [0, 1],
                [1, 1],
                [1, 2],
                [3, 2],
                [3, 1],
                [1, 1],
                [0, 1]
            ]
        );
        assert_eq!(doubled_area(&path), 2 * (12 - 2));
    }

    #[test]
    fn a_comb_is_simplified_in_time() {
        let teeth = 50_000;
        let tooth = "#".repeat(2 * teeth);
        let gap = "#.".repeat(teeth);
        let comb = format!("{gap} {gap} {gap} {tooth}");
        let start = std::time::Instant::now();
        // Teeth three pixels high remain with a tolerance of two, though not every corner, and vanish with one of
        // three.
        let corners = |tolerance| drawn(2 * teeth, &comb, tolerance)[0].exterior().len();
        assert!((teeth..4 * teeth).contains(&corners(2.0)));
        assert_eq!(corners(3.0), 4);
        // Quadratic time would take minutes.
        assert!(start.elapsed().as_secs() < 20, "{:?}", start.elapsed());
    }

    #[test]
    fn a_staircase_becomes_a_line_within_the_tolerance() {
        let stairs = "#....... ##...... ###..... ####.... #####... ######.. #######. ########";
        let exact = drawn(8, stairs, 0.0);
        assert_eq!(exact[0].exterior().len(), 18);
        let rough = drawn(8, stairs, 1.0);
        assert!(rough[0].exterior().len() <= 5, "{:?}", rough[0].exterior());
        // A tolerance beyond the whole region leaves it as it is.
        assert_eq!(drawn(3, "... .#. ...", 9.0), drawn(3, "... .#. ...", 0.0));
        assert_eq!(drawn(8, stairs, f32::NAN), exact);
        assert_eq!(drawn(8, stairs, -1.0), exact);
    }
}
