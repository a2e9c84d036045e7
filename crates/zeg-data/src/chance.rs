//! Reproducible random numbers, computed from a run's seed, a purpose and a counter.
//!
//! Each sample and each epoch has its own ChaCha8 stream. No stream depends on how far another was read, so the
//! thousandth batch of a run can be computed without the 999 before it, and by any number of threads.
//!
//! The few distributions are implemented here, because the `rand` crate may change how many numbers its own
//! distributions consume, and a checkpoint must continue the same run after an update of that crate.

use rand::Rng;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

/// The purpose of a stream; different purposes never share numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Purpose {
    /// The order of the samples; the counter is the epoch.
    Order,
    /// The augmentation of one sample; the counter is the draw.
    Sample,
}

/// Returns the stream of random numbers for `seed`, `purpose` and `counter`.
pub fn stream(seed: u64, purpose: Purpose, counter: u64) -> ChaCha8Rng {
    let mut key = *b"........ zeg-data random stream ";
    key[..8].copy_from_slice(&seed.to_le_bytes());
    key[8] = match purpose {
        Purpose::Order => 1,
        Purpose::Sample => 2,
    };
    let mut rng = ChaCha8Rng::from_seed(key);
    rng.set_stream(counter);
    rng
}

/// Draws a uniform number in `[0, 1)`, with 53 random bits.
pub fn unit(rng: &mut ChaCha8Rng) -> f64 {
    (rng.next_u64() >> 11) as f64 / (1_u64 << 53) as f64
}

/// Draws a uniform number in `[low, high)`, or returns `low` if the range is empty.
pub fn uniform(rng: &mut ChaCha8Rng, low: f64, high: f64) -> f64 {
    low + unit(rng) * (high - low)
}

/// Draws a uniform integer in `0..n`, or returns 0 if `n` is 0.
///
/// It is the upper half of a 128-bit product, whose bias is below `n / 2^64`.
pub fn below(rng: &mut ChaCha8Rng, n: usize) -> usize {
    ((u128::from(rng.next_u64()) * n as u128) >> 64) as usize
}

/// Returns true with this probability.
pub fn happens(rng: &mut ChaCha8Rng, probability: f64) -> bool {
    unit(rng) < probability
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn streams_are_repeatable_and_differ_by_seed_purpose_and_counter() {
        let first = |seed, purpose, counter| stream(seed, purpose, counter).next_u64();
        let base = first(1, Purpose::Order, 5);
        assert_eq!(base, first(1, Purpose::Order, 5));
        assert_ne!(base, first(2, Purpose::Order, 5));
        assert_ne!(base, first(1, Purpose::Sample, 5));
        assert_ne!(base, first(1, Purpose::Order, 6));
    }

    #[test]
    fn numbers_stay_inside_their_ranges_and_reach_all_of_them() {
        let mut rng = stream(0, Purpose::Sample, 0);
        let mut seen = [0_usize; 7];
        for _ in 0..7000 {
            seen[below(&mut rng, 7)] += 1;
            let value = uniform(&mut rng, -2.0, 3.0);
            assert!((-2.0..3.0).contains(&value));
        }
        assert!(
            seen.iter().all(|&count| (850..1150).contains(&count)),
            "{seen:?}"
        );
        assert_eq!(below(&mut rng, 0), 0);
        assert!(!happens(&mut rng, 0.0));
        assert!(happens(&mut rng, 1.0));
    }
}
