//! Counts the pixels of one label file once and derives findings from the counts.

use std::collections::BTreeMap;
use std::path::Path;

use zeg_base::hex;
use zeg_image::{ColourModel, IGNORE_LABEL, LabelMap, RgbImage, image_header};

use super::Subject;
use super::collector::{Collector, Counted, Values};
use super::finding::Code;
use crate::labels::{LabelKind, Stored};
use crate::selection::Source;

/// Number of distinct illegal values in a file from which on they are blur and not a wrong numbering.
const SMEARED: usize = 16;
/// Largest number of illegal values that an example lists.
const SHOWN: usize = 4;
/// Largest number of illegal colours that are counted one by one in a file, so that memory stays small.
const MOST_COLOURS: usize = 256;
/// Grey levels that are neither dark nor bright.
const GREY_LEVELS: std::ops::Range<usize> = 64..192;
/// A mask is reported as grey if more than one in this many pixels has one of [`GREY_LEVELS`].
const GREY_SHARE: u64 = 50;

/// Counts the values or colours of a label file; `bytes` is its content and `name` its name in messages.
pub(super) fn examine(
    subject: &Subject,
    (stored, bytes): (&Stored, &[u8]),
    (path, name): (&Path, &str),
    index: usize,
    collector: &Collector,
) {
    let mut file = LabelFile {
        subject,
        name,
        index,
        collector,
        counted: Counted {
            classes: vec![0; subject.dataset.classes.len()],
            ..Counted::default()
        },
    };
    match stored {
        Stored::Values(labels) => {
            file.count_values(labels);
            file.note_storage(bytes, path);
        }
        Stored::Colours(image) => file.count_colours(image),
    }
    file.finish();
}

/// A label file whose pixels are being counted.
struct LabelFile<'a> {
    subject: &'a Subject<'a>,
    name: &'a str,
    index: usize,
    collector: &'a Collector,
    counted: Counted,
}

