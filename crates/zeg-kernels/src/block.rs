//! A transformer's residual block with frozen, packed weights, and buffers that all blocks share.
//!
//! The block is pre-norm, as in CLIP: x += out(attention(qkv(norm₁(x)))), then x += down(activation(up(norm₂(x)))). For
//! inference, tokens are updated in place; both residuals are added by the linear layers before them.
//!
//! If something before the block is trained, such as prompts in front of a frozen encoder, its gradient passes through
//! the whole block in one step. For this gradient, the block saves its input tokens, the tokens between its halves,
//! queries, keys and values with their log-sum-exp, and the inputs of the activation; everything else is recomputed.

use std::sync::{Arc, Mutex, PoisonError};

use burn::{
    backend::Dispatch,
    tensor::{Tensor, TensorData},
};

use crate::{
    activation::Activation,
    attention,
    backend::FusedOps,
    layer_norm,
    level::Level,
    linear::{Inputs, PackedLinear, Then, rounded::Rounded},
    ops::is_fused,
    pieces::{CpuTensor, contiguous, shape, tensor, values},
};

/// The parameters of a layer normalisation.
#[derive(Debug, Clone)]
pub struct Norm {
    /// `[width]`
    pub weight: Vec<f32>,
    /// `[width]`
    pub bias: Vec<f32>,
    /// Epsilon, added to the variance.
    pub epsilon: f32,
}

/// Buffers that blocks use one after the other; a clone shares the same buffers.
#[derive(Debug, Clone, Default)]
pub struct Workspace(Arc<Mutex<Vec<Buffers>>>);

/// The buffers of one call.
#[derive(Debug, Default)]
struct Buffers {
    /// `[tokens, width]`: the output of a norm or of the attention.
    narrow: Vec<f32>,
    /// `[tokens, 3·width]` queries, keys and values, then `[tokens, hidden]` hidden values of the MLP.
    wide: Vec<f32>,
    /// `[tokens, width]`: the output of a norm or of the attention, rounded for the next layer.
    rounded: Rounded,
    /// Queries, keys and values in bf16.
    qkv: Rounded,
    /// `[tokens, hidden]`: hidden values of the MLP, rounded for its second layer.
    hidden: Rounded,
}

impl Workspace {
    /// Runs `work` with buffers that are not used elsewhere at the same time.
    fn with<T>(&self, work: impl FnOnce(&mut Buffers) -> T) -> T {
        let lock = || self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let mut buffers = lock().pop().unwrap_or_default();
        let result = work(&mut buffers);
        lock().push(buffers);
        result
    }
}

/// Returns the first `length` values of a buffer, which grows if necessary.
fn part(buffer: &mut Vec<f32>, length: usize) -> &mut [f32] {
    if buffer.len() < length {
        *buffer = vec![0.0; length];
    }
    &mut buffer[..length]
}

/// A residual block with packed weights.
#[derive(Debug, Clone)]
pub struct PackedBlock {
    /// Norm before the attention.
    pub attention_norm: Norm,
    /// Projection to queries, keys and values: `width → 3·width`
    pub qkv: Arc<PackedLinear>,
    /// Number of attention heads; divides `width`.
    pub heads: usize,
    /// Output projection of the attention: `width → width`
    pub out: Arc<PackedLinear>,
    /// Norm before the MLP.
    pub network_norm: Norm,
    /// First layer of the MLP: `width → hidden`
    pub up: Arc<PackedLinear>,
    /// Activation between the layers of the MLP.
    pub activation: Activation,
    /// Second layer of the MLP: `hidden → width`
    pub down: Arc<PackedLinear>,
    /// Buffers, shared with the other blocks.
    pub workspace: Workspace,
}

impl PackedBlock {
    /// Applies the block: `[batch, tokens, width]` → the same shape; `mask` as in [`crate::attention_packed`].
    ///
    /// The gradient of `x` is computed if all layers are packed for both directions ([`PackedLinear::with_gradient`]);
    /// otherwise the result is a constant.
    ///
    /// # Panics
    /// Panics if a shape does not match the block's.
    pub fn forward(self: &Arc<Self>, x: Tensor<3>, mask: Option<&Tensor<2>>) -> Tensor<3> {
        let [batch, tokens, width] = x.dims();
        if let Some(mask) = mask {
            assert_eq!(mask.dims(), [tokens; 2], "shape of the attention mask");
        }
        if x.is_autodiff() && is_fused(&x) && self.passes_gradients() {
            let (x, block) = (x.into_dispatch(), Arc::clone(self));
            return Tensor::from_dispatch(match mask {
                None => Dispatch::fused_block(x, block),
                Some(mask) => {
                    let mask = mask.clone().detach().into_dispatch();
                    Dispatch::fused_masked_block(x, mask, block)
                }
            });
        }
        let mask = mask.map(|mask| mask.clone().into_data().convert::<f32>());
        let mask = mask.as_ref().map_or(&[][..], floats);
        on_values(x, |x| self.change([batch, tokens, width], x, mask))
    }

