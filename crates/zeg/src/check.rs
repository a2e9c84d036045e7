//! Checks that a machine computes correctly: runs every method on generated weights and compares two code paths.
//!
//! No file is needed. A [`Case`] is a method at one model size. [`Trial::run`] computes it twice on the chosen device,
//! as inference does, and once on the plain path, which uses nothing but operations of the tensor library.

mod machine;

use std::time::Instant;

use anyhow::Context as _;
use burn::tensor::{Device, Tensor, TensorData};
use serde::Serialize;
use zeg_image::RgbImage;
use zeg_kernels::composed_alone;
use zeg_model::{
    ModelError, Precision,
    classes::ClassQueries,
    generated,
    method::{Architecture, ExampleSize, Model, WindowBatch},
    methods::Methods,
    scores::WindowScores,
};

pub use self::machine::Machine;

/// Number of classes that every model is asked for.
const CLASSES: usize = 20;
/// Number of prompt templates, for models that need one embedding per template.
const TEMPLATES: usize = 2;
/// Seed of the generated weights, image and class embeddings.
const SEED: u64 = 1;
/// Largest accepted deviation of 32-bit floats from the plain path, as a share of the root mean square of its result.
///
/// Twenty times the difference measured between two orders of summation.
const FLOAT_LIMIT: f64 = 2e-4;
/// Largest accepted deviation of bf16, which rounds every weight and activation to 8 bits of precision; in the same
/// unit.
const BF16_LIMIT: f64 = 0.1;
/// Largest accepted deviation of 8-bit integers, which round every weight and activation; in the same unit.
///
/// Three times the largest measured deviation.
const INT8_LIMIT: f64 = 0.15;

/// A model that a machine is checked with.
#[derive(Debug)]
pub struct Case {
    /// The method's name, as on the command line.
    pub method: &'static str,
    /// The size of the model.
    pub size: ExampleSize,
    architecture: std::sync::Arc<dyn Architecture>,
}

/// Returns one case for every method at each of the given sizes.
///
/// # Errors
/// Returns an error if a method rejects its own example configuration.
pub fn cases(methods: &Methods, sizes: &[ExampleSize]) -> Result<Vec<Case>, ModelError> {
    let sizes = sizes.iter().copied();
    let pairs = sizes
        .into_iter()
        .flat_map(|size| methods.iter().map(move |method| (method, size)));
    pairs
        .map(|(method, size)| {
            let architecture = method.configure(&method.example(size), Some(&size.tower()))?;
            Ok(Case {
                method: method.name(),
                size,
                architecture,
            })
        })
        .collect()
}

/// The device and the precision that are checked.
#[derive(Debug, Clone)]
pub struct Trial {
    /// The device, without autodiff.
    pub device: Device,
    /// The number format that the encoder computes with.
    pub precision: Precision,
}

/// The result of one case.
#[derive(Debug, Clone, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct CaseReport {
    /// The method's name.
    pub method: &'static str,
    /// `small` or `published`.
    pub size: &'static str,
    /// Side of the image in pixels.
    pub side: usize,
    /// Number of classes that the model was asked for.
    pub classes: usize,
    /// Largest difference from the plain path, as a share of the root mean square of its result; `None` if the result
    /// has another shape or a value that is not finite.
    pub deviation: Option<f64>,
    /// The largest deviation with which the case passes.
    pub limit: f64,
    /// Whether the second computation gave the same bits.
    pub repeats: bool,
    /// Seconds from image to scores: the faster of the two computations.
    pub seconds: f64,
    /// Seconds on the plain path.
    pub plain_seconds: f64,
    /// Whether the deviation is within its limit and the result repeats.
    pub passed: bool,
}

impl Trial {
    /// Computes a case on the device and on the plain path, and compares the results.
    ///
    /// # Errors
    /// Returns an error if the device cannot compute with this precision, or if its results cannot be read.
    pub fn run(&self, case: &Case) -> anyhow::Result<CaseReport> {
        let Case { architecture, .. } = case;
        let weights = generated::weights(&**architecture, SEED)?;
        let model = architecture
            .build_packed(&weights, &self.device, self.precision)
            .with_context(|| format!("building {}", case.method))?;
        let (found, first) = self.compute(case, model, 2)?;
        let (plain, plain_seconds) = composed_alone(|| {
            let plain = Self {
                device: Device::flex(),
                precision: Precision::Float,
            };
            let model = architecture.build_packed(&weights, &plain.device, plain.precision)?;
            plain.compute(case, model, 1)
        })?;
        let [first_result, second_result] = &found[..] else {
            anyhow::bail!("{}: expected the results of two computations", case.method);
        };
        let deviation = deviation(first_result, &plain[0]);
        let repeats = first_result.same_bits(second_result);
        let limit = match self.precision {
            Precision::Float => FLOAT_LIMIT,
            Precision::Bf16 => BF16_LIMIT,
            Precision::Int8 => INT8_LIMIT,
        };
        Ok(CaseReport {
            method: case.method,
            size: case.size.name(),
            side: architecture.resolution(),
            classes: CLASSES,
            deviation,
            limit,
            repeats,
            seconds: first,
            plain_seconds,
            passed: repeats && deviation.is_some_and(|deviation| deviation <= limit),
        })
    }

