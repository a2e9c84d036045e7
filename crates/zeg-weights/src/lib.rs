//! CLIP weights in every published file format, read without trusting the file.
//!
//! A file's way to a tensor: `container` tells the format and lists the tensors (safetensors, PyTorch's zip and stream
//! forms, TorchScript; the pickles among them are described, never run) → `families` gives each the name
//! and layout that the reference checkpoints of ZegCLIP have → [`StateDict`] reads single tensors as `f32` when they
//! are asked for. [`Architecture`] says what the shapes and the files beside say about the model, [`inspect`] puts it
//! all into words, and [`import`] writes a file of any of these formats as one safetensors file.

#![forbid(unsafe_code)]

mod architecture;
mod container;
mod convert;
mod error;
mod families;
mod import;
mod inspect;
mod parts;
mod pickle;
mod side_files;
mod source;
mod state_dict;

pub use architecture::{ARCHITECTURE_KEY, Activation, Architecture, Basis, TextShape, VisionShape};
pub use container::ContainerFormat;
pub use error::WeightsError;
pub use families::{
    CAFFE2_RESNET, DETECTRON2_RESNET, HUGGING_FACE_CLIP, Ignored, KeyRules, Layout,
    OPEN_CLIP_CUSTOM_TEXT, OPENAI_CLIP, REFERENCE, Rule, TORCHVISION_RESNET, ZEGFORMER,
};
pub use import::{FORMAT, Precision, import};
pub use inspect::{
    FAMILY_KEY, FORMAT_KEY, IgnoredKey, ImportedFrom, Inspection, LeftOver, PartSummary,
    SOURCE_KEY, SOURCE_SHA256_KEY, inspect,
};
pub use parts::Part;
pub use state_dict::{HostTensor, StateDict, file_sha256};
