//! Reads official label maps and converts their values to class indices.

use std::path::Path;
use std::sync::Arc;

use zeg_image::{IGNORE_LABEL, ImageError, LabelMap, decode_labels, decode_mask, voc_palette};

use super::{PrepareError, matlab};

/// The ignore index of 8-bit label maps.
pub(crate) const IGNORE_BYTE: u16 = 255;
/// Largest MATLAB file that is read, in bytes; those of the data sets have some 10 kB.
const MAX_MATLAB_BYTES: u64 = 1 << 28;

/// The file format of a label map.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// A PNG of indices.
    Index,
    /// A PNG of indices, or a PNG in colour that is read with the VOC palette.
    IndexOrVocColours,
    /// An array in a MATLAB file: the name of the variable, then the names of the fields below it.
    Matlab(&'static [&'static str]),
    /// A PNG in ADE20K's colours: the value is ⌊red / 10⌋ · 256 + green.
    AdeColours,
}

/// A label map with the values of the download.
pub(crate) struct Raw {
    pub(crate) map: LabelMap,
    /// Whether the file itself is a PNG of these indices.
    pub(crate) is_index_file: bool,
}

impl Form {
    /// Reads the values of the file without converting them; 255 stays 255.
    pub(crate) fn read(self, path: &Path) -> Result<Raw, PrepareError> {
        let index = |map| Raw {
            map,
            is_index_file: true,
        };
        let map = match self {
            Self::Index => return Ok(index(decode_labels(path)?)),
            Self::IndexOrVocColours => match decode_labels(path) {
                Ok(map) => return Ok(index(map)),
                Err(ImageError::LabelsInColour { .. }) => from_voc_colours(path)?,
                Err(error) => return Err(error.into()),
            },
            Self::Matlab(place) => from_matlab(path, place)?,
            Self::AdeColours => from_ade_colours(path)?,
        };
        Ok(Raw {
            map,
            is_index_file: false,
        })
    }
}

