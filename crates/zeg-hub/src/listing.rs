//! The list of models as people and programs read it.

use std::path::PathBuf;

use comfy_table::{CellAlignment, Table, presets};
use serde::Serialize;

use crate::{Cache, Entry, Format, Manual, Obtain, Presence, Registry, RemoteFile};

/// One model of the list, and whether it is here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Row {
    /// What to type.
    pub name: String,
    /// Other names that are understood.
    pub aliases: Vec<String>,
    /// What it is.
    pub about: String,
    /// The family of networks that it belongs to.
    pub family: String,
    /// The format of the weights.
    pub format: Format,
    /// The licence of the weights.
    pub licence: String,
    /// The owner's page.
    pub home: String,
    /// Bytes of all files, where all sizes are published or the files are here.
    pub size: Option<u64>,
    /// Bytes of those files whose size is published.
    pub known_size: u64,
    /// Whether it is here.
    pub presence: Presence,
    /// The weights, if it is here.
    pub path: Option<PathBuf>,
    /// Its files; none where it has to be downloaded by hand.
    pub files: Vec<RemoteFile>,
    /// What to do where no program can download it.
    pub manual: Option<Manual>,
}

/// All models of a list, in its order.
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

/// The list as a table: name, what it is, licence, size (`+`: and files of unknown size), whether it is here.
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

/// A number of bytes in three digits: `316 B`, `4.19 kB`, `350 MB`; thousands, not 1024.
pub fn human_size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];
    let mut value = bytes as f64;
    let mut unit = 0;
    // 999.5 and more would be written with four digits.
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
