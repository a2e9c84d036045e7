//! Output of the list of models, as a table and as JSON.

use std::path::PathBuf;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::{Cache, Entry, Format, Manual, Obtain, Presence, Registry, RemoteFile};

/// One model of the list, with its state in the cache.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub struct Row {
    /// The name of the model.
    pub name: String,
    /// Other names that are accepted for it.
    pub aliases: Vec<String>,
    /// A short description.
    pub about: String,
    /// The model family, such as `clip`.
    pub family: String,
    /// The file format of the weights.
    pub format: Format,
    /// The licence of the weights.
    pub licence: String,
    /// The owner's web page.
    pub home: String,
    /// Total size of all files in bytes, if all sizes are published or all files are downloaded.
    pub size: Option<u64>,
    /// Total size in bytes of those files whose size is published.
    pub known_size: u64,
    /// Whether the model is downloaded.
    pub presence: Presence,
    /// The path of the weights, if the model is downloaded.
    #[serde(serialize_with = "zeg_base::paths::serialize_option")]
    pub path: Option<PathBuf>,
    /// The files of the model; none if it must be downloaded by hand.
    pub files: Vec<RemoteFile>,
    /// Instructions for a model that must be downloaded by hand.
    pub manual: Option<Manual>,
}

/// Returns one row per model of the registry, in the registry's order.
pub fn rows(registry: &Registry, cache: &Cache) -> Vec<Row> {
    let entries = registry.entries().iter();
    entries.map(|entry| row(entry, cache)).collect()
}

fn row(entry: &Entry, cache: &Cache) -> Row {
    let presence = cache.presence(entry);
    let is_here = presence == Presence::Here;
    let manifest = cache.manifest(&entry.name).filter(|_| is_here);
    let arrived = manifest.map(|manifest| manifest.files.iter().map(|file| file.size).sum());
    let weights = entry.files().first().filter(|_| is_here);
    Row {
        name: entry.name.clone(),
        aliases: entry.aliases.clone(),
        about: entry.about.clone(),
        family: entry.family.clone(),
        format: entry.format,
        licence: entry.licence.clone(),
        home: entry.home.clone(),
        size: arrived.or_else(|| entry.size()),
        known_size: entry.known_size(),
        presence,
        path: weights.map(|file| cache.folder(&entry.name).join(&file.name)),
        files: entry.files().to_vec(),
        manual: match &entry.obtain {
            Obtain::Manual(manual) => Some(manual.clone()),
            Obtain::Download(_) => None,
        },
    }
}

/// Formats the rows as a table: name, description, licence, size, and whether the model is downloaded.
///
/// A `+` after a size means that there are more files, whose size is unknown.
pub fn table(rows: &[Row]) -> String {
    let mut table = Table::new();
    table.load_style(presets::NOTHING);
    table.set_header(["name", "what", "licence", "size", "here"]);
    for row in rows {
        let here = match (row.presence, &row.manual) {
            (_, Some(_)) => "by hand",
            (Presence::Here, _) => "yes",
            (Presence::Partial, _) => "partly",
            (Presence::Absent, _) => "",
        };
        let size = match (row.size, row.known_size) {
            (Some(size), _) => human_size(size),
            (None, 0) => "unknown".into(),
            (None, known) => format!("{}+", human_size(known)),
        };
        table.add_row([&row.name, &row.about, &row.licence, &size, here]);
    }
    if let Some(column) = table.column_mut(3) {
        column.set_cell_alignment(CellAlignment::Right);
    }
    table.to_string()
}

/// Formats a number of bytes with three digits and decimal units (1 kB = 1000 B): `316 B`, `4.19 kB`, `350 MB`.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // 999.5 and above would round to four digits.
    while value >= 999.5 && unit + 1 < UNITS.len() {
        value /= 1000.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    match unit {
        0 => format!("{bytes} {name}"),
        _ if value < 9.995 => format!("{value:.2} {name}"),
        _ if value < 99.95 => format!("{value:.1} {name}"),
        _ => format!("{value:.0} {name}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_have_three_digits() {
        let cases = [
            (0, "0 B"),
            (999, "999 B"),
            (1000, "1.00 kB"),
            (4186, "4.19 kB"),
            (9_996, "10.0 kB"),
            (99_960, "100 kB"),
            (999_499, "999 kB"),
            (999_500, "1.00 MB"),
            (350_837_078, "351 MB"),
            (1_710_540_580, "1.71 GB"),
        ];
        for (bytes, text) in cases {
            assert_eq!(human_size(bytes), text);
        }
        assert_eq!(human_size(u64::MAX), "18446744 TB");
    }
}
