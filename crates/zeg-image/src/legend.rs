//! Draws the legend of an overlay: a strip that lists the classes in the image, in one or more columns.

use std::collections::BTreeMap;

use image::{Rgb, RgbImage};

use crate::palette::class_colour;
use crate::text::{CHARACTER_WIDTH, LINE_HEIGHT, draw, is_drawable};
use crate::{IGNORE_LABEL, LabelMap};

/// Background colour of the strip.
pub(crate) const BACKGROUND: [u8; 3] = [24, 26, 31];
const NAME_COLOUR: [u8; 3] = [236, 238, 242];
const SHARE_COLOUR: [u8; 3] = [152, 158, 170];
const SWATCH_RIM: [u8; 3] = [92, 97, 108];

// The following lengths are in pixels at scale 1.
const MARGIN: usize = 10;
const ROW_HEIGHT: usize = 22;
const SWATCH: usize = 13;
const SWATCH_GAP: usize = 7;
const COLUMN_GAP: usize = 24;
/// The smallest readable width of the strip; a narrower image gets a canvas wider than itself.
const MIN_WIDTH: usize = 190;
/// The largest length of a name in characters; a longer one is shortened.
const LONGEST_NAME: usize = 32;
/// The largest number of listed classes. A map may have 65,535, whose strip would be larger than any image.
const MOST_ENTRIES: usize = 200;
/// Number of characters between a name and its share.
const SHARE_GAP: usize = 2;

/// One line of the legend.
#[derive(Debug, PartialEq)]
pub(crate) struct Entry {
    name: String,
    /// Colour of the swatch; `None` for unlabelled pixels and for the sum of the classes that are not listed.
    colour: Option<[u8; 3]>,
    /// Share of all pixels, as printed.
    share: String,
}

/// Returns the classes in the map by descending area (ties by label), followed by the unlabelled pixels.
///
/// If there are more than [`MOST_ENTRIES`] classes, the smallest ones are summed up in one entry.
pub(crate) fn entries(labels: &LabelMap, names: &[String], palette: &[[u8; 3]]) -> Vec<Entry> {
    let mut areas = BTreeMap::<u16, usize>::new();
    for &label in labels.labels() {
        *areas.entry(label).or_default() += 1;
    }
    let mut areas: Vec<_> = areas.into_iter().collect();
    areas.sort_by_key(|&(label, area)| (label == IGNORE_LABEL, std::cmp::Reverse(area), label));
    let all = labels.labels().len();
    let entry = |&(label, area): &(u16, usize)| Entry {
        name: name_of(label, names),
        colour: (label != IGNORE_LABEL).then(|| class_colour(label, palette)),
        share: percentage(area, all),
    };
    let classes = areas.partition_point(|(label, _)| *label != IGNORE_LABEL);
    let (classes, unlabelled) = areas.split_at(classes);
    let (listed, others) = classes.split_at(classes.len().min(MOST_ENTRIES));
    let others = (!others.is_empty()).then(|| Entry {
        name: format!("{} more classes", others.len()),
        colour: None,
        share: percentage(others.iter().map(|(_, area)| area).sum(), all),
    });
    let unlabelled = unlabelled.iter().map(entry);
    listed
        .iter()
        .map(entry)
        .chain(others)
        .chain(unlabelled)
        .collect()
}

/// Returns the name as it is drawn: its first characters, without those of zero width.
///
/// If no character of a name can be drawn, for example because there are no glyphs for its script, the label of the
/// class is returned instead.
fn name_of(label: u16, names: &[String]) -> String {
    if label == IGNORE_LABEL {
        return "unlabelled".into();
    }
    // One character more than the limit is kept, so that `shortened` sees that the name is too long.
    let name: String = names
        .get(usize::from(label))
        .map_or_else(String::new, |name| {
            let visible = name.chars().filter(|character| !has_zero_width(*character));
            visible.take(LONGEST_NAME + 1).collect()
        });
    if name.chars().any(is_drawable) {
        name
    } else {
        format!("class {label}")
    }
}

/// Returns whether the character is a combining accent, a joiner, or a mark of the writing direction.
fn has_zero_width(character: char) -> bool {
    matches!(character, '\u{300}'..='\u{36f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}'..='\u{2069}' | '\u{feff}')
}

