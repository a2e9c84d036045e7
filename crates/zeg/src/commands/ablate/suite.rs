//! A suite: rows of a table, each an experiment with some settings changed.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

/// A file that `zeg ablate` runs.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Suite {
    /// Heading of the table.
    pub(super) title: String,
    /// The experiment that rows change; relative to the suite's file.
    base: PathBuf,
    /// The published table that rows are shown beside: `designs`, `query-formats`, `prompt-depths`, `losses`,
    /// `templates`, `benchmarks`.
    #[serde(default)]
    pub(super) table: Option<String>,
    /// Seeds of every row.
    pub(super) seeds: Vec<u64>,
    /// Settings of all rows, `key=value`.
    #[serde(default)]
    pub(super) set: Vec<String>,
    /// The rows, in the table's order.
    pub(super) rows: Vec<Row>,
    #[serde(skip)]
    folder: PathBuf,
}

/// A row of the table.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Row {
    /// Name, also of its folder.
    pub(super) name: String,
    /// Another experiment to start from.
    #[serde(default)]
    base: Option<PathBuf>,
    /// Its settings, `key=value`.
    #[serde(default)]
    pub(super) set: Vec<String>,
    /// The method's name in the published table.
    #[serde(default)]
    pub(super) published: Option<String>,
    /// A row of the suite whose weights it starts from.
    #[serde(default)]
    pub(super) init: Option<Init>,
}

/// Weights of another row, of the same seed.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Init {
    pub(super) row: String,
    pub(super) checkpoint: PathBuf,
}

impl Suite {
    pub(super) fn open(path: &Path) -> anyhow::Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| path.display().to_string())?;
        let mut suite: Self = toml::from_str(&text).with_context(|| path.display().to_string())?;
        path.parent()
            .unwrap_or(Path::new(""))
            .clone_into(&mut suite.folder);
        suite.check().with_context(|| path.display().to_string())?;
        Ok(suite)
    }

    pub(super) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// The experiment of a row.
    pub(super) fn config(&self, row: &Row) -> PathBuf {
        self.folder.join(row.base.as_ref().unwrap_or(&self.base))
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.rows.is_empty(), "the suite has no row");
        anyhow::ensure!(!self.seeds.is_empty(), "the suite has no seed");
        for (number, row) in self.rows.iter().enumerate() {
            let plain = !row.name.is_empty()
                && row
                    .name
                    .chars()
                    .all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+'));
            anyhow::ensure!(
                plain,
                "row {:?}: a name has letters, digits, -, _ and + only",
                row.name
            );
            anyhow::ensure!(
                self.rows[..number]
                    .iter()
                    .all(|other| other.name != row.name),
                "two rows are called {:?}",
                row.name
            );
            if let Some(init) = &row.init {
                anyhow::ensure!(
                    self.rows[..number]
                        .iter()
                        .any(|other| other.name == init.row),
                    "row {:?} starts from {:?}, which no row above it is called",
                    row.name,
                    init.row
                );
            }
        }
        let Some(name) = &self.table else {
            return Ok(());
        };
        let table = zeg::eval::published::table(name)
            .with_context(|| format!("no published table is called {name:?}"))?;
        for method in self.rows.iter().filter_map(|row| row.published.as_ref()) {
            anyhow::ensure!(
                table.rows.iter().any(|row| row.method == *method),
                "the published table {name:?} has no row {method:?}"
            );
        }
        Ok(())
    }
}
