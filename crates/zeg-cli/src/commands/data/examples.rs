//! Checks a folder of example images with masks.

use std::path::PathBuf;

use serde::Serialize;
use zeg::examples::{ExampleFolder, FolderClass};
use zeg_base::plural::counted;

use crate::{commands::JsonTarget, progress::Verbosity};

/// Settings of `zeg data doctor` for a folder of examples.
#[derive(Debug)]
pub(super) struct ExamplesSettings {
    pub(super) folder: PathBuf,
    /// Whether warnings count as errors.
    pub(super) strict: bool,
    pub(super) json: Option<JsonTarget>,
    pub(super) verbosity: Verbosity,
}

/// What was found in a folder of examples.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
pub(super) struct ExamplesDiagnosis {
    /// The classes, in the order of their names.
    classes: Vec<ExampleClass>,
    /// What keeps the folder from being used.
    errors: Vec<String>,
    /// What may mean something else than it is taken for.
    warnings: Vec<String>,
}

/// The examples of a class.
#[derive(Debug, Serialize)]
#[cfg_attr(feature = "schema", derive(schemars::JsonSchema))]
struct ExampleClass {
    /// Name of the class.
    name: String,
    /// Number of images with a mask that can be used.
    examples: u64,
    /// Mean share of an image that its mask covers, 0 to 1; 0 without a usable example.
    share: f64,
}

impl ExamplesDiagnosis {
    /// Whether the command fails.
    pub(super) fn fails(&self, strict: bool) -> bool {
        !self.errors.is_empty() || (strict && !self.warnings.is_empty())
    }

    /// Returns the lines that are printed.
    pub(super) fn lines(&self) -> Vec<String> {
        let class = |class: &ExampleClass| {
            let (count, share) = (class.examples as usize, 100.0 * class.share);
            format!(
                "{}: {}, masks cover {share:.1} % on average",
                class.name,
                counted(count, "example")
            )
        };
        let mut lines: Vec<String> = self.classes.iter().map(class).collect();
        lines.extend(self.errors.iter().map(|text| format!("error: {text}")));
        lines.extend(self.warnings.iter().map(|text| format!("warning: {text}")));
        lines
    }
}

/// Reads all pairs of a folder of examples.
///
/// # Errors
/// Returns an error if the folder itself has no pairs, or an image or a mask lacks the other.
pub(super) fn examine(settings: &ExamplesSettings) -> anyhow::Result<ExamplesDiagnosis> {
    let folder = ExampleFolder::open(&settings.folder)?;
    let bar = settings
        .verbosity
        .progress("examining", "examples", folder.pairs() as u64);
    let mut found = ExamplesDiagnosis {
        classes: Vec::new(),
        errors: Vec::new(),
        warnings: Vec::new(),
    };
    for FolderClass { name, pairs } in &folder.classes {
        let (mut count, mut share) = (0_u64, 0.0);
        for pair in pairs {
            match pair.read_with_warnings() {
                Ok((_, mask, warnings)) => {
                    let inside = mask.labels().iter().filter(|&&label| label != 0).count();
                    count += 1;
                    share += inside as f64 / mask.labels().len().max(1) as f64;
                    found
                        .warnings
                        .extend(warnings.iter().map(ToString::to_string));
                }
                Err(error) => found.errors.push(error.to_string()),
            }
            bar.inc();
        }
        found.classes.push(ExampleClass {
            name: name.clone(),
            examples: count,
            share: share / (count as f64).max(1.0),
        });
    }
    bar.finish();
    Ok(found)
}
