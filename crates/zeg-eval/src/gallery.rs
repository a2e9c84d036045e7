//! Selects example images: some of the best, some of the median and some of the worst scores.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

use crate::EvalError;
use crate::confusion::check_labels;

/// The rank of an image in the gallery.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Rank {
    /// Its score is among the highest.
    Best,
    /// Its score is nearest to the median of all images.
    Median,
    /// Its score is among the lowest.
    Worst,
}

/// An example image. Its files are thumbnails, PNG or JPEG, with paths relative to the folder of the evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GalleryEntry {
    /// Id of the image.
    pub id: String,
    /// Its rank.
    pub rank: Rank,
    /// Its score, 0..=1.
    pub score: f64,
    /// File of the image.
    #[serde(alias = "picture")]
    pub image: String,
    /// File of the image with its true classes in their colours.
    pub truth: String,
    /// File of the image with its predicted classes in their colours.
    pub prediction: String,
    /// File of the error map.
    pub error: String,
    /// The classes in it, for the legend; empty if they were not counted.
    #[serde(default)]
    pub classes: Vec<ClassShare>,
}

/// Shares of a class in an image, 0..=1 of the scored pixels.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ClassShare {
    /// Label of the class.
    pub class: usize,
    /// Share of the pixels in the ground truth.
    pub truth: f64,
    /// Share of the pixels in the prediction.
    pub prediction: f64,
}

impl ClassShare {
    /// Returns the classes of an image, sorted by their share in the ground truth, largest first.
    ///
    /// - `truth`, `prediction`: one label per pixel, `0..classes`, of equal length and order
    /// - `ignore`: the true label of pixels that are not scored
    ///
    /// # Errors
    /// Returns [`EvalError::Length`], [`EvalError::Label`] or [`EvalError::Prediction`].
    pub fn of(
        (truth, prediction): (&[u16], &[u16]),
        classes: usize,
        ignore: u16,
    ) -> Result<Vec<Self>, EvalError> {
        let pixels = check_labels(truth, prediction, ignore, classes)?;
        let mut counts = vec![(0_u64, 0_u64); classes];
        for (&label, &predicted) in truth.iter().zip(prediction) {
            if label == ignore {
                continue;
            }
            if let Some((of_truth, _)) = counts.get_mut(usize::from(label)) {
                *of_truth += 1;
            }
            if let Some((_, of_prediction)) = counts.get_mut(usize::from(predicted)) {
                *of_prediction += 1;
            }
        }
        let present = counts
            .iter()
            .enumerate()
            .filter(|(_, counts)| **counts != (0, 0));
        let mut present: Vec<_> = present.collect();
        present.sort_by_key(|(_, counts)| std::cmp::Reverse(**counts)); // stable: ties by label
        let share = |count: u64| count as f64 / pixels as f64;
        Ok(present
            .into_iter()
            .map(|(class, (truth, prediction))| Self {
                class,
                truth: share(*truth),
                prediction: share(*prediction),
            })
            .collect())
    }
}

/// Selects the images of the gallery: up to `each` best, median and worst ones.
///
/// - `scores`: id and score of every image
///
/// No image is selected twice. If there are few images, the best are selected first, then the worst, then the median
/// ones. Images with equal scores are selected in the order of their ids. Returns indices into `scores`: the best
/// images (best first), the median ones (nearest to the median first), the worst ones (worst first).
pub fn pick(scores: &[(&str, f64)], each: usize) -> Vec<(usize, Rank)> {
    pick_around(scores, each, median(scores.iter().map(|(_, score)| *score)))
}

/// Selects images like [`pick`], but with a given median.
pub(crate) fn pick_around(
    scores: &[(&str, f64)],
    each: usize,
    median: Option<f64>,
) -> Vec<(usize, Rank)> {
    let mut taken = BTreeSet::new();
    let mut claim = |rank: Rank, badness: &dyn Fn(f64) -> f64| {
        let mut order: Vec<(usize, f64, &str)> = scores
            .iter()
            .enumerate()
            .filter(|(position, (_, score))| score.is_finite() && !taken.contains(position))
            .map(|(position, (id, score))| (position, badness(*score), *id))
            .collect();
        order.sort_by(|a, b| a.1.total_cmp(&b.1).then_with(|| a.2.cmp(b.2)));
        order.truncate(each);
        taken.extend(order.iter().map(|(position, ..)| *position));
        order
            .into_iter()
            .map(move |(position, ..)| (position, rank))
    };
    let best = claim(Rank::Best, &|score| -score);
    let worst = claim(Rank::Worst, &|score| score);
    let middle = median.unwrap_or_default();
    let median = claim(Rank::Median, &|score| (score - middle).abs());
    best.chain(median).chain(worst).collect()
}

/// Returns the median of the finite values: the middle value, or the mean of the two middle ones.
pub(crate) fn median(values: impl Iterator<Item = f64>) -> Option<f64> {
    let mut values: Vec<f64> = values.filter(|value| value.is_finite()).collect();
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    let lower = *values.get(middle.checked_sub(1)?)?;
    Some(f64::midpoint(lower, upper))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn best_worst_and_median_are_chosen_once_each() {
        let scores = [
            ("a", 0.5),
            ("b", 0.9),
            ("c", 0.1),
            ("d", 0.4),
            ("e", 0.9),
            ("f", f64::NAN),
            ("g", 0.45),
        ];
        let names = |each| -> Vec<(&str, Rank)> {
            let chosen = pick(&scores, each).into_iter();
            chosen.map(|(at, rank)| (scores[at].0, rank)).collect()
        };
        // the median is 0.475
        assert_eq!(
            names(1),
            [("b", Rank::Best), ("g", Rank::Median), ("c", Rank::Worst)]
        );
        assert_eq!(
            names(2),
            [
                ("b", Rank::Best),
                ("e", Rank::Best),
                ("g", Rank::Median),
                ("a", Rank::Median),
                ("c", Rank::Worst),
                ("d", Rank::Worst)
            ]
        );
        assert_eq!(names(100).len(), 6);
        assert_eq!(pick(&[], 3), []);
    }

    #[test]
    fn shares_are_of_the_scored_pixels() {
        let shares = ClassShare::of((&[0, 2, 2, 255], &[0, 2, 1, 1]), 4, 255).unwrap();
        let third = 1.0 / 3.0;
        let values: Vec<_> = shares
            .iter()
            .map(|s| (s.class, s.truth, s.prediction))
            .collect();
        assert_eq!(
            values,
            [(2, 2.0 * third, third), (0, third, third), (1, 0.0, third)]
        );
        assert_eq!(ClassShare::of((&[255], &[0]), 1, 255).unwrap(), []);
    }

    #[test]
    fn the_median_is_the_middle() {
        assert_eq!(median([0.3, 0.1, 0.2].into_iter()), Some(0.2));
        assert_eq!(median([0.25, 0.75].into_iter()), Some(0.5));
        assert_eq!(median([f64::NAN].into_iter()), None);
    }
}
