//! The configuration reference, written from the types that read the files.
//!
//! Keys, types, defaults and meanings come from JSON schemas that are derived from those types (feature `schema`); the
//! meaning is the field's doc comment. Defaults that a schema leaves out are named in [`LEFT_OUT`] and checked.

use std::collections::BTreeSet;

use regex::Regex;
use schemars::{Schema, schema_for};
use zeg::model::{
    method::{Method, StartingPoint},
    methods::{self, Methods, zegformer::ZegFormerOptions, zsseg::ZssegOptions},
};
use zeg_train::{
    experiment::Experiment,
    loss::MaskLoss,
    methods::{
        cat_seg::CatSegLossWeights, clip_rc::ClipRcLossWeights, maskclip_plus::MaskClipPlusLoss,
        zegformer::set_criterion::SetLoss,
    },
    recipe::Recipes,
};

use crate::{pages::repository, reference::Page};

/// Sections that belong to one method, as `(section, method, schema)`.
fn method_sections() -> Vec<(&'static str, &'static str, Schema)> {
    vec![
        (
            "model",
            "zegclip",
            methods::zegclip::config::section_schema(),
        ),
        (
            "model",
            "clip-rc",
            methods::clip_rc::config::section_schema(),
        ),
        (
            "model",
            "zegformer",
            methods::zegformer::entry::section_schema(),
        ),
        ("model", "zsseg", methods::zsseg::entry::section_schema()),
        (
            "model",
            "cat-seg",
            methods::cat_seg::entry::section_schema(),
        ),
        (
            "model",
            "maskclip-plus",
            methods::maskclip_plus::entry::section_schema(),
        ),
        ("training.loss", "zegclip", schema_for!(MaskLoss)),
        ("training.loss", "clip-rc", schema_for!(ClipRcLossWeights)),
        ("training.loss", "zegformer", schema_for!(SetLoss)),
        ("training.loss", "zsseg", schema_for!(SetLoss)),
        ("training.loss", "cat-seg", schema_for!(CatSegLossWeights)),
        (
            "training.loss",
            "maskclip-plus",
            schema_for!(MaskClipPlusLoss),
        ),
        (
            "inference.method",
            "zegformer",
            schema_for!(ZegFormerOptions),
        ),
        ("inference.method", "zsseg", schema_for!(ZssegOptions)),
    ]
}

/// An experiment file of each method that is trained.
const EXPERIMENTS: [(&str, &str); 6] = [
    ("zegclip", "configs/voc12/zegclip-inductive.toml"),
    ("clip-rc", "configs/voc12/clip-rc-inductive.toml"),
    ("zegformer", "configs/voc12/zegformer-r50.toml"),
    ("zsseg", "configs/voc12/zsseg-r50.toml"),
    ("cat-seg", "configs/coco-stuff164k/cat-seg-vitb.toml"),
    ("maskclip-plus", "configs/voc12/maskclip-plus.toml"),
];

/// Defaults that the schemas leave out, since they are left out of written files: `(key, value)`.
pub(crate) const LEFT_OUT: [(&str, &str); 16] = [
    ("model.method", "zegclip"),
    ("model.head.mask-scale", "1.0"),
    ("model.head.mask-bias", "0.0"),
    ("model.head.query", "product-text"),
    ("model.head.scoring", "sigmoid"),
    ("training.pseudo-labels", "unseen-pixels"),
    ("training.precision", "f32"),
    ("training.objective", "focal-dice"),
    ("training.unlabelled-negatives", "true"),
    ("training.optimizer.encoder-lr", "0.1"),
    ("training.schedule.decay", "polynomial"),
    ("training.schedule.warmup", "linear"),
    ("inference.mode", "slide"),
    ("inference.longest-side", "0"),
    ("inference.refine", "none"),
    ("model.regions", "16"),
];

const EXPERIMENT: &str = "\
An experiment file is one TOML file: data, model, training and inference. `zeg train`, `zeg info` and `zeg bench` read \
it, and a checkpoint holds it. `--set key=value` changes a key by its path, such as `--set training.steps=300`. A key \
that is not known is an error that lists those that are. `configs/` holds the experiments of the papers; \
[Reproduce a table of the papers](../../guide/reproduce.md) says which.

A key without a default must be given; \"none\" stands for a key that may be left out.
";

