//! A method outside the library: its score is the cosine of a patch's colour and a class's colour, times a trained factor.
//!
//! This file is the whole method. The program gets it together with the built-in methods, and trains, scores, uses, counts
//! and reports it like them.
#![allow(clippy::unwrap_used)] // in tests

mod common;

use std::{collections::HashMap, fs, path::Path, process::ExitCode, sync::Arc};

use burn::{
    module::{Module, Param},
    tensor::Tensor,
};
use common::{World, write_tensors};
use zeg::{
    image::Normalization,
    model::{
        ModelError,
        classes::ClassQueries,
        config::VisionConfig,
        cost::{Cost, CostPart, ParamCounts},
        method::{
            Architecture, Method, Model, ModelFacts, PlainTower, Scoring, SegmentationModel,
            StartingPoint, WindowBatch,
        },
        methods::Methods,
        scores::WindowScores,
        section::Section,
        weights::{Init, ParamBuilder},
    },
    vocab::classes::{ClassSet, voc_colour},
};
use zeg_cli::{Program, main_with};
use zeg_train::{
    TrainError,
    experiment::TrainingConfig,
    loss::MaskLoss,
    mask_loss::MaskObjective,
    recipe::{Criterion, LossPart, MethodLoss, PartTerms, Recipe, Recipes, read_loss},
};

const PATCH: usize = 4;

/// The method, as the list of methods holds it.
#[derive(Debug)]
struct Colours;

/// The architecture of the method, which has no settings.
#[derive(Debug)]
struct ColoursConfig;

/// The model of the method.
#[derive(Module, Debug)]
struct ColoursModel {
    /// Trained factor on the cosines of colours, `[1]`.
    factor: Param<Tensor<1>>,
}

impl Method for Colours {
    fn name(&self) -> &'static str {
        "colours"
    }
    fn title(&self) -> &'static str {
        "Colours"
    }
    fn starting_point(&self) -> StartingPoint {
        StartingPoint::Masks
    }
    fn configure(
        &self,
        section: &Section,
        _: Option<&PlainTower>,
    ) -> Result<Arc<dyn Architecture>, ModelError> {
        section.refuse_all("model")?;
        Ok(Arc::new(ColoursConfig))
    }
}

impl Architecture for ColoursConfig {
    fn method(&self) -> &'static str {
        Colours.name()
    }
    fn title(&self) -> &'static str {
        Colours.title()
    }
    fn assemble(
        &self,
        params: &ParamBuilder,
        _: &ParamBuilder,
    ) -> Result<Box<dyn Model>, ModelError> {
        Ok(Box::new(ColoursModel {
            factor: params.param("factor", [1], Init::Constant(1.0))?,
        }))
    }
    fn trains(&self, _: &str) -> bool {
        true
    }
    fn encoder(&self) -> Option<&VisionConfig> {
        None
    }
    fn stride(&self) -> usize {
        PATCH
    }
    fn resolution(&self) -> usize {
        32
    }
    fn scoring(&self) -> Scoring {
        Scoring::Sigmoid
    }
    fn cost(&self, classes: usize) -> Result<Cost, ModelError> {
        Ok(Cost {
            params: ParamCounts {
                all: 1,
                trained: 1,
                declared_by_reference: 1,
            },
            parts: vec![CostPart {
                key: "head",
                label: "colours".into(),
                macs: (3 * classes * (32 / PATCH) * (32 / PATCH)) as u64,
            }],
            crops: None,
        })
    }
}

/// Returns the mean colours of patches as unit vectors, and the grid: `[batch, 3, height, width]` → `[batch, 3, h·w]`.
fn patch_colours(images: Tensor<4>) -> (Tensor<3>, [usize; 2]) {
    let [batch, channels, height, width] = images.dims();
    let (h, w) = (height / PATCH, width / PATCH);
    let colours = images
        .reshape([batch, channels, h, PATCH, w, PATCH])
        .mean_dims(&[3, 5]) // [batch, 3, h, 1, w, 1]
        .reshape([batch, channels, h * w]);
    let length = (colours.clone().square().sum_dim(1) + 1e-6).sqrt(); // [batch, 1, h·w]
    (colours / length, [h, w])
}

