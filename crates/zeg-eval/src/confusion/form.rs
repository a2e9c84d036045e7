//! JSON form of the confusion matrix.
//!
//! Most pairs of classes are never confused: of the 717,409 cells of 847 classes only a few thousand are not 0. So a
//! row is a list of the non-zero cells. Files may have any content, so lengths, classes and sums are checked before the
//! matrix is built.

use serde::ser::{SerializeSeq, SerializeStruct};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

use super::{ConfusionMatrix, MAX_CLASSES, total};

/// The sparse and the dense form, before any checks.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    classes: usize,
    rows: Option<Vec<Vec<(usize, u64)>>>,
    counts: Option<Vec<u64>>,
}

impl Serialize for ConfusionMatrix {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut form = serializer.serialize_struct("ConfusionMatrix", 2)?;
        form.serialize_field("classes", &self.classes)?;
        form.serialize_field("rows", &Rows(self))?;
        form.end()
    }
}

struct Rows<'a>(&'a ConfusionMatrix);

impl Serialize for Rows<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut rows = serializer.serialize_seq(Some(self.0.classes))?;
        for class in 0..self.0.classes {
            let cells = self.0.row(class).iter().enumerate();
            let cells: Vec<(usize, u64)> = cells
                .filter(|(_, count)| **count > 0)
                .map(|(class, count)| (class, *count))
                .collect();
            rows.serialize_element(&cells)?;
        }
        rows.end()
    }
}

impl<'de> Deserialize<'de> for ConfusionMatrix {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let form = Form::deserialize(deserializer)?;
        form.table().map_err(D::Error::custom)
    }
}

impl Form {
    fn table(self) -> Result<ConfusionMatrix, String> {
        let classes = self.classes;
        if classes > MAX_CLASSES {
            return Err(format!(
                "confusion of {classes} classes; at most {MAX_CLASSES} are read"
            ));
        }
        match (self.rows, self.counts) {
            (Some(rows), None) => sparse(classes, &rows),
            (None, Some(counts)) => dense(classes, counts),
            (Some(_), Some(_)) => Err("confusion with both rows and counts".into()),
            (None, None) => Err("confusion without rows".into()),
        }
    }
}

fn sparse(classes: usize, rows: &[Vec<(usize, u64)>]) -> Result<ConfusionMatrix, String> {
    if rows.len() != classes {
        return Err(format!(
            "confusion of {} rows for {classes} classes",
            rows.len()
        ));
    }
    let mut table = ConfusionMatrix::new(classes);
    for (truth, row) in rows.iter().enumerate() {
        let mut last = None;
        for &(class, count) in row {
            if class >= classes {
                return Err(format!("row {truth} counts class {class} of {classes}"));
            }
            if last.is_some_and(|last| class <= last) {
                return Err(format!("row {truth} counts class {class} out of order"));
            }
            last = Some(class);
            table.total = total(table.total, count).map_err(|error| error.to_string())?;
            if let Some(cell) = table.counts.get_mut(truth * classes + class) {
                *cell = count;
            }
        }
    }
    Ok(table)
}

fn dense(classes: usize, counts: Vec<u64>) -> Result<ConfusionMatrix, String> {
    if counts.len() != classes * classes {
        return Err(format!(
            "confusion of {} counts for {classes} classes",
            counts.len()
        ));
    }
    let sum = counts
        .iter()
        .try_fold(0, |sum, count| total(sum, *count))
        .map_err(|error| error.to_string())?;
    Ok(ConfusionMatrix {
        classes,
        counts,
        total: sum,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_hold_the_cells_that_are_not_zero() {
        let mut table = ConfusionMatrix::new(3);
        table.add(&[0, 0, 2, 2], &[0, 2, 2, 2], 255).unwrap();
        let json = serde_json::to_string(&table).unwrap();
        assert_eq!(json, r#"{"classes":3,"rows":[[[0,1],[2,1]],[],[[2,2]]]}"#);
        assert_eq!(
            serde_json::from_str::<ConfusionMatrix>(&json).unwrap(),
            table
        );
    }

    #[test]
    fn the_dense_form_of_old_files_is_read() {
        let table: ConfusionMatrix =
            serde_json::from_str(r#"{"classes":2,"counts":[1,2,3,4]}"#).unwrap();
        assert_eq!(
            (table.count(0, 1), table.count(1, 0), table.total()),
            (2, 3, 10)
        );
    }

    #[test]
    fn hostile_tables_are_refused() {
        let cases = [
            (r#"{"classes":2,"counts":[1,2,3]}"#, "3 counts"),
            (r#"{"classes":2,"rows":[[]]}"#, "1 rows"),
            (r#"{"classes":2,"rows":[[[2,1]],[]]}"#, "class 2 of 2"),
            (r#"{"classes":2,"rows":[[[1,1],[1,1]],[]]}"#, "out of order"),
            (r#"{"classes":2,"rows":[[[1,-1]],[]]}"#, "-1"),
            (r#"{"classes":2,"rows":[[[1,1.5]],[]]}"#, "1.5"),
            (r#"{"classes":2,"rows":[[[1,1,1]],[]]}"#, ""),
            (r#"{"classes":2}"#, "without rows"),
            (r#"{"classes":1,"rows":[[]],"counts":[0]}"#, "both"),
            (r#"{"classes":1,"rows":[[]],"more":1}"#, "more"),
            (
                r#"{"classes":18446744073709551615,"rows":[]}"#,
                "18446744073709551615 classes",
            ),
            (
                r#"{"classes":4294967296,"counts":[]}"#,
                "4294967296 classes",
            ),
            (
                r#"{"classes":1,"rows":[[[0,18446744073709551615]]]}"#,
                "pixels",
            ),
            (
                r#"{"classes":2,"counts":[9223372036854775808,9223372036854775808,1,1]}"#,
                "pixels",
            ),
        ];
        for (json, part) in cases {
            let error = serde_json::from_str::<ConfusionMatrix>(json)
                .unwrap_err()
                .to_string();
            assert!(error.contains(part), "{json}: {error}");
        }
    }
}
