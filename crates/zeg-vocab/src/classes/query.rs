//! The class list that a user types: `dog|puppy, sofa, traffic light`.

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// A class to look for, under one or more names.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ClassQuery {
    /// The first name, shown in results.
    pub name: String,
    /// Further names of the same class.
    pub synonyms: Vec<String>,
}

impl ClassQuery {
    /// All names, the displayed one first.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        std::iter::once(self.name.as_str()).chain(self.synonyms.iter().map(String::as_str))
    }
}

/// A class list that says nothing, or the same thing twice.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum QueryError {
    /// There is no name at all.
    #[error("the class list is empty; write names separated by commas, such as \"dog, sofa\"")]
    EmptyList,
    /// A name is missing between separators.
    #[error("entry {position} of the class list {list:?} has an empty name")]
    EmptyName {
        /// Position of the entry, from 1.
        position: usize,
        /// The list as it was given.
        list: String,
    },
    /// A name occurs twice; case does not distinguish names, since the tokenizer ignores it.
    #[error("the class list names {name:?} twice")]
    Duplicate {
        /// The second occurrence as it was written.
        name: String,
    },
}

/// Reads classes separated by commas, each with synonyms separated by `|`; white space around names does not count.
///
/// # Errors
/// [`QueryError`] for an empty list, an empty name, or a name that occurs twice.
///
/// ```
/// let classes = zeg_vocab::classes::parse_class_list("dog|puppy, traffic light")?;
/// assert_eq!(classes[0].synonyms, ["puppy"]);
/// assert_eq!(classes[1].name, "traffic light");
/// # Ok::<(), zeg_vocab::classes::QueryError>(())
/// ```
pub fn parse_class_list(list: &str) -> Result<Vec<ClassQuery>, QueryError> {
    if list.trim().is_empty() {
        return Err(QueryError::EmptyList);
    }
    let mut taken: Vec<String> = Vec::new();
    let mut classes = Vec::new();
    for (position, entry) in (1..).zip(list.split(',')) {
        let names: Vec<String> = entry
            .split('|')
            .map(|name| name.trim().to_owned())
            .collect();
        for name in &names {
            if name.is_empty() {
                return Err(QueryError::EmptyName {
                    position,
                    list: list.to_owned(),
                });
            }
            let key = name.to_lowercase();
            if taken.contains(&key) {
                return Err(QueryError::Duplicate { name: name.clone() });
            }
            taken.push(key);
        }
        let mut names = names.into_iter();
        if let Some(name) = names.next() {
            classes.push(ClassQuery {
                name,
                synonyms: names.collect(),
            });
        }
    }
    Ok(classes)
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
    fn nonsense_is_refused() {
        assert_eq!(parse_class_list("  "), Err(QueryError::EmptyList));
        for (list, position) in [
            ("dog,,cat", 2),
            ("dog,", 2),
            ("dog|", 1),
            ("|", 1),
            (",", 1),
        ] {
            let list = list.to_owned();
            assert_eq!(
                parse_class_list(&list),
                Err(QueryError::EmptyName { position, list })
            );
        }
        for list in ["dog, Dog", "dog|dog", "cat|puppy, puppy"] {
            assert!(
                matches!(parse_class_list(list), Err(QueryError::Duplicate { .. })),
                "{list}"
            );
        }
    }
}
