//! Intermediate tensors for comparison with reference numbers: recorded when asked for, free when not.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};

/// Collects named activations on their way through a model.
#[derive(Debug, Default)]
pub struct Trace {
    recorded: Option<BTreeMap<String, TensorData>>,
}

impl Trace {
    /// Records nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Records everything.
    pub fn on() -> Self {
        Self {
            recorded: Some(BTreeMap::new()),
        }
    }

    /// Whether anything is recorded, for stations that would compute something only to record it.
    pub fn is_on(&self) -> bool {
        self.recorded.is_some()
    }

    /// Records a tensor under a name.
    pub fn record<const D: usize>(&mut self, name: impl std::fmt::Display, tensor: &Tensor<D>) {
        if let Some(recorded) = &mut self.recorded {
            recorded.insert(
                name.to_string(),
                tensor.clone().without_autodiff().into_data(),
            );
        }
    }

    /// What was recorded so far.
    pub fn recorded(&self) -> impl Iterator<Item = (&String, &TensorData)> {
        self.recorded.iter().flatten()
    }

    /// What was recorded.
    pub fn into_recorded(self) -> BTreeMap<String, TensorData> {
        self.recorded.unwrap_or_default()
    }
}
