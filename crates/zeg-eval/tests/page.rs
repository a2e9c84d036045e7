//! Tests the text of reports: what they contain, what they leave out, and that texts from files are escaped.

// the configured exception for tests does not reach their helper functions
#![allow(clippy::unwrap_used)]

mod common;
#[path = "page/csv.rs"]
mod csv;
mod figures;
#[path = "page/methods.rs"]
mod methods;
#[path = "page/notices.rs"]
mod notices;

use common::{curves, evaluation, input, write_thumbnails};
use serde_json::json;
use zeg_eval::page::{Format, ReportInput, write_report};
use zeg_eval::{EvalError, Evaluation, Metric, Protocol, Shard, Summary};

type Change = fn(&mut Evaluation);

fn html(input: &ReportInput) -> String {
    written(input, Format::Html).unwrap()
}

/// Returns the file content of a report in one format.
fn written(input: &ReportInput, format: Format) -> Result<String, EvalError> {
    let folder = tempfile::tempdir().unwrap();
    let files = write_report(input, folder.path(), &[format])?;
    Ok(std::fs::read_to_string(&files[0]).unwrap())
}

fn to_markdown(input: &ReportInput) -> Result<String, EvalError> {
    written(input, Format::Markdown)
}

fn to_csv(input: &ReportInput) -> Result<String, EvalError> {
    written(input, Format::Csv)
}

/// Parses CSV strictly by RFC 4180.
fn records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut field, mut quoted) =
        (Vec::new(), Vec::new(), String::new(), false);
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                field.push('"');
            }
            '"' => quoted = !quoted,
            ',' if !quoted => record.push(std::mem::take(&mut field)),
            '\r' if !quoted => {
                assert_eq!(letters.next(), Some('\n'));
                record.push(std::mem::take(&mut field));
                records.push(std::mem::take(&mut record));
            }
            letter => field.push(letter),
        }
    }
    assert!(
        !quoted && field.is_empty() && record.is_empty(),
        "the last line has no end"
    );
    records
}

/// Returns an evaluation of VOC's 1,449 official images, whose scores are comparable with published ones.
fn official(seed: u64) -> Evaluation {
    evaluation("voc20", 0..1449, seed)
}

