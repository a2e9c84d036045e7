"""Segmentation: results, and that they are those of the program."""

import gc
import io
import json
import pickle
import sys

import numpy as np
import pytest
from conftest import CLASSES, program, stripes
from PIL import Image

import zeg


def test_results_equal_those_of_the_program_to_the_byte(segmenter, images, tmp_path):
    out = tmp_path / "out"
    kinds = "labels,overlay,coco,coco-polygons,summary,probabilities-npy"
    done = program("segment", images[0].parent, "--model", "mini", "--classes", CLASSES, "--write", kinds, "-o", out)
    assert done.returncode == 0, done.stderr
    documents = []
    for path in images:
        result = segmenter.segment(path, CLASSES, scores=True)
        assert result.to_png() == (out / f"{path.stem}.png").read_bytes()
        assert result.to_png(overlay=True) == (out / f"{path.stem}.overlay.png").read_bytes()
        assert result.summary() == json.loads((out / f"{path.stem}.summary.json").read_text())
        [stored] = out.glob(f"{path.stem}*.npy")
        stored = np.load(stored)
        assert stored.shape == result.scores.shape
        assert np.array_equal(stored, result.scores.astype(stored.dtype))
        documents.append(result.to_coco())
        # Arrays are what files are.
        again = segmenter.segment(np.asarray(Image.open(path)), CLASSES)
        assert np.array_equal(again.labels, result.labels)
        assert np.array_equal(again.confidence, result.confidence)
    assert zeg.merge_coco(documents) == json.loads((out / "coco.json").read_text())
    polygons = segmenter.segment(images[0], CLASSES).to_coco(polygons=True)
    whole = json.loads((out / "coco-polygons.json").read_text())
    assert polygons["annotations"] == [entry for entry in whole["annotations"] if entry["image_id"] == 1]


def test_arrays_have_their_types_and_move_without_a_copy(segmenter):
    result = segmenter.segment(stripes(1), CLASSES, scores=True)
    assert (result.labels.dtype, result.labels.shape) == (np.uint16, (64, 80))
    assert (result.confidence.dtype, result.confidence.shape) == (np.float32, (64, 80))
    assert (result.scores.dtype, result.scores.shape) == (np.float32, (3, 64, 80))
    assert result.labels is result.labels
    assert result.scores.flags.c_contiguous
    assert np.array_equal(result.scores.argmax(0), result.labels)
    assert np.allclose(result.scores.max(0), result.confidence)
    assert result.size == (64, 80)
    assert segmenter.segment(stripes(1), CLASSES).scores is None
    labels = result.labels
    del result
    gc.collect()
    assert labels.max() <= 2


def test_changed_labels_are_what_is_exported(segmenter):
    result = segmenter.segment(stripes(2), CLASSES)
    result.labels[:] = 1
    assert result.areas == {"blue": 64 * 80}
    assert set(np.unique(np.asarray(Image.open(io.BytesIO(result.to_png()))))) == {1}
    result.labels[0, 0] = 7
    with pytest.raises(zeg.ZegError, match="label 7"):
        result.summary()


def test_classes_are_named_as_on_the_command_line_and_as_lists(segmenter):
    image = stripes(3)
    text = segmenter.segment(image, "red|striped red, blue, green")
    for classes in [
        ["red|striped red", "blue", "green"],
        [["red", "striped red"], "blue", ("green",)],
        [{"name": "red", "synonyms": ["striped red"]}, {"name": "blue"}, "green"],
        iter(["red|striped red", "blue", "green"]),
    ]:
        listed = segmenter.segment(image, classes)
        assert listed.names == text.names == ["red", "blue", "green"]
        assert np.array_equal(listed.labels, text.labels)
    coloured = segmenter.segment(image, {"red": "#ff0000", "blue": (0, 0, 255), "green": None})
    assert coloured.colours[:2] == [(255, 0, 0), (0, 0, 255)]
    behind = segmenter.segment(image, ["red"], background=["blue", "green"])
    assert behind.names == ["red", "blue", "green"]
    assert set(np.unique(behind.labels)) <= {0, zeg.UNLABELLED}
    only = segmenter.segment(image, [{"name": "red"}, {"name": "blue", "background": True}, "green"])
    assert 1 not in only.labels
    # The text tower of the small model knows few words; the list itself is found.
    with pytest.raises(zeg.ClassError, match="aeroplane"):
        segmenter.segment(image, "voc20")


def test_an_encoding_answers_for_any_classes(segmenter):
    image = stripes(4)
    encoding = segmenter.encode(image, tta=True)
    assert encoding.size == (64, 80)
    assert encoding.nbytes > 1000
    for classes in [CLASSES, ["red", "blue"]]:
        asked = encoding.ask(classes, threshold=0.2, scores=True)
        direct = segmenter.segment(image, classes, threshold=0.2, tta=True, scores=True)
        assert np.array_equal(asked.labels, direct.labels)
        assert np.array_equal(asked.scores, direct.scores)


def test_augmentation_and_threshold_have_an_effect(segmenter):
    image = stripes(5)
    plain = segmenter.segment(image, CLASSES)
    both = segmenter.segment(image, CLASSES, tta={"scales": [0.75, 1.25], "flip": True})
    assert not np.array_equal(plain.confidence, both.confidence)
    assert np.array_equal(segmenter.segment(image, CLASSES, tta=[1]).confidence, plain.confidence)
    high = segmenter.segment(image, CLASSES, threshold=1.0)
    assert (high.labels == zeg.UNLABELLED).mean() > 0.5


