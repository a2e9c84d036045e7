//! Tests the page in a browser. They need Chromium; without it they print a message and pass.
//!
//! With `ZEG_LOOK=FOLDER` the pages are kept in this folder.

// the configured exception for tests does not reach their helper functions
#![allow(clippy::unwrap_used)]

mod common;

use std::path::{Path, PathBuf};
use std::process::Command;

use common::{curves, evaluation, input, write_thumbnails};
use zeg_eval::page::{Format, ReportInput, write_report};
use zeg_eval::{Metric, Protocol};

/// Script that measures the page and writes the result as JSON into a new element. The policy of the page forbids
/// scripts, so it is removed from the measured copy.
const PROBE: &str = r##"<script>
window.addEventListener("load", () => {
  const count = selector => document.querySelectorAll(selector).length;
  const texts = selector => [...document.querySelectorAll(selector)].map(element => element.textContent);
  const luminance = colour => {
    const [r, g, b] = colour.match(/[\d.]+/g).map(value => value / 255)
      .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (!colour.endsWith(", 0)")) return colour;
    }
    return "rgb(255, 255, 255)";
  };
  let contrast = 99, palest = "";
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || element.matches("script, title, style")) continue;
    const [a, b] = [getComputedStyle(element).color, ground(element)].map(luminance);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < contrast) [contrast, palest] = [ratio, element.className + ": " + element.textContent];
  }
  const clipped = element => element.parentElement
    && (getComputedStyle(element.parentElement).overflowX !== "visible" || clipped(element.parentElement));
  const beyond = [...document.querySelectorAll("body *")].filter(element => !clipped(element)
    && element.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(element => element.outerHTML.slice(0, 80));
  const answer = {
    sections: [...document.querySelectorAll("section, #notices")].map(element => element.id),
    width: document.documentElement.scrollWidth, window: document.documentElement.clientWidth, beyond,
    headline: texts("#headline dt"),
    own: count(".own tr"), published: count(".published tr:not(.source)"), sources: count(".published .source"),
    bars: count("td.bar > i"), seen: count("[data-kind=seen] td.bar > i"), unseen: count("[data-kind=unseen] td.bar > i"),
    folded: count("details td.bar > i"), pairs: count(".pairs li"), sides: count(".sides tbody tr"),
    curves: [...document.querySelectorAll("[data-curve]")].map(element => element.dataset.curve), paths: count("svg path"),
    rects: count("svg rect"), compared: count(".compared figure"),
    shortest: Math.min(...[...document.querySelectorAll(".bar-group svg")].map(svg => svg.getBoundingClientRect().width)),
    items: count(".item"), panels: count(".panels figure"),
    broken: [...document.images].filter(image => !image.naturalWidth).length,
    silent: count("img:not([alt]), img[alt=''], svg:not([aria-label])"),
    headless: [...document.querySelectorAll("table")].filter(table => !table.querySelector("th[scope]")).length,
    nameless: [...document.querySelectorAll("section")].filter(section =>
      !document.getElementById(section.getAttribute("aria-labelledby"))?.textContent.trim()).length,
    twice: [...document.querySelectorAll("[id]")].map(element => element.id).filter((id, at, all) => all.indexOf(id) !== at),
    hidden: [...document.querySelectorAll("#results .scroll")].filter(box => box.scrollWidth > box.clientWidth).length,
    longest: Math.max(0, ...[...document.querySelectorAll("td.bar > i")].map(bar => bar.getBoundingClientRect().width)),
    contrast, palest, matrix: document.querySelector(".plot img")?.naturalWidth ?? 0,
    fetched: performance.getEntriesByType("resource").map(entry => entry.name).filter(name => !name.startsWith("data:")),
  };
  const place = document.createElement("pre");
  place.id = "answer";
  place.textContent = "<<<" + JSON.stringify(answer) + ">>>";
  document.body.append(place);
});
</script>"##;

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let found = std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .find(|file| file.is_file());
    if found.is_none() {
        println!("skipped: no Chromium in PATH");
    }
    found
}

#[derive(Clone, Copy)]
enum Screen {
    Desktop,
    /// 390 pixels wide; browser windows cannot be so narrow, so the page is shown in a frame.
    Phone,
}

#[derive(Clone, Copy)]
enum Scheme {
    Light,
    Dark,
}

