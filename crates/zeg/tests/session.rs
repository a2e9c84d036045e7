//! Tests the inference session with a model that counts how often it runs.
#![allow(clippy::unwrap_used)] // in tests

use std::sync::{
    Arc,
    atomic::{AtomicUsize, Ordering},
};

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use proptest::prelude::*;
use zeg::{
    data::{
        SampleSource as _,
        mini_world::{Part, World, WorldConfig, WorldSet},
    },
    evaluation::{EvaluationOptions, EvaluationSetup, evaluate},
    explain::{ExplainOptions, Explainer},
    export::ProbabilitySource as _,
    image::{IGNORE_LABEL, Normalization, RgbImage, flip_horizontal},
    label_spool::LabelSpool,
    model::{
        ModelError,
        inference::{ClassQueries, Inference, TestTime},
        method::{ModelFacts, Scoring, SegmentationModel, WindowBatch},
        scores::{Labelling, WindowScores},
    },
    session::{Confidence, Question, Session, SessionSettings},
    spool::ScoreSpool,
};

const PATCH: usize = 4;

/// A model whose masks are the mean colours of its patches times the class embeddings.
///
/// Nothing in it depends on the position of a patch, so that any asymmetry comes from the session.
#[derive(Module, Debug)]
struct Colours {
    #[module(skip)]
    scoring: Scoring,
    /// Number of encoded windows.
    #[module(skip)]
    encoded: Arc<AtomicUsize>,
    /// Number of windows that classes were scored on.
    #[module(skip)]
    asked: Arc<AtomicUsize>,
}

impl Colours {
    fn new(scoring: Scoring) -> Self {
        Self {
            scoring,
            encoded: Arc::default(),
            asked: Arc::default(),
        }
    }

    /// Returns the numbers of windows encoded and scored since the last call.
    fn runs(&self) -> [usize; 2] {
        [&self.encoded, &self.asked].map(|count| count.swap(0, Ordering::SeqCst))
    }
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

    fn encode(&self, windows: &WindowBatch) -> Result<Vec<Tensor<4>>, ModelError> {
        let [batch, channels, height, width] = windows.images.dims();
        self.encoded.fetch_add(batch, Ordering::SeqCst);
        let (h, w) = (height / PATCH, width / PATCH);
        let colours = windows
            .images
            .clone()
            .reshape([batch, channels, h, PATCH, w, PATCH])
            .mean_dims(&[3, 5]) // [batch, 3, h, 1, w, 1]
            .reshape([batch, channels, h, w]);
        Ok((0..batch)
            .map(|index| colours.clone().narrow(0, index, 1))
            .collect())
    }

    fn score(
        &self,
        colours: &Tensor<4>,
        classes: &ClassQueries,
    ) -> Result<WindowScores, ModelError> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        let [_, channels, h, w] = colours.dims();
        let colours = colours.clone().reshape([channels, h * w]);
        let logits = classes.text.clone().matmul(colours); // [classes, h·w]
        Ok(WindowScores::Logits(logits.reshape([
            1,
            classes.len(),
            h,
            w,
        ])))
    }
}

/// Class embeddings `[classes, 3]`, every second class seen.
fn classes(count: usize, device: &Device) -> ClassQueries {
    let values: Vec<f32> = (0..count * 3)
        .map(|i| ((i * 37 + i * i * 11) % 23) as f32 / 11.0 - 1.0)
        .collect();
    ClassQueries::new(
        Tensor::from_data(TensorData::new(values, [count, 3]), device),
        (0..count).map(|class| class % 2 == 0).collect(),
    )
}

fn photo(width: u32, height: u32, seed: u32) -> RgbImage {
    let mut photo = RgbImage::new(width, height);
    for (x, y, pixel) in photo.enumerate_pixels_mut() {
        pixel.0 = [1, 2, 3].map(|k| {
            let place = (x / 5 + 31 * (y / 3) + 977 * k).wrapping_add(seed);
            (place.wrapping_mul(0x9E37_79B1) >> 24) as u8
        });
    }
    photo
}

fn settings(scales: &[f64], flip: bool) -> SessionSettings {
    SessionSettings {
        inference: Inference {
            short_side: 24,
            crop: 24,
            stride: 16,
            seen_offset: 0.05,
            ..Inference::default()
        },
        test_time: TestTime {
            scales: scales.to_vec(),
            flip,
        },
    }
}

