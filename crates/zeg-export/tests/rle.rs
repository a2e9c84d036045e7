//! Compares run lengths, areas and bounding boxes of regions with pycocotools, which wrote the golden file.

mod common;

use serde::Deserialize;
use zeg_export::{Grouping, find_regions, region_rle};
use zeg_image::{IGNORE_LABEL, LabelMap, Rle};

#[derive(Deserialize)]
struct Golden {
    masks: Vec<Mask>,
}

#[derive(Deserialize)]
struct Mask {
    name: String,
    width: u32,
    height: u32,
    /// Alternating numbers of pixels outside and inside, by rows.
    rows: Vec<usize>,
    counts: Vec<u32>,
    text: String,
    area: u64,
    /// Left, top, width, height.
    bbox: [u32; 4],
}

#[test]
fn codes_areas_and_boxes_are_those_of_pycocotools() {
    let text = std::fs::read_to_string(common::golden().join("rle.json")).unwrap();
    let golden: Golden = serde_json::from_str(&text).unwrap();
    assert!(golden.masks.len() >= 40);
    let mut with_regions = 0;
    for mask in golden.masks {
        let name = &mask.name;
        let rows = mask.rows.iter().enumerate();
        let labels: Vec<u16> = rows
            .flat_map(|(place, &count)| {
                let label = if place % 2 == 1 { 0 } else { IGNORE_LABEL };
                vec![label; count]
            })
            .collect();
        let read = Rle::from_coco_string(mask.width, mask.height, &mask.text).unwrap();
        assert_eq!(read.counts(), mask.counts, "{name}");
        assert_eq!(read.to_coco_string(), mask.text, "{name}");
        for (x, y) in read.pixels() {
            assert_eq!(labels[(y * mask.width + x) as usize], 0, "{name}");
        }
        assert_eq!(read.pixels().count() as u64, mask.area, "{name}");

        let map = LabelMap::new(mask.width as usize, mask.height as usize, labels).unwrap();
        let regions = find_regions(&map, Grouping::Class, 1).unwrap();
        let Some(region) = regions.iter().next() else {
            assert_eq!((mask.area, mask.bbox), (0, [0; 4]), "{name}");
            continue;
        };
        with_regions += 1;
        assert_eq!(region_rle(&region), read, "{name}");
        assert_eq!(region.area(), mask.area, "{name}");
        let bounds = region.bounding_box();
        let bounds = [bounds.left, bounds.top, bounds.width, bounds.height];
        assert_eq!(bounds, mask.bbox, "{name}");
    }
    assert!(with_regions >= 35);
}
