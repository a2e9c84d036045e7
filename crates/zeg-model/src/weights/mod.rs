//! Weights: from files of several families to named tensors, and from named tensors to parameters.

mod builder;
mod families;
mod file;
mod state_dict;

pub use builder::{Init, ParamBuilder, Provenance};
pub use families::{KeyRules, OPENAI_CLIP, REFERENCE};
pub use state_dict::{HostTensor, StateDict, file_sha256};
