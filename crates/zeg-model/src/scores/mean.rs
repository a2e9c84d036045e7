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
    score_rows::{Columns, RowPair, add, add_weighted, divide, interpolate},
};

use super::{Content, PlacedScores, ScoreField};
use crate::{
    method::Scoring,
    resize::taps,
    strip::{LabelRows, Labelling, Rows, Strip, Ties, to_scores},
    window_scores::{Taps, sigmoids},
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

/// A score field at the size of an image.
struct Resampled<'a> {
    field: &'a ScoreField,
    is_mirrored: bool,
    /// For each row of the image, the rows of the field.
    rows: Taps,
    tiles: Vec<FieldTile<'a>>,
}

/// The columns of a field that a tile is interpolated from.
struct FieldTile<'a> {
    source: Range<usize>,
    /// Columns of the tile, counted from the first of `source`.
    columns: Columns,
    /// Whether the columns of the tile are those of the field.
    is_copy: bool,
    windows: Vec<WindowPart<'a>>,
}

/// The part of a window in a tile.
struct WindowPart<'a> {
    placed: &'a PlacedScores,
    /// First column in the tile's columns of the field.
    first: usize,
    /// Cells of the window's grid that the columns are interpolated from.
    cells: Range<usize>,
    /// Counted from the first cell.
    columns: Columns,
}

/// Memory for a row of some columns: `[classes, stride]`.
struct Out<'o> {
    values: &'o mut [f32],
    stride: usize,
}

impl Out<'_> {
    fn again(&mut self) -> Out<'_> {
        Out {
            values: self.values,
            stride: self.stride,
        }
    }

    /// Returns the rows of the classes.
    fn classes(&mut self) -> impl Iterator<Item = &mut [f32]> {
        self.values.chunks_mut(self.stride.max(1))
    }
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

#[derive(Default)]
struct FieldScratch {
    layer: Vec<f32>,
    part: Vec<f32>,
    shares: Vec<f32>,
    lines: [Vec<f32>; 2],
}

/// A row of the columns of a field: `[classes, columns]`.
#[derive(Default)]
struct CachedRow {
    /// Index of the tile, and row of the field.
    key: Option<(usize, usize)>,
    values: Vec<f32>,
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
            let horizontal = taps(field.width, width);
            let of_tile = |tile: &Range<usize>| {
                let columns = match is_mirrored {
                    true => width - tile.end..width - tile.start,
                    false => tile.clone(),
                };
                FieldTile::new(field, &horizontal, columns, width)
            };
            Resampled {
                field,
                is_mirrored,
                rows: taps(field.height, height),
                tiles: tiles.iter().map(of_tile).collect(),
            }
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
        let tied = AtomicBool::new(may_tie && ties.are_possible(self.classes));
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

/// A row of a tile.
#[derive(Clone, Copy)]
struct Place {
    level: Level,
    /// Row of the image, or of the field.
    row: usize,
    /// Index of the tile.
    tile: usize,
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

impl<'a> FieldTile<'a> {
    /// - `horizontal`: for each column of the image, the columns of the field
    /// - `columns`: columns of the image
    fn new(field: &'a ScoreField, horizontal: &Taps, columns: Range<usize>, width: usize) -> Self {
        let taps = &horizontal[columns];
        let source = ends(taps.iter());
        let is_copy = field.width == width;
        // In a copy, the upper neighbours have no weight.
        let end = if is_copy {
            source.start + taps.len()
        } else {
            source.end
        };
        let source = source.start..end;
        let columns = taps.iter().map(|&(low, high, by)| {
            let high = high.min(end.saturating_sub(1));
            (low - source.start, high - source.start, by)
        });
        let windows = field.windows.iter();
        Self {
            columns: Columns::new(columns),
            is_copy,
            windows: windows
                .filter_map(|placed| WindowPart::new(placed, &source))
                .collect(),
            source,
        }
    }
}

impl<'a> WindowPart<'a> {
    /// Returns the part of a window in some columns of the field, if there is any.
    fn new(placed: &'a PlacedScores, source: &Range<usize>) -> Option<Self> {
        let window = placed.window;
        let start = source.start.max(window.x);
        let end = source.end.min(window.x + window.width);
        if start >= end {
            return None;
        }
        let columns = match &placed.content {
            Content::Logits(logits) => &logits.columns,
            Content::Masks(masks) => masks.columns(),
        };
        let taps = &columns[start - window.x..end - window.x];
        let cells = ends(taps.iter());
        let columns = taps
            .iter()
            .map(|&(low, high, by)| (low - cells.start, high - cells.start, by));
        Some(Self {
            placed,
            first: start - source.start,
            columns: Columns::new(columns),
            cells,
        })
    }

