//! Compares crops, boxes and combined scores with numbers of an independent program, `reference/zsseg.py`.

use safetensors::{Dtype, SafeTensors};
use zeg_image::RgbImage;

use super::{
    ZssegOptions,
    ensemble::{Ensemble, RegionLogits},
    regions::{Fill, RegionBox, RegionImage, RegionMasks},
};
use crate::scores::QueryMasks;

const NUMBERS: &[u8] = include_bytes!("../../../tests/golden/zsseg.safetensors");
/// Sides of image and padded image, and of a crop, in the script.
const SIZE: [usize; 2] = [30, 50];
const PADDED: [usize; 2] = [32, 64];
const SIDE: usize = 12;

/// Returns a tensor's shape and values.
fn read(name: &str) -> (Vec<usize>, Vec<f32>) {
    let file = SafeTensors::deserialize(NUMBERS).unwrap();
    let tensor = file.tensor(name).unwrap();
    let bytes = tensor.data();
    let values = match tensor.dtype() {
        Dtype::F32 => bytes
            .as_chunks::<4>()
            .0
            .iter()
            .map(|b| f32::from_le_bytes(*b))
            .collect(),
        Dtype::I64 => bytes
            .as_chunks::<8>()
            .0
            .iter()
            .map(|b| i64::from_le_bytes(*b) as f32)
            .collect(),
        _ => bytes.iter().map(|b| f32::from(*b)).collect(),
    };
    (tensor.shape().to_vec(), values)
}

fn image() -> RgbImage {
    let (_, planes) = read("image");
    let pixels = SIZE[0] * SIZE[1];
    let bytes = (0..pixels).flat_map(|pixel| [0, 1, 2].map(|c| planes[c * pixels + pixel] as u8));
    RgbImage::from_raw(SIZE[1] as u32, SIZE[0] as u32, bytes.collect()).unwrap()
}

fn masks() -> RegionMasks {
    let (shape, values) = read("masks");
    let masks = QueryMasks {
        values,
        queries: shape[0],
        grid: [shape[1], shape[2]],
    };
    RegionMasks::new(&masks, PADDED, SIZE, 0.5)
}

fn close(found: &[f32], expected: &[f32]) {
    assert_eq!(found.len(), expected.len());
    let largest = expected.iter().fold(0.0_f32, |most, v| most.max(v.abs()));
    for (place, (a, b)) in found.iter().zip(expected).enumerate() {
        assert!((a - b).abs() <= 1e-4 * largest, "{a} {b} at {place}");
    }
}

#[test]
fn boxes_and_crops_are_those_of_the_script() {
    let (image, masks) = (image(), masks());
    let valid = masks.valid();
    let numbers = |values: &[usize]| values.iter().map(|v| *v as f32).collect::<Vec<f32>>();
    close(&numbers(&valid), &read("valid").1);
    let boxes: Vec<usize> = valid
        .iter()
        .filter_map(|&query| RegionBox::of_mask(&masks.inside[query], SIZE))
        .flat_map(|b| [b.left, b.top, b.right, b.bottom])
        .collect();
    close(&numbers(&boxes), &read("boxes").1);
    for (name, options) in [
        ("crops", ZssegOptions::default()),
        (
            "crops_black",
            ZssegOptions {
                fill: Fill::Zero,
                ..ZssegOptions::default()
            },
        ),
        (
            "crops_soft",
            ZssegOptions {
                matting: true,
                ..ZssegOptions::default()
            },
        ),
        (
            "crops_expanded",
            ZssegOptions {
                expand: 1.5,
                ..ZssegOptions::default()
            },
        ),
    ] {
        let crops = RegionImage::new(&image, &options).crops(&masks, &valid, SIDE);
        close(&crops, &read(name).1);
    }
}

#[test]
fn combined_scores_are_those_of_the_script() {
    let logits = RegionLogits {
        own: read("own").1,
        crops: Some(read("clip").1),
        valid: read("valid").1.iter().map(|v| *v as usize).collect(),
        classes: 3,
    };
    let scores = logits.scores(Ensemble::SeenUnseen, 0.7, &[true, false, true]);
    close(&scores, &read("scores").1);
}
