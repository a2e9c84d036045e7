//! Tests the text of reports: what they contain, what they leave out, and that texts from files are escaped.

// the configured exception for tests does not reach their helper functions
#![allow(clippy::unwrap_used)]

mod common;
mod figures;

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

/// A second method on the same images as `evaluation("voc20", 0..60, 1)`.
fn other_method(seed: u64) -> Evaluation {
    let mut other = evaluation("voc20", 0..60, seed);
    other.method = "CLIP-RC".into();
    other
}

/// Checks that a report of these evaluations shows no mean and no deviation in any format.
fn assert_nothing_is_averaged(input: &ReportInput) {
    let (page, text, csv) = (
        html(input),
        to_markdown(input).unwrap(),
        to_csv(input).unwrap(),
    );
    for text in [&page, &text] {
        for sign in [
            "±",
            "Mean of",
            "id=\"headline\"",
            "Run 1",
            "Pixels are summed",
        ] {
            assert!(!text.contains(sign), "{sign}");
        }
        assert!(text.contains("No mean is given"), "{text}");
    }
    assert!(!csv.contains("mean,"), "{csv}");
}

#[test]
fn different_methods_stand_side_by_side_under_their_names() {
    let input = input("x", vec![evaluation("voc20", 0..60, 1), other_method(2)]);
    assert_nothing_is_averaged(&input);
    let text = to_markdown(&input).unwrap();
    assert!(
        text.contains("because the evaluations differ in method."),
        "{text}"
    );
    for run in &input.runs {
        let method = &run.evaluation.method;
        let report = run.evaluation.report().unwrap();
        let row = text
            .lines()
            .find(|line| line.starts_with(&format!("| **{method}** |")))
            .unwrap();
        let hiou = format!("{:.2}", 100.0 * report.hiou.unwrap());
        assert!(row.contains(&hiou), "{row}");
    }
    let iou = |run: usize, class: usize| {
        let report = input.runs[run].evaluation.report().unwrap();
        format!("{:.2}", 100.0 * report.classes[class].iou.unwrap())
    };
    assert!(
        text.contains("| class | ZegCLIP | CLIP-RC | share of pixels |"),
        "{text}"
    );
    let row = format!("| sheep | {} | {} |", iou(0, 16), iou(1, 16));
    assert!(text.contains(&row), "{row}: {text}");
    let csv = to_csv(&input).unwrap();
    assert!(csv.contains("\r\nZegCLIP,summary,") && csv.contains("\r\nCLIP-RC,summary,"));
}

/// Two seeds of one method beside another method: the mean is over the seeds, and nothing is over both methods.
#[test]
fn seeds_of_one_method_have_a_mean_beside_other_methods() {
    let seeds = [evaluation("voc20", 0..60, 1), evaluation("voc20", 0..60, 2)];
    let mean = Summary::of(&seeds).unwrap().hiou.unwrap();
    let input = input("x", [&seeds[..], &[other_method(3)]].concat());
    let text = to_markdown(&input).unwrap();
    let rows: Vec<&str> = text
        .lines()
        .filter(|line| line.starts_with("| **Mean of"))
        .collect();
    assert_eq!(rows.len(), 1, "{text}");
    assert!(
        rows[0].starts_with("| **Mean of 2 runs: ZegCLIP** |"),
        "{text}"
    );
    let shown = mean.percent().replace("± ", "±\u{a0}");
    assert!(rows[0].contains(&shown), "{}", rows[0]);
    assert!(
        text.contains("Means are over seeds of one configuration."),
        "{text}"
    );
    let page = html(&input);
    assert!(page.contains("Mean of 2 runs: ZegCLIP") && !page.contains("Pixels are summed"));
}

#[test]
fn confusion_matrices_are_not_summed_over_methods() {
    let runs = vec![evaluation("voc20", 0..60, 1), other_method(2)];
    let alone: Vec<String> = runs
        .iter()
        .map(|run| html(&input("x", vec![run.clone()])))
        .collect();
    let page = html(&input("x", runs));
    let matrix = |page: &str| -> Vec<String> {
        let images = page.split("<div class=\"plot\"><img src=\"").skip(1);
        images
            .map(|rest| rest.split_once('"').unwrap().0.to_owned())
            .collect()
    };
    assert_eq!(
        matrix(&page),
        [matrix(&alone[0]), matrix(&alone[1])].concat()
    );
    // Seeds of one configuration are summed.
    let seeds = (1..3)
        .map(|seed| evaluation("voc20", 0..60, seed))
        .collect();
    let page = html(&input("x", seeds));
    assert_eq!(matrix(&page).len(), 1);
    assert!(page.contains("Pixels are summed over all runs."));
}

