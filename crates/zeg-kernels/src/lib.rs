//! Fused operations on the CPU, with gradients.
//!
//! burn's CPU backend runs attention, activations and normalisation as chains of whole-tensor operations, and under
//! autodiff it stores every intermediate tensor: for attention, one of `tokens × tokens` per head. The operations here
//! run in one pass over cache-sized pieces, store only what their gradients need, and use the widest vector
//! instructions that the machine has ([`Level`]).
//!
//! Each function takes and returns plain tensors. On burn's `Flex` backend with 32-bit floats, with or without
//! autodiff, it runs a kernel of this crate. Elsewhere (on another device, with another float type) it runs the same
//! formula composed of burn's operations ([`composed`]), which the tests also use as the reference.
//!
//! Results are reproducible bit for bit on one machine: work is divided into pieces by shape only, never by the number
//! of threads, and every sum has a fixed order.
//!
//! ```
//! println!("widest instructions: {:?}", zeg_kernels::Level::current());
//! ```

mod activation;
mod attention;
mod autodiff;
mod backend;
mod bf16;
mod block;
pub mod composed;
mod layer_norm;
mod level;
mod linear;
mod mask_sums;
mod math;
mod matrix;
mod ops;
mod panels;
mod pieces;
pub mod score_rows;
mod softmax;

pub use activation::Activation;
pub use block::{Norm, PackedBlock, Workspace};
pub use level::{Level, UnknownLevel, at_level, composed_alone};
pub use linear::{PackedLinear, Precision, Then, integer_instructions};
pub use ops::{
    MaskSums, attention_packed, gelu, layer_norm, mask_sums, quick_gelu, runs_on, sigmoid, softmax,
};