/// Measures a page in the browser and returns the result.
fn ask(browser: &Path, page: &Path, screen: Screen, scheme: Scheme) -> serde_json::Value {
    let text = std::fs::read_to_string(page).unwrap();
    let policy = text.find("<meta http-equiv").unwrap();
    let end = policy + text[policy..].find('>').unwrap() + 1;
    let copy = format!("{}{}{PROBE}", &text[..policy], &text[end..]);
    let measured = page.with_file_name("measured.html");
    std::fs::write(&measured, copy).unwrap();
    let opened = match screen {
        Screen::Desktop => measured,
        Screen::Phone => {
            let frame = page.with_file_name("frame.html");
            let script = "const f = document.querySelector('iframe'); const t = setInterval(() => { \
                const a = f.contentDocument.getElementById('answer'); \
                if (a) { clearInterval(t); document.body.append(a.textContent); } }, 50);";
            let html = format!(
                "<body><iframe src=\"measured.html\" style=\"border:0;width:390px;height:844px\"></iframe><script>{script}</script>"
            );
            std::fs::write(&frame, html).unwrap();
            frame
        }
    };
    let scheme = match scheme {
        Scheme::Dark => 0,
        Scheme::Light => 1,
    };
    let home = tempfile::tempdir().unwrap();
    let output = Command::new(browser)
        .args([
            "--headless",
            "--no-sandbox",
            "--disable-gpu",
            "--allow-file-access-from-files",
        ])
        .args([
            "--dump-dom",
            "--window-size=1280,900",
            "--virtual-time-budget=20000",
        ])
        .arg(format!("--blink-settings=preferredColorScheme={scheme}"))
        .arg(format!("--user-data-dir={}", home.path().display()))
        .arg(format!("file://{}", opened.display()))
        .output()
        .unwrap();
    let dom = String::from_utf8_lossy(&output.stdout);
    let answer = dom
        .rsplit_once("&lt;&lt;&lt;")
        .unwrap_or_else(|| panic!("no answer: {dom}"))
        .1;
    let json = answer.split_once("&gt;&gt;&gt;").unwrap().0;
    let json = json
        .replace("&lt;", "<")
        .replace("&gt;", ">")
        .replace("&nbsp;", " ")
        .replace("&amp;", "&");
    serde_json::from_str(&json).unwrap_or_else(|error| panic!("{error}: {json}"))
}

/// Writes a page, checks what holds for every page, and calls `examine` with the result.
fn check(name: &str, input: &ReportInput, examine: impl Fn(&serde_json::Value)) {
    let Some(browser) = browser() else { return };
    let temporary = tempfile::tempdir().unwrap();
    let folder = match std::env::var_os("ZEG_LOOK") {
        Some(folder) => std::path::absolute(folder).unwrap().join(name),
        None => temporary.path().to_path_buf(),
    };
    let files = write_report(input, &folder, &Format::ALL).unwrap();
    for (screen, scheme, width) in [
        (Screen::Desktop, Scheme::Light, 1280),
        (Screen::Phone, Scheme::Dark, 390),
    ] {
        let answer = ask(&browser, &files[0], screen, scheme);
        assert_eq!(answer["width"], answer["window"], "{name} scrolls sideways");
        assert!(answer["window"].as_u64().unwrap() <= width, "{answer}");
        assert_eq!(answer["beyond"], serde_json::json!([]), "{name}");
        assert_eq!(answer["fetched"], serde_json::json!([]), "{name} fetches");
        for fault in ["broken", "silent", "headless", "nameless"] {
            assert_eq!(answer[fault], 0, "{name}: {fault}: {answer}");
        }
        assert_eq!(answer["twice"], serde_json::json!([]), "{name}: ids");
        let contrast = answer["contrast"].as_f64().unwrap();
        assert!(
            contrast >= 4.5,
            "{name}: {contrast} at {}",
            answer["palest"]
        );
        assert!(
            answer["bars"] == 0 || answer["longest"].as_f64().unwrap() > 30.0,
            "{name}: no bars: {answer}"
        );
        examine(&answer);
    }
}

/// Returns three seeds with all optional parts: thumbnails, logs and experiments.
fn everything(folder: &Path) -> ReportInput {
    let mut input = input(
        "ZegCLIP on VOC, three seeds",
        (1..4)
            .map(|seed| evaluation("voc20", 0..240, seed))
            .collect(),
    );
    for (seed, run) in input.runs.iter_mut().enumerate() {
        run.folder = folder.join(format!("run{seed}"));
        write_thumbnails(&run.evaluation, &run.folder);
        run.curves = curves(20_000, 100 + 77 * seed as u64);
        run.experiment = Some("# ZegCLIP\n[data]\ndataset = \"voc12\"\n".into());
    }
    input
}

