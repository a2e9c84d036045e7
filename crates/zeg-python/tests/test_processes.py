"""Threads, interrupts, forks, and memory."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from conftest import CLASSES, stripes

import zeg


def resident():
    """Returns the memory of this process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_twenty_threads_share_a_model(segmenter):
    expected = [segmenter.segment(stripes(number), CLASSES) for number in range(20)]

    def work(number):
        for turn in range(5):
            encoding = segmenter.encode(stripes(number)) if turn % 2 else None
            classes = CLASSES if turn < 3 else ["red", ["plain green", "dotted cyan"][number % 2], "blue"]
            found = encoding.ask(classes) if encoding else segmenter.segment(stripes(number), classes)
            if classes is CLASSES:
                assert np.array_equal(found.labels, expected[number].labels)
                assert np.array_equal(found.confidence, expected[number].confidence)
        return number

    with ThreadPoolExecutor(20) as pool:
        assert list(pool.map(work, range(20), timeout=300)) == list(range(20))


@pytest.mark.skipif(not os.path.exists("/proc/self/statm"), reason="memory is read from /proc")
def test_memory_stays_flat(segmenter):
    image = stripes(1)

    def calls(count):
        for number in range(count):
            result = segmenter.segment(image, CLASSES, scores=number % 10 == 0)
            _ = (result.labels, result.confidence)
            if number % 50 == 0:
                result.to_coco()

    calls(100)
    before = resident()
    calls(400)
    assert resident() - before < 20e6


def test_the_lock_of_the_interpreter_is_released(segmenter):
    image = stripes(2, 500, 500)
    ticks = 0
    done = threading.Event()

    def count():
        nonlocal ticks
        while not done.is_set():
            ticks += 1
            time.sleep(0.001)

    thread = threading.Thread(target=count)
    thread.start()
    started = time.perf_counter()
    while time.perf_counter() - started < 0.5:
        segmenter.segment(image, CLASSES, tta=[1, 1.5])
    seconds = time.perf_counter() - started
    done.set()
    thread.join()
    assert ticks > 30 * seconds


INTERRUPTED = """
import sys, threading, time, os, signal
import numpy as np
import zeg
segmenter = zeg.Segmenter.load("mini", inference={"short_side": 6000})
threading.Timer(1.0, lambda: os.kill(os.getpid(), signal.SIGINT)).start()
started = time.perf_counter()
try:
    segmenter.segment(np.zeros((600, 2000, 3), np.uint8), "red,blue,green", tta=[1, 1.1, 1.2, 1.3])
except KeyboardInterrupt:
    print("interrupted", time.perf_counter() - started)
    segmenter.segment(np.zeros((8, 8, 3), np.uint8), "red,blue,green", tta=[0.05])
    print("usable")
"""


@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
def test_an_interrupt_ends_the_work():
    done = subprocess.run([sys.executable, "-c", INTERRUPTED], capture_output=True, text=True, timeout=200)
    lines = done.stdout.split("\n")
    assert lines[0].startswith("interrupted"), done.stdout + done.stderr
    assert 0.9 < float(lines[0].split()[1]) < 20
    assert lines[1] == "usable"


def in_child(segmenter, pipe):
    try:
        segmenter.segment(stripes(1), CLASSES)
        pipe.send("computed")
    except zeg.ForkedError as error:
        pipe.send(error.hint)


@pytest.mark.skipif(os.name != "posix", reason="processes are forked on Unix")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_forked_process_says_what_to_do(segmenter):
    segmenter.segment(stripes(1), CLASSES)
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=in_child, args=(segmenter, theirs))
    process.start()
    assert ours.poll(60)
    assert "spawn" in ours.recv()
    process.join()


def areas(segmenter, number):
    return segmenter.segment(stripes(number), CLASSES).areas


def test_spawned_processes_load_the_model_again(segmenter):
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        found = pool.starmap(areas, [(segmenter, number) for number in range(4)])
    assert found == [areas(segmenter, number) for number in range(4)]


@pytest.mark.skipif(os.name != "posix", reason="signals of Unix")
def test_signals_of_the_program_end_it_as_those_of_a_shell():
    command = [sys.executable, "-m", "zeg", "serve", "--model", "mini", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    process.stdout.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(60) in (0, 143)
