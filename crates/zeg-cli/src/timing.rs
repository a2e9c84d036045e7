//! Measures the time and memory of a model, for inference or training steps, on generated images and labels.
//!
//! A forward pass costs what one window of `zeg segment` costs without reading and writing files: preprocessing, encoder,
//! decoder, the scores of every class and pixel, and the best class. The values of the weights do not change its time, so
//! an experiment that was never trained is measured with generated weights.

use std::{fs, io, time::Instant};

use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;
use zeg::session::{Question, ScoredStrip, Session, SessionSettings, StripVisitor};
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

/// Times and memory of runs that do the same work.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Timing {
    /// Median wall time in seconds.
    pub median_s: f64,
    /// Wall time of the fastest run in seconds.
    pub min_s: f64,
    /// Wall time of the slowest run in seconds.
    pub max_s: f64,
    /// Median processor time of all threads together, in seconds; only on Linux.
    pub cpu_median_s: Option<f64>,
    /// Memory in use before the first run, in megabytes of 10⁶ bytes; only on Linux.
    pub before_mb: Option<f64>,
    /// Peak of the memory in use during the runs, in megabytes of 10⁶ bytes; only on Linux.
    pub peak_mb: Option<f64>,
}

/// The amount of work that is measured.
#[derive(Debug, Clone, Copy)]
pub struct Amount {
    /// Number of images in a run: of a batch, or of a training step.
    pub batch: usize,
    /// Number of images that go through the model at once in a training step.
    pub micro_batch: usize,
    /// Side of the images in pixels.
    pub size: usize,
    /// Number of measured runs, after one that is not measured.
    pub runs: usize,
}

/// Measures `runs` calls of `run`, after one call that is not measured.
///
/// # Errors
/// Returns the first error of `run`.
pub fn measure<E>(runs: usize, mut run: impl FnMut() -> Result<(), E>) -> Result<Timing, E> {
    // Writing "5" resets the peak (proc(5), clear_refs); if that fails, the peak is that of the whole process.
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

/// What reads the results of a forward pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// The best class of every pixel.
    Labels,
    /// The best class of every pixel, and the scores of all classes.
    Scores,
}

/// A reader of all scores that only counts them.
struct Counter(usize);

impl StripVisitor for Counter {
    fn visit(&mut self, strip: &ScoredStrip) -> io::Result<()> {
        self.0 += strip.scores.len();
        Ok(())
    }
}

/// Measures the segmentation of images by the session that all commands use; each image is one window.
///
/// # Errors
/// Returns an error if the side is not a multiple of the model's patch, or if the device fails.
pub fn forward(
    model: &dyn Model,
    classes: usize,
    reader: Reader,
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
            let question = Question::labels(&classes);
            match reader {
                Reader::Labels => session.segment(image, &question, &mut [])?,
                Reader::Scores => session.segment(image, &question, &mut [&mut Counter(0)])?,
            };
        }
        Ok(())
    })
}

/// Measures training steps of an experiment, each with one batch.
///
/// # Errors
/// Returns an error if the experiment is inconsistent, or if the side is not a multiple of the model's patch.
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
    let frozen = settings.precision.of_frozen();
    let (model, _) = config.build_frozen_in(&weights, &device, 0, frozen)?;
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

/// Returns the classes of an experiment.
///
/// # Errors
/// Returns an error if the class list or the split is unknown.
pub fn classes(experiment: &Experiment) -> Result<ClassSet, DataError> {
    experiment.data.class_set()
}

/// Generates weights for every parameter of a model: noise of a realistic magnitude.
///
/// # Errors
/// Returns an error if the configuration is inconsistent.
pub fn generated_weights(config: &dyn Architecture) -> Result<StateDict, ModelError> {
    noise::weights(config, 0)
}

/// Builds a model with generated weights, for inference.
///
/// # Errors
/// Returns an error if the configuration is inconsistent, or if the device does not support the precision.
pub fn generated_model(
    config: &dyn Architecture,
    device: &Device,
    precision: Precision,
) -> Result<Box<dyn Model>, ModelError> {
    config.build_packed(&generated_weights(config)?, device, precision)
}

/// Generates class embeddings of unit length, `[classes, dim]`.
fn text(classes: usize, dim: usize, device: &Device) -> Tensor<2> {
    let values = noise::class_embeddings("bench.text", 0, classes, dim);
    Tensor::from_data(TensorData::new(values, [classes, dim]), device)
}

fn check_size(size: usize, patch: usize) -> Result<(), ModelError> {
    if size == 0 || !size.is_multiple_of(patch) {
        return Err(ModelError::Config(format!(
            "image side {size} pixels: it must be a multiple of the patch side, {patch} pixels"
        )));
    }
    Ok(())
}

fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

/// Returns a value of /proc/self/status in megabytes of 10⁶ bytes.
fn status_mb(name: &str) -> Option<f64> {
    let status = fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find(|line| line.starts_with(name))?;
    let kibibytes: f64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kibibytes * 1024.0 / 1e6)
}

/// Describes the time and the memory that this process used.
pub(crate) fn used_text(wall: std::time::Duration) -> String {
    let wall = wall.as_secs_f64();
    match status_mb("VmHWM:") {
        Some(peak) => format!("took {wall:.1} s and at most {peak:.0} MB of memory"),
        None => format!("took {wall:.1} s"),
    }
}

/// Returns the processor time of all threads of this process, in seconds.
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
    fn runs_are_counted_and_their_times_sorted() {
        let mut count = 0;
        let timing = measure(3, || {
            count += 1;
            std::thread::sleep(std::time::Duration::from_millis(count));
            Ok::<(), ()>(())
        });
        let timing = timing.unwrap();
        assert_eq!(count, 4, "one run that is not measured comes first");
        assert!(timing.min_s <= timing.median_s && timing.median_s <= timing.max_s);
        assert!(timing.min_s >= 0.002);
    }

    #[test]
    fn errors_end_the_runs() {
        assert_eq!(measure(3, || Err("no")), Err("no"));
    }
}
