"""The recipes for GNU parallel and Slurm: a killed process costs no finished image, and the merged results are the whole."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import CLASSES, program, stripes
from PIL import Image
from test_batch import RECIPES, assert_equal, workers

# Several scales, so that a part takes long enough to be killed on its way.
OPTIONS = ["-r", "--model", "mini", "--classes", CLASSES, "--scales", "1,2,3", "--flip"]
COUNT = int(os.environ.get("ZEG_TEST_IMAGES", "24"))
on_linux = pytest.mark.skipif(not os.path.isdir("/proc/self"), reason="processes are found in /proc")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("many") / "images"
    (root / "inner").mkdir(parents=True)
    for number in range(COUNT):
        Image.fromarray(stripes(number, 200, 260)).save(root / f"{'inner/' if number % 3 == 0 else ''}{number:03}.png")
    return root


@pytest.fixture(scope="module")
def expected(folder, tmp_path_factory, own_cache):
    """Returns the folder with the results of one process."""
    out = tmp_path_factory.mktemp("expected") / "out"
    done = program("segment", folder, *OPTIONS, "--write", "labels,coco", "-o", out)
    assert done.returncode == 0, done.stderr
    return out


@pytest.fixture
def environment(tmp_path):
    """Returns the environment of a shell that finds `zeg`, and the stubs of a test."""
    (tmp_path / "bin").mkdir()
    return {**os.environ, "PATH": f"{tmp_path / 'bin'}:{Path(sys.executable).parent}:{os.environ['PATH']}"}


def assert_whole(expected, whole):
    assert (whole / "coco.json").read_bytes() == (expected / "coco.json").read_bytes()
    assert_equal(expected, whole, json.loads((whole / "coco.json").read_text()))


def finished(output):
    """Returns the label maps of the images that the journals of all parts call done, with their times."""
    paths = []
    for journal in output.glob("part-*/.zeg-segment.jsonl"):
        for line in journal.read_text().split("\n")[:-1]:
            for file in json.loads(line).get("entry", {}).get("done", {}).get("files", []):
                paths.append(journal.parent / file["path"])
    return {path: path.stat().st_mtime_ns for path in paths if path.suffix == ".png"}


def parts_of(process):
    """Returns the running processes of the program that segment a part."""
    return workers(process.pid, b"/zeg\0segment\0")


def wait_for_images(process, output, count, log):
    deadline = time.monotonic() + 240
    while len(finished(output)) < count and process.poll() is None and time.monotonic() < deadline:
        time.sleep(0.02)
    before = finished(output)
    assert process.poll() is None and count <= len(before) < COUNT, log.read_text()
    return before


def start(command, environment, log):
    with open(log, "a") as text:
        return subprocess.Popen(command, env=environment, stdout=text, stderr=subprocess.STDOUT, start_new_session=True)


@on_linux
@pytest.mark.skipif(shutil.which("parallel") is None, reason="GNU parallel is not installed")
@pytest.mark.parametrize("whole_job", [False, True], ids=["a process is killed", "the whole job is killed"])
def test_the_line_for_gnu_parallel(folder, expected, tmp_path, environment, whole_job):
    environment |= {"PARTS": "3", "JOBS": "2"}
    output, log = tmp_path / "out", tmp_path / "log.txt"
    command = [RECIPES / "parallel_segment.sh", folder, output, *OPTIONS]
    process = start(command, environment, log)
    before = wait_for_images(process, output, 4, log)
    if whole_job:
        parts = parts_of(process)
        process.kill()  # before its parts, which it would start again
        process.wait(60)
        for pid in [*parts, *parts_below(folder, output)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        assert not (output / "whole").exists()
        process = start(command, environment, log)
    else:
        os.kill(parts_of(process)[0], signal.SIGKILL)
    assert process.wait(300) == 0, log.read_text()
    after = finished(output)
    assert len(after) == COUNT
    assert {path: after[path] for path in before} == before  # not written again
    assert_whole(expected, output / "whole")


# What the recipe needs of Slurm: an array of jobs in the environment that Slurm gives them, and a job that waits for
# another one and starts only if that one did well.
SBATCH = """#!/usr/bin/env bash
jobs=$(dirname "$0")/jobs
mkdir -p "$jobs"
count=0 after=0 wrap= job=$$
while [[ ${1:-} == --* ]]; do
    case $1 in
        --parsable) ;;
        --array=1-*) count=${1#--array=1-} ;;
        --array=*) only=${1#--array=} count=1 ;;
        --dependency=afterok:*) after=${1##*:} ;;
        --wrap) wrap=$2; shift ;;
        *) echo "sbatch: $1 is unknown to this stub" >&2; exit 1 ;;
    esac
    shift
