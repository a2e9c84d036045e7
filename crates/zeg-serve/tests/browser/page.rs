//! Tests of the page at `/`: what a person does with it, in a browser.

use std::path::Path;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use zeg::Segmenter;
use zeg::image::{decode_labels_bytes, decode_rgb};
use zeg::vocab::classes::{ClassQuery, Role};

use crate::devtools::Browser;
use crate::probe::check;
use crate::served::Served;

/// With the signs of base64.
const TOKEN: &str = "token+of/a-test+0123456789==";

/// Opens the page at a server with MiniCLIP and the first example on it.
fn with_example(browser: &mut Browser, served: &Served) {
    browser.resize(1280, 900, false);
    browser.open(&served.address());
    browser.wait_for("document.querySelectorAll('#examples img').length === 3");
    browser.wait_for(
        "[...document.querySelectorAll('#examples img')].every(image => image.naturalWidth)",
    );
    browser.click("#examples button");
    browser.wait_for("zegPage.answer() && document.querySelectorAll('#legend input').length");
    browser.wait_for("document.querySelector('#busy').hidden");
}

fn names(browser: &mut Browser) -> Vec<String> {
    let names =
        browser.eval("zegPage.answer().classes.filter(c => !c.background).map(c => c.name)");
    serde_json::from_value(names).unwrap()
}

/// Returns a number that changes with the drawing.
fn drawing(browser: &mut Browser) -> Value {
    browser.eval("document.getElementById('canvas').toDataURL()")
}

#[test]
fn the_page_finds_what_is_typed() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let served = Served::start();
    browser.resize(1280, 900, false);
    browser.open(&served.address());
    browser.wait_for("document.getElementById('server').dataset.state === 'ready'");
    check(&mut browser, "at first");
    browser.look("first-1280");
    with_example(&mut browser, &served);
    assert_eq!(
        browser.eval("document.getElementById('problem').hidden"),
        true
    );
    let first = names(&mut browser);
    assert!(first.len() >= 2, "{first:?}");
    let shares = browser.eval("zegPage.answer().areas.reduce((sum, area) => sum + area.share, 0)");
    assert!(
        shares.as_f64().unwrap() > 0.05,
        "nothing was found: {shares}"
    );
    check(&mut browser, "with an example");
    browser.look("example-1280");

    // A name counts while it is typed, and becomes a chip by Enter.
    let count =
        |browser: &mut Browser| browser.eval("document.querySelectorAll('#classes .chip').length");
    let chips = count(&mut browser);
    browser.click("#classes-input");
    browser.type_text("dotted pink");
    browser.wait_for("zegPage.answer().classes.some(c => c.name === 'dotted pink')");
    assert_eq!(count(&mut browser), chips);
    browser.type_text("|pink thing");
    browser.wait_for("zegPage.answer().classes.some(c => c.synonyms.includes('pink thing'))");
    browser.key("Enter");
    assert_eq!(count(&mut browser), chips.as_u64().unwrap() + 1);
    assert_eq!(browser.eval("document.activeElement.id"), "classes-input");
    // The same name is not taken twice; several names may be pasted at once.
    browser.type_text("Dotted  PINK");
    browser.key("Enter");
    assert_eq!(count(&mut browser), chips.as_u64().unwrap() + 1);
    browser.type_text("dotted cyan, checked orange,");
    browser.wait_for("zegPage.answer().classes.some(c => c.name === 'checked orange')");
    assert_eq!(count(&mut browser), chips.as_u64().unwrap() + 3);
    // Backspace turns the last chip into text again; the keyboard alone removes another one.
    browser.key("Backspace");
    assert_eq!(
        browser.eval("document.activeElement.value"),
        "checked orange"
    );
    browser.key("Enter");
    browser.key("ArrowLeft");
    browser.key("Delete");
    browser.wait_for("!zegPage.answer().classes.some(c => c.name === 'checked orange')");
    assert_eq!(
        browser.eval("document.activeElement.getAttribute('aria-label')"),
        "Remove dotted cyan"
    );

    // Half a word is no problem yet; a whole one that the model does not know is.
    browser.click("#classes-input");
    browser.type_text("unicor");
    browser.wait_for("document.getElementById('classes-hint').textContent.includes('unicor')");
    assert_eq!(
        browser.eval("document.getElementById('problem').hidden"),
        true
    );
    browser.type_text("n");
    browser.key("Enter");
    browser.wait_for("!document.getElementById('problem').hidden");
    check(&mut browser, "with an unknown word");
    browser.key("Backspace");
    for _ in 0.."unicorn".len() {
        browser.key("Backspace");
    }
    browser.wait_for("document.getElementById('problem').hidden");

    // A background class competes and gets no colour.
    browser.click("#background-input");
    browser.type_text("plain orange,");
    browser
        .wait_for("zegPage.answer().classes.some(c => c.background && c.name === 'plain orange')");
    // The threshold leaves pixels without a class.
    let before = browser.eval("zegPage.answer().unlabelled");
    browser.eval("(() => { const t = document.getElementById('threshold'); t.value = 1; t.dispatchEvent(new Event('input')); })()");
    browser.wait_for(&format!("zegPage.answer().unlabelled > {before}"));
    browser.click("#threshold-usual");
    browser.wait_for(&format!("zegPage.answer().unlabelled === {before}"));
    // Every refused question is an error in the browser's list; nothing else is.
    assert_eq!(browser.faults("422"), Vec::<String>::new());
}

