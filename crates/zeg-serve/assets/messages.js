// What the page says in words: problems, notices, and sentences for screen readers.

import { setToken } from "./api.js";

const $ = id => document.getElementById(id);

/** Says a text to screen readers. */
export function say(text) {
  $("spoken").textContent = text;
}

/** Shows what a user should know about the image or the names, below the image; an empty list takes it away. */
export function showNotices(notices) {
  const rows = [...new Set(notices)].map(notice => {
    const row = document.createElement("li");
    // The server begins a sentence with a small letter, as its messages stand behind a name.
    row.textContent = `${notice.replace(/^./u, first => first.toUpperCase()).replace(/\.$/, "")}.`;
    return row;
  });
  // The same notices are not read out again.
  const text = rows.map(row => row.textContent).join();
  if (text === [...$("notices").children].map(row => row.textContent).join()) return;
  $("notices").replaceChildren(...rows);
}

/** Sets what is done once a token was typed at the start. */
export function onToken(start) {
  begin = start;
}

let retry = null;
/** What is done once a token was typed and no problem says what to try again. */
let begin = () => {};

/** Shows a problem in plain sentences; `again` is what the button "Try again" does. */
export function showProblem(error, again) {
  if (error?.name === "AbortError") return;
  const known = error?.code !== undefined;
  if (!known) console.error(error);
  $("problem-title").textContent = known ? error.title : "The page failed.";
  $("problem-detail").textContent = known ? error.detail ?? "" : String(error?.message ?? error);
  $("problem-hint").textContent = error?.code === "unauthorized"
    ? "The token was given to whoever started the server with --token-file." : error?.hint ?? "";
  $("token-form").hidden = error?.code !== "unauthorized";
  $("problem-retry").hidden = !again || error?.code === "unauthorized";
  $("problem").hidden = false;
  retry = again;
  if (error?.code === "unauthorized" && document.activeElement !== $("token")) {
    $("token").focus();
    $("token").select(); // a wrong one is typed over
  }
}

export function hideProblem() {
  $("problem").hidden = true;
}

$("problem-close").addEventListener("click", hideProblem);
$("problem-retry").addEventListener("click", () => {
  hideProblem();
  retry?.();
});
$("token-form").addEventListener("submit", event => {
  event.preventDefault();
  setToken($("token").value.trim());
  $("token").blur();
  hideProblem();
  (retry ?? begin)();
});
