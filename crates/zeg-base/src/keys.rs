//! Places of keys in a TOML file, for errors that are found after the file was parsed.

use toml::de::{DeTable, DeValue};

use crate::names::did_you_mean;

/// Returns the dotted path and the value of the first number that is infinite or NaN.
pub fn first_not_finite(table: &toml::Table) -> Option<(String, f64)> {
    table.iter().find_map(|(key, value)| not_finite(key, value))
}

fn not_finite(path: &str, value: &toml::Value) -> Option<(String, f64)> {
    match value {
        toml::Value::Float(number) if !number.is_finite() => Some((path.to_owned(), *number)),
        toml::Value::Table(table) => table
            .iter()
            .find_map(|(key, value)| not_finite(&format!("{path}.{key}"), value)),
        toml::Value::Array(values) => values.iter().find_map(|value| not_finite(path, value)),
        _ => None,
    }
}

/// Completes the message of an error about a parsed TOML file: puts the line of the key before it, and the known name
/// that an unknown one most likely stands for behind its first line.
///
/// The key is that of the message: the path in a last line ``in `training.loss` ``, with the unknown field if there is
/// one, or a dotted path at the start, as in `training.steps = 0: …`.
///
/// - `changed`: dotted paths whose values are not those of the file, so that messages about them get no line
pub fn explain(text: &str, message: &str, changed: &[&str]) -> String {
    let message = message.trim_end();
    if message.starts_with("TOML parse error") {
        return format!("{message}{}", suggestion(message)); // it shows the line already
    }
    let (first, rest) = match message.split_once('\n') {
        Some((first, rest)) => (first, format!("\n{rest}")),
        None => (message, String::new()),
    };
    let suggestion = if message.contains("did you mean") {
        String::new()
    } else {
        suggestion(first)
    };
    let place = place(message)
        .filter(|place| !place.is_changed(changed))
        .and_then(|place| place.line(text))
        .map_or_else(String::new, |line| format!("line {line}: "));
    format!("{place}{first}{suggestion}{rest}")
}

/// Returns the suggestion for a message of serde about an unknown field or variant, or nothing.
pub fn suggestion(message: &str) -> String {
    let starts = ["unknown field `", "unknown variant `"];
    let Some(place) = starts.into_iter().find_map(|start| message.find(start)) else {
        return String::new();
    };
    let line = message[place..].lines().next().unwrap_or_default();
    let mut quoted = line.split('`').skip(1).step_by(2);
    let name = quoted.next().unwrap_or_default();
    did_you_mean(name, quoted)
}

/// The key that a message is about.
struct Place {
    /// Dotted path of the key, or of the table that holds it.
    path: String,
    /// Name of the key if only a table that holds it, at any depth, is known.
    field: Option<String>,
}

impl Place {
    fn is_changed(&self, changed: &[&str]) -> bool {
        let path = match &self.field {
            Some(field) if self.path.is_empty() => field.clone(),
            Some(field) => format!("{}.{field}", self.path),
            None => self.path.clone(),
        };
        let within = |inner: &str, outer: &str| {
            let rest = inner.strip_prefix(outer);
            rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
        };
        changed
            .iter()
            .any(|changed| within(&path, changed) || within(changed, &path))
    }

    fn line(&self, text: &str) -> Option<usize> {
        let document = DeTable::parse(text).ok()?;
        let start = match (&self.field, &self.path[..]) {
            (None, path) => key_start(document.get_ref(), path)?,
            (Some(field), "") => start_below(document.get_ref(), field)?,
            (Some(field), path) => {
                let (_, value) = find(document.get_ref(), path)?;
                start_below(value.as_table()?, field)?
            }
        };
        line_at(text, start)
    }
}

/// Returns the key that a message is about, if it names one.
fn place(message: &str) -> Option<Place> {
    let quoted = |text: &str| Some(text.split_once('`')?.0.to_owned());
    let within = message
        .rsplit_once("\nin `")
        .and_then(|(_, rest)| quoted(rest));
    let field = message
        .split_once("unknown field `")
        .and_then(|(_, rest)| quoted(rest));
    if within.is_some() || field.is_some() {
        let path = within.unwrap_or_default();
        return Some(Place { path, field });
    }
    let end = message.find(|c: char| !(c.is_ascii_alphanumeric() || ".-_".contains(c)));
    let start = &message[..end?];
    start.contains('.').then(|| Place {
        path: start.to_owned(),
        field: None,
    })
}

