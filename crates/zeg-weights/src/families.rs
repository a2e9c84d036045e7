//! Key tables of the published encoders that methods build on: CLIP and residual networks.
//!
//! The tables for the checkpoints of methods belong to the methods, and the caller passes them when opening a file
//! ([`KeyTable`]).

pub(crate) mod clip;
mod residual;

use crate::key_table::KeyTable;

/// The families that are always recognised, in the order in which they are tried.
pub(crate) const FAMILIES: [KeyTable; 6] = [
    clip::HUGGING_FACE_CLIP,
    clip::OPEN_CLIP_CUSTOM_TEXT,
    clip::OPENAI_CLIP,
    residual::TORCHVISION_RESNET,
    residual::DETECTRON2_RESNET,
    residual::CAFFE2_RESNET,
];