    /// Returns whether all layers are packed for both directions.
    fn passes_gradients(&self) -> bool {
        let mut layers = [&self.qkv, &self.out, &self.up, &self.down].into_iter();
        layers.all(|layer| layer.backward().is_some())
    }

    /// Returns whether the attention computes in bf16.
    fn attends_in_halves(&self, level: Level, shape: [usize; 3]) -> bool {
        self.qkv.rounds() && attention::halves::runs_at(level, shape, self.heads)
    }

    /// Applies both halves, in place.
    fn change(&self, shape: [usize; 3], x: &mut [f32], mask: &[f32]) {
        self.workspace.with(|buffers| {
            self.attend(shape, x, mask, buffers);
            self.feed(x, buffers);
        });
    }

    /// Applies the block without preparing a gradient; `mask` is `[tokens, tokens]`.
    pub(crate) fn on_tensor(&self, x: CpuTensor, mask: Option<CpuTensor>) -> CpuTensor {
        let mask = mask.map(contiguous);
        let mask = mask.as_ref().map_or(&[][..], values);
        let mut x = contiguous(x);
        let shape = block_shape(&x);
        if let Some(values) = x.try_storage_mut::<f32>() {
            self.change(shape, values, mask);
            return x;
        }
        let mut changed = values(&x).to_vec();
        self.change(shape, &mut changed, mask);
        tensor(changed, &shape)
    }

    /// Applies the block, and returns what its gradient needs besides `x`.
    pub(crate) fn forward_saving(
        &self,
        x: &CpuTensor,
        mask: Option<CpuTensor>,
    ) -> (CpuTensor, Saved) {
        let level = Level::current();
        let mask = mask.map(contiguous);
        let mask = mask.as_ref().map_or(&[][..], values);
        let x = contiguous(x.clone());
        let shape = block_shape(&x);
        let [batch, tokens, width] = shape;
        let x = values(&x);
        self.workspace.with(|buffers| {
            let narrow = part(&mut buffers.narrow, x.len());
            self.attention_norm.apply(x, narrow, level);
            let (qkv, log_sums) = if self.attends_in_halves(level, shape) {
                let mut qkv = Rounded::default();
                qkv.resize_halves(batch * tokens, 3 * width);
                let inputs = self.qkv.inputs_of(narrow, &mut buffers.rounded);
                self.qkv
                    .apply_rounding(inputs, batch * tokens, &mut qkv, Then::Store);
                let qkv = halves(qkv);
                let log_sums =
                    attention::halves::on_buffers(shape, self.heads, &qkv, mask, narrow, level);
                (Tokens::Halves(qkv), log_sums)
            } else {
                let mut qkv = vec![0.0; 3 * x.len()];
                self.qkv.apply(narrow, &mut qkv, Then::Store);
                let log_sums = attention::on_buffers(shape, self.heads, &qkv, mask, narrow, level);
                (Tokens::Floats(qkv), log_sums)
            };
            let mut middle = x.to_vec();
            self.out.apply(narrow, &mut middle, Then::Add);

            self.network_norm.apply(&middle, narrow, level);
            let mut hidden = vec![0.0; batch * tokens * self.up.outputs()];
            self.up.apply(narrow, &mut hidden, Then::Store);
            let wide = part(&mut buffers.wide, hidden.len());
            self.activation.apply_to(level, &hidden, wide);
            let mut out = middle.clone();
            self.down.apply(wide, &mut out, Then::Add);
            let saved = Saved {
                qkv,
                log_sums,
                middle,
                hidden,
            };
            (tensor(out, &shape), saved)
        })
    }

