// Ways to bring an image to the page: choose, drop or paste it.

import { showProblem } from "./messages.js";

const $ = id => document.getElementById(id);

/** Calls `open(file, name)` for every image that is chosen, dropped or pasted. */
export function takeFiles(open) {
  $("choose").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => {
    const [file] = $("file").files;
    if (file) open(file, file.name);
    $("file").value = "";
  });

  let depth = 0;
  addEventListener("dragenter", event => {
    if (!event.dataTransfer?.types.includes("Files")) return;
    depth++;
    document.body.classList.add("dragging");
  });
  addEventListener("dragleave", () => {
    depth = Math.max(0, depth - 1);
    if (!depth) document.body.classList.remove("dragging");
  });
  addEventListener("dragover", event => event.preventDefault());
  addEventListener("drop", event => {
    event.preventDefault();
    depth = 0;
    document.body.classList.remove("dragging");
    const [file] = event.dataTransfer?.files ?? [];
    if (file) open(file, file.name);
    else showProblem({ code: "no-file", title: "That was no file.", hint: "Save the image first, or copy it and paste it here." });
  });
  addEventListener("paste", event => {
    const item = [...event.clipboardData?.items ?? []].find(one => one.kind === "file" && one.type.startsWith("image/"));
    if (!item) return;
    event.preventDefault();
    const file = item.getAsFile();
    if (file) open(file, file.name || "pasted.png");
  });
}
