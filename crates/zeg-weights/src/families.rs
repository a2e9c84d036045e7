//! Key tables of the published encoders that methods build on: CLIP and residual networks.
//!
//! The tables of methods' own checkpoints belong to the methods; whoever opens a file hands them in ([`KeyTable`]).

pub(crate) mod clip;
mod residual;

use crate::key_table::KeyTable;

/// The families that are always known, in the order in which a file's names are tried.
pub(crate) const FAMILIES: [KeyTable; 6] = [
    clip::HUGGING_FACE_CLIP,
    clip::OPEN_CLIP_CUSTOM_TEXT,
    clip::OPENAI_CLIP,
    residual::TORCHVISION_RESNET,
    residual::DETECTRON2_RESNET,
    residual::CAFFE2_RESNET,
];