#[test]
fn only_seeds_of_one_configuration_are_averaged() {
    let runs = || vec![evaluation("voc20", 0..60, 1), evaluation("voc20", 0..60, 2)];
    let averaged = to_markdown(&input("x", runs())).unwrap();
    assert!(averaged.contains("| **Mean of 2 runs** |"), "{averaged}");
    let changes: [(&str, Change); 8] = [
        ("differ in protocol", |e| {
            e.protocol = Protocol::FullySupervised;
        }),
        ("differ in training data set", |e| e.trained_on = None),
        ("differ in prompt templates", |e| {
            e.templates = "multiple".into();
        }),
        ("differ in inference settings", |e| {
            e.inference["seen-offset"] = json!(0.3);
        }),
        ("differ in test-time scales", |e| e.scales = vec![0.5]),
        ("differ in test-time flip", |e| e.flip = true),
        ("differ in training step", |e| e.model.step = Some(10_000)),
        ("not of different seeds", |e| e.model.seed = None),
    ];
    for (reason, change) in changes {
        let mut runs = runs();
        change(&mut runs[1]);
        let mean = Summary::of(&runs);
        assert!(
            matches!(
                mean,
                Err(EvalError::Differs { .. } | EvalError::NotSeeds { .. })
            ),
            "{reason}"
        );
        let input = input("x", runs);
        assert_nothing_is_averaged(&input);
        let text = to_markdown(&input).unwrap();
        assert!(text.contains(reason), "{reason}: {text}");
    }
    // one seed of two different trainings
    let mut same_seed = runs();
    same_seed[1].model.seed = Some(1);
    assert!(matches!(
        Summary::of(&same_seed),
        Err(EvalError::NotSeeds { .. })
    ));
    assert_nothing_is_averaged(&input("x", same_seed));
    // another learning rate, which only the experiment tells
    let experiment =
        |seed: u64, rate: f64| Some(format!("[training]\nseed = {seed}\nrate = {rate}\n"));
    let mut experiments = input("x", runs());
    experiments.runs[0].experiment = experiment(1, 0.1);
    experiments.runs[1].experiment = experiment(2, 0.1);
    assert!(
        to_markdown(&experiments)
            .unwrap()
            .contains("Mean of 2 runs")
    );
    experiments.runs[1].experiment = experiment(2, 0.2);
    assert_nothing_is_averaged(&experiments);
}

#[test]
fn evaluations_of_one_method_are_named_after_their_folders() {
    let names = |folders: [&str; 3]| -> Vec<String> {
        let mut runs = vec![evaluation("voc20", 0..60, 1); 2];
        runs.push(other_method(3));
        let mut input = input("x", runs);
        for (run, folder) in input.runs.iter_mut().zip(folders) {
            run.folder = folder.into();
        }
        let csv = to_csv(&input).unwrap();
        let summaries = records(&csv)
            .into_iter()
            .filter(|record| record[1] == "summary" && record[4] == "hIoU");
        summaries.map(|record| record[0].clone()).collect()
    };
    assert_eq!(
        names(["runs/a/scores", "runs/b/scores", "runs/c/scores"]),
        ["ZegCLIP (a)", "ZegCLIP (b)", "CLIP-RC"]
    );
    assert_eq!(
        names(["scores/offset-0", "scores/offset-0.1", "other"]),
        [
            "ZegCLIP (scores/offset-0)",
            "ZegCLIP (scores/offset-0.1)",
            "CLIP-RC"
        ]
    );
    assert_eq!(
        names(["scores"; 3]),
        ["ZegCLIP (scores), 1", "ZegCLIP (scores), 2", "CLIP-RC"]
    );
}