#[test]
fn the_experiment_reference_lists_the_keys_there_are() {
    let mut page = Page::new("Experiment file", EXPERIMENT, method_sections());
    page.file(&schema_for!(Experiment));
    page.write("reference/configuration/experiment.md");
}

#[test]
fn the_plan_reference_lists_the_keys_there_are() {
    let text = "\
An evaluation plan is a TOML file for `zeg eval --plan`: which images are scored, and how. The command line has the \
last word over a plan. `configs/cross-dataset/` holds plans; see [Score across data \
sets](../../guide/cross-dataset.md).
";
    let mut page = Page::new(
        "Evaluation plan",
        text,
        vec![
            (
                "inference.method",
                "zegformer",
                schema_for!(ZegFormerOptions),
            ),
            ("inference.method", "zsseg", schema_for!(ZssegOptions)),
        ],
    );
    page.file(&zeg_cli::schema::evaluation_plan());
    page.write("reference/configuration/evaluation-plan.md");
}

#[test]
fn the_suite_reference_lists_the_keys_there_are() {
    let text = "\
A suite is a TOML file for `zeg ablate`: the rows of a table, each an experiment with some settings changed, run over \
seeds. `configs/ablations/` holds suites; see [Run suites of experiments](../../guide/suites.md).
";
    let mut page = Page::new("Suite file", text, Vec::new());
    page.file(&zeg_cli::schema::suite());
    page.write("reference/configuration/suite.md");
}

/// The sections that the reference gives to a method are the ones that the method reads.
#[test]
fn method_sections_are_those_of_the_methods() {
    let (methods, recipes) = (Methods::default(), Recipes::default());
    let sections = method_sections();
    let trained: BTreeSet<_> = methods
        .starting_from(StartingPoint::Masks)
        .map(Method::name)
        .collect();
    assert_eq!(
        trained,
        EXPERIMENTS.iter().map(|(method, _)| *method).collect()
    );
    for (method, file) in EXPERIMENTS {
        for place in ["model", "training.loss", "inference.method"] {
            let change = format!("{place}.no-such-key=1");
            let path = repository().join(file);
            let error = Experiment::open(&path, &[change], &methods, &recipes)
                .unwrap_err()
                .to_string();
            let expected = sections
                .iter()
                .find(|(p, m, _)| *p == place && *m == method);
            let expected: BTreeSet<String> = expected
                .and_then(|(_, _, schema)| schema.get("properties")?.as_object())
                .map(|keys| keys.keys().cloned().collect())
                .unwrap_or_default();
            assert_eq!(
                expected_keys(&error),
                expected,
                "{place} of {method}: {error}"
            );
        }
    }
}

/// Giving a default that the schemas leave out changes nothing.
#[test]
fn defaults_that_are_left_out_are_true() {
    let (methods, recipes) = (Methods::default(), Recipes::default());
    for (key, value) in LEFT_OUT {
        let method = if key == "model.regions" {
            "clip-rc"
        } else {
            "zegclip"
        };
        let (_, file) = EXPERIMENTS
            .iter()
            .find(|(name, _)| *name == method)
            .unwrap();
        let text = std::fs::read_to_string(repository().join(file)).unwrap();
        let mut table: toml::Table = text.parse().unwrap();
        remove(&mut table, key);
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("experiment.toml");
        std::fs::write(&path, table.to_string()).unwrap();
        let meaning = |changes: &[String]| {
            let opened = Experiment::open(&path, changes, &methods, &recipes).unwrap();
            let experiment = opened.experiment;
            let model = format!("{:?}", experiment.architecture(&methods).unwrap());
            (model, experiment.training, experiment.inference)
        };
        assert_eq!(meaning(&[]), meaning(&[format!("{key}={value}")]), "{key}");
    }
}

/// Takes a key out of a file, by its path.
fn remove(table: &mut toml::Table, key: &str) {
    if let Some((first, rest)) = key.split_once('.') {
        if let Some(toml::Value::Table(inner)) = table.get_mut(first) {
            remove(inner, rest);
        }
    } else {
        table.remove(key);
    }
}

/// The keys that an error about an unknown one names as legal.
pub(crate) fn expected_keys(error: &str) -> BTreeSet<String> {
    let legal = error
        .split_once("expected ")
        .map_or("", |(_, legal)| legal.lines().next().unwrap_or(""));
    let pattern = Regex::new("`([^`]+)`").unwrap();
    pattern
        .captures_iter(legal)
        .map(|key| key[1].to_owned())
        .collect()
}
