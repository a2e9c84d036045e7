// A field of class names: every name is a chip, and the name that is being typed counts as well.

/** Splits a typed or pasted text into names at commas and line ends; synonyms stay together, as in `sofa|couch`. */
function split(text) {
  return text.split(/[,;\n\r]+/).map(tidy).filter(Boolean);
}

/** Removes empty synonyms and needless spaces. */
function tidy(text) {
  return text.split("|").map(name => name.trim().replace(/\s+/g, " ")).filter(Boolean).join("|");
}

const same = (a, b) => a.toLowerCase() === b.toLowerCase();

export class ChipField {
  #list = document.createElement("ul");
  #entry = document.createElement("li");
  #input = document.createElement("input");
  #names = [];
  /** Where the input stands among the names. */
  #at = 0;
  #colours = new Map();
  #change;
  #placeholder;

  /**
   * - `place`: element that the field is put into
   * - `id`: id of the input
   * - `noun`: what a name stands for, such as "class"
   * - `change`: called with `{ typing }` when the names have changed
   */
  constructor(place, { id, noun, placeholder, described, change }) {
    this.#change = change;
    this.#placeholder = placeholder;
    this.#list.className = "chip-list";
    this.#entry.className = "chip-entry";
    Object.assign(this.#input, {
      id, type: "text", autocomplete: "off", autocapitalize: "off", spellcheck: false, enterKeyHint: "done",
    });
    this.#input.setAttribute("aria-label", `Name of a ${noun}`);
    this.#input.setAttribute("aria-describedby", described);
    this.#entry.append(this.#input);
    place.append(this.#list);
    this.#list.addEventListener("click", event => this.#click(event));
    this.#list.addEventListener("keydown", event => this.#key(event));
    this.#input.addEventListener("input", () => this.#typed());
    this.#input.addEventListener("change", () => this.#commit());
    this.#input.addEventListener("paste", event => this.#paste(event));
    this.#draw();
  }

  /** All names in their order, the one being typed included once it has two characters. */
  get names() {
    const draft = tidy(this.#input.value);
    const all = [...this.#names];
    if (draft.length >= 2 && !this.#has(draft)) all.splice(this.#at, 0, draft);
    return all;
  }

  set names(names) {
    this.#names = [];
    for (const name of names.map(tidy)) if (name && !this.#has(name)) this.#names.push(name);
    this.#input.value = "";
    this.#at = this.#names.length;
    this.#draw();
  }

  /** Adds names that are not there yet. */
  add(names) {
    const had = document.activeElement === this.#input;
    this.names = [...this.names, ...names];
    if (had) this.#input.focus();
    this.#change({ typing: false });
  }

  /** Colours the chips: a map from first names to colours. */
  set colours(colours) {
    this.#colours = colours;
    for (const chip of this.#list.querySelectorAll(".chip")) {
      const swatch = chip.querySelector(".swatch");
      swatch.style.background = colours.get(chip.dataset.name) ?? "";
    }
  }

  focus() {
    this.#input.focus();
  }

  #has(text) {
    const own = text.split("|");
    return this.#names.some(name => name.split("|").some(one => own.some(other => same(one, other))));
  }

  #draw() {
    const chips = this.#names.map((name, at) => this.#chip(name, at));
    chips.splice(this.#at, 0, this.#entry);
    this.#input.placeholder = this.#names.length ? "add a name" : this.#placeholder;
    const typed = document.activeElement === this.#input;
    this.#list.replaceChildren(...chips);
    if (typed) this.#input.focus();
  }

  #chip(text, at) {
    const [name, ...synonyms] = text.split("|");
    const chip = document.createElement("li");
    chip.className = "chip";
    chip.dataset.at = at;
    chip.dataset.name = name;
    const edit = document.createElement("button");
    edit.type = "button";
    edit.className = "edit";
    edit.title = "Change this name";
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    swatch.style.background = this.#colours.get(name) ?? "";
    const shown = document.createElement("span");
    shown.textContent = name;
    edit.append(swatch, shown);
    if (synonyms.length) {
      const also = document.createElement("span");
      also.className = "also";
      also.textContent = `| ${synonyms.join(" | ")}`;
      edit.append(also);
    }
    const remove = document.createElement("button");
    remove.type = "button";
    remove.className = "remove";
    remove.textContent = "×";
    remove.setAttribute("aria-label", `Remove ${name}`);
    chip.append(edit, remove);
    return chip;
  }

  #click(event) {
    const chip = event.target.closest(".chip");
    if (!chip) {
      if (event.target === this.#list) this.#input.focus();
      return;
    }
    const at = Number(chip.dataset.at);
    if (event.target.closest(".remove")) this.#remove(at);
    else this.#edit(at);
  }

  /** Turns a chip into text again, at its place, so that the classes keep their order and their colours. */
  #edit(at) {
    const name = this.#names[at];
    this.#commit({ quietly: true });
    const found = this.#names.indexOf(name);
    if (found < 0) return;
    this.#names.splice(found, 1);
    this.#at = found;
    this.#input.value = name;
    this.#draw();
    this.#input.focus();
    this.#input.setSelectionRange(name.length, name.length);
  }

  #remove(at) {
    this.#names.splice(at, 1);
    if (this.#at > at) this.#at--;
    this.#draw();
    const next = this.#list.querySelector(`.chip[data-at="${Math.min(at, this.#names.length - 1)}"] .remove`);
    (next ?? this.#input).focus();
    this.#change({ typing: false });
  }

  #typed() {
    if (/[,;\n]/.test(this.#input.value)) this.#commit();
    else this.#change({ typing: true });
  }

  #paste(event) {
    const text = event.clipboardData?.getData("text") ?? "";
    if (!/[,;\n]/.test(text.trim())) return;
    event.preventDefault();
    this.#input.value += text;
    this.#commit();
  }

  /** Turns the text into chips. */
  #commit({ quietly = false } = {}) {
    const names = split(this.#input.value);
    const moved = this.#at !== this.#names.length;
    if (!names.length && !moved && !this.#input.value) return;
    this.#input.value = "";
    for (const name of names) {
      if (this.#has(name)) continue;
      this.#names.splice(this.#at++, 0, name);
    }
    this.#at = this.#names.length;
    this.#draw();
    if (!quietly) this.#change({ typing: false });
  }

  #key(event) {
    if (event.isComposing) return;
    if (event.target === this.#input) this.#inputKey(event);
    else this.#chipKey(event);
  }

  #inputKey(event) {
    if (event.key === "Enter") {
      event.preventDefault();
      this.#commit();
    } else if (this.#input.value === "" && event.key === "Backspace" && this.#names.length) {
      event.preventDefault();
      this.#edit((this.#at || this.#names.length) - 1);
      this.#change({ typing: true });
    } else if (this.#input.value === "" && event.key === "ArrowLeft" && this.#at > 0) {
      event.preventDefault();
      this.#list.querySelector(`.chip[data-at="${this.#at - 1}"] .edit`)?.focus();
    }
  }

  #chipKey(event) {
    const chip = event.target.closest(".chip");
    if (!chip) return;
    const at = Number(chip.dataset.at);
    if (event.key === "Delete" || event.key === "Backspace") {
      event.preventDefault();
      this.#remove(at);
    } else if (event.key === "ArrowLeft" || event.key === "ArrowRight") {
      event.preventDefault();
      const next = this.#list.querySelector(`.chip[data-at="${at + (event.key === "ArrowLeft" ? -1 : 1)}"] .edit`);
      (next ?? (event.key === "ArrowRight" ? this.#input : null))?.focus();
    }
  }
}