    /// Computes the scores of a case `times` times; returns the results and the fewest seconds that one took.
    fn compute(
        &self,
        case: &Case,
        mut model: Box<dyn Model>,
        times: usize,
    ) -> anyhow::Result<(Vec<Scores>, f64)> {
        model.set_options(&case.architecture.default_inference().method)?;
        let side = case
            .architecture
            .resolution()
            .next_multiple_of(model.stride());
        let image = image(side).context("generating the test image")?;
        let values = model.normalization().to_chw(&image);
        let queries = queries(&*model, &self.device);
        let (mut results, mut seconds) = (Vec::new(), f64::INFINITY);
        for _ in 0..times {
            let started = Instant::now();
            let data = TensorData::new(values.clone(), [1, 3, side, side]);
            let windows = WindowBatch {
                images: Tensor::from_data(data, &self.device),
                pixels: std::slice::from_ref(&image),
            };
            for encoding in model.encode(&windows)? {
                results.push(Scores::of(model.score(&encoding, &queries)?)?);
            }
            seconds = seconds.min(started.elapsed().as_secs_f64());
        }
        Ok((results, seconds))
    }
}

/// Scores of one window in main memory: one row of logits, or one row of masks and one of mask scores.
#[derive(Debug)]
struct Scores(Vec<Vec<f32>>);

impl Scores {
    fn of(scores: WindowScores) -> anyhow::Result<Self> {
        Ok(Self(match scores {
            WindowScores::Logits(logits) => {
                let data = logits.into_data().convert::<f32>();
                let values = data.try_into_vec();
                vec![values.map_err(|error| {
                    anyhow::anyhow!("reading scores from the device: {error:?}")
                })?]
            }
            WindowScores::Masks { masks, scores } => vec![masks.values, scores],
        }))
    }

    fn same_bits(&self, other: &Self) -> bool {
        let bits = |scores: &Self| -> Vec<Vec<u32>> {
            let rows = scores.0.iter();
            rows.map(|row| row.iter().map(|v| v.to_bits()).collect())
                .collect()
        };
        bits(self) == bits(other)
    }
}

/// Returns the largest difference over the root mean square of `plain`; `None` if shapes differ or a value is not
/// finite.
///
/// Mask scores are probabilities, most of them nearly 0, so that their root mean square says little about those that
/// decide. Differences of these are divided by the largest.
fn deviation(found: &Scores, plain: &Scores) -> Option<f64> {
    let lengths = |scores: &Scores| scores.0.iter().map(Vec::len).collect::<Vec<_>>();
    if lengths(found) != lengths(plain) {
        return None;
    }
    let mut most = 0.0_f64;
    for (row, (found, plain)) in found.0.iter().zip(&plain.0).enumerate() {
        let size = if row == 0 {
            let squares: f64 = plain.iter().map(|&v| f64::from(v).powi(2)).sum();
            (squares / plain.len().max(1) as f64).sqrt()
        } else {
            let largest = |most: f32, v: &f32| most.max(v.abs());
            f64::from(plain.iter().fold(0.0, largest))
        };
        let unit = if size == 0.0 { 1.0 } else { size };
        for (&found, &plain) in found.iter().zip(plain) {
            let difference = (f64::from(found) - f64::from(plain)).abs() / unit;
            if !difference.is_finite() {
                return None;
            }
            most = most.max(difference);
        }
    }
    Some(most)
}

/// Generates an image of smooth areas with noise, so that masks have interiors and edges.
fn image(side: usize) -> Option<RgbImage> {
    let noise = generated::uniform("check.image", SEED, 3 * side * side);
    let pixels = noise.enumerate().map(|(index, noise)| {
        let (channel, x, y) = (index % 3, index / 3 % side, index / 3 / side);
        let at = |place: usize| place as f32 / side as f32 * std::f32::consts::TAU;
        let wave = (at(x) * (channel + 1) as f32).sin() + (at(y) * 2.0).cos();
        (127.0 + 50.0 * wave + 20.0 * noise).clamp(0.0, 255.0) as u8
    });
    RgbImage::from_raw(side as u32, side as u32, pixels.collect())
}

