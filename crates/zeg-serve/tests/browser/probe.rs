//! What holds for the page at any time: it fits, everything has a name, nothing comes from elsewhere.

use serde_json::json;

use crate::devtools::Browser;

/// What can be measured of the page at any time.
const PROBE: &str = r#"(() => {
  const luminance = colour => {
    const [r, g, b] = colour.match(/[\d.]+/g).map(value => value / 255)
      .map(value => value <= 0.03928 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const ground = element => {
    for (; element; element = element.parentElement) {
      const colour = getComputedStyle(element).backgroundColor;
      if (!colour.endsWith(", 0)") && colour !== "transparent") return colour;
    }
    return "rgb(255, 255, 255)";
  };
  const shown = element => element.checkVisibility({ visibilityProperty: true });
  let contrast = 99, palest = "";
  for (const element of document.querySelectorAll("body *")) {
    const own = [...element.childNodes].some(node => node.nodeType === 3 && node.data.trim());
    if (!own || !shown(element) || element.matches("script, title, style, option, noscript *")) continue;
    const [a, b] = [getComputedStyle(element).color, ground(element)].map(luminance);
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < contrast) [contrast, palest] = [ratio, `${element.className}: ${element.textContent}`];
  }
  const clipped = element => element.parentElement
    && (getComputedStyle(element.parentElement).overflowX !== "visible" || clipped(element.parentElement));
  const beyond = [...document.querySelectorAll("body *")].filter(element => shown(element) && !clipped(element)
    && element.getBoundingClientRect().right > document.documentElement.clientWidth + 1).map(e => e.outerHTML.slice(0, 80));
  const named = element => (element.getAttribute("aria-label") || element.textContent || element.labels?.[0]?.textContent
    || element.alt || "").trim();
  return {
    contrast, palest, beyond,
    width: document.documentElement.scrollWidth, window: document.documentElement.clientWidth,
    nameless: [...document.querySelectorAll("button, input, select, a, img[alt='']")]
      .filter(element => shown(element) && !named(element) && !element.matches("h1 img")).map(e => e.outerHTML.slice(0, 80)),
    small: [...document.querySelectorAll("button, select")].filter(element => shown(element)
      && element.getBoundingClientRect().height < 24).map(e => e.outerHTML.slice(0, 80)),
    twice: [...document.querySelectorAll("[id]")].map(element => element.id).filter((id, at, all) => all.indexOf(id) !== at),
    elsewhere: performance.getEntriesByType("resource").map(entry => entry.name)
      .filter(name => !name.startsWith(location.origin) && !name.startsWith("data:") && !name.startsWith("blob:")),
    broken: [...document.images].filter(image => image.complete && !image.naturalWidth).map(image => image.src),
  };
})()"#;

/// Checks what holds for the page at any time.
pub(crate) fn check(browser: &mut Browser, when: &str) {
    let found = browser.eval(PROBE);
    assert_eq!(
        found["width"], found["window"],
        "{when}: scrolls sideways: {found}"
    );
    for fault in [
        "beyond",
        "nameless",
        "small",
        "twice",
        "elsewhere",
        "broken",
    ] {
        assert_eq!(found[fault], json!([]), "{when}: {fault}");
    }
    let contrast = found["contrast"].as_f64().unwrap();
    assert!(
        contrast >= 4.5,
        "{when}: contrast {contrast} of {}",
        found["palest"]
    );
}