done
export SLURM_JOB_ID=$job
(
    if [[ -n $wrap ]]; then
        while [[ ! -e $jobs/$after ]]; do sleep 0.1; done
        [[ $(cat "$jobs/$after") == 0 ]] && bash -c "$wrap"
    else
        export SLURM_ARRAY_TASK_COUNT=$count SLURM_CPUS_PER_TASK=1
        script=$1 status=0
        shift
        for task in ${only:-$(seq "$count")}; do SLURM_ARRAY_TASK_ID=$task bash "$script" "$@" & done
        for task in $(jobs -p); do wait "$task" || status=1; done
    fi
    echo "${status:-$?}" >"$jobs/$job.part"
    mv "$jobs/$job.part" "$jobs/$job"
) >"$jobs/$job.log" 2>&1 &
echo "$job"
"""


def submit(tmp_path, environment, folder, array="1-4"):
    """Runs the two commands of the recipe's head, and returns the numbers of their jobs."""
    text = (RECIPES / "slurm_segment.sh").read_text()
    first = re.search(r"^#   (job=.*)$", text, re.MULTILINE).group(1)
    second = re.search(r"^#   (sbatch .*)$", text, re.MULTILINE).group(1)
    options = " ".join(f"'{option}'" for option in OPTIONS)
    first = first.replace("images out --model mini --classes \"red, blue, green\"", f"'{folder}' out {options}")
    first = first.replace("1-4", array).replace("slurm_segment.sh", str(RECIPES / "slurm_segment.sh"))
    assert str(folder) in first
    script = f"{first}; echo $job; {second.replace('sbatch', 'sbatch --parsable')}"
    done = subprocess.run(["bash", "-ec", script], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


def exit_code(tmp_path, job):
    deadline = time.monotonic() + 300
    while not (tmp_path / "bin/jobs" / job).exists():
        assert time.monotonic() < deadline, job
        time.sleep(0.05)
    return int((tmp_path / "bin/jobs" / job).read_text())


@on_linux
@pytest.mark.skipif(shutil.which("bash") is None, reason="bash is not installed")
@pytest.mark.parametrize("again", ["1-4", "the killed part"])
def test_the_array_of_slurm_jobs(folder, expected, tmp_path, environment, again):
    (tmp_path / "bin/sbatch").write_text(SBATCH)
    (tmp_path / "bin/sbatch").chmod(0o755)
    array, merge = submit(tmp_path, environment, folder)
    output = tmp_path / "out"
    deadline = time.monotonic() + 240
    while len(before := finished(output)) < 4 and time.monotonic() < deadline:
        time.sleep(0.02)
    assert 4 <= len(before) < COUNT
    [victim] = parts_below(folder, Path("out/part-2"))
    os.kill(victim, signal.SIGKILL)
    assert exit_code(tmp_path, array) != 0
    assert exit_code(tmp_path, merge) != 0 and not (output / "whole").exists()
    assert len(finished(output)) < COUNT
    if again == "1-4":
        array, merge = submit(tmp_path, environment, folder)
    else:
        array, merge = submit(tmp_path, environment | {"PARTS": "4"}, folder, array="2")
    assert exit_code(tmp_path, array) == 0
    assert exit_code(tmp_path, merge) == 0, (tmp_path / f"bin/jobs/{merge}.log").read_text()
    after = finished(output)
    assert len(after) == COUNT
    assert {path: after[path] for path in before} == before
    assert_whole(expected, output / "whole")


def parts_below(folder, output):
    """Returns the running processes of the program that segment this folder, and write below another one."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if b"segment" in words and str(folder).encode() in words and any(str(output).encode() in word for word in words):
            found.append(int(process.name))
    return found
