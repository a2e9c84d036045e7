//! Tests of the interface between methods and the rest of the code: layers of windows, a second pass, hooks in the
//! encoder.
#![allow(clippy::unwrap_used)] // in tests

use std::path::Path;

use burn::{
    module::Module,
    tensor::{Device, Distribution, Tensor},
};
use zeg_image::{Normalization, RgbImage, Window};
use zeg_model::{
    ModelError,
    config::VisionConfig,
    inference::{ClassQueries, EncodedWindows, Inference, PlannedWindow, Source, scan},
    method::{Model, ModelFacts, PlainTower, Scoring, SegmentationModel, WindowBatch},
    methods::Methods,
    recognize::Recognized,
    refine::SecondPass,
    score_map::ScoreMap,
    scores::WindowScores,
    section::Section,
    trace::Trace,
    transformer::ResidualBlock,
    vision::{EncoderHooks, TokenPlan, VisionTransformer},
    weights::{ParamBuilder, StateDict},
};

const SIDE: usize = 8;

/// A model whose logits of every class are a tenth of the index of the window's layer, counted from 1: 0.1 for
/// half-image windows, 0.2 for the whole image.
#[derive(Module, Debug)]
struct Layers {
    #[module(skip)]
    doubled: bool,
}

impl SegmentationModel for Layers {
    type Encoding = f32;

    fn facts(&self) -> ModelFacts {
        ModelFacts {
            stride: 4,
            embed_dim: 3,
            normalization: Normalization::IMAGENET,
            scoring: Scoring::MaskSum,
        }
    }

    /// Plans two windows side by side, and the whole image resized to the size of a window.
    fn plan(&self, [h, w]: [usize; 2], _: &Inference) -> Result<Vec<PlannedWindow>, ModelError> {
        let window = |x| {
            PlannedWindow::from(Window {
                x,
                y: 0,
                width: w / 2,
                height: h,
            })
        };
        Ok(vec![
            window(0),
            window(w / 2),
            PlannedWindow {
                resized: Some([SIDE, SIDE]),
                layer: 1,
                ..PlannedWindow::whole([h, w])
            },
        ])
    }

    fn encode(&self, windows: &WindowBatch) -> Result<Vec<f32>, ModelError> {
        let [count, _, height, width] = windows.images.dims();
        assert_eq!(windows.pixels.len(), count);
        let seen = if [height, width] == [SIDE, SIDE] {
            2.0
        } else {
            1.0
        };
        Ok(vec![seen; count])
    }

    fn score(&self, seen: &f32, classes: &ClassQueries) -> Result<WindowScores, ModelError> {
        let shape = [1, classes.len(), 2, 2];
        let device = classes.text.device();
        Ok(WindowScores::Logits(
            Tensor::ones(shape, &device) * (*seen / 10.0),
        ))
    }

    fn second_pass(&self) -> Option<&dyn SecondPass> {
        self.doubled.then_some(self as &dyn SecondPass)
    }
}

impl SecondPass for Layers {
    fn refine(
        &self,
        mut first: ScoreMap,
        image: &RgbImage,
        classes: &ClassQueries,
    ) -> Result<ScoreMap, ModelError> {
        assert_eq!(first.classes, classes.len());
        assert_eq!(
            [first.width, first.height],
            [image.width() as usize, image.height() as usize]
        );
        for value in &mut first.values {
            *value *= 2.0;
        }
        Ok(first)
    }
}

fn classes() -> ClassQueries {
    let device = Device::flex();
    ClassQueries::new(Tensor::ones([2, 3], &device), vec![true, false])
}

/// Returns all scores of an image of 24×12 pixels, `[height, classes, width]`, once from the image and once from its
/// encoding.
fn scores(doubled: bool) -> [Vec<f32>; 2] {
    let (device, classes) = (Device::flex(), classes());
    let settings = Inference {
        short_side: 0,
        seen_offset: 0.05,
        ..Inference::default()
    };
    let model = Layers { doubled };
    let image = RgbImage::new(24, 12);
    let encoded = EncodedWindows::new(&model, &image, &settings, &device).unwrap();
    [Source::Image(&image, &device), Source::Encoded(&encoded)].map(|source| {
        let mut all = Vec::new();
        scan(&model, source, &classes, &settings, |strip| {
            all.extend_from_slice(strip.values());
            Ok::<(), ModelError>(())
        })
        .unwrap();
        all
    })
}

