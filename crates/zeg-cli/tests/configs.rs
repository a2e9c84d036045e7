//! The program accepts every configuration in the repository, and trains every suite.
#![allow(clippy::unwrap_used)] // in tests

mod common;
#[path = "configs/layouts.rs"]
mod layouts;
#[path = "configs/suites.rs"]
mod suites;

use std::path::{Path, PathBuf};

use zeg::{
    data::{SampleSource as _, datasets, mini_world::DATASET},
    model::methods::Methods,
    vocab::{classes::ClassSet, templates::TemplateSet},
};
use zeg_train::{
    experiment::{Experiment, Setting},
    loss::MaskLoss,
    methods::{
        clip_rc::ClipRcLossWeights, maskclip_plus::MaskClipPlusLoss,
        zegformer::set_criterion::SetLoss,
    },
    recipe::{Recipes, read_loss},
};

/// Opens an experiment of a built-in method.
fn open(file: &Path) -> Experiment {
    Experiment::open(file, &[], &Methods::default(), &Recipes::default())
        .unwrap()
        .experiment
}

fn configs(pattern: &str) -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
    let mut found: Vec<PathBuf> = std::fs::read_dir(root)
        .unwrap()
        .flat_map(|folder| std::fs::read_dir(folder.unwrap().path()).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.to_string_lossy().contains(pattern))
        .collect();
    found.sort();
    found
}

#[test]
fn every_experiment_opens_and_names_what_exists() {
    let files: Vec<_> = [
        configs("zegclip-"),
        configs("clip-rc-"),
        configs("zegformer-"),
        configs("/zsseg-"),
        configs("cat-seg-"),
        configs("maskclip-plus"),
    ]
    .concat()
    .into_iter()
    .filter(|file| !file.to_string_lossy().contains("-eval.toml"))
    .filter(|file| !file.to_string_lossy().contains("mini-world"))
    .filter(|file| !file.to_string_lossy().contains("/ablations/"))
    .collect();
    assert!(files.len() >= 38, "{files:?}");
    for file in files {
        let experiment = open(&file);
        let data = &experiment.data;
        if data.dataset == DATASET {
            continue;
        }
        let entry = datasets::find(&data.dataset).unwrap();
        let list = data.classes.as_deref().unwrap();
        assert!(
            entry.class_lists.iter().any(|known| known.name == list),
            "{}",
            file.display()
        );
        for split in [&data.train_split, &data.eval_split] {
            assert!(
                entry.official(split).is_some(),
                "{}: {split}",
                file.display()
            );
        }
        ClassSet::by_name(list).unwrap();
        TemplateSet::by_name(&data.templates).unwrap();
    }
}

#[test]
fn experiments_on_the_mini_world_open_without_a_folder() {
    let files = configs("/mini-world/");
    assert!(files.len() >= 4, "{files:?}");
    for file in files {
        let experiment = open(&file);
        let data = &experiment.data;
        assert_eq!(data.dataset, DATASET);
        for split in [&data.train_split, &data.eval_split] {
            let set = data.open(Path::new(""), split).unwrap();
            assert!(!set.is_empty(), "{}: {split}", file.display());
        }
        TemplateSet::by_name(&data.templates).unwrap();
    }
}

/// The release's mean IoU is over the classes in the ground truth.
#[test]
fn plans_of_cat_seg_use_the_rule_of_the_release() {
    let files = configs("-cat-seg.toml");
    assert_eq!(files.len(), 4, "{files:?}");
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let plan: toml::Table = text.parse().unwrap();
        let rule = plan["nan-rule"].as_str();
        assert_eq!(rule, Some("truth-mean"), "{}", file.display());
    }
}

