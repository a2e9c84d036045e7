//! What class embeddings follow from, for the fingerprints of trainings and of records.

use std::path::Path;

use zeg::{
    model::weights::{WeightsError, file_sha256},
    text_sources::EmbeddingOrigin,
    vocab::{classes::ClassQuery, templates::TemplateSet},
};
use zeg_base::fingerprint::{Fingerprint, digest};

/// The value of a part that does not apply.
const NONE: &str = "none";
/// Number of digits of a digest beside a name.
const DIGITS: usize = 16;

/// Returns what class embeddings follow from besides the weights: prompt templates or a table, and the classes of the
/// table's rows. Embeddings of a checkpoint follow from the checkpoint.
///
/// - `row_classes`: the classes that the user states for the rows of a table without class names
///
/// # Errors
/// Returns an error if the table cannot be read.
pub(super) fn class_embeddings(
    origin: &EmbeddingOrigin,
    row_classes: Option<&[ClassQuery]>,
    templates: &TemplateSet,
) -> Result<Fingerprint, WeightsError> {
    let (mut table, mut rows, mut sentences) = (NONE.to_owned(), NONE.to_owned(), NONE.to_owned());
    let source = match origin {
        EmbeddingOrigin::Table(path) => {
            table = file_sha256(path)?;
            rows = row_classes.map_or(rows, classes_of_rows);
            "table"
        }
        EmbeddingOrigin::TextTower => {
            let each = templates.templates().iter().map(ToString::to_string);
            sentences = format!("{} ({})", templates.name(), short(&digest(each)));
            "text tower"
        }
        EmbeddingOrigin::Checkpoint => "checkpoint",
        EmbeddingOrigin::Examples => NONE,
    };
    Ok(Fingerprint::new()
        .with("class embeddings: source", source)
        .with("class embeddings: table", table)
        .with("class embeddings: row classes", rows)
        .with("class embeddings: templates", sentences))
}

/// Returns the origin of the class embeddings of a training.
///
/// - `table`: the table that the user names
pub(super) fn origin_of(table: Option<&Path>) -> EmbeddingOrigin {
    table.map_or(EmbeddingOrigin::TextTower, |table| {
        EmbeddingOrigin::Table(table.to_owned())
    })
}

/// Writes the number of stated classes with a digest of all their names.
fn classes_of_rows(classes: &[ClassQuery]) -> String {
    let names = classes.iter().map(|class| {
        let names: Vec<&str> = class.names().collect();
        names.join("|")
    });
    format!("{} ({})", classes.len(), short(&digest(names)))
}

fn short(digest: &str) -> &str {
    digest.get(..DIGITS).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_table_and_other_templates_are_told_by_name() {
        let folder = tempfile::tempdir().unwrap();
        let table = folder.path().join("table.npy");
        let facts = |content: &str| {
            std::fs::write(&table, content).unwrap();
            class_embeddings(&origin_of(Some(&table)), None, &TemplateSet::single()).unwrap()
        };
        let names = |then: &Fingerprint, now: &Fingerprint| {
            let mismatch = then.check(now).unwrap_err();
            let differences = mismatch.differences.into_iter();
            differences.map(|found| found.name).collect::<Vec<_>>()
        };
        assert_eq!(names(&facts("a"), &facts("b")), ["class embeddings: table"]);
        let tower = |set| class_embeddings(&origin_of(None), None, &set).unwrap();
        let (single, multi) = (tower(TemplateSet::single()), tower(TemplateSet::multi()));
        assert_eq!(names(&single, &multi), ["class embeddings: templates"]);
        // A set of the same name with another sentence is another set.
        let own = TemplateSet::custom("single", &["an image of a {}"]).unwrap();
        assert_eq!(names(&single, &tower(own)), ["class embeddings: templates"]);
    }
}
