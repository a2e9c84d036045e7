//! Tests that regions are those of a flood fill, and that filled outlines give back the regions.

mod common;

use std::collections::BTreeMap;

use common::{any_map, fill, mask, rings};
use proptest::prelude::*;
use zeg_export::regions::count_regions;
use zeg_export::{Connectivity, Grouping, find_regions, polygons, region_rle};
use zeg_image::{IGNORE_LABEL, LabelMap};

/// Returns the region of each pixel, from 1, in the order of first pixels; 0 for none.
fn flood(map: &LabelMap, connectivity: Connectivity) -> Vec<usize> {
    let (width, height) = (map.width() as isize, map.height() as isize);
    let mut regions = vec![0; map.labels().len()];
    let mut count = 0;
    for start in 0..regions.len() {
        if regions[start] > 0 || map.labels()[start] == IGNORE_LABEL {
            continue;
        }
        count += 1;
        regions[start] = count;
        let mut open = vec![start];
        while let Some(pixel) = open.pop() {
            let (x, y) = (pixel as isize % width, pixel as isize / width);
            for (dx, dy) in (-1..=1).flat_map(|dx| (-1..=1).map(move |dy| (dx, dy))) {
                if connectivity == Connectivity::Four && dx != 0 && dy != 0 {
                    continue;
                }
                let (x, y) = (x + dx, y + dy);
                if (0..width).contains(&x) && (0..height).contains(&y) {
                    let other = (y * width + x) as usize;
                    if regions[other] == 0 && map.labels()[other] == map.labels()[pixel] {
                        regions[other] = count;
                        open.push(other);
                    }
                }
            }
        }
    }
    regions
}

fn any_connectivity() -> impl Strategy<Value = Connectivity> {
    prop_oneof![Just(Connectivity::Four), Just(Connectivity::Eight)]
}