/// Formats `area / all` in per cent with one decimal; a positive share below 0.05 % is printed as `<0.1 %`, not as 0.
fn percentage(area: usize, all: usize) -> String {
    let share = 100.0 * area as f64 / all as f64;
    if share < 0.05 {
        "<0.1 %".into()
    } else {
        format!("{share:.1} %")
    }
}

/// Draws the strip with the width of the image, or with [`MIN_WIDTH`] at this scale if that is larger.
pub(crate) fn draw_strip(entries: &[Entry], image_width: usize, scale: usize) -> RgbImage {
    let width = image_width.max(MIN_WIDTH * scale);
    let layout = Layout::new(entries, width / scale);
    let height = (layout.rows * ROW_HEIGHT + 2 * MARGIN) * scale;
    let mut strip = RgbImage::from_pixel(width as u32, height as u32, Rgb(BACKGROUND));
    for (index, entry) in entries.iter().enumerate() {
        let (column, row) = (index / layout.rows, index % layout.rows);
        let x = MARGIN + column * (layout.column_width() + COLUMN_GAP);
        let y = MARGIN + row * ROW_HEIGHT;
        draw_entry(&mut strip, x, y, entry, &layout, scale);
    }
    strip
}

/// The layout of the table, whose columns have equal widths and are filled from top to bottom, then to the right.
struct Layout {
    rows: usize,
    /// Width of the name column in characters.
    name_width: usize,
    /// Width of the share column in characters.
    share_width: usize,
}

impl Layout {
    /// Fits `entries` into a strip of `width` pixels at scale 1.
    fn new(entries: &[Entry], width: usize) -> Self {
        let longest = |text: fn(&Entry) -> &str| {
            let lengths = entries.iter().map(|entry| text(entry).chars().count());
            lengths.max().unwrap_or(0)
        };
        let share_width = longest(|entry| &entry.share);
        let available = width.saturating_sub(2 * MARGIN);
        let characters = available.saturating_sub(SWATCH + SWATCH_GAP) / CHARACTER_WIDTH;
        let name_limit = characters.saturating_sub(SHARE_GAP + share_width);
        let mut layout = Self {
            rows: 0,
            name_width: longest(|entry| &entry.name)
                .min(name_limit)
                .min(LONGEST_NAME),
            share_width,
        };
        let columns = (available + COLUMN_GAP) / (layout.column_width() + COLUMN_GAP);
        layout.rows = entries.len().div_ceil(columns.max(1));
        layout
    }

    /// Returns the width of a column in pixels at scale 1.
    fn column_width(&self) -> usize {
        let characters = self.name_width + SHARE_GAP + self.share_width;
        SWATCH + SWATCH_GAP + characters * CHARACTER_WIDTH
    }
}

/// Draws swatch, name and share of an entry, with the top left corner at `(x, y)` in pixels at scale 1.
fn draw_entry(
    strip: &mut RgbImage,
    x: usize,
    y: usize,
    entry: &Entry,
    layout: &Layout,
    scale: usize,
) {
    let swatch_y = y + (ROW_HEIGHT - SWATCH) / 2;
    draw_swatch(strip, x * scale, swatch_y * scale, entry.colour, scale);
    let text_x = x + SWATCH + SWATCH_GAP;
    let text_y = (y + (ROW_HEIGHT - LINE_HEIGHT) / 2) * scale;
    let name = shortened(&entry.name, layout.name_width);
    draw(strip, text_x * scale, text_y, &name, NAME_COLOUR, scale);
    let padding = layout.share_width - entry.share.chars().count();
    let share_x = text_x + (layout.name_width + SHARE_GAP + padding) * CHARACTER_WIDTH;
    draw(
        strip,
        share_x * scale,
        text_y,
        &entry.share,
        SHARE_COLOUR,
        scale,
    );
}

