//! Settings and commands of the evaluations: what is needed to repeat them.

use super::content::meaning;
use super::text::{duration, plain, thousands};
use super::{ReportInput, RunInput};
use crate::Evaluation;

/// Largest number of skipped images that are listed.
const MOST_SKIPPED: usize = 100;

/// Everything that is needed to repeat the evaluations.
pub(super) struct Making {
    /// Settings that all runs share: name and value.
    pub(super) settings: Vec<(String, String)>,
    /// Settings and facts that differ between runs, one entry per run.
    pub(super) runs: Vec<RunFacts>,
    /// Commands that repeat the evaluations, one line per run.
    pub(super) command: String,
}

pub(super) struct RunFacts {
    pub(super) title: String,
    pub(super) facts: Vec<(String, String)>,
    /// Images that could not be read: id and reason; at most [`MOST_SKIPPED`], and how many more there are.
    pub(super) skipped: Vec<(String, String)>,
    /// The experiment as TOML.
    pub(super) experiment: Option<String>,
}

impl Making {
    pub(super) fn of(input: &ReportInput, names: &[String]) -> Self {
        let settings: Vec<Vec<(String, String)>> = input
            .runs
            .iter()
            .map(|run| settings(&run.evaluation))
            .collect();
        let is_shared =
            |setting: &(String, String)| settings.iter().all(|settings| settings.contains(setting));
        let shared = settings.first().into_iter().flatten();
        let runs = input.runs.iter().zip(names).zip(&settings);
        let single = input.runs.len() == 1;
        let runs = runs.map(|((run, name), settings)| {
            let own = settings.iter().filter(|setting| !is_shared(setting));
            RunFacts {
                title: if single { "Run" } else { name.as_str() }.to_owned(),
                facts: own.cloned().chain(facts(&run.evaluation)).collect(),
                skipped: skipped(&run.evaluation),
                experiment: run.experiment.clone(),
            }
        });
        let commands: Vec<String> = input.runs.iter().map(command).collect();
        Self {
            settings: shared
                .filter(|setting| is_shared(setting))
                .cloned()
                .collect(),
            runs: runs.collect(),
            command: commands.join("\n"),
        }
    }
}

fn command(run: &RunInput) -> String {
    format!(
        "zeg eval {} --data FOLDER --dataset {}",
        quoted(&run.evaluation.model.path),
        quoted(&run.evaluation.benchmark.dataset)
    )
}

fn settings(evaluation: &Evaluation) -> Vec<(String, String)> {
    let benchmark = &evaluation.benchmark;
    let official = match benchmark.official_images {
        Some(count) => format!(
            "{} of {} official",
            thousands(evaluation.images),
            thousands(count)
        ),
        None => thousands(evaluation.images),
    };
    let scales: Vec<String> = evaluation.scales.iter().map(f64::to_string).collect();
    let mut settings = vec![
        (
            "Data set",
            format!("{} ({})", benchmark.title, benchmark.dataset),
        ),
        ("Split", benchmark.split.clone()),
        ("Images", official),
        (
            "Class list",
            format!(
                "{}, {} classes",
                benchmark.class_list,
                evaluation.classes.len()
            ),
        ),
        (
            "Protocol",
            format!("{}. {}", evaluation.protocol.title(), meaning(evaluation)),
        ),
        (
            "Trained on",
            evaluation
                .trained_on
                .clone()
                .unwrap_or_else(|| "not recorded".to_owned()),
        ),
        ("Method", evaluation.method.clone()),
        (
            "Classes without pixels",
            evaluation.nan_rule.explanation().to_owned(),
        ),
        ("Prompt templates", evaluation.templates.clone()),
        ("Scales", scales.join(", ")),
        (
            "Test-time flip",
            if evaluation.flip { "yes" } else { "no" }.to_owned(),
        ),
    ];
    if let Some(shard) = evaluation.shard {
        settings.push(("Shard", format!("{} of {}", shard.index, shard.count)));
    }
    let mut settings: Vec<(String, String)> = settings
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect();
    match &evaluation.inference {
        serde_json::Value::Object(fields) => {
            settings.extend(
                fields
                    .iter()
                    .map(|(name, value)| (format!("Inference: {name}"), plain(value))),
            );
        }
        serde_json::Value::Null => {}
        other => settings.push(("Inference".to_owned(), plain(other))),
    }
    settings
}

fn facts(evaluation: &Evaluation) -> Vec<(String, String)> {
    let (model, timing) = (&evaluation.model, &evaluation.timing);
    let mut facts = vec![
        ("Model", model.path.clone()),
        ("SHA-256", model.sha256.clone()),
    ];
    if let Some(step) = model.step {
        facts.push(("Step", thousands(step)));
    }
    if let Some(seed) = model.seed {
        facts.push(("Seed", seed.to_string()));
    }
    facts.extend([
        ("Program", evaluation.program.clone()),
        ("Machine", timing.machine.clone()),
        ("Images processed in parallel", timing.threads.to_string()),
        ("Time", duration(timing.wall_s)),
        ("Time in the model, all threads", duration(timing.model_s)),
    ]);
    if evaluation.images > 0 && timing.wall_s > 0.0 {
        let each = timing.wall_s / evaluation.images as f64;
        facts.push(("Time per image", format!("{each:.2} s")));
    }
    facts
        .into_iter()
        .map(|(name, value)| (name.to_owned(), value))
        .collect()
}

/// Returns the images that could not be read, with the reasons.
fn skipped(evaluation: &Evaluation) -> Vec<(String, String)> {
    let listed = evaluation.skipped.iter().take(MOST_SKIPPED);
    let mut skipped: Vec<(String, String)> = listed
        .map(|image| (image.id.clone(), image.reason.clone()))
        .collect();
    let more = evaluation.skipped.len() - skipped.len();
    if more > 0 {
        let text = format!("{} more, which the record names", thousands(more as u64));
        skipped.push(("…".to_owned(), text));
    }
    skipped
}

/// Quotes a word for a POSIX shell if necessary.
fn quoted(word: &str) -> String {
    let harmless = |letter: char| letter.is_ascii_alphanumeric() || "-_./=:,+@%".contains(letter);
    if !word.is_empty() && word.chars().all(harmless) {
        return word.to_owned();
    }
    format!("'{}'", word.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_can_be_copied() {
        assert_eq!(
            quoted("runs/voc12/model.safetensors"),
            "runs/voc12/model.safetensors"
        );
        assert_eq!(quoted("my model.safetensors"), "'my model.safetensors'");
        assert_eq!(quoted("$(rm -r x)"), "'$(rm -r x)'");
        assert_eq!(quoted("it's"), r"'it'\''s'");
    }
}
