//! The gradient of attention in bf16 with sums in 32-bit floats, where the processor has instructions for bf16.
//!
//! Operands of products are rounded; probabilities, their gradients and everything that is added up are 32-bit floats.

use super::Packed;

#[cfg(target_arch = "x86_64")]
pub(crate) use kernels::on_buffers;

/// Not called: no level of this processor has instructions for bf16.
#[cfg(not(target_arch = "x86_64"))]
pub(crate) fn on_buffers(
    _packed: &Packed,
    _qkv: &[u16],
    _mask: &[f32],
    _log_sums: &[f32],
    _gradient: &[f32],
    _out: &mut [f32],
    _level: crate::level::Level,
) {
    unreachable!("no level has instructions for bf16")
}

#[cfg(target_arch = "x86_64")]
mod kernels {
    use rayon::prelude::*;

    use super::Packed;
    use crate::{
        attention::{
            add_mask,
            gradient::{heads_of_parts, write},
            half_panels::Panels,
        },
        bf16,
        level::{Level, dispatched},
        math::{exp, multiply_add},
        matrix::MatrixMut,
        softmax::through_softmax,
    };

    /// Number of query rows of a tile, an even number; see [`crate::attention::halves`].
    const ROWS: usize = 48;

    /// Buffers of a thread.
    #[derive(Default)]
    struct Scratch {
        /// Logits, then probabilities: `[rows, keys]`, keys padded to whole panels
        p: Vec<f32>,
        /// Gradients of probabilities, then of logits: `[rows, keys]`
        s: Vec<f32>,
        /// Gradients of logits: `[rows, keys]`, keys padded to whole pairs
        rows: Vec<u16>,
        /// Probabilities of two query rows, key by key: `[rows / 2, keys, 2]`
        p_pairs: Vec<u16>,
        /// Gradients of logits in the same order.
        s_pairs: Vec<u16>,
        /// Gradient of the head's result: `[tokens, head]`
        gradient: Vec<u16>,
    }

    /// Computes the gradient of the packed tokens from that of the result.
    ///
    /// - `qkv`: bf16, `[batch, tokens, 3·width]`; a head has an even number of channels
    /// - `mask`: `[tokens, tokens]` or empty
    /// - `log_sums`: log-sum-exp of every row of logits, `[batch, heads, tokens]`
    /// - `gradient`: `[batch, tokens, width]`
    /// - `out`: `[batch, tokens, 3·width]`, overwritten
    pub(crate) fn on_buffers(
        packed: &Packed,
        qkv: &[u16],
        mask: &[f32],
        log_sums: &[f32],
        gradient: &[f32],
        out: &mut [f32],
        level: Level,
    ) {
        let (tokens, width, heads) = (packed.tokens, packed.width, packed.heads);
        heads_of_parts(packed, out).into_par_iter().for_each_init(
            Scratch::default,
            |scratch, (image, head, out)| {
                let rows = packed.columns(gradient, image, head);
                scratch.gradient.resize(tokens * packed.head, 0);
                for (row, to) in scratch.gradient.chunks_exact_mut(packed.head).enumerate() {
                    bf16::round_values(level, rows.row(row), to);
                }
                let head = Head {
                    packed,
                    qkv: &qkv[image * tokens * 3 * width + head * packed.head..],
                    log_sums: &log_sums[(image * heads + head) * tokens..][..tokens],
                    mask,
                };
                head.backward(scratch, out, level);
            },
        );
    }