/// The expected numbers are those of the reference's configurations.
#[test]
fn published_experiments_are_as_released() {
    let steps = [
        ("voc12/zegclip-inductive", 20_000, 10, Setting::Inductive),
        (
            "voc12/zegclip-transductive",
            10_000,
            10,
            Setting::Transductive,
        ),
        (
            "voc12/zegclip-fully-supervised",
            20_000,
            10,
            Setting::FullySupervised,
        ),
        (
            "coco-stuff164k/zegclip-inductive",
            80_000,
            100,
            Setting::Inductive,
        ),
        (
            "coco-stuff164k/zegclip-transductive",
            40_000,
            100,
            Setting::Transductive,
        ),
        (
            "coco-stuff164k/zegclip-fully-supervised",
            80_000,
            100,
            Setting::FullySupervised,
        ),
    ];
    for (name, steps, tokens, setting) in steps {
        let file = configs(&format!("{name}.toml")).remove(0);
        let experiment = open(&file);
        let training = &experiment.training;
        assert_eq!((training.steps, training.batch), (steps, 16), "{name}");
        assert_eq!(training.setting, setting, "{name}");
        let model = experiment.architecture(&Methods::default()).unwrap();
        let prompts = model.encoder().unwrap().prompts.as_ref().unwrap();
        assert_eq!(prompts.tokens, tokens, "{name}");
        let loss: MaskLoss = read_loss(&training.loss).unwrap();
        assert!((loss.focal - 100.0).abs() < 1e-9, "{name}");
        let offset = if setting == Setting::Inductive {
            0.1
        } else {
            0.0
        };
        assert!(
            (experiment.inference.seen_offset - offset).abs() < 1e-6,
            "{name}"
        );
    }
}

/// The expected numbers are those of ZegFormer's release, with the cost of its models: the published 60.3 M and 1829 G are
/// those of the ResNet-101, crops included.
#[test]
fn zegformer_is_as_released() {
    let cases = [
        ("voc12/zegformer-r50", 10_000, 512, 41_348_032, 1807.2),
        ("voc12/zegformer-r101", 10_000, 512, 60_287_936, 1826.7),
        (
            "coco-stuff164k/zegformer-r50",
            60_000,
            640,
            41_348_032,
            1835.3,
        ),
        (
            "coco-stuff164k/zegformer-r101",
            60_000,
            640,
            60_287_936,
            1865.7,
        ),
        ("ade20k-full/zegformer-r50", 60_000, 512, 41_348_032, 1807.6),
        (
            "pascal-context/zegformer-r101",
            30_000,
            512,
            60_287_936,
            1826.7,
        ),
    ];
    for (name, steps, size, trained, giga) in cases {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let experiment = open(&root.join(format!("{name}.toml")));
        let training = &experiment.training;
        assert_eq!((training.steps, training.batch), (steps, 32), "{name}");
        assert_eq!(training.preprocess.size(), size, "{name}");
        assert_eq!(training.optimizer.clip_norm, Some(0.01), "{name}");
        read_loss::<SetLoss>(&training.loss).unwrap();
        let model = experiment.architecture(&Methods::default()).unwrap();
        let data = &experiment.data;
        let classes = ClassSet::by_name(data.classes.as_deref().unwrap()).unwrap();
        let cost = model.cost(classes.len()).unwrap();
        assert_eq!(cost.params.trained, trained, "{name}");
        let found = cost.total() as f64 / 1e9;
        assert!((found - giga).abs() < 0.3, "{name}: {found}");
        let crops = experiment.inference.method.get("crop-templates").unwrap();
        TemplateSet::by_name(crops.as_str().unwrap()).unwrap();
    }
}

/// The expected numbers are those of zsseg's release, with the trained parameters of its models.
#[test]
fn zsseg_is_as_released() {
    let cases = [
        ("voc12/zsseg-prompts", 3200, 32, 512, 8192, "zsseg-single"),
        (
            "voc12/zsseg-r50",
            20_000,
            16,
            512,
            42_004_416,
            "zsseg-single",
        ),
        (
            "voc12/zsseg-r101c",
            20_000,
            16,
            512,
            61_067_712,
            "zsseg-single",
        ),
        (
            "coco-stuff164k/zsseg-prompts",
            16_000,
            32,
            640,
            8192,
            "zsseg-single",
        ),
        (
            "coco-stuff164k/zsseg-r50",
            60_000,
            32,
            640,
            42_004_416,
            "learned",
        ),
        (
            "coco-stuff164k/zsseg-r101c",
            60_000,
            32,
            640,
            61_067_712,
            "learned",
        ),
    ];
    for (name, steps, batch, size, trained, templates) in cases {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs");
        let experiment = open(&root.join(format!("{name}.toml")));
        let training = &experiment.training;
        assert_eq!((training.steps, training.batch), (steps, batch), "{name}");
        assert_eq!(training.preprocess.size(), size, "{name}");
        assert_eq!(training.optimizer.clip_norm, Some(0.01), "{name}");
        assert_eq!(experiment.data.templates, templates, "{name}");
        let model = experiment.architecture(&Methods::default()).unwrap();
        let classes = ClassSet::by_name(experiment.data.classes.as_deref().unwrap()).unwrap();
        let cost = model.cost(classes.len()).unwrap();
        assert_eq!(cost.params.trained, trained, "{name}");
    }
}

