"""Connects `zeg serve` to a real Label Studio and checks what arrives there.

Packages   Python 3.11 or later; label-studio 1.23.2 in an environment of its own; Chromium for the look into the editor
Set up     python3 -m venv venv && venv/bin/pip install label-studio==1.23.2
           cargo build --release --bin zeg
Run        python3 reference/label_studio_backend.py --zeg target/release/zeg --label-studio venv/bin/label-studio
               [--look DIR]   screenshots of the editor
           Both programs listen on this machine only and keep everything in a temporary folder.

Two projects are made by Label Studio's API: one with BrushLabels and uploaded images, one with PolygonLabels and an image
as base64. The backend is connected with a token by basic authentication. Predictions are retrieved, and every mask is
decoded and compared, pixel by pixel, with the label map that `zeg segment` writes for the same image and names; filled
polygons are compared with it within a pixel of their edges. At last the editor is opened in Chromium and its regions are
counted.
"""

import argparse
import base64
import http.cookiejar
import json
import os
import re
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.parse
import urllib.request
import zlib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
IMAGES = ROOT / "crates/zeg-serve/assets/examples"
MAIL, PASSWORD = "tester@example.org", "a-password-for-tests"
USER_TOKEN = "0123456789abcdef0123456789abcdef01234567"
BACKEND_TOKEN = "backend-token-for-tests-42"
UNLABELLED = 255
PATIENCE = 180  # seconds that a program may take to start, and a browser to show something


def names():
    """Returns the class names of the examples for MiniCLIP."""
    examples = json.loads((IMAGES / "examples.json").read_text())
    mini = [example for example in examples if example["for"] == "mini"]
    found = []
    for example in mini:
        found += [name for name in example["classes"] if name not in found]
    return found, [IMAGES / example["file"] for example in mini]


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class Studio:
    """Label Studio's API."""

    def __init__(self, address):
        self.address = address
        self.browser = urllib.request.build_opener(urllib.request.HTTPCookieProcessor(http.cookiejar.CookieJar()))

    def call(self, path, body=None, method=None, kind="application/json"):
        data = body if isinstance(body, (bytes, type(None))) else json.dumps(body).encode()
        request = urllib.request.Request(self.address + path, data, method=method)
        request.add_header("Authorization", f"Token {USER_TOKEN}")
        if data is not None:
            request.add_header("Content-Type", kind)
        try:
            with urllib.request.urlopen(request, timeout=PATIENCE) as answer:
                text = answer.read()
        except urllib.error.HTTPError as error:
            sys.exit(f"{path}: status {error.code}: {error.read().decode()[:2000]}")
        return json.loads(text) if text else None

    def upload(self, project, file):
        """Uploads an image; it becomes a task."""
        edge = "edge-of-a-part"
        head = f'--{edge}\r\nContent-Disposition: form-data; name="file"; filename="{file.name}"\r\n'
        body = head.encode() + b"Content-Type: image/png\r\n\r\n" + file.read_bytes() + f"\r\n--{edge}--\r\n".encode()
        return self.call(f"/api/projects/{project}/import", body, kind=f"multipart/form-data; boundary={edge}")


def wait_for(address, process, what):
    started = time.time()
    while time.time() - started < PATIENCE:
        if process.poll() is not None:
            sys.exit(f"{what} ended with {process.returncode}")
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.5)
    sys.exit(f"{what} did not start within {PATIENCE} s")


# ---- PNG and masks ---------------------------------------------------------------------------------------------


