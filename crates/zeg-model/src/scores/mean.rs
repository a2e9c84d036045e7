//! Scores at the size of an image, computed a row of a few columns at a time.
//!
//! A tile is one row of some columns with all classes, small enough for the second-level cache. Labels are read from a
//! tile and the next one is computed into the same memory, so that the scores of an image are never written to main
//! memory; only a reader of all scores gets them, as strips of rows.

use std::{
    ops::Range,
    sync::atomic::{AtomicBool, Ordering},
};

use rayon::prelude::*;
use zeg_kernels::{
    Level,
    score_rows::{add, divide},
};

use super::{
    ScoreField,
    resampled::{CachedRow, FieldScratch, Out, Place, Resampled},
};
use crate::{
    method::Scoring,
    strip::{LabelRows, Labelling, Rows, Strip, Ties, to_scores},
};

/// Bytes of a tile, unless that is too few columns.
const TILE_BYTES: usize = 256 << 10;
/// Least columns of a tile.
const LEAST_COLUMNS: usize = 64;
/// Most rows that a thread takes at once: rows of the field are computed once for all of them.
const BLOCK_ROWS: usize = 16;

/// The mean of score fields at the size of an image.
pub struct MeanScores<'a> {
    fields: Vec<Resampled<'a>>,
    classes: usize,
    size: [usize; 2],
    scoring: Scoring,
    /// Columns of each tile.
    tiles: Vec<Range<usize>>,
    level: Level,
}

/// What to label, and how.
#[derive(Debug, Clone, Copy)]
pub struct LabelTask<'t> {
    /// The conditions of a label.
    pub rule: &'t Labelling,
    /// For each label map, what is subtracted from the scores first: `[classes]`, or empty for nothing.
    pub lowered: &'t [Vec<f32>],
    /// `[classes]`: what was subtracted from the scores of the fields, for recognising ties; empty for nothing.
    pub offsets: &'t [f32],
}

impl<'t> LabelTask<'t> {
    fn lowered_of(&self, map: usize) -> &'t [f32] {
        self.lowered.get(map).map_or(&[], |by| by)
    }
}

/// Memory for what is found in some rows.
#[derive(Debug, Default)]
pub struct Found<'r> {
    /// For each map of the task, the class of every pixel: `[rows, width]`
    pub maps: Vec<&'r mut [u16]>,
    /// The best score of the first map, as in [`Strip::label`]: `[rows, width]`
    pub confidence: Option<&'r mut [f32]>,
    /// The scores of the first map from 0 to 1: `[rows, classes, width]`
    pub scores: Option<&'r mut [f32]>,
}
/// Memory of one thread.
#[derive(Default)]
struct Scratch {
    /// For each field, the two rows that were used last.
    rows: Vec<[CachedRow; 2]>,
    tile: Vec<f32>,
    /// The tile of a further field.
    other: Vec<f32>,
    best: Vec<f32>,
    field: FieldScratch,
}

impl<'a> MeanScores<'a> {
    /// Returns the mean of fields at the size `[height, width]`, each with whether it is mirrored; the first one gives
    /// the number of classes.
    pub fn new(fields: &[(bool, &'a ScoreField)], [height, width]: [usize; 2]) -> Self {
        let first = fields.first().map(|(_, field)| *field);
        let classes = first.map_or(0, ScoreField::classes);
        let fits = TILE_BYTES / (classes.max(1) * size_of::<f32>());
        let has_whole_rows = fields.iter().any(|(_, field)| field.has_whole_rows());
        let columns = if has_whole_rows { width } else { fits };
        let columns = columns.max(LEAST_COLUMNS).next_multiple_of(LEAST_COLUMNS);
        let tiles: Vec<Range<usize>> = (0..width)
            .step_by(columns)
            .map(|first| first..(first + columns).min(width))
            .collect();
        let resampled = |&(is_mirrored, field): &(bool, &'a ScoreField)| {
            Resampled::new(field, is_mirrored, [height, width], &tiles)
        };
        Self {
            fields: fields.iter().map(resampled).collect(),
            classes,
            size: [height, width],
            scoring: first.map_or_else(Scoring::default, |field| field.scoring),
            tiles,
            level: Level::current(),
        }
    }

    /// Computes the scores of some rows.
    ///
    /// - `buffer`: memory for them, whose values do not count
    pub fn strip(&self, rows: Range<usize>, mut buffer: Vec<f32>) -> Strip {
        let width = self.size[1];
        let row_length = self.classes * width;
        buffer.resize(rows.len() * row_length, 0.0);
        let block = block_rows(rows.len());
        buffer
            .par_chunks_mut((block * row_length).max(1))
            .enumerate()
            .for_each_init(Scratch::default, |scratch, (number, scores)| {
                let first = rows.start + number * block;
                for (tile, columns) in self.tiles.iter().enumerate() {
                    for (row, scores) in scores.chunks_exact_mut(row_length).enumerate() {
                        let out = Out {
                            values: &mut scores[columns.start..],
                            stride: width,
                        };
                        self.fill(first + row, tile, out, scratch);
                    }
                }
            });
        Strip {
            first_row: rows.start,
            classes: self.classes,
            width,
            scoring: self.scoring,
            level: self.level,
            values: buffer,
        }
    }

    /// Labels some rows, and returns whether all classes have the same score at every pixel of them, as
    /// [`Strip::is_tied`] does.
    ///
    /// - `may_tie`: `false` if ties do not matter any more
    pub fn label(&self, rows: Range<usize>, task: &LabelTask, found: Found, may_tie: bool) -> bool {
        let ties = Ties::new(self.scoring, task.offsets);
        let tied = AtomicBool::new(may_tie && self.classes > 1);
        let blocks = self.blocks(rows, found);
        blocks
            .into_par_iter()
            .for_each_init(Scratch::default, |scratch, mut block| {
                for (tile, columns) in self.tiles.iter().enumerate() {
                    for row in block.rows.clone() {
                        let mut values = std::mem::take(&mut scratch.tile);
                        values.resize(self.classes * columns.len(), 0.0);
                        let out = Out {
                            values: &mut values,
                            stride: columns.len(),
                        };
                        self.fill(row, tile, out, scratch);
                        let scores = Rows {
                            level: self.level,
                            scoring: self.scoring,
                            values: &values,
                            stride: columns.len(),
                        };
                        if tied.load(Ordering::Relaxed) && !ties.hold(&scores) {
                            tied.store(false, Ordering::Relaxed);
                        }
                        let place = BlockPlace {
                            row: row - block.rows.start,
                            columns,
                            width: self.size[1],
                        };
                        block.label(&place, task, &scores, &mut scratch.best);
                        block.take_scores(&place, task, self, &mut values);
                        scratch.tile = values;
                    }
                }
            });
        tied.into_inner()
    }

    /// Divides rows into blocks, each with its part of the results.
    fn blocks<'r>(&self, rows: Range<usize>, found: Found<'r>) -> Vec<Block<'r>> {
        let block = block_rows(rows.len());
        let pixels = (block * self.size[1]).max(1);
        let maps = found.maps.into_iter();
        let mut maps: Vec<_> = maps.map(|map| map.chunks_mut(pixels)).collect();
        let mut confidence = found.confidence.map(|all| all.chunks_mut(pixels));
        let values = (pixels * self.classes).max(1);
        let mut scores = found.scores.map(|all| all.chunks_mut(values));
        rows.clone()
            .step_by(block)
            .map(|first| Block {
                rows: first..(first + block).min(rows.end),
                labels: maps.iter_mut().filter_map(Iterator::next).collect(),
                confidence: confidence.as_mut().and_then(Iterator::next),
                scores: scores.as_mut().and_then(Iterator::next),
            })
            .collect()
    }

