"""What the tests share: images made of stripes, the embedded model, the program."""

import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import zeg

CLASSES = "red,blue,green"
COLOURS = np.array([(220, 30, 30), (30, 40, 220), (30, 180, 40)], np.uint8)


def stripes(number, height=64, width=80):
    """Returns an image of three coloured stripes with noise, uint8 [height, width, 3]."""
    chance = np.random.default_rng(number)
    edges = np.sort(chance.integers(4, width - 4, 2))
    order = chance.permutation(3)
    column = order[np.searchsorted(edges, np.arange(width), side="right")]
    noise = chance.integers(0, 20, (height, width, 3))
    return np.clip(COLOURS[column][None].astype(int) + noise, 0, 255).astype(np.uint8)


@pytest.fixture(scope="session", autouse=True)
def own_cache(tmp_path_factory):
    """Keeps class embeddings apart from those of the user."""
    os.environ["ZEG_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ.pop("ZEG_THREADS", None)


@pytest.fixture(scope="session")
def segmenter(own_cache):
    return zeg.Segmenter.load("mini")


@pytest.fixture(scope="session")
def images(tmp_path_factory):
    """Returns the paths of twenty images of several sizes, as PNG."""
    folder = tmp_path_factory.mktemp("images")
    paths = []
    for number in range(20):
        path = folder / f"{number:02}.png"
        Image.fromarray(stripes(number, 40 + 7 * number, 150 - 5 * number)).save(path)
        paths.append(path)
    return paths


def program(*arguments, **options):
    """Runs the program in a process of its own."""
    command = [sys.executable, "-m", "zeg", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, **options)
