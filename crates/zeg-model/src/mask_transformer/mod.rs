//! The parts that mask transformers share: methods whose mask queries find regions, independent of the classes
//! (`MaskFormer`).
//!
//! Image → [`resnet`] → [`pixel_decoder`] and [`query_decoder`] → a vector and a mask per query ([`queries`]). What a
//! method compares with class embeddings, and how, is in the method's own folder.

pub mod config;
pub mod convolution;
pub mod count;
pub mod masks;
pub mod pixel_decoder;
pub mod positions;
pub mod queries;
pub mod query_decoder;
pub mod resnet;

use burn::tensor::Tensor;

pub use config::{MaskTransformerConfig, ResNetConfig};

/// The mask queries' output for a batch of images and classes.
#[derive(Debug, Clone)]
pub struct QueryOutput {
    /// Class logits `[batch, queries, classes + 1]`; the last column is "no object".
    pub classes: Tensor<3>,
    /// Mask logits at a quarter of the image's size: `[batch, queries, h/4, w/4]`
    pub masks: Tensor<4>,
}

/// The regions that the mask queries find in a batch of images, independent of the classes.
#[derive(Debug, Clone)]
pub struct Regions {
    /// Vectors in the joint space, of any length: `[batch, queries, dim]`
    pub vectors: Tensor<3>,
    /// Mask logits at a quarter of the image's size: `[batch, queries, h/4, w/4]`
    pub masks: Tensor<4>,
}
