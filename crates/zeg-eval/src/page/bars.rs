//! Bars of the unseen classes: one group per class, one bar per evaluation, in the order of the evaluations.
//!
//! As for training curves, only the bars are drawn, and the page stretches the drawing to its width. Names and values
//! are text of the page, and every bar has the number of its evaluation, so that no colour is needed to read it.

use super::classes::{ClassGroup, ClassRow};
use super::text::percent;

/// Distance from one bar to the next, in units of the drawing.
const PITCH: usize = 10;
/// Distance from the top of a bar's place to the bar.
const GAP: usize = 1;
/// Length of a bar of 100 %, in units of the drawing.
const WHOLE: f64 = 1000.0;

/// The bars of all unseen classes, the best of the first evaluation first; many classes are shown in three parts.
pub(super) struct Bars {
    pub(super) first: Vec<BarGroup>,
    pub(super) folded: Vec<BarGroup>,
    pub(super) last: Vec<BarGroup>,
}

/// The bars of one class.
pub(super) struct BarGroup {
    pub(super) class: String,
    /// Height of the drawing.
    pub(super) height: usize,
    pub(super) bars: Vec<Bar>,
    /// Alternative text: the class and the value of every evaluation.
    pub(super) alt: String,
}

/// The bar of one evaluation.
pub(super) struct Bar {
    /// Index of the evaluation, from 0.
    pub(super) run: usize,
    pub(super) top: usize,
    pub(super) length: String,
    /// In percent; a dash if the class has no score.
    pub(super) value: String,
}

impl Bars {
    /// Returns the bars of the unseen classes; `None` for a single evaluation and without scores of unseen classes.
    ///
    /// - `names`: the name of every evaluation
    pub(super) fn of(classes: &[ClassGroup], names: &[String]) -> Option<Self> {
        if names.len() < 2 {
            return None;
        }
        let unseen = classes.iter().find(|group| group.kind == "unseen")?;
        let (first, folded, last) = unseen.parts();
        let groups = |rows: &[ClassRow]| -> Vec<BarGroup> {
            rows.iter().map(|row| BarGroup::of(row, names)).collect()
        };
        (!first.is_empty()).then(|| Self {
            first: groups(first),
            folded: groups(folded),
            last: groups(last),
        })
    }
}

impl BarGroup {
    fn of(row: &ClassRow, names: &[String]) -> Self {
        let bars = row.each.iter().enumerate().map(|(run, score)| Bar {
            run,
            top: run * PITCH + GAP,
            length: format!("{:.1}", WHOLE * score.unwrap_or_default().clamp(0.0, 1.0)),
            value: percent(*score),
        });
        let said = names.iter().zip(&row.each).map(|(name, score)| {
            let value = score.map_or_else(|| "no score".to_owned(), |score| percent(Some(score)));
            format!("{name} {value}")
        });
        let said: Vec<String> = said.collect();
        Self {
            class: row.name.clone(),
            height: row.each.len() * PITCH,
            bars: bars.collect(),
            alt: format!("{}: {}", row.name, said.join(", ")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_class_without_a_score_has_no_bar() {
        let row = ClassRow {
            name: "sheep".into(),
            colour: [0; 3],
            iou: None,
            dice: None,
            acc: None,
            each: vec![None, Some(0.5)],
            score: 0.5,
            share: 0.1,
        };
        let group = BarGroup::of(&row, &["CLIP".to_owned(), "ZegCLIP".to_owned()]);
        assert_eq!(group.alt, "sheep: CLIP no score, ZegCLIP 50.00");
        let bars: Vec<_> = group
            .bars
            .iter()
            .map(|bar| (bar.top, bar.length.as_str(), bar.value.as_str()))
            .collect();
        assert_eq!(bars, [(1, "0.0", "–"), (11, "500.0", "50.00")]);
        assert_eq!(group.height, 20);
    }
}
