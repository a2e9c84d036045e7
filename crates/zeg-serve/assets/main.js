// The page: image, names, threshold → question → answer → drawing, legend, downloads.

import { takeTokenFromAddress } from "./api.js";
import { ChipField } from "./chips.js";
import { showExports } from "./exports.js";
import { takeFiles } from "./files.js";
import { Legend, showCompetition } from "./legend.js";
import { hideProblem, onToken, say, showNotices, showProblem } from "./messages.js";
import { facts, namesOf, OpenedImage, status } from "./server.js";
import { Snippets } from "./snippets.js";
import { percent, Stage } from "./stage.js";

/** Time without a key after which a name that is being typed is asked about, in milliseconds. */
const PAUSE = 220;
/** Time between two looks at the server's state, in milliseconds. */
const LOOK = 5000;
/** Number of classes that are listed where one place is asked about. */
const CANDIDATES = 6;
/** Number of names that are suggested, and of names after which nothing is suggested any more. */
const SUGGESTED = 8;
const ENOUGH = 3;

const $ = id => document.getElementById(id);

/** What the server said of itself. */
let server = { models: [], formats: [], limits: {}, lists: [] };
/** All examples. */
let examples = [];
let opened = null;
let answer = null;
/** Aborts the question that is being answered. */
let asking = null;
let timer = 0;
/** Whether the question holds a name that is still being typed. */
let typed = false;
/** The threshold, or null for the model's own. */
let threshold = null;

const stage = new Stage($("frame"), {
  hover: label => legend.mark(label),
  pick: place => pick(place),
  say,
});
const legend = new Legend($("legend"), $("show-all"), {
  toggle: hidden => stage.look({ hidden }),
  point: label => stage.look({ only: label }),
});
const snippets = new Snippets({
  tabs: document.querySelector(".tabs"), panel: $("snippet"), text: $("snippet-text"), copy: $("copy"), say,
});
const classes = new ChipField($("classes"), {
  id: "classes-input", noun: "class", placeholder: "cat, sofa|couch, …", described: "classes-hint", change: changed,
});
const background = new ChipField($("background"), {
  id: "background-input", noun: "background class", placeholder: "wall, floor, …", described: "background-hint",
  change: changed,
});

// ---- The question

const model = () => server.models.find(known => known.name === $("model").value) ?? server.models[0];

/** Returns the names of a field as the server takes them. */
function queries(field, isBackground) {
  return field.names.map(text => {
    const [name, ...synonyms] = text.split("|");
    return { name, synonyms, background: isBackground };
  });
}

function question(extra) {
  const asked = { classes: [...queries(classes, false), ...queries(background, true)], ...extra };
  if (threshold !== null) asked.threshold = threshold;
  return asked;
}

function changed({ typing }) {
  typed = typing;
  showSuggestions();
  showSnippet();
  clearTimeout(timer);
  timer = setTimeout(ask, typing ? PAUSE : 0);
}

/** Asks the server; an earlier question that is still being answered is given up. */
async function ask() {
  clearTimeout(timer);
  asking?.abort();
  asking = null;
  if (!opened || !model()) return;
  if (!classes.names.length) {
    showNote("");
    showNotices([]);
    answer = null;
    stage.clear();
    $("below").hidden = true;
    $("timing").textContent = "Type a class name to see where it is.";
    return;
  }
  const mine = new AbortController();
  asking = mine;
  const [asked, name] = [opened, model().name];
  setBusy(true);
  const pinned = stage.pinned;
  const wanted = { output: ["runs", "confidence"], response: "json" };
  if (pinned) Object.assign(wanted, { points: [[pinned.x, pinned.y]], candidates: CANDIDATES, output: ["runs", "confidence", "regions"] });
  const started = performance.now();
  try {
    const found = await asked.ask(name, question(wanted), { signal: mine.signal, busy: showWaiting });
    if (asking !== mine) return;
    answer = found.answer;
    await stage.answer(answer);
    if (asking !== mine) return;
    hideProblem();
    showNote("");
    showAnswer(found.encoding, performance.now() - started);
  } catch (error) {
    // Half a name may be no name yet; that is no reason to cry out.
    if (asking === mine && typed && error.status === 422) showNote(error.detail);
    // The same names are refused again.
    else if (asking === mine) showProblem(error, error.status === 422 ? null : ask);
  } finally {
    if (asking === mine) {
      asking = null;
      setBusy(false);
    }
  }
}

