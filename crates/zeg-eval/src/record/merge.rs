//! Merges the shards of a divided evaluation.
//!
//! Counts are integers, so the result is exactly what one machine would have counted. Shards are sorted first, so that
//! the result does not depend on the order in which they are given.

use std::collections::BTreeSet;

use zeg_base::fingerprint::Fingerprint;

use super::{Evaluation, Timing};
use crate::EvalError;
use crate::gallery::{GalleryEntry, Rank, median, pick_around};

/// Largest number of missing shards that an error lists.
const LISTED: usize = 100;

impl Evaluation {
    /// Merges all shards of an evaluation.
    ///
    /// Counts and times are summed. Image scores and skipped images are sorted by id; there are no scores if a shard has
    /// none. The gallery is
    /// selected anew from those of the shards: its best and worst images are those of the whole evaluation, its median
    /// images are the shown ones that are nearest to the median of the whole evaluation. Paths of gallery files are not
    /// changed: they are relative to the folder of their shard.
    ///
    /// # Errors
    /// Returns [`EvalError::Nothing`], [`EvalError::NotAShard`], [`EvalError::Differs`], [`EvalError::OtherFact`],
    /// [`EvalError::ShardTwice`], [`EvalError::ShardsMissing`], [`EvalError::ImageTwice`], [`EvalError::TooManyPixels`],
    /// or an error of [`Evaluation::validate`] for a shard.
    pub fn merge(shards: Vec<Self>) -> Result<Self, EvalError> {
        for evaluation in &shards {
            evaluation.validate()?;
        }
        let shards = in_order(shards)?;
        let complete = shards.iter().all(Self::has_images);
        let mut shards = shards.into_iter();
        let Some(mut whole) = shards.next() else {
            return Err(EvalError::Nothing);
        };
        let mut machines = vec![whole.timing.machine.clone()];
        let mut each = ranks(&whole.gallery);
        for shard in shards {
            whole.check_same(&shard)?;
            if shard.fingerprint.is_empty() {
                // The whole states no more than every shard does.
                whole.fingerprint = Fingerprint::new();
            }
            whole.confusion.merge(&shard.confusion)?;
            whole.reliability = match (whole.reliability.take(), shard.reliability) {
                (Some(mut counts), Some(other)) => {
                    counts.merge(&other);
                    Some(counts)
                }
                // Some pixels would be missing.
                _ => None,
            };
            whole.images = whole.images.saturating_add(shard.images);
            whole.image_scores.extend(shard.image_scores);
            whole.skipped.extend(shard.skipped);
            whole.tied.extend(shard.tied);
            for (most, count) in each.iter_mut().zip(ranks(&shard.gallery)) {
                *most = count.max(*most);
            }
            whole.gallery.extend(shard.gallery);
            whole.timing.add(&shard.timing);
            if !machines.contains(&shard.timing.machine) {
                machines.push(shard.timing.machine);
            }
        }
        machines.sort();
        whole.timing.machine = machines.join("; ");
        whole.shard = None;
        if !complete {
            whole.image_scores.clear();
        }
        whole.image_scores.sort_by(|a, b| a.id.cmp(&b.id));
        whole.skipped.sort_by(|a, b| a.id.cmp(&b.id));
        whole.tied.sort();
        whole.choose_gallery(each.into_iter().max().unwrap_or(0));
        whole.validate()?;
        Ok(whole)
    }

    /// Checks that another record is a shard of the same evaluation.
    fn check_same(&self, other: &Self) -> Result<(), EvalError> {
        self.check_same_settings(other)?;
        same("program", &self.program, &other.program)?;
        same("model.sha256", &self.model.sha256, &other.model.sha256)?;
        same("model.step", &self.model.step, &other.model.step)?;
        same("model.seed", &self.model.seed, &other.model.seed)
    }

    /// Checks that another record has the same benchmark, metric, classes, method and settings. The models may differ.
    pub(crate) fn check_same_settings(&self, other: &Self) -> Result<(), EvalError> {
        self.check_same_benchmark(other)?;
        same("method", &self.method, &other.method)?;
        same("protocol", &self.protocol, &other.protocol)?;
        same("trained_on", &self.trained_on, &other.trained_on)?;
        same("templates", &self.templates, &other.templates)?;
        same("inference", &self.inference, &other.inference)?;
        same("scales", &self.scales, &other.scales)?;
        same("flip", &self.flip, &other.flip)?;
        same_facts(&self.fingerprint, &other.fingerprint)?;
        for (class, other) in self.classes.iter().zip(&other.classes) {
            same("classes", class, other)?;
        }
        Ok(())
    }

    /// Checks that another record was scored on the same benchmark, with the same metric, the same rule for classes without
    /// pixels and the same class names.
    ///
    /// Method, protocol and settings may differ. So may the split into seen and unseen classes, if one of the two
    /// records has no unseen classes: training-free methods have none.
    pub(crate) fn check_same_benchmark(&self, other: &Self) -> Result<(), EvalError> {
        let (a, b) = (&self.benchmark, &other.benchmark);
        same("benchmark.dataset", &a.dataset, &b.dataset)?;
        same("benchmark.title", &a.title, &b.title)?;
        same("benchmark.class_list", &a.class_list, &b.class_list)?;
        same("benchmark.split", &a.split, &b.split)?;
        same(
            "benchmark.official_images",
            &a.official_images,
            &b.official_images,
        )?;
        same("metric", &self.metric, &other.metric)?;
        same("nan_rule", &self.nan_rule, &other.nan_rule)?;
        same(
            "the number of classes",
            &self.classes.len(),
            &other.classes.len(),
        )?;
        same_facts(&self.fingerprint.only(is_of_benchmark), &other.fingerprint)?;
        let both_have_unseen = self.has_unseen() && other.has_unseen();
        for (class, other) in self.classes.iter().zip(&other.classes) {
            if class.name != other.name || (both_have_unseen && class.unseen != other.unseen) {
                same("classes", class, other)?;
            }
        }
        Ok(())
    }

