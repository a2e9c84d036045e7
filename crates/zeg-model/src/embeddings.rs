//! Class embeddings with their class names, and the rows of classes among them.

use std::{
    collections::HashMap,
    path::{Path, PathBuf},
};

use burn::tensor::{Device, Tensor, TensorData};

pub use crate::embedding_table::{EmbeddingTable, table_bytes};
use crate::{ModelError, classes::ClassNeeds, weights::first_not_finite};

/// Class embeddings with their class names.
#[derive(Debug, Clone, PartialEq)]
pub struct ClassEmbeddings {
    names: Vec<String>,
    /// `[classes, dim]`, row-major, unit rows up to the precision they were stored in.
    values: Vec<f32>,
    dim: usize,
    origin: PathBuf,
}

impl ClassEmbeddings {
    /// Reads a table; see [`EmbeddingTable::open`].
    ///
    /// - `names`: class names of the rows, for a file that holds none; names in the file take precedence
    ///
    /// # Errors
    /// Returns the errors of [`EmbeddingTable::open`], and an error if the names are not as many as the rows.
    pub fn open(path: &Path, names: &[String]) -> Result<Self, ModelError> {
        EmbeddingTable::open(path)?.named(names)
    }

    /// Returns a table from given rows.
    ///
    /// # Errors
    /// Returns an error if the values are not `names.len()` rows of `dim` numbers, or if a row has no direction, because
    /// it holds a value that is not finite or nothing but zeros.
    pub fn new(
        names: Vec<String>,
        values: Vec<f32>,
        dim: usize,
        origin: PathBuf,
    ) -> Result<Self, ModelError> {
        if values.len() != names.len() * dim {
            let reason = format!(
                "holds {} values, which are not {} rows of {dim}",
                values.len(),
                names.len()
            );
            return Err(ModelError::Format {
                path: origin,
                reason,
            });
        }
        let defect = |row: &[f32]| match first_not_finite(row) {
            Some(index) => Some(format!("holds the value {}", row[index])),
            None => row
                .iter()
                .all(|value| *value == 0.0)
                .then(|| "holds nothing but zeros".to_owned()),
        };
        let mut rows = values.chunks_exact(dim.max(1)).zip(&names).enumerate();
        let bad = rows.find_map(|(number, (row, name))| Some((number, name, defect(row)?)));
        if let Some((number, name, defect)) = bad {
            let reason = format!("row {number} ({name}) of the class embeddings {defect}");
            return Err(ModelError::Format {
                path: origin,
                reason,
            });
        }
        Ok(Self {
            names,
            values,
            dim,
            origin,
        })
    }

    /// Returns the class names, one per row.
    pub fn names(&self) -> &[String] {
        &self.names
    }

    /// Returns the length of a row.
    pub fn dim(&self) -> usize {
        self.dim
    }

    /// Returns all rows: `[classes, dim]`, row-major.
    pub fn values(&self) -> &[f32] {
        &self.values
    }

    /// Returns the rows of some classes, in the order given.
    ///
    /// A class gets the row that has all its names, separated by commas. Without such a row it gets the row of its name,
    /// and a class with several names the mean of their rows, normalised to unit length.
    ///
    /// Names are compared without regard to case, spaces, hyphens and underscores.
    ///
    /// # Errors
    /// Returns an error if a name has no row.
    pub fn select(&self, classes: &[Vec<String>]) -> Result<Self, ModelError> {
        let selected = self.select_known(classes)?;
        match selected.missing.first() {
            Some(name) => Err(self.unknown(name)),
            None => Ok(selected.embeddings),
        }
    }

