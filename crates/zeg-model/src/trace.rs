//! Records intermediate tensors for comparison with reference numbers; recording costs nothing when it is off.

use std::collections::BTreeMap;

use burn::tensor::{Tensor, TensorData};

/// The named activations recorded during a pass through a model.
#[derive(Debug, Default)]
pub struct Trace {
    recorded: Option<BTreeMap<String, TensorData>>,
}

impl Trace {
    /// Returns a trace that records nothing.
    pub fn off() -> Self {
        Self::default()
    }

    /// Returns a trace that records everything.
    pub fn on() -> Self {
        Self {
            recorded: Some(BTreeMap::new()),
        }
    }

    /// Returns whether anything is recorded, for code that would compute a tensor only to record it.
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

    /// Returns the tensors recorded so far.
    pub fn recorded(&self) -> impl Iterator<Item = (&String, &TensorData)> {
        self.recorded.iter().flatten()
    }

    /// Returns the recorded tensors and consumes the trace.
    pub fn into_recorded(self) -> BTreeMap<String, TensorData> {
        self.recorded.unwrap_or_default()
    }
}
