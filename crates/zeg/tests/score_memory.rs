//! Labels and strips of scores of hundreds of classes need little memory: a volume of all scores is never held.
#![allow(clippy::unwrap_used)] // in tests

use std::{fs, io};

use burn::{
    module::Module,
    tensor::{Device, Tensor, TensorData},
};
use zeg::{
    image::{Normalization, RgbImage},
    model::{
        ModelError,
        inference::{ClassQueries, Inference, TestTime},
        method::{ModelFacts, Scoring, SegmentationModel, WindowBatch},
        scores::WindowScores,
    },
    session::{Confidence, Question, ScoredStrip, Session, SessionSettings, StripVisitor},
};

const PATCH: usize = 16;
const SIDE: usize = 512;
const CLASSES: usize = 847;

/// A model whose masks are the mean colours of its patches times the class embeddings.
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

    fn encode(&self, windows: &WindowBatch) -> Result<Vec<Tensor<4>>, ModelError> {
        let [batch, channels, height, width] = windows.images.dims();
        let (h, w) = (height / PATCH, width / PATCH);
        let patches = [batch, channels, h, PATCH, w, PATCH];
        let colours = windows.images.clone().reshape(patches).mean_dims(&[3, 5]);
        let colours = colours.reshape([batch, channels, h, w]);
        let of_window = |index| colours.clone().narrow(0, index, 1);
        Ok((0..batch).map(of_window).collect())
    }

    fn score(
        &self,
        encoding: &Tensor<4>,
        classes: &ClassQueries,
    ) -> Result<WindowScores, ModelError> {
        let [_, channels, h, w] = encoding.dims();
        let masks = classes
            .text
            .clone()
            .matmul(encoding.clone().reshape([channels, h * w]));
        let masks = masks.reshape([1, classes.len(), h, w]);
        Ok(WindowScores::Logits(masks))
    }
}

/// Counts the scores that it is shown.
struct Counter(usize);

impl StripVisitor for Counter {
    fn visit(&mut self, strip: &ScoredStrip) -> io::Result<()> {
        self.0 += strip.scores.len();
        Ok(())
    }
}

/// Returns a value of /proc/self/status in megabytes of 10⁶ bytes.
fn status_mb(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kibibytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024.0 / 1e6)
}

/// Returns by how many megabytes the memory in use grows at most during some work; `None` if the system does not say.
fn growth(work: impl FnOnce()) -> Option<f64> {
    // Writing "5" resets the peak (proc(5), clear_refs).
    fs::write("/proc/self/clear_refs", "5").ok()?;
    let before = status_mb("VmRSS:")?;
    work();
    Some(status_mb("VmHWM:")? - before)
}

#[test]
fn scores_of_hundreds_of_classes_are_never_held_at_once() {
    let whole = (CLASSES * SIDE * SIDE * size_of::<f32>()) as f64 / 1e6;
    assert!(whole > 800.0);
    let device = Device::flex();
    let text: Vec<f32> = (0..3 * CLASSES)
        .map(|i| ((i * 37) % 101) as f32 / 101.0 - 0.5)
        .collect();
    let text = Tensor::from_data(TensorData::new(text, [CLASSES, 3]), &device);
    let classes = ClassQueries::new(text, vec![false; CLASSES]);
    let pixels = (0..3 * SIDE * SIDE).map(|i| ((i / 7) * 31 % 251) as u8);
    let image = RgbImage::from_raw(SIDE as u32, SIDE as u32, pixels.collect()).unwrap();
    let settings = SessionSettings {
        inference: Inference {
            short_side: SIDE,
            ..Inference::default()
        },
        test_time: TestTime::default(),
    };
    for scoring in [Scoring::Sigmoid, Scoring::Softmax] {
        let model = Colours { scoring };
        let session = Session::new(&model, &settings, &device);
        let question = Question {
            confidence: Confidence::Keep,
            ..Question::labels(&classes)
        };
        let labels = growth(|| {
            session.segment(&image, &question, &mut []).unwrap();
        });
        let mut counter = Counter(0);
        let scores = growth(|| {
            session
                .segment(&image, &question, &mut [&mut counter])
                .unwrap();
        });
        assert_eq!(counter.0, CLASSES * SIDE * SIDE);
        match (labels, scores) {
            (Some(labels), Some(scores)) => {
                assert!(
                    labels < 100.0,
                    "labels: {labels} MB of {whole}, {scoring:?}"
                );
                assert!(
                    scores < 150.0,
                    "scores: {scores} MB of {whole}, {scoring:?}"
                );
            }
            _ => eprintln!("skipped: this system does not say how much memory is in use"),
        }
    }
}
