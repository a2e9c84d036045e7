//! Checks that class embeddings tell the classes apart.

use zeg_model::embeddings::ClassEmbeddings;

use super::{EmbeddingOrigin, TextNotice};

/// Largest difference of two values of equal embeddings.
const EQUAL: f32 = 1e-6;

/// The error that all classes have equal embeddings, so that every pixel would get the first class.
#[derive(Debug, thiserror::Error)]
#[error(
    "{source_name}: all {classes} classes, such as {:?} and {:?}, have equal class embeddings, so no pixel can tell them \
     apart",
    names[0],
    names[1]
)]
pub struct AllAlike {
    /// The table, or what else the embeddings come from.
    pub source_name: String,
    /// Number of classes.
    pub classes: usize,
    /// Names of the first two classes.
    pub names: [String; 2],
}

/// Returns a notice if a class has the embedding of an earlier one.
///
/// # Errors
/// Returns [`AllAlike`] if there are several classes, and all have equal embeddings.
pub(super) fn check(
    embeddings: &ClassEmbeddings,
    origin: &EmbeddingOrigin,
) -> Result<Option<TextNotice>, AllAlike> {
    let rows: Vec<&[f32]> = embeddings
        .values()
        .chunks_exact(embeddings.dim().max(1))
        .collect();
    let earlier = |row: usize| (0..row).find(|first| are_equal(rows[*first], rows[row]));
    let alike: Vec<[usize; 2]> = (0..rows.len())
        .filter_map(|row| Some([earlier(row)?, row]))
        .collect();
    let Some(&[first, second]) = alike.first() else {
        return Ok(None);
    };
    let names = [first, second].map(|row| embeddings.names()[row].clone());
    if alike.len() + 1 == rows.len() {
        let source_name = match origin {
            EmbeddingOrigin::Table(path) => path.display().to_string(),
            EmbeddingOrigin::Checkpoint => embeddings.origin().display().to_string(),
            EmbeddingOrigin::TextTower => "text tower".to_owned(),
            EmbeddingOrigin::Examples => "examples".to_owned(),
        };
        return Err(AllAlike {
            source_name,
            classes: rows.len(),
            names,
        });
    }
    Ok(Some(TextNotice::Alike {
        names,
        more: alike.len() - 1,
    }))
}

fn are_equal(a: &[f32], b: &[f32]) -> bool {
    a.iter().zip(b).all(|(a, b)| (a - b).abs() <= EQUAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check_rows(rows: &[[f32; 2]]) -> Result<Option<TextNotice>, AllAlike> {
        let names = (0..rows.len()).map(|row| format!("class {row}")).collect();
        let embeddings = ClassEmbeddings::new(names, rows.concat(), 2, "t.npy".into()).unwrap();
        check(&embeddings, &EmbeddingOrigin::Table("t.npy".into()))
    }

    #[test]
    fn equal_rows_are_told_and_nothing_but_equal_rows_is_an_error() {
        let (a, b) = ([1.0, 0.0], [0.0, 1.0]);
        assert_eq!(check_rows(&[a]).unwrap(), None);
        assert_eq!(check_rows(&[a, b]).unwrap(), None);
        let names = ["class 0", "class 2"].map(str::to_owned);
        let expected = TextNotice::Alike { names, more: 1 };
        assert_eq!(check_rows(&[a, b, a, b]).unwrap(), Some(expected));
        let error = check_rows(&[a, a, [1.0, 5e-7]]).unwrap_err();
        assert_eq!(error.classes, 3);
        assert!(
            error
                .to_string()
                .starts_with("t.npy: all 3 classes, such as"),
            "{error}"
        );
    }
}