    /// Returns the names by which a model's classes are looked up among the rows: all names of a class that has a row
    /// for them together, and else those that the model needs.
    ///
    /// - `classes`: each a list of synonyms whose first is its name
    pub fn needed_names(&self, classes: &[Vec<String>], needs: &ClassNeeds) -> Vec<Vec<String>> {
        let index = RowIndex::new(&self.names);
        let is_row = |names: &[String]| index.whole.contains_key(&folded(&names.join(",")));
        let needed = classes.iter().zip(needs.names(classes));
        needed
            .map(|(all, needed)| if is_row(all) { all.clone() } else { needed })
            .collect()
    }

    /// Returns the rows of some classes as [`ClassEmbeddings::select`] does, and leaves out synonyms without a row if
    /// another name of their class has one.
    ///
    /// # Errors
    /// Returns an error if no name of a class has a row.
    pub fn select_known(&self, classes: &[Vec<String>]) -> Result<Selected, ModelError> {
        let index = RowIndex::new(&self.names);
        let mut values = Vec::with_capacity(classes.len() * self.dim);
        let mut missing = Vec::new();
        for names in classes {
            let together = index.whole.get(&folded(&names.join(",")));
            let found: Vec<&[f32]> = match together.and_then(|rows| rows.first()) {
                Some(&row) => vec![self.row(row)],
                None => names
                    .iter()
                    .filter_map(|name| {
                        let row = index.find(name).first().map(|&row| self.row(row));
                        if row.is_none() {
                            missing.push(name.clone());
                        }
                        row
                    })
                    .collect(),
            };
            match found[..] {
                [] => return Err(self.unknown(names.first().map_or("", String::as_str))),
                [row] => values.extend_from_slice(row),
                _ => values.extend(mean_direction(&found, self.dim)),
            }
        }
        let names = classes
            .iter()
            .map(|names| names.first().cloned().unwrap_or_default())
            .collect();
        Ok(Selected {
            embeddings: Self {
                names,
                values,
                dim: self.dim,
                origin: self.origin.clone(),
            },
            missing,
        })
    }

    /// Returns the rows at some positions, in the order given.
    ///
    /// # Errors
    /// Returns an error if a position is beyond the rows.
    pub fn rows(&self, positions: &[usize]) -> Result<Self, ModelError> {
        let count = self.names.len();
        if let Some(beyond) = positions.iter().find(|position| **position >= count) {
            return Err(ModelError::Config(format!(
                "class {beyond}, counted from 0, has no embedding; there are {count}"
            )));
        }
        let rows = positions.iter().map(|position| self.row(*position));
        let names = positions
            .iter()
            .map(|position| self.names[*position].clone());
        Ok(Self {
            names: names.collect(),
            values: rows.collect::<Vec<_>>().concat(),
            dim: self.dim,
            origin: self.origin.clone(),
        })
    }

    /// Returns the same rows with other names.
    ///
    /// # Errors
    /// Returns an error if the names are not as many as the rows.
    pub fn with_names(self, names: Vec<String>) -> Result<Self, ModelError> {
        if names.len() != self.names.len() {
            return Err(ModelError::Format {
                reason: format!(
                    "has {} rows for {} class names",
                    self.names.len(),
                    names.len()
                ),
                path: self.origin,
            });
        }
        Ok(Self { names, ..self })
    }

    /// Returns the path of the file that the rows come from.
    pub fn origin(&self) -> &Path {
        &self.origin
    }

    /// Returns a name that several rows have and one of the classes asks for, with the numbers of the first two rows,
    /// from 0.
    pub fn ambiguous(&self, classes: &[Vec<String>]) -> Option<(String, [usize; 2])> {
        let index = RowIndex::new(&self.names);
        classes.iter().find_map(|names| {
            let together = names.join(",");
            let wanted = if index.whole.contains_key(&folded(&together)) {
                std::slice::from_ref(&together)
            } else {
                &names[..]
            };
            wanted.iter().find_map(|name| match index.find(name)[..] {
                [first, second, ..] => Some((name.clone(), [first, second])),
                _ => None,
            })
        })
    }

    fn row(&self, index: usize) -> &[f32] {
        &self.values[index * self.dim..(index + 1) * self.dim]
    }