    /// Computes a row of the window.
    ///
    /// - `row`: row of the field
    fn write(
        &self,
        level: Level,
        scoring: Scoring,
        row: usize,
        mut out: Out,
        scratch: &mut FieldScratch,
    ) {
        let length = self.columns.len();
        let row = row - self.placed.window.y;
        let logits = match &self.placed.content {
            Content::Logits(logits) => logits,
            Content::Masks(masks) => {
                for scores in out.classes() {
                    scores[..length].fill(0.0);
                }
                let (pair, queries) = masks.row(row, &self.cells);
                scratch.shares.resize(queries * length, 0.0);
                interpolate(level, &pair, &self.columns, &mut scratch.shares, length);
                sigmoids(level, &mut scratch.shares);
                let weights = masks.class_scores();
                let (sums, stride) = (out.values, out.stride);
                add_weighted(level, sums, stride, 0, &scratch.shares, length, weights);
                return;
            }
        };
        let (top, bottom, fraction) = logits.rows[row];
        let Some(scored) = &logits.scored else {
            let [h, w] = logits.grid;
            let pair = RowPair {
                top: &logits.values[top * w + self.cells.start..],
                bottom: &logits.values[bottom * w + self.cells.start..],
                length: self.cells.len(),
                stride: h * w,
                fraction,
            };
            interpolate(level, &pair, &self.columns, out.values, out.stride);
            if scoring == Scoring::Sigmoid {
                for scores in out.classes() {
                    sigmoids(level, &mut scores[..length]);
                }
            }
            return;
        };
        let [above, below] = &mut scratch.lines;
        for (class, scores) in out.classes().enumerate() {
            for (line, row) in [(&mut *above, top), (&mut *below, bottom)] {
                logits.scored_row(class, row, scored, line);
                if scoring == Scoring::Sigmoid {
                    sigmoids(level, line);
                }
            }
            let pair = RowPair {
                top: &above[self.cells.clone()],
                bottom: &below[self.cells.clone()],
                length: self.cells.len(),
                stride: self.cells.len(),
                fraction,
            };
            interpolate(level, &pair, &self.columns, &mut scores[..length], length);
        }
    }
}

/// Returns the range of all neighbours.
fn ends<'t>(taps: impl Iterator<Item = &'t (usize, usize, f32)>) -> Range<usize> {
    let ends = taps.fold((usize::MAX, 0), |(first, end), &(low, high, _)| {
        (first.min(low), end.max(high + 1))
    });
    ends.0.min(ends.1)..ends.1
}

impl Resampled<'_> {
    /// Computes a row of a tile.
    fn fill(
        &self,
        place: Place,
        mut out: Out,
        cached: &mut [CachedRow; 2],
        scratch: &mut FieldScratch,
    ) {
        let tile = &self.tiles[place.tile];
        let (top, bottom, fraction) = self.rows[place.row];
        // A lower row without weight adds 0.
        let bottom = if fraction == 0.0 { top } else { bottom };
        let of_field = |row| Place { row, ..place };
        if tile.is_copy && fraction == 0.0 {
            self.fill_field(of_field(top), out.again(), scratch);
        } else {
            let length = tile.source.len();
            let top_slot = self.cache(of_field(top), bottom, cached, scratch);
            let bottom_slot = self.cache(of_field(bottom), top, cached, scratch);
            let pair = RowPair {
                top: &cached[top_slot].values,
                bottom: &cached[bottom_slot].values,
                length,
                stride: length,
                fraction,
            };
            interpolate(place.level, &pair, &tile.columns, out.values, out.stride);
        }
        if self.is_mirrored {
            for scores in out.classes() {
                scores[..tile.columns.len()].reverse();
            }
        }
    }

