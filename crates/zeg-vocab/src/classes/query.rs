//! The classes that a user wants to segment: class names with synonyms, and the checks of a class list.
//!
//! Names come from users, so they are checked on input. The same rules hold for the list on the command line
//! (`dog|puppy, sofa`) and for class files ([`super::class_file`]), and every error names the place.

use std::collections::HashMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use thiserror::Error;
use unicode_normalization::UnicodeNormalization;

use super::other_form::is_numbered;

/// Largest length of a class name in characters. CLIP reads 77 tokens, so much shorter names fail later with their
/// token count; this bound only keeps a wrong file from becoming one endless name.
pub const MAX_NAME_CHARACTERS: usize = 1000;
/// Largest number of classes in a list: labels are `u16`, and the largest value is the ignore index.
pub const MAX_CLASSES: usize = 65_534;
/// Number of characters of a name that an error shows.
const SHOWN: usize = 40;

/// A class to segment, with one or more names.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ClassQuery {
    /// The class name, shown in results.
    pub name: String,
    /// Synonyms of the class name.
    #[serde(default)]
    pub synonyms: Vec<String>,
    /// Whether pixels of the class are labelled.
    #[serde(default, skip_serializing_if = "Role::is_foreground")]
    pub role: Role,
    /// Colour (RGB) in overlays and palettes; `None` for the colour of the default palette.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub colour: Option<[u8; 3]>,
    /// Lowest score, 0..=1, at which a pixel is labelled with this class; `None` for the threshold of all classes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub threshold: Option<f32>,
}

/// Foreground or background class.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Pixels are labelled with the class.
    #[default]
    Foreground,
    /// A background class: it competes with the other classes, but its pixels stay unlabelled. A class "wall" keeps
    /// walls from being labelled as sofas.
    Background,
}

impl Role {
    /// Returns true for [`Role::Foreground`].
    #[allow(clippy::trivially_copy_pass_by_ref)] // serde passes fields by reference
    pub fn is_foreground(&self) -> bool {
        *self == Self::Foreground
    }
}

impl ClassQuery {
    /// Creates a foreground class with one name and default settings.
    ///
    /// The name is not checked; names from a user go through [`parse_class_list`] or
    /// [`parse_class_file`](super::parse_class_file).
    pub fn new(name: impl Into<String>) -> Self {
        Self {
            name: name.into(),
            ..Self::default()
        }
    }

    /// Returns all names, the class name first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.synonyms.iter().map(String::as_str))
    }
}

/// Position of a name in the input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Position between the commas of a list on the command line, from 1.
    Entry(usize),
    /// Line of a file, from 1.
    Line(usize),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Entry(position) => write!(f, "entry {position} of the class list"),
            Self::Line(line) => write!(f, "line {line}"),
        }
    }
}

/// An error in a class list.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueryError {
    /// The list has no names.
    #[error("the class list names no class")]
    EmptyList,
    /// Every class is a background class, so that no pixel could be labelled.
    #[error("every class of the list is a background class")]
    OnlyBackground,
    /// A name next to a separator is missing, or has no visible character.
    #[error("{place}: a name is missing in {text:?}")]
    EmptyName {
        /// Position of the name.
        place: Place,
        /// The entry or line, shortened.
        text: String,
    },
    /// A name occurs twice. Names that differ only in case, white space or the composition of accents are equal, since
    /// the tokenizer ignores these differences.
    #[error("{place}: {name:?} is already named, in {first}")]
    Duplicate {
        /// Position of the second occurrence.
        place: Place,
        /// The second occurrence as it was written.
        name: String,
        /// Position of the first occurrence.
        first: Place,
    },
    /// A name is longer than [`MAX_NAME_CHARACTERS`].
    #[error("{place}: a name of {characters} characters, the limit is {limit}: {start:?}")]
    LongName {
        /// Position of the name.
        place: Place,
        /// Beginning of the name.
        start: String,
        /// Its length.
        characters: usize,
        /// The limit.
        limit: usize,
    },
    /// A name contains a control character, which would garble tables, files and terminals.
    #[error("{place}: the name {name:?} contains the control character {character:?}; remove it")]
    ControlCharacter {
        /// Position of the name.
        place: Place,
        /// The name, shortened.
        name: String,
        /// The first such character.
        character: char,
    },
    /// A name begins with a quotation mark or bracket, because the list is in another form, such as JSON.
    #[error(
        "{place}: the name {name:?} begins with {character:?}; write names without quotation marks and brackets"
    )]
    Punctuation {
        /// Position of the name.
        place: Place,
        /// The name, shortened.
        name: String,
        /// Its first character.
        character: char,
    },
    /// All entries begin with numbers that count up.
    #[error(
        "{place}: {text:?} begins with a number, and so do all others; write the names without their numbers"
    )]
    Numbered {
        /// Position of the first entry.
        place: Place,
        /// The first entry, shortened.
        text: String,
    },
    /// The list is longer than [`MAX_CLASSES`].
    #[error("{place}: more than {limit} classes; labels are numbers of 16 bits")]
    TooManyClasses {
        /// Position of the first class beyond the limit.
        place: Place,
        /// The limit.
        limit: usize,
    },
}

