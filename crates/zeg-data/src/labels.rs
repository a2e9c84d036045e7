//! Converts label files to class indices.
//!
//! Data sets encode labels differently: as indices with or without a background, as ids with gaps, as colours, or as
//! grey images that are bright in the foreground. A [`LabelRule`] names the encoding; nothing is guessed from the file.

use std::collections::BTreeMap;
use std::path::Path;

use zeg_base::hex;
use zeg_image::{
    IGNORE_LABEL, ImageError, LabelMap, RgbImage, decode_labels, decode_labels_bytes, decode_mask,
    decode_mask_bytes,
};

use crate::DataError;

/// The ignore index of most label files.
pub(crate) const IGNORE_8_BIT: u16 = 255;
/// The ignore index of 16-bit label files.
pub(crate) const IGNORE_16_BIT: u16 = u16::MAX;
/// Grey level from which on a pixel of a binary mask is foreground: the middle, so that JPEG noise does not matter.
pub(crate) const DEFAULT_THRESHOLD: u8 = 128;

/// Largest number of values or colours that a message lists.
const SHOWN: usize = 12;

/// Rule that converts the pixels of a label file to class indices.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LabelRule {
    /// The encoding of the classes.
    pub kind: LabelKind,
    /// Ignored values, which become [`IGNORE_LABEL`] even if `kind` would make them a class.
    pub ignore: Vec<u16>,
}

/// Encoding of classes in the pixels of a label file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LabelKind {
    /// The value is the class index.
    Identity,
    /// The value 0 is a background outside the class list and becomes [`IGNORE_LABEL`]; `n` is class `n − 1`
    /// (mmsegmentation's `reduce_zero_label`).
    ReduceZero,
    /// The class, or [`IGNORE_LABEL`], of each value; any other value is illegal.
    Table(BTreeMap<u16, u16>),
    /// The class, or [`IGNORE_LABEL`], of each RGB colour; any other colour is illegal.
    Palette(BTreeMap<[u8; 3], u16>),
    /// A grey image, in any image format, with class 1 in bright pixels and class 0 in dark pixels.
    Binary {
        /// Grey level, 1..=255, at or above which a pixel is class 1.
        threshold: u8,
    },
}

impl LabelRule {
    /// Returns the rule for values that are class indices, with 255 ignored.
    pub fn identity() -> Self {
        Self::new(LabelKind::Identity)
    }

    /// Returns the rule for values that are class indices plus 1, with 0 and 255 ignored.
    pub fn reduce_zero() -> Self {
        Self::new(LabelKind::ReduceZero)
    }

    /// Returns the rule for masks with class 1 in bright and class 0 in dark pixels; no value is ignored.
    pub fn binary(threshold: u8) -> Self {
        Self {
            kind: LabelKind::Binary { threshold },
            ignore: Vec::new(),
        }
    }

    /// Returns a rule with 255 as the ignored value.
    pub fn new(kind: LabelKind) -> Self {
        Self {
            kind,
            ignore: vec![IGNORE_8_BIT],
        }
    }

    /// Returns the class index of a value, [`IGNORE_LABEL`] if it is ignored, or `None` if it is illegal.
    ///
    /// For [`LabelKind::Binary`] the value is a grey level. [`LabelKind::Palette`] has colours instead of values, for which
    /// this is not meant.
    pub fn class_of(&self, value: u16, classes: usize) -> Option<u16> {
        if self.ignore.contains(&value) {
            return Some(IGNORE_LABEL);
        }
        let class = match &self.kind {
            LabelKind::Identity => value,
            LabelKind::ReduceZero if value == 0 => return Some(IGNORE_LABEL),
            LabelKind::ReduceZero => value - 1,
            LabelKind::Table(table) => match *table.get(&value)? {
                IGNORE_LABEL => return Some(IGNORE_LABEL),
                class => class,
            },
            LabelKind::Palette(_) => return None,
            LabelKind::Binary { threshold } => u16::from(value >= u16::from(*threshold)),
        };
        (usize::from(class) < classes).then_some(class)
    }

    /// Returns the class index of a colour, [`IGNORE_LABEL`] if it is ignored, or `None` if it is illegal.
    pub(crate) fn class_of_colour(&self, colour: [u8; 3], classes: usize) -> Option<u16> {
        let LabelKind::Palette(palette) = &self.kind else {
            return None;
        };
        let class = *palette.get(&colour)?;
        (class == IGNORE_LABEL || usize::from(class) < classes).then_some(class)
    }

