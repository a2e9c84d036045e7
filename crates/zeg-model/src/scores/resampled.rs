//! A score field at the size of an image, a row of a few columns at a time.

use std::ops::Range;

use zeg_kernels::{
    Level,
    score_rows::{Columns, RowPair, add, add_weighted, divide, interpolate},
};

use super::{Content, PlacedScores, ScoreField};
use crate::{
    method::Scoring,
    resize::taps,
    window_scores::{Taps, sigmoids},
};

/// A score field at the size of an image.
pub(super) struct Resampled<'a> {
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
pub(super) struct Out<'o> {
    pub(super) values: &'o mut [f32],
    pub(super) stride: usize,
}

impl Out<'_> {
    pub(super) fn again(&mut self) -> Out<'_> {
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
#[derive(Default)]
pub(super) struct FieldScratch {
    layer: Vec<f32>,
    part: Vec<f32>,
    shares: Vec<f32>,
    lines: [Vec<f32>; 2],
}

/// A row of the columns of a field: `[classes, columns]`.
#[derive(Default)]
pub(super) struct CachedRow {
    /// Index of the tile, and row of the field.
    key: Option<(usize, usize)>,
    values: Vec<f32>,
}
/// A row of a tile.
#[derive(Clone, Copy)]
pub(super) struct Place {
    pub(super) level: Level,
    /// Row of the image, or of the field.
    pub(super) row: usize,
    /// Index of the tile.
    pub(super) tile: usize,
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

impl<'a> Resampled<'a> {
    /// Returns a field at the size `[height, width]`, divided into tiles of these columns.
    pub(super) fn new(
        field: &'a ScoreField,
        is_mirrored: bool,
        [height, width]: [usize; 2],
        tiles: &[Range<usize>],
    ) -> Self {
        let horizontal = taps(field.width, width);
        let of_tile = |tile: &Range<usize>| {
            let columns = if is_mirrored {
                width - tile.end..width - tile.start
            } else {
                tile.clone()
            };
            FieldTile::new(field, &horizontal, columns, width)
        };
        Self {
            field,
            is_mirrored,
            rows: taps(field.height, height),
            tiles: tiles.iter().map(of_tile).collect(),
        }
    }
}

impl Resampled<'_> {
    /// Computes a row of a tile.
    pub(super) fn fill(
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