    /// Returns the slot of a row of the field, which is computed if it is in none; the row `kept` stays.
    fn cache(
        &self,
        place: Place,
        kept: usize,
        cached: &mut [CachedRow; 2],
        scratch: &mut FieldScratch,
    ) -> usize {
        let key = Some((place.tile, place.row));
        if let Some(slot) = cached.iter().position(|cached| cached.key == key) {
            return slot;
        }
        let slot = usize::from(cached[0].key == Some((place.tile, kept)));
        let CachedRow { key: of, values } = &mut cached[slot];
        *of = key;
        let stride = self.tiles[place.tile].source.len();
        values.resize(self.field.classes * stride, 0.0);
        self.fill_field(place, Out { values, stride }, scratch);
        slot
    }

    /// Computes a row of the field, with its offsets.
    fn fill_field(&self, place: Place, mut out: Out, scratch: &mut FieldScratch) {
        let length = self.tiles[place.tile].source.len();
        self.average(place, 0, out.again(), scratch);
        if self.field.layers > 1 {
            let mut other = std::mem::take(&mut scratch.layer);
            other.resize(self.field.classes * length, 0.0);
            for layer in 1..self.field.layers {
                let of_layer = Out {
                    values: &mut other,
                    stride: length,
                };
                self.average(place, layer, of_layer, scratch);
                add(place.level, out.values, out.stride, 0, &other, length);
            }
            scratch.layer = other;
            let count = vec![self.field.layers as f32; length];
            divide(place.level, out.values, out.stride, &count);
        }
        for (scores, &offset) in out.classes().zip(&self.field.offsets) {
            if offset != 0.0 {
                for score in &mut scores[..length] {
                    *score -= offset;
                }
            }
        }
    }

    /// Computes a row of the mean over a layer's windows; columns that no window covers are 0.
    fn average(&self, place: Place, layer: usize, mut out: Out, scratch: &mut FieldScratch) {
        let Place { level, row, tile } = place;
        let tile = &self.tiles[tile];
        let scoring = self.field.scoring;
        let length = tile.source.len();
        let covers = |part: &&WindowPart| {
            let window = part.placed.window;
            let rows = window.y..window.y + window.height;
            part.placed.layer == layer && rows.contains(&row)
        };
        let mut covering = tile.windows.iter().filter(covers);
        if let (Some(part), None) = (covering.next(), covering.next())
            && part.columns.len() == length
        {
            part.write(level, scoring, row, out, scratch);
            return;
        }
        for scores in out.classes() {
            scores[..length].fill(0.0);
        }
        let mut counts = vec![0.0_f32; length];
        for part in tile.windows.iter().filter(covers) {
            let columns = part.columns.len();
            let mut scores = std::mem::take(&mut scratch.part);
            scores.resize(self.field.classes * columns, 0.0);
            let of_part = Out {
                values: &mut scores,
                stride: columns,
            };
            part.write(level, scoring, row, of_part, scratch);
            add(level, out.values, out.stride, part.first, &scores, columns);
            scratch.part = scores;
            for count in &mut counts[part.first..part.first + columns] {
                *count += 1.0;
            }
        }
        for count in &mut counts {
            *count = count.max(1.0);
        }
        divide(level, out.values, out.stride, &counts);
    }
}