def labels_of(png):
    """Decodes an indexed PNG of 8 bits without filters or with the filters of its specification."""
    at, packed, width, height = 8, b"", 0, 0
    while at < len(png):
        (length,) = struct.unpack(">I", png[at : at + 4])
        kind, data = png[at + 4 : at + 8], png[at + 8 : at + 8 + length]
        if kind == b"IHDR":
            width, height, depth, colour = struct.unpack(">IIBB", data[:10])
            assert (depth, colour) == (8, 3), (depth, colour)
        elif kind == b"IDAT":
            packed += data
        at += 12 + length
    plain = zlib.decompress(packed)
    rows, above = [], bytearray(width)
    for y in range(height):
        start = y * (width + 1)
        kind, row = plain[start], bytearray(plain[start + 1 : start + 1 + width])
        for x in range(width):
            left, up, corner = row[x - 1] if x else 0, above[x], above[x - 1] if x else 0
            guess = left + up - corner
            near = min((left, up, corner), key=lambda value: abs(guess - value))
            row[x] = (row[x] + (0, left, up, (left + up) // 2, near)[kind]) & 255
        rows.append(row)
        above = row
    return width, height, b"".join(rows)


def mask_of(code):
    """Decodes a brush mask of Label Studio (the format of rle-pack) and returns its alpha channel."""
    bits = "".join(f"{byte:08b}" for byte in code)
    at = 0

    def take(count):
        nonlocal at
        at += count
        return int(bits[at - count : at], 2)

    total, size = take(32), take(5) + 1
    lengths = [take(4) + 1 for _ in range(4)]
    values = bytearray()
    while len(values) < total:
        repeats, kind = take(1), take(2)
        count = take(lengths[kind]) + 1
        if repeats:
            values += bytes([take(size)]) * count
        else:
            values += bytes(take(size) for _ in range(count))
    return bytes(values[3::4])


def inside(points, x, y):
    """Returns whether a point lies in a polygon, by the even-odd rule."""
    found = False
    for (ax, ay), (bx, by) in zip(points, points[1:] + points[:1]):
        if (ay > y) != (by > y) and x < (bx - ax) * (y - ay) / (by - ay) + ax:
            found = not found
    return found


def small_regions(labels, width, height, least):
    """Returns the pixels of regions of fewer than `least` pixels, which touch by edges or corners."""
    seen, small = bytearray(len(labels)), set()
    for start, label in enumerate(labels):
        if seen[start] or label == UNLABELLED:
            continue
        region, stack = [], [start]
        seen[start] = 1
        while stack:
            at = stack.pop()
            region.append(at)
            x, y = at % width, at // width
            for ny in range(max(0, y - 1), min(height, y + 2)):
                for nx in range(max(0, x - 1), min(width, x + 2)):
                    other = ny * width + nx
                    if not seen[other] and labels[other] == label:
                        seen[other] = 1
                        stack.append(other)
        if len(region) < least:
            small.update(region)
    return small


# ---- Checks ----------------------------------------------------------------------------------------------------


def expected(zeg, image, classes, folder):
    """Returns the label map that `zeg segment` writes."""
    target = folder / f"labels-{image.stem}"
    command = [zeg, "segment", image, "--model", "mini", "--classes", ", ".join(classes), "-o", target, "--write", "labels"]
    subprocess.run(command, check=True, capture_output=True)
    width, height, labels = labels_of((target / f"{image.stem}.png").read_bytes())
    small = small_regions(labels, width, height, 16)
    labels = bytes(UNLABELLED if at in small else label for at, label in enumerate(labels))
    return width, height, labels


def check_masks(prediction, classes, want):
    width, height, labels = want
    found = bytearray([UNLABELLED]) * len(labels)
    for region in prediction["result"]:
        assert region["type"] == "brushlabels" and region["from_name"] == "brush" and region["to_name"] == "image", region
        assert (region["original_width"], region["original_height"]) == (width, height)
        (name,) = region["value"]["brushlabels"]
        assert 0 <= region["score"] <= 1
        mask = mask_of(region["value"]["rle"])
        assert len(mask) == len(labels), (len(mask), len(labels))
        for at, alpha in enumerate(mask):
            if alpha:
                found[at] = classes.index(name)
    wrong = sum(a != b for a, b in zip(found, labels))
    assert wrong == 0, f"{wrong} pixels differ"
    return len(prediction["result"])


def check_polygons(prediction, classes, want):
    width, height, labels = want
    wrong = 0
    for region in prediction["result"]:
        assert region["type"] == "polygonlabels", region
        (name,) = region["value"]["polygonlabels"]
        label = classes.index(name)
        points = [(x * width / 100, y * height / 100) for x, y in region["value"]["points"]]
        xs, ys = [x for x, _ in points], [y for _, y in points]
        for y in range(max(0, int(min(ys)) - 1), min(height, int(max(ys)) + 2)):
            for x in range(max(0, int(min(xs)) - 1), min(width, int(max(xs)) + 2)):
                if not inside(points, x + 0.5, y + 0.5) or labels[y * width + x] == label:
                    continue
                # Outlines leave the pixels' edges by at most one pixel.
                near = [
                    labels[ny * width + nx]
                    for ny in range(max(0, y - 2), min(height, y + 3))
                    for nx in range(max(0, x - 2), min(width, x + 3))
                ]
                wrong += label not in near
    assert wrong == 0, f"{wrong} pixels lie outside of their regions"
    return len(prediction["result"])


# ---- A browser -------------------------------------------------------------------------------------------------


class Browser:
    """Headless Chromium, driven by its DevTools protocol over pipes."""

    def __init__(self, folder):
        to_read, self.to = os.pipe()
        self.back, from_write = os.pipe()

        def pipes():
            # The protocol is spoken on 3 and 4; the copies must not be overwritten before they are made.
            a, b = os.dup(to_read), os.dup(from_write)
            os.dup2(a, 3)
            os.dup2(b, 4)
            os.set_inheritable(3, True)
            os.set_inheritable(4, True)

        self.process = subprocess.Popen(
            ["chromium", "--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe", "--hide-scrollbars",
             f"--user-data-dir={folder}"],
            preexec_fn=pipes, close_fds=False, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        self.rest, self.number, self.session = b"", 0, None
        target = self.call("Target.createTarget", url="about:blank")["targetId"]
        self.session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        self.call("Page.enable")
        self.call("Emulation.setDeviceMetricsOverride", width=1280, height=900, deviceScaleFactor=1, mobile=False)

    def call(self, method, **params):
        self.number += 1
        message = {"id": self.number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        os.write(self.to, json.dumps(message).encode() + b"\0")
        while True:
            while b"\0" not in self.rest:
                self.rest += os.read(self.back, 1 << 20)
            line, self.rest = self.rest.split(b"\0", 1)
            answer = json.loads(line)
            if answer.get("id") == self.number:
                assert "error" not in answer, answer
                return answer["result"]

    def eval(self, code):
        answer = self.call("Runtime.evaluate", expression=code, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer
        return answer["result"].get("value")

    def wait_for(self, code):
        started = time.time()
        while time.time() - started < PATIENCE:
            if self.eval(f"Boolean({code})"):
                return
            time.sleep(0.3)
        sys.exit(f"never true: {code}\n{self.eval('document.body.innerText')[:2000]}")

    def open(self, address):
        self.call("Page.navigate", url=address)
        self.wait_for("document.readyState === 'complete' && location.href !== 'about:blank'")

    def look(self, folder, name):
        if folder:
            folder.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(base64.b64decode(self.call("Page.captureScreenshot")["data"]))

    def close(self):
        self.call("Browser.close")
        self.process.wait(timeout=20)


def see(studio, project, task, regions, folder, look, name):
    """Opens a task in the editor and counts the regions of its prediction there."""
    browser = Browser(folder / f"chromium-{name}")
    browser.open(f"{studio.address}/user/login/")
    browser.wait_for("document.querySelector('input[name=email]')")
    browser.eval(
        f"document.querySelector('input[name=email]').value = {json.dumps(MAIL)};"
        f"document.querySelector('input[name=password]').value = {json.dumps(PASSWORD)};"
        "document.querySelector('input[name=password]').form.submit()"
    )
    browser.wait_for("!location.pathname.includes('login') && document.readyState === 'complete'")
    browser.open(f"{studio.address}/projects/{project}/data?task={task}")
    store = "window.Htx && window.Htx.annotationStore"
    browser.wait_for(f"{store} && Htx.annotationStore.predictions.length")
    browser.eval("void Htx.annotationStore.selectPrediction(Htx.annotationStore.predictions[0].id)")
    count = "Htx.annotationStore.selected.regionStore.regions.length"
    browser.wait_for(f"{count} === {regions}")
    time.sleep(3)  # until masks are painted
    browser.look(look, f"{name}.png")
    seen = browser.eval(count)
    browser.close()
    return seen


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zeg", required=True, type=Path)
    parser.add_argument("--label-studio", required=True, type=Path)
    parser.add_argument("--look", type=Path)
    arguments = parser.parse_args()
    classes, images = names()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        started = []
        try:
            run(arguments, folder, classes, images, started)
        finally:
            for process in started:
                if process.poll() is None:
                    process.send_signal(signal.SIGTERM)
                    try:
                        process.wait(timeout=30)
                    except subprocess.TimeoutExpired:
                        process.kill()


def run(arguments, folder, classes, images, started):
    port = free_port()
    environment = {
        **os.environ,
        "LABEL_STUDIO_BASE_DATA_DIR": str(folder / "studio"),
        # Label Studio 1.23 connects to no address of this machine or of a private network otherwise.
        "USE_DEFAULT_BANNED_SUBNETS": "false",
        "USER_ADDITIONAL_BANNED_SUBNETS": "169.254.0.0/16",
        "COLLECT_ANALYTICS": "false",
        "LATEST_VERSION_CHECK": "false",
    }
    log = (folder / "studio.log").open("w")
    command = [arguments.label_studio, "start", "--no-browser", "--internal-host", "127.0.0.1", "--port", str(port)]
    command += ["--enable-legacy-api-token", "--username", MAIL, "--password", PASSWORD, "--user-token", USER_TOKEN]
    process = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    started.append(process)
    studio = Studio(f"http://localhost:{port}")
    wait_for(f"{studio.address}/health", process, "Label Studio")
    version = studio.call("/api/version")
    print("Label Studio", version.get("release"))

    token, backend_port = folder / "token", free_port()
    token.write_text(BACKEND_TOKEN)
    backend = f"http://localhost:{backend_port}"
    command = [arguments.zeg, "serve", "--model", "mini", "--port", str(backend_port), "--token-file", token,
               "--label-studio", studio.address]
    process = subprocess.Popen(command)
    started.append(process)
    wait_for(f"{backend}/readyz", process, "zeg serve")

    labels = "".join(f'<Label value="{name}"/>' for name in classes)
    image = '<Image name="image" value="$image" zoom="true"/>'
    brush = f'<View>{image}<BrushLabels name="brush" toName="image">{labels}</BrushLabels></View>'
    outline = f'<View>{image}<PolygonLabels name="outline" toName="image">{labels}</PolygonLabels></View>'
    wanted = {file.name: expected(arguments.zeg, file, classes, folder) for file in images}

    for kind, config, check in (("brush", brush, check_masks), ("polygon", outline, check_polygons)):
        project = studio.call("/api/projects/", {"title": kind, "label_config": config})["id"]
        if kind == "brush":
            for file in images:
                studio.upload(project, file)
        else:
            code = base64.b64encode(images[0].read_bytes()).decode()
            task = {"data": {"image": f"data:image/png;base64,{code}", "file": images[0].name}}
            studio.call(f"/api/projects/{project}/import", [task])
        connection = {
            "url": backend, "project": project, "title": "zeg", "is_interactive": False,
            "auth_method": "BASIC_AUTH", "basic_auth_user": "zeg", "basic_auth_pass": BACKEND_TOKEN,
        }
        connected = studio.call("/api/ml/", connection)
        print(f"{kind}: connected, state {connected.get('readable_state') or connected.get('state')}, "
              f"model version {connected.get('model_version')}")
        action = urllib.parse.urlencode({"id": "retrieve_tasks_predictions", "project": project})
        answer = studio.call(f"/api/dm/actions?{action}", {"selectedItems": {"all": True, "excluded": []}})
        print(f"{kind}: {answer}")
        tasks = studio.call(f"/api/tasks?project={project}&fields=all")["tasks"]
        assert len(tasks) == (len(images) if kind == "brush" else 1), tasks
        for task in tasks:
            task = studio.call(f"/api/tasks/{task['id']}")
            (prediction,) = task["predictions"]
            # Name of the model, and a digest of its settings and the labelling configuration.
            assert re.fullmatch("mini-[0-9a-f]{8}", prediction["model_version"]), prediction["model_version"]
            assert connected.get("model_version") in (None, prediction["model_version"]), connected
            name = task["data"].get("file") or re.sub(r"^.*/(?:[0-9a-f]{8}-)?", "", task["data"]["image"])
            regions = check(prediction, classes, wanted[name])
            print(f"{kind}: task {task['id']}, {name}: {regions} regions agree with `zeg segment`, "
                  f"score {prediction['score']:.3f}, model {prediction['model_version']}")
        if arguments.look:
            seen = see(studio, project, task["id"], regions, folder, arguments.look, kind)
            print(f"{kind}: the editor shows {seen} regions")
    print("all agrees")


if __name__ == "__main__":
    main()
