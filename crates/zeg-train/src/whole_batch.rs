//! What a step must know of its whole batch, of which every rank holds a share.
//!
//! Micro-batch `k` of a batch belongs to rank `k` modulo the number of ranks. What is added up over micro-batches is
//! added in their order, so that a result does not depend on the number of ranks.

use std::collections::BTreeMap;

use burn::tensor::{Device, Tensor, TensorData};
use serde::{Deserialize, Serialize, de::DeserializeOwned};
use zeg_base::ranks::Ranks;
use zeg_model::params::RunningValue;

use crate::TrainError;

/// Returns the positions in a batch of the images of a rank, in their order.
///
/// - `batch`: number of images of the whole batch
/// - `micro_batch`: number of images that go through the model at once
pub fn positions(batch: usize, micro_batch: usize, ranks: &Ranks) -> Vec<usize> {
    let (rank, size) = (ranks.rank(), ranks.size());
    let is_own = |position: &usize| position / micro_batch.max(1) % size == rank;
    (0..batch).filter(is_own).collect()
}

/// What the whole batch must know of a micro-batch.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PartFacts {
    /// Ids of its images.
    pub(crate) ids: Vec<String>,
    /// Its contribution to the normaliser; `None` if labels wait for pseudo labels.
    pub(crate) count: Option<usize>,
    /// Number of labelled classes in each image; empty if labels wait for pseudo labels.
    pub(crate) masks: Vec<usize>,
    /// Whether a pixel has the label of a training class, or waits for a pseudo label.
    pub(crate) is_labelled: bool,
}

/// The micro-batches of a whole batch, in their order.
pub(crate) struct WholeBatch {
    parts: Vec<PartFacts>,
}

impl WholeBatch {
    /// Collects the micro-batches of all ranks.
    ///
    /// # Errors
    /// Returns an error if another rank has failed or does not answer.
    pub(crate) fn collect(ranks: &Ranks, own: Vec<PartFacts>) -> Result<Self, TrainError> {
        let parts = collect(ranks, "the labels of a batch", own)?;
        Ok(Self { parts })
    }

    /// Returns the number of micro-batches.
    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Returns the number of images.
    pub(crate) fn images(&self) -> usize {
        self.parts.iter().map(|part| part.ids.len()).sum()
    }

    /// Returns the ids of all images.
    pub(crate) fn ids(&self) -> Vec<String> {
        let ids = self.parts.iter().flat_map(|part| &part.ids);
        ids.cloned().collect()
    }

    /// Returns the number of labelled classes in each image; images that wait for pseudo labels are left out.
    pub(crate) fn masks(&self) -> Vec<usize> {
        let masks = self.parts.iter().flat_map(|part| &part.masks);
        masks.copied().collect()
    }

    /// Returns whether a pixel has the label of a training class, or waits for a pseudo label.
    pub(crate) fn is_labelled(&self) -> bool {
        self.parts.iter().any(|part| part.is_labelled)
    }

    /// Returns the number that the terms are divided by; `None` if labels still wait for pseudo labels.
    ///
    /// Pseudo labels follow from each part's own scores, so their number is known only after the last part. The loss is
    /// linear in the inverse of the normaliser, so it can be divided at the end.
    pub(crate) fn normalizer(&self) -> Option<f64> {
        let count: Option<usize> = self.parts.iter().map(|part| part.count).sum();
        count.map(|count| count.max(1) as f64)
    }
}

/// The loss of a micro-batch, as it is added to that of the others. Numbers are kept as bits, so that they arrive
/// unchanged, whatever they are.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct PartLoss {
    terms: Vec<(String, u32)>,
    count: usize,
    observed: Vec<Observed>,
}

/// An observation of a running mean.
#[derive(Debug, Clone, Serialize, Deserialize)]
struct Observed {
    name: String,
    values: Vec<u32>,
    momentum: u64,
}

impl PartLoss {
    /// Reads the numbers of a micro-batch.
    ///
    /// # Errors
    /// Returns an error if the device cannot be read.
    pub(crate) fn new(
        terms: Vec<(String, f32)>,
        count: usize,
        observed: Vec<RunningValue>,
    ) -> Result<Self, TrainError> {
        let observed = observed.into_iter().map(|observation| {
            Ok(Observed {
                name: observation.name,
                values: numbers(observation.value)?
                    .iter()
                    .map(|v| v.to_bits())
                    .collect(),
                momentum: observation.momentum.to_bits(),
            })
        });
        Ok(Self {
            terms: terms.into_iter().map(|(n, v)| (n, v.to_bits())).collect(),
            count,
            observed: observed.collect::<Result<_, TrainError>>()?,
        })
    }
}

/// The loss of a whole batch.
pub(crate) struct BatchTerms {
    /// The sums of the terms, by name.
    pub(crate) terms: BTreeMap<String, f32>,
    /// Sum of the contributions to the normaliser.
    pub(crate) count: usize,
    /// Observations of running means, in the order of the micro-batches.
    pub(crate) observed: Vec<RunningValue>,
}

impl BatchTerms {
    /// Adds up the losses of the micro-batches of all ranks.
    ///
    /// # Errors
    /// Returns an error if another rank has failed or does not answer.
    pub(crate) fn collect(
        ranks: &Ranks,
        own: Vec<PartLoss>,
        device: &Device,
    ) -> Result<Self, TrainError> {
        let (mut terms, mut count, mut observed) = (BTreeMap::new(), 0, Vec::new());
        for part in collect(ranks, "the loss of a batch", own)? {
            count += part.count;
            for (name, bits) in part.terms {
                *terms.entry(name).or_default() += f32::from_bits(bits);
            }
            observed.extend(part.observed.into_iter().map(|observation| {
                let values = observation.values.into_iter().map(f32::from_bits);
                RunningValue {
                    name: observation.name,
                    value: tensor(values.collect(), device),
                    momentum: f64::from_bits(observation.momentum),
                }
            }));
        }
        Ok(Self {
            terms,
            count,
            observed,
        })
    }
}

/// Returns one entry for each micro-batch of the whole batch, in their order.
///
/// - `own`: the entries of this rank's micro-batches, in their order
fn collect<T: Serialize + DeserializeOwned>(
    ranks: &Ranks,
    what: &str,
    own: Vec<T>,
) -> Result<Vec<T>, TrainError> {
    if ranks.is_single() {
        return Ok(own);
    }
    let broken = |error: serde_json::Error| TrainError::Backend(format!("{what}: {error}"));
    let message = serde_json::to_vec(&own).map_err(broken)?;
    let mut lists = Vec::new();
    for message in ranks.gather(what, &message)? {
        let list: Vec<T> = serde_json::from_slice(&message).map_err(broken)?;
        lists.push(list.into_iter());
    }
    // The ranks take turns, and the first ones may have one micro-batch more.
    let mut all = Vec::new();
    let mut turns = (0..lists.len()).cycle();
    while let Some(entry) = turns.next().and_then(|rank| lists.get_mut(rank)?.next()) {
        all.push(entry);
    }
    Ok(all)
}

/// Reads a flat tensor.
pub(crate) fn numbers(tensor: Tensor<1>) -> Result<Vec<f32>, TrainError> {
    let data = tensor.into_data().convert::<f32>();
    data.try_into_vec()
        .map_err(|error| TrainError::Backend(format!("{error:?}")))
}

/// Returns a flat tensor without an autodiff graph.
pub(crate) fn tensor(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let count = values.len();
    let device = device.clone().without_autodiff();
    Tensor::from_data(TensorData::new(values, [count]), &device)
}