const USUAL_NOTE = [...$("classes-hint").childNodes];

/** Says something below the class names, or what is usually said there. */
function showNote(text) {
  $("classes-hint").replaceChildren(...text ? [text] : USUAL_NOTE);
}

function setBusy(busy) {
  $("busy").hidden = !busy;
  $("frame").setAttribute("aria-busy", String(busy));
}

function showWaiting(seconds) {
  if (seconds > 0) {
    $("timing").textContent = `The server is busy. Asking again in ${seconds} s.`;
    showServer({ queue: { full: true } });
  }
}

function showAnswer(encoding, whole) {
  const colours = new Map(answer.classes.filter(known => !known.background).map(known => [known.name, known.colour]));
  classes.colours = colours;
  background.colours = new Map();
  legend.show(answer);
  showCompetition({ list: $("compete"), place: $("compete-place") }, answer, stage.pinned);
  $("below").hidden = false;
  const { time } = answer;
  const text = [`asked in ${milliseconds(time.total_ms)}`];
  if (time.queued_ms >= 1) text.push(`of which ${milliseconds(time.queued_ms)} in the queue`);
  text.push(`shown after ${milliseconds(whole)}`);
  const encoded = encoding.time?.encode_ms;
  if (encoded !== undefined) text.push(`image encoded once in ${milliseconds(encoded)}`);
  $("timing").textContent = `${text.join(", ")}.`.replace(/^./, first => first.toUpperCase());
  const best = answer.areas.filter(area => area.pixels).sort((a, b) => b.share - a.share).slice(0, 3);
  const heard = best.map(area => `${area.name} ${percent(area.share)}`);
  say(heard.length ? `Found: ${heard.join(", ")}.` : "None of the classes was found.");
  showNotices([...(encoding.notices ?? []), ...(answer.notices ?? [])]);
  lookAtServer();
}

function milliseconds(value) {
  return value < 1000 ? `${Math.round(value)} ms` : `${(value / 1000).toFixed(1)} s`;
}

/** Asks which classes compete at a place. */
function pick(place) {
  if (place && answer) ask();
  else showCompetition({ list: $("compete"), place: $("compete-place") }, answer, null);
}

// ---- The image

/** An image that came before it was known which models there are: without the token, or while they are loaded. */
let pending = null;

/** Opens an image file. */
async function open(file, name) {
  if (!model()) {
    pending = { file, name };
    return start();
  }
  hideProblem();
  const limit = server.limits.max_body;
  if (limit && file.size > limit) {
    showProblem({
      code: "payload-too-large", title: "The file is too large.",
      detail: `${name} has ${megabytes(file.size)}; the server takes ${megabytes(limit)}.`,
      hint: "Make it smaller, or start the server with a larger --max-body.",
    });
    return;
  }
  asking?.abort();
  opened?.forget();
  opened = new OpenedImage(file, name);
  showNotices([]);
  const mine = opened;
  answer = null;
  let bitmap = null;
  try {
    bitmap = await createImageBitmap(file, { imageOrientation: "from-image" });
  } catch {
    // the server reads more formats than browsers, such as TIFF
  }
  if (opened !== mine) {
    bitmap?.close();
    return;
  }
  document.body.classList.add("has-image");
  $("stage").dataset.empty = "false";
  $("tools").hidden = false;
  $("below").hidden = true;
  $("frame").hidden = !bitmap;
  stage.show(bitmap);
  $("image-facts").textContent = bitmap
    ? `${name}, ${bitmap.width} × ${bitmap.height}` : `${name}; this browser cannot show it.`;
  $("timing").textContent = "";
  for (const button of $("examples").querySelectorAll("button")) {
    button.setAttribute("aria-pressed", String(button.dataset.file === name));
  }
  showSnippet();
  if (classes.names.length) return ask();
  // The encoding begins while names are typed.
  setBusy(true);
  try {
    await mine.encode(model().name, showWaiting);
    if (opened === mine) $("timing").textContent = "Type a class name to see where it is.";
  } catch (error) {
    if (opened === mine) showProblem(error, () => open(file, name));
  } finally {
    if (opened === mine && !asking) setBusy(false);
  }
  classes.focus();
}

