//! Takes class embeddings from a table that the user named.
//!
//! Names in the table count, whatever its order. A table without names is read by position, if its classes are stated or
//! if it has one row for each class that is asked for; the latter gives a notice.

use std::path::{Path, PathBuf};

use zeg_model::{
    classes::ClassNeeds,
    embeddings::{ClassEmbeddings, EmbeddingTable, Selected},
};

use super::{Embedded, EmbeddingOrigin, Templates, TextNotice};

/// Difference of a row's length from 1 beyond which a notice tells that the rows were normalised.
const UNIT_TOLERANCE: f64 = 0.01;

/// A table of class embeddings that the user named.
#[derive(Debug, Clone, Copy)]
pub struct TableSource<'a> {
    /// The file.
    pub path: &'a Path,
    /// Classes of the rows, each a list of synonyms, for a file without class names. If `None`, such a file must have
    /// one row per class, and the rows are taken in the order of the classes.
    pub row_classes: Option<&'a [Vec<String>]>,
}

/// An error about a table of class embeddings.
#[derive(Debug, thiserror::Error)]
pub enum TableError {
    /// The table has no class names, and another number of rows than there are classes.
    #[error(
        "{}: holds no class names, and its {rows} rows are not one for each of the {classes} classes",
        table.display()
    )]
    Unnamed {
        /// The table.
        table: PathBuf,
        /// Number of its rows.
        rows: usize,
        /// Number of classes asked for.
        classes: usize,
    },
    /// Names were given for the rows of a table that has its own.
    #[error("{}: holds the class names of its rows, so no others can be given", table.display())]
    Named {
        /// The table.
        table: PathBuf,
    },
    /// Several rows have a name that was asked for.
    #[error("{}: rows {} and {} both have the name {name:?}", table.display(), rows[0] + 1, rows[1] + 1)]
    Ambiguous {
        /// The table.
        table: PathBuf,
        /// The name.
        name: String,
        /// Two of its rows, from 0.
        rows: [usize; 2],
    },
}

/// Takes the rows of classes from a table: by name if the table has names, else in the stated order.
///
/// - `needs`: those of the model, which decide whether synonyms count
pub(super) fn embed(
    classes: &[Vec<String>],
    needs: &ClassNeeds,
    source: TableSource,
    templates: Templates,
) -> anyhow::Result<Embedded<ClassEmbeddings>> {
    let path = || source.path.to_owned();
    let table = EmbeddingTable::open(source.path)?;
    let mut notices = Vec::new();
    if let Templates::Asked(templates) = templates {
        notices.push(TextNotice::TemplatesUnused {
            templates: templates.name().to_owned(),
            table: path(),
        });
    }
    let [shortest, longest] = table.lengths();
    if shortest < 1.0 - UNIT_TOLERANCE || longest > 1.0 + UNIT_TOLERANCE {
        notices.push(TextNotice::NotUnit {
            table: path(),
            lengths: table.lengths().map(|length| format!("{length:.3}")),
        });
    }
    let all_names = |classes: &[Vec<String>]| -> Vec<String> {
        classes.iter().map(|names| names.join(", ")).collect()
    };
    let table = match (table.names(), source.row_classes) {
        (Some(_), Some(_)) => return Err(TableError::Named { table: path() }.into()),
        (Some(_), None) => table.named(&[])?,
        (None, Some(rows)) => table.named(&all_names(rows))?,
        (None, None) if table.rows() == classes.len() => {
            notices.push(TextNotice::RowOrder {
                table: path(),
                rows: table.rows(),
                first: first_names(classes),
            });
            // Names may occur twice among the classes, so the rows are not looked up by name.
            let names: Vec<String> = classes.iter().filter_map(|c| c.first().cloned()).collect();
            return Ok(Embedded {
                embeddings: table.named(&names)?,
                origin: EmbeddingOrigin::Table(path()),
                notices,
            });
        }
        (None, None) => {
            return Err(TableError::Unnamed {
                table: path(),
                rows: table.rows(),
                classes: classes.len(),
            }
            .into());
        }
    };
    let looked_up = table.needed_names(classes, needs);
    if let Some((name, rows)) = table.ambiguous(&looked_up) {
        let table = path();
        return Err(TableError::Ambiguous { table, name, rows }.into());
    }
    let Selected {
        embeddings,
        missing,
    } = table.select_known(&looked_up)?;
    if let Some(example) = missing.first() {
        notices.push(TextNotice::MissingSynonyms {
            table: path(),
            count: missing.len(),
            example: example.clone(),
        });
    }
    Ok(Embedded {
        embeddings,
        origin: EmbeddingOrigin::Table(path()),
        notices,
    })
}

