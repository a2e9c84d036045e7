//! Builds parameters from weights; files, their formats and tensor names are re-exported from the crate `zeg-weights`.

mod builder;

pub use builder::{Init, ParamBuilder, Provenance};
pub use zeg_weights::*;