    /// The inputs of one head's gradient.
    struct Head<'a> {
        packed: &'a Packed,
        /// The image's tokens from the head's first query channel on.
        qkv: &'a [u16],
        /// `[tokens]`
        log_sums: &'a [f32],
        /// `[tokens, tokens]` or empty
        mask: &'a [f32],
    }

    impl<'a> Head<'a> {
        /// Returns `count` rows from `first` on of queries (0), keys (1) or values (2).
        fn part(
            &self,
            part: usize,
            first: usize,
            count: usize,
        ) -> impl ExactSizeIterator<Item = &'a [u16]> + use<'a> {
            let (qkv, stride, head) = (self.qkv, 3 * self.packed.width, self.packed.head);
            let start = part * self.packed.width;
            (first..first + count).map(move |row| &qkv[row * stride + start..][..head])
        }

        /// Writes the gradients of queries, keys and values, `[tokens, head]` each, as [`crate::attention::backward`] does.
        fn backward(&self, scratch: &mut Scratch, out: [MatrixMut<'_>; 3], level: Level) {
            let (tokens, head) = (self.packed.tokens, self.packed.head);
            let (scale, stride) = (self.packed.scale(), 3 * self.packed.width);
            let [mut q_gradient, mut k_gradient, mut v_gradient] = out;
            let keys = Panels::of_keys(level, self.part(1, 0, tokens), head);
            let values = Panels::of_keys(level, self.part(2, 0, tokens), head);
            let key_lines = Panels::of_values(level, self.part(1, 0, tokens), head);
            let columns = keys.columns();
            let pairs = tokens.next_multiple_of(2);
            scratch.p.resize(ROWS * columns, 0.0);
            scratch.s.resize(ROWS * columns, 0.0);
            scratch.rows.resize(ROWS * pairs, 0);
            scratch.p_pairs.resize(ROWS * tokens, 0);
            scratch.s_pairs.resize(ROWS * tokens, 0);
            for first in (0..tokens).step_by(ROWS) {
                let count = ROWS.min(tokens - first);
                let add = first > 0;
                let p = &mut scratch.p[..count * columns];
                let s = &mut scratch.s[..count * columns];
                let gradient = &scratch.gradient[first * head..];
                keys.multiply_into(level, &self.qkv[first * stride..], stride, count, p);
                values.multiply_into(level, gradient, head, count, s);
                let mask = self.mask.get(first * tokens..).unwrap_or_default();
                let log_sums = &self.log_sums[first..][..count];
                logit_gradients(level, [p, s], [tokens, columns], scale, mask, log_sums);

                for (from, to) in s
                    .chunks_exact(columns)
                    .zip(scratch.rows.chunks_exact_mut(pairs))
                {
                    bf16::round_values(level, &from[..tokens], to);
                }
                let left = &scratch.rows[..count * pairs];
                key_lines.multiply(level, left, [pairs, 1], count, |row, column, sums| {
                    write(
                        &mut q_gradient.row(first + row)[column..],
                        sums,
                        scale,
                        false,
                    );
                });
                let lengths = [tokens, columns];
                interleave(level, p, lengths, &mut scratch.p_pairs);
                let lines = gradient.chunks_exact(head).take(count);
                Panels::of_values(level, lines, head).multiply(
                    level,
                    &scratch.p_pairs,
                    [2, tokens],
                    tokens,
                    |row, column, sums| write(&mut v_gradient.row(row)[column..], sums, 1.0, add),
                );
                interleave(level, s, lengths, &mut scratch.s_pairs);
                Panels::of_values(level, self.part(0, first, count), head).multiply(
                    level,
                    &scratch.s_pairs,
                    [2, tokens],
                    tokens,
                    |row, column, sums| write(&mut k_gradient.row(row)[column..], sums, scale, add),
                );
            }
        }
    }

    dispatched! {
        /// Turns rows of logits into probabilities, and gradients of probabilities into those of the logits.
        ///
        /// - `lengths`: number of values in a row, and length of a row
        fn logit_gradients(rows: [&mut [f32]; 2], lengths: [usize; 2], scale: f32, mask: &[f32], log_sums: &[f32]) = logit_gradients_kernel;
    }
    dispatched! {
        /// Rounds rows and writes two of them value by value: `[rows / 2, values, 2]`. A last row without a partner is
        /// paired with 0.
        ///
        /// - `lengths`: number of values in a row, and length of a row
        fn interleave(x: &[f32], lengths: [usize; 2], out: &mut [u16]) = interleave_kernel;
    }

    #[inline(always)]
    fn logit_gradients_kernel<const FMA: bool>(
        [p, s]: [&mut [f32]; 2],
        [tokens, columns]: [usize; 2],
        scale: f32,
        mask: &[f32],
        log_sums: &[f32],
    ) {
        let rows = p.chunks_exact_mut(columns).zip(s.chunks_exact_mut(columns));
        for (index, ((p, s), &log_sum)) in rows.zip(log_sums).enumerate() {
            let (p, s) = (&mut p[..tokens], &mut s[..tokens]);
            let mut scale = scale;
            if !mask.is_empty() {
                for value in p.iter_mut() {
                    *value *= scale;
                }
                add_mask(p, mask, index);
                scale = 1.0;
            }
            for value in p.iter_mut() {
                *value = exp::<FMA>(multiply_add::<FMA>(*value, scale, -log_sum));
            }
            through_softmax::<FMA>(s, p);
        }
    }

    #[inline(always)]
    fn interleave_kernel<const FMA: bool>(
        x: &[f32],
        [tokens, columns]: [usize; 2],
        out: &mut [u16],
    ) {
        let rows = x.chunks(2 * columns);
        for (rows, out) in rows.zip(out.chunks_exact_mut(2 * tokens)) {
            let (out, _) = out.as_chunks_mut::<2>();
            let (one, other) = rows.split_at(columns);
            if other.is_empty() {
                for (out, &one) in out.iter_mut().zip(one) {
                    *out = [bf16::round(one), 0];
                }
            } else {
                for ((out, &one), &other) in out.iter_mut().zip(one).zip(other) {
                    *out = [bf16::round(one), bf16::round(other)];
                }
            }
        }
    }
}