/// The expected numbers are those of CLIP-RC's release: steps, prompts, and the weights of focal, dice and recovery loss.
#[test]
fn published_experiments_of_clip_rc_are_as_released() {
    for (name, steps, tokens, focal, dice, recovery) in [
        ("voc12/clip-rc-inductive", 40_000, 10, 100.0, 1.0, 2.0),
        ("voc12/clip-rc-transductive", 20_000, 10, 100.0, 1.0, 2.0),
        (
            "voc12/clip-rc-fully-supervised",
            40_000,
            10,
            100.0,
            1.0,
            0.0,
        ),
        (
            "coco-stuff164k/clip-rc-inductive",
            80_000,
            100,
            200.0,
            3.0,
            50.0,
        ),
        (
            "coco-stuff164k/clip-rc-transductive",
            40_000,
            100,
            200.0,
            3.0,
            50.0,
        ),
        (
            "coco-stuff164k/clip-rc-fully-supervised",
            80_000,
            100,
            100.0,
            1.5,
            1.0,
        ),
    ] {
        let file = configs(&format!("{name}.toml")).remove(0);
        let experiment = open(&file);
        let training = &experiment.training;
        let model = experiment.architecture(&Methods::default()).unwrap();
        assert_eq!(model.method(), "clip-rc", "{name}");
        let encoder = model.encoder().unwrap();
        assert_eq!(encoder.regions, Some(16), "{name}");
        assert_eq!((training.steps, training.batch), (steps, 16), "{name}");
        assert_eq!(encoder.prompts.as_ref().unwrap().tokens, tokens, "{name}");
        let loss: ClipRcLossWeights = read_loss(&training.loss).unwrap();
        let loss = [loss.focal, loss.dice, loss.recovery];
        let close = |a: f64, b: f64| (a - b).abs() < 1e-9;
        let released = loss.into_iter().zip([focal, dice, recovery]);
        assert!(
            released.into_iter().all(|(a, b)| close(a, b)),
            "{name}: {loss:?}"
        );
        assert!(name.ends_with(training.setting.name()), "{name}");
    }
}

/// The expected numbers are those of the reference's configurations.
#[test]
fn published_experiments_of_maskclip_plus_are_as_released() {
    for (name, steps, guided, rate, decay) in [
        ("voc12", 20_000, 1999, 0.01, 5e-4),
        ("coco-stuff164k", 80_000, 7999, 0.01, 5e-4),
        ("pascal-context", 40_000, 3999, 0.004, 1e-4),
    ] {
        let file = configs(&format!("{name}/maskclip-plus.toml")).remove(0);
        let experiment = open(&file);
        let training = &experiment.training;
        let model = experiment.architecture(&Methods::default()).unwrap();
        assert_eq!(model.method(), "maskclip-plus", "{name}");
        assert_eq!((training.steps, training.batch), (steps, 16), "{name}");
        assert_eq!(training.setting, Setting::Transductive, "{name}");
        let loss: MaskClipPlusLoss = read_loss(&training.loss).unwrap();
        assert!(
            loss.is_guided(guided - 1, steps) && !loss.is_guided(guided, steps),
            "{name}"
        );
        let close = |a: f64, b: f64| (a - b).abs() < 1e-12;
        let (schedule, optimizer) = (&training.schedule, &training.optimizer);
        assert!(close(schedule.at(0, steps), rate), "{name}");
        assert!(close(optimizer.weight_decay, decay), "{name}");
        assert_eq!(optimizer.momentum, Some(0.9), "{name}");
        let cost = model.cost(20).unwrap();
        let trained = if name == "pascal-context" {
            102_457_808
        } else {
            118_025_056
        };
        assert_eq!(cost.params.trained, trained, "{name}");
    }
}
