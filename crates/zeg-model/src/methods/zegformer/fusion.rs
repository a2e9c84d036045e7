//! Combines two kinds of class scores of mask queries: from the query's own vector, and from CLIP on the crop of its
//! mask.

use serde::{Deserialize, Serialize};

use crate::mask_transformer::masks::softmax;

/// The combination of the two kinds of scores.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(rename_all = "kebab-case")]
pub enum Fusion {
    /// Geometric means: for a seen class, of the query's score and CLIP's mean over the seen classes; for an unseen
    /// class, of the query's and CLIP's score with the weights exchanged ("ENSEMBLING").
    #[default]
    SeenUnseen,
    /// The formula for unseen classes, used for every class ("ENSEMBLING_ALL_CLS").
    AllClasses,
    /// CLIP's score; of the query's own scores, only "no object" is used.
    ClipAlone,
    /// The query's own score; CLIP encodes no crop.
    QueryAlone,
}

/// Weight of the more trusted of the two scores, as fixed in the reference's source.
pub const TRUST: f64 = 2.0 / 3.0;

/// The class logits of all mask queries of one image.
#[derive(Debug, Clone)]
pub struct ClassLogits {
    /// Logits of the queries' own vectors, "no object" last: `[queries, classes + 1]`
    pub own: Vec<f32>,
    /// CLIP's logits of the crops: `[queries, classes]`; `None` if CLIP encoded no crop.
    pub clip: Option<Vec<f32>>,
    /// Number of classes.
    pub classes: usize,
}

impl ClassLogits {
    /// Returns CLIP's logits with the query's own "no object" appended: `[queries, classes + 1]`; `None` without CLIP.
    pub fn clip_with_no_object(&self) -> Option<Vec<f32>> {
        let rows = self.own.chunks_exact(self.classes + 1);
        let clip = self.clip.as_ref()?.chunks_exact(self.classes.max(1));
        let joined = rows.zip(clip).flat_map(|(own, clip)| {
            let no_object = own.last().copied();
            clip.iter().copied().chain(no_object)
        });
        Some(joined.collect())
    }

    /// Computes scores `[queries, classes]`; without CLIP's logits, from the queries' own only.
    ///
    /// - `seen`: `[classes]`
    pub fn scores(&self, fusion: Fusion, seen: &[bool]) -> Vec<f32> {
        let width = self.classes + 1;
        let own = self.own.chunks_exact(width).map(softmax);
        let Some(clip) = self
            .clip_with_no_object()
            .filter(|_| fusion != Fusion::QueryAlone)
        else {
            return own.flat_map(|p| rounded(&p[..self.classes])).collect();
        };
        let clip = clip.chunks_exact(width).map(softmax);
        own.zip(clip)
            .flat_map(|(own, clip)| {
                let (own, clip) = (&own[..self.classes], &clip[..self.classes]);
                rounded(&fuse(fusion, own, clip, seen))
            })
            .collect()
    }
}

/// Combines one query's scores: `[classes]`.
fn fuse(fusion: Fusion, own: &[f64], clip: &[f64], seen: &[bool]) -> Vec<f64> {
    let (more, less) = (TRUST, 1.0 - TRUST);
    let is_seen = |class: usize| seen.get(class) == Some(&true);
    let of_seen: Vec<f64> = (0..own.len())
        .filter(|&class| is_seen(class))
        .map(|class| clip[class])
        .collect();
    let mean = of_seen.iter().sum::<f64>() / of_seen.len().max(1) as f64;
    let score = |class: usize| match fusion {
        Fusion::QueryAlone => own[class],
        Fusion::ClipAlone => clip[class],
        Fusion::SeenUnseen if is_seen(class) => own[class].powf(more) * mean.powf(less),
        Fusion::SeenUnseen | Fusion::AllClasses => own[class].powf(less) * clip[class].powf(more),
    };
    (0..own.len()).map(score).collect()
}

fn rounded(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Returns one query whose own probabilities are ½, ¼ and ¼ (no object), and CLIP's ¼, ½ and ¼.
    fn logits() -> ClassLogits {
        let two = 2.0_f32.ln();
        ClassLogits {
            own: vec![two, 0.0, 0.0],
            clip: Some(vec![0.0, two]),
            classes: 2,
        }
    }

    #[test]
    fn seen_classes_trust_the_query_and_unseen_ones_clip() {
        let scores = |fusion| logits().scores(fusion, &[true, false]);
        let close = |found: Vec<f32>, expected: [f64; 2]| {
            for (found, expected) in found.into_iter().zip(expected) {
                assert!(
                    (f64::from(found) - expected).abs() < 1e-6,
                    "{found} {expected}"
                );
            }
        };
        let third = 1.0 / 3.0;
        let unseen = 0.25_f64.powf(third) * 0.5_f64.powf(2.0 * third);
        let seen = 0.5_f64.powf(2.0 * third) * 0.25_f64.powf(third);
        close(scores(Fusion::SeenUnseen), [seen, unseen]);
        let first = 0.5_f64.powf(third) * 0.25_f64.powf(2.0 * third);
        close(scores(Fusion::AllClasses), [first, unseen]);
        close(scores(Fusion::ClipAlone), [0.25, 0.5]);
        close(scores(Fusion::QueryAlone), [0.5, 0.25]);
        let without = ClassLogits {
            clip: None,
            ..logits()
        };
        close(
            without.scores(Fusion::SeenUnseen, &[true, false]),
            [0.5, 0.25],
        );
    }
}
