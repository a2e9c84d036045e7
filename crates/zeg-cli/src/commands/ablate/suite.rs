//! A suite: rows of a table, each an experiment with some settings changed.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;

/// A file that `zeg ablate` runs.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// What every row is run on, such as several splits of the classes; a row's scores are means over them, too.
    #[serde(default)]
    pub(super) variants: Vec<Variant>,
    /// Seen offsets that every row is scored with, the one to report being chosen by `choose`.
    #[serde(default)]
    offsets: Vec<f32>,
    /// Settings that are chosen for each row before its runs.
    #[serde(default)]
    pub(super) choose: Option<Choose>,
    /// The rows, in the table's order.
    pub(super) rows: Vec<Row>,
    #[serde(skip)]
    folder: PathBuf,
}

/// Settings that every row is run with, beside those of the other variants.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Variant {
    /// Name of its folder.
    pub(super) name: String,
    /// Its settings, `key=value`.
    pub(super) set: Vec<String>,
}

/// A row of the table.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
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
    /// Its seen offsets, where their scale is another (logits of competing classes).
    #[serde(default)]
    offsets: Option<Vec<f32>>,
    /// A row of the suite whose weights it starts from.
    #[serde(default)]
    pub(super) init: Option<Init>,
}

/// How settings are chosen for each row.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Choose {
    /// Images the candidates are trained on, such as `train:not-1/5`.
    pub(super) train_split: String,
    /// Images they are scored on, such as `train:1/5`; not those that are reported.
    pub(super) eval_split: String,
    /// Seed of the candidates' runs.
    #[serde(default)]
    pub(super) seed: u64,
    /// Settings of the candidates' runs alone, such as a split of the classes that is not reported.
    #[serde(default)]
    pub(super) set: Vec<String>,
    /// Candidates, each a list of `key=value`; without, offsets alone are chosen.
    #[serde(default)]
    settings: Vec<Vec<String>>,
}

impl Choose {
    /// The candidates' settings; at least one candidate, which may change nothing.
    pub(super) fn candidates(&self) -> Vec<Vec<String>> {
        match &self.settings[..] {
            [] => vec![Vec::new()],
            settings => settings.to_vec(),
        }
    }
}

/// Weights of another row, of the same seed.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Init {
    /// Name of the row; it stands above this one.
    pub(super) row: String,
    /// File in the run folder of that row, such as `checkpoint-00000300.safetensors`.
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

    /// The seen offsets that a row is scored with, 0 among them; none where none is chosen.
    pub(super) fn offsets(&self, row: &Row) -> Vec<f32> {
        if self.choose.is_none() {
            return Vec::new();
        }
        let mut offsets = row.offsets.as_ref().unwrap_or(&self.offsets).clone();
        if !offsets.contains(&0.0) {
            offsets.insert(0, 0.0);
        }
        offsets
    }

    /// The experiment of a row.
    pub(super) fn config(&self, row: &Row) -> PathBuf {
        self.folder.join(row.base.as_ref().unwrap_or(&self.base))
    }

    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.rows.is_empty(), "the suite has no row");
        anyhow::ensure!(!self.seeds.is_empty(), "the suite has no seed");
        let of_rows = self.rows.iter().filter_map(|row| row.offsets.as_ref());
        let mut offsets = of_rows.flatten().chain(&self.offsets).peekable();
        anyhow::ensure!(
            offsets.peek().is_none() || self.choose.is_some(),
            "offsets are chosen by [choose], which the suite has not"
        );
        anyhow::ensure!(
            offsets.all(|offset| offset.is_finite()),
            "an offset is no number"
        );
        for (number, variant) in self.variants.iter().enumerate() {
            let name = &variant.name;
            check_name("variant", name)?;
            let mut before = self.variants[..number].iter();
            anyhow::ensure!(
                before.all(|other| other.name != *name),
                "two variants are called {name:?}"
            );
        }
        for (number, row) in self.rows.iter().enumerate() {
            check_name("row", &row.name)?;
            anyhow::ensure!(
                !["choose", "features"].contains(&row.name.as_str()),
                "row {:?}: the name is that of a folder of the suite's own",
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

/// Names are folders.
fn check_name(what: &str, name: &str) -> anyhow::Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+');
    anyhow::ensure!(
        !name.is_empty() && name.chars().all(legal),
        "{what} {name:?}: a name has letters, digits, -, _ and + only"
    );
    Ok(())
}
