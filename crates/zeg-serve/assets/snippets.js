// The same question as a command, as a call of curl and as Python.

import { ADDRESS, token } from "./api.js";

/** Quotes a text for a POSIX shell. */
function shell(text) {
  return /^[\w@%+=:,./-]+$/.test(text) && !text.startsWith("-") ? text : `'${text.replaceAll("'", `'\\''`)}'`;
}

/** Quotes a text for Python; JSON strings are Python strings, too, except for a few escapes that do not occur here. */
function python(text) {
  return JSON.stringify(text);
}

/** Names with their synonyms as one argument. */
function listed(names) {
  return names.join(", ");
}

/**
 * Returns the question in a language.
 *
 * - `question`: `{ image, model, classes, background, threshold }`; the threshold may be null
 */
function snippet(language, question) {
  return { command, curl, python: pythonCode }[language](question);
}

function stem(image) {
  return image.replace(/\.[^.]*$/, "") || "image";
}

/** What the command cannot say: the server does not tell which file a model is, and how it was loaded. */
const SAME_MODEL = "# Give it the --model and the options for the model that the server was started with.";

function command({ image, model, classes, background, threshold }) {
  const parts = [`${SAME_MODEL}\nzeg segment ${shell(image)} --model ${shell(model)}`, `--classes ${shell(listed(classes))}`];
  if (background.length) parts.push(`--background ${shell(listed(background))}`);
  if (threshold !== null) parts.push(`--threshold ${threshold}`);
  parts.push("-o out --write labels,overlay");
  return parts.join(" \\\n  ");
}

/** Quotes a file name for curl's option -F, which otherwise takes commas and semicolons as its own. */
function curlFile(name) {
  return `"${name.replace(/["\\]/g, "\\$&")}"`;
}

function curl({ image, model, classes, background, threshold }) {
  const parts = [`curl -F ${shell(`image=@${curlFile(image)}`)}`];
  if (token()) parts.push(`-H "Authorization: Bearer $ZEG_TOKEN"`);
  parts.push(`--form-string model=${shell(model)}`);
  parts.push(`--form-string classes=${shell(listed(classes))}`);
  if (background.length) parts.push(`--form-string background=${shell(listed(background))}`);
  if (threshold !== null) parts.push(`-F threshold=${threshold}`);
  parts.push(`-F output=labels ${shell(`${ADDRESS}/v1/segment`)} -o ${shell(`${stem(image)}.labels.png`)}`);
  return parts.join(" \\\n  ");
}

function pythonCode({ image, model, classes, background, threshold }) {
  const data = [`"classes": ${python(listed(classes))}`, `"model": ${python(model)}`];
  if (background.length) data.push(`"background": ${python(listed(background))}`);
  if (threshold !== null) data.push(`"threshold": ${threshold}`);
  data.push(`"output": "labels"`);
  const lines = ["import requests", ""];
  let headers = "";
  if (token()) {
    lines.splice(0, 0, "import os");
    headers = `\n        headers={"Authorization": "Bearer " + os.environ["ZEG_TOKEN"]},`;
  }
  lines.push(
    `with open(${python(image)}, "rb") as image:`,
    "    answer = requests.post(",
    `        ${python(`${ADDRESS}/v1/segment`)},${headers}`,
    `        files={"image": image},`,
    "        data={",
    ...data.map(entry => `            ${entry},`),
    "        },",
    "    )",
    "answer.raise_for_status()",
    `with open(${python(`${stem(image)}.labels.png`)}, "wb") as labels:`,
    "    labels.write(answer.content)",
  );
  return lines.join("\n");
}

/** Wires the tabs, which are chosen by click and by arrow keys, and the button that copies. */
export class Snippets {
  #tabs;
  #panel;
  #text;
  #question = null;
  #language = "command";

  constructor({ tabs, panel, text, copy, say }) {
    this.#tabs = [...tabs.querySelectorAll("[role=tab]")];
    this.#panel = panel;
    this.#text = text;
    for (const tab of this.#tabs) tab.addEventListener("click", () => this.#choose(tab));
    tabs.addEventListener("keydown", event => {
      const step = { ArrowLeft: -1, ArrowRight: 1 }[event.key];
      if (!step) return;
      event.preventDefault();
      const at = this.#tabs.findIndex(tab => tab.getAttribute("aria-selected") === "true");
      const next = this.#tabs[(at + step + this.#tabs.length) % this.#tabs.length];
      this.#choose(next);
      next.focus();
    });
    copy.addEventListener("click", async () => {
      const done = await copied(text);
      copy.textContent = done ? "Copied" : "Selected";
      say(done ? "Copied." : "Selected; copy it with the keyboard.");
      setTimeout(() => { copy.textContent = "Copy"; }, 1500);
    });
  }

  show(question) {
    this.#question = question;
    this.#text.textContent = snippet(this.#language, question);
  }

  #choose(tab) {
    this.#language = tab.id.replace("tab-", "");
    for (const other of this.#tabs) {
      other.setAttribute("aria-selected", String(other === tab));
      other.tabIndex = other === tab ? 0 : -1;
    }
    this.#panel.setAttribute("aria-labelledby", tab.id);
    if (this.#question) this.show(this.#question);
  }
}

/** Copies the text of an element; where the browser does not allow it, the text is selected instead. */
async function copied(element) {
  try {
    await navigator.clipboard.writeText(element.textContent);
    return true;
  } catch {
    const range = document.createRange();
    range.selectNodeContents(element);
    const selection = getSelection();
    selection.removeAllRanges();
    selection.addRange(range);
    return document.execCommand?.("copy") ?? false;
  }
}
