"""Runs the browser example in headless Chromium and compares its labels with those of ONNX Runtime in Python.

Run        python reference/onnx_browser_test.py --zeg target/debug/zeg --ort node_modules/onnxruntime-web/dist
Packages   numpy, pillow, onnxruntime, safetensors; Chromium on the path
Writes     the share of equal labels, and fails below 99.9 %

`npm install onnxruntime-web` fetches the runtime. The model is MiniCLIP, its class names are made into a table after the
export, and the image is made by rule.
"""

import argparse
import functools
import http.server
import json
import pathlib
import shutil
import subprocess
import sys
import tempfile
import threading

import numpy as np
import onnxruntime
from PIL import Image
from safetensors import safe_open

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from onnx_export import made_image

HERE = pathlib.Path(__file__).parent
CLASSES = "striped red disc, plain blue square, dotted green, yellow"
PAGE = """<!doctype html><iframe src="index.html" id="page"></iframe><script type="module">
const page = document.getElementById("page");
const send = (body) => fetch("result", { method: "POST", body: JSON.stringify(body) });
try {
  for (let tries = 0; !page.contentWindow.ready; tries++) {
    if (tries > 600) throw new Error("the page did not become ready");
    await new Promise((resolve) => setTimeout(resolve, 100));
  }
  const image = await (await fetch("image.png")).blob();
  const { labels, shares } = await page.contentWindow.show(image);
  await send({ labels: Array.from(labels), shares, state: page.contentDocument.getElementById("state").textContent });
} catch (error) {
  await send({ error: String(error) });
}
</script>"""


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves a folder, and keeps the result that the page sends."""

    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.server.result = json.loads(body)
        self.send_response(204)
        self.end_headers()
        self.server.done.set()

    def log_message(self, *_):
        pass


def in_browser(folder, chromium, seconds=180):
    """Returns what the page sends."""
    Handler.extensions_map |= {".mjs": "text/javascript", ".wasm": "application/wasm"}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Handler, directory=folder))
    server.done, server.result = threading.Event(), None
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_address[1]}/test.html"
    command = [chromium, "--headless", "--disable-gpu", "--no-sandbox", "--disable-dev-shm-usage", f"--user-data-dir={folder}/profile"]
    browser = subprocess.Popen([*command, "--remote-debugging-port=0", address], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        server.done.wait(seconds)
    finally:
        browser.terminate()
        browser.wait(20)
        server.shutdown()
    return server.result


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--zeg", required=True)
    parser.add_argument("--ort", required=True, help="folder dist of the package onnxruntime-web")
    parser.add_argument("--chromium", default=next(filter(shutil.which, ["chromium", "chromium-browser", "google-chrome"]), None))
    arguments = parser.parse_args()
    if arguments.chromium is None:
        sys.exit("no Chromium is installed")
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        run = functools.partial(subprocess.run, check=True, stdout=subprocess.DEVNULL)
        options = ["--method", "clearclip", "--dynamic-size", "--with-preprocessing", "-o", folder / "model.onnx"]
        run([arguments.zeg, "export", "mini", *options])
        run([arguments.zeg, "embed", "--model", "mini", "--classes", CLASSES, "-o", folder / "names.safetensors"])
        for name in ["index.html", "segment.mjs"]:
            shutil.copy(HERE / "onnx_browser" / name, folder)
        (folder / "ort").mkdir()
        for name in ["ort.wasm.min.mjs", "ort-wasm-simd-threaded.mjs", "ort-wasm-simd-threaded.wasm"]:
            shutil.copy(pathlib.Path(arguments.ort) / name, folder / "ort")
        (folder / "test.html").write_text(PAGE)
        made_image(3, 96, 128).save(folder / "image.png")
        found = in_browser(folder, arguments.chromium)
        if not found or "error" in found:
            sys.exit(f"the page failed: {found}")
        session = onnxruntime.InferenceSession(folder / "model.onnx")
        with safe_open(folder / "names.safetensors", "numpy") as table:
            embeddings = table.get_tensor("embeddings").astype(np.float32)
        image = np.asarray(Image.open(folder / "image.png").convert("RGB"))[None]
        scores = session.run(["scores"], {"image": image, "class_embeddings": embeddings})[0][0]
    equal = np.mean(scores.argmax(0).ravel() == np.array(found["labels"]))
    print(f"{found['state']}; {100 * equal:.3f} % of {len(found['labels'])} labels are equal in the browser")
    return 0 if equal >= 0.999 and len(set(found["labels"])) > 1 else 1


if __name__ == "__main__":
    sys.exit(main())
