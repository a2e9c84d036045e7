// The list of classes with their shares: shows, hides and points out classes.

import { percent } from "./stage.js";

export class Legend {
  #list;
  #all;
  #hidden = new Set();
  #events;

  /**
   * - `list`, `all`: the list, and the button that shows all classes again
   * - `events`: `toggle(hidden)` with the names of hidden classes, and `point(label | null)`
   */
  constructor(list, all, events) {
    this.#list = list;
    this.#all = all;
    this.#events = events;
    list.addEventListener("change", event => this.#toggle(event.target));
    list.addEventListener("pointerover", event => this.#point(event.target));
    list.addEventListener("pointerleave", () => events.point(null));
    list.addEventListener("focusin", event => this.#point(event.target));
    list.addEventListener("focusout", () => events.point(null));
    all.addEventListener("click", () => this.#showAll());
  }

  /** Fills the list from an answer; rows keep their places, so that a focused one stays focused. */
  show(answer) {
    const areas = new Map(answer.areas.map(area => [area.label, area]));
    const most = Math.max(...answer.areas.map(area => area.share), 0.0001);
    const active = document.activeElement;
    const focused = this.#list.contains(active) ? active.closest("li")?.dataset.name : undefined;
    const rows = answer.classes.map(known => this.#row(known, areas.get(known.label), most));
    rows.push(this.#unlabelled(answer.unlabelled));
    this.#list.replaceChildren(...rows);
    this.#all.hidden = !answer.classes.some(known => this.#hidden.has(known.name));
    if (focused) this.#list.querySelector(`[data-name="${CSS.escape(focused)}"] input`)?.focus();
  }

  /** Points out the row of a class, or none. */
  mark(label) {
    for (const row of this.#list.children) row.style.background = row.dataset.label === String(label) ? "var(--raised)" : "";
  }

  /** Shows or hides the class number `position`, from 0. */
  toggleAt(position) {
    this.#list.children[position]?.querySelector("input")?.click();
  }

  #row(known, area, most) {
    const row = document.createElement("li");
    const label = document.createElement("label");
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = known.name;
    const figures = document.createElement("span");
    figures.className = "figures";
    if (known.background) {
      name.append(tag(" background"));
      label.append(space("no-box"), space("no-swatch"), name, figures);
      row.append(label);
      return row;
    }
    row.dataset.label = known.label;
    row.dataset.name = known.name;
    const box = document.createElement("input");
    box.type = "checkbox";
    box.checked = !this.#hidden.has(known.name);
    box.setAttribute("aria-label", `Show ${known.name}`);
    const share = area?.share ?? 0;
    figures.append(percent(share, 1));
    if (area?.pixels) {
      const sure = document.createElement("small");
      sure.textContent = ` · ${percent(area.confidence ?? 0)} sure`;
      figures.append(sure);
    }
    label.append(box, swatchOf(known.colour), name, figures, bar(share / most, known.colour));
    row.append(label);
    return row;
  }

  #unlabelled(share) {
    const row = document.createElement("li");
    row.className = "unlabelled";
    const label = document.createElement("label");
    const name = document.createElement("span");
    name.className = "name";
    name.textContent = "without a class";
    const figures = document.createElement("span");
    figures.className = "figures";
    figures.textContent = percent(share, 1);
    label.append(space("no-box"), swatchOf(""), name, figures);
    row.append(label);
    return row;
  }

  #toggle(box) {
    const { name } = box.closest("li").dataset;
    if (box.checked) this.#hidden.delete(name);
    else this.#hidden.add(name);
    this.#all.hidden = this.#hidden.size === 0;
    this.#events.toggle(this.#hidden);
  }

  #showAll() {
    this.#hidden.clear();
    for (const box of this.#list.querySelectorAll("input")) box.checked = true;
    this.#all.hidden = true;
    this.#events.toggle(this.#hidden);
  }

  #point(target) {
    const label = target.closest("li")?.dataset.label;
    this.#events.point(label === undefined ? null : Number(label));
  }
}

/** Shows which classes compete at a place, and in its region. */
export function showCompetition({ list, place }, answer, pinned) {
  const point = pinned && answer?.points?.[0];
  if (!point) {
    place.textContent = "Click a place in the image.";
    list.replaceChildren();
    return;
  }
  place.textContent = point.class === null || point.class === undefined
    ? `At column ${point.x}, row ${point.y}: no class.`
    : `At column ${point.x}, row ${point.y}: ${point.class}.`;
  const colours = new Map(answer.classes.map(known => [known.name, known]));
  const rows = point.candidates.map(candidate => competitor(candidate, colours));
  const region = regionOf(answer.regions ?? [], point);
  if (region) {
    const caption = document.createElement("li");
    const text = document.createElement("span");
    text.className = "caption";
    text.style.gridColumn = "1 / -1";
    text.textContent = `On average over its region, ${percent(region.share, 1)} of the image:`;
    caption.append(text);
    rows.push(caption, ...region.candidates.map(candidate => competitor(candidate, colours)));
  }
  list.replaceChildren(...rows);
}

/** Returns the smallest region of the point's class whose box holds the point. */
function regionOf(regions, point) {
  const holds = ({ bounding_box: [x, y, width, height] }) =>
    point.x >= x && point.x < x + width && point.y >= y && point.y < y + height;
  const fitting = regions.filter(region => (region.class ?? null) === (point.class ?? null) && holds(region));
  return fitting.sort((a, b) => a.bounding_box[2] * a.bounding_box[3] - b.bounding_box[2] * b.bounding_box[3])[0];
}

function competitor({ class: name, score }, colours) {
  const row = document.createElement("li");
  const known = colours.get(name);
  const text = document.createElement("span");
  text.className = "name";
  text.textContent = name;
  if (known?.background) text.append(tag(" background"));
  const figures = document.createElement("span");
  figures.className = "figures";
  figures.textContent = percent(score, 1);
  const colour = known && !known.background ? known.colour : "";
  row.append(swatchOf(colour), text, figures, bar(score, colour));
  return row;
}

/** Returns an empty element in place of another one. */
function space(kind) {
  const element = document.createElement("span");
  element.className = kind;
  return element;
}

function tag(text) {
  const element = document.createElement("small");
  element.className = "tag";
  element.textContent = text;
  return element;
}

function swatchOf(colour) {
  const swatch = document.createElement("span");
  swatch.className = "swatch";
  swatch.style.background = colour;
  return swatch;
}

function bar(share, colour) {
  const outer = document.createElement("span");
  outer.className = "share";
  const inner = document.createElement("i");
  inner.style.width = `${100 * Math.max(0, Math.min(1, share))}%`;
  inner.style.background = colour || "var(--line-strong)";
  if (!(share > 0)) inner.style.minWidth = "0";
  outer.append(inner);
  return outer;
}
