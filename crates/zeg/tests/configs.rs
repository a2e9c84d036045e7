//! Every configuration in the repository is one that the program takes.
#![allow(clippy::unwrap_used)] // in tests

use std::path::{Path, PathBuf};

use zeg::{
    data::benchmark,
    train::experiment::{Experiment, Setting},
    vocab::{classes::ClassSet, templates::TemplateSet},
};

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
    let files = configs("zegclip-");
    assert!(files.len() >= 10, "{files:?}");
    for file in files {
        let experiment = Experiment::open(&file, &[]).unwrap();
        let data = &experiment.data;
        let benchmark = benchmark(&data.dataset).unwrap();
        let list = data.classes.as_deref().unwrap();
        assert!(benchmark.class_lists.contains(&list), "{}", file.display());
        for split in [&data.train_split, &data.eval_split] {
            assert!(
                benchmark.official(split).is_some(),
                "{}: {split}",
                file.display()
            );
        }
        ClassSet::by_name(list).unwrap();
        TemplateSet::by_name(&data.templates).unwrap();
    }
}

/// The released numbers, from the reference's configurations.
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
        let experiment = Experiment::open(&file, &[]).unwrap();
        let training = &experiment.training;
        assert_eq!((training.steps, training.batch), (steps, 16), "{name}");
        assert_eq!(training.setting, setting, "{name}");
        assert_eq!(experiment.model.prompts.unwrap().tokens, tokens, "{name}");
        assert!((training.loss.focal - 100.0).abs() < 1e-9, "{name}");
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