/// A key with its value and its position in the file.
type Entry<'a> = (usize, &'a DeValue<'a>);

/// Finds the entry with a dotted path.
fn find<'a>(table: &'a DeTable<'a>, path: &str) -> Option<Entry<'a>> {
    let (first, rest) = match path.split_once('.') {
        Some((first, rest)) => (first, Some(rest)),
        None => (path, None),
    };
    let (key, value) = table.iter().find(|(key, _)| key.get_ref() == first)?;
    match rest {
        Some(rest) => find(value.get_ref().as_table()?, rest),
        None => Some((key.span().start, value.get_ref())),
    }
}

/// Returns the position of the key with a dotted path.
fn key_start(table: &DeTable, path: &str) -> Option<usize> {
    find(table, path).map(|(start, _)| start)
}

/// Returns the position of the first key of this name in a table or in the tables within it.
fn start_below(table: &DeTable, name: &str) -> Option<usize> {
    let own = key_start(table, name);
    own.or_else(|| {
        let tables = table
            .iter()
            .filter_map(|(_, value)| value.get_ref().as_table());
        tables.filter_map(|table| start_below(table, name)).min()
    })
}

fn line_at(text: &str, start: usize) -> Option<usize> {
    Some(text.get(..start)?.split('\n').count())
}

/// Returns the line, counted from 1, of the key with this dotted path in a TOML file; `None` if the file lacks it.
pub fn line(text: &str, path: &str) -> Option<usize> {
    let document = DeTable::parse(text).ok()?;
    line_at(text, key_start(document.get_ref(), path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Steps {
        #[serde(rename = "steps")]
        _steps: u32,
    }

    const FILE: &str =
        "# head\n[training]\nstep = 5\nloss = { focal = 1.0 }\n\n[training.schedule]\nbase = nan\n";

    #[test]
    fn keys_are_found_by_their_dotted_path() {
        assert_eq!(line(FILE, "training.step"), Some(3));
        assert_eq!(line(FILE, "training.loss.focal"), Some(4));
        assert_eq!(line(FILE, "training.schedule.base"), Some(7));
        assert_eq!(line(FILE, "training.step.deeper"), None);
        assert_eq!(line(FILE, "training.batch"), None);
        assert_eq!(line("not = [toml", "not"), None);
    }

    #[test]
    fn messages_get_the_line_of_their_key_and_a_suggestion() {
        assert_eq!(
            explain(
                FILE,
                "unknown field `step`, expected one of `steps`, `batch`\nin `training`\n",
                &[]
            ),
            "line 3: unknown field `step`, expected one of `steps`, `batch`; did you mean \"steps\"?\nin `training`"
        );
        assert_eq!(
            explain(FILE, "training.schedule.base = -1: must be positive", &[]),
            "line 7: training.schedule.base = -1: must be positive"
        );
        assert_eq!(
            explain(FILE, "training.batch = 0: too small", &[]),
            "training.batch = 0: too small"
        );
        assert_eq!(
            explain(FILE, "the suite has no rows", &[]),
            "the suite has no rows"
        );
        let below = "unknown field `focal`\nin `training` (of a method)";
        assert!(explain(FILE, below, &[]).starts_with("line 4: "));
        for changed in ["training.schedule.base", "training.schedule", "training"] {
            let message = "training.schedule.base = 1: no";
            assert_eq!(explain(FILE, message, &[changed]), message);
        }
        assert_eq!(explain("", "", &[]), "");
        let parsed = toml::from_str::<Steps>("stepz = 3").unwrap_err();
        let message = explain("stepz = 3", &parsed.to_string(), &[]);
        assert!(
            message.starts_with("TOML parse error at line 1"),
            "{message}"
        );
        assert!(message.ends_with("; did you mean \"steps\"?"), "{message}");
    }

    #[test]
    fn the_first_number_that_is_not_finite_is_named() {
        let table: toml::Table = FILE.parse().unwrap();
        let (path, number) = first_not_finite(&table).unwrap();
        assert_eq!(path, "training.schedule.base");
        assert!(number.is_nan());
        let table: toml::Table = "a = 1.0\nb = [[2.0, -inf]]".parse().unwrap();
        assert_eq!(
            first_not_finite(&table),
            Some(("b".to_owned(), f64::NEG_INFINITY))
        );
    }
}