    /// Returns the legal values or colours as text for messages, such as `0..=20 and 255`.
    pub(crate) fn legal_values(&self, classes: usize) -> String {
        let mut parts = match &self.kind {
            LabelKind::Identity => vec![format!("0..={}", classes.saturating_sub(1))],
            LabelKind::ReduceZero => vec![format!("0..={classes}")],
            LabelKind::Table(table) => some(table.keys().map(ToString::to_string)),
            LabelKind::Palette(palette) => some(palette.keys().map(|colour| hex::colour(*colour))),
            LabelKind::Binary { .. } => vec!["0..=255".to_owned()],
        };
        if !matches!(self.kind, LabelKind::Palette(_)) {
            parts.extend(self.ignore.iter().map(ToString::to_string));
        }
        match parts.split_last() {
            Some((last, [])) => last.clone(),
            Some((last, rest)) => format!("{} and {last}", rest.join(", ")),
            None => "none".to_owned(),
        }
    }

    /// Returns the largest level of a binary mask and the threshold if the mask has levels above 0, all of them below
    /// the threshold: it would be read as empty. Ignored levels do not count.
    pub(crate) fn below_threshold(&self, levels: impl Iterator<Item = u16>) -> Option<(u16, u8)> {
        let LabelKind::Binary { threshold } = self.kind else {
            return None;
        };
        let levels = levels.filter(|level| !self.ignore.contains(level));
        let largest = levels.max()?;
        (largest > 0 && largest < u16::from(threshold)).then_some((largest, threshold))
    }

    /// Decodes a label file into the form this rule needs, and checks that a binary mask is not read as empty.
    ///
    /// # Errors
    /// Returns [`DataError::Image`] if the file cannot be decoded, and [`DataError::MaskBelowThreshold`] for a binary
    /// mask with levels above 0 that are all below the threshold.
    pub(crate) fn read_checked(&self, path: &Path) -> Result<Stored, DataError> {
        let stored = self.read(path)?;
        if let Stored::Values(labels) = &stored
            && let Some((largest, threshold)) =
                self.below_threshold(labels.labels().iter().copied())
        {
            return Err(DataError::MaskBelowThreshold {
                file: path.to_owned(),
                largest,
                threshold,
            });
        }
        Ok(stored)
    }

    /// Decodes a label file into the form this rule needs.
    fn read(&self, path: &Path) -> Result<Stored, ImageError> {
        Ok(match self.kind {
            LabelKind::Palette(_) => Stored::Colours(decode_mask(path)?),
            LabelKind::Binary { .. } => Stored::Values(grey(&decode_mask(path)?)?),
            _ => Stored::Values(decode_labels(path)?),
        })
    }

    /// Decodes the content of a label file into the form this rule needs; `name` is only used in errors.
    pub(crate) fn decode(&self, bytes: &[u8], name: &Path) -> Result<Stored, ImageError> {
        Ok(match self.kind {
            LabelKind::Palette(_) => Stored::Colours(decode_mask_bytes(bytes, name)?),
            LabelKind::Binary { .. } => Stored::Values(grey(&decode_mask_bytes(bytes, name)?)?),
            _ => Stored::Values(decode_labels_bytes(bytes, name)?),
        })
    }

    /// Converts the pixels of a label file to class indices; `file` and `title` are only used in errors.
    pub(crate) fn to_classes(
        &self,
        stored: Stored,
        classes: usize,
        (file, title): (&Path, &str),
    ) -> Result<LabelMap, DataError> {
        match stored {
            Stored::Values(mut labels) => {
                self.replace_values(&mut labels, classes, (file, title))?;
                Ok(labels)
            }
            Stored::Colours(rgb) => self.look_up_colours(&rgb, classes, (file, title)),
        }
    }

    /// Replaces values by class indices in place, using a table of all values up to the largest in the map.
    fn replace_values(
        &self,
        labels: &mut LabelMap,
        classes: usize,
        (file, title): (&Path, &str),
    ) -> Result<(), DataError> {
        let width = labels.width().max(1);
        let largest = labels.labels().iter().copied().max().unwrap_or_default();
        let table: Vec<Option<u16>> = (0..=largest)
            .map(|value| self.class_of(value, classes))
            .collect();
        for (position, label) in labels.labels_mut().iter_mut().enumerate() {
            let class = table.get(usize::from(*label)).copied().flatten();
            *label = class.ok_or_else(|| DataError::IllegalLabel {
                file: file.to_owned(),
                value: *label,
                x: position % width,
                y: position / width,
                dataset: title.to_owned(),
                legal: self.legal_values(classes),
            })?;
        }
        Ok(())
    }