fn labels(image: &RgbImage, settings: &SessionSettings, scoring: Scoring) -> Vec<u16> {
    let device = Device::flex();
    let (model, classes) = (Colours::new(scoring), classes(3, &device));
    let session = Session::new(&model, settings, &device);
    let answer = session.segment(image, &Question::labels(&classes), &mut []);
    answer.unwrap().labels.swap_remove(0).into_labels()
}

#[test]
fn explanations_and_probabilities_come_from_one_run_and_one_pass() {
    let device = Device::flex();
    let (model, classes) = (Colours::new(Scoring::Sigmoid), classes(4, &device));
    let image = photo(90, 70, 3);
    for settings in [settings(&[1.0], false), settings(&[0.75, 1.5], true)] {
        let session = Session::new(&model, &settings, &device);
        let question = Question {
            confidence: Confidence::Keep,
            ..Question::labels(&classes)
        };
        let plain = session.segment(&image, &question, &mut []).unwrap();
        let runs = model.runs();
        assert!(runs[0] > 1 && runs[0] == runs[1], "{runs:?}");

        let names = ["a", "b", "c", "d"].map(str::to_owned).to_vec();
        let mut explainer = Explainer::new(names, [70, 90], ExplainOptions { candidates: 2 });
        let mut spool = ScoreSpool::new(4, 90).unwrap();
        let visitors: &mut [&mut dyn zeg::session::StripVisitor] =
            &mut [&mut explainer, &mut spool];
        let both = session.segment(&image, &question, visitors).unwrap();
        assert_eq!(
            model.runs(),
            runs,
            "visitors of scores do not run the model"
        );
        assert_eq!(both.labels, plain.labels);
        assert_eq!(both.confidence, plain.confidence);

        // The stored scores are the ones that were labelled, and the means of the regions are means of these scores.
        let scores = spool.finish().unwrap();
        let map = &both.labels[0];
        let mut sums = [(0.0_f64, 0_u64); 4];
        for y in 0..70 {
            let mut rows = vec![vec![0.0; 90]; 4];
            for (class, row) in rows.iter_mut().enumerate() {
                scores.fill_row(class, y, row);
            }
            for x in 0..90 {
                let label = usize::from(map.get(x, y).unwrap());
                let best = rows.iter().map(|row| row[x]).fold(0.0, f32::max);
                assert!(rows[label][x] >= best, "at ({x}, {y})");
                sums[label].0 += f64::from(best);
                sums[label].1 += 1;
            }
        }
        scores.check().unwrap();
        let regions = explainer.finish();
        assert!(!regions.is_empty());
        for region in &regions {
            let candidates = &region.candidates;
            assert!(candidates[0].score >= candidates[1].score && region.class.is_some());
        }
        // The mean over a large region is about the mean over all pixels of its class.
        let largest = &regions[0];
        let class = ["a", "b", "c", "d"]
            .map(Some)
            .iter()
            .position(|name| *name == largest.class.as_deref());
        let (sum, count) = sums[class.unwrap()];
        let named = largest
            .candidates
            .iter()
            .find(|candidate| Some(&candidate.class) == largest.class.as_ref());
        assert!((named.unwrap().score - sum / count as f64).abs() < 0.2);
    }
}