#[test]
fn a_training_free_method_stands_beside_a_trained_one() {
    let mut clip = evaluation("voc20", 0..60, 2);
    clip.method = "CLIP".into();
    clip.protocol = Protocol::TrainingFree;
    clip.trained_on = None;
    clip.model.seed = None;
    clip.model.step = None;
    for class in &mut clip.classes {
        class.unseen = false;
    }
    for runs in [
        vec![evaluation("voc20", 0..60, 1), clip.clone()],
        vec![clip.clone(), evaluation("voc20", 0..60, 1)],
    ] {
        let input = input("x", runs);
        assert_nothing_is_averaged(&input);
        let text = to_markdown(&input).unwrap();
        assert!(
            text.contains("| method | pAcc | mIoU(S) | mIoU(U) | hIoU | mIoU | source |"),
            "{text}"
        );
        let row = text
            .lines()
            .find(|line| line.starts_with("| **CLIP** |"))
            .unwrap();
        assert!(
            row.contains(" | – | – | – | ") && row.contains("training-free"),
            "{row}"
        );
        assert!(text.contains("follow different protocols: their scores are not comparable"));
        assert!(
            text.contains("## Unseen classes") && !text.contains("published: "),
            "{text}"
        );
        assert!(html(&input).contains("training-free"));
    }
}

#[test]
fn a_full_official_run_needs_no_notice() {
    assert_eq!(notices(official(1)), "");
    let text = to_markdown(&input("x", vec![official(1)])).unwrap();
    assert!(
        text.contains("Difference from the published ZegCLIP"),
        "{text}"
    );
    assert!(
        text.contains(
            "| ZegCLIP | 94.6 | 91.9 | 77.8 | 84.3 | published: ZegCLIP paper (CVPR 2023) |"
        ),
        "{text}"
    );
    assert!(!text.contains("ZegCLIP+ST"), "rows of another protocol");
}

#[test]
fn notices_name_what_makes_scores_incomparable() {
    let subset = notices(evaluation("voc20", 0..240, 1));
    assert_eq!(
        subset,
        "> **Note:** Only 240 of 1,449 official images were scored: not comparable with the published rows."
    );
    let text = to_markdown(&input("x", vec![evaluation("voc20", 0..240, 1)])).unwrap();
    assert!(!text.contains("Difference from the published"), "{text}");

    let changed = |change: Change| {
        let mut evaluation = official(1);
        change(&mut evaluation);
        notices(evaluation)
    };
    let cases: [(Change, &str); 10] = [
        (
            |e| e.shard = Some(Shard { index: 2, count: 4 }),
            "This is shard 2 of 4",
        ),
        (
            |e| e.scales = vec![0.75, 1.0],
            "scales 0.75, 1 instead of 1",
        ),
        (|e| e.flip = true, "test-time flip"),
        (
            |e| e.inference["crop"] = json!(640),
            "crop 640 instead of 512",
        ),
        (
            |e| e.inference["seen-offset"] = json!(0),
            "seen-offset 0 instead of 0.1",
        ),
        (
            |e| e.protocol = Protocol::FullySupervised,
            "seen-offset 0.1 instead of 0",
        ),
        (
            |e| e.inference["threshold"] = json!(0.5),
            "a threshold leaves pixels unlabelled",
        ),
        (|e| e.benchmark.split = "train".into(), "split \"train\""),
        (
            |e| e.classes[15].unseen = false,
            "4 are unseen, which are not the 5 of the published split",
        ),
        (
            |e| {
                e.classes[15].unseen = false;
                e.classes[0].unseen = true;
            },
            "5 are unseen, which are not the 5 of the published split",
        ),
    ];
    for (change, part) in cases {
        let notices = changed(change);
        assert!(notices.contains(part), "{part}: {notices:?}");
    }
    // Without published rows only the number of images matters.
    let mut medical = evaluation("3", 0..5, 1);
    medical.scales = vec![2.0];
    assert_eq!(notices(medical), "");
    assert!(notices(evaluation("voc20", 0..0, 1)).contains("No image was scored"));
}

