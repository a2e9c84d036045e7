//! Changes of single keys of an experiment file, as by `--set`.

use zeg_data::data_config::{adapt_section, add_usual_splits};

/// Returns the data set that an experiment names.
pub(super) fn dataset_of(table: &toml::Table) -> Option<String> {
    let dataset = table.get("data")?.get("dataset")?;
    dataset.as_str().map(str::to_owned)
}

/// Adapts the keys of `data` to another data set than that of the file, and adds its default splits.
///
/// Returns a notice for each key that is left out.
pub(super) fn adapt_data(
    table: &mut toml::Table,
    of_file: Option<&str>,
    changes: &[String],
) -> Vec<String> {
    let Some(data) = table.get_mut("data").and_then(toml::Value::as_table_mut) else {
        return Vec::new();
    };
    let is_changed = |key: &str| {
        let path = format!("data.{key}");
        let mut keys = changes.iter().filter_map(|change| change.split_once('='));
        keys.any(|(changed, _)| {
            let inner = changed.trim().strip_prefix(&path);
            inner.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        })
    };
    let notices = adapt_section(data, of_file, is_changed);
    add_usual_splits(data);
    notices
}

/// Applies one `key=value` change to a table.
pub(super) fn set(table: &mut toml::Table, change: &str) -> Result<(), String> {
    let (key, value) = change
        .split_once('=')
        .ok_or_else(|| format!("--set {change:?}: write key=value, such as training.steps=100"))?;
    let value = value.trim();
    // A value that is not valid TOML is taken as a string, so that strings need no quotes in a shell.
    let value = toml::from_str::<toml::Table>(&format!("v = {value}"))
        .ok()
        .and_then(|mut parsed| parsed.remove("v"))
        .unwrap_or_else(|| toml::Value::String(value.to_owned()));
    let mut path: Vec<&str> = key.trim().split('.').collect();
    let last = path
        .pop()
        .filter(|name| !name.is_empty())
        .ok_or_else(|| format!("--set {change:?}: the key is empty"))?;
    let mut table = table;
    for name in path {
        let entry = table
            .entry(name)
            .or_insert_with(|| toml::Value::Table(toml::Table::new()));
        table = entry
            .as_table_mut()
            .ok_or_else(|| format!("--set {change:?}: {name:?} is a value, not a table"))?;
    }
    table.insert(last.to_owned(), value);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_of_the_data_set_changes_its_classes_and_splits() {
        let text = "[data]\ndataset = 'voc12'\nclasses = 'voc20'\neval-split = 'val'";
        let changed = |changes: &[&str]| {
            let changes: Vec<String> = changes.iter().map(ToString::to_string).collect();
            let mut table: toml::Table = text.parse().unwrap();
            let of_file = dataset_of(&table);
            for change in &changes {
                set(&mut table, change).unwrap();
            }
            let notices = adapt_data(&mut table, of_file.as_deref(), &changes);
            (table["data"].to_string(), notices.len())
        };
        let (data, notices) = changed(&["data.dataset=coco-stuff164k", "data.eval-split=val"]);
        assert!(
            !data.contains("voc20") && data.contains("eval-split"),
            "{data}"
        );
        assert_eq!(notices, 1);
        let (data, notices) = changed(&["data.dataset=voc12", "data.unseen=none"]);
        assert!(data.contains("voc20"), "{data}");
        assert_eq!(notices, 0);
    }

    #[test]
    fn a_change_sets_nested_keys_and_creates_missing_tables() {
        let mut table: toml::Table = "[training]\nsteps = 5".parse().unwrap();
        set(&mut table, "training.steps=7").unwrap();
        set(&mut table, "training.schedule.base = 1e-3").unwrap();
        set(&mut table, "data.train-split=train_aug").unwrap();
        assert_eq!(table["training"]["steps"].as_integer(), Some(7));
        assert_eq!(table["training"]["schedule"]["base"].as_float(), Some(1e-3));
        assert_eq!(table["data"]["train-split"].as_str(), Some("train_aug"));
        assert!(
            set(&mut table, "training.steps")
                .unwrap_err()
                .contains("key=value")
        );
        assert!(
            set(&mut table, "training.steps.deeper=1")
                .unwrap_err()
                .contains("not a table")
        );
    }
}
