"""Measures the package: the time around the library's work, memory over many calls, and an engine beside two processes.

    python measure.py overhead --model CLIP --text TABLE.npy --classes voc20
    python measure.py memory --calls 2000 --threads 20
    python measure.py ray --images FOLDER --model CLIP --text TABLE.npy --classes voc20

These are no tests: the numbers depend on what else the machine does.
"""

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

import zeg
from zeg import _classes, _images

RECIPES = Path(__file__).resolve().parents[3] / "examples/python"


def median(call, runs):
    times = []
    for _ in range(runs):
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def overhead(arguments):
    """The call, and everything in it that is not the library: images, class lists, threads, arrays."""
    segmenter = zeg.Segmenter.load(arguments.model, text=arguments.text, text_classes=arguments.classes)
    image = np.random.default_rng(0).integers(0, 255, (512, 512, 3), np.uint8)
    core, listed = segmenter._core, _classes.read(arguments.classes)
    loaded = _images.load(image)
    result = segmenter.segment(image, arguments.classes)
    calls = {
        "array to image": lambda: _images.load(image),
        "class list": lambda: _classes.read(arguments.classes),
        "another thread": lambda: zeg._zeg.Image.decode(png, "x"),
    }
    png = zeg.Segmenter.load("mini").segment(np.zeros((1, 1, 3), np.uint8), "red,blue").to_png()
    around = {name: median(call, 200) for name, call in calls.items()}
    results = [core.segment(loaded, listed, None, None, [], False, False)[0] for _ in range(3)]
    around["result to arrays"] = median(lambda: (results[0].labels, results[0].confidence), 20)
    del result
    whole = median(lambda: segmenter.segment(image, arguments.classes), arguments.runs)
    for name, seconds in around.items():
        print(f"{name:20} {1000 * seconds:8.3f} ms")
    total = sum(around.values())
    print(f"{'a call':20} {1000 * whole:8.1f} ms; around the library {100 * total / whole:.3f} %")


def resident():
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def memory(arguments):
    """Memory while threads share a model."""
    segmenter = zeg.Segmenter.load("mini")
    image = np.random.default_rng(0).integers(0, 255, (120, 160, 3), np.uint8)

    def call(number):
        result = segmenter.segment(image, "red,blue,green", scores=number % 10 == 0)
        return result.labels.sum() + result.confidence.sum()

    with ThreadPoolExecutor(arguments.threads) as pool:
        for done in range(0, arguments.calls, 200):
            list(pool.map(call, range(200)))
            print(f"{done + 200:6} calls  {resident():8.1f} MB", flush=True)


def ray(arguments):
    """Ray with two actors beside two processes of the program, one thread each, over the same images."""
    options = ["--model", arguments.model, "--classes", arguments.classes]
    options += ["--text", arguments.text] if arguments.text else []
    rows = [] if arguments.text is None else ["--text-classes", arguments.classes]
    with tempfile.TemporaryDirectory() as folder:
        started = time.perf_counter()
        program = [sys.executable, "-m", "zeg", "segment", arguments.images, *options, *rows, "--threads", "1"]
        program += ["--write", "labels,coco"]
        parts = [[*program, "--shard", f"{part}/2", "-o", f"{folder}/part-{part}"] for part in (1, 2)]
        processes = [subprocess.Popen(part, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for part in parts]
        assert [process.wait() for process in processes] == [0, 0]
        two = time.perf_counter() - started
        started = time.perf_counter()
        script = [sys.executable, RECIPES / "ray_segment.py", arguments.images, f"{folder}/ray", *options]
        subprocess.run(script, check=True)
        engine = time.perf_counter() - started
        records = sorted(path.stat().st_mtime for path in Path(folder, "ray/images").rglob("*.zeg.json"))
        steady = (records[-1] - records[0]) * len(records) / (len(records) - 1)
    print(f"two processes {two:.1f} s; Ray {engine:.1f} s with its start, {steady:.1f} s from image to image")


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["overhead", "memory", "ray"])
    parser.add_argument("--model", default="mini")
    parser.add_argument("--text")
    parser.add_argument("--classes", default="red,blue,green")
    parser.add_argument("--images")
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--calls", type=int, default=2000)
    parser.add_argument("--threads", type=int, default=20)
    arguments = parser.parse_args()
    {"overhead": overhead, "memory": memory, "ray": ray}[arguments.what](arguments)


if __name__ == "__main__":
    main()