#[test]
fn the_page_shows_where_and_how_sure() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let served = Served::start();
    with_example(&mut browser, &served);
    // The labels that are drawn are those of the answer.
    let same = browser.eval(
        "(() => { const { labels, width } = zegPage.stage.drawn; const { runs, width: w } = zegPage.answer().runs;
         if (w !== width) return 'another size';
         let at = 0;
         for (let i = 0; i < runs.length; i += 2) for (let n = 0; n < runs[i + 1]; n++) if (labels[at++] !== runs[i]) return at;
         return at === labels.length; })()",
    );
    assert_eq!(same, true);
    // A class that is switched off is not drawn.
    let all = drawing(&mut browser);
    browser.click("#legend input");
    let fewer = drawing(&mut browser);
    assert_ne!(all, fewer);
    browser.click("#show-all");
    assert_eq!(drawing(&mut browser), all);
    // Neither is any class without opacity, or where the image alone is wanted.
    browser.eval("document.activeElement.blur()");
    browser.key("i");
    let bare = drawing(&mut browser);
    assert_ne!(bare, all);
    browser.key("i");
    browser.eval("(() => { const o = document.getElementById('opacity'); o.value = 0; o.dispatchEvent(new Event('input')); })()");
    assert_eq!(drawing(&mut browser), bare);
    browser.eval("(() => { const o = document.getElementById('opacity'); o.value = 0.6; o.dispatchEvent(new Event('input')); })()");

    // Hovering names the class and its confidence.
    let place = browser.eval(
        "(() => { const { labels, width } = zegPage.stage.drawn; const want = zegPage.answer().areas.filter(a => a.pixels)
         .sort((a, b) => b.pixels - a.pixels)[0].label; const hits = []; labels.forEach((l, i) => l === want && hits.push(i));
         const at = hits[hits.length >> 1]; return [at % width, Math.floor(at / width)]; })()",
    );
    let (x, y) = (place[0].as_f64().unwrap(), place[1].as_f64().unwrap());
    browser.middle("#canvas");
    let screen = browser.eval(&format!(
        "(() => {{ const c = document.getElementById('canvas'); const b = c.getBoundingClientRect();
         return [b.x + ({x} + 0.5) / c.width * b.width, b.y + ({y} + 0.5) / c.height * b.height]; }})()"
    ));
    let screen = (screen[0].as_f64().unwrap(), screen[1].as_f64().unwrap());
    browser.hover(screen);
    browser.wait_for("!document.getElementById('tip').hidden");
    let expected = browser.eval(&format!(
        "(() => {{ const f = zegPage.stage.at({{ x: {x}, y: {y} }}); return f.known.name + (100 * f.confidence).toFixed(0) + ' %'; }})()"
    ));
    assert_eq!(
        browser.eval("document.getElementById('tip').textContent"),
        expected
    );
    // A click says which classes compete there, best first.
    browser.click_at(screen);
    browser.wait_for("document.querySelectorAll('#compete .name').length >= 2");
    browser.wait_for("document.querySelector('#busy').hidden");
    let point = browser.eval("zegPage.answer().points[0]");
    assert_eq!(
        (&point["x"], &point["y"]),
        (&json!(x as u64), &json!(y as u64))
    );
    let best = browser.eval("document.querySelector('#compete .name').textContent");
    assert_eq!(best, point["candidates"][0]["class"]);
    assert_eq!(best, point["class"]);
    check(&mut browser, "with a place");
    browser.look("compete-1280");
    // The keyboard moves the place and asks about it.
    browser.eval("document.getElementById('canvas').focus()");
    browser.key("ArrowRight");
    browser.key("ArrowDown");
    browser.key("Enter");
    browser.wait_for(&format!(
        "zegPage.answer().points[0].x > {x} && zegPage.answer().points[0].y > {y}"
    ));
    browser.key("Escape");
    browser.wait_for("document.getElementById('cross').hidden");
    assert_eq!(browser.faults(""), Vec::<String>::new());
}

