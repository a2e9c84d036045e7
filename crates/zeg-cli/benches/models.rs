//! Benchmark of whole models: scores of 20 classes for one image of 512×512 pixels, with generated weights.
//!
//! Run it with `cargo bench --bench models`. `zeg bench` measures the same, training steps and memory;
//! `reference/bench_peers.py` compares it with other engines.

#![allow(clippy::unwrap_used)] // a benchmark that cannot start may panic

use std::path::Path;

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{Criterion, criterion_group, criterion_main};
use zeg::model::{
    Precision, classes::ClassQueries, method::WindowBatch, methods::Methods, resize::bilinear,
    scores::WindowScores,
};
use zeg_cli::timing;
use zeg_kernels::sigmoid;
use zeg_train::{experiment::Experiment, recipe::Recipes};

const SIZE: usize = 512;
const CLASSES: usize = 20;

fn models(criterion: &mut Criterion) {
    let device = Device::flex();
    let (methods, recipes) = (Methods::default(), Recipes::default());
    let configs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../configs/voc12");
    let mut group = criterion.benchmark_group("images to scores");
    group.sample_size(10);
    for (name, file) in [
        ("ZegCLIP", "zegclip-inductive.toml"),
        ("CLIP-RC", "clip-rc-inductive.toml"),
    ] {
        let file = configs.join(file);
        let experiment = Experiment::open(&file, &[], &methods, &recipes)
            .unwrap()
            .experiment;
        let config = experiment.architecture(&methods).unwrap();
        for precision in [Precision::Float, Precision::Bf16, Precision::Int8] {
            let model = timing::generated_model(&*config, &device, precision).unwrap();
            let normal = Distribution::Normal(0.0, 1.0);
            let images = Tensor::<4>::random([1, 3, SIZE, SIZE], normal, &device);
            let text = Tensor::<2>::random([CLASSES, model.embed_dim()], normal, &device);
            let classes = ClassQueries::new(text, vec![false; CLASSES]);
            group.bench_function(format!("{name} {precision}"), |bench| {
                bench.iter(|| {
                    let windows = WindowBatch {
                        images: images.clone(),
                        pixels: &[],
                    };
                    let encoded = model.encode(&windows).unwrap().remove(0);
                    let WindowScores::Logits(masks) = model.score(&encoded, &classes).unwrap()
                    else {
                        unreachable!("these methods have logits");
                    };
                    sigmoid(bilinear(masks, [SIZE; 2])).into_data()
                });
            });
        }
    }
    group.finish();
}

criterion_group!(benches, models);
criterion_main!(benches);
