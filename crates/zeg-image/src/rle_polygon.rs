//! Fills polygons as the COCO API does (`rleFrPoly` in `common/maskApi.c`).
//!
//! The outline is sampled at five times the resolution, and each crossing of a column of pixel centres becomes the end
//! of a run. Points of the outline belong to no pixel but to the grid between them: the polygon
//! `0 0, 2 0, 2 2, 0 2` covers four pixels.

use crate::Rle;

/// Factor between pixels and the grid that an outline is sampled on.
const SCALE: f64 = 5.0;
/// Largest distance of a point from the origin, in pixels; it bounds the time of an outline.
const FARTHEST: f64 = 1e6;

/// Reason why a list of coordinates is not a polygon.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
pub enum PolygonError {
    /// The number of coordinates is odd, or there are fewer than three points.
    #[error("a polygon has {0} coordinates; it must have x and y of at least 3 points")]
    Count(usize),
    /// A coordinate is not finite, or too far away.
    #[error("a polygon has the coordinate {0}; it must be from -1000000 to 1000000")]
    Coordinate(f64),
}

impl Rle {
    /// Fills a polygon, in a mask of `width`×`height` pixels; parts outside of the mask are cut off.
    ///
    /// - `points`: alternating x and y, in pixels from the top left corner
    ///
    /// # Errors
    /// Returns [`PolygonError`] if the coordinates are not at least three points with finite coordinates.
    pub fn from_polygon(width: u32, height: u32, points: &[f64]) -> Result<Self, PolygonError> {
        if points.len() < 6 || !points.len().is_multiple_of(2) {
            return Err(PolygonError::Count(points.len()));
        }
        if let Some(&far) = points
            .iter()
            .find(|value| !(value.is_finite() && value.abs() <= FARTHEST))
        {
            return Err(PolygonError::Coordinate(far));
        }
        let mut crossings = Vec::new();
        let mut last: Option<(i64, i64)> = None;
        outline(points, |u, v| {
            let before = last.replace((u, v));
            if let Some(before) = before
                && let Some(crossing) = crossing(before, (u, v), [width, height])
            {
                crossings.push(crossing);
            }
        });
        crossings.sort_unstable();
        // Two crossings bound a run inside; equal ones cancel each other.
        let stretches = crossings.chunks_exact(2).map(|pair| (pair[0], pair[1]));
        let end = u64::from(width) * u64::from(height);
        let open = match crossings.as_chunks::<2>().1 {
            [first] => Some((*first, end)),
            _ => None,
        };
        let inside = stretches.chain(open).filter(|(first, after)| first < after);
        Ok(Self::from_stretches(width, height, inside))
    }

    /// Returns the number of pixels inside the mask.
    pub fn area(&self) -> u64 {
        let inside = self.counts().iter().skip(1).step_by(2);
        inside.map(|count| u64::from(*count)).sum()
    }
}

/// Calls `visit` with the points of a closed outline on the finer grid, edge by edge, each with both of its ends.
fn outline(points: &[f64], mut visit: impl FnMut(i64, i64)) {
    let scaled = |value: f64| (SCALE * value + 0.5) as i64; // towards zero, as in C
    let corner = |[x, y]: &[f64; 2]| (scaled(*x), scaled(*y));
    let corners: Vec<(i64, i64)> = points.as_chunks::<2>().0.iter().map(corner).collect();
    let next = corners.iter().cycle().skip(1);
    for (&from, &to) in corners.iter().zip(next) {
        let (dx, dy) = ((to.0 - from.0).abs(), (to.1 - from.1).abs());
        let wide = dx >= dy;
        let is_flipped = if wide { from.0 > to.0 } else { from.1 > to.1 };
        let (start, end) = if is_flipped { (to, from) } else { (from, to) };
        let steps = if wide { dx } else { dy };
        let slope = match (steps, wide) {
            (0, _) => 0.0,
            (_, true) => (end.1 - start.1) as f64 / dx as f64,
            (_, false) => (end.0 - start.0) as f64 / dy as f64,
        };
        for step in 0..=steps {
            let t = if is_flipped { steps - step } else { step };
            let along = |origin: i64| (origin as f64 + slope * t as f64 + 0.5) as i64;
            if wide {
                visit(t + start.0, along(start.1));
            } else {
                visit(along(start.0), t + start.1);
            }
        }
    }
}