fn from_matlab(path: &Path, place: &[&str]) -> Result<LabelMap, PrepareError> {
    let unreadable = |source| PrepareError::unreadable(path, source);
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() {
        return Err(ImageError::NotRegular { path: path.into() }.into());
    }
    if metadata.len() > MAX_MATLAB_BYTES {
        return Err(ImageError::FileTooLarge {
            path: path.into(),
            bytes: metadata.len(),
            limit: MAX_MATLAB_BYTES,
        }
        .into());
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    matlab::read_labels(&bytes, place).map_err(|source| PrepareError::Matlab {
        path: path.into(),
        source,
    })
}

/// Reads a label map in the VOC palette's colours of the 20 classes, the background and the border.
fn from_voc_colours(path: &Path) -> Result<LabelMap, PrepareError> {
    let image = decode_mask(path)?;
    let width = image.width() as usize;
    let palette = voc_palette(256);
    let known: Vec<([u8; 3], u16)> = (0..=20)
        .chain([IGNORE_BYTE])
        .filter_map(|class| Some((*palette.get(usize::from(class))?, class)))
        .collect();
    let mut labels = Vec::with_capacity(image.as_raw().len() / 3);
    for (index, pixel) in image.pixels().enumerate() {
        let class = known.iter().find(|(colour, _)| *colour == pixel.0);
        let Some(&(_, class)) = class else {
            return Err(PrepareError::IllegalColour {
                file: path.into(),
                colour: pixel.0,
                x: index % width.max(1),
                y: index / width.max(1),
            });
        };
        labels.push(class);
    }
    Ok(LabelMap::new(width, image.height() as usize, labels)?)
}

/// Reads a label map in ADE20K's colours, as ADE20K's own tools and MaskFormer's preparation decode them.
fn from_ade_colours(path: &Path) -> Result<LabelMap, PrepareError> {
    let image = decode_mask(path)?;
    let labels = image
        .pixels()
        .map(|pixel| {
            let [red, green, _] = pixel.0;
            u16::from(red / 10) * 256 + u16::from(green)
        })
        .collect();
    let (width, height) = (image.width() as usize, image.height() as usize);
    Ok(LabelMap::new(width, height, labels)?)
}

/// Rule that maps each value of a label map to a class, and says which values are legal.
#[derive(Debug)]
pub(crate) struct Rule {
    title: &'static str,
    legal: &'static str,
    /// The class of each value; [`IGNORE_LABEL`] for ignored values, `None` for illegal values.
    table: Vec<Option<u16>>,
    /// The same for all values beyond the table.
    beyond: Option<u16>,
    /// Number of classes of the result.
    classes: usize,
}

impl Rule {
    /// Returns a rule for `pairs` of a value and its class, in any order; all other values are illegal.
    pub(crate) fn new(
        title: &'static str,
        legal: &'static str,
        classes: usize,
        pairs: impl IntoIterator<Item = (u16, u16)>,
    ) -> Self {
        let mut rule = Self {
            title,
            legal,
            table: Vec::new(),
            beyond: None,
            classes,
        };
        for (value, class) in pairs {
            let value = usize::from(value);
            if rule.table.len() <= value {
                rule.table.resize(value + 1, None);
            }
            if let Some(place) = rule.table.get_mut(value) {
                *place = Some(class);
            }
        }
        rule
    }

    /// Returns the rule for values that are the classes `0..=last` or 255 for ignored pixels.
    pub(crate) fn identity(title: &'static str, legal: &'static str, last: u16) -> Self {
        let pairs = (0..=last)
            .map(|value| (value, value))
            .chain([(IGNORE_BYTE, IGNORE_LABEL)]);
        Self::new(title, legal, usize::from(last) + 1, pairs)
    }

    /// Returns the rule with `class` for all values that have no class of their own.
    pub(crate) fn with_others(mut self, class: u16) -> Self {
        for place in &mut self.table {
            *place = place.or(Some(class));
        }
        self.beyond = Some(class);
        self
    }

    /// Returns the rule with `class` for the values up to `last` that have no class of their own.
    pub(crate) fn with_others_up_to(mut self, last: u16, class: u16) -> Self {
        let length = self.table.len().max(usize::from(last) + 1);
        self.table.resize(length, None);
        for place in self.table.iter_mut().take(usize::from(last) + 1) {
            *place = place.or(Some(class));
        }
        self
    }

    /// Returns whether every legal value stays as it is, so that a file need not be converted.
    pub(crate) fn keeps_values(&self) -> bool {
        self.beyond.is_none()
            && (0..).zip(&self.table).all(|(value, class)| match *class {
                None => true,
                Some(IGNORE_LABEL) => value == IGNORE_BYTE,
                Some(class) => class == value,
            })
    }

    /// Returns whether a value is legal.
    pub(crate) fn takes(&self, value: u16) -> bool {
        match self.table.get(usize::from(value)) {
            Some(class) => class.is_some(),
            None => self.beyond.is_some(),
        }
    }

    /// Returns the number of classes of the result, which decides whether it needs 8 or 16 bits.
    pub(crate) fn classes(&self) -> usize {
        self.classes
    }

    /// Converts values to classes; `file` is only used in errors.
    pub(crate) fn apply(&self, mut map: LabelMap, file: &Path) -> Result<LabelMap, PrepareError> {
        let width = map.width().max(1);
        for (index, label) in map.labels_mut().iter_mut().enumerate() {
            let class = match self.table.get(usize::from(*label)) {
                Some(class) => *class,
                None => self.beyond,
            };
            *label = class.ok_or_else(|| PrepareError::IllegalValue {
                file: file.into(),
                value: *label,
                x: index % width,
                y: index / width,
                dataset: self.title,
                legal: self.legal,
            })?;
        }
        Ok(map)
    }
}

/// A rule that all tasks of a plan share.
pub(crate) type SharedRule = Arc<Rule>;

#[cfg(test)]
mod tests {
    use super::*;

    fn apply(rule: &Rule, values: &[u16]) -> Result<Vec<u16>, PrepareError> {
        let map = LabelMap::new(values.len(), 1, values.to_vec()).unwrap();
        rule.apply(map, Path::new("a.png"))
            .map(LabelMap::into_labels)
    }

    #[test]
    fn values_without_a_class_are_illegal_inside_and_beyond_the_table() {
        let rule = Rule::new("Test", "2 and 5", 2, [(2, 0), (5, 1)]);
        assert_eq!(apply(&rule, &[5, 2]).unwrap(), [1, 0]);
        for value in [0, 3, 6, 65535] {
            assert!(!rule.takes(value));
            let error = apply(&rule, &[2, value]).unwrap_err().to_string();
            assert_eq!(
                error,
                format!("a.png: label value {value} at (1, 0); Test labels are 2 and 5")
            );
        }
    }

    #[test]
    fn other_values_get_the_given_class() {
        let pairs = [(2, 0), (5, 1)];
        let rule = Rule::new("Test", "all", 2, pairs).with_others(9);
        assert_eq!(apply(&rule, &[0, 2, 5, 6, 65535]).unwrap(), [9, 0, 1, 9, 9]);
        let rule = Rule::new("Test", "0..=7", 2, pairs).with_others_up_to(7, 9);
        assert_eq!(apply(&rule, &[0, 2, 5, 7]).unwrap(), [9, 0, 1, 9]);
        assert!(apply(&rule, &[8]).is_err() && !rule.takes(8) && rule.takes(7));
    }

    #[test]
    fn only_rules_that_change_nothing_keep_files() {
        assert!(Rule::identity("Test", "0..=3 and 255", 3).keeps_values());
        assert!(!Rule::new("Test", "", 3, [(1, 1), (2, 0)]).keeps_values());
        assert!(!Rule::new("Test", "", 3, [(1, IGNORE_LABEL)]).keeps_values());
        assert!(!Rule::identity("Test", "", 3).with_others(0).keeps_values());
    }
}