    /// Computes the gradient of `x` from that of the result.
    ///
    /// # Panics
    /// Panics if a layer is packed for one direction only.
    pub(crate) fn backward(
        &self,
        x: &CpuTensor,
        mask: Option<CpuTensor>,
        saved: &Saved,
        gradient: CpuTensor,
        level: Level,
    ) -> CpuTensor {
        let mask = mask.map(contiguous);
        let mask = mask.as_ref().map_or(&[][..], values);
        let x = contiguous(x.clone());
        let shape = block_shape(&x);
        let [batch, tokens, width] = shape;
        let x = values(&x);
        let gradient = contiguous(gradient);
        let mut sum = values(&gradient).to_vec();
        self.workspace.with(|buffers| {
            let narrow = part(&mut buffers.narrow, x.len());
            let wide = part(&mut buffers.wide, saved.hidden.len());
            through(&self.down).apply(&sum, wide, Then::Store);
            self.activation
                .gradient_on_buffers(level, wide, &saved.hidden);
            through(&self.up).apply(wide, narrow, Then::Store);
            self.network_norm
                .backward(narrow, &saved.middle, &sum, level);
            sum.copy_from_slice(narrow); // the gradient of the tokens between the halves

            through(&self.out).apply(&sum, narrow, Then::Store);
            let wide = part(&mut buffers.wide, 3 * x.len());
            let packed = attention::Packed::new(batch, tokens, width, self.heads);
            let sums = &saved.log_sums;
            match &saved.qkv {
                Tokens::Floats(qkv) => {
                    attention::backward_on_buffers(&packed, qkv, mask, sums, narrow, wide, level);
                }
                Tokens::Halves(qkv) => attention::half_gradient::on_buffers(
                    &packed, qkv, mask, sums, narrow, wide, level,
                ),
            }
            through(&self.qkv).apply(wide, narrow, Then::Store);
            self.attention_norm.backward(narrow, x, &sum, level);
            sum.copy_from_slice(narrow);
        });
        tensor(sum, &shape)
    }

    /// Applies only the second half: `[batch, tokens, width]` → the same shape, without gradients.
    pub fn feed_forward(&self, x: Tensor<3>) -> Tensor<3> {
        on_values(x, |x| self.workspace.with(|buffers| self.feed(x, buffers)))
    }

    /// Applies the first half, x += out(attention(qkv(norm₁(x)))), in place.
    fn attend(&self, shape: [usize; 3], x: &mut [f32], mask: &[f32], buffers: &mut Buffers) {
        let level = Level::current();
        let narrow = part(&mut buffers.narrow, x.len());
        let rounded = &mut buffers.rounded;
        let norm = &self.attention_norm;
        let inputs = norm.inputs(x, &self.qkv, narrow, rounded, level);
        if self.attends_in_halves(level, shape) {
            let qkv = &mut buffers.qkv;
            let [batch, tokens, width] = shape;
            qkv.resize_halves(batch * tokens, 3 * width);
            self.qkv
                .apply_rounding(inputs, batch * tokens, qkv, Then::Store);
            let Rounded::Halves(qkv) = qkv else {
                unreachable!("the buffer was made one of bf16")
            };
            let narrow = part(&mut buffers.narrow, x.len());
            let _log_sums =
                attention::halves::on_buffers(shape, self.heads, &qkv.values, mask, narrow, level);
        } else {
            let wide = part(&mut buffers.wide, 3 * x.len());
            self.qkv.apply_to(inputs, wide, Then::Store);
            let narrow = part(&mut buffers.narrow, x.len());
            let _log_sums = attention::on_buffers(shape, self.heads, wide, mask, narrow, level);
        }
        let narrow = part(&mut buffers.narrow, x.len());
        let inputs = self.out.inputs_of(narrow, &mut buffers.rounded);
        self.out.apply_to(inputs, x, Then::Add);
    }

    /// Applies the second half, x += down(activation(up(norm₂(x)))), in place.
    fn feed(&self, x: &mut [f32], buffers: &mut Buffers) {
        let tokens = x.len() / self.up.inputs();
        let narrow = part(&mut buffers.narrow, x.len());
        let rounded = &mut buffers.rounded;
        let norm = &self.network_norm;
        let inputs = norm.inputs(x, &self.up, narrow, rounded, Level::current());
        let activate = Then::Activate(self.activation);
        if self.down.rounds() {
            let hidden = &mut buffers.hidden;
            hidden.resize_for(&self.down, tokens);
            self.up.apply_rounding(inputs, tokens, hidden, activate);
            self.down.apply_to(Inputs::Rounded(hidden), x, Then::Add);
        } else {
            let wide = part(&mut buffers.wide, tokens * self.up.outputs());
            self.up.apply_to(inputs, wide, activate);
            self.down.apply_to(Inputs::Floats(wide), x, Then::Add);
        }
    }
}

/// The values that the gradient of a block needs besides its input.
#[derive(Debug)]
pub(crate) struct Saved {
    /// `[batch, tokens, 3·width]`
    qkv: Tokens,
    /// `[batch, heads, tokens]`
    log_sums: Vec<f32>,
    /// Tokens between the halves: `[batch, tokens, width]`
    middle: Vec<f32>,
    /// Inputs of the activation: `[batch, tokens, hidden]`
    hidden: Vec<f32>,
}

/// Queries, keys and values of all tokens.
#[derive(Debug)]
enum Tokens {
    Floats(Vec<f32>),
    Halves(Vec<u16>),
}

