//! Which classes of a list are unseen.

use super::ClassError;

/// A list's labels in two parts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Split {
    /// Labels of the seen classes, ascending.
    pub seen: Vec<usize>,
    /// Labels of the unseen classes, ascending, each once.
    pub unseen: Vec<usize>,
}

impl Split {
    /// Splits a class list by the names of its unseen classes; naming a class twice is naming it once.
    ///
    /// # Errors
    /// [`ClassError::UnknownClass`] with the most similar spelling if a name is not in the list.
    pub fn new(classes: &[String], unseen: &[impl AsRef<str>]) -> Result<Self, ClassError> {
        let mut labels = unseen
            .iter()
            .map(|name| label_of(classes, name.as_ref()))
            .collect::<Result<Vec<_>, _>>()?;
        labels.sort_unstable();
        labels.dedup();
        Ok(Self {
            seen: (0..classes.len())
                .filter(|label| !labels.contains(label))
                .collect(),
            unseen: labels,
        })
    }
}

fn label_of(classes: &[String], name: &str) -> Result<usize, ClassError> {
    let found = classes.iter().position(|class| class == name);
    found.ok_or_else(|| ClassError::UnknownClass {
        name: name.to_owned(),
        closest: classes
            .iter()
            .min_by_key(|class| strsim::damerau_levenshtein(class, name))
            .cloned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_class_is_on_one_side() {
        let classes = ["cat", "dog", "cow"].map(str::to_owned);
        let split = Split::new(&classes, &["cow", "cat", "cow"]).unwrap();
        assert_eq!((split.seen, split.unseen), (vec![1], vec![0, 2]));
        let all_seen = Split::new(&classes, &[] as &[&str]).unwrap();
        assert_eq!(all_seen.seen, [0, 1, 2]);
    }

    #[test]
    fn an_empty_list_has_no_closest_name() {
        let error = Split::new(&[], &["cat"]).unwrap_err();
        assert_eq!(error.to_string(), "unknown class \"cat\"");
    }
}
