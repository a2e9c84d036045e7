"""Models: load once, segment many images."""

from __future__ import annotations

import json
import os
from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, Union

from zeg import _classes, _images, _zeg
from zeg._classes import Classes
from zeg._errors import SettingsError, ZegError, warn
from zeg._segmentation import Segmentation

Path = Union[str, "os.PathLike[str]"]
#: Test-time augmentation: ``True`` for the mirror image as well, scales, or ``{"scales": [0.75, 1], "flip": True}``.
TestTime = Union[None, bool, Iterable[float], Mapping[str, Any]]


class Segmenter:
    """A loaded model.

    Threads may share it: the interpreter's lock is released around the work. It is pickled by its settings, so that a
    worker of Ray or Spark loads the model again from the same files.
    """

    _settings: dict[str, Any]
    _core: _zeg.Segmenter

    def __init__(self) -> None:
        raise TypeError("write zeg.Segmenter.load(path_or_name)")

    @classmethod
    def load(
        cls,
        path_or_name: Path,
        *,
        text: Path | None = None,
        text_classes: str | None = None,
        weights: Path | None = None,
        method: str | None = None,
        templates: Path | None = None,
        precision: str = "f32",
        activation: str | None = None,
        heads: int | tuple[int, int] | None = None,
        inference: Mapping[str, Any] | None = None,
        threads: int | None = None,
        cache_dir: Path | bool | None = None,
        device: str = "cpu",
    ) -> Segmenter:
        """Loads a model: a checkpoint, CLIP weights in any published format, or a name.

        - ``path_or_name``: a file, a name of ``zeg models``, or ``mini``, the small model inside the package
        - ``text``: table of class embeddings (``.npy``, ``.safetensors``) in place of the text tower
        - ``text_classes``: classes of the table's rows, for a table without names
        - ``weights``: weights of the frozen encoder, if they are not where the checkpoint says
        - ``method``: training-free method for plain CLIP weights
        - ``templates``: prompt templates by name or file
        - ``precision``: ``"f32"``; ``"bf16"`` and ``"int8"`` are faster and slightly less exact;
          ``"auto"``: bf16 on processors that gain from it, else f32
        - ``activation``, ``heads``: what no file beside CLIP weights states: ``"gelu"``; ``16`` or ``(16, 12)``
        - ``inference``: changes such as ``{"short_side": 448, "crop": 448, "stride": 224, "mode": "whole"}``
        - ``threads``: threads for this model alone; ``None`` shares one for each core with other models, unless the
          environment sets ``ZEG_THREADS``
        - ``cache_dir``: folder of the class embeddings; ``None`` is that of the program, ``False`` keeps none

        Raises ``ModelError`` or ``SettingsError``; warns of what is assumed because no file states it.
        """
        if threads is None and os.environ.get("ZEG_THREADS"):
            threads = _number_of_threads(os.environ["ZEG_THREADS"])
        settings = {
            "model": _settled(path_or_name),
            "text": _settled(text),
            "text_classes": text_classes,
            "weights": _settled(weights),
            "method": method,
            "templates": _settled(templates),
            "precision": precision,
            "activation": activation,
            "heads": (heads, None) if isinstance(heads, int) else heads,
            "inference": json.dumps({key.replace("_", "-"): value for key, value in (inference or {}).items()}),
            "threads": threads,
            "cache": _cache_folder(cache_dir),
            "device": device,
        }
        return cls._of(settings)

    @classmethod
    def _of(cls, settings: dict[str, Any]) -> Segmenter:
        segmenter = cls.__new__(cls)
        segmenter._settings = settings
        segmenter._core = _zeg.Segmenter(settings)
        warn(segmenter._core.notices, stacklevel=4)
        return segmenter

    def __reduce__(self) -> tuple[Any, ...]:
        return _restored, (type(self), self._settings)

    def __repr__(self) -> str:
        return f"<zeg.Segmenter {self._settings['model']}: {self.method}>"

    @property
    def method(self) -> str:
        """The title of the model's method."""
        return self._core.method

    def segment(
        self,
        image: Any,
        classes: Classes,
        *,
        background: Classes | None = None,
        threshold: float | None = None,
        tta: TestTime = None,
        scores: bool = False,
        name: str | None = None,
    ) -> Segmentation:
        """Labels every pixel of an image with one of the classes.

        - ``image``: a path, the bytes of a file or a file opened as binary, an image of Pillow, or an array
          ``[height, width]`` or ``[height, width, 3]`` of uint8, or of floats from 0 to 1
        - ``classes``: as after ``--classes`` (``"dog, sofa|couch"``, a class file, ``"voc20"``), or a list of names, lists
          of synonyms and dictionaries with ``name``, ``synonyms``, ``colour``, ``threshold``, ``background``
        - ``background``: classes whose pixels stay unlabelled
        - ``threshold``: confidence from 0 to 1 below which a pixel stays unlabelled; ``None`` is the model's default
        - ``tta``: test-time augmentation: ``True`` for the mirror image, scales, or both as a dictionary
        - ``scores``: whether to keep the scores of all classes, ``[classes, height, width]``
        - ``name``: name of the image in results

        Returns the same labels as ``zeg segment``. Raises ``ImageError``, ``ClassError``, ``SettingsError`` or
        ``TooLargeError``.
        """
        return self._segment(image, classes, background, threshold, tta, scores, name, stacklevel=4)

    def _segment(
        self,
        image: Any,
        classes: Classes,
        background: Classes | None,
        threshold: float | None,
        tta: TestTime,
        scores: bool,
        name: str | None,
        stacklevel: int = 3,
    ) -> Segmentation:
        listed, hidden = _classes.read(classes), _classes.read(background, "background")
        scales, flip = _test_time(tta)
        loaded = _images.load(image, name)
        core, notices = self._core.segment(loaded, listed, hidden, threshold, scales, flip, scores)
        result_name = loaded.name if name is None else name
        warn([*loaded.notices, *notices], stacklevel)
        return Segmentation._of(core, result_name)

    def encode(self, image: Any, *, tta: TestTime = None, name: str | None = None) -> Encoding:
        """Encodes an image, which is the expensive part; ``Encoding.ask`` then answers for any classes."""
        scales, flip = _test_time(tta)
        loaded = _images.load(image, name)
        warn(loaded.notices)
        core = self._core.encode(loaded, scales, flip)
        return Encoding._of(core, loaded.name if name is None else name)

    def segment_many(
        self,
        images: Iterable[Any],
        classes: Classes,
        *,
        background: Classes | None = None,
        threshold: float | None = None,
        tta: TestTime = None,
        scores: bool = False,
        workers: int | None = None,
        on_error: str = "raise",
    ) -> Iterator[Segmentation | ZegError]:
        """Segments images one after the other, in their order, with few of them in memory.

        - ``images``: an iterable of what ``segment`` takes; it is read as the work goes on
        - ``workers``: images that are worked on at the same time; ``None`` is one for each core
        - ``on_error``: ``"raise"``, or ``"return"`` to yield the exception in place of the result

        At most ``workers`` images and results are in memory, besides the one that was yielded last.
        """
        if on_error not in ("raise", "return"):
            raise SettingsError(f"on_error={on_error!r}", 'known are "raise" and "return"')
        count = self._settings["threads"] or os.cpu_count() or 1 if workers is None else workers
        if count < 1:
            raise SettingsError(f"workers={workers!r}", "give a number of at least 1")
        classes, background = _classes.settled(classes), _classes.settled(background)
        _classes.read(classes)
        _test_time(tta)
        return self._stream(images, (classes, background, threshold, tta, scores, None), count, on_error)

    def _stream(
        self, images: Iterable[Any], arguments: tuple[Any, ...], workers: int, on_error: str
    ) -> Iterator[Segmentation | ZegError]:
        pending: deque[Future[Segmentation]] = deque()
        pool = ThreadPoolExecutor(workers, thread_name_prefix="zeg")
        try:
            for image in images:
                pending.append(pool.submit(self._segment, image, *arguments))
                del image
                if len(pending) >= workers:
                    yield _result(pending.popleft(), on_error)
            while pending:
                yield _result(pending.popleft(), on_error)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)


