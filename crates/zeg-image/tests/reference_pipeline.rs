//! Compares resizing and normalising with ZegCLIP's own pipeline (mmcv, mmsegmentation 0.24, OpenCV).
//!
//! `golden/make_pipe.py` writes `golden/pipe.safetensors` and describes its contents.

#![allow(clippy::unwrap_used)] // test helpers may panic, like the tests

use safetensors::SafeTensors;
use zeg_image::{
    LabelMap, Normalization, RgbImage, fit_box, fit_short_side, resize_bilinear, resize_nearest,
};

static PIPE: &[u8] = include_bytes!("golden/pipe.safetensors");

/// Names of the three images, with the short side of their test-time size.
const IMAGES: [(&str, usize); 3] = [("a", 64), ("b", 48), ("c", 80)];
/// The box of the training resize, long side first.
const TRAIN_BOX: (usize, usize) = (280, 70);

fn tensor(name: &str) -> (Vec<usize>, Vec<u8>) {
    let pipe = SafeTensors::deserialize(PIPE).unwrap();
    let view = pipe.tensor(name).unwrap();
    (view.shape().to_vec(), view.data().to_vec())
}

/// Returns a `[height, width, 3]` BGR tensor as an image.
fn rgb_image(name: &str) -> RgbImage {
    let (shape, mut pixels) = tensor(name);
    for pixel in pixels.chunks_exact_mut(3) {
        pixel.swap(0, 2);
    }
    RgbImage::from_raw(shape[1] as u32, shape[0] as u32, pixels).unwrap()
}

fn labels(name: &str) -> LabelMap {
    let (shape, labels) = tensor(name);
    LabelMap::new(
        shape[1],
        shape[0],
        labels.into_iter().map(u16::from).collect(),
    )
    .unwrap()
}

#[test]
fn bilinear_equals_opencv_exactly() {
    for (name, short) in IMAGES {
        let image = rgb_image(&format!("pipe.{name}.bgr"));
        let (width, height) = (image.width() as usize, image.height() as usize);

        let (test_width, test_height) = fit_short_side(width, height, short);
        let resized = resize_bilinear(&image, test_width, test_height);
        assert_same(
            &resized,
            &rgb_image(&format!("pipe.{name}.resized_bgr")),
            name,
        );

        let (train_width, train_height) = fit_box(width, height, TRAIN_BOX.0, TRAIN_BOX.1);
        let resized = resize_bilinear(&image, train_width, train_height);
        assert_same(
            &resized,
            &rgb_image(&format!("pipe.{name}.train_scale_bgr")),
            name,
        );
    }
}

fn assert_same(ours: &RgbImage, reference: &RgbImage, name: &str) {
    assert_eq!(ours.dimensions(), reference.dimensions(), "{name}");
    let differing = ours
        .iter()
        .zip(reference.iter())
        .filter(|(a, b)| a != b)
        .count();
    let largest = ours
        .iter()
        .zip(reference.iter())
        .map(|(a, b)| a.abs_diff(*b))
        .max();
    assert_eq!(differing, 0, "{name}: values differ by up to {largest:?}");
}

#[test]
fn nearest_equals_opencv() {
    for (name, _) in IMAGES {
        let source = labels(&format!("pipe.{name}.label"));
        let reference = labels(&format!("pipe.{name}.train_scale_label"));
        let resized = resize_nearest(&source, reference.width(), reference.height());
        assert_eq!(resized, reference, "{name}");
    }
}

#[test]
fn normalising_equals_mmcv_bit_for_bit() {
    let image = rgb_image("pipe.b.resized_bgr");
    let (shape, bytes) = tensor("pipe.b.normalized_rgb_hwc");
    let reference: Vec<f32> = bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect(); // [height, width, 3]
    let (height, width) = (shape[0], shape[1]);
    let ours = Normalization::IMAGENET.to_chw(&image); // [3, height, width]
    for pixel in 0..height * width {
        for channel in 0..3 {
            let (our, their) = (
                ours[channel * height * width + pixel],
                reference[pixel * 3 + channel],
            );
            assert_eq!(
                our.to_bits(),
                their.to_bits(),
                "pixel {pixel} channel {channel}: {our} {their}"
            );
        }
    }
}

/// The table has `(height, width)` before and after `Resize(img_scale=(2048, 512), keep_ratio=True, min_size=512)`,
/// recorded from the reference (`test_resize_hw_in_out`).
#[test]
fn test_sizes_equal_mmsegmentation() {
    let recorded = [
        [375, 500, 512, 683],
        [500, 333, 769, 512],
        [640, 427, 767, 512],
        [100, 1000, 512, 5120],
        [512, 512, 512, 512],
        [333, 500, 512, 769],
        [281, 500, 512, 911],
        [640, 480, 683, 512],
        [61, 640, 512, 5372],
        [427, 641, 512, 769],
    ];
    for [height, width, out_height, out_width] in recorded {
        assert_eq!(
            fit_short_side(width, height, 512),
            (out_width, out_height),
            "{width}×{height}"
        );
    }
}

/// The table has `(height, width)`, ratio, and `(height, width)` after the training resize into the box
/// `(int(2048·ratio), int(512·ratio))`, recorded from the reference (`train_resize_hw_ratio_out`).
#[test]
fn training_sizes_equal_mmcv() {
    let recorded = [
        (375, 500, 0.5, 256, 341),
        (375, 500, 0.73, 373, 497),
        (375, 500, 1.0, 512, 683),
        (375, 500, 1.37, 701, 935),
        (375, 500, 1.99, 1018, 1357),
        (500, 333, 0.5, 384, 256),
        (500, 333, 0.73, 560, 373),
        (500, 333, 1.0, 769, 512),
        (500, 333, 1.37, 1053, 701),
        (500, 333, 1.99, 1529, 1018),
        (640, 427, 0.5, 384, 256),
        (640, 427, 0.73, 559, 373),
        (640, 427, 1.0, 767, 512),
        (640, 427, 1.37, 1051, 701),
        (640, 427, 1.99, 1526, 1018),
        (100, 1000, 0.5, 102, 1024),
        (100, 1000, 0.73, 150, 1495),
        (100, 1000, 1.0, 205, 2048),
        (100, 1000, 1.37, 281, 2805),
        (100, 1000, 1.99, 408, 4075),
        (333, 500, 0.5, 256, 384),
        (333, 500, 0.73, 373, 560),
        (333, 500, 1.0, 512, 769),
        (333, 500, 1.37, 701, 1053),
        (333, 500, 1.99, 1018, 1529),
    ];
    for (height, width, ratio, out_height, out_width) in recorded {
        let (long, short) = ((2048.0 * ratio) as usize, (512.0 * ratio) as usize);
        assert_eq!(
            fit_box(width, height, long, short),
            (out_width, out_height),
            "{width}×{height} at {ratio}"
        );
    }
}
