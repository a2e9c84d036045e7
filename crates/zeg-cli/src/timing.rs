//! Times a model: pictures to scores, or steps of its training, on pictures and labels made of noise.
//!
//! A forward pass is what a window of `zeg segment` costs without reading and writing files: encoder, decoder, masks
//! resized to the pixels, a score for every class and pixel. The values of weights do not change how long it takes, so
//! an experiment that was never trained is timed with generated ones.

use std::{fs, time::Instant};

use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;
use zeg_data::DataError;
use zeg_image::{IGNORE_LABEL, RgbImage};
use zeg_kernels::sigmoid;
use zeg_model::{
    ModelError, Precision,
    dense::{ClassQueries, DenseModel},
    inference::Inference,
    method::{MethodConfig, Model},
    params::list_params,
    resize::bilinear,
    weights::StateDict,
    zegformer::{ZegFormer, view::RegionView},
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
    /// Pictures at once, or of a training step.
    pub batch: usize,
    /// Pictures of a training step that go through the model at once.
    pub micro_batch: usize,
    /// Side of the pictures in pixels.
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

/// Times pictures to scores.
///
/// # Errors
/// The side is no multiple of the model's patch, or the device could not be read.
pub fn forward(
    model: &dyn DenseModel,
    classes: usize,
    amount: Amount,
    device: &Device,
) -> Result<Timing, ModelError> {
    let Amount {
        batch, size, runs, ..
    } = amount;
    check_size(size, model.patch())?;
    if let Some(two_stage) = model.two_stage() {
        return both_stages(two_stage, classes, amount, device);
    }
    let values = noise::uniform("bench.pictures", 0, batch * 3 * size * size);
    let values = TensorData::new(values.collect::<Vec<f32>>(), [batch, 3, size, size]);
    let images = Tensor::<4>::from_data(values, device);
    let text = text(classes, model.embed_dim(), device);
    measure(runs, || {
        let encoded = model.encode(images.clone());
        let masks = model.masks(encoded, text.clone()); // [batch, classes, h, w]
        let scores = sigmoid(bilinear(masks, [size; 2])); // [batch, classes, size, size]
        // Reading one value waits for devices that work on their own.
        let last = scores.slice([0..1, 0..1, 0..1, 0..1]).into_data();
        if last.iter::<f32>().any(f32::is_nan) {
            return Err(ModelError::Config("the scores are no numbers".into()));
        }
        Ok(())
    })
}

/// Times pictures through both stages of a ZegFormer, one after the other: regions, CLIP on their crops, scores.
fn both_stages(
    model: &ZegFormer,
    classes: usize,
    amount: Amount,
    device: &Device,
) -> Result<Timing, ModelError> {
    let side = amount.size as u32;
    let values = noise::integers("bench.pictures", 0, 3 * amount.size * amount.size, 256);
    let values = values.into_iter().map(|value| value as u8).collect();
    let Some(picture) = RgbImage::from_raw(side, side, values) else {
        unreachable!("there are three values a pixel");
    };
    let settings = Inference {
        short_side: amount.size,
        ..Inference::default()
    };
    let queries = ClassQueries {
        text: text(classes, model.config().embed_dim, device),
        crop_text: None,
        seen: vec![false; classes],
    };
    measure(amount.runs, || {
        for _ in 0..amount.batch {
            let view = RegionView::new(model, &picture, &settings, Some(&queries), device)?;
            let field = view.field(model, &queries, &settings)?;
            let [height, _] = field.size();
            if field.rows(0..height).iter().any(|score| score.is_nan()) {
                return Err(ModelError::Config("the scores are no numbers".into()));
            }
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
    let config = experiment.model.architecture()?;
    check_size(size, config.patch())?;
    let device = device.clone().autodiff();
    let mut settings = experiment.training.clone();
    (settings.batch, settings.micro_batch) = (batch, Some(micro_batch));
    let classes = classes(experiment)?;
    let supervision = supervision(&settings, &classes)?;
    let (model, _) = config.build(&weights, &device, 0)?;
    let text = text(supervision.names().len(), model.embed_dim(), &device);
    drop(weights);
    let mut trainer = Trainer::new(model, settings, supervision, text)?;
    let pixels = batch * size * size;
    let labels = noise::integers("bench.labels", 0, pixels, classes.len() as u32 + 1);
    let labels = labels.into_iter().map(|label| match label as usize {
        class if class < classes.len() => class as u16,
        _ => IGNORE_LABEL,
    });
    let samples = Samples {
        inputs: Inputs::Pictures(noise::uniform("bench.pictures", 0, 3 * pixels).collect()),
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
pub fn generated_weights(config: &MethodConfig) -> Result<StateDict, ModelError> {
    let blueprint = config.blueprint(&Device::flex())?;
    let mut weights = StateDict::default();
    for info in list_params(&blueprint, |_| false) {
        let values = noise::parameter(&info.name, 0, &info.shape);
        // ZegFormer's classifier is read under the name that CLIP's own tower has among a model's weights.
        let name = match info.name.strip_prefix("classifier.tower.") {
            Some(rest) => format!("backbone.{rest}"),
            None => info.name,
        };
        weights.insert(name, values);
    }
    Ok(weights)
}

/// A model with such weights, for inference.
///
/// # Errors
/// As [`generated_weights`], or the device cannot compute with this precision.
pub fn generated_model(
    config: &MethodConfig,
    device: &Device,
    precision: Precision,
) -> Result<Model, ModelError> {
    config.build_packed(&generated_weights(config)?, device, precision)
}

/// Class embeddings of unit length: `[classes, dim]`.
fn text(classes: usize, dim: usize, device: &Device) -> Tensor<2> {
    let mut values: Vec<f32> = noise::uniform("bench.text", 0, classes * dim).collect();
    for row in values.chunks_exact_mut(dim.max(1)) {
        let length = row.iter().map(|v| v * v).sum::<f32>().sqrt();
        for value in row {
            *value /= length;
        }
    }
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