class Encoding:
    """An encoded image, which answers for any classes without running the encoder again."""

    _core: _zeg.Encoding
    _name: str

    def __init__(self) -> None:
        raise TypeError("write segmenter.encode(image)")

    @classmethod
    def _of(cls, core: _zeg.Encoding, name: str) -> Encoding:
        encoding = cls.__new__(cls)
        encoding._core, encoding._name = core, name
        return encoding

    def ask(
        self,
        classes: Classes,
        *,
        background: Classes | None = None,
        threshold: float | None = None,
        scores: bool = False,
    ) -> Segmentation:
        """Labels every pixel of the image with one of the classes; the arguments are those of ``Segmenter.segment``."""
        listed, hidden = _classes.read(classes), _classes.read(background, "background")
        core, notices = self._core.ask(listed, hidden, threshold, scores)
        warn(notices)
        return Segmentation._of(core, self._name)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the image in pixels."""
        return self._core.size

    @property
    def nbytes(self) -> int:
        """The memory that the encoding takes, in bytes."""
        return self._core.nbytes

    def __repr__(self) -> str:
        return f"<zeg.Encoding of {self._name}>"


def _restored(cls: type[Segmenter], settings: dict[str, Any]) -> Segmenter:
    return cls._of(settings)


def _result(future: Future[Segmentation], on_error: str) -> Segmentation | ZegError:
    if on_error == "raise":
        return future.result()
    try:
        return future.result()
    except ZegError as error:
        return error


def _settled(path: Path | None) -> str | None:
    """Returns the absolute path of a file that exists, so that another process finds it; a name stays as it is."""
    if path is None:
        return None
    text = os.fspath(path)
    return os.path.abspath(text) if os.path.exists(text) and text != "mini" else text


def _cache_folder(cache_dir: Path | bool | None) -> str | None:
    if cache_dir is False:
        return None
    if cache_dir is None or cache_dir is True:
        folder = _zeg.cache_folder()
        return None if folder is None else os.fspath(folder)
    return os.path.abspath(os.fspath(cache_dir))


def _number_of_threads(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise SettingsError(f"ZEG_THREADS={text!r} is no number", "set it to a number of at least 1") from None


def _test_time(tta: TestTime) -> tuple[list[float], bool]:
    hint = 'write True, scales such as [0.75, 1, 1.25], or {"scales": [0.75, 1], "flip": True}'
    if tta is None or isinstance(tta, bool):
        return [], bool(tta)
    if isinstance(tta, Mapping):
        if unknown := set(tta) - {"scales", "flip"}:
            raise SettingsError(f"tta has the key {sorted(map(str, unknown))[0]!r}", hint)
        scales, flip = tta.get("scales", ()), bool(tta.get("flip", False))
    else:
        scales, flip = tta, False
    try:
        return [float(scale) for scale in scales], flip
    except (TypeError, ValueError):
        raise SettingsError(f"tta={tta!r} has no scales", hint) from None
