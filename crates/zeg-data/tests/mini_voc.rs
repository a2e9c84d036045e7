//! Tests on a real excerpt of PASCAL VOC 2012; they are skipped if it does not exist beside the repository.

#![allow(
    clippy::unwrap_used,
    reason = "helpers beside the test functions; a failure is a failed test"
)]

mod common;

use std::sync::Arc;
use std::time::Instant;

use zeg_data::{Dataset, Loader, LoaderOptions, OnBadSample, Pipeline, Preprocess, RandomCrop};
use zeg_image::{IGNORE_LABEL, Normalization};

fn mini_voc(split: &str) -> Option<Dataset> {
    let root = common::shared_data("voc2012_mini/VOCdevkit/VOC2012")?;
    Some(common::open("voc12", &root, split).unwrap())
}

#[test]
fn every_pair_opens_and_loads() {
    for (split, pairs) in [("train", 311), ("val", 240)] {
        let Some(dataset) = mini_voc(split) else {
            return;
        };
        assert_eq!(dataset.len(), pairs);
        let mut seen = [false; 20];
        for index in 0..pairs {
            let sample = dataset.load(index).unwrap();
            for &label in sample.labels.labels() {
                if label != IGNORE_LABEL {
                    seen[usize::from(label)] = true;
                }
            }
        }
        assert!(seen.iter().all(|&seen| seen), "{split}: {seen:?}");
    }
}

/// `cargo test --release -p zeg-data --test mini_voc -- --ignored --nocapture`
#[test]
#[ignore = "measures speed; run it by hand on an idle machine"]
fn throughput() {
    let Some(dataset) = mini_voc("train") else {
        return;
    };
    let dataset = Arc::new(dataset);
    let (batch_size, batches) = (16, 20);
    for workers in [1, 2] {
        let settings = Preprocess::RandomCrop(RandomCrop::default());
        let pipeline = Pipeline::new(settings, Normalization::IMAGENET).unwrap();
        let options = LoaderOptions {
            batch_size,
            seed: 0,
            start_batch: 0,
            workers,
            on_bad_sample: OnBadSample::Stop,
        };
        let mut loader = Loader::new(Arc::clone(&dataset), pipeline, options).unwrap();
        loader.next_batch().unwrap();
        let start = Instant::now();
        for _ in 0..batches {
            loader.next_batch().unwrap();
        }
        let rate = (batch_size * batches) as f64 / start.elapsed().as_secs_f64();
        eprintln!("{workers} threads: {rate:.0} images per second, crops of 512×512");
    }
}
