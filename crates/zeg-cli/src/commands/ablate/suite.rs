//! The suite file: the rows of a table, each an experiment with changed settings.

use std::path::{Path, PathBuf};

use anyhow::Context as _;
use serde::Deserialize;
use zeg_base::keys::explain;

/// A suite file of `zeg ablate`.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Suite {
    /// Heading of the table.
    pub(super) title: String,
    /// Experiment that the rows change; relative to the folder of the suite file.
    base: PathBuf,
    /// Published table whose rows are shown beside the suite's: `designs`, `query-formats`, `prompt-depths`, `losses`,
    /// `templates`, `benchmarks`.
    #[serde(default)]
    pub(super) table: Option<String>,
    /// Seeds of every row.
    pub(super) seeds: Vec<u64>,
    /// Settings of all rows, `key=value`.
    #[serde(default)]
    pub(super) set: Vec<String>,
    /// Variants that every row is run with, such as several splits of the classes; a row's scores are means over all
    /// of them.
    #[serde(default)]
    pub(super) variants: Vec<Variant>,
    /// Seen offsets that every row is scored with; `choose` chooses the one to report.
    #[serde(default)]
    offsets: Vec<f32>,
    /// Candidates among which each row's settings are chosen before its runs.
    #[serde(default)]
    pub(super) choose: Option<Choose>,
    /// Rows in the order of the table.
    pub(super) rows: Vec<Row>,
    /// Folder of the suite file.
    #[serde(skip)]
    folder: PathBuf,
}

/// A variant: settings that every row is run with once.
#[derive(Debug, Clone, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Variant {
    /// Name of the variant and of its folder.
    pub(super) name: String,
    /// Its settings, `key=value`.
    pub(super) set: Vec<String>,
}

/// A row of the table.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Row {
    /// Name of the row and of its folder.
    pub(super) name: String,
    /// Experiment that this row changes, instead of the suite's.
    #[serde(default)]
    base: Option<PathBuf>,
    /// Its settings, `key=value`.
    #[serde(default)]
    pub(super) set: Vec<String>,
    /// Name of the method in the published table.
    #[serde(default)]
    pub(super) published: Option<String>,
    /// Seen offsets of this row, if its scores have another scale (such as the logits of a softmax).
    #[serde(default)]
    offsets: Option<Vec<f32>>,
    /// Row of the suite whose weights this row starts from.
    #[serde(default)]
    pub(super) init: Option<Init>,
}

/// The candidates for the settings of each row, and the images that decide.
#[derive(Debug, Deserialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
#[serde(deny_unknown_fields, rename_all = "kebab-case")]
pub(super) struct Choose {
    /// Images that the candidates are trained on, such as `train:not-1/5`.
    pub(super) train_split: String,
    /// Images that the candidates are scored on, such as `train:1/5`; they should not be reported.
    pub(super) eval_split: String,
    /// Seed of the candidates' runs.
    #[serde(default)]
    pub(super) seed: u64,
    /// Settings of the candidates' runs only, such as a split of the classes that is not reported.
    #[serde(default)]
    pub(super) set: Vec<String>,
    /// Candidates, each a list of `key=value`; without candidates only the offset is chosen.
    #[serde(default)]
    settings: Vec<Vec<String>>,
}

impl Choose {
    /// Returns the settings of all candidates; there is at least one, which may change nothing.
    pub(super) fn candidates(&self) -> Vec<Vec<String>> {
        match &self.settings[..] {
            [] => vec![Vec::new()],
            settings => settings.to_vec(),
        }
    }
}

/// The weights of another row, of the run with the same seed.
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
        let parsed = toml::from_str(&text);
        let mut suite: Self = parsed.map_err(|error: toml::de::Error| {
            let reason = explain(&text, &error.to_string(), &[]);
            anyhow::anyhow!("{}: {reason}", path.display())
        })?;
        path.parent()
            .unwrap_or(Path::new(""))
            .clone_into(&mut suite.folder);
        suite.check().with_context(|| path.display().to_string())?;
        Ok(suite)
    }

    pub(super) fn row(&self, name: &str) -> Option<&Row> {
        self.rows.iter().find(|row| row.name == name)
    }

    /// Returns the seen offsets that a row is scored with, 0 included; none if the suite chooses nothing.
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

    /// Returns the experiment file of a row.
    pub(super) fn config(&self, row: &Row) -> PathBuf {
        self.folder.join(row.base.as_ref().unwrap_or(&self.base))
    }

    /// Checks names, offsets and references.
    fn check(&self) -> anyhow::Result<()> {
        anyhow::ensure!(!self.rows.is_empty(), "the suite has no rows");
        anyhow::ensure!(!self.seeds.is_empty(), "the suite has no seeds");
        if let Some(seed) = first_repeated(&self.seeds) {
            anyhow::bail!("seeds: seed {seed} is named twice");
        }
        let of_rows = self.rows.iter().filter_map(|row| row.offsets.as_ref());
        let mut offsets = of_rows.flatten().chain(&self.offsets).peekable();
        anyhow::ensure!(
            offsets.peek().is_none() || self.choose.is_some(),
            "the suite has offsets but no [choose] section, which chooses one"
        );
        anyhow::ensure!(
            offsets.all(|offset| offset.is_finite()),
            "an offset is not a finite number"
        );
        for (number, variant) in self.variants.iter().enumerate() {
            let name = &variant.name;
            check_name("variant", name)?;
            let mut before = self.variants[..number].iter();
            anyhow::ensure!(
                before.all(|other| other.name != *name),
                "two variants have the name {name:?}"
            );
        }
        for (number, row) in self.rows.iter().enumerate() {
            check_name("row", &row.name)?;
            anyhow::ensure!(
                !["choose", "features"].contains(&row.name.as_str()),
                "row {:?}: the name is reserved for a folder of `zeg ablate`",
                row.name
            );
            anyhow::ensure!(
                self.rows[..number]
                    .iter()
                    .all(|other| other.name != row.name),
                "two rows have the name {:?}",
                row.name
            );
            if let Some(init) = &row.init {
                anyhow::ensure!(
                    self.rows[..number]
                        .iter()
                        .any(|other| other.name == init.row),
                    "row {:?} starts from {:?}, but no row above it has this name",
                    row.name,
                    init.row
                );
            }
        }
        let Some(name) = &self.table else {
            return Ok(());
        };
        let table = zeg::eval::published::table(name)
            .with_context(|| format!("there is no published table {name:?}"))?;
        for method in self.rows.iter().filter_map(|row| row.published.as_ref()) {
            anyhow::ensure!(
                table.rows.iter().any(|row| row.method == *method),
                "the published table {name:?} has no row {method:?}"
            );
        }
        Ok(())
    }
}

/// Returns the first item that equals an earlier one.
pub(super) fn first_repeated<T: PartialEq>(items: &[T]) -> Option<&T> {
    let mut numbered = items.iter().enumerate();
    let repeated = numbered.find(|(number, item)| items[..*number].contains(item));
    repeated.map(|(_, item)| item)
}

/// Checks that a name can be the name of a folder.
fn check_name(what: &str, name: &str) -> anyhow::Result<()> {
    let legal = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '+');
    anyhow::ensure!(
        !name.is_empty() && name.chars().all(legal),
        "{what} {name:?}: a name may only have letters, digits, -, _ and +"
    );
    Ok(())
}