impl ColoursModel {
    /// `[batch, 3, h·w]` and `[classes, 3]` → `[batch, classes, h, w]`
    fn logits(&self, colours: Tensor<3>, [h, w]: [usize; 2], text: Tensor<2>) -> Tensor<4> {
        let ([batch, _, _], [classes, _]) = (colours.dims(), text.dims());
        let cosines = text.unsqueeze::<3>().matmul(colours); // [batch, classes, h·w]
        let factor = self.factor.val().reshape([1, 1, 1]);
        ((cosines - 0.95) * factor * 20.0).reshape([batch, classes, h, w])
    }
}

impl SegmentationModel for ColoursModel {
    type Encoding = (Tensor<3>, [usize; 2]);

    fn facts(&self) -> ModelFacts {
        ModelFacts {
            stride: PATCH,
            embed_dim: 3,
            normalization: Normalization {
                mean: [0.0; 3],
                std: [255.0; 3],
            },
            scoring: Scoring::Sigmoid,
        }
    }
    fn encode(&self, windows: &WindowBatch) -> Result<Vec<Self::Encoding>, ModelError> {
        let (colours, grid) = patch_colours(windows.images.clone());
        let [batch, _, _] = colours.dims();
        Ok((0..batch)
            .map(|index| (colours.clone().narrow(0, index, 1), grid))
            .collect())
    }
    fn score(
        &self,
        (colours, grid): &Self::Encoding,
        classes: &ClassQueries,
    ) -> Result<WindowScores, ModelError> {
        let logits = self.logits(colours.clone(), *grid, classes.text.clone());
        Ok(WindowScores::Logits(logits))
    }
}

/// The recipe of the method, with the usual loss of class masks.
struct ColoursRecipe;

struct ColoursLoss(MaskObjective);

impl Recipe for ColoursRecipe {
    fn method(&self) -> &'static str {
        Colours.name()
    }
    fn criterion(
        &self,
        training: &TrainingConfig,
        architecture: &dyn Architecture,
    ) -> Result<Box<dyn Criterion>, TrainError> {
        let weights: MaskLoss = read_loss(&training.loss)?;
        let masks = MaskObjective::new(training, weights, architecture)?;
        Ok(Box::new(ColoursLoss(masks)))
    }
}

impl MethodLoss for ColoursLoss {
    type Model = ColoursModel;

    fn terms(&self, model: &ColoursModel, part: LossPart) -> Result<PartTerms, TrainError> {
        let device = part.device();
        let images = part.inputs.images(part.size, &device)?;
        let (colours, grid) = patch_colours(images);
        let masks = model.logits(colours, grid, part.text);
        self.0.terms(masks, part.labels, part.normalizer)
    }
}

const EXPERIMENT: &str = r#"
[data]
dataset = "voc12"
classes = "voc20"
train-split = "train"
eval-split = "val"

[model]
method = "colours"

[training]
setting = "inductive"
steps = 4
batch = 2
preprocess = { kind = "random-crop", base-scale = [64, 40], crop = 32 }
schedule = { base = 1e-2, warmup-steps = 0 }

[inference]
short-side = 40
crop = 32
stride = 32
seen-offset = 0.0
"#;