/// Returns the names of the first classes, for a message.
fn first_names(classes: &[Vec<String>]) -> String {
    const SHOWN: usize = 3;
    let mut names: Vec<&str> = classes
        .iter()
        .take(SHOWN)
        .filter_map(|names| Some(names.first()?.as_str()))
        .collect();
    if classes.len() > SHOWN {
        names.push("…");
    }
    names.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use zeg_vocab::templates::TemplateSet;

    /// Takes rows for a model that counts synonyms.
    fn embed_all(
        classes: &[Vec<String>],
        source: TableSource,
        templates: Templates,
    ) -> anyhow::Result<Embedded<ClassEmbeddings>> {
        embed(classes, &ClassNeeds::default(), source, templates)
    }

    /// Writes a `.npy` file of unit rows, of which row `i` has its 1 at position `i`.
    fn write_rows(path: &Path, rows: usize) {
        write_scaled_rows(path, rows, 1.0);
    }

    fn write_scaled_rows(path: &Path, rows: usize, scale: f32) {
        let header =
            format!("{{'descr': '<f4', 'fortran_order': False, 'shape': ({rows}, {DIM}), }}");
        let length = (10 + header.len() + 1).next_multiple_of(64) - 10;
        let mut bytes = b"\x93NUMPY\x01\x00".to_vec();
        bytes.extend((length as u16).to_le_bytes());
        bytes.extend(format!("{header:<width$}\n", width = length - 1).into_bytes());
        for row in 0..rows {
            let values = unit(row).map(|value| (scale * value).to_le_bytes());
            bytes.extend(values.concat());
        }
        std::fs::write(path, bytes).unwrap();
    }

    const DIM: usize = 3;

    fn unit(row: usize) -> [f32; DIM] {
        let mut values = [0.0; DIM];
        values[row] = 1.0;
        values
    }

    fn classes(names: &[&str]) -> Vec<Vec<String>> {
        names.iter().map(|name| vec![(*name).to_owned()]).collect()
    }

    #[test]
    fn a_table_without_names_needs_stated_classes_or_one_row_per_class() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.npy");
        write_rows(&path, 3);
        let templates = TemplateSet::single();
        let usual = Templates::Usual(&templates);
        let table = |row_classes| TableSource {
            path: &path,
            row_classes,
        };

        let found = embed_all(&classes(&["c", "a", "b"]), table(None), usual).unwrap();
        assert_eq!(found.embeddings.values(), [0, 1, 2].map(unit).concat());
        assert!(
            matches!(&found.notices[..], [TextNotice::RowOrder { rows: 3, first, .. }] if first == "c, a, b"),
            "{:?}",
            found.notices
        );

        let error = embed_all(&classes(&["a"]), table(None), usual).unwrap_err();
        assert!(matches!(
            error.downcast_ref(),
            Some(TableError::Unnamed {
                rows: 3,
                classes: 1,
                ..
            })
        ));

        let stated = classes(&["a", "b", "c"]);
        let found = embed_all(&classes(&["c", "a"]), table(Some(&stated)), usual).unwrap();
        assert_eq!(found.embeddings.values(), [2, 0].map(unit).concat());
        assert_eq!(found.notices, []);
        assert_eq!(found.origin, EmbeddingOrigin::Table(path.clone()));

        let asked = Templates::Asked(&templates);
        let found = embed_all(&classes(&["a"]), table(Some(&stated)), asked).unwrap();
        assert!(matches!(
            found.notices[..],
            [TextNotice::TemplatesUnused { .. }]
        ));
    }

    #[test]
    fn rows_of_another_length_are_normalised_with_a_notice() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("t.npy");
        let templates = TemplateSet::single();
        let stated = classes(&["a", "b", "c"]);
        for (scale, told) in [(1.0, false), (1.005, false), (12.5, true), (0.5, true)] {
            write_scaled_rows(&path, 3, scale);
            let source = TableSource {
                path: &path,
                row_classes: Some(&stated),
            };
            let found = embed_all(&stated, source, Templates::Usual(&templates)).unwrap();
            assert_eq!(found.embeddings.values(), [0, 1, 2].map(unit).concat());
            let is_told = matches!(found.notices[..], [TextNotice::NotUnit { .. }]);
            assert_eq!(is_told, told, "{scale}: {:?}", found.notices);
        }
    }
}
