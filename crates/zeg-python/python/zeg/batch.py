"""Image files in, result files out, on any engine that runs a Python function on a list of names.

A worker of Ray, Spark or a scheduler makes one ``FileSegmenter`` and calls it with batches of names. Every finished image
has two files in the output folder: its label map, the same bytes as ``zeg segment`` writes, and a record that appears
last and whole. A worker that is started again, or a whole job, reads finished images back in place of segmenting them.

Folders are local, or URIs that pyarrow opens, such as ``s3://bucket/images``.
"""

from __future__ import annotations

import hashlib
import json
import os
import platform
import posixpath
from collections.abc import Iterable, Mapping
from typing import Any

from zeg import _classes
from zeg._errors import NotInstalledError, SettingsError, ZegError
from zeg._results import merge_coco
from zeg._segmentation import write_whole
from zeg._segmenter import Segmenter
from zeg._zeg import VERSION

__all__ = ["COLUMNS", "FileSegmenter", "coco_of_rows", "list_images"]

#: Names and types of the columns of a result, for engines that want a schema (the types are those of Spark SQL).
COLUMNS = {
    "name": "string",
    "width": "int",
    "height": "int",
    "labels": "binary",
    "coco": "string",
    "error": "string",
    "reused": "boolean",
    "worker": "string",
}
_ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
_RECORD = ".zeg.json"


def list_images(folder: str | os.PathLike[str]) -> list[str]:
    """Returns the names of all images in a folder and the folders inside it, relative to it and sorted."""
    names = _store(folder).names()
    return sorted(name for name in names if name.lower().endswith(_ENDINGS))


