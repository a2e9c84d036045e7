//! The numbers as CSV, one row per number, so that the columns are the same for every report.

use super::content::Content;
use crate::Report;
use crate::report::Split;
use crate::summary::Spread;

const HEADER: [&str; 8] = [
    "run", "scope", "class", "split", "metric", "value", "std", "n",
];

/// Run, scope and class that a row belongs to.
struct Subject<'a> {
    run: &'a str,
    scope: &'a str,
    class: &'a str,
    split: &'a str,
}

pub(super) fn render(content: &Content) -> String {
    let mut text = String::new();
    row(&mut text, &HEADER);
    for (position, (report, name)) in content.reports.iter().zip(&content.names).enumerate() {
        let number = (position + 1).to_string();
        let run = if content.is_side_by_side() {
            name
        } else {
            &number
        };
        of_report(&mut text, run, report);
    }
    if let Some(summary) = content.summary.as_ref().filter(|summary| summary.runs > 1) {
        let subject = Subject {
            run: "mean",
            scope: "summary",
            class: "",
            split: "",
        };
        for (name, spread) in summary.named() {
            number(&mut text, &subject, name, spread);
        }
        for group in &content.classes {
            for class in &group.rows {
                let subject = Subject {
                    run: "mean",
                    scope: "class",
                    class: &class.name,
                    split: group.kind,
                };
                number(&mut text, &subject, "IoU", class.iou);
                number(&mut text, &subject, "Acc", class.acc);
                number(&mut text, &subject, "Dice", class.dice);
            }
        }
    }
    text
}

fn of_report(text: &mut String, run: &str, report: &Report) {
    let subject = Subject {
        run,
        scope: "summary",
        class: "",
        split: "",
    };
    let one = |value: Option<f64>| Spread::of([value]);
    for (name, value) in [
        ("pAcc", report.p_acc),
        ("mIoU", report.miou),
        ("mIoU(S)", report.miou_seen),
        ("mIoU(U)", report.miou_unseen),
        ("hIoU", report.hiou),
        ("mAcc", report.macc),
        ("mDice", report.mdice),
    ] {
        number(text, &subject, name, one(value));
    }
    for class in &report.classes {
        let subject = Subject {
            run,
            scope: "class",
            class: &class.name,
            split: match class.split {
                Split::Seen => "seen",
                Split::Unseen => "unseen",
            },
        };
        number(text, &subject, "IoU", one(class.iou));
        number(text, &subject, "Acc", one(class.acc));
        number(text, &subject, "Dice", one(class.dice));
        number(text, &subject, "pixels", one(Some(class.pixels as f64)));
    }
}

fn number(text: &mut String, subject: &Subject<'_>, metric: &str, spread: Option<Spread>) {
    let (value, std, n) = match spread {
        Some(Spread { mean, std, n }) => (
            mean.to_string(),
            std.map(|std| std.to_string()).unwrap_or_default(),
            n.to_string(),
        ),
        None => (String::new(), String::new(), "0".to_owned()),
    };
    let Subject {
        run,
        scope,
        class,
        split,
    } = subject;
    row(text, &[run, scope, class, split, metric, &value, &std, &n]);
}

/// Appends a record of RFC 4180: fields with a separator, a quote or a line end are quoted, and the line ends in CRLF.
fn row(text: &mut String, fields: &[&str]) {
    for (position, field) in fields.iter().enumerate() {
        if position > 0 {
            text.push(',');
        }
        if field.contains([',', '"', '\r', '\n']) {
            text.push('"');
            text.push_str(&field.replace('"', "\"\""));
            text.push('"');
        } else {
            text.push_str(field);
        }
    }
    text.push_str("\r\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fields_are_quoted_where_needed() {
        let mut text = String::new();
        row(&mut text, &["a", "b,c", "say \"x\"", "two\nlines", ""]);
        assert_eq!(text, "a,\"b,c\",\"say \"\"x\"\"\",\"two\nlines\",\r\n");
    }
}