    fn look_up_colours(
        &self,
        rgb: &RgbImage,
        classes: usize,
        (file, title): (&Path, &str),
    ) -> Result<LabelMap, DataError> {
        let (width, height) = (rgb.width() as usize, rgb.height() as usize);
        let mut labels = Vec::with_capacity(width * height);
        // Neighbouring pixels mostly have one colour, so the last one is remembered.
        let mut last: Option<([u8; 3], u16)> = None;
        for (position, &colour) in rgb.as_raw().as_chunks::<3>().0.iter().enumerate() {
            let class = match last {
                Some((known, class)) if known == colour => class,
                _ => self.class_of_colour(colour, classes).ok_or_else(|| {
                    DataError::IllegalColour {
                        file: file.to_owned(),
                        colour: hex::colour(colour),
                        x: position % width.max(1),
                        y: position / width.max(1),
                        dataset: title.to_owned(),
                        legal: self.legal_values(classes),
                    }
                })?,
            };
            last = Some((colour, class));
            labels.push(class);
        }
        Ok(LabelMap::new(width, height, labels)?)
    }
}

/// The decoded pixels of a label file, before conversion to classes.
#[derive(Debug)]
pub(crate) enum Stored {
    /// Indices, or the grey levels of a binary mask.
    Values(LabelMap),
    /// RGB colours.
    Colours(RgbImage),
}

impl Stored {
    /// Returns the larger value of each pixel of two masks; `files` are only used in errors.
    pub(crate) fn brightest(self, other: Self, files: (&Path, &Path)) -> Result<Self, DataError> {
        if self.size() != other.size() {
            return Err(DataError::MaskSizes {
                first: files.0.to_owned(),
                first_size: self.size(),
                second: files.1.to_owned(),
                second_size: other.size(),
            });
        }
        Ok(match (self, other) {
            (Self::Values(mut labels), Self::Values(further)) => {
                for (label, value) in labels.labels_mut().iter_mut().zip(further.labels()) {
                    *label = (*label).max(*value);
                }
                Self::Values(labels)
            }
            // Only binary masks, which are values, have further masks.
            (first, _) => first,
        })
    }

    /// Returns width and height.
    pub(crate) fn size(&self) -> (usize, usize) {
        match self {
            Self::Values(labels) => (labels.width(), labels.height()),
            Self::Colours(rgb) => (rgb.width() as usize, rgb.height() as usize),
        }
    }
}

/// Converts an image to grey levels by ITU-R BT.601, with the integer arithmetic of Pillow's conversion to `L`.
fn grey(rgb: &RgbImage) -> Result<LabelMap, ImageError> {
    let pixels = rgb.as_raw().as_chunks::<3>().0;
    let levels = pixels.iter().map(|pixel| {
        let [r, g, b] = pixel.map(u32::from);
        ((19_595 * r + 38_470 * g + 7_471 * b + 0x8000) >> 16) as u16
    });
    LabelMap::new(
        rgb.width() as usize,
        rgb.height() as usize,
        levels.collect(),
    )
}

