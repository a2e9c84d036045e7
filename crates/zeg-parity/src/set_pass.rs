//! Compares a training pass of a mask transformer: activations, outputs, assignments, losses and gradients.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use zeg_model::{
    mask_transformer::QueryOutput,
    params::{Parameters, flat_gradients},
    trace::Trace,
};
use zeg_train::set_loss::{
    mask_targets::{ImageMasks, MaskTargets},
    matching::{Matches, costs},
    set_criterion::{SetLoss, SetTerms},
};

use super::{
    ParityError, array::Array, check::Check, file::Meta, limit::Limit, planted::PlantedError,
};

/// The results of a forward pass in training mode.
pub(crate) struct Pass {
    trace: Trace,
    /// Outputs with the names of the heads, last decoder layer first.
    outputs: Vec<(String, QueryOutput)>,
    targets: MaskTargets,
    loss: SetLoss,
    /// Unweighted loss terms, with the suffixes of the heads' losses (`""`, `"_0"`, …).
    terms: Vec<(String, SetTerms)>,
    matches: Vec<Vec<Matches>>,
}

impl Pass {
    /// Matches the outputs after every decoder layer, first to last, and computes their terms.
    pub(crate) fn new(
        mut outputs: Vec<QueryOutput>,
        targets: MaskTargets,
        loss: SetLoss,
        trace: Trace,
    ) -> Result<Self, ParityError> {
        let last = outputs
            .pop()
            .into_iter()
            .map(|output| ("final".to_owned(), output));
        let named = outputs.into_iter().enumerate();
        let auxiliary = named.map(|(layer, output)| (format!("aux{layer}"), output));
        let outputs: Vec<(String, QueryOutput)> = last.chain(auxiliary).collect();

        let plain = SetLoss {
            class: 1.0,
            focal: 1.0,
            dice: 1.0,
            ..loss
        };
        let queries = outputs
            .first()
            .map_or(0, |(_, output)| output.masks.dims()[1]);
        let normalizer = loss.normalizer(&targets.counts(), queries);
        let (mut terms, mut matches) = (Vec::new(), Vec::new());
        for (name, output) in &outputs {
            let of_batch = (0..targets.images.len())
                .map(|image| costs(output, &targets, image, &loss)?.solve())
                .collect::<Result<Vec<_>, _>>()?;
            let suffix = name
                .strip_prefix("aux")
                .map_or(String::new(), |n| format!("_{n}"));
            let found = plain.terms(output.clone(), &targets, &of_batch, normalizer);
            terms.push((suffix, found));
            matches.push(of_batch);
        }
        Ok(Self {
            trace,
            outputs,
            targets,
            loss,
            terms,
            matches,
        })
    }

    /// Returns the loss that the gradients are computed from: `[1]`.
    ///
    /// - `weights`: weights of the terms, from the description
    fn total(
        &self,
        weights: &Meta,
        planted: Option<PlantedError>,
    ) -> Result<Option<Tensor<1>>, ParityError> {
        let mut total: Option<Tensor<1>> = None;
        for (suffix, terms) in &self.terms {
            for (name, term) in named(terms) {
                if planted == Some(PlantedError::MissingTerm(name)) {
                    continue;
                }
                let weight = weights.at(&format!("{name}{suffix}"))?.number()?;
                let term = term * weight;
                total = Some(match total {
                    Some(sum) => sum + term,
                    None => term,
                });
            }
        }
        Ok(total)
    }

    /// Returns the flat gradients of all parameters.
    pub(crate) fn gradients(
        &self,
        model: &impl Parameters,
        weights: &Meta,
        planted: Option<PlantedError>,
    ) -> Result<BTreeMap<String, Tensor<1>>, ParityError> {
        let Some(total) = self.total(weights, planted)? else {
            return Ok(BTreeMap::new());
        };
        let mut gradients = total.backward();
        Ok(flat_gradients(model, &mut gradients).into_iter().collect())
    }