    /// Checks that another record was scored on the same benchmark and on the same of its images.
    pub(crate) fn check_same_images(&self, other: &Self) -> Result<(), EvalError> {
        self.check_same_benchmark(other)?;
        same("images", &self.images, &other.images)?;
        self.check_same_skipped(other)
    }

    /// Checks that no image is missing from the scores of only one of two records.
    pub(crate) fn check_same_skipped(&self, other: &Self) -> Result<(), EvalError> {
        let [one, two] = [self, other].map(|record| {
            let ids = record.skipped.iter().map(|image| image.id.as_str());
            ids.collect::<BTreeSet<&str>>()
        });
        same("skipped images", &one, &two)
    }

    /// Selects the gallery from the galleries of all shards.
    fn choose_gallery(&mut self, each: usize) {
        let mut shown = BTreeSet::new();
        let mut entries = std::mem::take(&mut self.gallery);
        entries.retain(|entry| shown.insert(entry.id.clone()));
        let metric = self.metric;
        let scores = self
            .image_scores
            .iter()
            .filter_map(|image| image.score(metric));
        let middle = median(scores).or_else(|| median(entries.iter().map(|entry| entry.score)));
        let candidates: Vec<(&str, f64)> = entries
            .iter()
            .map(|entry| (entry.id.as_str(), entry.score))
            .collect();
        let chosen = pick_around(&candidates, each, middle);
        let entry = |(position, rank): (usize, Rank)| {
            let entry = entries.get(position)?.clone();
            Some(GalleryEntry { rank, ..entry })
        };
        self.gallery = chosen.into_iter().filter_map(entry).collect();
    }
}

impl Timing {
    fn add(&mut self, other: &Self) {
        self.wall_s += other.wall_s;
        self.model_s += other.model_s;
        self.threads = self.threads.max(other.threads);
    }
}

/// Sorts shards and checks that each is given exactly once.
fn in_order(shards: Vec<Evaluation>) -> Result<Vec<Evaluation>, EvalError> {
    let mut ordered = Vec::with_capacity(shards.len());
    for evaluation in shards {
        let Some(shard) = evaluation.shard else {
            return Err(EvalError::NotAShard {
                images: evaluation.images,
                model: evaluation.model.path,
            });
        };
        ordered.push((shard, evaluation));
    }
    ordered.sort_by_key(|(shard, _)| (shard.count, shard.index));
    let Some(&(first, _)) = ordered.first() else {
        return Err(EvalError::Nothing);
    };
    for pair in ordered.windows(2) {
        let [(a, _), (b, _)] = pair else { continue };
        same("shard.count", &a.count, &b.count)?;
        if a.index == b.index {
            return Err(EvalError::ShardTwice {
                index: b.index,
                count: b.count,
            });
        }
    }
    let there: BTreeSet<u64> = ordered.iter().map(|(shard, _)| shard.index).collect();
    if u64::try_from(there.len()) != Ok(first.count) {
        // A file may state any number of shards, so only the first missing ones are searched.
        let missing = (1..=first.count).filter(|index| !there.contains(index));
        return Err(EvalError::ShardsMissing {
            missing: missing.take(LISTED).collect(),
            count: first.count,
        });
    }
    Ok(ordered
        .into_iter()
        .map(|(_, evaluation)| evaluation)
        .collect())
}

/// Returns the number of images of each rank in a gallery.
fn ranks(gallery: &[GalleryEntry]) -> [usize; 3] {
    [Rank::Best, Rank::Median, Rank::Worst]
        .map(|rank| gallery.iter().filter(|entry| entry.rank == rank).count())
}

/// Returns whether a part of a fingerprint belongs to the benchmark rather than to the model: how label files are read,
/// the names of the classes, and the images with what their files hold.
fn is_of_benchmark(part: &str) -> bool {
    let is_of_images = part == "images" || part.starts_with("images: ");
    part.starts_with("label rule: ") || part == "class list: names" || is_of_images
}

/// Checks that two records agree in every part that both fingerprints have; the error names the first other one.
fn same_facts(first: &Fingerprint, second: &Fingerprint) -> Result<(), EvalError> {
    let Err(mismatch) = first.check(second) else {
        return Ok(());
    };
    let difference = mismatch.differences.into_iter().next();
    difference.map_or(Ok(()), |difference| {
        let [first, second] = difference.shown();
        Err(EvalError::OtherFact {
            name: difference.name,
            first,
            second,
        })
    })
}

/// Checks that two records have the same value; the error shows both values as JSON.
pub(crate) fn same<T: PartialEq + serde::Serialize>(
    field: &'static str,
    first: &T,
    second: &T,
) -> Result<(), EvalError> {
    if first == second {
        return Ok(());
    }
    let shown = |value| serde_json::to_string(value).unwrap_or_default();
    Err(EvalError::Differs {
        field,
        first: shown(first),
        second: shown(second),
    })
}
