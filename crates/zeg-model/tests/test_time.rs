//! Test-time views against properties that need no reference.
#![allow(clippy::unwrap_used)] // in tests

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use proptest::prelude::*;
use zeg_image::{Normalization, RgbImage, flip_horizontal};
use zeg_model::{
    ModelError,
    inference::{ClassQueries, Inference, TestTime, segment},
    method::{ModelFacts, Scoring, SegmentationModel, ViewBatch},
    scores::ViewScores,
};

const PATCH: usize = 4;

/// A model whose masks are the mean colours of its patches times the class embeddings: nothing in it depends on where
/// a patch lies, so that every lack of symmetry is the pipeline's.
#[derive(Module, Debug)]
struct Colours {
    #[module(skip)]
    scoring: Scoring,
}

impl SegmentationModel for Colours {
    /// Mean colours of the patches: `[1, 3, h, w]`
    type Encoding = Tensor<4>;

    fn facts(&self) -> ModelFacts {
        ModelFacts {
            stride: PATCH,
            embed_dim: 3,
            normalization: Normalization::IMAGENET,
            scoring: self.scoring,
        }
    }

    fn encode(&self, views: &ViewBatch) -> Result<Vec<Tensor<4>>, ModelError> {
        let [batch, channels, height, width] = views.images.dims();
        let (h, w) = (height / PATCH, width / PATCH);
        let colours = views
            .images
            .clone()
            .reshape([batch, channels, h, PATCH, w, PATCH])
            .mean_dims(&[3, 5]) // [batch, 3, h, 1, w, 1]
            .reshape([batch, channels, h, w]);
        Ok((0..batch)
            .map(|index| colours.clone().narrow(0, index, 1))
            .collect())
    }

    fn score(&self, colours: &Tensor<4>, classes: &ClassQueries) -> Result<ViewScores, ModelError> {
        let [_, channels, h, w] = colours.dims();
        let colours = colours.clone().reshape([channels, h * w]);
        let logits = classes.text.clone().matmul(colours); // [classes, h·w]
        Ok(ViewScores::Logits(logits.reshape([1, classes.len(), h, w])))
    }
}

fn queries(device: &Device) -> ClassQueries {
    let text = TensorData::new(
        vec![1.0_f32, 0.2, -1.0, -0.7, 1.0, 0.1, 0.1, -0.9, 1.0],
        [3, 3],
    );
    ClassQueries::new(Tensor::from_data(text, device), vec![true, false, true])
}

fn picture(width: u32, height: u32, seed: u32) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| {
        let value = |k: u32| {
            let z = (x / 5 + 31 * (y / 3) + 977 * k + seed).wrapping_mul(0x9E37_79B1);
            (z >> 24) as u8
        };
        image::Rgb([value(1), value(2), value(3)])
    })
}

fn settings() -> Inference {
    Inference {
        short_side: 24,
        crop: 24,
        stride: 16,
        seen_offset: 0.05,
        ..Inference::default()
    }
}

fn labels(picture: &RgbImage, test_time: &TestTime, scoring: Scoring) -> Vec<u16> {
    let device = Device::flex();
    let queries = queries(&device);
    let model = Colours { scoring };
    segment(&model, picture, &queries, (&settings(), test_time), &device)
        .unwrap()
        .0
        .into_labels()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// With flips, the labels of a mirrored picture are the mirrored labels, whatever windows and sizes do.
    #[test]
    fn flips_make_labels_symmetric(width in 8_u32..70, height in 8_u32..70, seed: u32, scales in 1_usize..3) {
        let test_time = TestTime { scales: vec![1.0, 0.75][..scales].to_vec(), flip: true };
        for scoring in [Scoring::Sigmoid, Scoring::Softmax] {
            let picture = picture(width, height, seed);
            let mut straight = labels(&picture, &test_time, scoring);
            for row in straight.chunks_exact_mut(width as usize) {
                row.reverse();
            }
            let mirrored = labels(&flip_horizontal(&picture), &test_time, scoring);
            // Views are summed in another order, so that scores that tie but for rounding may fall either way.
            let differ = straight.iter().zip(&mirrored).filter(|(a, b)| a != b).count();
            prop_assert!(differ * 500 <= straight.len(), "{differ} of {}", straight.len());
        }
    }

    /// The same size twice changes nothing.
    #[test]
    fn a_view_that_is_repeated_changes_nothing(width in 8_u32..70, height in 8_u32..70, seed: u32) {
        let picture = picture(width, height, seed);
        let twice = TestTime { scales: vec![1.0, 1.0], flip: false };
        prop_assert_eq!(
            labels(&picture, &TestTime::default(), Scoring::Sigmoid),
            labels(&picture, &twice, Scoring::Sigmoid)
        );
    }
}

#[test]
fn a_mirrored_view_alone_would_differ_from_the_straight_one() {
    // Otherwise the properties above could not fail.
    let picture = picture(61, 24, 7);
    let straight = labels(&picture, &TestTime::default(), Scoring::Sigmoid);
    let mirrored = labels(
        &flip_horizontal(&picture),
        &TestTime::default(),
        Scoring::Sigmoid,
    );
    assert_ne!(straight, mirrored);
}
