//! Writes the report as Markdown, for a repository or an issue: all numbers, no images.

use super::classes::{ClassGroup, ClassRow};
use super::content::{Confusion, Content};
use super::text::{percent, share, thousands};
use crate::Metric;
use crate::summary::Spread;

pub(super) fn render(content: &Content) -> String {
    let mut text = format!(
        "# {}\n\n{}\n\n{}\n",
        escaped(&content.title),
        escaped(&content.facts.join(" · ")),
        content.protocol
    );
    for notice in &content.notices {
        paragraph(&mut text, &format!("> **Note:** {}", escaped(notice)));
    }
    headline(&mut text, content);
    comparison(&mut text, content);
    classes(&mut text, content);
    for confusion in &content.confusions {
        mistakes(&mut text, confusion);
    }
    reliability(&mut text, content);
    making(&mut text, content);
    text
}

/// Writes the calibration error of every evaluation that measured its confidence, and what thresholds do.
fn reliability(text: &mut String, content: &Content) {
    let Some(plot) = &content.reliability else {
        return;
    };
    paragraph(text, "## Confidence");
    for line in &plot.lines {
        paragraph(text, &format!("{}: {}.", escaped(&line.name), line.error));
        let header = [
            "threshold",
            "unlabelled",
            "unlabelled of absent classes",
            "right of labelled",
        ];
        let rows = line.thresholds.iter().map(|row| {
            [&row.threshold, &row.known, &row.absent, &row.right]
                .map(|cell| escaped(cell))
                .to_vec()
        });
        table(text, &header.map(str::to_owned), rows);
    }
}

fn headline(text: &mut String, content: &Content) {
    if content.headline.is_empty() {
        return;
    }
    let line = |number: &super::content::Headline| {
        let spread = number
            .spread
            .as_deref()
            .map(|spread| format!(" {spread}"))
            .unwrap_or_default();
        format!(
            "- **{} {}**{spread} ({})",
            number.name, number.value, number.meaning
        )
    };
    let lines: Vec<String> = content.headline.iter().map(line).collect();
    paragraph(text, &lines.join("\n"));
}

fn comparison(text: &mut String, content: &Content) {
    let comparison = &content.comparison;
    paragraph(text, "## Results");
    let mut header = vec!["method".to_owned()];
    header.extend(comparison.columns.iter().map(|column| (*column).to_owned()));
    header.push("source".to_owned());
    let own = comparison.own.iter().map(|row| {
        let mut cells = vec![format!("**{}**", escaped(&row.name))];
        cells.extend(row.values.iter().cloned());
        cells.push(escaped(&row.detail));
        cells
    });
    let published = comparison.published.iter().flat_map(|publication| {
        publication.rows.iter().map(move |row| {
            let mut cells = vec![escaped(&row.method)];
            cells.extend(row.values.iter().map(|value| escaped(value)));
            cells.push(format!("published: {}", escaped(&publication.source)));
            cells
        })
    });
    table(text, &header, own.chain(published));
    for footnote in &comparison.footnotes {
        paragraph(text, &escaped(footnote));
    }
    if let Some(difference) = &comparison.difference {
        paragraph(text, &escaped(difference));
    }
}

fn classes(text: &mut String, content: &Content) {
    if content.is_side_by_side() {
        return classes_side_by_side(text, content);
    }
    let value =
        |spread: Option<Spread>| spread.map_or_else(|| percent(None), |spread| spread.percent());
    for group in &content.classes {
        paragraph(text, &format!("## {}", group.title));
        let names = match content.metric {
            Metric::MeanIou => ["class", "IoU", "Acc", "Dice", "share of pixels"],
            Metric::Dice => ["class", "Dice", "IoU", "Acc", "share of pixels"],
        };
        let row = |class: &ClassRow| {
            let mut cells = vec![escaped(&class.name)];
            cells.extend(match content.metric {
                Metric::MeanIou => [class.iou, class.acc, class.dice].map(value),
                Metric::Dice => [class.dice, class.iou, class.acc].map(value),
            });
            cells.push(escaped(&share(class.share)));
            cells
        };
        if !group.rows.is_empty() {
            table(text, &names.map(str::to_owned), group.rows.iter().map(row));
        }
        absent(text, group);
    }
}

