//! Writes the report: one line for each group of similar tensors, and one line at the end.

use std::io::{self, Write};

use super::{
    check::{Findings, Outcome},
    limit::Limit,
    summary::Summary,
};

/// Number of failures of a group that are listed one by one.
const LISTED: usize = 8;
/// Number of results nearest to their limits that are listed for every file.
const NEAREST: usize = 3;

/// Prefixes of results per parameter, which are hundreds and therefore grouped by model part.
const BY_PART: [&str; 6] = [
    "grad.",
    "gradnorm.",
    "gradsample.",
    "step1.",
    "after.",
    "after_step1.",
];

/// Outcomes that share a line.
struct Group<'a> {
    name: String,
    limit: Limit,
    outcomes: Vec<&'a Outcome>,
}

/// Writes the findings of one file.
pub(crate) fn write_file(out: &mut dyn Write, label: &str, findings: &Findings) -> io::Result<()> {
    for group in groups(&findings.outcomes) {
        write_group(out, label, &group)?;
    }
    let mut nearest: Vec<&Outcome> = (findings.outcomes.iter())
        .filter(|outcome| outcome.passed() && outcome.share() > 0.0)
        .collect();
    nearest.sort_by(|a, b| b.share().total_cmp(&a.share()));
    for outcome in nearest.into_iter().take(NEAREST) {
        write_nearest(out, label, outcome)?;
    }
    if findings.repeated > 0 {
        writeln!(
            out,
            "{label}: computed again: {} results equal to the bit",
            findings.repeated
        )?;
    }
    let mut inputs: Vec<(String, usize)> = Vec::new();
    for name in &findings.inputs {
        let group = match name.split_once('.') {
            Some((first, _)) => format!("{first}.*"),
            None => name.clone(),
        };
        match inputs.iter_mut().find(|(name, _)| *name == group) {
            Some((_, count)) => *count += 1,
            None => inputs.push((group, 1)),
        }
    }
    for (name, count) in inputs {
        let tensors = tensors(count);
        writeln!(
            out,
            "{label}: {name:<34} {count:>3} {tensors}  not recomputed: inputs or weights"
        )?;
    }
    for note in &findings.notes {
        writeln!(out, "{label}: note: {note}")?;
    }
    Ok(())
}

/// Writes a result that passed, with its deviation as a share of the limit.
fn write_nearest(out: &mut dyn Write, label: &str, outcome: &Outcome) -> io::Result<()> {
    writeln!(
        out,
        "{label}: nearest to its limit: {:>3.0} % {} ({} of {})",
        100.0 * outcome.share(),
        outcome.name,
        measure(outcome.deviation, outcome.limit),
        short(outcome.limit.value())
    )
}

/// Returns the singular or plural for a count.
fn tensors(count: usize) -> &'static str {
    if count == 1 { "tensor " } else { "tensors" }
}

fn groups(outcomes: &[Outcome]) -> Vec<Group<'_>> {
    let mut groups: Vec<Group> = Vec::new();
    for outcome in outcomes {
        // A parameter with its own absolute limit gets its own line.
        let name = match outcome.limit {
            Limit::Absolute(_) => starred(&outcome.name),
            _ => group_name(&outcome.name),
        };
        // Absolute limits differ from tensor to tensor; the group states the largest.
        let same = |group: &&mut Group| {
            group.name == name
                && std::mem::discriminant(&group.limit) == std::mem::discriminant(&outcome.limit)
        };
        match groups.iter_mut().find(same) {
            Some(group) => {
                if outcome.limit.value() > group.limit.value() {
                    group.limit = outcome.limit;
                }
                group.outcomes.push(outcome);
            }
            None => groups.push(Group {
                name,
                limit: outcome.limit,
                outcomes: vec![outcome],
            }),
        }
    }
    groups
}

