//! Sums over the pixels of class masks for focal and dice losses, in one pass over the logits.
//!
//! Composed of whole-tensor operations, the two losses read and write a tensor of classes × pixels about thirty times,
//! and an autodiff graph stores a dozen of them. Here every logit is read once forward and once backward, and only the
//! logits are saved.
//!
//! Let p_t be the probability of a pixel's true state (the sigmoid of the logit for a pixel of the class, of the
//! negative logit otherwise). The pixel's focal term is −α_t·(1 − p_t)²·ln p_t (Lin et al., Focal Loss, equation 5 with
//! γ = 2).

use std::sync::Arc;

use rayon::prelude::*;

use crate::{
    level::{Level, dispatched},
    math::{LANES, exp, log_1_plus, multiply_add, total},
    pieces::{CpuTensor, contiguous, shape, tensor, values},
};

/// Number of pixels that are summed in 32-bit floats before the sums are added in 64 bits.
const PIECE: usize = 8 * 1024;

/// Number of sums of a map.
pub(crate) const SUMS: usize = 3;

/// The labels of images, and the weight of positives.
#[derive(Debug, Clone)]
pub(crate) struct Truth {
    /// Class of every pixel, `[batch, pixels]`; a label that is no class of the masks is positive for none of them.
    pub(crate) labels: Arc<[u16]>,
    /// Weight α of a positive; a negative has 1 − α.
    pub(crate) alpha: f32,
}

impl Truth {
    /// Returns the labels of the image of map `map`, with `classes` maps per image, and the map's class.
    fn of_map(&self, map: usize, classes: usize, pixels: usize) -> (&[u16], u16) {
        let image = map / classes;
        let labels = &self.labels[image * pixels..][..pixels];
        (labels, (map % classes) as u16)
    }
}

/// Computes sums over pixels from logits: `[batch, classes, pixels]` → `[batch, classes, 3]`, the sums of focal terms,
/// of probabilities of positives, and of all probabilities.
pub(crate) fn forward(z: &CpuTensor, truth: &Truth, level: Level) -> CpuTensor {
    let z = contiguous(z.clone());
    let [batch, classes, pixels] = dims(&z);
    let mut sums = vec![0.0; batch * classes * SUMS];
    if pixels > 0 {
        let maps = values(&z).par_chunks_exact(pixels);
        let maps = sums.par_chunks_exact_mut(SUMS).zip(maps).enumerate();
        maps.for_each(|(map, (sums, z))| {
            let (labels, class) = truth.of_map(map, classes, pixels);
            let mut whole = [0.0_f64; SUMS];
            for (z, labels) in z.chunks(PIECE).zip(labels.chunks(PIECE)) {
                let mut part = [0.0; SUMS];
                sum_map(level, z, labels, class, truth.alpha, &mut part);
                for (whole, part) in whole.iter_mut().zip(part) {
                    *whole += f64::from(part);
                }
            }
            for (sum, whole) in sums.iter_mut().zip(whole) {
                *sum = whole as f32;
            }
        });
    }
    tensor(sums, &[batch, classes, SUMS])
}

/// Computes the gradient of the logits from that of the sums.
pub(crate) fn backward(
    z: &CpuTensor,
    truth: &Truth,
    gradient: CpuTensor,
    level: Level,
) -> CpuTensor {
    let z = contiguous(z.clone());
    let [batch, classes, pixels] = dims(&z);
    let gradient = contiguous(gradient);
    let mut out = vec![0.0; batch * classes * pixels];
    if pixels > 0 {
        let maps = out.par_chunks_exact_mut(pixels);
        let maps = maps.zip(values(&z).par_chunks_exact(pixels));
        let maps = maps.zip(values(&gradient).par_chunks_exact(SUMS));
        maps.enumerate().for_each(|(map, ((out, z), gradient))| {
            let (labels, class) = truth.of_map(map, classes, pixels);
            map_gradient(level, out, z, labels, class, truth.alpha, gradient);
        });
    }
    tensor(out, &[batch, classes, pixels])
}

fn dims(z: &CpuTensor) -> [usize; 3] {
    let shape = shape(z);
    [shape[0], shape[1], shape[2]]
}

dispatched! {
    /// Writes the three sums of a piece of a map.
    fn sum_map(z: &[f32], labels: &[u16], class: u16, alpha: f32, sums: &mut [f32; SUMS]) = sum_map_kernel;
}
dispatched! {
    /// Writes the gradient of a map's logits from those of its three sums.
    fn map_gradient(out: &mut [f32], z: &[f32], labels: &[u16], class: u16, alpha: f32, gradient: &[f32]) = map_gradient_kernel;
}

/// Returns 1 for a pixel of the class, −1 otherwise.
#[inline(always)]
fn sign(label: u16, class: u16) -> f32 {
    if label == class { 1.0 } else { -1.0 }
}

/// Returns p_t and −ln p_t for the logit of a pixel's true state.
#[inline(always)]
fn likelihood<const FMA: bool>(s: f32) -> (f32, f32) {
    let u = exp::<FMA>(-s.abs());
    let p = 1.0 / (1.0 + u); // σ(|s|)
    let p = if s < 0.0 { u * p } else { p };
    let below = if s < 0.0 { -s } else { 0.0 };
    (p, below + log_1_plus::<FMA>(u))
}

#[inline(always)]
fn sum_map_kernel<const FMA: bool>(
    z: &[f32],
    labels: &[u16],
    class: u16,
    alpha: f32,
    sums: &mut [f32; SUMS],
) {
    let mut lanes = [[0.0_f32; LANES]; SUMS];
    for (z, labels) in z.chunks(LANES).zip(labels.chunks(LANES)) {
        for (lane, (&z, &label)) in z.iter().zip(labels).enumerate() {
            let sign = sign(label, class);
            let (p, loss) = likelihood::<FMA>(sign * z);
            let (weight, positive) = if sign > 0.0 {
                (alpha, p)
            } else {
                (1.0 - alpha, 0.0)
            };
            let wrong = 1.0 - p;
            lanes[0][lane] = multiply_add::<FMA>(weight * wrong * wrong, loss, lanes[0][lane]);
            lanes[1][lane] += positive;
            lanes[2][lane] += if sign > 0.0 { p } else { wrong };
        }
    }
    *sums = lanes.map(total);
}

/// Computes the gradient. With s the logit of the true state, the focal term's derivative with respect to s is −α_t·(1
/// − p_t)²·(2·p_t·(−ln p_t) + 1 − p_t).
#[inline(always)]
fn map_gradient_kernel<const FMA: bool>(
    out: &mut [f32],
    z: &[f32],
    labels: &[u16],
    class: u16,
    alpha: f32,
    gradient: &[f32],
) {
    let &[of_focal, of_positives, of_all] = gradient else {
        return;
    };
    for (out, (&z, &label)) in out.iter_mut().zip(z.iter().zip(labels)) {
        let sign = sign(label, class);
        let (p, loss) = likelihood::<FMA>(sign * z);
        let (weight, slope) = if sign > 0.0 {
            (alpha, of_positives + of_all)
        } else {
            (1.0 - alpha, of_all)
        };
        let wrong = 1.0 - p;
        let focal = -weight * wrong * wrong * multiply_add::<FMA>(2.0 * p, loss, wrong);
        *out = multiply_add::<FMA>(of_focal * sign, focal, slope * p * wrong);
    }
}