/// Waits for a file that the browser saves.
fn saved(folder: &Path, name: &str) -> Vec<u8> {
    let started = Instant::now();
    loop {
        let files: Vec<_> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().path())
            .collect();
        if let Some(file) = files
            .iter()
            .find(|file| file.file_name().is_some_and(|own| own == name))
        {
            return std::fs::read(file).unwrap();
        }
        assert!(
            started.elapsed() < Duration::from_secs(30),
            "{name} is not among {files:?}"
        );
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Returns the number of files that the browser has saved as a whole.
fn complete_files(folder: &Path) -> usize {
    let files = std::fs::read_dir(folder).unwrap();
    let is_complete = |path: &Path| path.extension().is_none_or(|kind| kind != "crdownload");
    files
        .filter(|file| is_complete(&file.as_ref().unwrap().path()))
        .count()
}

#[test]
fn downloads_are_what_the_library_computes() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let served = Served::start();
    with_example(&mut browser, &served);
    let folder = tempfile::tempdir().unwrap();
    browser.download_to(folder.path());
    browser.click("#exports [data-format=labels]");
    let labels = saved(folder.path(), "mini-1.png");
    let found = decode_labels_bytes(&labels, "labels.png".as_ref()).unwrap();
    // The same question to the library, which is what `zeg segment` asks.
    let classes = browser.eval("zegPage.answer().classes");
    let classes: Vec<ClassQuery> = classes
        .as_array()
        .unwrap()
        .iter()
        .map(|class| ClassQuery {
            synonyms: serde_json::from_value(class["synonyms"].clone()).unwrap(),
            role: if class["background"] == true {
                Role::Background
            } else {
                Role::Foreground
            },
            ..ClassQuery::new(class["name"].as_str().unwrap())
        })
        .collect();
    let mut segmenter = Segmenter::load("mini".as_ref()).unwrap();
    segmenter.set_classes(&classes).unwrap();
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/examples/mini-1.png");
    let expected = segmenter.segment(&decode_rgb(&image).unwrap()).unwrap();
    let unlabelled = |label: u16| if label == 255 { u16::MAX } else { label };
    let found: Vec<u16> = found
        .labels()
        .iter()
        .map(|&label| unlabelled(label))
        .collect();
    assert_eq!(found, expected.labels.labels());
    // Every other kind can be saved, too.
    let kinds = browser
        .eval("[...document.querySelectorAll('#exports button')].map(b => b.dataset.format)");
    let kinds: Vec<String> = serde_json::from_value(kinds).unwrap();
    assert!(kinds.len() >= 13, "{kinds:?}");
    for kind in kinds.iter().filter(|kind| *kind != "labels") {
        let before = complete_files(folder.path());
        browser.click(&format!("#exports [data-format='{kind}']"));
        let started = Instant::now();
        while complete_files(folder.path()) == before {
            assert!(
                started.elapsed() < Duration::from_secs(30),
                "{kind} is not saved"
            );
            std::thread::sleep(Duration::from_millis(100));
        }
        assert_eq!(
            browser.eval("document.getElementById('problem').hidden"),
            true,
            "{kind}"
        );
    }
    // The same as commands.
    for (tab, part) in [
        ("command", "zeg segment mini-1.png"),
        // The server may have loaded its model with options that the page does not know.
        (
            "command",
            "the --model and the options for the model that the server was started with",
        ),
        ("curl", "-F 'image=@\"mini-1.png\"'"),
        ("curl", "/v1/segment -o"),
        ("python", "requests.post("),
    ] {
        browser.click(&format!("#tab-{tab}"));
        let text = browser.eval("document.getElementById('snippet-text').textContent");
        assert!(text.as_str().unwrap().contains(part), "{tab}: {text}");
    }
    // curl takes commas and semicolons in names of files as its own, unless they are quoted.
    browser.eval(
        "fetch('assets/examples/mini-1.png').then(a => a.blob()).then(b => zegPage.open(b, 'a, b;c\"d.png'))",
    );
    browser.click("#tab-curl");
    let text = browser.eval("document.getElementById('snippet-text').textContent");
    let quoted = r#"-F 'image=@"a, b;c\"d.png"'"#;
    assert!(text.as_str().unwrap().contains(quoted), "{text}");
    assert_eq!(browser.faults(""), Vec::<String>::new());
}

