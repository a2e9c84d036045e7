//! Times a model: images to labels, or steps of its training, on images and labels made of noise.
//!
//! A forward pass is what a window of `zeg segment` costs without reading and writing files: pixels, encoder, decoder,
//! a score for every class and pixel, the best class. The values of weights do not change how long it takes, so
//! an experiment that was never trained is timed with generated ones.

use std::{fs, time::Instant};

use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;
use zeg::session::{Question, Session, SessionSettings};
use zeg_data::DataError;
use zeg_image::{IGNORE_LABEL, RgbImage};
use zeg_model::{
    ModelError, Precision,
    inference::{ClassQueries, Inference, TestTime},
    method::{Architecture, Model},
    weights::StateDict,
};
use zeg_train::{
    TrainError,
    batch::{Inputs, Samples},
    experiment::Experiment,
    trainer::Trainer,
};
use zeg_vocab::classes::ClassSet;

use zeg_model::generated as noise;
use zeg_train::setting::supervision;

use crate::Program;

/// Times of runs that did the same, and memory.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Timing {
    /// Seconds on the wall: the median.
    pub median_s: f64,
    /// The fastest run.
    pub min_s: f64,
    /// The slowest run.
    pub max_s: f64,
    /// Seconds of all threads together: the median; where the system tells (Linux).
    pub cpu_median_s: Option<f64>,
    /// Megabytes in use before the first run; where the system tells (Linux).
    pub before_mb: Option<f64>,
    /// Most megabytes in use during the runs; where the system tells (Linux).
    pub peak_mb: Option<f64>,
}

/// What to time.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Images at once, or of a training step.
    pub batch: usize,
    /// Images of a training step that go through the model at once.
    pub micro_batch: usize,
    /// Side of the images in pixels.
    pub size: usize,
    /// Runs that count; one more goes before them.
    pub runs: usize,
}

/// Times `run`.
///
/// # Errors
/// Those of `run`.
pub fn measure<E>(runs: usize, mut run: impl FnMut() -> Result<(), E>) -> Result<Timing, E> {
    // "5" resets the peak (proc(5), clear_refs); elsewhere the peak is that of the program so far.
    let _ = fs::write("/proc/self/clear_refs", "5");
    let before_mb = status_mb("VmRSS:");
    run()?;
    let mut wall = Vec::with_capacity(runs);
    let mut cpu = Vec::with_capacity(runs);
    for _ in 0..runs {
        let (started, spent) = (Instant::now(), cpu_seconds());
        run()?;
        wall.push(started.elapsed().as_secs_f64());
        cpu.extend(
            spent
                .zip(cpu_seconds())
                .map(|(before, after)| after - before),
        );
    }
    wall.sort_by(f64::total_cmp);
    cpu.sort_by(f64::total_cmp);
    Ok(Timing {
        median_s: median(&wall).unwrap_or_default(),
        min_s: wall.first().copied().unwrap_or_default(),
        max_s: wall.last().copied().unwrap_or_default(),
        cpu_median_s: median(&cpu),
        before_mb,
        peak_mb: status_mb("VmHWM:"),
    })
}

/// Times images to labels, through the session that every command uses: each image is one window.
///
/// # Errors
/// The side is no multiple of the model's patch, or the device could not be read.
pub fn forward(
    model: &dyn Model,
    classes: usize,
    amount: Amount,
    device: &Device,
) -> anyhow::Result<Timing> {
    let Amount {
        batch, size, runs, ..
    } = amount;
    check_size(size, model.stride())?;
    let pixels = noise::integers("bench.images", 0, batch * 3 * size * size, 256);
    let pixels: Vec<u8> = pixels.into_iter().map(|value| value as u8).collect();
    let images: Vec<RgbImage> = pixels
        .chunks_exact(3 * size * size)
        .filter_map(|pixels| RgbImage::from_raw(size as u32, size as u32, pixels.to_vec()))
        .collect();
    let settings = SessionSettings {
        inference: Inference {
            short_side: size,
            crop: size,
            stride: size,
            ..Inference::default()
        },
        test_time: TestTime::default(),
    };
    let classes = ClassQueries::new(
        text(classes, model.embed_dim(), device),
        vec![false; classes],
    );
    let session = Session::new(model, &settings, device);
    measure(runs, || {
        for image in &images {
            session.segment(image, &Question::labels(&classes), &mut [])?;
        }
        Ok(())
    })
}