/// Draws a square in the class colour with a thin rim, so that black is visible on the dark strip.
///
/// Without a colour, the square is hollow.
fn draw_swatch(strip: &mut RgbImage, x: usize, y: usize, colour: Option<[u8; 3]>, scale: usize) {
    let side = SWATCH * scale;
    for row in 0..side {
        for column in 0..side {
            let edge = row.min(column).min(side - 1 - row).min(side - 1 - column);
            let fill = if edge < scale {
                SWATCH_RIM
            } else {
                colour.unwrap_or(BACKGROUND)
            };
            let target = strip.get_pixel_mut_checked((x + column) as u32, (y + row) as u32);
            if let Some(pixel) = target {
                *pixel = Rgb(fill);
            }
        }
    }
}

/// Returns the name in at most `limit` characters; a shortened name ends in two dots.
fn shortened(name: &str, limit: usize) -> String {
    if name.chars().count() <= limit {
        return name.into();
    }
    let kept = name.chars().take(limit.saturating_sub(2));
    kept.chain("..".chars()).take(limit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classes_are_sorted_by_area_and_unlabelled_pixels_come_last() {
        let mut labels = vec![IGNORE_LABEL; 700];
        labels.extend([2; 200]);
        labels.extend([0; 100]);
        let map = LabelMap::new(100, 10, labels).unwrap();
        let names = ["cat".to_string()];
        let lines: Vec<_> = entries(&map, &names, &[[1; 3]])
            .into_iter()
            .map(|entry| format!("{} {}", entry.name, entry.share))
            .collect();
        assert_eq!(lines, ["class 2 20.0 %", "cat 10.0 %", "unlabelled 70.0 %"]);
    }

    #[test]
    fn names_that_cannot_be_drawn_are_replaced_by_the_label() {
        let map = LabelMap::new(5, 1, vec![0, 1, 2, 3, 4]).unwrap();
        let names = [
            "x".repeat(10_000),
            String::new(),
            "\u{200f}כלב".into(),
            "cafe\u{301}".into(),
            "\t\n".into(),
        ];
        let shown: Vec<String> = entries(&map, &names, &[])
            .into_iter()
            .map(|entry| entry.name)
            .collect();
        assert_eq!(shown[0].len(), LONGEST_NAME + 1);
        assert_eq!(shown[1..], ["class 1", "class 2", "cafe", "class 4"]);
        let strip = draw_strip(&entries(&map, &names, &[]), 100, 1);
        assert_eq!((strip.width(), strip.height()), (190, 5 * 22 + 20));
    }

    /// The strip of a map with 65,535 classes once took a gigabyte.
    #[test]
    fn the_strip_is_small_for_any_number_of_classes() {
        let labels: Vec<u16> = (0..=IGNORE_LABEL).collect();
        let map = LabelMap::new(256, 256, labels).unwrap();
        let entries = entries(&map, &[], &[]);
        assert_eq!(entries.len(), MOST_ENTRIES + 2);
        assert_eq!(
            (&*entries[200].name, &*entries[200].share),
            ("65335 more classes", "99.7 %")
        );
        assert_eq!(entries[201].name, "unlabelled");
        assert!(draw_strip(&entries, 1, 1).height() < 5000);
    }

    #[test]
    fn a_small_share_is_not_printed_as_zero() {
        assert_eq!(percentage(1, 100_000), "<0.1 %");
        assert_eq!(percentage(1, 2_000), "0.1 %");
        assert_eq!(percentage(3, 3), "100.0 %");
    }

    #[test]
    fn shortened_names_end_in_dots() {
        assert_eq!(shortened("potted plant", 12), "potted plant");
        assert_eq!(shortened("potted plants", 12), "potted pla..");
        assert_eq!(shortened("ab", 1), ".");
        assert_eq!(shortened("ab", 0), "");
    }

    #[test]
    fn many_entries_are_arranged_in_rows_and_columns() {
        let entries: Vec<_> = (0..10)
            .map(|index| Entry {
                name: format!("class {index}"),
                colour: None,
                share: "9.9 %".into(),
            })
            .collect();
        let (narrow, wide) = (Layout::new(&entries, 190), Layout::new(&entries, 600));
        assert_eq!(narrow.rows, 10);
        assert!(wide.rows < 5);
        assert_eq!(draw_strip(&entries, 1, 1).width() as usize, MIN_WIDTH);
    }
}