#[test]
fn the_page_fits_a_phone_and_the_dark() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let served = Served::start();
    with_example(&mut browser, &served);
    browser.resize(390, 844, true);
    browser.eval("scrollTo(0, 0)");
    check(&mut browser, "on a phone");
    browser.look("phone-390");
    browser.dark(true);
    check(&mut browser, "on a phone in the dark");
    browser.look("phone-dark-390");
    browser.resize(1280, 900, false);
    check(&mut browser, "in the dark");
    browser.look("dark-1280");
    // Long names and many of them stay within the page.
    browser.dark(false);
    browser.resize(390, 844, true);
    browser.click("#classes-input");
    let long = "Wortungetüm".repeat(20);
    browser.type_text(&format!("{long}, <b>bold</b>, \u{202e}gnol,"));
    browser.wait_for("document.querySelectorAll('#classes .chip').length >= 5");
    // MiniCLIP does not know these words.
    browser.wait_for("!document.getElementById('problem').hidden");
    check(&mut browser, "with long names");
    browser.look("long-390");
}

#[test]
fn problems_are_plain_sentences() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let served = Served::start();
    with_example(&mut browser, &served);
    let folder = tempfile::tempdir().unwrap();
    let text = folder.path().join("notes.jpg");
    std::fs::write(&text, "not an image").unwrap();
    browser.choose_file("#file", &text);
    browser.wait_for("!document.getElementById('problem').hidden");
    let said = browser
        .eval("document.getElementById('problem').innerText")
        .to_string();
    assert!(
        said.contains("cannot be read") && !said.contains('{'),
        "{said}"
    );
    check(&mut browser, "with a problem");
    browser.look("problem-1280");
    // An example afterwards works, and takes the message away.
    browser.click("#examples button");
    browser.wait_for("document.getElementById('problem').hidden");
    browser.wait_for("document.querySelector('#busy').hidden && zegPage.answer()");
    // A server that is gone is said to be gone.
    drop(served);
    browser.click("#classes-input");
    browser.type_text("striped blue,");
    browser.wait_for("!document.getElementById('problem').hidden");
    let said = browser
        .eval("document.getElementById('problem').innerText")
        .to_string();
    assert!(said.contains("does not answer"), "{said}");
    let faults = browser.faults("net::ERR");
    assert!(
        faults.iter().all(|fault| fault.contains("422")),
        "{faults:?}"
    );
}

