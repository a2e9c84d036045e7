//! Tests the figures that show several models: bars of the unseen classes, and predictions side by side.

use image::{Rgb, RgbImage};
use zeg_eval::page::ReportInput;
use zeg_eval::{ClassShare, EvalError, SkippedImage};

use crate::common::{evaluation, input, write_thumbnails};
use crate::methods::other_method;
use crate::{html, to_markdown};

/// Returns the texts between a start and an end.
fn between<'a>(page: &'a str, start: &str, end: &str) -> Vec<&'a str> {
    let parts = page.split(start).skip(1);
    parts.map(|rest| rest.split_once(end).unwrap().0).collect()
}

/// A baseline, then ZegCLIP.
fn two_methods() -> ReportInput {
    input("x", vec![other_method(2), evaluation("voc20", 0..60, 1)])
}

#[test]
fn every_unseen_class_has_a_bar_of_every_model_in_the_order_of_the_command_line() {
    let input = two_methods();
    let page = html(&input);
    let [baseline, model] = [0, 1].map(|run: usize| input.runs[run].evaluation.report().unwrap());
    let classes = &input.runs[0].evaluation.classes;
    let unseen = classes.iter().enumerate().filter(|(_, class)| class.unseen);
    for (label, class) in unseen {
        let [a, b] = [&baseline, &model].map(|report| report.classes[label].iou.unwrap());
        let name = &class.name;
        let alt = format!(
            "aria-label=\"{name}: CLIP-RC {:.2}, ZegCLIP {:.2}\"",
            100.0 * a,
            100.0 * b
        );
        let (_, group) = page.split_once(&alt).unwrap_or_else(|| panic!("{alt}"));
        let bars = format!(
            "<rect class=\"r0\" y=\"1\" width=\"{:.1}\" height=\"8\"/><rect class=\"r1\" y=\"11\" width=\"{:.1}\" height=\"8\"/>",
            1000.0 * a,
            1000.0 * b
        );
        assert!(
            group.split_once("</svg>").unwrap().0.contains(&bars),
            "{name}"
        );
    }
    assert_eq!(page.matches("<rect ").count(), 5 * 2);
    let legend = "<i class=\"r0\"></i>1 <bdi>CLIP-RC</bdi></span> <span><i class=\"r1\"></i>2 <bdi>ZegCLIP</bdi>";
    assert!(page.contains(legend));
    // Seeds of one configuration have a bar each as well.
    let seeds = (1..4).map(|seed| evaluation("voc20", 0..60, seed));
    let page = html(&crate::common::input("x", seeds.collect()));
    assert_eq!(page.matches("<rect ").count(), 5 * 3);
}

#[test]
fn one_model_or_no_unseen_class_gives_no_bars_of_models() {
    let one = html(&input("x", vec![evaluation("voc20", 0..60, 1)]));
    let mut seen = two_methods();
    for run in &mut seen.runs {
        for class in &mut run.evaluation.classes {
            class.unseen = false;
        }
    }
    for page in [one, html(&seen)] {
        assert!(!page.contains("<rect ") && !page.contains("class=\"bar-group\""));
    }
}

/// Two methods whose galleries have the same two images of a seen and an unseen class, with their thumbnails.
fn two_galleries(folder: &std::path::Path) -> ReportInput {
    let mut input = two_methods();
    let mut entries = input.runs[0].evaluation.gallery[..2].to_vec();
    for entry in &mut entries {
        entry.classes = vec![
            ClassShare {
                class: 0,
                truth: 0.75,
                prediction: 0.5,
            },
            ClassShare {
                class: 16,
                truth: 0.25,
                prediction: 0.5,
            },
        ];
    }
    for (number, run) in input.runs.iter_mut().enumerate() {
        run.folder = folder.join(number.to_string());
        run.evaluation.gallery.clone_from(&entries);
        for entry in &mut run.evaluation.gallery {
            entry.score = 0.25 * (number + 1) as f64;
        }
        write_thumbnails(&run.evaluation, &run.folder);
        for entry in &run.evaluation.gallery {
            let colour = Rgb([200, 100 * number as u8, 0]);
            let prediction = RgbImage::from_pixel(8, 6, colour);
            prediction.save(run.folder.join(&entry.prediction)).unwrap();
        }
    }
    let [aeroplane, .., sheep] = &mut input.runs[1].evaluation.gallery[0].classes[..] else {
        panic!("two classes");
    };
    (aeroplane.prediction, sheep.prediction) = (1.0, 0.0);
    input
}