fn write_group(out: &mut dyn Write, label: &str, group: &Group) -> io::Result<()> {
    let count = group.outcomes.len();
    let failed: Vec<_> = group.outcomes.iter().filter(|o| !o.passed()).collect();
    let verdict = if failed.is_empty() { "" } else { "  FAIL" };
    let worst = group
        .outcomes
        .iter()
        .max_by(|a, b| a.share().total_cmp(&b.share()));
    let worst = worst.map(|o| worst_of(o)).unwrap_or_default();
    writeln!(
        out,
        "{label}: {:<34} {count:>3} {}  {worst}{verdict}",
        group.name,
        tensors(count),
    )?;
    for outcome in failed.iter().take(LISTED) {
        let measure = measure(outcome.deviation, outcome.limit);
        let what = outcome.problem.as_deref().unwrap_or(&measure);
        writeln!(out, "  FAIL {}: {what}", outcome.name)?;
    }
    if failed.len() > LISTED {
        writeln!(out, "  FAIL … and {} more", failed.len() - LISTED)?;
    }
    Ok(())
}

fn worst_of(outcome: &Outcome) -> String {
    format!(
        "worst {} (limit {}) at {}",
        measure(outcome.deviation, outcome.limit),
        short(outcome.limit.value()),
        outcome.name
    )
}

/// Returns a deviation with its unit.
fn measure(deviation: f64, limit: Limit) -> String {
    let unit = match limit {
        Limit::OfRms(_) => "of RMS",
        Limit::OfMax(_) => "of max",
        Limit::Relative(_) => "relative",
        Limit::Absolute(_) => "absolute",
        Limit::Exact => "values differ",
    };
    format!("{} {unit}", short(deviation))
}

/// Formats a number with two significant digits.
fn short(value: f64) -> String {
    if value == 0.0 {
        "0".into()
    } else if (1.0..1e6).contains(&value) {
        format!("{value:.0}")
    } else {
        format!("{value:.1e}").replace(".0e", "e")
    }
}

/// Returns the name with every number replaced by `*`; parameters are grouped by model part.
fn group_name(name: &str) -> String {
    if let Some(prefix) = BY_PART.iter().find(|prefix| name.starts_with(**prefix)) {
        let part = name[prefix.len()..].split('.').next().unwrap_or_default();
        return format!("{prefix}{part}.*");
    }
    starred(name)
}

/// Returns the name with every number replaced by `*`.
fn starred(name: &str) -> String {
    let mut group = String::new();
    for c in name.chars() {
        match c {
            '0'..='9' if group.ends_with('*') => {}
            '0'..='9' => group.push('*'),
            _ => group.push(c),
        }
    }
    group
}

/// Writes the last line.
pub(crate) fn write_summary(out: &mut dyn Write, summary: &Summary) -> io::Result<()> {
    for worst in &summary.nearest {
        if worst.share > 0.0 && worst.share.is_finite() {
            writeln!(
                out,
                "parity: nearest to its limit: {:>3.0} % {}: {} ({} of {})",
                100.0 * worst.share,
                worst.file,
                worst.name,
                measure(worst.deviation, worst.limit),
                short(worst.limit.value())
            )?;
        }
    }
    let verdict = if summary.passed() { "PASS" } else { "FAIL" };
    write!(
        out,
        "parity: {verdict} {} tensors in {} files",
        summary.tensors, summary.files
    )?;
    if summary.failed > 0 {
        write!(out, ", {} tensors deviate", summary.failed)?;
    }
    if summary.unreadable > 0 {
        write!(out, ", {} files could not be compared", summary.unreadable)?;
    }
    if summary.tensors == 0 {
        write!(out, ", nothing was compared")?;
    }
    if let Some(worst) = summary.worst() {
        write!(
            out,
            ", worst {} at {}: {} (limit {})",
            short(worst.deviation),
            worst.file,
            worst.name,
            short(worst.limit.value())
        )?;
    }
    writeln!(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn similar_tensors_share_a_line() {
        assert_eq!(group_name("eval.dec12.attn"), "eval.dec*.attn");
        assert_eq!(
            group_name("grad.decode_head.q_proj.weight"),
            "grad.decode_head.*"
        );
        assert_eq!(group_name("train.total"), "train.total");
    }
}