/// A softmax gives a single class every pixel with confidence 1, whether it is there or not; the page says so.
#[test]
fn notices_of_the_server_are_shown() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let served = Served::start();
    browser.resize(1280, 900, false);
    browser.open(&served.address());
    browser.wait_for("document.querySelectorAll('#examples img').length === 3");
    let source = browser.eval("document.querySelector('#examples button').title");
    assert!(source.as_str().unwrap().contains("page_examples.py"));
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/examples/mini-1.png");
    browser.choose_file("#file", &image);
    browser.wait_for("!document.getElementById('tools').hidden");
    browser.click("#classes-input");
    browser.type_text("plain yellow,");
    browser.wait_for("document.querySelector('#notices li')?.checkVisibility()");
    let said = browser.eval("document.getElementById('notices').innerText");
    assert!(said.as_str().unwrap().contains("only one class"), "{said}");
    check(&mut browser, "with a notice");
    browser.look("notice-1280");
    browser.type_text("plain blue,");
    browser.wait_for("document.getElementById('notices').children.length === 0");
    assert_eq!(browser.faults(""), Vec::<String>::new());
}

#[test]
fn a_token_is_asked_for() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let served = Served::with_token(TOKEN);
    browser.resize(1280, 900, false);
    browser.open(&served.address());
    browser.wait_for("document.getElementById('token-form').checkVisibility()");
    check(&mut browser, "asking for a token");
    browser.look("token-1280");
    let is_asking = "document.getElementById('token-form').checkVisibility() && document.activeElement.id === 'token'";
    browser.wait_for(is_asking);
    browser.type_text("wrong-wrong-wrong-wrong");
    browser.key("Enter");
    // The server was asked once more.
    browser.wait_for(
        "performance.getEntriesByType('resource').filter(e => e.name.endsWith('/v1/models')).length >= 2",
    );
    browser.wait_for(is_asking);
    assert_eq!(
        browser.eval("document.querySelectorAll('#examples img').length"),
        0
    );
    // The wrong one is selected, so that it is typed over. No click: the server's state may move the field meanwhile.
    browser.type_text(TOKEN);
    browser.key("Enter");
    browser.wait_for("document.querySelectorAll('#examples img').length === 3");
    // The token of an address is taken and does not stay in it.
    browser.eval("sessionStorage.clear()");
    browser.open(&format!("{}/?again#token={TOKEN}", served.address()));
    browser.wait_for("document.querySelectorAll('#examples img').length === 3");
    assert_eq!(browser.eval("location.hash"), "");
}

/// An image that came before the token was lost, with an error that only the browser's list showed.
#[test]
fn an_image_that_comes_before_the_token_is_kept() {
    let Some(mut browser) = Browser::start() else {
        return;
    };
    let served = Served::with_token(TOKEN);
    browser.resize(1280, 900, false);
    browser.open(&served.address());
    browser.wait_for("document.getElementById('token-form').checkVisibility()");
    let image = Path::new(env!("CARGO_MANIFEST_DIR")).join("assets/examples/mini-1.png");
    browser.choose_file("#file", &image);
    browser.wait_for("document.getElementById('token-form').checkVisibility()");
    browser.click("#token");
    browser.type_text(TOKEN);
    browser.key("Enter");
    browser.wait_for("document.getElementById('image-facts').textContent.includes('mini-1.png')");
    browser.wait_for("document.getElementById('busy').hidden");
    browser.click("#classes-input");
    browser.type_text("plain blue, striped red,");
    browser.wait_for("zegPage.answer()?.classes.length === 2");
    assert_eq!(browser.faults("401"), Vec::<String>::new());
}
