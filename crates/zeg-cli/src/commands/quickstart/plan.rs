//! What the quickstart trains: methods and splits from a data file of the program.

use include_dir::{Dir, include_dir};
use serde::Deserialize;

/// The plan as a TOML file.
const PLAN: &str = include_str!("../../../assets/quickstart.toml");
/// The experiment files that the plan names.
static EXPERIMENTS: Dir = include_dir!("$CARGO_MANIFEST_DIR/../../configs/mini-world");

/// Methods that are compared, and the splits they are compared on.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct QuickstartPlan {
    /// Seeds of the choice of unseen classes.
    pub(super) splits: Vec<u64>,
    pub(super) methods: Vec<PlannedMethod>,
}

/// A method and how it is trained.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct PlannedMethod {
    /// Name of its folders and of its experiment file.
    pub(super) name: String,
    /// Name for people.
    pub(super) title: String,
    /// How it learns, as a phrase.
    pub(super) about: String,
    /// Its experiment, a file of `configs/mini-world`.
    experiment: String,
    /// Changes to the experiment, as `key=value`.
    pub(super) set: Vec<String>,
}

impl QuickstartPlan {
    /// Reads the plan that is part of the program.
    ///
    /// # Errors
    /// Returns an error if the plan does not parse, which a test rules out.
    pub(super) fn load() -> anyhow::Result<Self> {
        Ok(toml::from_str(PLAN)?)
    }
}

impl PlannedMethod {
    /// Returns the text of the experiment file.
    ///
    /// # Errors
    /// Returns an error if the plan names a file that the program does not hold, which a test rules out.
    pub(super) fn experiment(&self) -> anyhow::Result<&'static str> {
        EXPERIMENTS
            .get_file(&self.experiment)
            .and_then(include_dir::File::contents_utf8)
            .ok_or_else(|| anyhow::anyhow!("the program holds no experiment {:?}", self.experiment))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_names_experiments_that_exist() {
        let plan = QuickstartPlan::load().unwrap();
        assert!(plan.splits.len() >= 2);
        for method in &plan.methods {
            assert!(method.experiment().unwrap().contains("[model]"));
        }
    }
}
