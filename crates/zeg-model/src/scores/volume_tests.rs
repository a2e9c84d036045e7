//! Compares tiles with whole volumes of scores, `[height, classes, width]`, computed pixel by pixel.

use zeg_image::{IGNORE_LABEL, sliding_windows};

use super::*;
use crate::window_scores::sigmoids;

const CLASSES: usize = 5;

fn noise(count: usize, seed: u32) -> Vec<f32> {
    let values = (0..count as u32).map(|i| (i + seed).wrapping_mul(2_654_435_761) >> 8);
    values.map(|value| value as f32 / 1e6 - 8.0).collect()
}

fn between(values: &[f32], &(low, high, by): &(usize, usize, f32)) -> f32 {
    values[low] * (1.0 - by) + values[high] * by
}

/// Interpolates a map of `width` columns at a place.
fn at(map: &[f32], width: usize, row: &(usize, usize, f32), column: &(usize, usize, f32)) -> f32 {
    let line = |x: usize| map[row.0 * width + x] * (1.0 - row.2) + map[row.1 * width + x] * row.2;
    line(column.0) * (1.0 - column.2) + line(column.1) * column.2
}

fn score(scoring: Scoring, logit: f32) -> f32 {
    match scoring {
        Scoring::Sigmoid => 1.0 / (1.0 + (-logit).exp()),
        Scoring::Softmax | Scoring::MaskSum => logit,
    }
}

/// Returns a window's score of a class at a pixel of it.
fn window_score(
    field: &ScoreField,
    placed: &PlacedScores,
    class: usize,
    y: usize,
    x: usize,
) -> f32 {
    match &placed.content {
        Content::Logits(logits) => {
            let [h, w] = logits.grid;
            let map = &logits.values[class * h * w..][..h * w];
            let (row, column) = (&logits.rows[y], &logits.columns[x]);
            let Some([rows, columns]) = &logits.scored else {
                return score(field.scoring, at(map, w, row, column));
            };
            let values: Vec<f32> = rows
                .iter()
                .flat_map(|row| columns.iter().map(move |column| at(map, w, row, column)))
                .map(|logit| score(field.scoring, logit))
                .collect();
            at(&values, columns.len(), row, column)
        }
        Content::Masks(masks) => {
            let (pair, queries) = masks.row(y, &(0..3));
            let weights = masks.class_scores();
            (0..queries).fold(0.0, |sum, query| {
                let start = query * pair.stride;
                let line: Vec<f32> = (start..start + pair.length)
                    .map(|x| pair.top[x] * (1.0 - pair.fraction) + pair.bottom[x] * pair.fraction)
                    .collect();
                let share = score(Scoring::Sigmoid, between(&line, &masks.columns()[x]));
                sum + weights[query * CLASSES + class] * share
            })
        }
    }
}

/// Returns a score of the field: the mean over the windows of each layer, then over the layers.
fn field_score(field: &ScoreField, class: usize, y: usize, x: usize) -> f32 {
    let layers = (0..field.layers).map(|layer| {
        let (mut sum, mut count) = (0.0, 0.0_f32);
        for placed in field.windows.iter().filter(|placed| placed.layer == layer) {
            let Window {
                x: left,
                y: top,
                width,
                height,
            } = placed.window;
            if (top..top + height).contains(&y) && (left..left + width).contains(&x) {
                sum += window_score(field, placed, class, y - top, x - left);
                count += 1.0;
            }
        }
        sum / count.max(1.0)
    });
    let sum = layers.reduce(|sum, score| sum + score).unwrap();
    sum / field.layers as f32 - field.offsets.get(class).copied().unwrap_or(0.0)
}

/// Returns all scores of a field at an image's size.
fn volume(field: &ScoreField, is_mirrored: bool, [height, width]: [usize; 2]) -> Vec<f32> {
    let (rows, columns) = (taps(field.height, height), taps(field.width, width));
    let mut values = Vec::new();
    for row in &rows {
        for class in 0..CLASSES {
            let line: Vec<f32> = (0..field.width)
                .map(|x| {
                    let of_row = |y: usize| field_score(field, class, y, x);
                    of_row(row.0) * (1.0 - row.2) + of_row(row.1) * row.2
                })
                .collect();
            let mut scores: Vec<f32> = columns.iter().map(|c| between(&line, c)).collect();
            if is_mirrored {
                scores.reverse();
            }
            values.extend(scores);
        }
    }
    values
}

/// What the windows of a field are.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Logits,
    ScoredAt,
    Masks,
    Layers,
}

fn field(kind: Kind, scoring: Scoring, [height, width]: [usize; 2]) -> ScoreField {
    let offsets = vec![0.0, 0.25, 0.0, 0.0, 0.125];
    let mut field = ScoreField::new(CLASSES, [height, width], scoring, offsets);
    let layers = if let Kind::Layers = kind { 2 } else { 1 };
    for (index, window) in sliding_windows(width, height, 9, 6).into_iter().enumerate() {
        let padded = [window.height, window.width].map(|side| side.next_multiple_of(4));
        let grid = [2, 3];
        let content = if let Kind::Masks = kind {
            let masks = QueryMasks {
                values: noise(4 * 6, index as u32),
                queries: 4,
                grid,
            };
            let class_scores = noise(4 * CLASSES, 90 + index as u32);
            Content::Masks(Box::new(WeightedMasks::new(masks, class_scores, padded)))
        } else {
            let values = noise(CLASSES * 6, index as u32);
            let logits = WindowLogits::new(window, values, grid, padded);
            Content::Logits(match kind {
                Kind::ScoredAt => logits.scored_at([5, 7], padded),
                _ => logits,
            })
        };
        field.windows.push_back(PlacedScores {
            window,
            layer: index % layers,
            content,
        });
    }
    field.with_layers(layers)
}

