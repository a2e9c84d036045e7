// What the page asks of the server about one image: it is encoded once, and then asked again and again.

import { call, callJson, Problem } from "./api.js";

/** Number of times that a request is repeated while the server is busy. */
const PATIENCE = 20;
/** Longest time between two attempts, in seconds. */
const LONGEST_WAIT = 10;

/** Waits, unless the signal aborts. */
function wait(seconds, signal) {
  signal?.throwIfAborted();
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, 1000 * seconds);
    signal?.addEventListener("abort", () => {
      clearTimeout(timer);
      reject(signal.reason);
    }, { once: true });
  });
}

/** Repeats a request while the server says that its queue is full; `busy(seconds)` is told of every pause. */
async function patiently(request, signal, busy) {
  for (let attempt = 1; ; attempt++) {
    try {
      const answer = await request();
      busy(0);
      return answer;
    } catch (error) {
      if (error.code !== "queue-full" || attempt === PATIENCE) throw error;
      const seconds = Math.min(error.retryAfter ?? 1, LONGEST_WAIT);
      busy(seconds);
      await wait(seconds, signal);
    }
  }
}

/** An image of the page with its encodings by model. */
export class OpenedImage {
  #encodings = new Map();

  constructor(blob, name) {
    this.blob = blob;
    this.name = name;
  }

  /** Encodes the image for a model, unless that has been done; returns `{ id, width, height, time }`. */
  encode(model, busy) {
    let encoding = this.#encodings.get(model);
    if (!encoding) {
      // Not aborted when the question changes: every question needs it.
      encoding = patiently(() => {
        const form = new FormData();
        form.append("model", model);
        form.append("image", this.blob, this.name);
        return callJson("v1/encodings", { method: "POST", form });
      }, null, busy);
      this.#encodings.set(model, encoding);
      encoding.catch(() => this.#encodings.delete(model));
    }
    return encoding;
  }

  /** Asks about the image; one that the server has forgotten is encoded again. */
  async ask(model, question, { signal, busy, raw = false }) {
    for (let attempt = 1; ; attempt++) {
      const encoding = await this.encode(model, busy);
      signal?.throwIfAborted();
      const path = `v1/encodings/${encoding.id}/segment`;
      const options = { method: "POST", json: question, signal };
      try {
        const answer = await patiently(() => (raw ? call : callJson)(path, options), signal, busy);
        return raw ? answer : { answer, encoding };
      } catch (error) {
        if (error.code !== "unknown-encoding" || attempt === 2) throw error;
        this.#encodings.delete(model);
      }
    }
  }

  /** Tells the server that the image is no longer needed. */
  forget() {
    for (const encoding of this.#encodings.values()) {
      encoding.then(({ id }) => call(`v1/encodings/${id}`, { method: "DELETE" })).catch(() => {});
    }
    this.#encodings.clear();
  }
}

/** Returns what the page must know at the start. */
export async function facts() {
  const [models, lists] = await Promise.all([callJson("v1/models"), callJson("v1/class-lists")]);
  return { ...models, lists: lists.lists };
}

/** Returns the names of a class list, with synonyms as `sofa|couch`. */
export async function namesOf(list) {
  const { classes } = await callJson(`v1/class-lists/${encodeURIComponent(list)}`);
  return classes.map(({ name, synonyms }) => [name, ...synonyms].join("|"));
}

/** Returns the state of the server, or null if it does not answer. */
export async function status() {
  try {
    return await callJson("v1/status");
  } catch (error) {
    return error instanceof Problem && error.status ? {} : null;
  }
}
