//! Tests of the sums of focal and dice losses over the pixels of class masks, and of their gradients.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use rayon::prelude::*;
use zeg_kernels::{MaskSums, mask_sums};

use crate::{
    common::{at_every_level, host, tensor, values},
    compare::Pinned,
    reference::sigmoid,
};

const ALPHA: f32 = 0.25;

/// Limits of the sums: focal terms, positives, all. Measured: AVX-512 and AVX2 1.4e-7, 1.7e-7, 1.2e-7; portable 1.5e-7,
/// 1.7e-7, 1.2e-7.
const SUMS: [f64; 3] = [5e-7, 5e-7, 4e-7];
/// Limits of the gradients of each sum. Measured at every level: 7.1e-7, 7.3e-6, 1.6e-6.
const GRADIENTS: [f64; 3] = [2e-6, 2e-5, 6e-6];
/// The same for small masks, some of whose classes have few pixels. Measured: AVX-512 and AVX2 6.6e-7, 1.8e-5, 1.7e-6;
/// portable 7.8e-7, 1.8e-5, 1.7e-6.
const GRADIENTS_OF_FEW: [f64; 3] = [2e-6, 6e-5, 6e-6];

/// Returns pseudo-random labels; some pixels have no class, some the ignore index.
fn labels(pixels: usize, classes: usize) -> Arc<[u16]> {
    let label = |x: f32| match ((x + 2.0) * 1e4) as usize % (classes + 2) {
        ignored if ignored == classes + 1 => 255,
        class => class as u16,
    };
    values(pixels, 5).into_iter().map(label).collect()
}

/// Returns focal term, positive and probability of a pixel.
fn terms(z: f64, positive: bool) -> [f64; 3] {
    let alpha = f64::from(ALPHA);
    let (s, weight) = if positive {
        (z, alpha)
    } else {
        (-z, 1.0 - alpha)
    };
    let loss = (-s).exp().ln_1p(); // −ln σ(s)
    let focal = weight * sigmoid(-s).powi(2) * loss;
    [focal, if positive { sigmoid(z) } else { 0.0 }, sigmoid(z)]
}

/// Returns the derivatives of [`terms`] with respect to the logit.
fn slopes(z: f64, positive: bool) -> [f64; 3] {
    let alpha = f64::from(ALPHA);
    let (sign, weight) = if positive {
        (1.0, alpha)
    } else {
        (-1.0, 1.0 - alpha)
    };
    let s = sign * z;
    let (p, wrong) = (sigmoid(s), sigmoid(-s));
    // d/ds (1 − p)²·(−ln p) = −2·(1 − p)²·p·(−ln p) − (1 − p)²·(1 − p)
    let focal = -weight * wrong * wrong * (2.0 * p * (-s).exp().ln_1p() + wrong);
    let all = p * wrong;
    [sign * focal, if positive { all } else { 0.0 }, all]
}

/// Returns the three sums.
fn parts(sums: MaskSums) -> [Tensor<2>; 3] {
    [sums.focal, sums.positives, sums.all]
}

/// Checks the three sums, and the gradient of each, against their limits at every level.
fn pin([batch, classes, pixels]: [usize; 3], gradient_limits: [f64; 3]) {
    let device = Device::flex().autodiff();
    let shape = [batch, classes, pixels];
    let labels = labels(batch * pixels, classes);
    let z = tensor(shape, 7, &device) * 5.0; // −10 to 10
    let weights = values(batch * classes, 9);
    let logits = host(z.clone());
    let positive =
        |map: usize, pixel: usize| labels[map / classes * pixels + pixel] == (map % classes) as u16;
    let maps = logits.par_chunks_exact(pixels).enumerate();
    let sums: Vec<[f64; 3]> = maps
        .clone()
        .map(|(map, z)| {
            let terms = (0..pixels).map(|i| terms(f64::from(z[i]), positive(map, i)));
            terms.fold([0.0; 3], |sums, terms| {
                [0, 1, 2].map(|i| sums[i] + terms[i])
            })
        })
        .collect();
    let gradients: Vec<[f64; 3]> = maps
        .flat_map_iter(|(map, z)| {
            let weight = f64::from(weights[map]);
            (0..pixels)
                .map(move |i| slopes(f64::from(z[i]), positive(map, i)).map(|slope| weight * slope))
        })
        .collect();
    at_every_level(|level| {
        for part in 0..3 {
            let z = z.clone().detach().require_grad();
            let sum = parts(mask_sums(z.clone(), Arc::clone(&labels), ALPHA))[part].clone();
            let weights = Tensor::<1>::from_floats(weights.as_slice(), &device);
            let back = (sum.clone() * weights.reshape([batch, classes]))
                .sum()
                .backward();
            let name = ["focal terms", "positives", "all"][part];
            let what = format!("{level:?} mask_sums {shape:?}: {name}");
            Pinned {
                what: &what,
                found: &host(sum),
                expected: &sums.iter().map(|sums| sums[part]).collect::<Vec<_>>(),
                row: classes,
                head: None,
                limit: SUMS[part],
            }
            .holds();
            Pinned {
                what: &format!("{what}, gradient"),
                found: &host(z.grad(&back).unwrap()),
                expected: &gradients.iter().map(|g| g[part]).collect::<Vec<_>>(),
                row: pixels,
                head: None,
                limit: gradient_limits[part],
            }
            .holds();
        }
    });
}

#[test]
fn at_the_size_of_a_crop() {
    pin([1, 20, 512 * 512], GRADIENTS);
}

#[test]
fn at_the_size_of_patches() {
    pin([1, 20, 1024], GRADIENTS);
    pin([2, 171, 1024], GRADIENTS);
}

/// Pieces have 8,192 pixels, 32 at a time.
#[test]
fn around_the_pieces() {
    for pixels in [31, 32, 33, 8191, 8192, 8193] {
        pin([2, 3, pixels], GRADIENTS_OF_FEW);
    }
}