function megabytes(bytes) {
  return `${(bytes / 2 ** 20).toFixed(1)} MiB`;
}

takeFiles((file, name) => open(file, name));

// ---- Examples, lists and suggestions

/** Returns which examples fit the model: drawings for a model of the mini world, photos for others. */
function exampleKind() {
  const first = model()?.suggestions?.[0] ?? "";
  return /^(plain|striped|dotted|checked) /.test(first) ? "mini" : "photos";
}

function showExamples() {
  const fitting = examples.filter(example => example.for === exampleKind());
  $("examples").replaceChildren(...fitting.map(example => {
    const row = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.title = example.source;
    button.dataset.file = example.file;
    button.setAttribute("aria-pressed", String(opened?.name === example.file));
    const image = document.createElement("img");
    Object.assign(image, { src: `assets/examples/${example.file}`, alt: example.alt, width: 120, height: 90 });
    const title = document.createElement("span");
    title.textContent = example.title;
    button.append(image, title);
    button.addEventListener("click", () => openExample(example));
    row.append(button);
    return row;
  }));
}

async function openExample(example) {
  try {
    const response = await fetch(`assets/examples/${example.file}`);
    if (!response.ok) throw new Error(`the example ${example.file} is missing`);
    const blob = await response.blob();
    classes.names = example.classes;
    background.names = example.background;
    showSuggestions();
    await open(blob, example.file);
  } catch (error) {
    showProblem(error, () => openExample(example));
  }
}

function showSuggestions() {
  if (classes.names.length >= ENOUGH) return $("suggestions").replaceChildren();
  const taken = new Set([...classes.names, ...background.names].flatMap(text => text.toLowerCase().split("|")));
  const left = (model()?.suggestions ?? []).filter(name => !taken.has(name.toLowerCase())).slice(0, SUGGESTED);
  const buttons = left.map(name => {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = `+ ${name}`;
    button.setAttribute("aria-label", `Add ${name}`);
    button.addEventListener("click", () => classes.add([name]));
    return button;
  });
  $("suggestions").replaceChildren(...buttons);
}

$("list").addEventListener("change", async () => {
  const list = $("list").value;
  $("list").value = "";
  if (!list) return;
  try {
    classes.add(await namesOf(list));
  } catch (error) {
    showProblem(error);
  }
});

// ---- Settings

$("model").addEventListener("change", () => {
  showExamples();
  showSuggestions();
  showThreshold();
  showSnippet();
  ask();
});

function showThreshold() {
  const usual = model()?.default_threshold ?? 0;
  const value = threshold ?? usual;
  $("threshold").value = value;
  $("threshold-value").textContent = percent(value);
  $("threshold-usual").hidden = threshold === null;
  $("threshold-usual").textContent = `Use the model's own, ${percent(usual)}`;
}