proptest! {
    #[test]
    fn regions_are_those_of_a_flood_fill(
        map in any_map(), connectivity in any_connectivity(), minimal_area in 0u64..6
    ) {
        let flooded = flood(&map, connectivity);
        let mut expected: BTreeMap<usize, Vec<bool>> = BTreeMap::new();
        for (pixel, &region) in flooded.iter().enumerate().filter(|&(_, &region)| region > 0) {
            expected.entry(region).or_insert_with(|| vec![false; flooded.len()])[pixel] = true;
        }
        let area = |mask: &Vec<bool>| mask.iter().filter(|&&inside| inside).count() as u64;
        let mut expected: Vec<_> = expected.into_values().filter(|mask| area(mask) >= minimal_area).collect();
        let label = |mask: &Vec<bool>| map.labels()[mask.iter().position(|&inside| inside).unwrap()];
        expected.sort_by_key(label);
        let found = find_regions(&map, Grouping::Connected(connectivity), minimal_area).unwrap();
        let masks: Vec<_> = found.iter().map(|region| mask(&region)).collect();
        prop_assert_eq!(&masks, &expected);
        let mut counts = BTreeMap::new();
        for (region, mask) in found.iter().zip(&masks) {
            *counts.entry(region.label()).or_default() += 1;
            prop_assert_eq!(region.label(), label(mask));
            prop_assert_eq!(region.area(), area(mask));
            let inside: Vec<_> = (0..mask.len()).filter(|&pixel| mask[pixel])
                .map(|pixel| (pixel % map.width(), pixel / map.width())).collect();
            let bounds = region.bounding_box();
            prop_assert_eq!(bounds.left as usize, inside.iter().map(|p| p.0).min().unwrap());
            prop_assert_eq!(bounds.top as usize, inside.iter().map(|p| p.1).min().unwrap());
            prop_assert_eq!((bounds.left + bounds.width - 1) as usize, inside.iter().map(|p| p.0).max().unwrap());
            prop_assert_eq!((bounds.top + bounds.height - 1) as usize, inside.iter().map(|p| p.1).max().unwrap());
            let mean = |sum: usize| sum as f64 / inside.len() as f64 + 0.5;
            let [x, y] = region.centroid();
            prop_assert!((x - mean(inside.iter().map(|p| p.0).sum())).abs() < 1e-9);
            prop_assert!((y - mean(inside.iter().map(|p| p.1).sum())).abs() < 1e-9);
        }
        prop_assert_eq!(count_regions(&map, connectivity, minimal_area).unwrap(), counts);
    }

    #[test]
    fn a_class_is_one_region(map in any_map()) {
        let found = find_regions(&map, Grouping::Class, 1).unwrap();
        for region in found.iter() {
            let expected: Vec<_> = map.labels().iter().map(|&label| label == region.label()).collect();
            prop_assert_eq!(mask(&region), expected);
        }
        let labels: std::collections::BTreeSet<_> =
            map.labels().iter().filter(|&&label| label != IGNORE_LABEL).collect();
        prop_assert_eq!(found.len(), labels.len());
    }

    #[test]
    fn outlines_enclose_exactly_the_region(map in any_map(), by_class: bool, connectivity in any_connectivity()) {
        let grouping = if by_class { Grouping::Class } else { Grouping::Connected(connectivity) };
        for region in find_regions(&map, grouping, 1).unwrap().iter() {
            let found = polygons(&region, 0.0);
            let (width, height) = (map.width(), map.height());
            prop_assert_eq!(fill(rings(&found), width, height), mask(&region));
            let bridged: Vec<_> = found.iter().map(zeg_export::Polygon::bridged).collect();
            prop_assert_eq!(fill_bridged(&bridged, width, height), mask(&region));
            // Each part that is connected by edges is one polygon.
            let parts = LabelMap::new(width, height,
                mask(&region).iter().map(|&inside| if inside { 0 } else { IGNORE_LABEL }).collect()).unwrap();
            let parts = count_regions(&parts, Connectivity::Four, 1).unwrap();
            prop_assert_eq!(found.len(), parts[&0]);
        }
    }

    #[test]
    fn rough_outlines_are_outlines(map in any_map(), tolerance in 0.1f32..5.0) {
        for region in find_regions(&map, Grouping::Class, 1).unwrap().iter() {
            let exact = polygons(&region, 0.0);
            let rough = polygons(&region, tolerance);
            prop_assert_eq!(exact.len(), rough.len());
            for (exact, rough) in rings(&exact).zip(rings(&rough)) {
                prop_assert!(rough.len() >= 3);
                prop_assert!(rough.iter().all(|point| exact.contains(point)));
                for &point in exact {
                    prop_assert!(distance(point, rough) <= f64::from(tolerance) + 1e-6 || rough == exact);
                }
            }
            prop_assert!(rough.iter().all(|polygon| polygon.bridged().len() >= polygon.exterior().len()));
        }
    }

    #[test]
    fn run_lengths_of_a_region_are_those_of_its_mask(map in any_map(), by_class: bool) {
        let grouping = if by_class { Grouping::Class } else { Grouping::Connected(Connectivity::Eight) };
        for region in find_regions(&map, grouping, 1).unwrap().iter() {
            let rle = region_rle(&region);
            let mut found = vec![false; map.width() * map.height()];
            for (x, y) in rle.pixels() {
                found[y as usize * map.width() + x as usize] = true;
            }
            prop_assert_eq!(found, mask(&region));
            // The code of a mask is unique: adjacent stretches are joined.
            prop_assert!(rle.counts().iter().skip(1).all(|&count| count > 0));
        }
    }
}

/// Fills bridged polygons. Cuts are walked in both directions, so they do not change the filling.
fn fill_bridged(paths: &[Vec<[u32; 2]>], width: usize, height: usize) -> Vec<bool> {
    fill(paths.iter().map(Vec::as_slice), width, height)
}

/// Returns the distance of a point from the nearest edge of a ring.
fn distance(point: [u32; 2], ring: &[[u32; 2]]) -> f64 {
    let [x, y] = point.map(f64::from);
    let edges = (0..ring.len()).map(|index| (ring[index], ring[(index + 1) % ring.len()]));
    let distances = edges.map(|(a, b)| {
        let ([ax, ay], [bx, by]) = (a.map(f64::from), b.map(f64::from));
        let (dx, dy) = (bx - ax, by - ay);
        let length = dx * dx + dy * dy;
        let share = if length > 0.0 {
            (((x - ax) * dx + (y - ay) * dy) / length).clamp(0.0, 1.0)
        } else {
            0.0
        };
        (ax + share * dx - x).hypot(ay + share * dy - y)
    });
    distances.fold(f64::INFINITY, f64::min)
}
