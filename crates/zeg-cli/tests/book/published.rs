//! The page of published results, written from the table that reports and suites use.

use std::fmt::Write as _;

use zeg::eval::published::{Row, Table, tables};

use crate::pages::{assert_page, escaped};

#[test]
fn published_results_are_those_of_the_table() {
    let mut out = String::from(
        "# Published results\n\nThese are the figures that `zeg report` and `zeg ablate` put beside measured ones, in \
         percent. They are taken from the named sources as printed there; no row was measured by this project. Rows of \
         different protocols are not comparable. † marks pseudo labels on pixels of unseen classes only. The tables \
         are those of `crates/zeg-eval/assets/published.toml`.\n\nS and U are mIoU over seen and unseen classes; hIoU \
         is their harmonic mean as published.\n",
    );
    for table in tables() {
        table_section(&mut out, table);
    }
    assert_page("project/published.md", &out);
}

fn table_section(out: &mut String, table: &Table) {
    write!(
        out,
        "\n## {}\n\nTable `{}`. Source: {}.\n\n",
        escaped(&table.title),
        table.name,
        escaped(&table.source)
    )
    .unwrap();
    let sourced = table.rows.iter().any(|row| row.source != table.source);
    let columns: Vec<Column> = columns()
        .into_iter()
        .filter(|column| table.rows.iter().any(|row| (column.value)(row).is_some()))
        .collect();
    let mut head = vec!["benchmark", "class list", "protocol", "method"];
    head.extend(columns.iter().map(|column| column.title));
    head.extend(sourced.then_some("source"));
    let noted = table
        .rows
        .iter()
        .any(|row| row.note.is_some() || row.trained_on.is_some());
    head.extend(noted.then_some("note"));
    writeln!(out, "| {} |", head.join(" | ")).unwrap();
    let rule: Vec<&str> = head
        .iter()
        .map(|title| {
            if columns.iter().any(|c| c.title == *title) {
                "---:"
            } else {
                "---"
            }
        })
        .collect();
    writeln!(out, "|{}|", rule.join("|")).unwrap();
    for row in &table.rows {
        let list = row
            .class_list
            .as_deref()
            .map(|list| format!("`{list}`"))
            .unwrap_or_default();
        let mut cells = vec![
            format!("`{}`", row.benchmark),
            list,
            row.protocol.name().to_owned(),
            cell(&row.method),
        ];
        cells.extend(columns.iter().map(|column| {
            (column.value)(row)
                .map(|value| format!("{value:.1}"))
                .unwrap_or_default()
        }));
        cells.extend(sourced.then(|| cell(&row.source)));
        let trained = row
            .trained_on
            .as_ref()
            .map(|set| format!("trained on {set}"));
        let notes: Vec<String> = trained.into_iter().chain(row.note.clone()).collect();
        cells.extend(noted.then(|| cell(&notes.join("; "))));
        writeln!(out, "| {} |", cells.join(" | ")).unwrap();
    }
}

fn cell(text: &str) -> String {
    escaped(text).replace('|', "\\|")
}

/// A figure that rows may have.
struct Column {
    title: &'static str,
    value: fn(&Row) -> Option<f64>,
}

fn columns() -> Vec<Column> {
    let column = |title, value| Column { title, value };
    vec![
        column("pAcc", |row| row.p_acc),
        column("mAcc", |row| row.macc),
        column("S", |row| row.seen),
        column("U", |row| row.unseen),
        column("hIoU", |row| row.hiou),
        column("mIoU", |row| row.miou),
        column("mDice", |row| row.mdice),
    ]
}
