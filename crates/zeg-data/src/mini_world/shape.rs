//! Ten shapes as signed distance functions: negative inside, 0 on the outline, positive outside.
//!
//! Everything is computed from sums, products and square roots, which every processor rounds in the same way, so an
//! image has the same bytes on every machine. Outside of corners the distance is a little too small; this does not
//! matter, because the renderer uses distances up to half a pixel only.

use serde::{Deserialize, Serialize};

/// The shape of an object; classes do not depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[allow(missing_docs, reason = "shapes")]
pub enum Shape {
    Disc,
    Square,
    Triangle,
    Ring,
    Star,
    Cross,
    Ellipse,
    Hexagon,
    Crescent,
    Heart,
}

/// Largest distance between the centre and the outline of a shape of radius 1, that of the triangle's lower corners.
pub(super) const REACH: f32 = 1.18;

impl Shape {
    /// All shapes.
    pub const ALL: [Self; 10] = [
        Self::Disc,
        Self::Square,
        Self::Triangle,
        Self::Ring,
        Self::Star,
        Self::Cross,
        Self::Ellipse,
        Self::Hexagon,
        Self::Crescent,
        Self::Heart,
    ];

    /// Returns its word in captions.
    pub fn word(self) -> &'static str {
        match self {
            Self::Disc => "disc",
            Self::Square => "square",
            Self::Triangle => "triangle",
            Self::Ring => "ring",
            Self::Star => "star",
            Self::Cross => "cross",
            Self::Ellipse => "ellipse",
            Self::Hexagon => "hexagon",
            Self::Crescent => "crescent",
            Self::Heart => "heart",
        }
    }

    /// Returns the signed distance of a point to the outline; the shape has radius 1, and `y` grows downwards.
    pub(super) fn distance(self, x: f32, y: f32) -> f32 {
        let right = x.abs();
        match self {
            Self::Disc => length(x, y) - 0.95,
            Self::Square => right.max(y.abs()) - 0.82,
            // Corners at (0, −1.05) and (±1, 0.62); the larger distance to the base and to the sides, by their normals.
            Self::Triangle => (y - 0.62).max(0.857_98 * right - 0.513_76 * y - 0.539_45),
            Self::Ring => (length(x, y) - 0.7).abs() - 0.27,
            // Beyond an acute tip the distance to the lines is too small; the circle through the tips corrects it.
            Self::Star => star(right, y).max(length(x, y) - 1.165),
            Self::Cross => {
                let upright = (right - 0.33).max(y.abs() - 0.98);
                let lying = (right - 0.98).max(y.abs() - 0.33);
                upright.min(lying)
            }
            Self::Ellipse => ellipse(x, y, 1.1, 0.6),
            Self::Hexagon => (0.866_03 * right + 0.5 * y.abs()).max(y.abs()) - 0.85,
            // The two circles meet at x = 0.602; the line there limits the acute tips, as the circle limits the star's.
            Self::Crescent => {
                let circles = (length(x, y) - 1.0).max(0.8 - length(x - 0.55, y));
                circles.max(x - 0.602)
            }
            Self::Heart => heart(right, y),
        }
    }
}

fn length(x: f32, y: f32) -> f32 {
    (x * x + y * y).sqrt()
}

/// Returns the distance to a pentagram with a tip upwards: the points on the inner side of four of its five lines.
fn star(right: f32, y: f32) -> f32 {
    /// Distance of the lines from the centre; the tips are at 0.36 / cos 72° = 1.165.
    const LINE: f32 = 0.36;
    // The normals point at −90°, and towards both sides at −18° and 54°. Both lines of a mirrored pair are needed,
    // because a point on the right can be beyond the right line and within the left one.
    let lines = [
        -y,
        0.951_06 * right - 0.309_02 * y,
        -0.951_06 * right - 0.309_02 * y,
        0.587_79 * right + 0.809_02 * y,
        -0.587_79 * right + 0.809_02 * y,
    ];
    let (mut largest, mut second) = (f32::MIN, f32::MIN);
    for line in lines {
        second = second.max(line.min(largest));
        largest = largest.max(line);
    }
    second - LINE
}

/// Returns the distance to an ellipse to first order, as value over slope; it is exact on the outline.
fn ellipse(x: f32, y: f32, a: f32, b: f32) -> f32 {
    let value = length(x / a, y / b);
    let slope = length(x / (a * a), y / (b * b));
    // The slope is 0 at the centre, which is inside.
    if slope < 1e-6 {
        return -b;
    }
    value * (value - 1.0) / slope
}

