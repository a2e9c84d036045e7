//! The arithmetic of training.

use serde::{Deserialize, Serialize};
use zeg_kernels::Precision;

/// The arithmetic of the frozen blocks of CLIP's towers in training.
///
/// Everything that is trained, its gradients and the optimiser have 32-bit floats in any case, and so have norms,
/// probabilities and the sums of products.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum TrainingPrecision {
    /// 32-bit floats.
    #[default]
    F32,
    /// The linear layers round weights, activations and gradients to bf16, and so does attention where the processor has
    /// instructions for bf16, such as AMD's since Zen 4. Elsewhere it takes the time of `f32`.
    Bf16,
}

impl TrainingPrecision {
    /// Returns whether this is the default, which is left out of files.
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes a reference
    pub(crate) fn is_default(&self) -> bool {
        *self == Self::default()
    }

    /// Returns the number type of frozen weights.
    pub fn of_frozen(self) -> Precision {
        match self {
            Self::F32 => Precision::Float,
            Self::Bf16 => Precision::Bf16,
        }
    }
}
