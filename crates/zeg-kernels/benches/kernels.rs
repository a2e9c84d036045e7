//! Benchmarks of the kernels, in processor time of all threads, which other programs on the machine disturb less than
//! wall time.
//!
//! Run with `cargo bench --bench kernels`; with `RAYON_NUM_THREADS=1` the throughput is that of one core. Sizes are
//! those of ZegCLIP ViT-B/16 at 512×512 pixels: 1035 tokens, width 768, 12 heads, 15 seen classes.

use std::{hint::black_box, sync::Arc, time::Duration};

use burn::tensor::{Device, Distribution, Tensor};
use criterion::{
    BenchmarkGroup, Criterion, Throughput, criterion_group, criterion_main,
    measurement::{Measurement, ValueFormatter, WallTime},
};
use zeg_kernels::{
    Activation, Level, Norm, PackedBlock, PackedLinear, Precision, Then, Workspace, at_level,
    attention_packed, layer_norm, mask_sums, quick_gelu, softmax,
};

const TOKENS: usize = 1035;
const WIDTH: usize = 768;
const HEADS: usize = 12;

/// A measurement of the processor time of this program's threads in seconds (Linux); elsewhere, of wall time.
struct Cores;

impl Measurement for Cores {
    type Intermediate = (Option<f64>, <WallTime as Measurement>::Intermediate);
    type Value = Duration;

    fn start(&self) -> Self::Intermediate {
        (seconds(), WallTime.start())
    }

    fn end(&self, (before, wall): Self::Intermediate) -> Duration {
        match before.zip(seconds()) {
            Some((before, after)) => Duration::from_secs_f64(after - before),
            None => WallTime.end(wall),
        }
    }

    fn add(&self, a: &Duration, b: &Duration) -> Duration {
        *a + *b
    }

    fn zero(&self) -> Duration {
        Duration::ZERO
    }

    fn to_f64(&self, value: &Duration) -> f64 {
        WallTime.to_f64(value)
    }

    fn formatter(&self) -> &dyn ValueFormatter {
        WallTime.formatter()
    }
}

fn seconds() -> Option<f64> {
    let tasks = std::fs::read_dir("/proc/self/task").ok()?;
    let spent = |task: std::fs::DirEntry| -> Option<f64> {
        let line = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
        line.split_whitespace().next()?.parse().ok()
    };
    let nanoseconds: f64 = tasks.flatten().filter_map(spent).sum();
    Some(nanoseconds * 1e-9)
}

fn numbers(length: usize, scale: f32) -> Vec<f32> {
    let number = |i: usize| ((i * 7919 + i / 13) % 2003) as f32 / 1001.0 - 1.0;
    (0..length).map(|i| scale * number(i)).collect()
}

fn random<const D: usize>(shape: [usize; D], device: &Device) -> Tensor<D> {
    Tensor::random(shape, Distribution::Normal(0.0, 1.0), device)
}

fn packed(inputs: usize, outputs: usize, precision: Precision) -> Arc<PackedLinear> {
    let weight = numbers(inputs * outputs, 0.05);
    let bias = numbers(outputs, 0.05);
    Arc::new(PackedLinear::new(&weight, &bias, precision))
}

fn both_ways(inputs: usize, outputs: usize) -> Arc<PackedLinear> {
    let weight = numbers(inputs * outputs, 0.05);
    let layer = PackedLinear::with_gradient(&weight, &numbers(outputs, 0.05), Precision::Float);
    Arc::new(layer)
}

fn block(layer: impl Fn(usize, usize) -> Arc<PackedLinear>) -> Arc<PackedBlock> {
    let norm = || Norm {
        weight: vec![1.0; WIDTH],
        bias: vec![0.0; WIDTH],
        epsilon: 1e-5,
    };
    Arc::new(PackedBlock {
        attention_norm: norm(),
        qkv: layer(WIDTH, 3 * WIDTH),
        heads: HEADS,
        out: layer(WIDTH, WIDTH),
        network_norm: norm(),
        up: layer(WIDTH, 4 * WIDTH),
        activation: Activation::QuickGelu,
        down: layer(4 * WIDTH, WIDTH),
        workspace: Workspace::default(),
    })
}

/// Sets the throughput; a multiply-add counts as two operations.
fn operations(group: &mut BenchmarkGroup<'_, Cores>, count: usize) {
    group.throughput(Throughput::Elements(count as u64));
}

