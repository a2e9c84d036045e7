//! Tests of strips, their labels and their memory.

use proptest::prelude::*;
use zeg_image::{IGNORE_LABEL, sliding_windows};

use super::*;

/// Returns a field of two classes whose logits depend on the position, over windows of 8 pixels with patches of 4.
fn field(height: usize, width: usize, scoring: Scoring) -> ScoreField {
    let mut field = ScoreField::new(2, [height, width], scoring, vec![0.1, 0.0]);
    for (index, window) in sliding_windows(width, height, 8, 5).into_iter().enumerate() {
        let padded = [
            window.height.next_multiple_of(4),
            window.width.next_multiple_of(4),
        ];
        let grid = padded.map(|side| side / 4);
        let count = 2 * grid[0] * grid[1];
        let values = (0..count)
            .map(|i| ((i * 7 + index * 3) % 11) as f32 - 5.0)
            .collect();
        field.push(WindowLogits::new(window, values, grid, padded));
    }
    field
}

proptest! {
    #[test]
    fn strips_do_not_depend_on_where_they_are_cut(
        height in 1_usize..30, width in 1_usize..30, out_h in 1_usize..40, out_w in 1_usize..40, cut in 1_usize..40,
    ) {
        for scoring in [Scoring::Sigmoid, Scoring::Softmax] {
            let field = field(height, width, scoring);
            let whole = field.strip(0..out_h, [out_h, out_w]);
            let cut = cut.min(out_h);
            let mut parts = field.strip(0..cut, [out_h, out_w]).values;
            parts.extend(field.strip(cut..out_h, [out_h, out_w]).values);
            prop_assert_eq!(&parts, &whole.values);
            prop_assert_eq!(whole.rows(), out_h);
        }
    }

    #[test]
    fn a_window_that_ends_above_a_strip_is_not_missed(height in 9_usize..40, width in 1_usize..20) {
        let whole = field(height, width, Scoring::Sigmoid);
        let row = height - 1;
        let expected = whole.rows(row..height);
        let mut shortened = whole;
        shortened.forget_above(row);
        prop_assert_eq!(shortened.rows(row..height), expected);
    }

    #[test]
    fn scores_of_competing_classes_add_up_to_one(height in 1_usize..12, width in 1_usize..12) {
        let strip = field(height, width, Scoring::Softmax).strip(0..height, [height, width]);
        for row in 0..height {
            let scores = strip.scores(row);
            for x in 0..width {
                prop_assert!((scores[x] + scores[width + x] - 1.0).abs() < 1e-5);
            }
        }
    }
}

#[test]
fn confidence_is_the_score_of_the_best_class() {
    for scoring in [Scoring::Sigmoid, Scoring::Softmax] {
        let strip = field(9, 7, scoring).strip(0..9, [9, 7]);
        let (mut labels, mut confidence) = (vec![0; 63], vec![0.0; 63]);
        strip.label(&Labelling::default(), &mut labels, Some(&mut confidence));
        for row in 0..9 {
            let scores = strip.scores(row);
            for x in 0..7 {
                let (label, best_score) = (labels[row * 7 + x], confidence[row * 7 + x]);
                let of = |class: usize| scores[class * 7 + x];
                assert!((of(usize::from(label)) - best_score).abs() < 1e-6);
                assert!(of(0).max(of(1)) <= best_score + 1e-6);
            }
        }
    }
}

#[test]
fn the_bytes_of_a_strip_are_those_that_it_holds() {
    let field = field(20, 14, Scoring::Sigmoid);
    let strip = field.strip(0..6, [30, 21]);
    let bytes = size_of_val(strip.values()) as u64;
    assert_eq!(field.bytes_of_rows(6, 21), bytes);
}

#[test]
fn equal_scores_of_all_classes_are_a_tie_under_every_scoring() {
    for scoring in [Scoring::Sigmoid, Scoring::Softmax, Scoring::MaskSum] {
        let offsets = vec![0.1, 0.0];
        let tied = |values: Vec<f32>| {
            let mut field = ScoreField::new(2, [8, 8], scoring, offsets.clone());
            let window = sliding_windows(8, 8, 8, 8).remove(0);
            field.push(WindowLogits::new(window, values, [2, 2], [8, 8]));
            field.strip(0..8, [8, 8]).is_tied(&offsets)
        };
        assert!(tied(vec![0.25; 8]), "{scoring:?}");
        assert!(
            tied(vec![1.0, 2.0, 3.0, 4.0, 1.0, 2.0, 3.0, 4.0]),
            "{scoring:?}"
        );
        let mut one_differs = vec![0.25; 8];
        one_differs[6] = 0.26;
        assert!(!tied(one_differs), "{scoring:?}");
    }
    // The calibration alone is no difference between classes, and a single class is no tie.
    assert!(
        !field(8, 8, Scoring::Sigmoid)
            .strip(0..8, [8, 8])
            .is_tied(&[0.1, 0.0])
    );
    let mut single = ScoreField::new(1, [8, 8], Scoring::Sigmoid, Vec::new());
    let window = sliding_windows(8, 8, 8, 8).remove(0);
    single.push(WindowLogits::new(window, vec![0.25; 4], [2, 2], [8, 8]));
    assert!(!single.strip(0..8, [8, 8]).is_tied(&[]));
}

#[test]
fn thresholds_and_background_classes_give_the_ignore_index() {
    let strip = field(9, 7, Scoring::Softmax).strip(0..9, [9, 7]);
    let mut all = vec![0; 63];
    strip.label(&Labelling::default(), &mut all, None);
    assert!(all.contains(&0) && all.contains(&1));
    let labelled = |rule: &Labelling| {
        let mut labels = vec![0; 63];
        strip.label(rule, &mut labels, None);
        labels
    };
    let without_first = Labelling {
        background: vec![true, false],
        ..Labelling::default()
    };
    let expected: Vec<u16> = all
        .iter()
        .map(|&l| if l == 0 { IGNORE_LABEL } else { l })
        .collect();
    assert_eq!(labelled(&without_first), expected);
    assert!(
        labelled(&Labelling::threshold(Some(1.1)))
            .iter()
            .all(|&l| l == IGNORE_LABEL)
    );
    let second_hard = Labelling {
        class_thresholds: vec![None, Some(1.1)],
        ..Labelling::default()
    };
    let expected: Vec<u16> = all
        .iter()
        .map(|&l| if l == 1 { IGNORE_LABEL } else { l })
        .collect();
    assert_eq!(labelled(&second_hard), expected);
}
