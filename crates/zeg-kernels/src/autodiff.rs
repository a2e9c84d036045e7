//! Gradients of the operations on the CPU.
//!
//! What a step saves shares memory with tensors that the forward pass holds anyway: inputs, or results that the next
//! operation also holds. Only the log-sum-exp of attention is extra, one number per row. A whole block saves what its
//! documentation lists ([`crate::block`]).

use std::sync::Arc;

use burn::backend::{
    Autodiff, Flex,
    autodiff::{
        checkpoint::{base::Checkpointer, strategy::CheckpointStrategy},
        grads::Gradients,
        ops::{Backward, Ops, OpsKind},
    },
    tensor::FloatTensor,
};

use crate::{
    activation::Activation,
    attention,
    backend::FusedOps,
    block::{PackedBlock, Saved},
    layer_norm,
    level::Level,
    linear::PackedLinear,
    mask_sums::{self, Truth},
    pieces::CpuTensor,
    softmax,
};

/// A tensor of the CPU backend with its place in the graph.
type TrackedTensor = FloatTensor<Autodiff<Flex>>;

impl<C: CheckpointStrategy> FusedOps for Autodiff<Flex, C> {
    fn fused_attention(qkv: FloatTensor<Self>, heads: usize) -> FloatTensor<Self> {
        attend::<C>(qkv, None, heads)
    }

    fn fused_masked_attention(
        qkv: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        heads: usize,
    ) -> FloatTensor<Self> {
        attend::<C>(qkv, Some(mask.into_primitive()), heads)
    }

    fn fused_activation(x: FloatTensor<Self>, activation: Activation) -> FloatTensor<Self> {
        let level = Level::current();
        let (x, node) = x.into_parts();
        match ActivationStep
            .prepare::<C>([node])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(step) => {
                let out = activation.forward(x.clone(), level);
                step.finish((x, activation, level), out)
            }
            OpsKind::UnTracked(step) => step.finish(activation.forward(x, level)),
        }
    }

    fn fused_softmax(x: FloatTensor<Self>) -> FloatTensor<Self> {
        let level = Level::current();
        let (x, node) = x.into_parts();
        match SoftmaxStep.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(step) => {
                let out = softmax::forward(x, level);
                step.finish((out.clone(), level), out)
            }
            OpsKind::UnTracked(step) => step.finish(softmax::forward(x, level)),
        }
    }

    fn fused_layer_norm(
        x: FloatTensor<Self>,
        weight: FloatTensor<Self>,
        bias: FloatTensor<Self>,
        epsilon: f32,
    ) -> FloatTensor<Self> {
        let level = Level::current();
        let ((x, x_node), (weight, weight_node), (bias, bias_node)) =
            (x.into_parts(), weight.into_parts(), bias.into_parts());
        let step = LayerNormStep.prepare::<C>([x_node, weight_node, bias_node]);
        match step.compute_bound().stateful() {
            OpsKind::Tracked(step) => {
                let out = layer_norm::forward(x.clone(), weight.clone(), bias, epsilon, level);
                step.finish((x, weight, epsilon, level), out)
            }
            OpsKind::UnTracked(step) => {
                step.finish(layer_norm::forward(x, weight, bias, epsilon, level))
            }
        }
    }

    fn fused_linear(x: FloatTensor<Self>, layer: Arc<PackedLinear>) -> FloatTensor<Self> {
        let (x, node) = x.into_parts();
        match LinearStep.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish(Arc::clone(&layer), layer.on_tensor(x)),
            OpsKind::UnTracked(step) => step.finish(layer.on_tensor(x)),
        }
    }

    fn fused_block(x: FloatTensor<Self>, block: Arc<PackedBlock>) -> FloatTensor<Self> {
        through_block::<C>(x, None, block)
    }

    fn fused_masked_block(
        x: FloatTensor<Self>,
        mask: FloatTensor<Self>,
        block: Arc<PackedBlock>,
    ) -> FloatTensor<Self> {
        through_block::<C>(x, Some(mask.into_primitive()), block)
    }

    fn fused_mask_sums(z: FloatTensor<Self>, truth: Truth) -> FloatTensor<Self> {
        let level = Level::current();
        let (z, node) = z.into_parts();
        let sums = mask_sums::forward(&z, &truth, level);
        match MaskSumsStep.prepare::<C>([node]).compute_bound().stateful() {
            OpsKind::Tracked(step) => step.finish((z, truth, level), sums),
            OpsKind::UnTracked(step) => step.finish(sums),
        }
    }
}