    /// Compares activations, outputs, assignments and loss terms.
    pub(crate) fn compare(
        &self,
        check: &mut Check,
        (weights, planted): (&Meta, Option<PlantedError>),
        limit: Limit,
    ) -> Result<(), ParityError> {
        let trace = self.trace.recorded();
        for (name, data) in trace {
            check.compare(
                &format!("mid.{name}"),
                &Array::of_data(data.clone())?,
                limit,
            );
        }
        for ((name, output), matches) in self.outputs.iter().zip(&self.matches) {
            compare_output(check, name, output, limit)?;
            for (image, matches) in matches.iter().enumerate() {
                let costs = costs(output, &self.targets, image, &self.loss)?;
                let prefix = format!("match.{name}.img{image}");
                let found = Array::from_values(&[costs.queries, costs.masks], &costs.values);
                check.compare(&format!("{prefix}.cost"), &found, limit);
                let (queries, masks): (Vec<u32>, Vec<u32>) = matches
                    .pairs
                    .iter()
                    .map(|&(query, mask)| (query as u32, mask as u32))
                    .unzip();
                let row = |ids: Vec<u32>| Array::from_values(&[ids.len()], &ids);
                check.compare(&format!("{prefix}.query"), &row(queries), Limit::Exact);
                check.compare(&format!("{prefix}.target"), &row(masks), Limit::Exact);
            }
        }
        for (suffix, terms) in &self.terms {
            for (name, term) in named(terms) {
                let name = format!("{name}{suffix}");
                let weight = weights.at(&name)?.number()?;
                let weighted = Array::of(term.clone() * weight)?;
                compare_number(check, &format!("loss_raw.{name}"), &Array::of(term)?, limit);
                compare_number(check, &format!("loss_weighted.{name}"), &weighted, limit);
            }
        }
        if let Some(total) = self.total(weights, planted)? {
            compare_number(check, "loss_total", &Array::of(total)?, limit);
        }
        Ok(())
    }
}

/// Compares a single number, which files store with one axis or with none.
pub(crate) fn compare_number(check: &mut Check, name: &str, found: &Array, limit: Limit) {
    if let Some(reference) = check.reference(name) {
        let found = Array {
            shape: reference.shape.clone(),
            values: found.values.clone(),
        };
        check.compare_value(name, reference, &found, limit);
    }
}

/// Compares class and mask logits of one head.
pub(crate) fn compare_output(
    check: &mut Check,
    head: &str,
    output: &QueryOutput,
    limit: Limit,
) -> Result<(), ParityError> {
    let prefix = match head {
        "final" => "out.".to_owned(),
        other => format!("out.{other}."),
    };
    let (logits, masks) = (
        Array::of(output.classes.clone())?,
        Array::of(output.masks.clone())?,
    );
    check.compare(&format!("{prefix}pred_logits"), &logits, limit);
    check.compare(&format!("{prefix}pred_masks"), &masks, limit);
    Ok(())
}

/// Returns the loss terms with the reference's names.
fn named(terms: &SetTerms) -> [(&'static str, Tensor<1>); 3] {
    [
        ("loss_ce", terms.class.clone()),
        ("loss_mask", terms.focal.clone()),
        ("loss_dice", terms.dice.clone()),
    ]
}

/// Reads the target masks of every image; padding is outside of every mask.
pub(crate) fn targets(
    check: &mut Check,
    planted: Option<PlantedError>,
    batch: usize,
    size: [usize; 2],
) -> Result<MaskTargets, ParityError> {
    let [height, width] = size;
    let mut inputs = Vec::with_capacity(batch);
    for image in 0..batch {
        let classes = check.input(&format!("in.gt_classes.{image}"))?.to_u32();
        let name = format!("in.gt_masks.{image}");
        let masks = check.input(&name)?;
        let [count, h, w] = masks.shape[..] else {
            return Err(check.tensor_error(&name, "is not [masks, height, width]"));
        };
        let stored = masks.to_u8();
        let mut values = vec![0; count * height * width];
        for (row, line) in stored.chunks_exact(w.max(1)).enumerate() {
            let (mask, y) = (row / h, row % h);
            let start = (mask * height + y) * width;
            values[start..start + w].copy_from_slice(line);
        }
        if let Some(error) = planted {
            error.alter_masks(values.chunks_exact_mut((height * width).max(1)), [0, 1]);
        }
        inputs.push(ImageMasks {
            classes: classes.into_iter().map(|class| class as usize).collect(),
            values,
        });
    }
    Ok(MaskTargets::new(inputs, size)?)
}
