// Downloads: one button for every kind of file that the server writes.

/** Short names of the kinds, for people; others are shown as they are called. */
const TITLES = {
  labels: "Label map (PNG)",
  overlay: "Overlay (PNG)",
  confidence: "Confidence (PNG)",
  summary: "Summary (JSON)",
  probabilities: "Scores (PNG)",
  "probabilities-npy": "Scores (NumPy)",
  coco: "COCO masks",
  "coco-polygons": "COCO polygons",
  "label-studio": "Label Studio masks",
  "label-studio-polygons": "Label Studio polygons",
  cvat: "CVAT masks",
  "cvat-polygons": "CVAT polygons",
  yolo: "YOLO",
  html: "Web page",
};

/** Fills the list with buttons; `fetchFile(name)` returns the response with the file. */
export function showExports(list, formats, fetchFile, failed) {
  const rows = formats.filter(format => format.file).map(({ name, about }) => {
    const row = document.createElement("li");
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = TITLES[name] ?? name;
    button.title = about;
    button.dataset.format = name;
    button.addEventListener("click", async () => {
      button.disabled = true;
      try {
        await save(await fetchFile(name), name);
      } catch (error) {
        failed(error);
      } finally {
        button.disabled = false;
      }
    });
    row.append(button);
    return row;
  });
  list.replaceChildren(...rows);
}

/** Saves the body of a response under the name that the server gives it. */
async function save(response, fallback) {
  const said = response.headers.get("Content-Disposition") ?? "";
  const link = document.createElement("a");
  link.href = URL.createObjectURL(await response.blob());
  link.download = fileName(said) ?? fallback;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

/** Returns the file name of a Content-Disposition (RFC 6266), the one in Unicode first. */
function fileName(disposition) {
  const encoded = /filename\*=UTF-8''([^;]+)/i.exec(disposition)?.[1];
  if (encoded) {
    try {
      return decodeURIComponent(encoded);
    } catch {
      // a wrong escape: the plain name then
    }
  }
  return /filename="((?:[^"\\]|\\.)*)"/i.exec(disposition)?.[1]?.replace(/\\(.)/g, "$1")
    ?? /filename=([^;\s]+)/i.exec(disposition)?.[1];
}
