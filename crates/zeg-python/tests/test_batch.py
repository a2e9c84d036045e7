"""Results on engines: the files of finished images, and the recipes with a worker that is killed."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import CLASSES, program, stripes
from PIL import Image

import zeg
from zeg.batch import COLUMNS, FileSegmenter, coco_of_rows, list_images

COUNT = int(os.environ.get("ZEG_TEST_IMAGES", "40"))
RECIPES = Path(__file__).resolve().parents[3] / "examples/python"


@pytest.fixture(scope="session")
def folder(tmp_path_factory):
    """Returns a folder of images, some of them in a folder inside it."""
    root = tmp_path_factory.mktemp("many") / "images"
    (root / "inner").mkdir(parents=True)
    for number in range(COUNT):
        name = f"{'inner/' if number % 3 == 0 else ''}{number:03}.png"
        Image.fromarray(stripes(number, 200, 260)).save(root / name)
    return root


@pytest.fixture(scope="session")
def expected(folder, tmp_path_factory, own_cache):
    """Returns the folder with the results of the program."""
    out = tmp_path_factory.mktemp("expected") / "out"
    options = ["--model", "mini", "--classes", CLASSES, "--write", "labels,coco", "-o", out]
    done = program("segment", folder, "-r", *options)
    assert done.returncode == 0, done.stderr
    return out


def assert_equal(expected, labels, coco):
    """Checks that results are those of the program, each once."""
    whole = json.loads((expected / "coco.json").read_text())
    assert sorted(image["file_name"] for image in coco["images"]) == sorted(image["file_name"] for image in whole["images"])
    # The program lists the images of a folder in an order of its own.
    assert by_name(coco) == by_name(whole)
    assert coco["categories"] == whole["categories"]
    stored = sorted(path.relative_to(expected) for path in expected.rglob("*.png"))
    assert sorted(path.relative_to(labels) for path in labels.rglob("*.png")) == stored
    for path in stored:
        assert (labels / path).read_bytes() == (expected / path).read_bytes(), path


def by_name(coco):
    names = {image["id"]: image["file_name"] for image in coco["images"]}
    found = {name: [] for name in names.values()}
    for annotation in coco["annotations"]:
        rest = {key: value for key, value in annotation.items() if key not in ("id", "image_id")}
        found[names[annotation["image_id"]]].append(rest)
    return found


def test_results_are_kept_and_read_back(folder, expected, tmp_path):
    names = list_images(folder)
    assert len(names) == COUNT
    work = FileSegmenter(folder, tmp_path, model="mini", classes=CLASSES)
    first = work({"name": names[:25]})
    assert list(first) == list(COLUMNS) and not any(first["reused"])
    again = FileSegmenter(folder, tmp_path, model="mini", classes=CLASSES)
    rows = [again.segment(name) for name in names]
    assert [row["reused"] for row in rows] == [True] * 25 + [False] * (COUNT - 25)
    assert first["labels"] == [row["labels"] for row in rows[:25]]
    assert_equal(expected, tmp_path, coco_of_rows(rows))
    # A label map that is not what was written is made again.
    (tmp_path / "001.png").write_bytes(b"half")
    assert not again.segment("001.png")["reused"]
    assert again.segment("001.png")["reused"]


def test_uris_are_folders_too(folder, tmp_path):
    pytest.importorskip("pyarrow")
    uri = folder.as_uri()
    assert list_images(uri) == list_images(folder)
    work = FileSegmenter(uri, (tmp_path / "out").as_uri(), model="mini", classes=CLASSES)
    local = FileSegmenter(folder, tmp_path / "local", model="mini", classes=CLASSES)
    for name in list_images(folder)[:2]:
        assert work.segment(name)["labels"] == local.segment(name)["labels"]
        assert work.segment(name)["reused"]
    assert not list(tmp_path.rglob("*.part"))


def test_images_that_fail_have_a_row_and_are_tried_again(tmp_path):
    (tmp_path / "images").mkdir()
    path = tmp_path / "images/a.png"
    path.write_bytes(b"no image")
    work = FileSegmenter(tmp_path / "images", tmp_path / "out", model="mini", classes=CLASSES)
    row = work.segment("a.png")
    assert row["error"] and not row["coco"]
    assert work.segment("missing.png")["error"]
    Image.fromarray(stripes(1)).save(path)
    assert not work.segment("a.png")["error"]


def test_results_of_other_settings_are_refused(tmp_path):
    (tmp_path / "images").mkdir()
    Image.fromarray(stripes(1)).save(tmp_path / "images/a.png")
    FileSegmenter(tmp_path / "images", tmp_path / "out", model="mini", classes=CLASSES).segment("a.png")
    other = FileSegmenter(tmp_path / "images", tmp_path / "out", model="mini", classes=CLASSES, threshold=0.9)
    with pytest.raises(zeg.SettingsError, match="other settings"):
        other.segment("a.png")


def test_parts_of_the_program_are_merged_to_the_whole(folder, expected, tmp_path):
    options = ["-r", "--model", "mini", "--classes", CLASSES, "--write", "labels,coco"]
    for part in ["1/2", "2/2"]:
        done = program("segment", folder, *options, "--shard", part, "-o", tmp_path / f"part-{part[0]}")
        assert done.returncode == 0, done.stderr
    whole = tmp_path / "whole"
    done = program("segment", "merge", tmp_path / "part-1", tmp_path / "part-2", "-o", whole)
    assert done.returncode == 0, done.stderr
    assert (whole / "coco.json").read_bytes() == (expected / "coco.json").read_bytes()
    assert_equal(expected, whole, json.loads((whole / "coco.json").read_text()))


def records(output):
    return {path: path.stat().st_mtime_ns for path in (output / "images").rglob("*.zeg.json")}


def workers(process, pattern):
    """Returns the processes that a process has started, or one of these, and whose command line has a text."""
    parents, lines = {}, {}
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            parents[int(folder.name)] = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
            lines[int(folder.name)] = (folder / "cmdline").read_bytes()
        except OSError:
            continue

    def is_below(pid):
        while pid in parents and pid != process:
            pid = parents[pid]
        return pid == process

    return [pid for pid, line in lines.items() if pattern in line and pid != process and is_below(pid)]


def run_and_kill_a_worker(command, output, pattern, log):
    """Runs a recipe, kills a worker after the first results, and returns what was finished by then."""
    with open(log, "w") as text:
        process = subprocess.Popen(command, stdout=text, stderr=subprocess.STDOUT)
    deadline = time.monotonic() + 240
    while len(records(output)) < 5 and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    before = records(output)
    # The last one that was started: a worker of Spark stands below its daemon.
    killed = sorted(workers(process.pid, pattern))[-1:]
    for pid in killed:
        os.kill(pid, signal.SIGKILL)
    assert process.wait(300) == 0, log.read_text()[-3000:]
    assert killed, log.read_text()
    assert 5 <= len(before) < COUNT
    return before


@pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="processes are found in /proc")
@pytest.mark.parametrize("engine", ["ray", "spark"])
def test_a_killed_worker_costs_no_finished_image(folder, expected, tmp_path, engine):
    pytest.importorskip({"ray": "ray", "spark": "pyspark"}[engine])
    if engine == "spark" and not (shutil.which("java") or os.environ.get("JAVA_HOME")):
        pytest.skip("Spark needs Java, which is not installed")
    parquet = pytest.importorskip("pyarrow.parquet")
    output = tmp_path / "out"
    command = [sys.executable, RECIPES / f"{engine}_segment.py", folder, output, "--model", "mini", "--classes", CLASSES]
    more = {"ray": ["--workers", "2"], "spark": ["--partitions", "6", "--master", "local[2,4]"]}[engine]
    pattern = {"ray": b"ray::MapWorker", "spark": b"pyspark.daemon"}[engine]
    before = run_and_kill_a_worker([*command, *more], output, pattern, tmp_path / "log.txt")
    after = records(output)
    assert {path: after[path] for path in before} == before  # not written again
    assert_equal(expected, output / "images", json.loads((output / "coco.json").read_text()))
    rows = parquet.read_table(output / "parquet", columns=["name", "labels"]).to_pylist()
    assert sorted(row["name"] for row in rows) == list_images(folder)
    for row in rows:
        assert row["labels"] == (expected / row["name"]).with_suffix(".png").read_bytes()
    # The same command once more reads everything back.
    subprocess.run([*command, *more], check=True, capture_output=True, timeout=300)
    assert records(output) == after