/// Returns the first [`SHOWN`] texts, and the number of the others as `n more`.
fn some(all: impl ExactSizeIterator<Item = String>) -> Vec<String> {
    let more = all.len().saturating_sub(SHOWN);
    let mut shown: Vec<String> = all.take(SHOWN).collect();
    if more > 0 {
        shown.push(format!("{more} more"));
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reduce_zero_ignores_the_background() {
        let rule = LabelRule::reduce_zero();
        assert_eq!(rule.class_of(0, 20), Some(IGNORE_LABEL));
        assert_eq!(rule.class_of(1, 20), Some(0));
        assert_eq!(rule.class_of(20, 20), Some(19));
        assert_eq!(rule.class_of(21, 20), None);
        assert_eq!(rule.class_of(255, 20), Some(IGNORE_LABEL));
        assert_eq!(rule.legal_values(20), "0..=20 and 255");
    }

    #[test]
    fn identity_keeps_the_classes() {
        let rule = LabelRule::identity();
        assert_eq!(rule.class_of(0, 171), Some(0));
        assert_eq!(rule.class_of(170, 171), Some(170));
        assert_eq!(rule.class_of(171, 171), None);
        assert_eq!(rule.class_of(255, 171), Some(IGNORE_LABEL));
        assert_eq!(rule.class_of(u16::MAX, 171), None);
        assert_eq!(rule.legal_values(171), "0..=170 and 255");
    }

    /// In label maps of 16 bits 255 is a class like any other.
    #[test]
    fn sixteen_bit_labels_have_their_own_ignore_index() {
        let rule = LabelRule {
            kind: LabelKind::Identity,
            ignore: vec![IGNORE_16_BIT],
        };
        assert_eq!(rule.class_of(255, 847), Some(255));
        assert_eq!(rule.class_of(847, 847), None);
        assert_eq!(rule.class_of(65_535, 847), Some(IGNORE_LABEL));
        assert_eq!(rule.legal_values(847), "0..=846 and 65535");
    }

    #[test]
    fn values_outside_a_table_are_illegal() {
        let rule = LabelRule {
            kind: LabelKind::Table(BTreeMap::from([(7, 0), (11, 1), (4, IGNORE_LABEL), (9, 5)])),
            ignore: vec![0, 255],
        };
        for (value, class) in [
            (7, Some(0)),
            (11, Some(1)),
            (4, Some(IGNORE_LABEL)),
            (0, Some(IGNORE_LABEL)),
            (8, None),
            (9, None), // class 5 does not exist
        ] {
            assert_eq!(rule.class_of(value, 2), class, "{value}");
        }
        assert_eq!(rule.legal_values(2), "4, 7, 9, 11, 0 and 255");
    }

    #[test]
    fn binary_masks_are_split_at_the_threshold() {
        let rule = LabelRule::binary(128);
        assert_eq!(rule.class_of(127, 2), Some(0));
        assert_eq!(rule.class_of(128, 2), Some(1));
        assert_eq!(rule.class_of(255, 2), Some(1));
        assert_eq!(rule.legal_values(2), "0..=255");
    }

    #[test]
    fn a_mask_is_below_the_threshold_only_if_it_has_levels_and_none_reaches_it() {
        let mut rule = LabelRule::binary(128);
        let largest =
            |rule: &LabelRule, levels: &[u16]| rule.below_threshold(levels.iter().copied());
        assert_eq!(largest(&rule, &[0, 1, 0]), Some((1, 128)));
        assert_eq!(largest(&rule, &[0, 127, 3]), Some((127, 128)));
        assert_eq!(largest(&rule, &[0, 1, 128]), None);
        assert_eq!(largest(&rule, &[0, 0]), None);
        rule.ignore = vec![127];
        assert_eq!(largest(&rule, &[0, 127]), None);
        assert_eq!(largest(&LabelRule::binary(1), &[0, 1]), None);
        assert_eq!(largest(&LabelRule::identity(), &[0, 1]), None);
    }

    #[test]
    fn colours_are_looked_up_and_the_error_names_the_place_of_an_unknown_one() {
        let palette = BTreeMap::from([([0, 0, 0], 0), ([255, 0, 0], 1), ([9, 9, 9], IGNORE_LABEL)]);
        let rule = LabelRule::new(LabelKind::Palette(palette));
        let mut rgb = RgbImage::new(3, 2);
        rgb.put_pixel(1, 0, image_pixel([255, 0, 0]));
        rgb.put_pixel(2, 1, image_pixel([9, 9, 9]));
        let place = (Path::new("a.png"), "Rooms");
        let read = |rgb: &RgbImage| rule.to_classes(Stored::Colours(rgb.clone()), 2, place);
        let labels = read(&rgb).unwrap();
        assert_eq!(labels.labels(), [0, 1, 0, 0, 0, IGNORE_LABEL]);
        rgb.put_pixel(0, 1, image_pixel([255, 0, 1]));
        assert_eq!(
            read(&rgb).unwrap_err().to_string(),
            "a.png: colour #ff0001 at (0, 1); Rooms colours are #000000, #090909 and #ff0000"
        );
    }

    fn image_pixel(colour: [u8; 3]) -> image::Rgb<u8> {
        image::Rgb(colour)
    }
}
