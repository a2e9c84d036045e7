//! Training that several ranks share, with ranks that are threads: the same numbers as in one process, to the bit.
//!
//! `mpi.rs` repeats some of it with processes and MPI.
#![allow(clippy::unwrap_used)] // in tests

use std::{
    path::Path,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use burn::tensor::{Device, Tensor, TensorData};
use zeg::model::{methods::Methods, params::kept_values};
use zeg_base::{
    random::splitmix64,
    ranks::{Ranks, threads},
};
use zeg_cli::timing::{classes, generated_weights};
use zeg_image::IGNORE_LABEL;
use zeg_train::{
    batch::{Inputs, Samples},
    experiment::Experiment,
    recipe::Recipes,
    setting::supervision,
    trainer::{StepReport, Trainer},
    whole_batch::positions,
};

/// Images of a batch; with micro-batches of two, the last of four has one image.
const BATCH: usize = 7;
const STEPS: u64 = 2;
const TIMEOUT: Duration = Duration::from_mins(5);

/// Held by a test that trains: dropout draws from a generator that all threads of a process share.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The numbers that a training gives, as bits.
#[derive(Debug, PartialEq)]
struct Numbers {
    reports: Vec<StepReport>,
    parameters: Vec<(String, Vec<u32>)>,
    moments: Vec<(String, u64, Vec<u32>, Vec<u32>)>,
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

/// Returns uniform numbers from −1 to 1.
fn noise(seed: u64, count: usize) -> Vec<f32> {
    let random = (0..count as u64).map(|i| splitmix64(seed.wrapping_mul(1 << 32) + i));
    random
        .map(|bits| (bits >> 40) as f32 / (1 << 23) as f32 - 1.0)
        .collect()
}

/// Opens an experiment of the mini world with four micro-batches in a batch.
fn experiment(name: &str, changes: &[&str]) -> Experiment {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
    let file = root.join(format!("configs/mini-world/{name}.toml"));
    let own = [
        format!("training.batch={BATCH}"),
        "training.micro-batch=2".to_owned(),
    ];
    let changes: Vec<String> = own
        .into_iter()
        .chain(changes.iter().map(|change| (*change).to_owned()))
        .collect();
    let opened = Experiment::open(&file, &changes, &Methods::default(), &Recipes::default());
    opened.unwrap().experiment
}

/// Returns the images of a step at these positions of its batch; the last image has no label.
fn samples(step: u64, size: usize, classes: usize, positions: &[usize]) -> Samples {
    let pixels = size * size;
    let images = noise(2 * step, BATCH * 3 * pixels);
    let regions = |image: usize| {
        (0..pixels).map(move |pixel| {
            let block = (pixel / size / 16 * 4 + pixel % size / 16) as u64;
            let random = splitmix64(step * 1000 + image as u64 * 100 + block) as usize;
            match random % (classes + 1) {
                _ if image == BATCH - 1 => IGNORE_LABEL,
                class if class == classes => IGNORE_LABEL,
                class => class as u16,
            }
        })
    };
    let image = |position: &usize| images[position * 3 * pixels..][..3 * pixels].to_vec();
    Samples {
        inputs: Inputs::Images(positions.iter().flat_map(image).collect()),
        labels: positions.iter().flat_map(|image| regions(*image)).collect(),
        size,
        ids: positions.iter().map(ToString::to_string).collect(),
    }
}

/// Trains for a few steps.
fn train(experiment: &Experiment, ranks: Ranks) -> Numbers {
    let architecture = experiment.architecture(&Methods::default()).unwrap();
    let recipe = Recipes::default().of(architecture.method()).unwrap();
    let training = experiment.training.clone();
    let classes = classes(experiment).unwrap();
    let supervision = supervision(&training, &classes).unwrap();
    let device = Device::flex().autodiff();
    let weights = generated_weights(&*architecture).unwrap();
    let (model, _) = architecture.build(&weights, &device, 0).unwrap();
    let (rows, dim) = (supervision.names().len(), model.embed_dim());
    let text = TensorData::new(noise(7, rows * dim), [rows, dim]);
    let text = Tensor::<2>::from_data(text, &device);
    let mut trainer = Trainer::new(
        recipe,
        &*architecture,
        model,
        training.clone(),
        supervision,
        text,
    )
    .unwrap();
    trainer.set_ranks(ranks.clone());
    let own = positions(training.batch, training.micro_batch(), &ranks);
    let size = training.preprocess.size();
    let step = |step| {
        trainer
            .train_step(samples(step, size, classes.len(), &own))
            .unwrap()
    };
    let reports = (0..STEPS).map(step).collect();
    let parameters = kept_values(trainer.model(), |_| true).into_iter();
    let moments = trainer.moments().unwrap().into_iter();
    Numbers {
        reports,
        parameters: parameters.map(|it| (it.name, bits(&it.values))).collect(),
        moments: moments
            .map(|(name, it)| (name, it.time, bits(&it.first), bits(&it.second)))
            .collect(),
    }
}

/// Trains alone and with these numbers of ranks, and compares all numbers.
fn compare(name: &str, changes: &[&str], sizes: &[usize]) {
    let _alone = self::alone();
    let experiment = experiment(name, changes);
    let alone = train(&experiment, Ranks::single());
    assert!(alone.reports.iter().all(|report| report.loss.is_finite()));
    for &size in sizes {
        let results = threads::run(size, TIMEOUT, |ranks| train(&experiment, ranks));
        for (rank, found) in results.into_iter().enumerate() {
            let found = found.unwrap();
            assert_eq!(
                found.reports, alone.reports,
                "{name}: rank {rank} of {size}"
            );
            assert!(
                found == alone,
                "{name}: the parameters of rank {rank} of {size} differ"
            );
        }
    }
}

#[test]
fn zegclip_inductive_is_the_same_with_any_number_of_ranks() {
    compare(
        "zegclip-inductive",
        &["training.optimizer.clip-norm=0.5"],
        &[2, 3, 4],
    );
}

#[test]
fn zegclip_transductive_is_the_same_with_any_number_of_ranks() {
    compare("zegclip-transductive", &[], &[2, 3, 4]);
}

#[test]
fn clip_rc_is_the_same_with_any_number_of_ranks() {
    compare("clip-rc-inductive", &[], &[2, 3]);
    compare(
        "clip-rc-inductive",
        &["training.setting=transductive"],
        &[3],
    );
}

#[test]
fn zegformer_is_the_same_with_any_number_of_ranks() {
    compare("zegformer", &[], &[2, 3]);
}

#[test]
fn zsseg_is_the_same_with_any_number_of_ranks() {
    compare("zsseg", &[], &[3]);
}

/// Its batch normalisation observes running means in every micro-batch.
#[test]
fn maskclip_plus_is_the_same_with_any_number_of_ranks() {
    compare(
        "maskclip-plus",
        &["training.micro-batch=3", "training.batch=6"],
        &[2],
    );
}

#[test]
fn cat_seg_is_the_same_with_any_number_of_ranks() {
    compare("cat-seg", &[], &[3]);
}

/// A sum in another order gives other bits, so the test would notice one.
#[test]
fn another_order_of_micro_batches_gives_other_bits() {
    let _alone = alone();
    let usual = experiment("zegclip-inductive", &[]);
    let halves = experiment("zegclip-inductive", &["training.micro-batch=3"]);
    let [usual, halves] = [usual, halves].map(|it| train(&it, Ranks::single()));
    assert!(usual.parameters != halves.parameters);
}

#[test]
fn a_loss_that_is_not_finite_ends_all_ranks() {
    let _alone = alone();
    let mut experiment = experiment("zegclip-inductive", &[]);
    experiment.training.schedule.base = 1e30;
    let results = threads::run(2, TIMEOUT, |ranks| train(&experiment, ranks));
    assert!(results.iter().all(Result::is_err), "a rank went on");
}

/// Every process would take itself for the only one, and do the whole work.
#[cfg(not(feature = "mpi"))]
#[test]
fn several_processes_are_refused_by_a_build_without_mpi() {
    let folder = tempfile::tempdir().unwrap();
    let zeg = |mpi: &str| {
        let mut command = assert_cmd::Command::cargo_bin("zeg").unwrap();
        let config = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../configs/mini-world/zegclip-inductive.toml"
        );
        command.args(["train", config, "--weights", "mini", "-o", "run"]);
        command.args(["--set", "training.steps=1", "--set", "training.batch=2"]);
        command
            .env("OMPI_COMM_WORLD_SIZE", "2")
            .env("OMPI_COMM_WORLD_RANK", "0");
        command.env("ZEG_MPI", mpi).current_dir(folder.path());
        command.output().unwrap()
    };
    let refused = zeg("");
    let stderr = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(1), "{stderr}");
    assert!(
        stderr.contains("error: 2 processes were started (OMPI_COMM_WORLD_SIZE is 2)"),
        "{stderr}"
    );
    assert!(
        stderr.contains("build it with `--features mpi`"),
        "{stderr}"
    );
    assert!(!folder.path().join("run").exists());
    assert!(zeg("off").status.success());
}