#[test]
fn image_baseline_model_and_truth_stand_side_by_side() {
    let folder = tempfile::tempdir().unwrap();
    let input = two_galleries(folder.path());
    let page = html(&input);
    let items = between(&page, "<article class=\"card beside\">", "</article>");
    assert_eq!(items.len(), 2);
    let captions = between(items[0], "<figcaption>", "</figcaption>");
    assert_eq!(
        captions,
        [
            "<bdi>image</bdi>",
            "<bdi>CLIP-RC</bdi> mIoU 25.00",
            "<bdi>ZegCLIP</bdi> mIoU 50.00",
            "<bdi>ground truth</bdi>"
        ]
    );
    let files = between(items[0], "<img src=\"", "\"");
    assert!(files.len() == 4 && files[1] != files[2], "{}", files.len());
    let id = &input.runs[0].evaluation.gallery[0].id;
    let classes = &input.runs[0].evaluation.classes;
    let (seen, unseen) = (&classes[0].name, &classes[16].name);
    let alt = format!("alt=\"Classes of {id} predicted by ZegCLIP: {seen}\"");
    assert!(items[0].contains(&alt), "{alt}");
    // The names are marked as seen and unseen, with the shares in the truth and in both predictions.
    for (kind, name, shares) in [
        ("seen", seen, ["75\u{a0}%", "50\u{a0}%, 100\u{a0}%"]),
        ("unseen", unseen, ["25\u{a0}%", "50\u{a0}%, 0.0\u{a0}%"]),
    ] {
        let (_, rest) = items[0]
            .split_once(&format!("<bdi class=\"{kind}\">{name}</bdi>"))
            .unwrap();
        let entry = rest.split_once("</li>").unwrap().0;
        assert!(shares.iter().all(|share| entry.contains(share)), "{entry}");
    }
}

#[test]
fn chosen_images_are_shown_in_their_order() {
    let folder = tempfile::tempdir().unwrap();
    let mut input = two_galleries(folder.path());
    let gallery = &input.runs[0].evaluation.gallery;
    let [first, second] = [0, 1].map(|entry: usize| gallery[entry].id.clone());
    let shown = |input: &ReportInput| -> Vec<String> {
        let page = html(input);
        let ids = between(
            &page,
            "<article class=\"card beside\">\n<h4><bdi>",
            "</bdi>",
        );
        ids.into_iter().map(str::to_owned).collect()
    };
    assert_eq!(shown(&input), [first.clone(), second.clone()]);
    input.images = vec![second.clone()];
    assert_eq!(shown(&input), std::slice::from_ref(&second));
    input.images = vec![second.clone(), first.clone()];
    assert_eq!(shown(&input), [second, first.clone()]);
    // An image of one gallery alone cannot be compared.
    input.runs[1].evaluation.gallery.remove(0);
    let error = to_markdown(&input).unwrap_err();
    assert!(
        matches!(&error, EvalError::NotShared { id } if *id == first),
        "{error}"
    );
    input.images.clear();
    input.runs[1].evaluation.gallery[0].id = "another".into();
    assert!(shown(&input).is_empty());
    assert!(html(&input).contains("No image is in the galleries of several evaluations"));
}

#[test]
fn texts_of_several_models_are_escaped() {
    let folder = tempfile::tempdir().unwrap();
    let mut input = two_galleries(folder.path());
    let evil = "\"><script>alert(1)</script>";
    for run in &mut input.runs {
        let evaluation = &mut run.evaluation;
        evaluation.method.push_str(evil);
        for class in &mut evaluation.classes {
            class.name.push_str(evil);
        }
        for entry in &mut evaluation.gallery {
            entry.id.push_str(evil);
        }
        evaluation.skipped = vec![SkippedImage {
            id: evil.into(),
            reason: evil.into(),
        }];
    }
    let page = html(&input);
    assert!(page.contains("class=\"card beside\"") && page.contains("<rect "));
    assert!(!page.contains("<script"), "markup from a file");
    let text = to_markdown(&input).unwrap();
    let outside = text.split("```").step_by(2).collect::<String>();
    assert!(!outside.contains("<script"), "{outside}");
}

#[test]
fn skipped_images_are_named_with_their_reasons() {
    let skipped = |id: &str| SkippedImage {
        id: id.into(),
        reason: format!("{id}.jpg ends too early"),
    };
    let mut one = evaluation("voc20", 0..60, 1);
    assert!(!html(&input("x", vec![one.clone()])).contains("could not be read"));
    one.skipped = vec![skipped("a"), skipped("b")];
    let report = input("x", vec![one.clone()]);
    for text in [html(&report), to_markdown(&report).unwrap()] {
        let notice = "2 images could not be read and are not among the scored ones: a, b.";
        assert!(text.contains(notice), "{text}");
        assert!(text.contains("b.jpg ends too early"), "{text}");
    }
    // Scores over different images do not stand in one page.
    let mut other = other_method(2);
    other.skipped = vec![skipped("a"), skipped("c")];
    let error = to_markdown(&input("x", vec![one.clone(), other.clone()])).unwrap_err();
    assert!(error.to_string().contains("skipped images"), "{error}");
    other.skipped.clone_from(&one.skipped);
    let text = to_markdown(&input("x", vec![one.clone(), other])).unwrap();
    assert!(text.contains("2 images could not be read"), "{text}");
    one.skipped = (0..120)
        .map(|number| skipped(&format!("n{number}")))
        .collect();
    let text = to_markdown(&input("x", vec![one])).unwrap();
    assert!(text.contains(": n0, n1, n2, n3, n4, …."), "{text}");
    assert!(text.contains("n99.jpg") && !text.contains("n100.jpg"));
    assert!(text.contains("20 more, which the record names"), "{text}");
}
