//! The sampler: the order of the samples in a run.
//!
//! Draw `k` of a run is position `k mod n` of epoch `k / n`; every epoch is a new shuffle of all `n` samples.
//! A batch may contain the end of one epoch and the start of the next, so no sample is dropped.

use rand_chacha::ChaCha8Rng;

use crate::chance::{Purpose, below, stream};

/// An endless, repeatable sequence of sample indices.
///
/// It stores the order of one epoch, 4 bytes per sample, and recomputes it when another epoch is requested.
#[derive(Debug, Clone)]
pub struct Sampler {
    seed: u64,
    order: Vec<u32>,
    epoch: Option<u64>,
}

impl Sampler {
    /// Returns a sampler for `samples` samples, at most 2³² − 1; without samples, every index is 0.
    pub fn new(samples: usize, seed: u64) -> Self {
        Self {
            seed,
            order: vec![0; samples.clamp(1, u32::MAX as usize)],
            epoch: None,
        }
    }

    /// Returns the sample index of draw number `draw`.
    pub fn index(&mut self, draw: u64) -> usize {
        let n = self.order.len() as u64;
        let epoch = draw / n;
        if self.epoch != Some(epoch) {
            for (index, place) in (0..).zip(&mut self.order) {
                *place = index;
            }
            shuffle(
                &mut self.order,
                &mut stream(self.seed, Purpose::Order, epoch),
            );
            self.epoch = Some(epoch);
        }
        self.order[(draw % n) as usize] as usize
    }
}

/// Shuffles by Fisher–Yates, so that all orders are equally likely.
fn shuffle(order: &mut [u32], rng: &mut ChaCha8Rng) {
    for last in (1..order.len()).rev() {
        order.swap(last, below(rng, last + 1));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_epoch_holds_every_sample_once_in_another_order() {
        let mut sampler = Sampler::new(50, 7);
        let mut epochs = (0..3).map(|epoch| {
            (epoch * 50..(epoch + 1) * 50)
                .map(|draw| sampler.index(draw))
                .collect::<Vec<usize>>()
        });
        let (first, second) = (epochs.next().unwrap(), epochs.next().unwrap());
        assert_ne!(first, second);
        for mut epoch in [first, second] {
            epoch.sort_unstable();
            assert_eq!(epoch, (0..50).collect::<Vec<usize>>());
        }
    }

    #[test]
    fn draws_do_not_depend_on_the_ones_before() {
        let mut forwards = Sampler::new(13, 1);
        let expected: Vec<usize> = (0..100).map(|draw| forwards.index(draw)).collect();
        let mut backwards = Sampler::new(13, 1);
        for draw in (0..100).rev() {
            assert_eq!(backwards.index(draw), expected[draw as usize]);
        }
    }

    #[test]
    fn all_samples_are_equally_likely_to_come_first() {
        let mut first_places = [0; 4];
        for seed in 0..4000 {
            first_places[Sampler::new(4, seed).index(0)] += 1;
        }
        assert!(
            first_places.iter().all(|count| (880..1120).contains(count)),
            "{first_places:?}"
        );
    }
}
