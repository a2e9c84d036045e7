//! The class list of an export: the names and colours of the labels.

use std::collections::BTreeSet;

use zeg_image::IGNORE_LABEL;

use crate::ExportError;

/// Names and colours by label; the same for all images of an export.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Classes {
    names: Vec<String>,
    palette: Vec<[u8; 3]>,
    /// Labels of the background classes.
    background: BTreeSet<u16>,
}

impl Classes {
    /// Creates a class list from names in label order.
    ///
    /// `palette` is repeated when it is too short; an empty one means grey.
    ///
    /// # Errors
    /// Returns [`ExportError::TooManyClasses`] if the list has more names than there are labels below [`IGNORE_LABEL`].
    pub fn new(names: Vec<String>, palette: Vec<[u8; 3]>) -> Result<Self, ExportError> {
        if names.len() > usize::from(IGNORE_LABEL) {
            return Err(ExportError::TooManyClasses {
                classes: names.len(),
                limit: usize::from(IGNORE_LABEL),
            });
        }
        Ok(Self {
            names,
            palette,
            background: BTreeSet::new(),
        })
    }

    /// Marks the background classes: no pixel has them, so annotations have no category for them.
    #[must_use]
    pub fn with_background(self, labels: impl IntoIterator<Item = u16>) -> Self {
        Self {
            background: labels.into_iter().collect(),
            ..self
        }
    }

    /// Returns the names in label order.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the number of classes.
    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// Returns true if there are no classes.
    pub fn is_empty(&self) -> bool {
        self.names.is_empty()
    }

    /// Returns the name of a label; empty for a label beyond the list.
    pub fn name(&self, label: u16) -> &str {
        self.names
            .get(usize::from(label))
            .map_or("", String::as_str)
    }

    /// Returns the RGB colour of a label.
    pub fn colour(&self, label: u16) -> [u8; 3] {
        let index = usize::from(label).checked_rem(self.palette.len());
        let colour = index.and_then(|index| self.palette.get(index));
        colour.copied().unwrap_or([128; 3])
    }

    /// Returns the colour of a label as `#rrggbb`, the notation of CSS and of labelling tools.
    pub(crate) fn hex_colour(&self, label: u16) -> String {
        zeg_base::hex::colour(self.colour(label))
    }

    /// Returns all labels with their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u16, &str)> {
        (0..).zip(self.names.iter().map(String::as_str))
    }

    /// Returns the classes that annotations can have, in label order, without the background classes.
    pub(crate) fn categories(&self) -> impl Iterator<Item = (u16, &str)> {
        self.iter()
            .filter(|(label, _)| !self.background.contains(label))
    }

    /// Returns the position of a label among the categories, from 0.
    pub fn category(&self, label: u16) -> u32 {
        let before = self.background.range(..label).count();
        u32::from(label).saturating_sub(before as u32)
    }

    /// Returns the names as legal XML text, and checks that they are all different.
    ///
    /// XML 1.0 does not allow most control characters, not even as references; each becomes the replacement character
    /// U+FFFD.
    pub(crate) fn xml_names(&self) -> Result<Vec<String>, ExportError> {
        let mut taken = BTreeSet::new();
        let names: Vec<_> = self.names.iter().map(|name| xml_text(name)).collect();
        for name in &names {
            if !taken.insert(name.as_str()) {
                return Err(ExportError::DuplicateName { name: name.clone() });
            }
        }
        Ok(names)
    }
}

/// Replaces every character that XML 1.0 does not allow (its production 2) by U+FFFD.
pub(crate) fn xml_text(text: &str) -> String {
    let legal = |character| matches!(character, '\t' | '\n' | '\r' | ' '..='\u{d7ff}' | '\u{e000}'..='\u{fffd}' | '\u{10000}'..);
    text.chars()
        .map(|character| {
            if legal(character) {
                character
            } else {
                '\u{fffd}'
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_palettes_repeat_and_empty_ones_are_grey() {
        let names = || vec!["a".to_string(), "b".into(), "c".into()];
        let classes = Classes::new(names(), vec![[1, 2, 3], [255, 0, 16]]).unwrap();
        assert_eq!(classes.hex_colour(1), "#ff0010");
        assert_eq!(classes.colour(2), [1, 2, 3]);
        assert_eq!(classes.name(3), "");
        let grey = Classes::new(names(), vec![]).unwrap();
        assert_eq!(grey.colour(65534), [128; 3]);
    }

    #[test]
    fn background_classes_are_no_categories() {
        let names = ["wall", "cat", "floor", "dog"].map(str::to_owned).to_vec();
        let classes = Classes::new(names, vec![]).unwrap();
        assert_eq!(classes.category(3), 3);
        let classes = classes.with_background([2, 0]);
        let found: Vec<(u16, &str)> = classes.categories().collect();
        assert_eq!(found, [(1, "cat"), (3, "dog")]);
        assert_eq!((classes.category(1), classes.category(3)), (0, 1));
        assert_eq!((classes.len(), classes.name(2)), (4, "floor"));
    }

    #[test]
    fn labels_must_be_able_to_count_the_classes() {
        assert!(Classes::new(vec![String::new(); 65_535], vec![]).is_ok());
        let error = Classes::new(vec![String::new(); 65_536], vec![]).unwrap_err();
        assert_eq!(
            error.to_string(),
            "65536 classes; at most 65535 can be labelled"
        );
    }

    #[test]
    fn xml_names_are_legal_and_different() {
        let classes = |names: &[&str]| {
            let names = names.iter().map(ToString::to_string).collect();
            Classes::new(names, vec![]).unwrap()
        };
        let names = classes(&["a\0b\u{b}", "\u{ffff}<\t&"]).xml_names().unwrap();
        assert_eq!(names, ["a\u{fffd}b\u{fffd}", "\u{fffd}<\t&"]);
        let error = classes(&["x", "a\0", "a\u{1}"]).xml_names().unwrap_err();
        assert!(matches!(error, ExportError::DuplicateName { .. }));
    }
}