    fn unknown(&self, name: &str) -> ModelError {
        ModelError::UnknownClass {
            name: name.to_owned(),
            table: self.origin.display().to_string(),
            known: shortened(&self.names),
        }
    }

    /// Copies the rows to a device: `[classes, dim]`.
    pub fn to_tensor(&self, device: &Device) -> Tensor<2> {
        Tensor::from_data(
            TensorData::new(self.values.clone(), [self.names.len(), self.dim]),
            device,
        )
    }
}

/// The rows of every name, in the form in which names are compared.
struct RowIndex {
    /// By the whole name of a row, which may be several names separated by commas.
    whole: HashMap<String, Vec<usize>>,
    /// By each of several names of a row.
    parts: HashMap<String, Vec<usize>>,
}

impl RowIndex {
    fn new(names: &[String]) -> Self {
        let mut index = Self {
            whole: HashMap::with_capacity(names.len()),
            parts: HashMap::new(),
        };
        for (row, name) in names.iter().enumerate() {
            let name = folded(name);
            for part in name.split(',').filter(|_| name.contains(',')) {
                index.parts.entry(part.to_owned()).or_default().push(row);
            }
            index.whole.entry(name).or_default().push(row);
        }
        index
    }

    /// Returns the rows with this name: those that have no other name, or else those that have it among others.
    fn find(&self, name: &str) -> &[usize] {
        let name = folded(name);
        let found = self.whole.get(&name).or_else(|| self.parts.get(&name));
        found.map_or(&[], Vec::as_slice)
    }
}

/// The rows of some classes.
#[derive(Debug, Clone, PartialEq)]
pub struct Selected {
    /// One row per class.
    pub embeddings: ClassEmbeddings,
    /// Synonyms without a row; other names of their classes have one.
    pub missing: Vec<String>,
}

fn mean_direction(rows: &[&[f32]], dim: usize) -> Vec<f32> {
    let mut mean = vec![0.0_f32; dim];
    for row in rows {
        for (sum, value) in mean.iter_mut().zip(*row) {
            *sum += value;
        }
    }
    let length = mean
        .iter()
        .map(|v| v * v)
        .sum::<f32>()
        .sqrt()
        .max(f32::MIN_POSITIVE);
    mean.into_iter().map(|v| v / length).collect()
}

/// Returns whether two class names are equal, without regard to case, spaces, hyphens and underscores.
pub fn same_name(a: &str, b: &str) -> bool {
    folded(a) == folded(b)
}

fn folded(name: &str) -> String {
    name.chars()
        .filter(|c| !matches!(c, ' ' | '-' | '_'))
        // Both separate the names of a class.
        .map(|c| if c == '|' { ',' } else { c })
        .flat_map(char::to_lowercase)
        .collect()
}