/// Returns the text of the notices.
fn notices(evaluation: Evaluation) -> String {
    let text = to_markdown(&input("x", vec![evaluation])).unwrap();
    text.lines()
        .filter(|line| line.starts_with("> "))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn all_files_are_written_whole() {
    let folder = tempfile::tempdir().unwrap();
    let target = folder.path().join("a/b");
    let files = write_report(&input("x", vec![official(1)]), &target, &Format::ALL).unwrap();
    let names: Vec<_> = files
        .iter()
        .map(|file| file.file_name().unwrap().to_str().unwrap())
        .collect();
    assert_eq!(names, ["report.html", "report.md", "report.csv"]);
    assert_eq!(std::fs::read_dir(&target).unwrap().count(), 3);
    let page = std::fs::read_to_string(&files[0]).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>") && page.trim_end().ends_with("</html>"));
    // There is a folder at the path of the file.
    std::fs::create_dir(target.join("c")).unwrap();
    std::fs::create_dir(target.join("c/report.md")).unwrap();
    let error = write_report(
        &input("x", vec![official(1)]),
        &target.join("c"),
        &[Format::Markdown],
    )
    .unwrap_err();
    assert!(matches!(error, EvalError::Unwritable { .. }), "{error}");
    assert!(matches!(
        to_csv(&input("x", Vec::new())),
        Err(EvalError::Nothing)
    ));
}

#[test]
fn evaluations_of_different_benchmarks_make_no_report() {
    let changes: [(&str, Change); 4] = [
        ("benchmark.dataset", |e| {
            e.benchmark.dataset = "other".into();
        }),
        ("benchmark.split", |e| e.benchmark.split = "train".into()),
        ("metric", |e| e.metric = Metric::Dice),
        ("classes", |e| e.classes[3].unseen = true),
    ];
    for (name, change) in changes {
        let mut other = official(2);
        change(&mut other);
        let error = to_markdown(&input("x", vec![official(1), other])).unwrap_err();
        assert!(
            matches!(error, EvalError::Differs { field, .. } if field == name),
            "{name}: {error}"
        );
    }
    let fewer = vec![official(1), evaluation("voc20", 0..240, 2)];
    assert!(matches!(
        to_csv(&input("x", fewer)),
        Err(EvalError::Differs {
            field: "images",
            ..
        })
    ));
    let mut wrong = official(1);
    wrong.classes.pop();
    assert!(matches!(
        to_csv(&input("x", vec![wrong])),
        Err(EvalError::Classes { .. })
    ));
}

#[test]
fn only_what_was_measured_is_shown() {
    let mut least = evaluation("3", 0..2, 1);
    for class in &mut least.classes {
        class.unseen = false;
    }
    least.gallery.clear();
    let page = html(&input("least", vec![least.clone()]));
    for id in ["notices", "curves", "gallery", "difference"] {
        assert!(!page.contains(&format!("id=\"{id}\"")), "{id}");
    }
    for word in ["hIoU", "mIoU(S)", "unseen", "published"] {
        let body = page.split_once("</style>").unwrap().1;
        assert!(!body.contains(&format!(">{word}<")), "{word}");
    }
    let text = to_markdown(&input("least", vec![least.clone()])).unwrap();
    assert!(
        !text.contains("hIoU") && !text.contains("mIoU(U)"),
        "{text}"
    );

    least.metric = Metric::Dice;
    let text = to_markdown(&input("least", vec![least.clone()])).unwrap();
    assert!(
        text.contains("| method | mDice | mIoU | pAcc | source |"),
        "{text}"
    );
    assert!(
        text.contains("| class | Dice | IoU | Acc | share of pixels |"),
        "{text}"
    );
    let report = least.report().unwrap();
    let first = text.lines().find(|line| line.starts_with("- **")).unwrap();
    assert!(
        first.starts_with(&format!("- **mDice {:.2}**", 100.0 * report.mdice.unwrap())),
        "{first}"
    );

    let nothing = html(&input("nothing", vec![evaluation("3", 0..0, 1)]));
    assert!(!nothing.contains("id=\"headline\"") && !nothing.contains("id=\"confusion\""));
}

#[test]
fn texts_from_files_are_escaped() {
    let evil = "<script>alert(\"1\")</script>' onerror=\"x|y`";
    let mut run = evaluation("voc20", 0..6, 1);
    for class in &mut run.classes {
        class.name.push_str(evil);
    }
    run.method = evil.into();
    run.benchmark.title = evil.into();
    run.benchmark.split = evil.into();
    run.model.path = evil.into();
    run.model.sha256 = evil.into();
    run.templates = evil.into();
    run.program = evil.into();
    run.timing.machine = evil.into();
    run.inference = json!({evil: evil});
    for entry in &mut run.gallery {
        entry.id = evil.into();
    }
    let mut input = input(evil, vec![run]);
    input.runs[0].experiment = Some(evil.into());
    let page = html(&input);
    assert!(
        !page.contains("<script") && !page.contains("onerror=\"x"),
        "markup from a file"
    );
    let text = to_markdown(&input).unwrap();
    let outside = text.split("```").step_by(2).collect::<String>();
    assert!(!outside.contains("<script"), "{outside}");
    assert!(
        !outside.contains(" onerror=\"x|"),
        "a bar from a file divides a cell"
    );
}

#[test]
fn nothing_is_fetched() {
    let folder = tempfile::tempdir().unwrap();
    let mut input = input("x", vec![official(1)]);
    write_thumbnails(&input.runs[0].evaluation, folder.path());
    input.runs[0].folder = folder.path().into();
    input.runs[0].curves = curves(3000, 1);
    let page = html(&input);
    for attribute in ["src=\"", "href=\"", "url("] {
        for (at, _) in page.match_indices(attribute) {
            let value = &page[at + attribute.len()..];
            assert!(
                value.starts_with("data:image/") || value.starts_with('#'),
                "{}",
                &value[..60]
            );
        }
    }
    assert!(!page.contains("@import") && !page.contains("<link") && !page.contains("<script"));
    assert_eq!(page.matches("src=\"data:image/jpeg").count(), 6);
    assert_eq!(page.matches("src=\"data:image/png").count(), 18 + 1);
}

#[test]
fn invalid_thumbnails_are_replaced_by_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let mut input = input("x", vec![evaluation("voc20", 0..6, 1)]);
    let run = &mut input.runs[0];
    write_thumbnails(&run.evaluation, folder.path());
    run.folder = folder.path().into();
    let files: Vec<_> = run
        .evaluation
        .gallery
        .iter()
        .map(|entry| folder.path().join(&entry.image))
        .collect();
    std::fs::remove_file(&files[0]).unwrap();
    std::fs::write(&files[1], "<svg xmlns=\"http://www.w3.org/2000/svg\"/>").unwrap();
    std::fs::write(&files[2], b"\x89PNG\r\n\x1a\n").unwrap();
    std::fs::File::create(&files[3])
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    let page = html(&input);
    let missing: Vec<&str> = page
        .split("<p class=\"missing\">")
        .skip(1)
        .map(|rest| rest.split_once("</p>").unwrap().0)
        .collect();
    let reasons: Vec<&str> = missing
        .iter()
        .map(|text| text.split_once(' ').unwrap().1)
        .collect();
    assert_eq!(
        reasons,
        [
            "cannot be read",
            "is neither PNG nor JPEG",
            "is damaged",
            "cannot be read"
        ]
    );
}

#[test]
fn groups_of_many_classes_show_their_ends() {
    let page = html(&input("x", vec![evaluation("coco-stuff171", 0..4000, 1)]));
    assert_eq!(page.matches("136 more classes").count(), 1);
    let bars = page
        .matches("<td class=\"bar\" aria-hidden=\"true\">")
        .count();
    assert_eq!(bars, 171);
}