#[test]
fn published_rows_fit_the_protocol() {
    let rows = |protocol: Protocol, trained_on: Option<&str>, list: &str| -> Vec<String> {
        let mut evaluation = evaluation(list, 0..20, 1);
        evaluation.protocol = protocol;
        evaluation.trained_on = trained_on.map(str::to_owned);
        let text = to_markdown(&input("x", vec![evaluation])).unwrap();
        let rows = text.lines().filter(|line| line.contains("| published: "));
        rows.map(|line| {
            line.split(" | ")
                .next()
                .unwrap()
                .trim_start_matches("| ")
                .to_owned()
        })
        .collect()
    };
    assert_eq!(
        rows(Protocol::FullySupervised, None, "voc20"),
        ["ZegCLIP", "CLIP-RC"]
    );
    assert_eq!(
        rows(Protocol::TransductiveUnseen, None, "pascal-context60"),
        ["MaskCLIP+", "ZegCLIP+ST"]
    );
    assert_eq!(
        rows(Protocol::CrossDataset, Some("coco-stuff164k"), "voc20"),
        ["ZegFormer", "ZegCLIP", "†ZegCLIP+ST"]
    );
    assert!(rows(Protocol::CrossDataset, Some("ade20k"), "voc20").is_empty());
    assert!(rows(Protocol::TrainingFree, None, "voc20").is_empty());
    // The table shows the hIoU computed from the row's seen and unseen mIoU, not the printed one.
    let mut strict = evaluation("coco-stuff171", 0..20, 1);
    strict.protocol = Protocol::Transductive;
    let text = to_markdown(&input("x", vec![strict])).unwrap();
    assert!(
        text.contains("| STRICT | – | 35.3 | 30.3 | 32.6 \\* |"),
        "{text}"
    );
    assert!(
        text.contains("STRICT: the published hIoU is 34.8"),
        "{text}"
    );
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

#[test]
fn csv_holds_every_number() {
    let mut runs: Vec<Evaluation> = (1..4)
        .map(|seed| evaluation("voc20", 0..30, seed))
        .collect();
    for run in &mut runs {
        run.classes[3].name = "boat, \"ship\"\r\nor ferry".into();
    }
    let reports: Vec<_> = runs.iter().map(|run| run.report().unwrap()).collect();
    let records = records(&to_csv(&input("x", runs)).unwrap());
    assert_eq!(
        records[0].join(","),
        "run,scope,class,split,metric,value,std,n"
    );
    assert!(records.iter().all(|record| record.len() == 8));
    let find = |run: &str, class: &str, metric: &str| -> Vec<String> {
        let found: Vec<_> = records
            .iter()
            .filter(|record| record[0] == run && record[2] == class && record[4] == metric)
            .collect();
        assert_eq!(found.len(), 1, "{run} {class} {metric}");
        found[0].clone()
    };
    // Every number is read back exactly.
    for (run, report) in reports.iter().enumerate() {
        let run = (run + 1).to_string();
        let hiou: f64 = find(&run, "", "hIoU")[5].parse().unwrap();
        assert_eq!(hiou.to_bits(), report.hiou.unwrap().to_bits());
        let boat = find(&run, "boat, \"ship\"\r\nor ferry", "IoU");
        assert_eq!(
            boat[5].parse::<f64>().unwrap().to_bits(),
            report.classes[3].iou.unwrap().to_bits()
        );
        assert_eq!(boat[3], "seen");
        assert_eq!(
            find(&run, "sheep", "pixels")[5],
            report.classes[16].pixels.to_string()
        );
    }
    let mean = find("mean", "", "mIoU(U)");
    let expected = reports
        .iter()
        .map(|report| report.miou_unseen.unwrap())
        .sum::<f64>()
        / 3.0;
    assert!((mean[5].parse::<f64>().unwrap() - expected).abs() < 1e-15);
    assert_eq!((mean[6].is_empty(), mean[7].as_str()), (false, "3"));
    // The file has a header, and summaries and classes of three runs and of their mean.
    assert_eq!(records.len(), 1 + 3 * (7 + 20 * 4) + 7 + 20 * 3);
}

#[test]
fn an_undefined_number_is_an_empty_field() {
    let records = records(&to_csv(&input("x", vec![evaluation("voc20", 0..0, 1)])).unwrap());
    assert_eq!(records[1], ["1", "summary", "", "", "pAcc", "", "", "0"]);
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