#[test]
fn a_report_of_everything_has_all_its_parts() {
    let folder = tempfile::tempdir().unwrap();
    check("everything", &everything(folder.path()), |answer| {
        let sections = [
            "notices",
            "headline",
            "results",
            "classes",
            "confusion",
            "curves",
            "gallery",
            "making",
        ];
        assert_eq!(answer["sections"], serde_json::json!(sections));
        assert_eq!(
            answer["headline"],
            serde_json::json!(["hIoU", "mIoU(S)", "mIoU(U)", "pAcc", "mIoU"])
        );
        // The table has three runs and their mean, and nine published rows of two publications.
        assert_eq!(
            (&answer["own"], &answer["published"], &answer["sources"]),
            (&4.into(), &9.into(), &2.into())
        );
        assert_eq!(
            (&answer["bars"], &answer["seen"], &answer["unseen"]),
            (&20.into(), &15.into(), &5.into())
        );
        assert_eq!(
            (&answer["pairs"], &answer["sides"]),
            (&15.into(), &2.into())
        );
        assert_eq!(answer["matrix"], 20);
        assert_eq!(
            answer["curves"],
            serde_json::json!(["loss", "dice", "focal", "lr"])
        );
        // Every chart has one line per run, and a smoothed line if the values are noisy.
        assert_eq!(answer["paths"], 4 * 3 + 3 * 3);
        assert_eq!(
            (&answer["items"], &answer["panels"]),
            (&18.into(), &72.into())
        );
    });
}

#[test]
fn several_models_stand_side_by_side_on_every_screen() {
    let folder = tempfile::tempdir().unwrap();
    let mut input = everything(folder.path());
    let gallery = input.runs[0].evaluation.gallery.clone();
    let methods = ["CLIP", "CLIP-RC", "ZegCLIP"];
    for (run, method) in input.runs.iter_mut().zip(methods) {
        run.evaluation.method = method.into();
        run.evaluation.gallery.clone_from(&gallery);
        write_thumbnails(&run.evaluation, &run.folder);
    }
    check("models", &input, |answer| {
        // Five unseen classes; six images, each with the image, three predictions and the ground truth.
        assert_eq!(
            (&answer["rects"], &answer["compared"]),
            (&15.into(), &30.into())
        );
        assert!(answer["shortest"].as_f64().unwrap() > 200.0, "{answer}");
    });
}

#[test]
fn a_minimal_report_has_no_empty_parts() {
    let mut least = evaluation("3", 0..2, 1);
    least.gallery.clear();
    least.protocol = Protocol::OpenVocabulary;
    for class in &mut least.classes {
        class.unseen = false;
    }
    check("least", &input("Least", vec![least]), |answer| {
        let sections = ["headline", "results", "classes", "confusion", "making"];
        assert_eq!(answer["sections"], serde_json::json!(sections));
        assert_eq!(
            answer["headline"],
            serde_json::json!(["mIoU", "pAcc", "mAcc"])
        );
        assert_eq!(
            (&answer["own"], &answer["published"], &answer["sides"]),
            (&1.into(), &0.into(), &0.into())
        );
        assert_eq!(answer["bars"], 3);
    });
    check(
        "nothing",
        &input("Nothing", vec![evaluation("3", 0..0, 1)]),
        |answer| {
            assert_eq!(
                answer["sections"],
                serde_json::json!(["notices", "results", "classes", "making"])
            );
            assert_eq!(answer["bars"], 0);
        },
    );
}

#[test]
fn many_classes_stay_readable() {
    let mut coco = evaluation("coco-stuff171", 0..5000, 1);
    coco.gallery.clear();
    check("coco", &input("COCO-Stuff", vec![coco]), |answer| {
        assert_eq!(
            (&answer["bars"], &answer["folded"]),
            (&171.into(), &136.into())
        );
        assert_eq!(
            (&answer["own"], &answer["published"]),
            (&1.into(), &8.into())
        );
        assert_eq!(answer["matrix"], 171);
    });
    let mut huge = evaluation("847", 0..2000, 1);
    huge.gallery.clear();
    check(
        "huge",
        &input("Everything there is", vec![huge]),
        |answer| {
            assert_eq!(
                (&answer["bars"], &answer["folded"]),
                (&847.into(), &807.into())
            );
            assert_eq!(answer["matrix"], 847);
        },
    );
}

#[test]
fn long_words_and_markup_break_nothing() {
    let folder = tempfile::tempdir().unwrap();
    let mut input = everything(folder.path());
    let evil = format!(
        "<b onclick=\"x\">{}</b>\u{202e}&amp; \"'",
        "Wortungetüm".repeat(20)
    );
    input.title.clone_from(&evil);
    for run in &mut input.runs {
        let evaluation = &mut run.evaluation;
        for class in &mut evaluation.classes {
            class.name.push_str(&evil);
        }
        evaluation.metric = Metric::Dice;
        evaluation.method.clone_from(&evil);
        evaluation.benchmark.title.clone_from(&evil);
        evaluation.model.path.clone_from(&evil);
        evaluation.timing.machine.clone_from(&evil);
        for entry in &mut evaluation.gallery {
            entry.id.clone_from(&evil);
        }
        run.experiment = Some(evil.clone());
    }
    check("evil", &input, |answer| {
        assert_eq!(
            answer["headline"],
            serde_json::json!(["mDice", "mIoU", "pAcc"])
        );
        assert_eq!(
            (&answer["bars"], &answer["items"]),
            (&20.into(), &18.into())
        );
    });
}
