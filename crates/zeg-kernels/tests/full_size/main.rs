//! Compares every fused operation, forward and backward, with plain double precision at the shapes of the published
//! models.
//!
//! Small shapes never reach the last tile of a long row, a sum over a thousand tokens, or a buffer that is used a
//! second time. So each operation is computed at full size (1,035 tokens of ZegCLIP and 1,051 of CLIP-RC, 768 channels
//! in 12 heads, 20 and 171 classes, 512×512 pixels) and at one below, at and one above the sizes of its tiles, at every
//! level of the machine ([`zeg_kernels::Level`]), and compared with [`reference`], which is written only to be easy to
//! read.
//!
//! Deviations are the largest absolute ones, as a fraction of the root mean square of the compared values. The limits
//! are at most four times the largest deviation that was measured at the levels AVX-512, AVX2 and portable (each limit
//! states it). `cargo test -p zeg-kernels --test full_size -- --nocapture | grep measured` prints the deviations. Every
//! comparison proves that it can fail: see [`compare::Pinned::holds`].
#![allow(clippy::unwrap_used)] // helpers of tests are tests

mod attention;
mod block;
#[path = "../common/mod.rs"]
mod common;
mod compare;
mod linear;
mod masks;
mod reference;
mod repeated;
mod rows;