/// Returns the index of the pixel, by columns, at which an outline crosses a column of pixel centres between two points.
fn crossing(before: (i64, i64), here: (i64, i64), [width, height]: [u32; 2]) -> Option<u64> {
    if before.0 == here.0 {
        return None;
    }
    let to_pixels = |value: i64| (value as f64 + 0.5) / SCALE - 0.5;
    let x = to_pixels(if here.0 < before.0 {
        here.0
    } else {
        here.0 - 1
    });
    if x.fract() != 0.0 || x < 0.0 || x > f64::from(width) - 1.0 {
        return None;
    }
    let y = to_pixels(here.1.min(before.1));
    let y = y.clamp(0.0, f64::from(height)).ceil();
    Some(x as u64 * u64::from(height) + y as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn code(width: u32, height: u32, points: &[f64]) -> String {
        let mask = Rle::from_polygon(width, height, points).unwrap();
        mask.to_coco_string()
    }

    /// Made by `reference/coco_polygons.py` with pycocotools 2.0.11.
    #[test]
    fn polygons_are_filled_as_by_pycocotools() {
        let expected: [(u32, u32, &[f64], &str); 8] = [
            (4, 3, &[1.0, 0.0, 3.0, 0.0, 3.0, 2.0, 1.0, 2.0], "32103"),
            (
                10,
                8,
                &[1.2, 1.7, 8.9, 2.1, 7.4, 6.8, 2.2, 6.1],
                ":173M00001O00O1N8",
            ),
            (
                10,
                8,
                &[-3.5, -2.0, 14.0, 3.3, 4.0, 12.0],
                "0532N90G0000001O0OO",
            ),
            (
                12,
                9,
                &[2.0, 2.0, 2.0, 2.0, 9.5, 2.0, 9.5, 7.0, 6.0, 3.0, 2.0, 7.0],
                "d045O1O1O1002N1O1?",
            ),
            (
                7,
                7,
                &[0.0, 0.0, 7.0, 7.0, 7.0, 0.0, 0.0, 7.0],
                "062N2N80H2N2O",
            ),
            (
                20,
                15,
                &[10.01, 1.49, 18.5, 13.51, 1.5, 13.5, 10.0, 6.0],
                "[11=1O1O1O1O1O1O1L41O2N1O2N1O2N1O1O2",
            ),
            (5, 5, &[1.0, 1.0, 1.0, 1.0, 1.0, 1.0], "i0"),
            (6, 4, &[5.5, 0.5, 5.5, 3.5, 0.5, 3.5], "712100O100"),
        ];
        for (width, height, points, counts) in expected {
            assert_eq!(code(width, height, points), counts, "{points:?}");
        }
    }

    #[test]
    fn a_square_covers_the_pixels_between_its_corners() {
        let mask = Rle::from_polygon(4, 3, &[1.0, 0.0, 3.0, 0.0, 3.0, 2.0, 1.0, 2.0]).unwrap();
        let pixels: Vec<(u32, u32)> = mask.pixels().collect();
        assert_eq!(pixels, [(1, 0), (1, 1), (2, 0), (2, 1)]);
        assert_eq!(mask.area(), 4);
    }

    #[test]
    fn lists_that_are_no_polygon_are_refused() {
        for points in [&[][..], &[1.0, 2.0, 3.0, 4.0], &[0.0; 7]] {
            let error = Rle::from_polygon(4, 4, points).unwrap_err();
            assert_eq!(error, PolygonError::Count(points.len()));
        }
        for far in [f64::NAN, f64::INFINITY, -1e9] {
            let points = [0.0, 0.0, 3.0, 0.0, 3.0, far];
            let error = Rle::from_polygon(4, 4, &points).unwrap_err();
            assert!(matches!(error, PolygonError::Coordinate(_)), "{error}");
        }
    }
}