fn bits(values: &[f32]) -> Vec<u32> {
    values.iter().map(|value| value.to_bits()).collect()
}

#[test]
fn tiles_give_the_scores_of_whole_volumes_to_the_bit() {
    for kind in [Kind::Logits, Kind::ScoredAt, Kind::Masks, Kind::Layers] {
        for scoring in [Scoring::Sigmoid, Scoring::Softmax] {
            for (of_field, size) in [
                ([9, 8], [9, 8]),
                ([20, 21], [20, 21]),
                ([20, 21], [13, 200]),
                ([7, 150], [19, 70]),
                ([7, 150], [7, 70]),
            ] {
                let field = field(kind, scoring, of_field);
                let expected = volume(&field, false, size);
                let found = field.strip(0..size[0], size);
                assert_eq!(
                    bits(found.values()),
                    bits(&expected),
                    "{kind:?} {scoring:?} {size:?}"
                );
                let mut again = Vec::new();
                field.each_strip(size, |strip| again.extend_from_slice(strip.values()));
                assert_eq!(again, expected);
            }
        }
    }
}

/// Labels, confidence and ties of a mean of two fields, for two maps, beside those of the whole volume.
#[test]
fn labels_from_tiles_are_those_of_whole_volumes() {
    let (size, first, second) = ([18, 150], [18, 150], [9, 40]);
    let lowered = [vec![0.0, 0.5, 0.0, 0.5, 0.0], vec![0.0; CLASSES]];
    for scoring in [Scoring::Sigmoid, Scoring::Softmax] {
        let (first, second) = (
            field(Kind::Logits, scoring, first),
            field(Kind::Layers, scoring, second),
        );
        let mirrored = volume(&second, true, size);
        let mean = volume(&first, false, size).into_iter().zip(mirrored);
        let mean: Vec<f32> = mean.map(|(one, two)| f32::midpoint(one, two)).collect();
        let rule = Labelling::threshold(Some(0.55));
        let task = LabelTask {
            rule: &rule,
            lowered: &lowered,
            offsets: &[],
        };
        let pixels = size[0] * size[1];
        let mut maps = vec![vec![7; pixels]; 2];
        let mut confidence = vec![0.0; pixels];
        let fields = MeanScores::new(&[(false, &first), (true, &second)], size);
        let labels = maps.iter_mut().map(|map| &mut map[..]).collect();
        let mut scores = vec![5.0; mean.len()];
        let found = Found {
            maps: labels,
            confidence: Some(&mut confidence),
            scores: Some(&mut scores),
        };
        assert!(!fields.label(0..size[0], &task, found, true));
        let strip = fields.strip(0..size[0], vec![3.0; 5]);
        assert_eq!(bits(strip.values()), bits(&mean));
        let mut of_first = mean.clone();
        for (row, values) in of_first.chunks_exact_mut(CLASSES * size[1]).enumerate() {
            for (values, class) in values.chunks_exact_mut(size[1]).zip(0..) {
                for value in values.iter_mut() {
                    *value -= lowered[0][class];
                }
            }
            crate::strip::to_scores(zeg_kernels::Level::current(), scoring, values, size[1]);
            let found = &scores[row * CLASSES * size[1]..][..values.len()];
            assert_eq!(bits(found), bits(values), "{scoring:?}, row {row}");
        }
        for (number, map) in maps.iter().enumerate() {
            for (pixel, &label) in map.iter().enumerate() {
                let (y, x) = (pixel / size[1], pixel % size[1]);
                let of = |class: usize| {
                    mean[(y * CLASSES + class) * size[1] + x] - lowered[number][class]
                };
                let best = (1..CLASSES).fold(0, |best, c| if of(c) > of(best) { c } else { best });
                let sum = (0..CLASSES).fold(0.0, |sum, class| sum + (of(class) - of(best)).exp());
                let score = match scoring {
                    Scoring::Softmax => 1.0 / sum,
                    Scoring::Sigmoid | Scoring::MaskSum => of(best),
                };
                let admitted = if score >= 0.55 {
                    best as u16
                } else {
                    IGNORE_LABEL
                };
                assert_eq!(label, admitted, "{scoring:?}, map {number}, pixel {pixel}");
                if number == 0 {
                    assert_eq!(confidence[pixel].to_bits(), score.clamp(0.0, 1.0).to_bits());
                }
            }
        }
    }
}

#[test]
fn equal_scores_everywhere_are_a_tie_in_tiles_too() {
    let mut field = ScoreField::new(3, [4, 100], Scoring::Sigmoid, Vec::new());
    let window = sliding_windows(100, 4, 100, 100).remove(0);
    field.push(WindowLogits::new(window, vec![0.25; 6], [1, 2], [4, 100]));
    let rule = Labelling::default();
    let task = LabelTask {
        rule: &rule,
        lowered: &[],
        offsets: &[],
    };
    let mut labels = vec![9; 400];
    let mean = MeanScores::new(&[(false, &field)], [4, 100]);
    let mut label = |may_tie| {
        let found = Found {
            maps: vec![&mut labels],
            ..Found::default()
        };
        mean.label(0..4, &task, found, may_tie)
    };
    assert!(label(true) && !label(false));
    assert!(labels.iter().all(|&label| label == 0));
}

/// Scores of the kernels are those of the formula with the C library's function.
#[test]
fn sigmoids_are_those_of_the_formula() {
    let x = noise(1000, 1);
    let mut found = x.clone();
    sigmoids(zeg_kernels::Level::current(), &mut found);
    let expected: Vec<f32> = x.iter().map(|x| 1.0 / (1.0 + (-x).exp())).collect();
    assert_eq!(bits(&found), bits(&expected));
}
