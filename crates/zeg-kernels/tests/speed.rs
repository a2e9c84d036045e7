//! How near the packed layers come to what one core can do:
//! `RAYON_NUM_THREADS=1 cargo test --workspace --test speed -- --ignored --nocapture`
//!
//! CPU time of all threads (Linux), medians; other programs on the machine change it less than the time on the wall.

use std::{fs, sync::Arc};

use burn::tensor::{Device, Distribution, Tensor};
use zeg_kernels::{
    Activation, Norm, PackedBlock, PackedLinear, Precision, Then, Workspace, attention_packed,
};

/// Seconds that this program's threads have spent on a core.
fn cpu_seconds() -> f64 {
    let tasks = fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    let spent = |task: fs::DirEntry| -> Option<f64> {
        let line = fs::read_to_string(task.path().join("schedstat")).ok()?;
        line.split_whitespace().next()?.parse::<f64>().ok()
    };
    tasks.filter_map(spent).sum::<f64>() * 1e-9
}

fn median_milliseconds(runs: usize, mut work: impl FnMut()) -> f64 {
    work();
    let mut times: Vec<f64> = (0..runs)
        .map(|_| {
            let start = cpu_seconds();
            work();
            (cpu_seconds() - start) * 1e3
        })
        .collect();
    times.sort_by(f64::total_cmp);
    times[runs / 2]
}

fn numbers(length: usize, scale: f32) -> Vec<f32> {
    let number = |i: usize| ((i * 7919 + i / 13) % 2003) as f32 / 1001.0 - 1.0;
    (0..length).map(|i| scale * number(i)).collect()
}

fn layer(inputs: usize, outputs: usize, precision: Precision) -> Arc<PackedLinear> {
    let weight = numbers(inputs * outputs, 0.05);
    Arc::new(PackedLinear::new(
        &weight,
        &numbers(outputs, 0.05),
        precision,
    ))
}

#[test]
#[ignore = "prints timings"]
fn timings() {
    let tokens = 1035;
    for precision in [Precision::Float, Precision::Int8] {
        for (inputs, outputs, then) in [
            (768, 768, Then::Add),
            (768, 2304, Then::Store),
            (768, 3072, Then::Activate(Activation::QuickGelu)),
            (3072, 768, Then::Add),
        ] {
            let layer = layer(inputs, outputs, precision);
            let x = numbers(tokens * inputs, 1.0);
            let mut out = vec![0.0; tokens * outputs];
            let time = median_milliseconds(9, || layer.apply(&x, &mut out, then));
            let operations = 2.0 * (tokens * inputs * outputs) as f64;
            println!(
                "{precision:?} {inputs}→{outputs} {then:?}: {time:.2} ms, {:.1} GFLOP/s",
                operations / time * 1e-6
            );
        }
        let norm = || Norm {
            weight: vec![1.0; 768],
            bias: vec![0.0; 768],
            epsilon: 1e-5,
        };
        let block = PackedBlock {
            attention_norm: norm(),
            qkv: layer(768, 2304, precision),
            heads: 12,
            out: layer(768, 768, precision),
            network_norm: norm(),
            up: layer(768, 3072, precision),
            activation: Activation::QuickGelu,
            down: layer(3072, 768, precision),
            workspace: Workspace::default(),
        };
        let device = Device::flex();
        let x = Tensor::<3>::random([1, tokens, 768], Distribution::Normal(0.0, 1.0), &device);
        let mut x = Some(x);
        let time = median_milliseconds(9, || x = x.take().map(|x| block.forward(x, None)));
        println!("{precision:?} block: {time:.2} ms");
        let qkv = Tensor::<3>::random([1, tokens, 2304], Distribution::Normal(0.0, 1.0), &device);
        let time = median_milliseconds(9, || drop(attention_packed(qkv.clone(), 12, None)));
        println!("attention: {time:.2} ms");
    }
}