#[test]
fn a_method_from_outside_is_trained_scored_used_counted_and_reported() {
    let world = World::new();
    let path = |name: &str| world.path(name).display().to_string();
    // The embedding of a class is its colour.
    let names = ClassSet::by_name("voc20").unwrap().classes;
    let colours = (1..=names.len()).flat_map(|class| voc_colour(class).map(f32::from));
    let metadata = HashMap::from([("classes".to_owned(), serde_json::to_string(&names).unwrap())]);
    write_tensors(
        &world.path("colours.safetensors"),
        &[(
            "embeddings".into(),
            vec![names.len(), 3],
            colours.collect::<Vec<_>>(),
        )],
        metadata,
    );
    std::fs::write(world.path("colours.toml"), EXPERIMENT).unwrap();

    let program = Program {
        methods: Methods::default().with(&Colours),
        recipes: Recipes::default().with(&ColoursRecipe),
    };
    let zeg = |arguments: &[&str]| {
        let all = std::iter::once("zeg").chain(arguments.iter().copied());
        let code = main_with(&program, all);
        assert_eq!(
            format!("{code:?}"),
            format!("{:?}", ExitCode::SUCCESS),
            "{arguments:?}"
        );
    };
    let (config, data, run) = (path("colours.toml"), path("VOC2012"), path("run"));
    let (model, record) = (path("run/model.safetensors"), path("record"));
    zeg(&["info", &config]);
    let text = path("colours.safetensors");
    let weights = path("tower.safetensors");
    zeg(&[
        "train",
        &config,
        "--data",
        &data,
        "--weights",
        &weights,
        "--text",
        &text,
        "-o",
        &run,
    ]);
    zeg(&["eval", &model, "--data", &data, "-o", &record]);
    zeg(&["report", &record, "-o", &path("report")]);
    zeg(&["info", &model]);
    let image = world.image("2007_000004").display().to_string();
    let out = path("out");
    zeg(&[
        "segment",
        &image,
        "--model",
        &model,
        "--classes",
        "aeroplane, bicycle, bird",
        "-o",
        &out,
    ]);
    assert!(world.path("out/2007_000004.png").exists());
    let record = zeg::eval::Evaluation::open(world.path("record")).unwrap();
    assert_eq!(record.method, "Colours");
    // Chance is 1 in 20. Dark classes are confused with bright ones, whose colours have the same direction.
    assert!(record.report().unwrap().p_acc.unwrap() > 0.2);
    assert!(world.path("report").exists());
}

/// Source files below `folder` that are no tests, with their paths from the repository's root.
fn sources(folder: &Path, root: &Path, found: &mut Vec<(String, String)>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if path.is_dir() {
            if !["tests", "target", "benches", "zeg-parity"].contains(&name.as_str()) {
                sources(&path, root, found);
            }
        } else if path.extension().is_some_and(|it| it == "rs") && !name.ends_with("tests.rs") {
            let place = path.strip_prefix(root).unwrap().to_string_lossy();
            found.push((
                place.replace('\\', "/"),
                fs::read_to_string(&path).unwrap().to_lowercase(),
            ));
        }
    }
}

/// What the seam between methods and the rest promises: a method is its folders, and few other sources know its name.
#[test]
fn a_method_is_named_in_at_most_six_other_sources() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let mut files = Vec::new();
    sources(&root.join("crates"), &root, &mut files);
    for (folder, names) in [
        ("zsseg", ["zsseg", "zsseg"]),
        ("maskclip_plus", ["maskclip_plus", "maskclip+"]),
        ("cat_seg", ["cat_seg", "cat-seg"]),
    ] {
        let own = |place: &str| place.contains(&format!("methods/{folder}"));
        let named = |text: &str| {
            let joined = folder.replace('_', "");
            names.iter().any(|name| text.contains(name)) || text.contains(&joined)
        };
        let naming = files.iter().filter(|(_, text)| named(text));
        let (inside, outside): (Vec<_>, Vec<_>) =
            naming.map(|(place, _)| place).partition(|place| own(place));
        assert!(inside.len() > 3, "{folder}: {inside:?}");
        // At least the two lists of methods, or this search finds nothing at all.
        assert!((2..=6).contains(&outside.len()), "{folder}: {outside:?}");
    }
}
