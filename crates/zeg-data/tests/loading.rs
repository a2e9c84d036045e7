//! Tests of the loader on files: order, reproducibility, resuming a run, and bad samples.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the test functions; a failure is a failed test"
)]

mod common;

use std::sync::Arc;

use common::{TinyVoc, open};
use zeg_data::{
    Batch, DataError, Dataset, Loader, LoaderOptions, OnBadSample, Pipeline, Preprocess, RandomCrop,
};
use zeg_image::{ImageError, Normalization};

const IDS: [&str; 5] = ["a", "b", "c", "d", "e"];

const OPTIONS: LoaderOptions = LoaderOptions {
    batch_size: 3,
    seed: 11,
    start_batch: 0,
    workers: 1,
    on_bad_sample: OnBadSample::Stop,
};

fn pipeline() -> Pipeline {
    let settings = RandomCrop {
        base_scale: (128, 32),
        crop: 24,
        ..RandomCrop::default()
    };
    Pipeline::new(Preprocess::RandomCrop(settings), Normalization::IMAGENET).unwrap()
}

fn train(voc: &TinyVoc) -> Arc<Dataset> {
    Arc::new(open("voc12", &voc.root(), "train").unwrap())
}

fn batches(dataset: &Arc<Dataset>, options: LoaderOptions, count: usize) -> Vec<Batch> {
    let mut loader = Loader::new(Arc::clone(dataset), pipeline(), options).unwrap();
    (0..count).map(|_| loader.next_batch().unwrap()).collect()
}

#[test]
fn batches_do_not_depend_on_the_number_of_threads() {
    let voc = TinyVoc::new(&IDS, &["v"]);
    let dataset = train(&voc);
    let one = batches(&dataset, OPTIONS, 7);
    for workers in [2, 3, 5] {
        assert_eq!(
            one,
            batches(&dataset, LoaderOptions { workers, ..OPTIONS }, 7)
        );
    }
    assert_eq!(one[0].images.len(), 3 * 3 * 24 * 24);
    assert_eq!(one[0].labels.len(), 3 * 24 * 24);
    assert_eq!(one[6].number, 6);
    let other = batches(
        &dataset,
        LoaderOptions {
            seed: 12,
            ..OPTIONS
        },
        7,
    );
    assert_ne!(one, other);
}

#[test]
fn every_epoch_holds_every_sample_once() {
    let voc = TinyVoc::new(&IDS, &["v"]);
    let batches = batches(&train(&voc), OPTIONS, 5);
    let ids: Vec<String> = batches.into_iter().flat_map(|batch| batch.ids).collect();
    for epoch in ids.chunks(5) {
        let mut epoch = epoch.to_vec();
        epoch.sort();
        assert_eq!(epoch, IDS);
    }
}

#[test]
fn a_resumed_run_gets_the_same_batches() {
    let voc = TinyVoc::new(&IDS, &["v"]);
    let dataset = train(&voc);
    let whole = batches(&dataset, OPTIONS, 8);
    for (start_batch, workers) in [(1, 1), (5, 2), (7, 3)] {
        let options = LoaderOptions {
            start_batch,
            workers,
            ..OPTIONS
        };
        let start = start_batch as usize;
        assert_eq!(whole[start..], batches(&dataset, options, 8 - start));
    }
}

#[test]
fn a_bad_sample_stops_the_loader_and_the_error_names_it() {
    let voc = TinyVoc::new(&IDS, &["v"]);
    voc.truncate_image("c");
    let options = LoaderOptions {
        workers: 2,
        batch_size: 5,
        ..OPTIONS
    };
    let mut loader = Loader::new(train(&voc), pipeline(), options).unwrap();
    let error = loader.next_batch().unwrap_err();
    assert!(
        matches!(&error, DataError::Image(ImageError::Corrupt { path, .. }) if *path == voc.image("c")),
        "{error}"
    );
    assert!(matches!(loader.next_batch(), Err(DataError::LoaderStopped)));
}

#[test]
fn bad_samples_are_skipped_on_request_and_reported() {
    let voc = TinyVoc::new(&IDS, &["v"]);
    voc.truncate_image("c");
    voc.truncate_image("d");
    let dataset = train(&voc);
    let options = LoaderOptions {
        batch_size: 5,
        on_bad_sample: OnBadSample::Skip,
        ..OPTIONS
    };
    let one = batches(&dataset, options, 2);
    for batch in &one {
        let mut ids = batch.ids.clone();
        ids.sort();
        assert_eq!(ids, ["a", "b", "e", "e", "e"]);
        let mut skipped: Vec<&str> = batch.skipped.iter().map(|(id, _)| id.as_str()).collect();
        skipped.sort_unstable();
        assert_eq!(skipped, ["c", "d", "d"]);
        assert!(batch.skipped[0].1.contains(".jpg"));
    }
    assert_eq!(
        one,
        batches(
            &dataset,
            LoaderOptions {
                workers: 3,
                ..options
            },
            2
        )
    );
}

#[test]
fn a_data_set_of_bad_samples_only_is_an_error() {
    let voc = TinyVoc::new(&["a", "b"], &["v"]);
    voc.truncate_image("a");
    voc.truncate_image("b");
    let options = LoaderOptions {
        on_bad_sample: OnBadSample::Skip,
        ..OPTIONS
    };
    let mut loader = Loader::new(train(&voc), pipeline(), options).unwrap();
    assert!(matches!(
        loader.next_batch(),
        Err(DataError::TooManyBadSamples { tried: 2, .. })
    ));
}

#[test]
fn a_data_set_without_samples_is_refused() {
    let voc = TinyVoc::new(&["a"], &["v"]);
    let mut dataset = open("voc12", &voc.root(), "train").unwrap();
    dataset.items.clear();
    assert!(matches!(
        Loader::new(Arc::new(dataset), pipeline(), OPTIONS),
        Err(DataError::Empty { .. })
    ));
}
