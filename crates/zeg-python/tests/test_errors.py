"""Wrong input gives an exception with a hint, never an abort."""

import pickle
import subprocess
import sys

import numpy as np
import pytest
from conftest import CLASSES, stripes
from PIL import Image

import zeg
from zeg import _errors

WRONG = {
    "floats beyond 1": stripes(1).astype(np.float32),
    "negative floats": stripes(1) / -255.0,
    "not a number": np.full((8, 8, 3), np.nan),
    "integers of 64 bits": stripes(1).astype(np.int64),
    "integers of 16 bits": stripes(1).astype(np.uint16),
    "big-endian integers": stripes(1).astype(">u2"),
    "truth values": np.ones((8, 8, 3), bool),
    "complex numbers": np.ones((8, 8, 3), complex),
    "objects": np.full((8, 8, 3), None),
    "one dimension": np.zeros(5, np.uint8),
    "no dimension": np.uint8(3),
    "four dimensions": np.zeros((1, 8, 8, 3), np.uint8),
    "two channels": np.zeros((8, 8, 2), np.uint8),
    "channels first": np.zeros((3, 8, 8), np.uint8),
    "no rows": np.zeros((0, 8, 3), np.uint8),
    "no channels": np.zeros((8, 8, 0), np.uint8),
    "too many pixels": np.broadcast_to(np.uint8(0), (1 << 15, 1 << 15, 3)),
    "bytes of no image": b"GIF87 but not really",
    "no bytes": b"",
    "a number": 7,
    "nothing": None,
    "a missing file": "missing.png",
    "a folder": ".",
    "a path with a zero": "a\0b.png",
    "16 bits of Pillow": Image.new("I;16", (8, 8)),
    "floats of Pillow": Image.new("F", (8, 8)),
    "an empty image of Pillow": Image.new("RGB", (0, 3)),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_images(segmenter, name):
    if name == "too many pixels":
        image = np.broadcast_to(np.uint8(0), (1 << 15, 1 << 14, 3))  # more than 2**28
    else:
        image = WRONG[name]
    with pytest.raises(zeg.ImageError) as caught:
        segmenter.segment(image, CLASSES)
    assert caught.value.hint
    assert "hint: " in str(caught.value)
    with pytest.raises(zeg.ZegError):
        segmenter.encode(image)


def test_odd_arrays_are_what_they_show(segmenter):
    pixels = stripes(2)
    expected = segmenter.segment(pixels, CLASSES)
    wide = np.zeros((64, 160, 3), np.uint8)
    wide[:, ::2] = pixels
    read_only = pixels.copy()
    read_only.flags.writeable = False
    flipped = np.ascontiguousarray(pixels[::-1, ::-1, ::-1])
    for image in [
        wide[:, ::2],
        np.asfortranarray(pixels),
        read_only,
        flipped[::-1, ::-1, ::-1],
        pixels.transpose(1, 0, 2).copy().transpose(1, 0, 2),
        (pixels / 255.0).astype(">f4"),
        (pixels / 255.0).astype(">f8"),
        (pixels / np.float16(255)).astype(np.float16).astype(np.float32),
        np.broadcast_to(pixels, (2, *pixels.shape))[1],
    ]:
        found = segmenter.segment(image, CLASSES)
        assert np.array_equal(found.labels, expected.labels), (image.dtype, image.strides)
    assert not read_only.flags.writeable


def test_closed_files(segmenter, images, tmp_path):
    with open(images[0], "rb") as file:
        pass
    with pytest.raises(zeg.ImageError, match="closed") as caught:
        segmenter.segment(file, CLASSES)
    assert caught.value.hint
    text = tmp_path / "text.txt"
    text.write_text("no image")
    with open(text) as file, pytest.raises(zeg.ImageError):
        segmenter.segment(file, CLASSES)
    image = Image.open(images[0])
    image.close()
    with pytest.raises(zeg.ImageError) as caught:
        segmenter.segment(image, CLASSES)
    assert caught.value.hint


@pytest.mark.parametrize("shape", [(1, 100_000), (100_000, 1), (3, 30_000), (1, 1)])
def test_strips_give_a_result_or_an_exception(segmenter, shape):
    image = np.zeros((*shape, 3), np.uint8)
    try:
        assert segmenter.segment(image, CLASSES).labels.shape == shape
    except zeg.ZegError as error:
        assert error.hint


@pytest.mark.parametrize(
    "classes",
    [
        [],
        "",
        " , ",
        {},
        iter([]),
        [""],
        ["a", " "],
        ["a", "A"],
        ["a", ["b", "a"]],
        [[]],
        [7],
        [["a", 7]],
        None,
        7,
        b"dog",
        [b"dog"],
        [{}],
        [{"name": 7}],
        [{"name": "a", "nmae": "b"}],
        [{"name": "a", "threshold": 2}],
        [{"name": "a", "threshold": "high"}],
        [{"name": "a", "colour": "red"}],
        [{"name": "a", "colour": (1, 2)}],
        [{"name": "a", "colour": (1, 2, 300)}],
        [{"name": "a", "synonyms": [7]}],
        [{"name": "a", "background": True}],
        ["x" * 5000],
        "ade20k",
        "missing-classes.txt",
        [f"class {number}" for number in range(70_000)],
    ],
    ids=lambda classes: str(classes)[:40],
)
def test_wrong_class_lists(segmenter, classes):
    if classes == "missing-classes.txt":
        with pytest.raises(zeg.ZegError):
            segmenter.segment(stripes(1), classes, background=["wall"], threshold=3)
        return
    with pytest.raises(zeg.ZegError) as caught:
        segmenter.segment(stripes(1), classes)
    assert isinstance(caught.value, zeg.ClassError)
    assert caught.value.hint


@pytest.mark.parametrize(
    "options",
    [
        {"threshold": 2},
        {"threshold": -0.1},
        {"threshold": float("nan")},
        {"tta": {"scale": [1]}},
        {"tta": "1.5x"},
        {"tta": [0]},
        {"tta": [-1]},
        {"tta": [float("inf")]},
        {"tta": [1e9]},
        {"background": "red"},
    ],
    ids=str,
)
def test_wrong_settings(segmenter, options):
    with pytest.raises(zeg.ZegError):
        segmenter.segment(stripes(1), CLASSES, **options)


@pytest.mark.parametrize(
    "options",
    [
        {"precision": "f16"},
        {"threads": 0},
        {"threads": 10_000},
        {"inference": {"croop": 3}},
        {"inference": {"crop": "large"}},
        {"inference": {"crop": 0}},
        {"activation": "relu"},
        {"device": "abacus"},
        {"device": "cuda"},
        {"method": "no-such-method"},
        {"templates": "no-such-templates"},
        {"text": "missing.npy"},
        {"weights": "missing.safetensors"},
    ],
    ids=str,
)
def test_wrong_ways_to_load(options):
    with pytest.raises(zeg.ZegError):
        zeg.Segmenter.load("mini", **options).segment(stripes(1), CLASSES)


def test_wrong_models(tmp_path):
    with pytest.raises(zeg.ModelError) as caught:
        zeg.Segmenter.load("clip-vit-b16x")
    assert "clip-vit-b" in str(caught.value)
    with pytest.raises(zeg.ModelError):
        zeg.Segmenter.load(tmp_path / "missing.safetensors")
    garbage = tmp_path / "garbage.safetensors"
    garbage.write_bytes(b"\xff" * 100)
    with pytest.raises(zeg.ModelError):
        zeg.Segmenter.load(garbage)
    for make in [zeg.Segmenter, zeg.Encoding, zeg.Segmentation]:
        with pytest.raises(TypeError):
            make()


@pytest.mark.parametrize(
    ("sentence", "expected"),
    [
        ("compare with `zeg segment --refine none`", "compare with `zeg segment --refine none`"),
        ("`zeg models --json`; leave --text-classes out", "`zeg models --json`; leave text_classes= out"),
        ("`--seen-offset -0.1` or `--weights mini`", '`seen_offset=-0.1` or `weights="mini"`'),
        ("use --opset 21, such as `--dynamic-size`", "use opset=21, such as `dynamic_size=`"),
        ("--activation quick-gelu overrides it", 'activation="quick-gelu" overrides it'),
        ("name a model with --model", "name a model with model"),
        ("an odd ` and --size", "an odd ` and size="),
    ],
)
def test_options_in_messages_become_arguments_but_commands_stay(sentence, expected):
    assert _errors.in_python(sentence) == expected


def test_exceptions_keep_their_hint_between_processes():
    error = zeg.ImageError("message", "hint")
    copied = pickle.loads(pickle.dumps(error))
    assert (copied.message, copied.hint) == ("message", "hint")
    error = zeg.CommandError("message", None, 2, {"error": {}})
    copied = pickle.loads(pickle.dumps(error))
    assert (copied.exit_code, copied.document) == (2, {"error": {}})
    assert issubclass(zeg.NotInstalledError, ImportError)
    assert issubclass(zeg.TooLargeError, MemoryError)
    assert issubclass(zeg.ImageFileError, OSError)


def test_a_result_of_another_shape_is_not_exported(segmenter):
    result = segmenter.segment(stripes(1), CLASSES)
    result.labels.shape = (80, 64)
    with pytest.raises(zeg.SettingsError, match="shape"):
        result.to_png()


def test_a_doubtful_result_is_a_warning(segmenter):
    with pytest.warns(zeg.ZegWarning, match="only one class"):
        zeg.Segmenter.load("mini").segment(stripes(1), ["red"])


WITHOUT_NUMPY = """
import sys
class Refuse:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "numpy":
            raise ImportError("numpy is hidden")
sys.meta_path.insert(0, Refuse())
import zeg
segmenter = zeg.Segmenter.load("mini")
result = segmenter.segment(sys.argv[1], "red,blue,green")
assert result.to_png().startswith(b"\\x89PNG")
assert result.areas and result.to_coco()["images"]
from PIL import Image
assert segmenter.segment(Image.open(sys.argv[1]), "red,blue,green").to_png() == result.to_png()
class Array:
    def __array__(self):
        raise AssertionError
for call in [lambda: result.labels, lambda: result.confidence, lambda: result.overlay(), lambda: result.scores,
             lambda: segmenter.segment(Array(), "red"), lambda: result.to_supervision()]:
    try:
        call()
    except ImportError as error:
        assert "pip install" in error.hint, error.hint
        assert isinstance(error, zeg.NotInstalledError)
    else:
        raise AssertionError("no ImportError")
assert "numpy" not in sys.modules
"""


def test_numpy_is_optional_and_its_absence_is_an_import_error(images):
    done = subprocess.run([sys.executable, "-c", WITHOUT_NUMPY, images[0]], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