impl LabelFile<'_> {
    fn add(&self, code: Code, text: &str) {
        let example = if text.is_empty() {
            self.name.to_owned()
        } else {
            format!("{}: {text}", self.name)
        };
        self.collector.add(code, self.index, example);
    }

    /// Adds pixels of a class, or ignored pixels.
    fn count(&mut self, class: u16, pixels: u64) {
        if class == IGNORE_LABEL {
            self.counted.ignored += pixels;
        } else if let Some(count) = self.counted.classes.get_mut(usize::from(class)) {
            *count += pixels;
        }
    }

    fn count_values(&mut self, labels: &LabelMap) {
        let histogram = histogram(labels);
        let rule = &self.subject.dataset.label_rule;
        let classes = self.subject.dataset.classes.len();
        let mut illegal = Vec::new();
        for (value, &pixels) in (0..=u16::MAX)
            .zip(&histogram)
            .filter(|(_, pixels)| **pixels > 0)
        {
            match rule.class_of(value, classes) {
                Some(class) => self.count(class, pixels),
                None => illegal.push((value, pixels)),
            }
        }
        if matches!(rule.kind, LabelKind::Binary { .. }) {
            self.check_mask(&histogram);
            return;
        }
        self.sum_up(&histogram, &illegal);
        let distinct = histogram.iter().filter(|pixels| **pixels > 0).count();
        if illegal.len() >= SMEARED && 2 * illegal.len() > distinct {
            let text = format!(
                "{distinct} different values, of which {} are neither a class nor ignored",
                illegal.len()
            );
            self.add(Code::SmearedLabels, &text);
        } else if !illegal.is_empty() {
            self.add_illegal(labels, &illegal);
        }
    }

    fn add_illegal(&self, labels: &LabelMap, illegal: &[(u16, u64)]) {
        let classes = self.subject.dataset.classes.len();
        let values: Vec<String> = illegal
            .iter()
            .take(SHOWN)
            .map(|(value, pixels)| format!("value {value} in {pixels} pixels"))
            .collect();
        let more = if illegal.len() > SHOWN { ", …" } else { "" };
        let first = illegal.first().map(|(value, _)| *value);
        let place = labels
            .labels()
            .iter()
            .position(|label| Some(*label) == first);
        let place = place.map_or_else(String::new, |place| {
            let width = labels.width().max(1);
            format!(", first at ({}, {})", place % width, place / width)
        });
        let legal = self.subject.dataset.label_rule.legal_values(classes);
        let text = format!(
            "{}{more}{place}; legal values are {legal}",
            values.join(", ")
        );
        self.add(Code::IllegalLabel, &text);
    }

    /// Computes the file's contribution to the sums over all files.
    fn sum_up(&mut self, histogram: &[u64], illegal: &[(u16, u64)]) {
        let dataset = self.subject.dataset;
        let ignore = &dataset.label_rule.ignore;
        let last = match dataset.label_rule.kind {
            LabelKind::ReduceZero => dataset.classes.len(),
            _ => dataset.classes.len().saturating_sub(1),
        };
        let legal = (0..=u16::MAX).zip(histogram).filter(|(value, pixels)| {
            **pixels > 0 && !ignore.contains(value) && usize::from(*value) <= last
        });
        let zeros = histogram.first().copied().unwrap_or_default();
        let ignored = ignore
            .iter()
            .filter_map(|value| histogram.get(usize::from(*value)));
        let border = self.subject.border_in();
        let border_wanted = border.is_some_and(|folder| self.name.starts_with(&folder));
        let values = Values {
            files: 1,
            pixels: histogram.iter().sum(),
            largest: legal.map(|(value, _)| value).max(),
            with_zero: u64::from(zeros > 0),
            zeros,
            ignored: ignored.sum(),
            border_wanted: u64::from(border_wanted),
            border_found: 0,
            storage: BTreeMap::new(),
            one_above: u64::from(
                matches!(illegal, [(value, _)] if usize::from(*value) == last + 1),
            ),
        };
        self.counted.values = Values {
            border_found: u64::from(border_wanted && values.ignored > 0),
            ..values
        };
    }

    /// Reports a binary mask that never reaches the threshold or has many grey pixels.
    fn check_mask(&self, histogram: &[u64]) {
        let pixels: u64 = histogram.iter().sum();
        let levels = (0..=u16::MAX).zip(histogram);
        let levels = levels.filter(|(_, pixels)| **pixels > 0);
        let rule = &self.subject.dataset.label_rule;
        if let Some((largest, threshold)) = rule.below_threshold(levels.map(|(level, _)| level)) {
            let text =
                format!("the brightest level is {largest}, but the threshold is {threshold}");
            self.add(Code::MaskBelowThreshold, &text);
            return;
        }
        let grey: u64 = histogram.get(GREY_LEVELS).map_or_else(
            || histogram.iter().skip(GREY_LEVELS.start).sum(),
            |levels| levels.iter().sum(),
        );
        if grey * GREY_SHARE > pixels {
            let text = format!(
                "{grey} of {pixels} pixels have a level from {} to {}",
                GREY_LEVELS.start,
                GREY_LEVELS.end - 1
            );
            self.add(Code::GreyMask, &text);
        }
    }

    fn count_colours(&mut self, image: &RgbImage) {
        let classes = self.subject.dataset.classes.len();
        let mut illegal: BTreeMap<[u8; 3], u64> = BTreeMap::new();
        let pixels = image.as_raw().as_chunks::<3>().0;
        // Neighbouring pixels mostly have one colour, so each run of equal colours is looked up once.
        for run in pixels.chunk_by(|a, b| a == b) {
            let (Some(&colour), length) = (run.first(), run.len() as u64) else {
                continue;
            };
            match self
                .subject
                .dataset
                .label_rule
                .class_of_colour(colour, classes)
            {
                Some(class) => self.count(class, length),
                None if illegal.len() < MOST_COLOURS || illegal.contains_key(&colour) => {
                    *illegal.entry(colour).or_default() += length;
                }
                None => {}
            }
        }
        if illegal.len() >= MOST_COLOURS {
            let text =
                format!("at least {MOST_COLOURS} colours that are neither a class nor ignored");
            self.add(Code::SmearedLabels, &text);
        } else if !illegal.is_empty() {
            let colours: Vec<String> = illegal
                .iter()
                .take(SHOWN)
                .map(|(colour, pixels)| {
                    format!("colour {} in {pixels} pixels", hex::colour(*colour))
                })
                .collect();
            let more = if illegal.len() > SHOWN { ", …" } else { "" };
            self.add(
                Code::IllegalColour,
                &format!("{}{more}", colours.join(", ")),
            );
        }
    }

    /// Counts how an index file stores its labels: in grey or with a palette.
    fn note_storage(&mut self, bytes: &[u8], path: &Path) {
        if matches!(
            self.subject.dataset.label_rule.kind,
            LabelKind::Binary { .. }
        ) {
            return;
        }
        let storage = match image_header(bytes, path) {
            Ok(header) if header.colours == ColourModel::Grey => "grey",
            _ => "palette",
        };
        self.counted.values.storage.insert(storage, 1);
    }

    /// Reports what the counts of the whole file show, and adds them to the collector.
    fn finish(self) {
        let labelled: u64 = self.counted.classes.iter().sum();
        if labelled == 0 && self.counted.ignored > 0 {
            self.add(Code::AllIgnored, "");
        }
        let mut classes = self.counted.classes.iter().enumerate();
        let only = classes.find(|(_, pixels)| **pixels == labelled && self.counted.ignored == 0);
        if let (true, Some((class, _))) = (labelled > 0, only) {
            let names = &self.subject.dataset.classes.classes;
            let name = names.get(class).map_or("", String::as_str);
            self.add(Code::OneValue, &format!("all pixels are {name}"));
        }
        self.collector.add_counts(&self.counted);
    }
}

impl Subject<'_> {
    /// Returns the folder, relative to the root, whose label maps should have borders.
    fn border_in(&self) -> Option<String> {
        match &self.found.source {
            Source::BuiltIn(entry) => {
                let folder = entry.border_in()?;
                Some(format!("{folder}{}", std::path::MAIN_SEPARATOR))
            }
            Source::Described(_) => None,
        }
    }
}

/// Returns the number of pixels of each value, from 0 to the largest value of the map.
fn histogram(labels: &LabelMap) -> Vec<u64> {
    let largest = labels.labels().iter().copied().max().unwrap_or_default();
    let mut counts = vec![0_u64; usize::from(largest) + 1];
    for &label in labels.labels() {
        if let Some(count) = counts.get_mut(usize::from(label)) {
            *count += 1;
        }
    }
    counts
}
