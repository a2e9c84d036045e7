//! Renames old keys of experiment files.
//!
//! Experiment files and checkpoints with an old key are read with its original meaning; a notice gives the new name.

use serde_json::{Map, Value};

/// An old key and its new name.
struct Renamed {
    old: &'static str,
    /// The new key; `None` if nothing replaces the old one.
    new: Option<&'static str>,
    /// Old values with their new names.
    values: &'static [(&'static str, &'static str)],
}

impl Renamed {
    const fn key(old: &'static str, new: &'static str) -> Self {
        Self {
            old,
            new: Some(new),
            values: &[],
        }
    }
}

/// All renamed keys, as dotted paths.
const RENAMED: [Renamed; 7] = [
    Renamed::key("inference.fusion", "inference.method.fusion"),
    Renamed::key("inference.crops", "inference.method.crops"),
    Renamed::key("data.crop-templates", "inference.method.crop-templates"),
    Renamed::key("training.set-loss", "training.loss"),
    Renamed::key("training.cached-views", "training.cached-copies"),
    Renamed {
        old: "inference.view",
        new: Some("inference.mode"),
        values: &[("windows", "slide")],
    },
    Renamed {
        old: "inference.least-share",
        new: None,
        values: &[],
    },
];

/// The result of renaming the old keys of an experiment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Renames {
    /// A notice for each key that was moved, with its new name.
    pub notices: Vec<String>,
    /// Settings that no longer exist, as `key = value`.
    pub dropped: Vec<String>,
}

/// Moves every old key of an experiment, or of an evaluation's plan, to its new place.
#[must_use]
pub fn rename_all(experiment: &mut Value) -> Renames {
    let mut renames = Renames::default();
    for renamed in &RENAMED {
        let Some(value) = take_at(experiment, renamed.old) else {
            continue;
        };
        let Some(new) = renamed.new else {
            renames.dropped.push(format!("{} = {value}", renamed.old));
            continue;
        };
        renames
            .notices
            .push(format!("`{}` is now called `{new}`", renamed.old));
        let new_value = renamed.values.iter().find(|(old, _)| value == *old);
        put_at(
            experiment,
            new,
            new_value.map_or(value.clone(), |(_, new)| Value::from(*new)),
        );
    }
    renames
}

/// Returns the value at a dotted path.
pub fn value_at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(value, |value, name| value.get(name))
}

/// Removes the value at a dotted path and returns it.
pub fn take_at(value: &mut Value, path: &str) -> Option<Value> {
    let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut parent = value;
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        parent = parent.get_mut(part)?;
    }
    parent.as_object_mut()?.shift_remove(name)
}

/// Sets the value at a dotted path, and creates the missing tables of the path.
pub fn put_at(value: &mut Value, path: &str, new: Value) {
    let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut parent = value;
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        let Some(table) = parent.as_object_mut() else {
            return;
        };
        parent = table
            .entry(part)
            .or_insert_with(|| Value::Object(Map::new()));
    }
    if let Some(table) = parent.as_object_mut() {
        table.insert(name.to_owned(), new);
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn old_keys_are_moved_and_named() {
        let mut old = json!({
            "data": { "dataset": "voc12", "crop-templates": "crops" },
            "training": { "steps": 1 },
            "inference": { "fusion": "clip-alone", "least-share": 0.1, "view": "windows" }
        });
        let renames = rename_all(&mut old);
        assert_eq!(
            renames.notices[0],
            "`inference.fusion` is now called `inference.method.fusion`"
        );
        assert_eq!(renames.notices.len(), 3);
        assert_eq!(renames.dropped, ["inference.least-share = 0.1"]);
        let new = json!({
            "data": { "dataset": "voc12" },
            "training": { "steps": 1 },
            "inference": {
                "method": { "fusion": "clip-alone", "crop-templates": "crops" },
                "mode": "slide"
            }
        });
        assert_eq!(old, new);
        assert_eq!(rename_all(&mut old), Renames::default());
    }
}
