//! The scores of all classes at single pixels, for "which classes compete here".

use std::io;

use serde::Serialize;
use utoipa::ToSchema;
use zeg::{
    image::{IGNORE_LABEL, LabelMap},
    session::{ScoredStrip, StripVisitor},
    vocab::classes::ClassQuery,
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

impl PointAnswer {
    /// Takes the label from a map that changed after the scores were computed.
    pub(crate) fn relabel(&mut self, labels: &LabelMap, classes: &[ClassQuery]) {
        let label = labels
            .get(self.x, self.y)
            .filter(|&label| label != IGNORE_LABEL);
        let class = label.and_then(|label| classes.get(usize::from(label)));
        self.label = label;
        self.class = class.map(|class| class.name.clone());
    }
}

/// A visitor of score strips that remembers the scores at some pixels.
#[derive(Debug)]
pub(crate) struct Points {
    names: Vec<String>,
    candidates: usize,
    /// The points, each with its place in the request.
    wanted: Vec<[usize; 2]>,
    answers: Vec<Option<PointAnswer>>,
}

impl Points {
    /// - `names`: class names, `[classes]`
    /// - `wanted`: the points, `[x, y]`, inside of the image
    /// - `candidates`: number of classes that are listed for each point
    pub(crate) fn new(names: Vec<String>, wanted: Vec<[usize; 2]>, candidates: usize) -> Self {
        Self {
            names,
            candidates,
            answers: vec![None; wanted.len()],
            wanted,
        }
    }

    /// Returns the answers in the order of the points.
    pub(crate) fn finish(self) -> Vec<PointAnswer> {
        self.answers.into_iter().flatten().collect()
    }

    /// - `labels`: of the row, `[width]`
    /// - `scores`: of the row, `[classes, width]`
    fn answer(&self, [x, y]: [usize; 2], labels: &[u16], scores: &[f32]) -> PointAnswer {
        let width = labels.len().max(1);
        let scores: Vec<f32> = scores.iter().skip(x).step_by(width).copied().collect();
        let mut order: Vec<usize> = (0..scores.len()).collect();
        order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]).then(a.cmp(&b)));
        let name = |label: usize| self.names.get(label).cloned().unwrap_or_default();
        let label = labels
            .get(x)
            .copied()
            .filter(|&label| label != IGNORE_LABEL);
        let best = order.into_iter().take(self.candidates);
        PointAnswer {
            x,
            y,
            label,
            class: label.map(|label| name(usize::from(label))),
            candidates: best
                .map(|label| PointCandidate {
                    class: name(label),
                    label: label as u16,
                    score: scores[label],
                })
                .collect(),
        }
    }
}

impl StripVisitor for Points {
    fn visit(&mut self, strip: &ScoredStrip) -> io::Result<()> {
        for (row, (labels, scores)) in strip.rows().enumerate() {
            let y = strip.first_row + row;
            for place in 0..self.wanted.len() {
                if self.wanted[place][1] == y {
                    self.answers[place] = Some(self.answer(self.wanted[place], labels, scores));
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
        let answers = points.finish();
        assert_eq!(answers[0].class, None);
        let best: Vec<_> = answers[0].candidates.iter().map(|c| c.label).collect();
        assert_eq!(best, [1, 2]);
        assert_eq!(answers[1].class.as_deref(), Some("c"));
        assert_eq!(answers[1].candidates[0].class, "c");
    }
}
