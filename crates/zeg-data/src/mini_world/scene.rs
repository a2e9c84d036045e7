//! Draws the layout of an image: the names, places, sizes and rotations of its objects. Nothing is rendered here.

use rand_chacha::ChaCha8Rng;

use super::names::Name;
use super::shape::Shape;
use super::texture::Surface;
use crate::chance::{below, happens, uniform};

/// Smallest distance of an object's centre to the image's edge, in radii; below 1 the edge may cut off a part.
const MARGIN: f64 = 0.75;
/// Range of the smallest distance to other objects, as a share of the sum of both radii; below 1 objects overlap.
const NEARNESS: (f64, f64) = (0.5, 1.0);
/// Number of places that are tried; if none is far enough from other objects, the farthest is used.
const TRIES: usize = 24;
/// Largest radius as a share of the image's side, for images smaller than those the radii were chosen for.
const MOST_OF_IMAGE: f64 = 0.45;

/// The names that the objects of an image may have.
#[derive(Debug, Clone, Copy)]
pub(super) struct ObjectChoice<'a> {
    /// The names that most objects have.
    pub(super) usual: &'a [Name],
    /// The names of distractors.
    pub(super) others: &'a [Name],
    /// Probability of a distractor.
    pub(super) distractors: f64,
}

/// Settings of the layout of an image.
#[derive(Debug, Clone, Copy)]
pub(super) struct Layout {
    /// Width and height of the image in pixels.
    pub(super) size: usize,
    /// Smallest and largest number of objects.
    pub(super) objects: (usize, usize),
    /// Smallest and largest radius in pixels.
    pub(super) radius: (f64, f64),
    /// Largest rotation in radians.
    pub(super) rotation: f64,
}

/// An object to render.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object {
    pub(super) name: Name,
    pub(super) shape: Shape,
    pub(super) surface: Surface,
    /// Centre in pixels.
    pub(super) centre: (f64, f64),
    /// Radius in pixels.
    pub(super) radius: f64,
    /// Cosine and sine of the rotation.
    pub(super) rotation: (f64, f64),
}

/// Draws the objects of an image, from back to front; no two have the same name.
pub(super) fn draw_objects(
    layout: &Layout,
    choice: ObjectChoice,
    rng: &mut ChaCha8Rng,
) -> Vec<Object> {
    let (least, most) = layout.objects;
    let count = least + below(rng, (most + 1).saturating_sub(least));
    let high = layout.radius.1.min(MOST_OF_IMAGE * layout.size as f64);
    let low = layout.radius.0.min(high);
    let (mut usual, mut others) = (choice.usual.to_vec(), choice.others.to_vec());
    let mut objects: Vec<Object> = Vec::with_capacity(count);
    for _ in 0..count {
        let (first, second) = if happens(rng, choice.distractors) {
            (&mut others, &mut usual)
        } else {
            (&mut usual, &mut others)
        };
        let Some(name) = take(first, rng).or_else(|| take(second, rng)) else {
            break;
        };
        let radius = uniform(rng, low, high);
        let shape = Shape::ALL[below(rng, Shape::ALL.len())];
        let rotation = cosine_and_sine(uniform(rng, -layout.rotation, layout.rotation));
        let surface = Surface::draw(name, radius, rng);
        let centre = place(layout.size as f64, radius, &objects, rng);
        objects.push(Object {
            name,
            shape,
            surface,
            centre,
            radius,
            rotation,
        });
    }
    objects
}

/// Removes a random name and returns it.
fn take(names: &mut Vec<Name>, rng: &mut ChaCha8Rng) -> Option<Name> {
    if names.is_empty() {
        return None;
    }
    let index = below(rng, names.len());
    Some(names.swap_remove(index))
}

/// Draws a centre that is far enough from other objects not to hide them.
fn place(size: f64, radius: f64, others: &[Object], rng: &mut ChaCha8Rng) -> (f64, f64) {
    let wanted = uniform(rng, NEARNESS.0, NEARNESS.1);
    let margin = (MARGIN * radius).min(size / 2.0);
    let mut best = ((size / 2.0, size / 2.0), f64::MIN);
    for _ in 0..TRIES {
        let x = uniform(rng, margin, size - margin);
        let y = uniform(rng, margin, size - margin);
        let room = others.iter().map(|other| {
            let (dx, dy) = (x - other.centre.0, y - other.centre.1);
            (dx * dx + dy * dy).sqrt() / (radius + other.radius)
        });
        let room = room.fold(f64::MAX, f64::min);
        if room > best.1 {
            best = ((x, y), room);
        }
        if room >= wanted {
            break;
        }
    }
    best.0
}

/// Returns the cosine and sine of an angle within ±π.
///
/// They are computed from sums, products and a square root only, because the standard library's functions may differ in
/// the last bit between machines, and images must not.
fn cosine_and_sine(angle: f64) -> (f64, f64) {
    let quarter = angle / 4.0;
    let square = quarter * quarter;
    // The Taylor series up to the 13th power; the next term is below 1e-13 for a quarter of π.
    let sine = [
        13.0 * 12.0,
        11.0 * 10.0,
        9.0 * 8.0,
        7.0 * 6.0,
        5.0 * 4.0,
        3.0 * 2.0,
    ]
    .iter()
    .fold(1.0, |sum, divisor| 1.0 - square / divisor * sum)
        * quarter;
    let cosine = (1.0 - sine * sine).sqrt();
    let double = |(cosine, sine): (f64, f64)| (cosine * cosine - sine * sine, 2.0 * sine * cosine);
    double(double((cosine, sine)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chance::{Purpose, stream};

    #[test]
    fn cosine_and_sine_match_the_standard_library() {
        for step in -1000..=1000 {
            let angle = f64::from(step) / 1000.0 * std::f64::consts::PI;
            let (cosine, sine) = cosine_and_sine(angle);
            assert!((cosine - angle.cos()).abs() < 1e-11, "{angle}");
            assert!((sine - angle.sin()).abs() < 1e-11, "{angle}");
        }
    }

    #[test]
    fn objects_have_different_names_until_all_are_used() {
        let names: Vec<Name> = Name::all().collect();
        let (usual, others) = names.split_at(3);
        let layout = Layout {
            size: 64,
            objects: (9, 9),
            radius: (9.0, 16.0),
            rotation: 0.45,
        };
        for counter in 0..50 {
            let mut rng = stream(0, Purpose::Sample, counter);
            let choice = ObjectChoice {
                usual,
                others: &others[..4],
                distractors: 0.2,
            };
            let objects = draw_objects(&layout, choice, &mut rng);
            let mut drawn: Vec<Name> = objects.iter().map(|object| object.name).collect();
            drawn.sort_unstable();
            assert_eq!(drawn, names[..7]);
        }
    }
}