fn attend<C: CheckpointStrategy>(
    qkv: TrackedTensor,
    mask: Option<CpuTensor>,
    heads: usize,
) -> TrackedTensor {
    let level = Level::current();
    let (qkv, node) = qkv.into_parts();
    match AttentionStep
        .prepare::<C>([node])
        .compute_bound()
        .stateful()
    {
        OpsKind::Tracked(step) => {
            let (out, log_sums) = attention::forward(qkv.clone(), mask.clone(), heads, level);
            step.finish((qkv, mask, log_sums, heads, level), out)
        }
        OpsKind::UnTracked(step) => step.finish(attention::forward(qkv, mask, heads, level).0),
    }
}

fn through_block<C: CheckpointStrategy>(
    x: TrackedTensor,
    mask: Option<CpuTensor>,
    block: Arc<PackedBlock>,
) -> TrackedTensor {
    let (x, node) = x.into_parts();
    match BlockStep.prepare::<C>([node]).compute_bound().stateful() {
        OpsKind::Tracked(step) => {
            let (out, saved) = block.forward_saving(&x, mask.clone());
            let state = (x, mask, Arc::new(saved), block, Level::current());
            step.finish(state, out)
        }
        OpsKind::UnTracked(step) => step.finish(block.on_tensor(x, mask)),
    }
}

/// Passes the gradient on to the only input of an operation, if it is requested.
fn pass<S: Clone + Send + std::fmt::Debug + 'static>(
    ops: Ops<S, 1>,
    gradients: &mut Gradients,
    gradient_of_input: impl FnOnce(S, CpuTensor) -> CpuTensor,
) {
    let [parent] = ops.parents;
    let gradient = gradients.consume::<Flex>(&ops.node);
    if let Some(parent) = parent {
        let gradient = gradient_of_input(ops.state, gradient);
        gradients.register::<Flex>(parent.id, gradient);
    }
}

/// Defines a step of the graph with one input: what it saves, and the input's gradient from that and the result's.
macro_rules! step {
    ($(#[$meta:meta])* $name:ident: $state:ty, $gradient_of_input:expr) => {
        $(#[$meta])*
        #[derive(Debug)]
        struct $name;

        impl Backward<Flex, 1> for $name {
            type State = $state;

            fn backward(
                self,
                ops: Ops<Self::State, 1>,
                gradients: &mut Gradients,
                _checkpointer: &mut Checkpointer,
            ) {
                pass(ops, gradients, $gradient_of_input);
            }
        }
    };
}

step! {
    /// Packed tokens, mask, log-sum-exp, heads, level.
    AttentionStep: (CpuTensor, Option<CpuTensor>, CpuTensor, usize, Level),
    |(qkv, mask, log_sums, heads, level), gradient| {
        attention::backward(qkv, mask, log_sums, gradient, heads, level)
    }
}

step! {
    /// Input, function, level.
    ActivationStep: (CpuTensor, Activation, Level),
    |(x, activation, level), gradient| activation.backward(&x, gradient, level)
}

step! {
    /// Result, level.
    SoftmaxStep: (CpuTensor, Level),
    |(y, level), gradient| softmax::backward(&y, gradient, level)
}

step! {
    /// The layer, which includes the layer for its gradients.
    LinearStep: Arc<PackedLinear>,
    |layer, gradient| layer.through_backward(gradient)
}

step! {
    /// Input, mask, other saved values, block, level.
    BlockStep: (CpuTensor, Option<CpuTensor>, Arc<Saved>, Arc<PackedBlock>, Level),
    |(x, mask, saved, block, level), gradient| block.backward(&x, mask, &saved, gradient, level)
}

step! {
    /// Logits, labels, level.
    MaskSumsStep: (CpuTensor, Truth, Level),
    |(z, truth, level), gradient| mask_sums::backward(&z, &truth, gradient, level)
}

#[derive(Debug)]
struct LayerNormStep;

impl Backward<Flex, 3> for LayerNormStep {
    /// Input, weight, epsilon, level.
    type State = (CpuTensor, CpuTensor, f32, Level);

    fn backward(
        self,
        ops: Ops<Self::State, 3>,
        gradients: &mut Gradients,
        _checkpointer: &mut Checkpointer,
    ) {
        let gradient = gradients.consume::<Flex>(&ops.node);
        let (x, weight, epsilon, level) = ops.state;
        let asked = ops.parents.each_ref().map(Option::is_some);
        let found = layer_norm::backward(&x, weight, gradient, epsilon, asked, level);
        let found = [found.x, found.weight, found.bias];
        for (parent, gradient) in ops.parents.into_iter().zip(found) {
            if let (Some(parent), Some(gradient)) = (parent, gradient) {
                gradients.register::<Flex>(parent.id, gradient);
            }
        }
    }
}
