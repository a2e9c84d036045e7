//! Adds up the gradients of a batch's micro-batches, in their order, over any number of ranks.
//!
//! A sum of floating-point numbers depends on its order, so the order is always that of the micro-batches. Every rank adds
//! up a slice of all gradients: in each round, in which every rank has computed one micro-batch, it receives its slice of
//! their gradients and adds them one after the other. At the end, all ranks receive all slices. Each rank keeps the
//! gradients of one micro-batch and its slice of the sums, however many micro-batches there are.

use std::{collections::BTreeMap, ops::Range};

use burn::tensor::{Device, Tensor};
use zeg_base::ranks::Ranks;
use zeg_model::params::Parameters;

use crate::{
    TrainError,
    whole_batch::{numbers, tensor},
};

/// A sum of gradients over the micro-batches of a batch.
pub(crate) enum GradientSum {
    /// Of a single process.
    Alone(BTreeMap<String, Tensor<1>>),
    /// Of several ranks.
    Shared(Box<SlicedSum>),
}

/// Gradients of one micro-batch, flat, by the names of their parameters.
pub(crate) type Gradients = Vec<(String, Tensor<1>)>;

impl GradientSum {
    /// Starts an empty sum of the gradients of a model's trained parameters.
    pub(crate) fn new(ranks: &Ranks, model: &(impl Parameters + ?Sized)) -> Self {
        if ranks.is_single() {
            return Self::Alone(BTreeMap::new());
        }
        Self::Shared(Box::new(SlicedSum::new(ranks, model)))
    }

    /// Adds the gradients of the next round: those of one micro-batch of each rank.
    ///
    /// - `own`: gradients of this rank's micro-batch; `None` if it has none in this round
    ///
    /// # Errors
    /// Returns an error if the device cannot be read, or if another rank has failed or does not answer.
    pub(crate) fn add(&mut self, own: Option<Gradients>) -> Result<(), TrainError> {
        match self {
            Self::Alone(sums) => {
                for (name, gradient) in own.into_iter().flatten() {
                    let sum = match sums.remove(&name) {
                        Some(sum) => sum + gradient,
                        None => gradient,
                    };
                    sums.insert(name, sum);
                }
                Ok(())
            }
            Self::Shared(sum) => sum.add(own),
        }
    }

    /// Returns the sums by parameter; parameters without a gradient are left out.
    ///
    /// # Errors
    /// As for [`GradientSum::add`].
    pub(crate) fn finish(self, device: &Device) -> Result<BTreeMap<String, Tensor<1>>, TrainError> {
        match self {
            Self::Alone(sums) => Ok(sums),
            Self::Shared(sum) => sum.finish(device),
        }
    }
}

/// A trained parameter, with the place of its gradient in the list of all.
struct Place {
    name: String,
    range: Range<usize>,
    /// Whether a micro-batch so far had a gradient of it.
    found: bool,
}

/// This rank's slice of the sums of all gradients.
pub(crate) struct SlicedSum {
    ranks: Ranks,
    /// All trained parameters, sorted by name, one behind the other.
    places: Vec<Place>,
    /// Lengths of the slices, `[ranks]`.
    slices: Vec<usize>,
    /// Place of the first number of this rank's slice.
    start: usize,
    /// This rank's slice of the sums.
    sums: Vec<f32>,
}

impl SlicedSum {
    fn new(ranks: &Ranks, model: &(impl Parameters + ?Sized)) -> Self {
        let mut lengths = BTreeMap::new();
        model.each(&mut |name, param| {
            if param.is_trained() {
                lengths.insert(name.to_owned(), param.shape().iter().product::<usize>());
            }
        });
        let mut all = 0;
        let mut places = Vec::with_capacity(lengths.len());
        for (name, length) in lengths {
            let range = all..all + length;
            all += length;
            let found = false;
            places.push(Place { name, range, found });
        }
        let (rank, size) = (ranks.rank(), ranks.size());
        let slices: Vec<usize> = (0..size)
            .map(|rank| all * (rank + 1) / size - all * rank / size)
            .collect();
        Self {
            ranks: ranks.clone(),
            places,
            start: all * rank / size,
            // −0 + x is x for every x, so that the first gradient is kept as it is; 0 + −0 would be 0.
            sums: vec![-0.0; slices.get(rank).copied().unwrap_or(0)],
            slices,
        }
    }

    fn all(&self) -> usize {
        self.slices.iter().sum()
    }

    fn add(&mut self, own: Option<Gradients>) -> Result<(), TrainError> {
        let (mut values, mut present) = (Vec::new(), Vec::new());
        if let Some(own) = own {
            let mut own: BTreeMap<String, Tensor<1>> = own.into_iter().collect();
            values.reserve_exact(self.all());
            for place in &self.places {
                let gradient = own.remove(&place.name);
                present.push(u8::from(gradient.is_some()));
                match gradient {
                    Some(gradient) => values.extend(numbers(gradient)?),
                    None => values.resize(place.range.end, 0.0),
                }
            }
        }
        let present = self.ranks.gather("the gradients of a round", &present)?;
        let has_part = |rank: usize| present.get(rank).is_some_and(|flags| !flags.is_empty());
        let (rank, none) = (self.ranks.rank(), vec![0; self.slices.len()]);
        let sent = if has_part(rank) { &self.slices } else { &none };
        let received: Vec<usize> = (0..self.slices.len())
            .map(|rank| if has_part(rank) { self.sums.len() } else { 0 })
            .collect();
        let mut slices = vec![0.0; received.iter().sum()];
        let what = "the slices of gradients";
        self.ranks
            .exchange_floats(what, &values, sent, &mut slices, &received)?;
        let with_part = present.iter().filter(|flags| !flags.is_empty());
        for (slice, flags) in slices.chunks_exact(self.sums.len().max(1)).zip(with_part) {
            self.add_slice(slice, flags);
        }
        for flags in present.iter().filter(|flags| !flags.is_empty()) {
            for (place, flag) in self.places.iter_mut().zip(flags) {
                place.found |= *flag == 1;
            }
        }
        Ok(())
    }

    /// Adds a slice of the gradients of one micro-batch.
    ///
    /// - `flags`: for each parameter, 1 if the micro-batch has a gradient of it
    fn add_slice(&mut self, slice: &[f32], flags: &[u8]) {
        let (start, length) = (self.start, self.sums.len());
        for (place, flag) in self.places.iter().zip(flags) {
            let from = place.range.start.clamp(start, start + length) - start;
            let to = place.range.end.clamp(start, start + length) - start;
            if *flag != 1 || from == to {
                continue;
            }
            let sums = self.sums[from..to].iter_mut();
            for (sum, value) in sums.zip(&slice[from..to]) {
                *sum += value;
            }
        }
    }

    fn finish(self, device: &Device) -> Result<BTreeMap<String, Tensor<1>>, TrainError> {
        let mut all = vec![0.0; self.all()];
        let what = "the sums of gradients";
        self.ranks
            .gather_floats(what, &self.sums, &self.slices, &mut all)?;
        let found = self.places.into_iter().filter(|place| place.found);
        let sums = found.map(|place| {
            let values = all[place.range].to_vec();
            (place.name, tensor(values, device))
        });
        Ok(sums.collect())
    }
}