/// Writes the score of every evaluation in its own column.
fn classes_side_by_side(text: &mut String, content: &Content) {
    let metric = match content.metric {
        Metric::MeanIou => "IoU",
        Metric::Dice => "Dice",
    };
    let mut header = vec!["class".to_owned()];
    header.extend(content.names.iter().map(|name| escaped(name)));
    header.push("share of pixels".to_owned());
    for group in &content.classes {
        paragraph(text, &format!("## {}, {metric}", group.title));
        let row = |class: &ClassRow| {
            let mut cells = vec![escaped(&class.name)];
            cells.extend(class.each.iter().map(|value| percent(*value)));
            cells.push(escaped(&share(class.share)));
            cells
        };
        if !group.rows.is_empty() {
            table(text, &header, group.rows.iter().map(row));
        }
        absent(text, group);
    }
}

/// Writes the names of the classes without a score.
fn absent(text: &mut String, group: &ClassGroup) {
    if !group.absent.is_empty() {
        paragraph(
            text,
            &format!(
                "Neither in the ground truth nor predicted: {}.",
                escaped(&group.absent.join(", "))
            ),
        );
    }
}

fn mistakes(text: &mut String, confusion: &Confusion) {
    let mistakes = &confusion.mistakes;
    if !mistakes.sides.is_empty() || !mistakes.pairs.is_empty() {
        let of = confusion
            .name
            .as_ref()
            .map(|name| format!(": {}", escaped(name)));
        paragraph(
            text,
            &format!("## Confused classes{}", of.unwrap_or_default()),
        );
    }
    if !mistakes.sides.is_empty() {
        let header = [
            "pixels of",
            "correct",
            "wrong seen class",
            "wrong unseen class",
        ];
        let rows = mistakes.sides.iter().map(|side| {
            let shares = [side.right, side.wrong_seen, side.wrong_unseen];
            let mut cells = vec![side.name.to_owned()];
            cells.extend(shares.map(|value| escaped(&share(value))));
            cells
        });
        table(text, &header.map(str::to_owned), rows);
    }
    let pair = |pair: &super::mistakes::Pair| {
        format!(
            "- {} predicted as {}: {} of its pixels ({})",
            escaped(&pair.truth),
            escaped(&pair.prediction),
            escaped(&share(pair.share)),
            thousands(pair.pixels)
        )
    };
    let pairs: Vec<String> = mistakes.pairs.iter().map(pair).collect();
    if !pairs.is_empty() {
        paragraph(text, &pairs.join("\n"));
    }
}

fn making(text: &mut String, content: &Content) {
    let making = &content.making;
    paragraph(text, "## Settings");
    let row = |(name, value): &(String, String)| vec![escaped(name), escaped(value)];
    let header = [String::new(), String::new()];
    table(text, &header, making.settings.iter().map(row));
    for run in &making.runs {
        paragraph(text, &format!("### {}", escaped(&run.title)));
        table(text, &header, run.facts.iter().map(row));
        if !run.skipped.is_empty() {
            paragraph(text, "Images that could not be read:");
            table(text, &header, run.skipped.iter().map(row));
        }
    }
    paragraph(text, "### Command to repeat the evaluation");
    paragraph(
        text,
        &format!("```sh\n{}\n```", making.command.replace("```", "` ` `")),
    );
}

/// Appends a paragraph after an empty line.
fn paragraph(text: &mut String, content: &str) {
    text.push('\n');
    text.push_str(content);
    text.push('\n');
}

fn table(text: &mut String, header: &[String], rows: impl Iterator<Item = Vec<String>>) {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    text.push('\n');
    text.push_str(&line(header));
    text.push('|');
    for position in 0..header.len() {
        text.push_str(if position == 0 { " --- |" } else { " ---: |" });
    }
    text.push('\n');
    for row in rows {
        text.push_str(&line(&row));
    }
}

/// Escapes a text from a file, so that Markdown shows it unchanged and it stays within its table cell.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for letter in text.chars() {
        match letter {
            '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '#' | '~' => {
                escaped.push('\\');
                escaped.push(letter);
            }
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '&' => escaped.push_str("&amp;"),
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn markup_is_escaped() {
        assert_eq!(escaped("a|b"), r"a\|b");
        assert_eq!(escaped("<img src=x>\n# b*"), r"&lt;img src=x&gt; \# b\*");
    }
}
