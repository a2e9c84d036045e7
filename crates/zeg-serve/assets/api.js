// The server's HTTP interface: one function for a call, with the token and with problems as exceptions.

const TOKEN = "zeg-token";

/** A problem as the server describes it (RFC 9457), or that there is no answer at all. */
export class Problem extends Error {
  constructor({ code, title, detail, hint, status, retryAfter }) {
    super(detail || title);
    this.name = "Problem";
    Object.assign(this, { code, title, detail, hint, status, retryAfter });
  }
}

/** Takes the token out of the address (`/#token=…`), so that it is neither seen nor copied with it. */
export function takeTokenFromAddress() {
  // Not by URLSearchParams, which reads the sign + of a token as a space.
  const given = /^#(?:.*&)?token=([^&]+)/.exec(location.hash)?.[1];
  if (!given) return;
  try {
    setToken(decodeURIComponent(given));
  } catch {
    setToken(given); // a sign % that begins no escape
  }
  history.replaceState(null, "", location.pathname + location.search);
}

export function setToken(token) {
  try {
    sessionStorage.setItem(TOKEN, token);
  } catch {
    memory = token; // storage may be switched off
  }
}

let memory = "";

export function token() {
  try {
    return sessionStorage.getItem(TOKEN) ?? memory;
  } catch {
    return memory;
  }
}

/** Address of the server without a slash at its end, also behind a path of a proxy. */
export const ADDRESS = new URL(".", location.href).href.replace(/\/$/, "");

/** Calls the server and returns the response; throws a {@link Problem} for every other status than 2xx. */
export async function call(path, { method = "GET", form, json, signal } = {}) {
  const headers = {};
  if (token()) headers.Authorization = `Bearer ${token()}`;
  if (json !== undefined) headers["Content-Type"] = "application/json";
  let response;
  try {
    response = await fetch(`${ADDRESS}/${path}`, {
      // Image and page may be left while it is told that they are no longer needed.
      method, headers, signal, keepalive: method === "DELETE", body: form ?? (json === undefined ? undefined : JSON.stringify(json)),
    });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({
      code: "no-answer", title: "The server does not answer.", status: 0,
      hint: "Is `zeg serve` still running, and is this machine still connected to it?",
    });
  }
  if (response.ok) return response;
  throw await problemOf(response);
}

/** Calls the server and returns the JSON of its answer. */
export async function callJson(path, options) {
  const response = await call(path, options);
  try {
    return await response.json();
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Problem({ code: "bad-answer", title: "The answer was cut off.", status: response.status });
  }
}

async function problemOf(response) {
  const retryAfter = Number(response.headers.get("Retry-After")) || undefined;
  let said = {};
  try {
    said = await response.json();
  } catch {
    // a proxy's page, or nothing
  }
  return new Problem({
    code: said.code ?? "http", title: sentence(said.title ?? `The server answered with status ${response.status}`),
    detail: sentence(said.detail), hint: sentence(said.hint), status: response.status, retryAfter,
  });
}

/** Returns a text with a capital letter at its beginning and a full stop at its end. */
function sentence(text) {
  if (!text) return "";
  // File names stay as they are.
  const whole = /^[a-z]+[ ,]/.test(text) ? text[0].toUpperCase() + text.slice(1) : text;
  return /[.!?…]$/.test(whole) ? whole : `${whole}.`;
}
