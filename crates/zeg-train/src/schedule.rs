//! Computes the learning rate of every step: polynomial decay with linear warm-up.

use serde::{Deserialize, Serialize};

/// Settings of the learning rate schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Schedule {
    /// Learning rate at the start of the decay.
    pub base: f64,
    /// Learning rate at the end of the decay.
    pub minimum: f64,
    /// Exponent of the decay.
    pub power: f64,
    /// Number of steps of linear warm-up.
    pub warmup_steps: u64,
    /// Factor on the learning rate at the first warm-up step.
    pub warmup_ratio: f64,
}

/// The released recipe's values: 2e-5 times the multiplier 10 that every trained parameter has.
impl Default for Schedule {
    fn default() -> Self {
        Self {
            base: 2e-4,
            minimum: 1e-6,
            power: 0.9,
            warmup_steps: 1500,
            warmup_ratio: 1e-6,
        }
    }
}

impl Schedule {
    /// Returns the learning rate of step `step` (from 0) in a run of `steps` steps.
    pub fn at(&self, step: u64, steps: u64) -> f64 {
        let left = (1.0 - step as f64 / steps.max(1) as f64).max(0.0);
        let regular = (self.base - self.minimum) * left.powf(self.power) + self.minimum;
        if step >= self.warmup_steps {
            return regular;
        }
        let cold = 1.0 - step as f64 / self.warmup_steps as f64;
        regular * (1.0 - cold * (1.0 - self.warmup_ratio))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The expected values were printed by the reference's scheduler for a run of 20,000 steps.
    #[test]
    fn the_released_recipe_is_reproduced() {
        let schedule = Schedule::default();
        for (step, lr) in [
            (0, 2.0000000000575114e-10),
            (1, 1.335272210360246e-07),
            (749, 9.651122828416784e-05),
            (1499, 0.0001864003610615672),
            (1500, 0.00018651568568136043),
            (10000, 0.00010764145952236117),
            (19999, 1.026787123521057e-06),
        ] {
            let found = schedule.at(step, 20_000);
            assert!(
                (found / lr - 1.0_f64).abs() < 1e-12,
                "step {step}: {found} {lr}"
            );
        }
    }

    proptest! {
        #[test]
        fn it_rises_then_falls_and_never_leaves_its_range(steps in 1_u64..50_000, warmup in 0_u64..2_000) {
            let schedule = Schedule { warmup_steps: warmup, ..Schedule::default() };
            for step in (0..steps).step_by((steps / 50).max(1) as usize) {
                let lr = schedule.at(step, steps);
                prop_assert!(lr > 0.0 && lr <= schedule.base);
                if step > warmup {
                    prop_assert!(lr <= schedule.at(step - 1, steps));
                }
            }
        }
    }
}