def test_every_kind_of_image_is_read(segmenter, images):
    path = images[3]
    expected = segmenter.segment(path, CLASSES)
    pixels = np.asarray(Image.open(path))

    class Wrapped:
        def __array__(self, dtype=None, copy=None):
            return pixels

    class Packed:
        def __dlpack__(self, **options):
            return pixels.copy().__dlpack__()

        def __dlpack_device__(self):
            return pixels.__dlpack_device__()

    for image in [
        str(path),
        path.read_bytes(),
        memoryview(path.read_bytes()),
        io.BytesIO(path.read_bytes()),
        Image.open(path),
        Image.open(path).convert("RGBA"),
        pixels,
        np.dstack([pixels, np.zeros(pixels.shape[:2], np.uint8)]),
        Wrapped(),
        Packed(),
        pixels / np.float32(255),
        pixels.astype(np.float64) / 255,
    ]:
        found = segmenter.segment(image, CLASSES)
        assert np.array_equal(found.labels, expected.labels), type(image)
    grey = pixels[:, :, 0]
    repeated = segmenter.segment(np.dstack([grey] * 3), CLASSES)
    for image in [grey, grey[:, :, None], Image.fromarray(grey)]:
        assert np.array_equal(segmenter.segment(image, CLASSES).confidence, repeated.confidence)


def test_many_images_stream_in_order_with_few_in_memory(segmenter, images):
    taken = 0

    def source():
        nonlocal taken
        for path in images:
            taken += 1
            yield path

    stream = segmenter.segment_many(source(), CLASSES, workers=3)
    first = next(stream)
    assert taken <= 4
    results = [first, *stream]
    assert [result.name for result in results] == [path.name for path in images]
    for path, result in zip(images, results):
        assert np.array_equal(result.labels, segmenter.segment(path, CLASSES).labels)


def test_an_image_that_fails_ends_the_stream_or_is_returned(segmenter, images):
    mixed = [images[0], "missing.png", images[1]]
    with pytest.raises(zeg.ImageFileError):
        list(segmenter.segment_many(mixed, CLASSES))
    found = list(segmenter.segment_many(mixed, CLASSES, on_error="return"))
    assert [type(entry) for entry in found] == [zeg.Segmentation, zeg.ImageFileError, zeg.Segmentation]


def test_a_model_is_pickled_by_its_settings(segmenter, images):
    copied = pickle.loads(pickle.dumps(segmenter))
    assert copied is not segmenter
    assert np.array_equal(copied.segment(images[0], CLASSES).labels, segmenter.segment(images[0], CLASSES).labels)
    other = zeg.Segmenter.load("mini", threads=1, inference={"seen_offset": 0.0})
    assert repr(pickle.loads(pickle.dumps(other))) == repr(other) == "<zeg.Segmenter mini: " + other.method + ">"


def test_the_number_of_threads_changes_no_byte(segmenter, images):
    single = zeg.Segmenter.load("mini", threads=1)
    for path in images[:5]:
        assert single.segment(path, CLASSES).to_png() == segmenter.segment(path, CLASSES).to_png()
        assert np.array_equal(single.segment(path, CLASSES).confidence, segmenter.segment(path, CLASSES).confidence)


def test_notebooks_and_drawing(segmenter, tmp_path):
    image = stripes(6)
    result = segmenter.segment(image, CLASSES, name="street.png")
    assert result._repr_png_() == result.to_png(overlay=True)
    assert result.overlay().shape == image.shape
    assert result.overlay(legend=True).shape[0] > image.shape[0]
    outlined = (result.overlay(0) != image).any(axis=2).mean()
    assert outlined < (result.overlay(1) != image).any(axis=2).mean()
    path = tmp_path / "labels.png"
    assert result.to_png(path) == path.read_bytes()
    assert list(tmp_path.iterdir()) == [path]
    assert result.to_coco()["images"][0]["file_name"] == "street.png"
    assert sum(result.areas.values()) == 64 * 80


def test_supervision_gets_one_mask_for_each_class(segmenter):
    pytest.importorskip("supervision")
    result = segmenter.segment(stripes(7), CLASSES)
    found = result.to_supervision()
    assert found.mask.sum() == 64 * 80
    assert list(found.data["class_name"]) == [result.names[label] for label in found.class_id]
    for mask, label, confidence, box in zip(found.mask, found.class_id, found.confidence, found.xyxy):
        assert (mask == (result.labels == label)).all()
        assert confidence == pytest.approx(result.confidence[mask].mean())
        rows, columns = np.nonzero(mask)
        assert list(box[:2]) == [columns.min(), rows.min()]


def test_supervision_gets_nothing_where_no_pixel_has_a_label(segmenter):
    pytest.importorskip("supervision")
    result = segmenter.segment(stripes(7), CLASSES)
    result.labels[:] = zeg.UNLABELLED
    assert len(result.to_supervision()) == 0


def test_a_missing_supervision_is_an_import_error(segmenter, monkeypatch):
    monkeypatch.setitem(sys.modules, "supervision", None)
    result = segmenter.segment(stripes(7), CLASSES)
    with pytest.raises(zeg.NotInstalledError, match="supervision") as caught:
        result.to_supervision()
    assert isinstance(caught.value, ImportError) and "pip install supervision" in caught.value.hint