    /// Computes a row of a tile.
    fn fill(&self, row: usize, tile: usize, mut out: Out, scratch: &mut Scratch) {
        let columns = self.tiles[tile].len();
        scratch
            .rows
            .resize_with(self.fields.len(), Default::default);
        for (number, resampled) in self.fields.iter().enumerate() {
            let (rows, field) = (&mut scratch.rows[number], &mut scratch.field);
            let place = Place {
                level: self.level,
                row,
                tile,
            };
            if number == 0 {
                resampled.fill(place, out.again(), rows, field);
                continue;
            }
            scratch.other.resize(self.classes * columns, 0.0);
            let other = Out {
                values: &mut scratch.other,
                stride: columns,
            };
            resampled.fill(place, other, rows, field);
            add(
                self.level,
                out.values,
                out.stride,
                0,
                &scratch.other,
                columns,
            );
        }
        if self.fields.len() > 1 {
            let count = vec![self.fields.len() as f32; columns];
            divide(self.level, out.values, out.stride, &count);
        }
    }
}
/// Returns the number of rows that a thread takes at once: all threads get some.
fn block_rows(rows: usize) -> usize {
    rows.div_ceil(4 * rayon::current_num_threads())
        .clamp(1, BLOCK_ROWS)
}

/// Some rows of an image, with the memory for their results.
struct Block<'r> {
    rows: Range<usize>,
    /// For each label map: `[rows, width]`
    labels: Vec<&'r mut [u16]>,
    /// `[rows, width]`
    confidence: Option<&'r mut [f32]>,
    /// `[rows, classes, width]`
    scores: Option<&'r mut [f32]>,
}

/// Some columns of a row of a block.
struct BlockPlace<'p> {
    /// Counted from the block's first row.
    row: usize,
    columns: &'p Range<usize>,
    /// Number of columns of the image.
    width: usize,
}

impl Block<'_> {
    /// Labels some columns of a row.
    fn label(&mut self, at: &BlockPlace, task: &LabelTask, scores: &Rows, best: &mut Vec<f32>) {
        let start = at.row * at.width;
        let pixels = start + at.columns.start..start + at.columns.end;
        for (number, labels) in self.labels.iter_mut().enumerate() {
            let confidence = self.confidence.as_mut().filter(|_| number == 0);
            let request = LabelRows {
                rule: task.rule,
                lowered: task.lowered_of(number),
            };
            scores.label(
                &request,
                best,
                &mut labels[pixels.clone()],
                confidence.map(|confidence| &mut confidence[pixels.clone()]),
            );
        }
    }

    /// Turns the values of some columns of a row, `[classes, columns]`, into scores from 0 to 1 of the first map, and
    /// stores them, if they are asked for.
    fn take_scores(
        &mut self,
        at: &BlockPlace,
        task: &LabelTask,
        mean: &MeanScores,
        values: &mut [f32],
    ) {
        let Some(scores) = &mut self.scores else {
            return;
        };
        let length = at.columns.len().max(1);
        for (values, by) in values.chunks_exact_mut(length).zip(task.lowered_of(0)) {
            for value in values {
                *value -= by;
            }
        }
        to_scores(mean.level, mean.scoring, values, length);
        let row = &mut scores[at.row * mean.classes * at.width..];
        let rows = row.chunks_mut(at.width.max(1));
        for (scores, values) in rows.zip(values.chunks_exact(length)) {
            scores[at.columns.clone()].copy_from_slice(values);
        }
    }
}