/// Generates class embeddings of every kind that the model needs.
fn queries(model: &dyn Model, device: &Device) -> ClassQueries {
    let dim = model.embed_dim();
    let text = |name: &str| {
        let values = generated::class_embeddings(name, SEED, CLASSES, dim);
        Tensor::<2>::from_data(TensorData::new(values, [CLASSES, dim]), device)
    };
    let needs = model.class_needs();
    let seen = (0..CLASSES).map(|class| class % 3 != 0).collect();
    let mut queries = ClassQueries::new(text("check.text"), seen);
    if needs.each_template {
        let templates = (0..TEMPLATES).map(|template| text(&format!("check.text.{template}")));
        queries.each_template = Some(Tensor::stack(templates.collect(), 0));
    }
    if needs.crop_templates.is_some() {
        queries.crop_text = Some(text("check.crops"));
    }
    queries
}

#[cfg(test)]
mod tests {
    use super::*;

    fn small() -> Vec<Case> {
        cases(&Methods::default(), &[ExampleSize::Small]).unwrap()
    }

    #[test]
    fn every_method_has_a_small_case_that_passes() {
        for precision in [Precision::Float, Precision::Bf16, Precision::Int8] {
            let trial = Trial {
                device: Device::flex(),
                precision,
            };
            let cases = small();
            assert_eq!(cases.len(), Methods::default().iter().count());
            for case in cases {
                let report = trial.run(&case).unwrap();
                assert!(report.passed, "{report:?}");
                // Bit-equal results would mean that one path was compared with itself.
                assert!(report.deviation.unwrap() > 0.0, "{report:?}");
            }
        }
    }

    #[test]
    fn every_method_has_a_case_of_published_size() {
        for case in cases(&Methods::default(), &[ExampleSize::Published]).unwrap() {
            let encoder = case.architecture.encoder().unwrap();
            assert_eq!(encoder.name(), "ViT-B/16", "{}", case.method);
        }
    }

    /// A factor of 1.001 on one layer's weights exceeds the limit. CAT-Seg's scores are sigmoids near one half, which
    /// damp errors, so that the check finds a factor of 1.01 there.
    #[test]
    fn a_slightly_wrong_weight_deviates() {
        let trial = Trial {
            device: Device::flex(),
            precision: Precision::Float,
        };
        for case in small() {
            let scores = |weights: &_| {
                let build = &case.architecture;
                let model = build.build_packed(weights, &trial.device, trial.precision);
                trial.compute(&case, model.unwrap(), 1).unwrap().0
            };
            let mut weights = generated::weights(&*case.architecture, SEED).unwrap();
            let right = scores(&weights);
            let keys: Vec<String> = weights.keys().map(str::to_owned).collect();
            for key in keys {
                let (found, factor) = if case.method == "cat-seg" {
                    (key.contains("predictor.transformer."), 1.01)
                } else {
                    let parts = [
                        "mlp.c_proj.weight",
                        "predictor.mask_embed",
                        "decode_module.",
                    ];
                    (parts.iter().any(|part| key.contains(part)), 1.001)
                };
                if found {
                    let mut tensor = weights.read(&key).unwrap().unwrap();
                    for value in &mut tensor.values {
                        *value *= factor;
                    }
                    weights.insert(key, tensor);
                }
            }
            let deviation = deviation(&scores(&weights)[0], &right[0]).unwrap();
            assert!(deviation > FLOAT_LIMIT, "{}: {deviation}", case.method);
        }
    }

    #[test]
    fn a_wrong_result_deviates() {
        let scores = |values: &[f32]| Scores(vec![values.to_vec(), vec![1.0]]);
        let plain = scores(&[3.0, -4.0]);
        let found = |values: &[f32]| deviation(&scores(values), &plain);
        assert_eq!(found(&[3.0, -4.0]), Some(0.0));
        let wrong = found(&[3.0, -4.5]).unwrap();
        assert!((wrong - 0.5 / 12.5_f64.sqrt()).abs() < 1e-12);
        assert_eq!(found(&[3.0, f32::NAN]), None);
        assert_eq!(found(&[f32::INFINITY, -4.0]), None);
        assert_eq!(found(&[3.0]), None);
        assert!(plain.same_bits(&scores(&[3.0, -4.0])));
        assert!(!plain.same_bits(&scores(&[3.0, -4.000_000_5])));
    }
}