fn shortened(names: &[String]) -> String {
    const SHOWN: usize = 24;
    let list = names
        .iter()
        .take(SHOWN)
        .map(String::as_str)
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > SHOWN {
        format!("{list}, … ({} in all)", names.len())
    } else {
        list
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table_of_values(values: Vec<f32>) -> Result<ClassEmbeddings, ModelError> {
        let names = vec!["cat".to_owned(), "dog".to_owned()];
        ClassEmbeddings::new(names, values, 2, "table".into())
    }

    #[test]
    fn rows_without_a_direction_are_errors_that_name_the_class() {
        for (bad, reason) in [
            ([f32::NAN, 1.0], "holds the value NaN"),
            ([1.0, f32::INFINITY], "holds the value inf"),
            ([0.0, 0.0], "holds nothing but zeros"),
        ] {
            let error = table_of_values([[1.0, 0.0], bad].concat())
                .unwrap_err()
                .to_string();
            assert!(error.contains("row 1 (dog)"), "{error}");
            assert!(error.contains(reason), "{error}");
        }
        assert!(table_of_values(vec![1.0, 0.0, 0.0, 1.0]).is_ok());
    }

    fn table(names: &[&str]) -> ClassEmbeddings {
        let names: Vec<String> = names.iter().map(ToString::to_string).collect();
        let values = (0..names.len()).flat_map(|i| [i as f32, 1.0]).collect();
        ClassEmbeddings::new(names, values, 2, "t.safetensors".into()).unwrap()
    }

    fn classes(lists: &[&[&str]]) -> Vec<Vec<String>> {
        let owned = |names: &&[&str]| names.iter().map(ToString::to_string).collect();
        lists.iter().map(owned).collect()
    }

    /// Of a class list such as ADE20K's, several rows have the same first name.
    #[test]
    fn the_needed_names_are_all_where_a_row_has_all() {
        let table = table(&["bag, handbag", "bag, sack", "cat", "kitten"]);
        let first = ClassNeeds {
            first_name_only: true,
            ..ClassNeeds::default()
        };
        let asked = classes(&[&["bag", "sack"], &["cat", "kitten"]]);
        let found = table.needed_names(&asked, &first);
        assert_eq!(found, classes(&[&["bag", "sack"], &["cat"]]));
        assert_eq!(table.needed_names(&asked, &ClassNeeds::default()), asked);
    }

    #[test]
    fn rows_are_found_by_name_in_any_order() {
        let table = table(&["dining table", "cat", "tv, television"]);
        let found = table
            .select(&classes(&[&["tv", "television"], &["Dining-Table"]]))
            .unwrap();
        assert_eq!(found.values(), [2.0, 1.0, 0.0, 1.0]);
        let found = table.select(&classes(&[&["television"]])).unwrap();
        assert_eq!(found.values(), [2.0, 1.0]);
        let error = table.select(&classes(&[&["dog"]])).unwrap_err();
        assert!(
            matches!(error, ModelError::UnknownClass { ref name, .. } if name == "dog"),
            "{error}"
        );
    }

    /// ADE20K's 847 classes have three bags.
    #[test]
    fn classes_of_one_name_have_their_own_rows() {
        let table = table(&["bag", "cat", "bag"]);
        let rows = table.rows(&[2, 0, 1]).unwrap();
        assert_eq!(rows.values(), [2.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
        assert_eq!(rows.names(), ["bag", "bag", "cat"]);
        assert!(table.rows(&[3]).is_err());
        let names = ["bag, handbag", "cat", "bag, sack"].map(str::to_owned);
        let table = table.with_names(names.to_vec()).unwrap();
        let found = table.select(&classes(&[&["bag", "sack"], &["bag", "handbag"]]));
        assert_eq!(found.unwrap().values(), [2.0, 1.0, 0.0, 1.0]);
        assert_eq!(
            table.ambiguous(&classes(&[&["bag"]])),
            Some(("bag".to_owned(), [0, 2]))
        );
    }

    #[test]
    fn synonyms_without_a_row_are_left_out_only_on_request() {
        let table = table(&["sofa", "cat"]);
        let wanted = classes(&[&["sofa", "couch"], &["cat"]]);
        assert!(table.select(&wanted).is_err());
        let found = table.select_known(&wanted).unwrap();
        assert_eq!(found.embeddings.values(), [0.0, 1.0, 1.0, 1.0]);
        assert_eq!(found.missing, ["couch"]);
    }

    #[test]
    fn a_name_of_two_rows_is_ambiguous() {
        let table = table(&["crane", "cat", "Crane", "crane, bird"]);
        assert_eq!(
            table.ambiguous(&classes(&[&["cat"], &["crane"]])),
            Some(("crane".to_owned(), [0, 2]))
        );
        assert_eq!(table.ambiguous(&classes(&[&["bird"]])), None);
        assert_eq!(table.ambiguous(&classes(&[&["crane", "bird"]])), None);
        assert_eq!(table.ambiguous(&classes(&[&["cat"]])), None);
    }
}
