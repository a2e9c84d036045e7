//! Outlines with fewer points (Douglas and Peucker, "Algorithms for the reduction of the number of points required to
//! represent a digitized line or its caricature", 1973).

use super::Ring;

/// Removes points within the tolerance; the first point and the points that holes are connected to are kept.
pub(super) fn simplified(ring: Ring, tolerance: f64) -> Ring {
    let points = &ring.points;
    let mut kept = vec![false; points.len()];
    let mut fixed: Vec<usize> = std::iter::once(0)
        .chain(ring.hanging.keys().copied())
        .collect();
    fixed.dedup();
    if let [only] = fixed[..] {
        // The algorithm needs lines with two ends, so the ring is split at the point farthest from the first.
        let farthest =
            (0..points.len()).max_by_key(|&index| squared_length(points[only], points[index]));
        fixed.extend(farthest.filter(|&index| index != only));
    }
    // Stretches between fixed points; the last one ends where the first one began.
    let mut stretches: Vec<_> = fixed.windows(2).map(|pair| (pair[0], pair[1])).collect();
    stretches.extend(fixed.last().map(|&last| (last, points.len())));
    for index in fixed {
        kept[index] = true;
    }
    let at = |index: usize| points[index % points.len()];
    while let Some((first, last)) = stretches.pop() {
        let distance = |index| squared_distance(at(index), at(first), at(last));
        let inner = (first + 1..last).map(|index| (index, distance(index)));
        // The middle one of equally distant points is taken: a comb would otherwise lose one tooth at a time, in
        // quadratic time.
        let off_centre = |index: usize| (2 * index).abs_diff(first + last);
        let farthest = inner.max_by(|(one, a), (other, b)| {
            let middle = off_centre(*other).cmp(&off_centre(*one));
            a.total_cmp(b).then(middle)
        });
        if let Some((index, distance)) = farthest
            && distance > tolerance * tolerance
        {
            kept[index] = true;
            stretches.extend([(first, index), (index, last)]);
        }
    }
    let mut result = Ring::default();
    for (index, point) in points.iter().enumerate().filter(|&(index, _)| kept[index]) {
        if let Some(&hole) = ring.hanging.get(&index) {
            result.hanging.insert(result.points.len(), hole);
        }
        result.points.push(*point);
    }
    // The area must keep its sign: the ring has neither collapsed nor turned inside out.
    if doubled_area(&result.points) * doubled_area(points) > 0 {
        result
    } else {
        ring
    }
}

fn squared_length(a: [u32; 2], b: [u32; 2]) -> u64 {
    let [dx, dy] = [
        u64::from(a[0].abs_diff(b[0])),
        u64::from(a[1].abs_diff(b[1])),
    ];
    dx * dx + dy * dy
}

/// Returns the squared distance of `point` from the line between `start` and `end`, which may be the same point.
fn squared_distance(point: [u32; 2], start: [u32; 2], end: [u32; 2]) -> f64 {
    let difference = |a: [u32; 2], b: [u32; 2]| {
        [
            f64::from(a[0]) - f64::from(b[0]),
            f64::from(a[1]) - f64::from(b[1]),
        ]
    };
    let (line, to_point) = (difference(end, start), difference(point, start));
    let length = line[0] * line[0] + line[1] * line[1];
    let along = line[0] * to_point[0] + line[1] * to_point[1];
    let share = if length > 0.0 {
        (along / length).clamp(0.0, 1.0)
    } else {
        0.0
    };
    let [dx, dy] = [to_point[0] - share * line[0], to_point[1] - share * line[1]];
    dx * dx + dy * dy
}

/// Returns twice the area of a ring; positive if it runs clockwise on the screen.
pub(super) fn doubled_area(points: &[[u32; 2]]) -> i128 {
    let following = points.iter().cycle().skip(1);
    let crossed = points.iter().zip(following).map(|(a, b)| {
        let [ax, ay, bx, by] = [a[0], a[1], b[0], b[1]].map(i128::from);
        ax * by - bx * ay
    });
    crossed.sum()
}