#[test]
fn an_evaluation_runs_the_model_once_per_image_and_stores_the_labels_for_the_gallery() {
    let device = Device::flex();
    let world = Arc::new(World::new(WorldConfig::default()).unwrap());
    let set = WorldSet::new(world, Part::Test, 5);
    let model = Colours::new(Scoring::Softmax);
    let classes = classes(set.classes().len(), &device);
    let settings = settings(&[1.0], true);
    let session = Session::new(&model, &settings, &device);
    let offsets = [0.0, 0.4];
    let setup = EvaluationSetup {
        session,
        classes: &classes,
        seen_offsets: &offsets,
        confidence: Confidence::Leave,
        left_out: &[],
    };
    let options = EvaluationOptions {
        threads: 2,
        ..EvaluationOptions::default()
    };
    let mut spools = [LabelSpool::new().unwrap(), LabelSpool::new().unwrap()];
    let mut ids = Vec::new();
    let outcomes = evaluate(&[setup], &set, options, |scored| {
        for (spool, labels) in spools.iter_mut().zip(scored.predictions) {
            spool.push(labels)?;
        }
        ids.push(scored.id.to_owned());
        Ok(())
    });
    let (outcomes, runs) = (outcomes.unwrap(), model.runs());
    assert_eq!(ids, (0..5).map(|index| set.id(index)).collect::<Vec<_>>());

    let mut again = 0;
    let mut differ = false;
    for index in 0..5 {
        let sample = set.load(index).unwrap();
        let kept = [0, 1].map(|number| spools[number].get(index).unwrap());
        assert_eq!(model.runs(), [0, 0], "the gallery does not run the model");
        let question = Question {
            seen_offsets: &offsets,
            ..Question::labels(&classes)
        };
        let answer = session.segment(&sample.image, &question, &mut []).unwrap();
        assert_eq!(answer.labels, kept);
        differ |= kept[0] != kept[1];
        again += model.runs()[0];
    }
    assert!(differ, "the second offset changes something");
    assert_eq!(runs[0], again, "each image ran through the model once");
    assert_eq!(
        runs[0], runs[1],
        "two offsets are labelled from the same scores"
    );
    assert_eq!(outcomes.len(), 2);
    assert!(outcomes.iter().all(|outcome| outcome.images.len() == 5));
}

/// Equal class embeddings give equal scores; the seen offset must not hide that.
#[test]
fn a_model_that_tells_no_classes_apart_is_noticed_under_every_scoring() {
    let device = Device::flex();
    let equal = TensorData::new(vec![0.1_f32; 9], [3, 3]);
    let seen = vec![true, false, false];
    let equal = ClassQueries::new(Tensor::from_data(equal, &device), seen);
    let different = classes(3, &device);
    // Bright colours, whose normalised values do not cancel out.
    let mut image = photo(60, 40, 5);
    for pixel in image.pixels_mut() {
        pixel.0 = pixel.0.map(|value| 190 + value / 4);
    }
    let none: &[f32] = &[];
    for scoring in [Scoring::Sigmoid, Scoring::Softmax, Scoring::MaskSum] {
        let model = Colours::new(scoring);
        for settings in [settings(&[1.0], false), settings(&[0.75, 1.5], true)] {
            let session = Session::new(&model, &settings, &device);
            for (classes, expected) in [(&equal, true), (&different, false)] {
                for seen_offsets in [none, &[0.0, 0.4]] {
                    let question = Question {
                        seen_offsets,
                        ..Question::labels(classes)
                    };
                    let answer = session.segment(&image, &question, &mut []).unwrap();
                    assert_eq!(answer.tied, expected, "{scoring:?} {seen_offsets:?}");
                }
            }
        }
    }
    // Sigmoid scores below the threshold say that no class is there.
    let mut settings = settings(&[1.0], false);
    settings.inference.threshold = Some(0.99);
    let model = Colours::new(Scoring::Sigmoid);
    let session = Session::new(&model, &settings, &device);
    let answer = session.segment(&image, &Question::labels(&equal), &mut []);
    assert!(!answer.unwrap().tied);
}

