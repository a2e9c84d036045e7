//! Keys of experiment files that have another name now.
//!
//! A file with an old key gets an error that says the new one; a checkpoint with an old key is read as it was meant.

use serde_json::{Map, Value};

/// An old key, and what it is called now.
struct Renamed {
    old: &'static str,
    /// `None` where nothing took its place.
    new: Option<&'static str>,
}

/// All of them. Keys are paths of names.
const RENAMED: [Renamed; 5] = [
    Renamed {
        old: "inference.fusion",
        new: Some("inference.method.fusion"),
    },
    Renamed {
        old: "inference.crops",
        new: Some("inference.method.crops"),
    },
    Renamed {
        old: "inference.least-share",
        new: None,
    },
    Renamed {
        old: "data.crop-templates",
        new: Some("inference.method.crop-templates"),
    },
    Renamed {
        old: "training.set-loss",
        new: Some("training.loss"),
    },
];

/// Finds the first old key in an experiment, or in a plan of an evaluation; says what it is called now.
pub fn find_renamed(experiment: &Value) -> Option<String> {
    let found = RENAMED
        .iter()
        .find(|renamed| value_at(experiment, renamed.old).is_some())?;
    Some(match found.new {
        Some(new) => format!("`{}` is now called `{new}`", found.old),
        None => format!("`{}` is no longer there; leave it out", found.old),
    })
}

/// Moves every old key to its new place. Returns what has no place any more, as `key = value`.
#[must_use]
pub fn rename_all(experiment: &mut Value) -> Vec<String> {
    let mut dropped = Vec::new();
    for renamed in &RENAMED {
        let Some(value) = take_at(experiment, renamed.old) else {
            continue;
        };
        match renamed.new {
            Some(new) => put_at(experiment, new, value),
            None => dropped.push(format!("{} = {value}", renamed.old)),
        }
    }
    dropped
}

/// The value at a path of names.
pub fn value_at<'a>(value: &'a Value, path: &str) -> Option<&'a Value> {
    path.split('.')
        .try_fold(value, |value, name| value.get(name))
}

/// Takes the value at a path of names out.
pub fn take_at(value: &mut Value, path: &str) -> Option<Value> {
    let (parents, name) = path.rsplit_once('.').unwrap_or(("", path));
    let mut parent = value;
    for part in parents.split('.').filter(|part| !part.is_empty()) {
        parent = parent.get_mut(part)?;
    }
    parent.as_object_mut()?.shift_remove(name)
}

/// Sets the value at a path of names, with the tables on the way.
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
    fn old_keys_are_named_and_moved() {
        let mut old = json!({
            "data": { "dataset": "voc12", "crop-templates": "crops" },
            "training": { "steps": 1 },
            "inference": { "fusion": "clip-alone", "least-share": 0.1 }
        });
        let said = find_renamed(&old).unwrap();
        assert_eq!(
            said,
            "`inference.fusion` is now called `inference.method.fusion`"
        );
        assert_eq!(rename_all(&mut old), ["inference.least-share = 0.1"]);
        assert_eq!(find_renamed(&old), None);
        let new = json!({
            "data": { "dataset": "voc12" },
            "training": { "steps": 1 },
            "inference": { "method": { "fusion": "clip-alone", "crop-templates": "crops" } }
        });
        assert_eq!(old, new);
    }
}
