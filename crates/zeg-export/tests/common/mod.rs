//! Label maps to export, and simple reference implementations to compare with.

#![allow(dead_code)] // each test file uses a part
#![allow(clippy::unwrap_used)] // helpers of tests may panic, like the tests

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use serde::Deserialize;
use zeg_export::{Classes, Polygon, Region};
use zeg_image::LabelMap;

/// Classes and label maps that `reference/export_formats.py` writes.
#[derive(Deserialize)]
pub(crate) struct Cases {
    pub(crate) names: Vec<String>,
    pub(crate) palette: Vec<[u8; 3]>,
    pub(crate) images: Vec<Case>,
}

#[derive(Deserialize)]
pub(crate) struct Case {
    pub(crate) path: PathBuf,
    pub(crate) width: usize,
    pub(crate) height: usize,
    pub(crate) labels: Vec<u16>,
}

impl Cases {
    pub(crate) fn read(folder: &Path) -> Self {
        let text = std::fs::read_to_string(folder.join("cases.json")).unwrap();
        serde_json::from_str(&text).unwrap()
    }

    pub(crate) fn classes(&self) -> Classes {
        Classes::new(self.names.clone(), self.palette.clone()).unwrap()
    }
}

impl Case {
    pub(crate) fn map(&self) -> LabelMap {
        LabelMap::new(self.width, self.height, self.labels.clone()).unwrap()
    }

    /// Returns a confidence for each pixel, by a formula that the script computes as well.
    pub(crate) fn confidence(&self) -> Vec<f32> {
        let places = (0..self.labels.len()).map(|index| index * 7 % 101);
        places.map(|step| step as f32 / 100.0).collect()
    }
}

pub(crate) fn golden() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden")
}

/// Returns maps of few labels, so that regions of every shape occur; the highest label becomes the ignore label.
pub(crate) fn any_map() -> impl Strategy<Value = LabelMap> {
    (1usize..24, 1usize..24, 1u16..4).prop_flat_map(|(width, height, labels)| {
        prop::collection::vec(0..=labels, width * height).prop_map(move |mut values| {
            for value in &mut values {
                if *value == labels {
                    *value = zeg_image::IGNORE_LABEL;
                }
            }
            LabelMap::new(width, height, values).unwrap()
        })
    })
}

/// Returns the mask of a region, row-major.
pub(crate) fn mask(region: &Region<'_>) -> Vec<bool> {
    let width = region.map_width() as usize;
    let mut mask = vec![false; width * region.map_height() as usize];
    for run in region.runs() {
        let start = run.y as usize * width + run.x as usize;
        mask[start..start + run.length as usize].fill(true);
    }
    mask
}

/// Returns the mask of the pixels whose centres the rings enclose by the even-odd rule, row-major.
pub(crate) fn fill<'a>(
    rings: impl Iterator<Item = &'a [[u32; 2]]>,
    width: usize,
    height: usize,
) -> Vec<bool> {
    let mut mask = vec![false; width * height];
    for ring in rings {
        for (index, &[ax, ay]) in ring.iter().enumerate() {
            let [bx, by] = ring[(index + 1) % ring.len()];
            // A vertical edge inverts all pixels to its right in the rows that it passes.
            if ax == bx {
                for y in ay.min(by)..ay.max(by) {
                    for x in ax as usize..width {
                        mask[y as usize * width + x] ^= true;
                    }
                }
            } else {
                assert_eq!(ay, by, "edges of exact outlines follow the grid");
            }
        }
    }
    mask
}

pub(crate) fn rings(polygons: &[Polygon]) -> impl Iterator<Item = &[[u32; 2]]> {
    let all = |polygon| std::iter::once(Polygon::exterior(polygon)).chain(polygon.holes());
    polygons.iter().flat_map(all)
}