#[test]
fn background_classes_are_part_of_the_question() {
    let device = Device::flex();
    let (model, classes) = (Colours::new(Scoring::Softmax), classes(3, &device));
    let (settings, image) = (settings(&[1.0], false), photo(50, 40, 9));
    let session = Session::new(&model, &settings, &device);
    let all = labels(&image, &settings, Scoring::Softmax);
    let most = (0..3).max_by_key(|class| all.iter().filter(|label| *label == class).count());
    let most = most.unwrap();
    let question = Question {
        rule: Labelling {
            background: (0..3).map(|class| class == most).collect(),
            ..Labelling::default()
        },
        ..Question::labels(&classes)
    };
    let answer = session.segment(&image, &question, &mut []).unwrap();
    let expected: Vec<u16> = all
        .iter()
        .map(|&label| if label == most { IGNORE_LABEL } else { label })
        .collect();
    assert_eq!(answer.labels[0].labels(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// An encoded image gives the same answers as a direct segmentation, at every scale and mirrored.
    #[test]
    fn encoded_images_answer_alike(width in 8_u32..70, height in 8_u32..70, seed: u32, scales in 1_usize..3, flip: bool) {
        let device = Device::flex();
        let (model, classes) = (Colours::new(Scoring::Sigmoid), classes(3, &device));
        let settings = settings(&[1.0, 0.75][..scales], flip);
        let session = Session::new(&model, &settings, &device);
        let image = photo(width, height, seed);
        let question = Question { confidence: Confidence::Keep, ..Question::labels(&classes) };
        let direct = session.segment(&image, &question, &mut []).unwrap();
        let [encoded_windows, _] = model.runs();
        let encoded = session.encode(&image).unwrap();
        prop_assert_eq!(model.runs(), [encoded_windows, 0]);
        for _ in 0..2 {
            let answer = session.ask(&encoded, &question, &mut []).unwrap();
            prop_assert_eq!(&answer.labels, &direct.labels);
            prop_assert_eq!(&answer.confidence, &direct.confidence);
            prop_assert_eq!(model.runs(), [0, encoded_windows]);
        }
    }

    /// With the flip, the labels of a mirrored image are the mirrored labels, for all windows and sizes.
    #[test]
    fn flips_make_labels_symmetric(width in 8_u32..70, height in 8_u32..70, seed: u32, scales in 1_usize..3) {
        let settings = settings(&[1.0, 0.75][..scales], true);
        for scoring in [Scoring::Sigmoid, Scoring::Softmax] {
            let image = photo(width, height, seed);
            let mut straight = labels(&image, &settings, scoring);
            for row in straight.chunks_exact_mut(width as usize) {
                row.reverse();
            }
            let mirrored = labels(&flip_horizontal(&image), &settings, scoring);
            // Scales and flips are summed in another order, so rounding may decide between nearly equal scores.
            let differ = straight.iter().zip(&mirrored).filter(|(a, b)| a != b).count();
            prop_assert!(differ * 500 <= straight.len(), "{} of {}", differ, straight.len());
        }
    }

    /// Giving the same scale twice changes nothing.
    #[test]
    fn a_scale_that_is_repeated_changes_nothing(width in 8_u32..70, height in 8_u32..70, seed: u32) {
        let image = photo(width, height, seed);
        prop_assert_eq!(
            labels(&image, &settings(&[1.0], false), Scoring::Sigmoid),
            labels(&image, &settings(&[1.0, 1.0], false), Scoring::Sigmoid)
        );
    }
}

#[test]
fn a_mirrored_image_alone_would_differ_from_the_straight_one() {
    // Otherwise the properties above could not fail.
    let (image, once) = (photo(61, 24, 7), settings(&[1.0], false));
    let straight = labels(&image, &once, Scoring::Sigmoid);
    let mirrored = labels(&flip_horizontal(&image), &once, Scoring::Sigmoid);
    assert_ne!(straight, mirrored);
}

#[test]
fn a_session_ends_when_its_flag_is_set() {
    use std::sync::atomic::AtomicBool;
    use zeg::session::SessionError;

    let device = Device::flex();
    let (model, classes) = (Colours::new(Scoring::Softmax), classes(3, &device));
    let settings = settings(&[1.0, 2.0], true);
    let image = RgbImage::new(40, 40);
    let question = Question::labels(&classes);
    let flag = AtomicBool::new(false);
    let session = Session::new(&model, &settings, &device).stopped_by(&flag);
    let encoded = session.encode(&image).unwrap();
    assert!(session.segment(&image, &question, &mut []).is_ok());
    assert!(session.ask(&encoded, &question, &mut []).is_ok());
    flag.store(true, std::sync::atomic::Ordering::Relaxed);
    let is_stopped =
        |error: SessionError| matches!(error, SessionError::Model(zeg::model::ModelError::Stopped));
    assert!(is_stopped(session.encode(&image).unwrap_err()));
    let asked = session.ask(&encoded, &question, &mut []);
    assert!(is_stopped(asked.unwrap_err()));
    let segmented = session.segment(&image, &question, &mut []);
    assert!(is_stopped(segmented.unwrap_err()));
}
