// The image with the classes in colours: drawing, hovering, and a place that is asked about.

import { bytesOf, greyRows } from "./png.js";

/** Label of pixels without a class. */
const NONE = 65535;
/** Longest side of the drawing in pixels; larger images are drawn smaller, and every figure stays that of the server. */
const LONGEST = 1600;
/** Longest side to which smaller images are enlarged, in pixels of the page. */
const COMFORTABLE = 720;
/** Share of a class's colour where another class is looked at. */
const DIMMED = 0.15;

export class Stage {
  #canvas;
  #context;
  #frame;
  #tip;
  #cross;
  #bitmap = null;
  #labels = null;
  #confidence = null;
  #overlay = document.createElement("canvas");
  #lines = document.createElement("canvas");
  #classes = [];
  #pinned = null;
  #cursor = null;
  /** What is drawn, and how. */
  #look = { opacity: 0.6, outlines: true, fade: false, peek: false, hidden: new Set(), only: null };
  /** Size of the image in its own pixels. */
  #size = [0, 0];
  #events;

  /**
   * - `frame`: element with the canvas, the tip and the cross
   * - `events`: `hover(label | null)`, `pick({ x, y } | null)` and `say(text)`
   */
  constructor(frame, events) {
    this.#frame = frame;
    this.#events = events;
    this.#canvas = frame.querySelector("canvas");
    this.#context = this.#canvas.getContext("2d");
    this.#tip = frame.querySelector(".tip");
    this.#cross = frame.querySelector(".cross");
    this.#canvas.addEventListener("pointermove", event => this.#hover(event));
    this.#canvas.addEventListener("pointerleave", () => this.#leave());
    this.#canvas.addEventListener("click", event => this.#pick(this.#place(event)));
    this.#canvas.addEventListener("keydown", event => this.#key(event));
    this.#canvas.addEventListener("blur", () => this.#leave());
    new ResizeObserver(() => this.#moveCross()).observe(this.#canvas);
  }

  /** Shows an image without classes; `bitmap` may be null where the browser cannot read it, with a size given later. */
  show(bitmap) {
    this.#bitmap?.close();
    this.#bitmap = bitmap;
    this.clear();
    this.#pinned = null;
    this.#cursor = null;
    this.#moveCross();
    if (bitmap) this.#resize(bitmap.width, bitmap.height);
  }

  /** Takes the classes away. */
  clear() {
    this.#labels = null;
    this.#confidence = null;
    this.#leave();
    this.#draw();
  }

  #resize(width, height) {
    this.#size = [width, height];
    const scale = Math.min(1, LONGEST / Math.max(width, height));
    // Small images are shown larger, or nothing could be pointed at.
    const zoom = Math.max(1, Math.min(8, COMFORTABLE / Math.max(width, height)));
    const drawn = [Math.max(1, Math.round(width * scale)), Math.max(1, Math.round(height * scale))];
    for (const canvas of [this.#canvas, this.#overlay, this.#lines]) [canvas.width, canvas.height] = drawn;
    this.#frame.style.setProperty("--ratio", width / height);
    this.#frame.style.setProperty("--most", `${Math.round(drawn[0] * zoom)}px`);
    this.#canvas.style.imageRendering = zoom >= 4 ? "pixelated" : "";
    this.#frame.hidden = false;
    this.#draw();
  }

  /** Shows an answer of the server, which must hold `runs` and may hold `confidence`. */
  async answer(answer) {
    const { width, height } = answer;
    if (width !== this.#size[0] || height !== this.#size[1]) this.#resize(width, height);
    const sampler = new Sampler(width, height, this.#canvas.width, this.#canvas.height);
    const labels = sampler.labels(answer.runs.runs);
    let confidence = null;
    const grey = answer.outputs?.confidence;
    if (grey) {
      confidence = new Uint8Array(labels.length);
      await greyRows(bytesOf(grey.base64), (y, row) => sampler.row(y, row, confidence));
    }
    this.#classes = answer.classes.map(known => ({ ...known, rgb: rgbOf(known.colour) }));
    [this.#labels, this.#confidence] = [labels, confidence];
    this.#paint();
    if (this.#cursor) this.#tell(this.#cursor);
  }

  /** Changes how it is drawn. */
  look(change) {
    Object.assign(this.#look, change);
    const repaint = ["outlines", "fade", "hidden", "only"].some(key => key in change);
    if (repaint) this.#paint();
    else this.#draw();
  }

  /** The place that is asked about, in pixels of the image, or null. */
  get pinned() {
    return this.#pinned;
  }

  /** Labels and confidences as they are drawn, for tests. */
  get drawn() {
    return { labels: this.#labels, confidence: this.#confidence, width: this.#canvas.width, height: this.#canvas.height };
  }

  #shows(label) {
    return label !== NONE && this.#classes[label] && !this.#look.hidden.has(this.#classes[label].name);
  }

  /** Paints the overlay and its outlines. */
  #paint() {
    const labels = this.#labels;
    if (!labels) return this.#draw();
    const { width, height } = this.#canvas;
    const fill = new ImageData(width, height);
    const edge = new ImageData(width, height);
    const [fills, edges] = [new Uint32Array(fill.data.buffer), new Uint32Array(edge.data.buffer)];
    const { fade, outlines, only } = this.#look;
    const shown = this.#classes.map((_, label) => this.#shows(label));
    const colours = this.#classes.map(({ rgb: [r, g, b] }) => (b << 16) | (g << 8) | r);
    for (let at = 0; at < labels.length; at++) {
      const label = labels[at];
      if (label === NONE || !shown[label]) continue;
      let alpha = fade && this.#confidence ? this.#confidence[at] : 255;
      if (only !== null && only !== label) alpha *= DIMMED;
      fills[at] = ((alpha << 24) | colours[label]) >>> 0;
      if (!outlines || (only !== null && only !== label)) continue;
      const x = at % width;
      const meets = (x + 1 < width && labels[at + 1] !== label) || (x > 0 && labels[at - 1] !== label)
        || (at >= width && labels[at - width] !== label) || (at + width < labels.length && labels[at + width] !== label);
      if (meets) edges[at] = ((255 << 24) | colours[label]) >>> 0;
    }
    this.#overlay.getContext("2d").putImageData(fill, 0, 0);
    this.#lines.getContext("2d").putImageData(edge, 0, 0);
    this.#draw();
  }

  #draw() {
    const [context, { width, height }] = [this.#context, this.#canvas];
    context.globalAlpha = 1;
    context.clearRect(0, 0, width, height);
    context.imageSmoothingQuality = "high";
    if (this.#bitmap) context.drawImage(this.#bitmap, 0, 0, width, height);
    if (!this.#labels || this.#look.peek) return;
    context.globalAlpha = this.#look.opacity;
    context.drawImage(this.#overlay, 0, 0);
    if (this.#look.outlines && this.#look.opacity > 0) {
      context.globalAlpha = 1;
      context.drawImage(this.#lines, 0, 0);
    }
  }

  /** Returns the place of an event in pixels of the image. */
  #place(event) {
    const box = this.#canvas.getBoundingClientRect();
    const along = (position, length, pixels) => Math.max(0, Math.min(pixels - 1, Math.floor(position / length * pixels)));
    return {
      x: along(event.clientX - box.left, box.width, this.#size[0]),
      y: along(event.clientY - box.top, box.height, this.#size[1]),
    };
  }

  /** Returns the class and the confidence at a place. */
  at({ x, y }) {
    if (!this.#labels) return null;
    const column = Math.min(this.#canvas.width - 1, Math.floor((x + 0.5) * this.#canvas.width / this.#size[0]));
    const row = Math.min(this.#canvas.height - 1, Math.floor((y + 0.5) * this.#canvas.height / this.#size[1]));
    const at = row * this.#canvas.width + column;
    const label = this.#labels[at];
    return {
      label, known: this.#classes[label] ?? null,
      confidence: this.#confidence ? this.#confidence[at] / 255 : null,
    };
  }

  #hover(event) {
    this.#tell(this.#place(event));
  }

  /** Shows the class and the confidence beside a place. */
  #tell(place) {
    this.#cursor = place;
    const found = this.at(place);
    if (!found) {
      this.#tip.hidden = true;
      return;
    }
    const swatch = document.createElement("span");
    swatch.className = "swatch";
    if (found.known) swatch.style.background = found.known.colour;
    const name = document.createElement("b");
    name.textContent = found.known?.name ?? "no class";
    const sure = document.createElement("span");
    const share = found.confidence === null ? "" : percent(found.confidence);
    sure.textContent = found.known ? share : share && `best ${share}`;
    this.#tip.replaceChildren(swatch, name, sure);
    this.#tip.hidden = false;
    const [x, y] = this.#onScreen(place);
    const { width, height } = this.#canvas.getBoundingClientRect();
    const [own, tall] = [this.#tip.offsetWidth, this.#tip.offsetHeight];
    this.#tip.style.left = `${Math.max(0, Math.min(width - own, x + 14))}px`;
    this.#tip.style.top = `${y + 18 + tall > height ? Math.max(0, y - tall - 10) : y + 18}px`;
    this.#events.hover(found.known ? found.label : null);
  }

  #leave() {
    this.#tip.hidden = true;
    this.#cursor = null;
    this.#events.hover(null);
  }

  #onScreen({ x, y }) {
    const box = this.#canvas.getBoundingClientRect();
    return [(x + 0.5) / this.#size[0] * box.width, (y + 0.5) / this.#size[1] * box.height];
  }

  #pick(place) {
    this.#pinned = place;
    this.#moveCross();
    this.#events.pick(place);
  }

  #moveCross() {
    this.#cross.hidden = !this.#pinned;
    if (!this.#pinned) return;
    const [x, y] = this.#onScreen(this.#pinned);
    this.#cross.style.left = `${x}px`;
    this.#cross.style.top = `${y}px`;
  }

  /** Moves a cross by the arrow keys; Enter asks about its place. */
  #key(event) {
    const step = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] }[event.key];
    const [width, height] = this.#size;
    if (step) {
      event.preventDefault();
      const from = this.#cursor ?? this.#pinned ?? { x: Math.floor(width / 2), y: Math.floor(height / 2) };
      const pixels = Math.max(1, Math.round(Math.max(width, height) / (event.shiftKey ? 10 : 100)));
      const move = (value, by, most) => Math.max(0, Math.min(most - 1, value + by * pixels));
      this.#pinned = { x: move(from.x, step[0], width), y: move(from.y, step[1], height) };
      this.#moveCross();
      this.#tell(this.#pinned);
      const found = this.at(this.#pinned);
      if (found) this.#events.say(`${found.known?.name ?? "no class"}, ${percent(found.confidence ?? 0)}`);
    } else if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      this.#pick(this.#cursor ?? this.#pinned ?? { x: Math.floor(width / 2), y: Math.floor(height / 2) });
    } else if (event.key === "Escape") {
      this.#leave();
      this.#pick(null);
    }
  }
}

/** Picks the pixels of an image that its drawing shows. */
class Sampler {
  /** By drawn row and column: row and column of the image. */
  #rows;
  #columns;
  /** By row of the image: the drawn row, or −1. */
  #rowOf;
  /** By column of the image: number of drawn columns that show columns before it. */
  #before;
  #width;
  #drawn;

  constructor(width, height, drawnWidth, drawnHeight) {
    const shown = (drawn, all) => Uint32Array.from({ length: drawn }, (_, at) => Math.floor((at + 0.5) * all / drawn));
    this.#rows = shown(drawnHeight, height);
    this.#columns = shown(drawnWidth, width);
    this.#rowOf = new Int32Array(height).fill(-1);
    this.#rows.forEach((row, at) => { this.#rowOf[row] = at; });
    this.#before = new Uint32Array(width + 1);
    for (let column = 0, at = 0; column <= width; column++) {
      while (at < drawnWidth && this.#columns[at] < column) at++;
      this.#before[column] = at;
    }
    this.#width = width;
    this.#drawn = drawnWidth;
  }

  /** Returns the drawn labels, from runs of label and length over all rows. */
  labels(runs) {
    const labels = new Uint16Array(this.#rows.length * this.#drawn).fill(NONE);
    for (let at = 0, pixel = 0; at + 1 < runs.length; at += 2) {
      const [label, end] = [runs[at], pixel + runs[at + 1]];
      while (pixel < end) {
        const y = Math.floor(pixel / this.#width);
        const stop = Math.min(end, (y + 1) * this.#width);
        const row = this.#rowOf[y];
        if (row >= 0 && label !== NONE) {
          const start = row * this.#drawn;
          const [first, last] = [pixel - y * this.#width, stop - y * this.#width];
          labels.fill(label, start + this.#before[first], start + this.#before[last]);
        }
        pixel = stop;
      }
    }
    return labels;
  }

  /** Copies the drawn pixels of a row of the image. */
  row(y, bytes, to) {
    const row = this.#rowOf[y];
    if (row < 0) return;
    const start = row * this.#drawn;
    for (let at = 0; at < this.#drawn; at++) to[start + at] = bytes[this.#columns[at]];
  }
}

function rgbOf(colour) {
  const value = Number.parseInt(colour.slice(1), 16);
  return [value >> 16 & 255, value >> 8 & 255, value & 255];
}

/** Returns a share as percent. */
export function percent(share, digits = 0) {
  return `${(100 * share).toFixed(digits)} %`;
}