$("threshold").addEventListener("input", () => {
  threshold = Number($("threshold").value);
  showThreshold();
  changed({ typing: true });
});
$("threshold-usual").addEventListener("click", () => {
  threshold = null;
  showThreshold();
  changed({ typing: false });
  $("threshold").focus();
});
$("opacity").addEventListener("input", () => stage.look({ opacity: Number($("opacity").value) }));
$("outlines").addEventListener("change", () => stage.look({ outlines: $("outlines").checked }));
$("by-confidence").addEventListener("change", () => stage.look({ fade: $("by-confidence").checked }));
$("peek").addEventListener("click", () => {
  const peek = $("peek").getAttribute("aria-pressed") !== "true";
  $("peek").setAttribute("aria-pressed", String(peek));
  stage.look({ peek });
});
addEventListener("keydown", event => {
  if (event.target.matches("input, select, textarea") || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "/") {
    event.preventDefault();
    classes.focus();
  } else if (event.key === "i" && !$("tools").hidden) {
    $("peek").click();
  } else if (/^[1-9]$/.test(event.key)) {
    legend.toggleAt(Number(event.key) - 1);
  }
});

function showSnippet() {
  const known = model();
  if (!opened || !known) return;
  snippets.show({
    image: opened.name, model: known.name, classes: classes.names, background: background.names, threshold,
  });
}

// ---- The server

function showServer(said) {
  const line = $("server");
  if (!said) {
    line.dataset.state = "lost";
    line.textContent = "No answer";
    return;
  }
  const { ready, queue, encodings } = said;
  if (queue?.full) {
    line.dataset.state = "busy";
    line.textContent = "Queue full";
    return;
  }
  if (!queue) {
    line.dataset.state = "waiting";
    line.textContent = "Waiting";
    return;
  }
  line.dataset.state = !ready ? "waiting" : queue.waiting ? "busy" : "ready";
  const parts = [!ready ? "Loading" : queue.waiting ? `${queue.waiting} of ${queue.limit} in the queue` : "Ready"];
  if (encodings?.count) parts.push(`${encodings.count} ${encodings.count === 1 ? "image" : "images"} kept`);
  line.textContent = parts.join(" · ");
}

async function lookAtServer() {
  if (document.visibilityState !== "visible") return;
  showServer(await status());
}

function showFacts() {
  const chosen = $("model").value;
  $("model").replaceChildren(...server.models.map(known => {
    const option = document.createElement("option");
    option.value = known.name;
    option.textContent = known.method ? `${known.name} · ${known.method}` : known.name;
    return option;
  }));
  const first = server.models.find(known => known.default) ?? server.models[0];
  $("model").value = server.models.some(known => known.name === chosen) ? chosen : first?.name ?? "";
  $("model").disabled = server.models.length < 2;
  const lists = server.lists.map(({ name, classes: count }) => {
    const option = document.createElement("option");
    option.value = name;
    option.textContent = `${name} (${count} classes)`;
    return option;
  });
  $("list").replaceChildren($("list").options[0], ...lists);
  const download = name => opened.ask(model().name, question({ output: [name], response: "file" }), { busy: showWaiting, raw: true });
  showExports($("exports"), server.formats, download, showProblem);
}

let starts = 0;

async function start() {
  const own = ++starts;
  try {
    const known = await facts();
    const listed = await fetch("assets/examples/examples.json");
    const shown = listed.ok ? await listed.json() : [];
    if (own !== starts) return; // a later start, as with another token, has its own answer
    server = known;
    examples = shown;
  } catch (error) {
    if (own !== starts) return;
    showProblem(error, start);
    showServer(error?.status ? {} : null);
    return;
  }
  showFacts();
  showExamples();
  showSuggestions();
  showThreshold();
  lookAtServer();
  const waiting = pending;
  pending = null;
  if (waiting && model()) await open(waiting.file, waiting.name);
}

addEventListener("pagehide", () => opened?.forget());
document.addEventListener("visibilitychange", lookAtServer);
setInterval(lookAtServer, LOOK);

// For tests that look at what is drawn.
globalThis.zegPage = { stage, open: (blob, name) => open(blob, name), answer: () => answer };

onToken(start);
takeTokenFromAddress();
start();
