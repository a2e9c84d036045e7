//! Tests of the whole pipeline on an image whose colours encode its labels.

use proptest::prelude::*;
use zeg_image::{IGNORE_LABEL, LabelMap, Normalization, PADDING_LABEL, RgbImage};

use super::*;
use crate::chance::{Purpose, stream};

/// Normalisation that does not change bytes.
const PLAIN: Normalization = Normalization {
    mean: [0.0; 3],
    std: [1.0; 3],
};

/// Blocks of 40×40 pixels; red is 30 · (1 + class), green 200 and blue 100 everywhere.
fn sample(width: u32, height: u32) -> Sample {
    let class = |x: u32, y: u32| (x / 40 + 3 * (y / 40)) % 5;
    let image = RgbImage::from_fn(width, height, |x, y| {
        image::Rgb([30 * (1 + class(x, y)) as u8, 200, 100])
    });
    let labels = (0..height)
        .flat_map(|y| (0..width).map(move |x| class(x, y) as u16))
        .collect();
    Sample {
        id: "blocks".to_owned(),
        image,
        labels: LabelMap::new(width as usize, height as usize, labels).unwrap(),
    }
}

fn small_crop() -> RandomCrop {
    RandomCrop {
        base_scale: (512, 128),
        crop: 128,
        photometric: false,
        ..RandomCrop::default()
    }
}

/// Checks the label of every pixel whose neighbourhood has one colour; returns how many of them have a class.
fn count_aligned(sample: &TrainSample, size: usize, padding: u8) -> usize {
    // Converted back to bytes, which can be compared exactly.
    let red: Vec<u8> = sample.image[..size * size]
        .iter()
        .map(|&value| value as u8)
        .collect();
    let mut aligned = 0;
    for y in 1..size - 1 {
        for x in 1..size - 1 {
            let at = y * size + x;
            // All eight neighbours are compared, because where two edges cross, the four nearest may have the same
            // mixed colour.
            let around = [at - size, at, at + size].map(|middle| [middle - 1, middle, middle + 1]);
            if around.iter().flatten().any(|&other| red[other] != red[at]) {
                continue;
            }
            let label = sample.labels[at];
            if red[at] == padding {
                assert_eq!(label, PADDING_LABEL, "padding at ({x}, {y})");
            } else {
                assert_eq!(u16::from(red[at]), 30 * (1 + label), "at ({x}, {y})");
                aligned += 1;
            }
        }
    }
    aligned
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn labels_stay_with_their_pixels(width in 60_u32..400, height in 60_u32..400, draw in any::<u64>()) {
        let pipeline = Pipeline::new(Preprocess::RandomCrop(small_crop()), PLAIN).unwrap();
        let made = pipeline.apply(sample(width, height), &mut stream(0, Purpose::Sample, draw));
        prop_assert_eq!(made.image.len(), 3 * 128 * 128);
        prop_assert_eq!(made.labels.len(), 128 * 128);
        prop_assert!(count_aligned(&made, 128, 0) > 500);
        let sides = ShortSides { base: 128, longest: 512, crop: 128, photometric: false, ..ShortSides::default() };
        let pipeline = Pipeline::new(Preprocess::ShortSides(sides), PLAIN).unwrap();
        let made = pipeline.apply(sample(width, height), &mut stream(0, Purpose::Sample, draw));
        prop_assert!(count_aligned(&made, 128, 128) > 500); // the padding is grey, as in ZegFormer
        let whole = Whole { size: 96, flip: 0.5, photometric: false };
        let pipeline = Pipeline::new(Preprocess::Whole(whole), PLAIN).unwrap();
        let made = pipeline.apply(sample(width, height), &mut stream(0, Purpose::Sample, draw));
        prop_assert!(count_aligned(&made, 96, 0) > 500);
        prop_assert!(!made.labels.contains(&IGNORE_LABEL) && !made.labels.contains(&PADDING_LABEL));
    }
}

#[test]
fn the_same_stream_gives_the_same_sample() {
    let settings = RandomCrop {
        photometric: true,
        ..small_crop()
    };
    let pipeline = Pipeline::new(Preprocess::RandomCrop(settings), PLAIN).unwrap();
    let made = |draw| pipeline.apply(sample(300, 200), &mut stream(0, Purpose::Sample, draw));
    assert_eq!(made(1), made(1));
    assert_ne!(made(1), made(2));
}

#[test]
fn whole_images_are_deterministic_by_default() {
    let settings = Preprocess::Whole(Whole::default());
    let pipeline = Pipeline::new(settings, Normalization::IMAGENET).unwrap();
    let made = |draw| pipeline.apply(sample(300, 200), &mut stream(0, Purpose::Sample, draw));
    assert_eq!(made(1), made(2));
    assert_eq!(pipeline.size(), 512);
}

#[test]
fn padding_is_zero_after_normalisation() {
    let settings = RandomCrop {
        ratio: (0.5, 0.5),
        flip: 0.0,
        ..small_crop()
    };
    let settings = Preprocess::RandomCrop(settings);
    let pipeline = Pipeline::new(settings, Normalization::IMAGENET).unwrap();
    // 200×100 pixels are fitted into 256×64 as 128×64.
    let made = pipeline.apply(sample(200, 100), &mut stream(0, Purpose::Sample, 0));
    for plane in made.image.chunks_exact(128 * 128) {
        assert!(plane[..64 * 128].iter().all(|&value| value != 0.0));
        assert!(plane[64 * 128..].iter().all(|&value| value == 0.0));
    }
    assert!(made.labels[..64 * 128].iter().all(|&label| label < 5));
    assert!(
        made.labels[64 * 128..]
            .iter()
            .all(|&label| label == PADDING_LABEL)
    );
}