impl QueryError {
    pub(super) fn numbered(entry: &str, place: Place) -> Self {
        Self::Numbered {
            place,
            text: shortened(entry),
        }
    }
}

/// Parses classes separated by commas, each with synonyms separated by `|`; white space around names is ignored.
///
/// # Errors
/// Returns an error for an empty list, an empty name, a name that occurs twice, and names and lists beyond the limits.
///
/// ```
/// let classes = zeg_vocab::classes::parse_class_list("dog|puppy, traffic light")?;
/// assert_eq!(classes[0].synonyms, ["puppy"]);
/// assert_eq!(classes[1].name, "traffic light");
/// # Ok::<(), zeg_vocab::classes::QueryError>(())
/// ```
pub fn parse_class_list(list: &str) -> Result<Vec<ClassQuery>, QueryError> {
    if is_blank(list) {
        return Err(QueryError::EmptyList);
    }
    let entries: Vec<&str> = list.split(',').collect();
    if let Some(entry) = entries.first()
        && is_numbered(&entries)
    {
        return Err(QueryError::numbered(entry, Place::Entry(1)));
    }
    let mut collector = Collector::default();
    for (position, entry) in (1..).zip(entries) {
        let place = Place::Entry(position);
        collector.push(parse_names(entry, &['|'], place)?, place)?;
    }
    collector.finish()
}

/// Parses a class from its names, separated by `separators`, and checks each name.
pub(crate) fn parse_names(
    text: &str,
    separators: &[char],
    place: Place,
) -> Result<ClassQuery, QueryError> {
    let mut names = text.split(separators).map(|name| {
        let checked = check_name(name, place).map_err(|error| match error {
            QueryError::EmptyName { place, .. } => QueryError::EmptyName {
                place,
                text: shortened(text),
            },
            other => other,
        })?;
        match first_mark(&checked) {
            Some(character) => Err(QueryError::Punctuation {
                place,
                name: shortened(&checked),
                character,
            }),
            None => Ok(checked),
        }
    });
    let name = names.next().transpose()?.unwrap_or_default();
    Ok(ClassQuery {
        synonyms: names.collect::<Result<_, _>>()?,
        ..ClassQuery::new(name)
    })
}

/// Returns the first character of a name if it is a quotation mark or bracket of another form of list.
fn first_mark(name: &str) -> Option<char> {
    let first = name.chars().next()?;
    // An apostrophe may begin a name; a pair of them encloses one.
    let encloses = first == '\'' && name.len() > 1 && name.ends_with('\'');
    (matches!(first, '"' | '“' | '[' | '{') || encloses).then_some(first)
}

/// Checks a name and returns it without surrounding white space.
pub(crate) fn check_name(name: &str, place: Place) -> Result<String, QueryError> {
    let name = name.trim();
    if is_blank(name) {
        return Err(QueryError::EmptyName {
            place,
            text: shortened(name),
        });
    }
    let characters = name.chars().count();
    if characters > MAX_NAME_CHARACTERS {
        return Err(QueryError::LongName {
            place,
            start: shortened(name),
            characters,
            limit: MAX_NAME_CHARACTERS,
        });
    }
    if let Some(character) = name.chars().find(|character| character.is_control()) {
        return Err(QueryError::ControlCharacter {
            place,
            name: shortened(name),
            character,
        });
    }
    Ok(name.to_owned())
}

/// Returns true if the text has no visible character: only white space, joiners and direction marks.
fn is_blank(text: &str) -> bool {
    let is_invisible = |c: char| {
        c.is_whitespace() || matches!(c, '\u{200b}'..='\u{200f}' | '\u{2060}' | '\u{feff}')
    };
    text.chars().all(is_invisible)
}

/// Returns the text shortened for an error message.
pub(crate) fn shortened(text: &str) -> String {
    let text = text.trim();
    match text.char_indices().nth(SHOWN) {
        Some((end, _)) => format!("{}…", text.get(..end).unwrap_or_default()),
        None => text.to_owned(),
    }
}

/// Collects classes and refuses duplicate names.
#[derive(Default)]
pub(crate) struct Collector {
    classes: Vec<ClassQuery>,
    /// By name, in the form in which names are compared: its position.
    taken: HashMap<String, Place>,
}

impl Collector {
    /// Adds the class at `place`.
    pub(crate) fn push(&mut self, class: ClassQuery, place: Place) -> Result<(), QueryError> {
        if self.classes.len() == MAX_CLASSES {
            return Err(QueryError::TooManyClasses {
                place,
                limit: MAX_CLASSES,
            });
        }
        for name in class.names() {
            if let Some(&first) = self.taken.get(&comparable(name)) {
                return Err(QueryError::Duplicate {
                    place,
                    name: shortened(name),
                    first,
                });
            }
            self.taken.insert(comparable(name), place);
        }
        self.classes.push(class);
        Ok(())
    }