def coco_of_rows(rows: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Returns one document of COCO with all rows, in the order of their names; rows with an error are left out."""
    documents = {row["name"]: row["coco"] for row in rows if row["coco"]}
    return merge_coco(json.loads(documents[name]) for name in sorted(documents))


class FileSegmenter:
    """Segments image files by name, and keeps every result in a folder.

    - ``images``, ``output``: folders or URIs
    - ``model``, ``classes``, ``background``, ``threshold``, ``tta``: as for ``Segmenter.load`` and ``Segmenter.segment``
    - ``load``: further arguments of ``Segmenter.load``; one thread is used unless it says otherwise, because engines start
      one worker for each core

    The model is loaded with the first image that is not finished, in the process that has it to do. An image that cannot
    be segmented has a row with ``error`` and no result, so that a later job tries it again.
    """

    def __init__(
        self,
        images: str | os.PathLike[str],
        output: str | os.PathLike[str],
        *,
        model: str | os.PathLike[str],
        classes: _classes.Classes,
        background: _classes.Classes | None = None,
        threshold: float | None = None,
        tta: Any = None,
        load: Mapping[str, Any] | None = None,
    ) -> None:
        self._images, self._output = _store(images), _store(output)
        self._model = os.fspath(model)
        self._load = {"threads": 1, **(load or {})}
        self._classes, self._background = _classes.settled(classes), _classes.settled(background)
        listed, hidden = _classes.read(self._classes), _classes.read(self._background, "background")
        self._options = {"threshold": threshold, "tta": tta}
        values = [VERSION, self._model, listed, hidden, self._options, self._load]
        text = json.dumps(values, default=str, sort_keys=True)
        self._settings = hashlib.sha256(text.encode()).hexdigest()
        self._segmenter: Segmenter | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_segmenter": None}

    def __call__(self, batch: Mapping[str, Any]) -> dict[str, list[Any]]:
        """Segments the images of a batch of columns, of which ``name`` is read; returns the columns of ``COLUMNS``."""
        rows = [self.segment(str(name)) for name in batch["name"]]
        return {column: [row[column] for row in rows] for column in COLUMNS}

    def segment(self, name: str) -> dict[str, Any]:
        """Segments an image, or reads its result back if it is finished; returns a row of ``COLUMNS``.

        Raises ``SettingsError`` if the output folder has a result of other settings.
        """
        known = self._finished(name)
        if known is not None:
            return known
        try:
            return self._compute(name)
        except (ZegError, OSError) as error:
            return self._row(name, error=str(error))

    def _finished(self, name: str) -> dict[str, Any] | None:
        stem = posixpath.splitext(name)[0]
        record = self._output.read(stem + _RECORD)
        if record is None:
            return None
        found = json.loads(record)
        if found["name"] != name or found["settings"] != self._settings:
            raise SettingsError(
                f"{stem}{_RECORD}: the result of {found['name']} was made with other settings or of another image",
                "choose another output folder, or empty this one",
            )
        labels = self._output.read(stem + ".png")
        if labels is None or hashlib.sha256(labels).hexdigest() != found["labels_sha256"]:
            return None
        return self._row(name, labels, found["coco"], reused=True)

    def _compute(self, name: str) -> dict[str, Any]:
        content = self._images.read(name)
        if content is None:
            raise FileNotFoundError(f"{name}: there is no such image")
        if self._segmenter is None:
            self._segmenter = Segmenter.load(self._model, **self._load)
        result = self._segmenter.segment(
            content, self._classes, background=self._background, name=name, **self._options
        )
        stem, labels, coco = posixpath.splitext(name)[0], result.to_png(), result.to_coco()
        self._output.write(stem + ".png", labels)
        record = {
            "name": name,
            "settings": self._settings,
            "labels_sha256": hashlib.sha256(labels).hexdigest(),
            "coco": coco,
        }
        self._output.write(stem + _RECORD, json.dumps(record).encode())
        return self._row(name, labels, coco)

    def _row(
        self,
        name: str,
        labels: bytes | None = None,
        coco: dict[str, Any] | None = None,
        *,
        error: str | None = None,
        reused: bool = False,
    ) -> dict[str, Any]:
        size = coco["images"][0] if coco else {"width": 0, "height": 0}
        return {
            "name": name,
            "width": size["width"],
            "height": size["height"],
            "labels": labels or b"",
            "coco": json.dumps(coco) if coco else "",
            "error": error or "",
            "reused": reused,
            "worker": f"{platform.node()}:{os.getpid()}",
        }


class _Folder:
    """A local folder."""

    def __init__(self, path: str) -> None:
        self.path = os.path.abspath(path)

    def names(self) -> Iterable[str]:
        for folder, _, files in os.walk(self.path):
            for file in files:
                yield os.path.relpath(os.path.join(folder, file), self.path).replace(os.sep, "/")

    def read(self, name: str) -> bytes | None:
        try:
            with open(os.path.join(self.path, name), "rb") as file:
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        path = os.path.join(self.path, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        write_whole(path, content)


class _Uri:
    """A folder of an object store, or of another file system that pyarrow opens."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._opened: tuple[Any, str] | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {"uri": self.uri, "_opened": None}

    def _open(self) -> tuple[Any, str]:
        if self._opened is None:
            try:
                from pyarrow import fs
            except ImportError as error:
                raise NotInstalledError(f"{self.uri} needs pyarrow", "`pip install pyarrow`") from error
            self._opened = fs.FileSystem.from_uri(self.uri)
        return self._opened

    def names(self) -> Iterable[str]:
        system, root = self._open()
        from pyarrow import fs

        for entry in system.get_file_info(fs.FileSelector(root, recursive=True)):
            if entry.type == fs.FileType.File:
                yield posixpath.relpath(entry.path, root)

    def read(self, name: str) -> bytes | None:
        system, root = self._open()
        try:
            with system.open_input_stream(posixpath.join(root, name)) as file:
                return file.read()
        except FileNotFoundError:
            return None

    def write(self, name: str, content: bytes) -> None:
        system, root = self._open()
        path = posixpath.join(root, name)
        system.create_dir(posixpath.dirname(path), recursive=True)
        # A store shows an object when it is closed; other file systems rename a finished file.
        temporary = f"{path}.{os.getpid()}.part"
        with system.open_output_stream(temporary) as file:
            file.write(content)
        system.move(temporary, path)


def _store(folder: str | os.PathLike[str]) -> _Folder | _Uri:
    text = os.fspath(folder)
    return _Uri(text) if "://" in text else _Folder(text)
