//! CLIP weights in every published file format, read without trusting the file.
//!
//! A file's way to a tensor: `container` tells the format and lists the tensors (safetensors, PyTorch's zip and stream
//! forms, TorchScript; the pickles among them are described, never run) → a [`KeyTable`] gives each the name and
//! layout that it has in `zeg` → [`StateDict`] reads single tensors as `f32` when they are asked for. [`Architecture`]
//! says what the shapes and the files beside say about the model, [`Inspection`] puts it all into words, and [`import`]
//! writes a file of any of these formats as one safetensors file.

#![forbid(unsafe_code)]

mod architecture;
mod container;
mod convert;
mod error;
mod families;
mod import;
mod inspect;
mod key_table;
mod parts;
mod pickle;
mod side_files;
mod source;
mod state_dict;

pub use architecture::{
    ARCHITECTURE_KEY, Architecture, Basis, StatedActivation, TextShape, VisionShape,
};
pub use container::ContainerFormat;
pub use error::WeightsError;
pub use import::{ImportPrecision, import};
pub use inspect::{IgnoredKey, ImportedFrom, Inspection, LeftOver, PartSummary};
pub use key_table::{IgnoredKeys, KeyTable, Rename, StoredLayout};
pub use parts::WeightsPart;
pub use state_dict::{HostTensor, StateDict, file_sha256};
