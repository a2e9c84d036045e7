//! Computes the learning rate of every step: polynomial or cosine decay after a warm-up.

use std::f64::consts::PI;

use serde::{Deserialize, Serialize};

/// The shape of the decay.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Decay {
    /// (1 − step/steps) to the power of `power`.
    #[default]
    Polynomial,
    /// Half a period of a cosine, ½·(1 + cos(π·step/steps)).
    Cosine,
}

/// The learning rate before the decay takes over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Warmup {
    /// Rises linearly from the share `warmup-ratio` of the decay's value.
    #[default]
    Linear,
    /// Stays at the share `warmup-ratio` of `base`.
    Constant,
}

impl Warmup {
    /// Returns whether this is the default, which is left out of files.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

impl Decay {
    /// Returns whether this is the default, which is left out of files.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// Settings of the learning rate schedule.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case", default)]
pub struct Schedule {
    /// Learning rate at the start of the decay.
    pub base: f64,
    /// Learning rate at the end of the decay.
    pub minimum: f64,
    /// Shape of the decay.
    #[serde(skip_serializing_if = "Decay::is_default")]
    pub decay: Decay,
    /// Exponent of polynomial decay.
    pub power: f64,
    /// Learning rate before the decay takes over.
    #[serde(skip_serializing_if = "Warmup::is_default")]
    pub warmup: Warmup,
    /// Number of steps of warm-up.
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
            decay: Decay::default(),
            power: 0.9,
            warmup: Warmup::default(),
            warmup_steps: 1500,
            warmup_ratio: 1e-6,
        }
    }
}

impl Schedule {
    /// Returns the learning rate of step `step` (from 0) in a run of `steps` steps.
    pub fn at(&self, step: u64, steps: u64) -> f64 {
        let done = (step as f64 / steps.max(1) as f64).min(1.0);
        let factor = match self.decay {
            Decay::Polynomial => (1.0 - done).max(0.0).powf(self.power),
            Decay::Cosine => 0.5 * (1.0 + (PI * done).cos()),
        };
        let regular = (self.base - self.minimum) * factor + self.minimum;
        if step >= self.warmup_steps {
            return regular;
        }
        if self.warmup == Warmup::Constant {
            return self.base * self.warmup_ratio;
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

    /// The expected values were printed by the scheduler of zsseg's prompt stage for a run of 3,200 steps.
    #[test]
    fn a_cosine_follows_a_constant_start() {
        let schedule = Schedule {
            base: 0.02,
            minimum: 0.0,
            decay: Decay::Cosine,
            warmup: Warmup::Constant,
            warmup_steps: 100,
            warmup_ratio: 0.005,
            ..Schedule::default()
        };
        for (step, lr) in [
            (0, 0.0001),
            (99, 0.0001),
            (100, 0.019_951_847_266_721_97),
            (1000, 0.015_555_702_330_196_023),
            (1600, 0.01),
            (3199, 4.819_142_387_368_913e-9),
        ] {
            let found = schedule.at(step, 3200);
            assert!((found - lr).abs() < 1e-12, "step {step}: {found} {lr}");
        }
    }

    /// The expected values were printed by CAT-Seg's scheduler for a run of 80,000 steps.
    #[test]
    fn a_cosine_without_warm_up_is_reproduced() {
        let schedule = Schedule {
            minimum: 0.0,
            decay: Decay::Cosine,
            warmup_steps: 0,
            ..Schedule::default()
        };
        for (step, lr) in [
            (0, 0.0002),
            (100, 0.000_199_999_228_938_147_05),
            (20_000, 0.000_170_710_678_118_654_76),
            (40_000, 0.0001),
            (79_999, 7.710_628_802_115_594e-14),
        ] {
            let found = schedule.at(step, 80_000);
            assert!((found - lr).abs() < 1e-15, "step {step}: {found} {lr}");
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
