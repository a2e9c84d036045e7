//! Dropout whose masks cost little on the processor.
//!
//! burn draws one number of a cryptographic generator for each element, which took half of the time of a training step
//! of CLIP-RC. Here the device's generator gives one seed for each mask, and splitmix64 gives the elements.

use burn::{
    backend::DispatchDevice,
    nn::Dropout,
    tensor::{Device, Distribution, Tensor, TensorData},
};
use zeg_base::random::{GOLDEN_GAMMA, splitmix64};

/// Bits of a generator's output that decide about one element.
const BITS: u32 = 21;
/// Elements that one output decides about.
const SHIFTS: [u32; 3] = [0, BITS, 2 * BITS];

/// Sets elements to zero with the layer's probability during training and scales the others by `1 / (1 − probability)`.
///
/// The result has the shape of the input. Outside training it is the input.
pub(crate) fn dropout<const D: usize>(layer: &Dropout, input: Tensor<D>) -> Tensor<D> {
    let device = input.device();
    if !layer.training.is_enabled() || !device.is_autodiff() || layer.prob == 0.0 {
        return input;
    }
    let computes_on = device.clone().without_autodiff();
    if !matches!(computes_on.as_dispatch(), DispatchDevice::Flex(_)) {
        return layer.forward(input);
    }
    let shape = input.dims();
    let values = mask(draw_seed(&computes_on), shape.iter().product(), layer.prob);
    input * Tensor::from_data(TensorData::new(values, shape), &device)
}

/// Draws a seed from the device's own generator, so that seeding the device fixes all masks.
fn draw_seed(device: &Device) -> u64 {
    let drawn = Tensor::<1>::random([2], Distribution::Default, device).into_data();
    drawn.iter::<f32>().fold(0, |state, value| {
        splitmix64(state ^ u64::from(value.to_bits()))
    })
}

/// Returns `len` factors, each 0 with the probability and `1 / (1 − probability)` otherwise.
fn mask(seed: u64, len: usize, probability: f64) -> Vec<f32> {
    let range = 1_u64 << BITS;
    let dropped_below = (probability * range as f64).round() as u64;
    let kept = (1.0 / (1.0 - probability)) as f32;
    let mut mask = Vec::with_capacity(len + SHIFTS.len());
    let mut state = seed;
    while mask.len() < len {
        let bits = splitmix64(state);
        state = state.wrapping_add(GOLDEN_GAMMA);
        mask.extend(SHIFTS.map(|shift| {
            let drawn = (bits >> shift) & (range - 1);
            if drawn < dropped_below { 0.0 } else { kept }
        }));
    }
    mask.truncate(len);
    mask
}

#[cfg(test)]
mod tests {
    use burn::nn::DropoutConfig;

    use super::*;

    #[test]
    fn a_mask_drops_the_stated_share_and_keeps_the_mean() {
        for probability in [0.1, 0.5] {
            let mask = mask(7, 300_001, probability);
            let dropped = mask.iter().filter(|&&factor| factor == 0.0).count();
            let share = dropped as f64 / mask.len() as f64;
            assert!((share - probability).abs() < 3e-3, "{share}");
            let mean = mask.iter().map(|&f| f64::from(f)).sum::<f64>() / mask.len() as f64;
            assert!((mean - 1.0).abs() < 6e-3, "{mean}");
        }
        assert_eq!(mask(7, 5, 0.1), mask(7, 6, 0.1)[..5]);
        assert_ne!(mask(7, 99, 0.5), mask(8, 99, 0.5));
    }

    #[test]
    fn the_devices_seed_fixes_the_mask_and_inference_drops_nothing() {
        let layer = DropoutConfig::new(0.3).init();
        let training = Device::flex().autodiff();
        let drop = || {
            training.seed(5);
            let ones = Tensor::<2>::ones([40, 10], &training);
            let [first, second] = [(); 2].map(|()| dropout(&layer, ones.clone()).into_data());
            assert_ne!(first, second, "each call draws a new mask");
            first
        };
        assert_eq!(drop(), drop());
        let ones = Tensor::<2>::ones([40, 10], &Device::flex());
        assert_eq!(dropout(&layer, ones.clone()).into_data(), ones.into_data());
    }
}
