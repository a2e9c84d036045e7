//! The scores of all classes at single pixels, for "which classes compete here".

use std::io;

use serde::Serialize;
use utoipa::ToSchema;
use zeg::{
    image::{IGNORE_LABEL, LabelMap},
    session::{ScoredStrip, StripVisitor},
};

/// Most points of a request.
pub(crate) const MOST_POINTS: usize = 64;

/// The best classes at a pixel.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PointAnswer {
    /// Column.
    pub x: usize,
    /// Row.
    pub y: usize,
    /// Label of the pixel; `null` if it is unlabelled.
    pub label: Option<u16>,
    /// Name of its class; `null` if it is unlabelled.
    pub class: Option<String>,
    /// The classes with the highest scores, best first, background classes included.
    pub candidates: Vec<PointCandidate>,
}

/// A class with its score at a pixel.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct PointCandidate {
    /// The class's name.
    pub class: String,
    /// Its label.
    pub label: u16,
    /// Its score, 0 to 1.
    pub score: f32,
}

/// A visitor of score strips that remembers the scores at some pixels.
#[derive(Debug)]
pub(crate) struct Points {
    names: Vec<String>,
    candidates: usize,
    wanted: Vec<[usize; 2]>,
    /// The best classes at each point.
    best: Vec<Vec<PointCandidate>>,
}

impl Points {
    /// - `names`: class names, `[classes]`
    /// - `wanted`: the points, `[x, y]`, inside of the image
    /// - `candidates`: number of classes that are listed for each point
    pub(crate) fn new(names: Vec<String>, wanted: Vec<[usize; 2]>, candidates: usize) -> Self {
        Self {
            names,
            candidates,
            best: vec![Vec::new(); wanted.len()],
            wanted,
        }
    }

    /// Returns the answers in the order of the points.
    ///
    /// - `labels`: the label map of the answer, which may have changed after the scores were computed
    pub(crate) fn finish(self, labels: &LabelMap) -> Vec<PointAnswer> {
        let Self {
            names,
            wanted,
            best,
            ..
        } = self;
        let answer = |([x, y], candidates): ([usize; 2], _)| {
            let label = labels.get(x, y).filter(|&label| label != IGNORE_LABEL);
            PointAnswer {
                x,
                y,
                label,
                class: label.and_then(|label| names.get(usize::from(label)).cloned()),
                candidates,
            }
        };
        wanted.into_iter().zip(best).map(answer).collect()
    }

    /// Returns the best classes in a column of a row.
    ///
    /// - `scores`: `[classes, width]`
    fn best_at(&self, x: usize, width: usize, scores: &[f32]) -> Vec<PointCandidate> {
        let scores: Vec<f32> = scores
            .iter()
            .skip(x)
            .step_by(width.max(1))
            .copied()
            .collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let best = order.into_iter().take(self.candidates);
        best.map(|label| PointCandidate {
            class: self.names.get(label).cloned().unwrap_or_default(),
            label: label as u16,
            score: scores[label],
        })
        .collect()
    }
}

impl StripVisitor for Points {
    fn visit(&mut self, strip: &ScoredStrip) -> io::Result<()> {
        for (row, (_, scores)) in strip.rows().enumerate() {
            let y = strip.first_row + row;
            for place in 0..self.wanted.len() {
                let [x, wanted_row] = self.wanted[place];
                if wanted_row == y {
                    self.best[place] = self.best_at(x, strip.width, scores);
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scores_of_a_pixel_come_best_first() {
        let names = ["a", "b", "c"].map(str::to_owned).to_vec();
        let mut points = Points::new(names, vec![[1, 5], [0, 4]], 2);
        // Two rows of two columns.
        let strip = ScoredStrip {
            first_row: 4,
            classes: 3,
            width: 2,
            labels: &[2, 0, 1, IGNORE_LABEL],
            scores: vec![
                0.1, 0.5, 0.2, 0.3, 0.7, 0.2, //
                0.0, 0.2, 0.9, 0.4, 0.1, 0.4,
            ],
        };
        points.visit(&strip).unwrap();
        // The labels of the answer count, not those of the strip.
        let mut labels = vec![IGNORE_LABEL; 12];
        labels[8] = 2;
        let answers = points.finish(&LabelMap::new(2, 6, labels).unwrap());
        assert_eq!(
            (answers[0].label, answers[0].class.as_deref()),
            (None, None)
        );
        let best: Vec<_> = answers[0].candidates.iter().map(|c| c.label).collect();
        assert_eq!(best, [1, 2]);
        assert_eq!(answers[1].class.as_deref(), Some("c"));
        assert_eq!(answers[1].candidates[0].class, "c");
    }
}