/// Returns the distance to a heart: a square standing on its corner, with a disc on each of its upper sides.
fn heart(right: f32, y: f32) -> f32 {
    const CENTRE: f32 = 0.1;
    const HALF_DIAGONAL: f32 = 0.85;
    let square = (right + (y - CENTRE).abs() - HALF_DIAGONAL) * std::f32::consts::FRAC_1_SQRT_2;
    let middle = HALF_DIAGONAL / 2.0;
    let disc = length(right - middle, y - CENTRE + middle);
    square.min(disc - HALF_DIAGONAL * std::f32::consts::FRAC_1_SQRT_2)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns the area of a shape and the distance of its farthest inner point.
    fn measure(shape: Shape) -> (f32, f32) {
        const STEPS: usize = 400;
        let (mut inside, mut farthest) = (0, 0.0_f32);
        let at = |step: usize| ((step as f32 + 0.5) / STEPS as f32 * 2.0 - 1.0) * 1.5;
        for y in (0..STEPS).map(at) {
            for x in (0..STEPS).map(at) {
                if shape.distance(x, y) <= 0.0 {
                    inside += 1;
                    farthest = farthest.max(length(x, y));
                }
            }
        }
        (inside as f32 / (STEPS * STEPS) as f32 * 9.0, farthest)
    }

    #[test]
    fn areas_match_the_formulas_of_geometry() {
        let pi = std::f32::consts::PI;
        let (r, line) = (0.85_f32, 0.36_f32);
        // Ten triangles between the centre, a tip and the inner corner beside it.
        let tip = line / 72_f32.to_radians().cos();
        let inner = tip * 18_f32.to_radians().sin() / 54_f32.to_radians().sin();
        let star = 5.0 * tip * inner * 36_f32.to_radians().sin();
        let lens = {
            // Two circles of radii 1 and 0.8 whose centres are 0.55 apart.
            let (a, b, d) = (1.0_f32, 0.8_f32, 0.55_f32);
            let one = (d * d + a * a - b * b) / (2.0 * d * a);
            let two = (d * d + b * b - a * a) / (2.0 * d * b);
            let kite = ((-d + a + b) * (d + a - b) * (d - a + b) * (d + a + b)).sqrt() / 2.0;
            a * a * one.acos() + b * b * two.acos() - kite
        };
        for (shape, area) in [
            (Shape::Disc, pi * 0.95 * 0.95),
            (Shape::Square, 1.64 * 1.64),
            (Shape::Triangle, 1.67),
            (Shape::Ring, pi * (0.97 * 0.97 - 0.43 * 0.43)),
            (Shape::Star, star),
            (Shape::Cross, 2.0 * 0.66 * 1.96 - 0.66 * 0.66),
            (Shape::Ellipse, pi * 1.1 * 0.6),
            (Shape::Hexagon, 2.0 * 3_f32.sqrt() * r * r),
            (Shape::Crescent, pi - lens),
            // The square's side is 0.85 · √2, and the diameter of the two half discs.
            (Shape::Heart, 2.0 * r * r + pi * r * r / 2.0),
        ] {
            let (measured, farthest) = measure(shape);
            assert!(
                (measured - area).abs() < 0.02,
                "{shape:?}: {measured} and not {area}"
            );
            assert!(farthest <= REACH, "{shape:?}: {farthest}");
            assert!(farthest > 0.9, "{shape:?}: {farthest}");
        }
    }

    /// A distance changes by at most the length of the step between two points.
    #[test]
    fn distances_are_continuous_and_never_too_large() {
        for shape in Shape::ALL {
            for row in -60_i16..=60 {
                for column in -60_i16..=60 {
                    let (x, y) = (f32::from(column) / 45.0, f32::from(row) / 45.0);
                    let here = shape.distance(x, y);
                    let there = shape.distance(x + 0.01, y - 0.01);
                    // The ellipse's distance is of first order and correct only near the outline, where it is used.
                    if shape == Shape::Ellipse && here.abs() > 0.15 {
                        continue;
                    }
                    let most = if shape == Shape::Ellipse {
                        0.02
                    } else {
                        0.0142
                    };
                    assert!((here - there).abs() < most, "{shape:?} at ({x}, {y})");
                }
            }
        }
    }
}