#[test]
fn windows_are_averaged_within_layers_and_then_the_layers_are() {
    let [straight, encoded] = scores(false);
    assert_eq!(straight, encoded);
    for row in straight.chunks_exact(2 * 24) {
        // (0.1 + 0.2) / 2, and the seen class lowered by its offset
        assert!(row[..24].iter().all(|score| (score - 0.10).abs() < 1e-6));
        assert!(row[24..].iter().all(|score| (score - 0.15).abs() < 1e-6));
    }
}

#[test]
fn a_second_pass_sees_the_scores_before_they_are_lowered() {
    let [straight, encoded] = scores(true);
    assert_eq!(straight, encoded);
    assert_eq!(straight.len(), 2 * 24 * 12);
    for row in straight.chunks_exact(2 * 24) {
        assert!(row[..24].iter().all(|score| (score - 0.25).abs() < 1e-6));
        assert!(row[24..].iter().all(|score| (score - 0.30).abs() < 1e-6));
    }
}

#[test]
fn a_second_pass_without_the_pixels_is_refused() {
    let (device, classes) = (Device::flex(), classes());
    let settings = Inference::default();
    let image = RgbImage::new(24, 12);
    let encoded = EncodedWindows::new(&Layers { doubled: false }, &image, &settings, &device);
    let encoded = encoded.unwrap();
    let model = Layers { doubled: true };
    let result = scan(
        &model,
        Source::Encoded(&encoded),
        &classes,
        &settings,
        |_| Ok::<(), ModelError>(()),
    );
    let error = result.unwrap_err().to_string();
    assert!(error.contains("second pass"), "{error}");
}

#[test]
fn an_option_that_a_method_does_not_have_is_refused() {
    let mut options = Section::default();
    let mut model: Box<dyn Model> = Box::new(Layers { doubled: false });
    model.set_options(&options).unwrap();
    options.set("colour", "red");
    let error = model.set_options(&options).unwrap_err().to_string();
    assert!(error.contains("inference.method.colour"), "{error}");
}

/// Returns a small tower and its configuration.
fn tower() -> (VisionTransformer, VisionConfig) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden/training_free.safetensors");
    let golden = StateDict::open(&path, &Methods::default().key_tables()).unwrap();
    let mut weights = StateDict::default();
    for key in golden.keys() {
        if let Some(name) = key.strip_prefix("weights.visual.") {
            let tensor = golden.read(key).unwrap().unwrap();
            weights.insert(format!("backbone.{name}"), tensor);
        }
    }
    let Recognized::Clip(PlainTower { encoder, .. }) =
        Recognized::from_weights(&weights, &Methods::default()).unwrap()
    else {
        panic!("the tower is not recognized as CLIP's");
    };
    let frozen = |_: &str| false;
    let params = ParamBuilder::new(&weights, &Device::flex(), 0, &frozen);
    let tower = VisionTransformer::build(&params.at("backbone"), &encoder).unwrap();
    (tower, encoder)
}

/// Hooks that store the outputs of the first and the last block, and skip the second block.
struct Hooks {
    last: usize,
}

impl EncoderHooks for Hooks {
    fn keeps(&self, layer: usize) -> bool {
        layer == 0 || layer == self.last
    }

    fn replace(
        &self,
        layer: usize,
        _: &ResidualBlock,
        tokens: &Tensor<3>,
        plan: TokenPlan,
    ) -> Option<Tensor<3>> {
        assert_eq!(tokens.dims()[1], plan.len());
        (layer == 1).then(|| tokens.clone())
    }
}

#[test]
fn hooks_replace_blocks_and_keep_their_outputs() {
    let (tower, config) = tower();
    let side = 3 * config.patch;
    let normal = Distribution::Normal(0.0, 1.0);
    let images = Tensor::<4>::random([1, 3, side, side], normal, &Device::flex());
    let mut trace = Trace::on();
    let hooks = Hooks {
        last: config.layers - 1,
    };
    let features = tower.forward_with(images, &hooks, &mut trace);
    let layers: Vec<_> = features.middle.iter().map(|kept| kept.layer).collect();
    assert_eq!(layers, [0, config.layers - 1]);
    let recorded = trace.into_recorded();
    for kept in features.middle {
        let name = format!("block{}", kept.layer);
        assert_eq!(kept.tokens.into_data(), recorded[&name], "{name}");
        assert_eq!(kept.plan.grid, [3, 3]);
    }
    // Block 1 is skipped, so its output equals that of block 0.
    assert_eq!(recorded["block0"], recorded["block1"]);
    assert_ne!(recorded["block1"], recorded["block2"]);
}
