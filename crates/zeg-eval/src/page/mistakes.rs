//! The most confused pairs of classes, and the model's bias towards the classes it was trained on.

use crate::{ClassRef, ConfusionMatrix};

/// Largest number of listed pairs.
const LISTED: usize = 15;
/// Smallest share of a class's pixels that is listed.
const LEAST: f64 = 0.01;

/// The confused classes of a confusion matrix.
pub(super) struct Mistakes {
    /// The most confused pairs, the largest share first.
    pub(super) pairs: Vec<Pair>,
    /// How pixels of seen and of unseen classes are predicted; empty without unseen classes.
    pub(super) sides: Vec<Side>,
}

/// A class with pixels that are predicted as another class.
pub(super) struct Pair {
    pub(super) truth: String,
    pub(super) truth_colour: [u8; 3],
    pub(super) prediction: String,
    pub(super) prediction_colour: [u8; 3],
    /// Share of the true class's pixels.
    pub(super) share: f64,
    pub(super) pixels: u64,
}

/// How pixels of seen or of unseen classes are predicted; shares, 0..=1.
pub(super) struct Side {
    pub(super) name: &'static str,
    pub(super) right: f64,
    pub(super) wrong_seen: f64,
    pub(super) wrong_unseen: f64,
}

impl Mistakes {
    /// Finds the confused classes; `None` if no pixels were counted.
    pub(super) fn of(confusion: &ConfusionMatrix, classes: &[ClassRef]) -> Option<Self> {
        if confusion.total() == 0 {
            return None;
        }
        let mut pairs = Vec::new();
        // Pixels of seen and of unseen classes: correct, predicted as a wrong seen class, as a wrong unseen class.
        let mut sides = [[0_u64; 3]; 2];
        for (truth, class) in classes.iter().enumerate() {
            let row = confusion.row(truth);
            let all: u64 = row.iter().sum();
            let [seen, unseen] = &mut sides;
            let side = if class.unseen { unseen } else { seen };
            for (prediction, (&pixels, other)) in row.iter().zip(classes).enumerate() {
                let [right, wrong_seen, wrong_unseen] = side;
                if prediction == truth {
                    *right += pixels;
                    continue;
                }
                if other.unseen {
                    *wrong_unseen += pixels;
                } else {
                    *wrong_seen += pixels;
                }
                let share = pixels as f64 / all.max(1) as f64;
                if share >= LEAST {
                    pairs.push((share, pixels, class, other));
                }
            }
        }
        pairs.sort_by(|a, b| b.0.total_cmp(&a.0).then(b.1.cmp(&a.1)));
        pairs.truncate(LISTED);
        let pair = |(share, pixels, truth, other): (f64, u64, &ClassRef, &ClassRef)| Pair {
            truth: truth.name.clone(),
            truth_colour: truth.colour,
            prediction: other.name.clone(),
            prediction_colour: other.colour,
            share,
            pixels,
        };
        let split =
            classes.iter().any(|class| class.unseen) && classes.iter().any(|class| !class.unseen);
        let side = |(name, counts): (&'static str, [u64; 3])| {
            let all: u64 = counts.iter().sum();
            let [right, wrong_seen, wrong_unseen] =
                counts.map(|count| count as f64 / all.max(1) as f64);
            (all > 0).then_some(Side {
                name,
                right,
                wrong_seen,
                wrong_unseen,
            })
        };
        let names = ["seen classes", "unseen classes"];
        let sides = names.into_iter().zip(sides).filter(|_| split);
        Some(Self {
            pairs: pairs.into_iter().map(pair).collect(),
            sides: sides.filter_map(side).collect(),
        })
    }
}