fn linear_layers(criterion: &mut Criterion<Cores>) {
    let mut group = criterion.benchmark_group("linear");
    for precision in [Precision::Float, Precision::Bf16, Precision::Int8] {
        for (inputs, outputs, then) in [
            (WIDTH, WIDTH, Then::Add),
            (WIDTH, 3 * WIDTH, Then::Store),
            (WIDTH, 4 * WIDTH, Then::Activate(Activation::QuickGelu)),
            (4 * WIDTH, WIDTH, Then::Add),
        ] {
            let layer = packed(inputs, outputs, precision);
            let x = numbers(TOKENS * inputs, 1.0);
            let mut out = vec![0.0; TOKENS * outputs];
            operations(&mut group, 2 * TOKENS * inputs * outputs);
            group.bench_function(format!("{precision} {inputs}→{outputs}"), |bench| {
                bench.iter(|| layer.apply(black_box(&x), &mut out, then));
            });
        }
    }
    group.finish();
}

fn blocks(criterion: &mut Criterion<Cores>) {
    let mut group = criterion.benchmark_group("block");
    for precision in [Precision::Float, Precision::Bf16, Precision::Int8] {
        let block = block(|inputs, outputs| packed(inputs, outputs, precision));
        let mut x = Some(random([1, TOKENS, WIDTH], &Device::flex()));
        group.bench_function(format!("{precision}"), |bench| {
            bench.iter(|| x = x.take().map(|x| block.forward(x, None)));
        });
    }
    let block = block(both_ways);
    let x = random([1, TOKENS, WIDTH], &Device::flex().autodiff());
    group.bench_function("f32 and its gradient", |bench| {
        bench.iter(|| {
            let x = x.clone().detach().require_grad();
            block.forward(x, None).sum().backward()
        });
    });
    group.finish();
}

/// The block at every level of this machine: a level is packed for and run alone.
fn levels(criterion: &mut Criterion<Cores>) {
    let mut group = criterion.benchmark_group("level");
    for level in Level::available() {
        for precision in [Precision::Float, Precision::Bf16, Precision::Int8] {
            let block = at_level(level, || {
                block(|inputs, outputs| packed(inputs, outputs, precision))
            });
            let mut x = Some(random([1, TOKENS, WIDTH], &Device::flex()));
            group.bench_function(format!("{} {precision}", level.name()), |bench| {
                bench.iter(|| at_level(level, || x = x.take().map(|x| block.forward(x, None))));
            });
        }
    }
    group.finish();
}

fn operations_on_tokens(criterion: &mut Criterion<Cores>) {
    let mut group = criterion.benchmark_group("tokens");
    let plain = Device::flex();
    let device = plain.clone().autodiff();
    let qkv = random([1, TOKENS, 3 * WIDTH], &plain);
    operations(&mut group, 4 * TOKENS * TOKENS * WIDTH);
    group.bench_function("attention", |bench| {
        bench.iter(|| attention_packed(qkv.clone(), HEADS, None));
    });
    let qkv = random([1, TOKENS, 3 * WIDTH], &device);
    operations(&mut group, 14 * TOKENS * TOKENS * WIDTH);
    group.bench_function("attention and its gradient", |bench| {
        bench.iter(|| {
            let qkv = qkv.clone().detach().require_grad();
            attention_packed(qkv, HEADS, None).sum().backward()
        });
    });
    let hidden = random([1, TOKENS, 4 * WIDTH], &plain);
    group.throughput(Throughput::Elements((TOKENS * 4 * WIDTH) as u64));
    group.bench_function("quick_gelu", |bench| {
        bench.iter(|| quick_gelu(hidden.clone()));
    });
    let tokens = random([1, TOKENS, WIDTH], &plain);
    let (weight, bias) = (
        Tensor::ones([WIDTH], &plain),
        Tensor::zeros([WIDTH], &plain),
    );
    group.throughput(Throughput::Elements((TOKENS * WIDTH) as u64));
    group.bench_function("layer_norm", |bench| {
        bench.iter(|| layer_norm(tokens.clone(), weight.clone(), bias.clone(), 1e-5));
    });
    group.bench_function("softmax", |bench| bench.iter(|| softmax(tokens.clone())));
    group.finish();
}

fn losses(criterion: &mut Criterion<Cores>) {
    let (classes, pixels) = (15, 512 * 512);
    let mut group = criterion.benchmark_group("masks");
    let z = random([1, classes, pixels], &Device::flex().autodiff());
    let labels: Arc<[u16]> = (0..pixels).map(|i| (i / 997 % 21) as u16).collect();
    group.throughput(Throughput::Elements((classes * pixels) as u64));
    group.bench_function("focal and dice with gradient", |bench| {
        bench.iter(|| {
            let z = z.clone().detach().require_grad();
            let sums = mask_sums(z, Arc::clone(&labels), 0.25);
            (sums.focal + sums.positives + sums.all).sum().backward()
        });
    });
    group.finish();
}

fn settings() -> Criterion<Cores> {
    Criterion::default()
        .with_measurement(Cores)
        .sample_size(10)
        .without_plots()
}

criterion_group! {
    name = kernels;
    config = settings();
    targets = linear_layers, blocks, levels, operations_on_tokens, losses
}
criterion_main!(kernels);
