//! Combines two kinds of class scores of mask queries: from the query's own vector, and from CLIP on the crop of its mask.

use serde::{Deserialize, Serialize};

use crate::mask_transformer::masks::softmax;

/// The combination of the two kinds of scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Ensemble {
    /// Geometric mean that trusts the query's score for a seen class and CLIP's for an unseen one.
    #[default]
    SeenUnseen,
    /// The formula for unseen classes, used for every class: for data sets other than that of the training.
    AllUnseen,
    /// CLIP's score alone; queries with an empty mask have none.
    CropsAlone,
    /// The query's own score alone; CLIP encodes no crop.
    QueriesAlone,
}

/// The class logits of all mask queries of one image.
#[derive(Debug, Clone)]
pub struct RegionLogits {
    /// Logits of the queries' own vectors, "no object" last: `[queries, classes + 1]`
    pub own: Vec<f32>,
    /// CLIP's logits of the crops, `[queries with a crop, classes]`; `None` if CLIP is not used.
    pub crops: Option<Vec<f32>>,
    /// The queries that have a crop, in ascending order.
    pub valid: Vec<usize>,
    /// Number of classes.
    pub classes: usize,
}

impl RegionLogits {
    /// Computes scores `[queries, classes]`; without CLIP's logits, from the queries' own only.
    ///
    /// - `weight`: exponent of the more trusted score, 0 to 1
    /// - `seen`: `[classes]`
    pub fn scores(&self, fusion: Ensemble, weight: f64, seen: &[bool]) -> Vec<f32> {
        let own = self.own.chunks_exact(self.classes + 1).map(softmax);
        let crops = match (&self.crops, fusion) {
            (None, _) | (_, Ensemble::QueriesAlone) => {
                return own.flat_map(|p| rounded(&p[..self.classes])).collect();
            }
            (Some(crops), _) => crops.chunks_exact(self.classes.max(1)),
        };
        let mut of_query = vec![None; self.own.len() / (self.classes + 1)];
        for (&query, row) in self.valid.iter().zip(crops) {
            of_query[query] = Some(softmax(row));
        }
        let pairs = own.zip(of_query);
        pairs
            .flat_map(|(own, crop)| {
                let own = &own[..self.classes];
                rounded(&combine(fusion, weight, own, crop.as_deref(), seen))
            })
            .collect()
    }
}

/// Combines one query's scores: `[classes]`.
fn combine(
    fusion: Ensemble,
    weight: f64,
    own: &[f64],
    crop: Option<&[f64]>,
    seen: &[bool],
) -> Vec<f64> {
    let score = |class: usize| {
        // Without a crop, CLIP's factor is 1 for every class.
        let clip = crop.map_or(1.0, |crop| crop[class]);
        let trusts_itself = fusion == Ensemble::SeenUnseen && seen.get(class) == Some(&true);
        match fusion {
            Ensemble::CropsAlone => crop.map_or(0.0, |crop| crop[class]),
            _ if trusts_itself => own[class].powf(weight) * clip.powf(1.0 - weight),
            _ => own[class].powf(1.0 - weight) * clip.powf(weight),
        }
    };
    (0..own.len()).map(score).collect()
}

fn rounded(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns two queries whose own probabilities are ½, ¼ and ¼ (no object); CLIP's are 1/3 and 2/3 for the first, and
    /// the second has no crop.
    fn logits() -> RegionLogits {
        let two = 2.0_f32.ln();
        RegionLogits {
            own: vec![two, 0.0, 0.0, two, 0.0, 0.0],
            crops: Some(vec![0.0, two]),
            valid: vec![0],
            classes: 2,
        }
    }

    #[test]
    fn seen_classes_trust_the_query_and_unseen_ones_clip() {
        let scores = |fusion| logits().scores(fusion, 0.8, &[true, false]);
        let close = |found: Vec<f32>, expected: [f64; 4]| {
            for (found, expected) in found.iter().zip(expected) {
                assert!(
                    (f64::from(*found) - expected).abs() < 1e-6,
                    "{found} {expected}"
                );
            }
        };
        let (third, two_thirds) = (1.0_f64 / 3.0, 2.0_f64 / 3.0);
        let unseen = 0.25_f64.powf(0.2) * two_thirds.powf(0.8);
        let seen = 0.5_f64.powf(0.8) * third.powf(0.2);
        close(
            scores(Ensemble::SeenUnseen),
            [seen, unseen, 0.5_f64.powf(0.8), 0.25_f64.powf(0.2)],
        );
        let first = 0.5_f64.powf(0.2) * third.powf(0.8);
        close(
            scores(Ensemble::AllUnseen),
            [first, unseen, 0.5_f64.powf(0.2), 0.25_f64.powf(0.2)],
        );
        close(scores(Ensemble::CropsAlone), [third, two_thirds, 0.0, 0.0]);
        close(scores(Ensemble::QueriesAlone), [0.5, 0.25, 0.5, 0.25]);
        let without = RegionLogits {
            crops: None,
            ..logits()
        };
        let found = without.scores(Ensemble::SeenUnseen, 0.8, &[true, false]);
        close(found, [0.5, 0.25, 0.5, 0.25]);
    }
}
