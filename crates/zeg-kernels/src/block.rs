//! A transformer's residual block for inference, on packed weights and buffers that calls share.
//!
//! Pre-norm, as in CLIP: x += out(attention(qkv(norm₁(x)))), then x += down(activation(up(norm₂(x)))). Tokens are
//! changed in place; both residuals are added by the linear layers before them.

use std::sync::{Arc, Mutex, PoisonError};

use burn::tensor::{Tensor, TensorData};

use crate::{
    activation::Activation,
    attention, layer_norm,
    level::Level,
    linear::{PackedLinear, Then},
};

/// A layer normalisation's numbers.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[width]`
    pub weight: Vec<f32>,
    /// `[width]`
    pub bias: Vec<f32>,
    /// Added to the variance.
    pub epsilon: f32,
}

/// Buffers that blocks use one after the other; a clone is another handle on the same ones.
#[derive(Debug, Clone, Default)]
pub struct Workspace(Arc<Mutex<Vec<Buffers>>>);

/// The buffers of one call.
#[derive(Debug, Default)]
struct Buffers {
    /// `[tokens, width]`: what a norm or the attention made of the tokens.
    narrow: Vec<f32>,
    /// `[tokens, 3·width]` queries, keys and values, then `[tokens, hidden]`.
    wide: Vec<f32>,
}

impl Workspace {
    /// Runs `work` with buffers that nobody else uses meanwhile.
    fn with<T>(&self, work: impl FnOnce(&mut Buffers) -> T) -> T {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = lock().pop().unwrap_or_default();
        let result = work(&mut buffers);
        lock().push(buffers);
        result
    }
}

/// The first `length` values of a buffer, which grows if need be.
fn part(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        *buffer = vec![0.0; length];
    }
    &mut buffer[..length]
}

/// A residual block with packed weights.
#[derive(Debug, Clone)]
pub struct PackedBlock {
    /// Before the attention.
    pub attention_norm: Norm,
    /// Queries, keys and values: `width → 3·width`
    pub qkv: Arc<PackedLinear>,
    /// Attention heads; they divide `width`.
    pub heads: usize,
    /// Behind the attention: `width → width`
    pub out: Arc<PackedLinear>,
    /// Before the network.
    pub network_norm: Norm,
    /// `width → hidden`
    pub up: Arc<PackedLinear>,
    /// Between the network's layers.
    pub activation: Activation,
    /// `hidden → width`
    pub down: Arc<PackedLinear>,
    /// Shared with the other blocks.
    pub workspace: Workspace,
}

impl PackedBlock {
    /// `[batch, tokens, width]` → the same shape, without gradients; `mask` as in [`crate::attention_packed`].
    ///
    /// # Panics
    /// A shape contradicts the block's.
    pub fn forward(&self, x: Tensor<3>, mask: Option<&Tensor<2>>) -> Tensor<3> {
        let [batch, tokens, width] = x.dims();
        if let Some(mask) = mask {
            assert_eq!(mask.dims(), [tokens; 2], "shape of the attention mask");
        }
        let mask = mask.map(|mask| mask.clone().into_data().convert::<f32>());
        let mask = mask.as_ref().map_or(&[][..], floats);
        on_values(x, |x| {
            self.workspace.with(|buffers| {
                self.attend([batch, tokens, width], x, mask, buffers);
                self.feed(x, buffers);
            });
        })
    }

    /// The second half alone: `[batch, tokens, width]` → the same shape, without gradients.
    pub fn feed_forward(&self, x: Tensor<3>) -> Tensor<3> {
        on_values(x, |x| self.workspace.with(|buffers| self.feed(x, buffers)))
    }

    /// x += out(attention(qkv(norm₁(x))))
    fn attend(&self, shape: [usize; 3], x: &mut [f32], mask: &[f32], buffers: &mut Buffers) {
        let level = Level::current();
        let narrow = part(&mut buffers.narrow, x.len());
        let wide = part(&mut buffers.wide, 3 * x.len());
        self.attention_norm.apply(x, narrow, level);
        self.qkv.apply(narrow, wide, Then::Store);
        attention::on_buffers(shape, self.heads, wide, mask, narrow, level);
        self.out.apply(narrow, x, Then::Add);
    }

    /// x += down(activation(up(norm₂(x))))
    fn feed(&self, x: &mut [f32], buffers: &mut Buffers) {
        let tokens = x.len() / self.up.inputs();
        let narrow = part(&mut buffers.narrow, x.len());
        let wide = part(&mut buffers.wide, tokens * self.up.outputs());
        self.network_norm.apply(x, narrow, Level::current());
        self.up.apply(narrow, wide, Then::Activate(self.activation));
        self.down.apply(wide, x, Then::Add);
    }
}

impl Norm {
    /// Normalises rows of `x` into `out`.
    fn apply(&self, x: &[f32], out: &mut [f32], level: Level) {
        layer_norm::on_buffers(x, out, &self.weight, &self.bias, self.epsilon, level);
    }
}

impl PackedLinear {
    /// `[…, inputs]` → `[…, outputs]`, without gradients.
    ///
    /// # Panics
    /// The last axis has another length.
    pub fn forward<const D: usize>(&self, x: Tensor<D>) -> Tensor<D> {
        let device = x.device();
        let mut shape = x.dims();
        assert_eq!(shape[D - 1], self.inputs(), "inputs of a linear layer");
        shape[D - 1] = self.outputs();
        let x = x.into_data().convert::<f32>();
        let mut out = vec![0.0; shape.iter().product()];
        self.apply(floats(&x), &mut out, Then::Store);
        Tensor::from_data(TensorData::new(out, shape), &device)
    }
}

/// Changes a tensor's values, in place where nobody else holds them.
fn on_values<const D: usize>(x: Tensor<D>, change: impl FnOnce(&mut [f32])) -> Tensor<D> {
    let device = x.device();
    let mut data = x.into_data().convert::<f32>();
    match data.as_mut_slice::<f32>() {
        Ok(values) => change(values),
        Err(error) => unreachable!("they were made 32-bit floats: {error:?}"),
    }
    Tensor::from_data(data, &device)
}

/// The values of converted data.
fn floats(data: &TensorData) -> &[f32] {
    match data.as_slice::<f32>() {
        Ok(values) => values,
        Err(error) => unreachable!("they were made 32-bit floats: {error:?}"),
    }
}