/// Returns the values of rows of bf16.
fn halves(rows: Rounded) -> Vec<u16> {
    match rows {
        Rounded::Halves(rows) => rows.values,
        _ => unreachable!("the buffer was made one of bf16"),
    }
}

/// Returns the layer that maps gradients of the outputs to gradients of the inputs.
fn through(layer: &PackedLinear) -> &PackedLinear {
    match layer.backward() {
        Some(backward) => backward,
        None => unreachable!("only layers packed for both directions are put into a graph"),
    }
}

/// Returns the shape of a tensor with three axes.
fn block_shape(x: &CpuTensor) -> [usize; 3] {
    let shape = shape(x);
    [shape[0], shape[1], shape[2]]
}

impl Norm {
    /// Turns gradients of the result into those of the input `x`, in place, and adds `rest`.
    fn backward(&self, gradient: &mut [f32], x: &[f32], rest: &[f32], level: Level) {
        let (weight, epsilon) = (&self.weight, self.epsilon);
        layer_norm::input_gradients_on_buffers(gradient, x, weight, epsilon, rest, level);
    }

    /// Normalises rows of `x` as inputs of a layer, in one of the two buffers.
    fn inputs<'a>(
        &self,
        x: &[f32],
        layer: &PackedLinear,
        narrow: &'a mut [f32],
        rounded: &'a mut Rounded,
        level: Level,
    ) -> Inputs<'a> {
        if !layer.rounds() {
            self.apply(x, narrow, level);
            return Inputs::Floats(narrow);
        }
        let width = self.weight.len();
        rounded.fill(layer, x.len() / width, |first, out| {
            let x = &x[first * width..][..out.len()];
            layer_norm::on_rows(x, out, &self.weight, &self.bias, self.epsilon, level);
        });
        Inputs::Rounded(rounded)
    }

    /// Normalises rows of `x` into `out`.
    fn apply(&self, x: &[f32], out: &mut [f32], level: Level) {
        layer_norm::on_buffers(x, out, &self.weight, &self.bias, self.epsilon, level);
    }
}

impl PackedLinear {
    /// Applies the layer: `[…, inputs]` → `[…, outputs]`
    ///
    /// The gradient of `x` is computed if the layer was made with [`PackedLinear::with_gradient`]; otherwise the result
    /// is a constant.
    ///
    /// # Panics
    /// Panics if the last axis has another length.
    pub fn forward<const D: usize>(self: &Arc<Self>, x: Tensor<D>) -> Tensor<D> {
        let device = x.device();
        let mut shape = x.dims();
        assert_eq!(shape[D - 1], self.inputs(), "inputs of a linear layer");
        if x.is_autodiff() && is_fused(&x) && self.backward().is_some() {
            let layer = Arc::clone(self);
            return Tensor::from_dispatch(Dispatch::fused_linear(x.into_dispatch(), layer));
        }
        shape[D - 1] = self.outputs();
        let x = x.into_data().convert::<f32>();
        let mut out = vec![0.0; shape.iter().product()];
        self.apply(floats(&x), &mut out, Then::Store);
        Tensor::from_data(TensorData::new(out, shape), &device)
    }
}

impl PackedLinear {
    /// Computes gradients of the inputs from those of the outputs.
    ///
    /// # Panics
    /// Panics if the layer is packed for one direction only.
    pub(crate) fn through_backward(&self, gradient: CpuTensor) -> CpuTensor {
        through(self).on_tensor(gradient)
    }

    /// Applies the layer to the rows of a tensor.
    pub(crate) fn on_tensor(&self, x: CpuTensor) -> CpuTensor {
        let x = contiguous(x);
        let mut shape = shape(&x);
        if let Some(last) = shape.last_mut() {
            *last = self.outputs();
        }
        let mut out = vec![0.0; shape.iter().product()];
        self.apply(values(&x), &mut out, Then::Store);
        tensor(out, &shape)
    }
}

/// Changes a tensor's values, in place if no other tensor shares them.
fn on_values<const D: usize>(x: Tensor<D>, change: impl FnOnce(&mut [f32])) -> Tensor<D> {
    let device = x.device();
    let mut data = x.into_data().convert::<f32>();
    match data.as_mut_slice::<f32>() {
        Ok(values) => change(values),
        Err(error) => unreachable!("the data were converted to 32-bit floats: {error:?}"),
    }
    Tensor::from_data(data, &device)
}

/// Returns the values of data that were converted to 32-bit floats.
fn floats(data: &TensorData) -> &[f32] {
    match data.as_slice::<f32>() {
        Ok(values) => values,
        Err(error) => unreachable!("the data were converted to 32-bit floats: {error:?}"),
    }
}
