//! Run-length code ([`Rle`]) of a region.

use zeg_image::Rle;

use crate::regions::{Region, Run};

/// Returns the run-length code of a region, in a mask of the size of its map.
///
/// Time and memory grow with the length of the region's outline, not with its area.
pub fn region_rle(region: &Region<'_>) -> Rle {
    let (mut tops, mut bottoms) = (Vec::new(), Vec::new());
    let mut above: &[Run] = &[];
    for row in region.rows() {
        let y = row.first().map_or(0, |run| run.y);
        if let Some(last) = above.first().map(|run| run.y).filter(|last| last + 1 != y) {
            push_columns(above, &[], last + 1, &mut bottoms);
            above = &[];
        }
        push_columns(row, above, y, &mut tops);
        push_columns(above, row, y, &mut bottoms);
        above = row;
    }
    let behind = above.first().map_or(0, |run| run.y + 1);
    push_columns(above, &[], behind, &mut bottoms);
    // The sort is stable: in each column the rows stay in order, so that tops and bottoms form pairs.
    tops.sort_by_key(|&(x, _)| x);
    bottoms.sort_by_key(|&(x, _)| x);

    let height = region.map_height();
    let index = |(x, y): (u32, u32)| u64::from(x) * u64::from(height) + u64::from(y);
    let stretches = tops.into_iter().zip(bottoms);
    let stretches = stretches.map(|(top, bottom)| (index(top), index(bottom)));
    Rle::from_stretches(region.map_width(), height, stretches)
}

/// Appends `(x, y)` to `points` for each column of `runs` that `others` does not cover; both are in order.
fn push_columns(runs: &[Run], others: &[Run], y: u32, points: &mut Vec<(u32, u32)>) {
    let mut others = others.iter().peekable();
    for run in runs {
        let mut x = run.x;
        while x < run.end() {
            while others.next_if(|other| other.end() <= x).is_some() {}
            let (free, next) = match others.peek() {
                Some(other) => (other.x.clamp(x, run.end()), other.end()),
                None => (run.end(), run.end()),
            };
            points.extend((x..free).map(|x| (x, y)));
            x = if free == run.end() { free } else { next };
        }
    }
}