    /// Returns all classes; at least one must be a foreground class.
    pub(crate) fn finish(self) -> Result<Vec<ClassQuery>, QueryError> {
        if self.classes.is_empty() {
            return Err(QueryError::EmptyList);
        }
        if !self.classes.iter().any(|class| class.role.is_foreground()) {
            return Err(QueryError::OnlyBackground);
        }
        Ok(self.classes)
    }
}

/// Returns the form in which names are compared: composed accents, lower case, single spaces.
fn comparable(name: &str) -> String {
    let lower = name.nfc().collect::<String>().to_lowercase();
    // Lower case may add combining marks: the Turkish capital İ becomes two characters.
    let words: Vec<&str> = lower.split_whitespace().collect();
    words.join(" ").nfc().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_trimmed_and_grouped() {
        let classes = parse_class_list(" dog | puppy ,sofa,  traffic light ").unwrap();
        let names: Vec<Vec<&str>> = classes
            .iter()
            .map(|class| class.names().collect())
            .collect();
        assert_eq!(
            names,
            [vec!["dog", "puppy"], vec!["sofa"], vec!["traffic light"]]
        );
    }

    #[test]
    fn empty_names_are_refused_with_their_place() {
        for list in ["", "  ", "\u{200b}"] {
            assert_eq!(parse_class_list(list), Err(QueryError::EmptyList));
        }
        for (list, position, text) in [
            ("dog,,cat", 2, ""),
            ("dog,", 2, ""),
            ("dog|", 1, "dog|"),
            ("|", 1, "|"),
            (",", 1, ""),
            ("cat, \u{200d}", 2, "\u{200d}"),
        ] {
            let place = Place::Entry(position);
            let text = text.to_owned();
            assert_eq!(
                parse_class_list(list),
                Err(QueryError::EmptyName { place, text }),
                "{list:?}"
            );
        }
    }

    #[test]
    fn names_that_differ_in_case_spaces_or_composition_are_duplicates() {
        for list in [
            "dog, Dog",
            "dog|dog",
            "cat|puppy, puppy",
            "caf\u{e9}, cafe\u{301}",
            "traffic light, Traffic  Light",
            "\u{130}, i\u{307}",
            "ΑΣ, ας",
        ] {
            let error = parse_class_list(list).unwrap_err();
            assert!(
                matches!(
                    error,
                    QueryError::Duplicate {
                        first: Place::Entry(1),
                        ..
                    }
                ),
                "{list}: {error}"
            );
        }
        let error = parse_class_list("sofa, cat, Sofa").unwrap_err();
        assert_eq!(
            error.to_string(),
            "entry 3 of the class list: \"Sofa\" is already named, in entry 1 of the class list"
        );
    }

    #[test]
    fn names_of_any_script_are_names() {
        let classes = parse_class_list("كلب|כלב, 人, \u{1f436}, naïve café").unwrap();
        assert_eq!(classes.len(), 4);
        assert_eq!(classes[0].synonyms, ["כלב"]);
    }

    #[test]
    fn a_name_of_ten_thousand_characters_is_refused_briefly() {
        let error = parse_class_list(&format!("dog, {}", "é".repeat(10_000))).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("10000 characters, the limit is 1000"),
            "{text}"
        );
        assert!(text.chars().count() < 150, "{text}");
        assert!(parse_class_list(&"é".repeat(1000)).is_ok());
    }

    #[test]
    fn control_characters_are_refused() {
        let error = parse_class_list("dog, ca\u{1b}[31mt").unwrap_err();
        assert!(
            matches!(
                error,
                QueryError::ControlCharacter {
                    character: '\u{1b}',
                    ..
                }
            ),
            "{error}"
        );
        assert!(!error.to_string().contains('\u{1b}'));
    }

    /// 65,534 classes are read in linear time; comparing every pair would take minutes.
    #[test]
    fn a_list_can_be_as_long_as_labels_allow() {
        let list = |classes: usize| {
            let names: Vec<String> = (0..classes).map(|index| format!("class {index}")).collect();
            parse_class_list(&names.join(","))
        };
        assert_eq!(list(MAX_CLASSES).unwrap().len(), MAX_CLASSES);
        assert!(matches!(
            list(MAX_CLASSES + 1),
            Err(QueryError::TooManyClasses {
                place: Place::Entry(65_535),
                ..
            })
        ));
    }

    #[test]
    fn a_plain_class_is_stored_by_its_names_alone() {
        let json = serde_json::to_string(&ClassQuery::new("dog")).unwrap();
        assert_eq!(json, r#"{"name":"dog","synonyms":[]}"#);
        let class: ClassQuery = serde_json::from_str(&json).unwrap();
        assert_eq!(class, ClassQuery::new("dog"));
        let class: ClassQuery =
            serde_json::from_str(r#"{"name":"sky","role":"background","threshold":0.5}"#).unwrap();
        assert_eq!((class.role, class.threshold), (Role::Background, Some(0.5)));
    }
}
