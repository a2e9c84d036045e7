//! Reads CLIP weights from every published file format, without trusting the file.
//!
//! A file becomes tensors in three steps. `container` recognises the format (safetensors, PyTorch's zip and stream
//! formats, TorchScript, pickled NumPy arrays) and lists the tensors; pickles are parsed, never executed. A
//! [`KeyTable`] gives each tensor the name and layout that it has in `zeg`. [`StateDict`] reads single tensors as `f32`
//! on demand.
//!
//! [`Architecture`] is inferred from shapes and from the configuration files beside the weights. [`Inspection`]
//! summarises a file, and [`import`] converts a file of any of these formats to one safetensors file.
//!
//! ```
//! use zeg_weights::StateDict;
//!
//! assert!(StateDict::open("no-such-file.safetensors".as_ref(), &[]).is_err());
//! ```

#![forbid(unsafe_code)]

mod architecture;
mod container;
mod convert;
mod digest;
mod error;
mod facts;
mod families;
mod folders;
mod import;
mod inspect;
mod key_table;
mod parts;
mod pickle;
mod prefixes;
mod published;
mod side_files;
mod source;
mod state_dict;
mod towers;
mod unread;
mod values;

pub use architecture::{
    ARCHITECTURE_KEY, Architecture, Assumption, Basis, StatedActivation, StatedHeads, TextShape,
    VisionShape,
};
pub use container::{ContainerFormat, SELF_TRAINING_KEY};
pub use digest::{WeightFiles, file_sha256};
pub use error::WeightsError;
pub use facts::{image_facts, text_facts};
pub use import::{ImportPrecision, import, import_opened};
pub use inspect::{IgnoredKey, ImportedFrom, Inspection, LeftOver, PartSummary, SOURCE_KEY};
pub use key_table::{IgnoredKeys, KeyTable, Rename, StoredLayout};
pub use parts::WeightsPart;
pub use published::{assumed_image_heads, published_name};
pub use state_dict::{HostTensor, StateDict};
pub use unread::{is_adapter, is_harmless};
pub use values::{ValueDefect, first_not_finite, value_defect};