/// Times steps of an experiment's training, each of one batch.
///
/// # Errors
/// The experiment contradicts itself, or the side is no multiple of the model's patch.
pub fn training(
    experiment: &Experiment,
    program: &Program,
    weights: StateDict,
    amount: Amount,
    device: &Device,
) -> Result<Timing, TrainError> {
    let Amount {
        batch,
        micro_batch,
        size,
        runs,
    } = amount;
    let config = experiment.architecture(&program.methods)?;
    let recipe = program.recipes.of(config.method())?;
    check_size(size, config.stride())?;
    let device = device.clone().autodiff();
    let mut settings = experiment.training.clone();
    (settings.batch, settings.micro_batch) = (batch, Some(micro_batch));
    let classes = classes(experiment)?;
    let supervision = supervision(&settings, &classes)?;
    let (model, _) = config.build(&weights, &device, 0)?;
    let text = text(supervision.names().len(), model.embed_dim(), &device);
    drop(weights);
    let mut trainer = Trainer::new(recipe, &*config, model, settings, supervision, text)?;
    let pixels = batch * size * size;
    let labels = noise::integers("bench.labels", 0, pixels, classes.len() as u32 + 1);
    let labels = labels.into_iter().map(|label| match label as usize {
        class if class < classes.len() => class as u16,
        _ => IGNORE_LABEL,
    });
    let samples = Samples {
        inputs: Inputs::Images(noise::uniform("bench.images", 0, 3 * pixels).collect()),
        labels: labels.collect(),
        size,
        ids: (0..batch).map(|index| index.to_string()).collect(),
    };
    measure(runs, || trainer.train_step(samples.clone()).map(|_| ()))
}

/// Classes of an experiment.
///
/// # Errors
/// A list or split is not known.
pub fn classes(experiment: &Experiment) -> Result<ClassSet, DataError> {
    experiment.data.class_set()
}

/// Weights of every parameter of a model, made of noise of usual sizes.
///
/// # Errors
/// The configuration contradicts itself.
pub fn generated_weights(config: &dyn Architecture) -> Result<StateDict, ModelError> {
    noise::weights(config, 0)
}

/// A model with such weights, for inference.
///
/// # Errors
/// As [`generated_weights`], or the device cannot compute with this precision.
pub fn generated_model(
    config: &dyn Architecture,
    device: &Device,
    precision: Precision,
) -> Result<Box<dyn Model>, ModelError> {
    config.build_packed(&generated_weights(config)?, device, precision)
}

/// Class embeddings of unit length: `[classes, dim]`.
fn text(classes: usize, dim: usize, device: &Device) -> Tensor<2> {
    let values = noise::class_embeddings("bench.text", 0, classes, dim);
    Tensor::from_data(TensorData::new(values, [classes, dim]), device)
}

fn check_size(size: usize, patch: usize) -> Result<(), ModelError> {
    if size == 0 || !size.is_multiple_of(patch) {
        return Err(ModelError::Config(format!(
            "a side of {size} pixels is no multiple of the patch, {patch}"
        )));
    }
    Ok(())
}

fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

/// A line of /proc/self/status, in megabytes of 10⁶ bytes.
fn status_mb(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kibibytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024.0 / 1e6)
}

/// Seconds that the threads of this program have spent on a core.
fn cpu_seconds() -> Option<f64> {
    let threads = fs::read_dir("/proc/self/task").ok()?;
    let spent = |thread: fs::DirEntry| -> Option<f64> {
        let line = fs::read_to_string(thread.path().join("schedstat")).ok()?;
        line.split_whitespace().next()?.parse().ok()
    };
    let nanoseconds: f64 = threads.flatten().filter_map(spent).sum();
    (nanoseconds > 0.0).then_some(nanoseconds * 1e-9)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn runs_are_counted_and_ordered() {
        let mut count = 0;
        let timing = measure(3, || {
            count += 1;
            std::thread::sleep(std::time::Duration::from_millis(count));
            Ok::<(), ()>(())
        });
        let timing = timing.unwrap();
        assert_eq!(count, 4, "one run goes before those that count");
        assert!(timing.min_s <= timing.median_s && timing.median_s <= timing.max_s);
        assert!(timing.min_s >= 0.002);
    }

    #[test]
    fn errors_end_the_runs() {
        assert_eq!(measure(3, || Err("no")), Err("no"));
    }
}
