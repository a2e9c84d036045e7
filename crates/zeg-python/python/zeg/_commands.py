"""Commands of the program as functions."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Union

from zeg import _zeg
from zeg._errors import CommandError, in_python, warn

Path = Union[str, "os.PathLike[str]"]


def info(path_or_name: Path, **options: Any) -> dict[str, Any]:
    """Describes an experiment, a checkpoint, a file of weights or a table of class embeddings.

    Returns the JSON of ``zeg info``; ``options`` are those of the command, with ``_`` for ``-``.
    """
    return _run("info", [path_or_name], options)


def evaluate(models: Path | Iterable[Path], *, quiet: bool = True, **options: Any) -> dict[str, Any]:
    """Scores models on a data set.

    - ``models``: one model, or several to compare
    - ``options``: those of ``zeg eval``, with ``_`` for ``-``: ``data="VOCdevkit/VOC2012"``, ``dataset="voc12"``,
      ``output="scores"``, ``limit=100``, ``resume=True``
    - ``quiet``: ``False`` shows progress on standard error

    Returns the JSON of ``zeg eval``.
    """
    several = [models] if isinstance(models, (str, os.PathLike)) else list(models)
    return _run("eval", several, {"quiet": quiet, **options})


def export(path_or_name: Path, *, quiet: bool = True, **options: Any) -> dict[str, Any]:
    """Writes a model as ONNX, for other runtimes and browsers.

    - ``path_or_name``: a checkpoint, CLIP weights, or a name of ``zeg models``
    - ``options``: those of ``zeg export``, with ``_`` for ``-``: ``output="model.onnx"``, ``classes="dog, sofa|couch"``,
      ``size=512`` or ``dynamic_size=True``, ``precision="f16"``, ``split="encoder,head"``
    - ``quiet``: ``False`` shows progress on standard error

    Returns the JSON of ``zeg export``, which names the files. Raises ``CommandError`` where the program ends with an error.
    """
    return _run("export", [path_or_name], {"quiet": quiet, **options})


def train(
    config: Path,
    *,
    on_step: Callable[[dict[str, Any]], object] | None = None,
    quiet: bool = True,
    **options: Any,
) -> dict[str, Any]:
    """Trains the model of an experiment file.

    - ``on_step``: is called after every step with the numbers that the run logs: ``step``, ``loss``, ``lr``, …; an
      exception of it, and Ctrl-C, end the run after its step with a checkpoint
    - ``options``: those of ``zeg train``, with ``_`` for ``-``: ``weights="ViT-B-16.pt"``, ``data="VOCdevkit/VOC2012"``,
      ``output="runs/first"``, ``resume=True``; ``set={"training.steps": 100}`` changes settings of the experiment
    - ``quiet``: ``False`` shows progress on standard error

    Returns the JSON of ``zeg train``.
    """
    return _run("train", [config], {"quiet": quiet, **options}, on_step)


def segment_files(images: Path | Iterable[Path], *, quiet: bool = True, **options: Any) -> dict[str, Any]:
    """Segments image files into a folder, with a journal, so that ``resume=True`` goes on after an interruption.

    - ``images``: files, folders and patterns
    - ``options``: those of ``zeg segment``, with ``_`` for ``-``: ``model="mini"``, ``classes="dog, sofa"``,
      ``output="out"``, ``write="labels,coco"``, ``shard="1/4"``

    Returns the JSON of ``zeg segment``.
    """
    several = [images] if isinstance(images, (str, os.PathLike)) else list(images)
    return _run("segment", several, {"quiet": quiet, **options})


def _run(
    command: str,
    positional: Iterable[Path],
    options: Mapping[str, Any],
    on_step: Callable[[dict[str, Any]], object] | None = None,
) -> dict[str, Any]:
    arguments = [*command.split(), *_arguments(options), "--", *(os.fspath(value) for value in positional)]
    code, text, warnings = _zeg.run_command(arguments, on_step)
    warn(warnings, stacklevel=4)
    document = {} if text is None else json.loads(text)
    if "error" in document:
        error = document["error"]
        message = ": ".join([error["message"], *_new(error["message"], error["causes"])])
        hint = error["hint"]
        raise CommandError(in_python(message), None if hint is None else in_python(hint), code, document)
    if code != 0:
        failed = document.get("failed") or []
        first = failed[0] if failed else {}
        message = first.get("message") or f"zeg {command} ended with exit code {code}"
        raise CommandError(message, first.get("hint"), code, document)
    return document


def _new(text: str, causes: Iterable[str]) -> list[str]:
    """Returns the causes that a text does not name already."""
    found = []
    for cause in causes:
        if cause not in text:
            found.append(cause)
            text += cause
    return found


def _arguments(options: Mapping[str, Any]) -> list[str]:
    arguments = []
    for name, value in options.items():
        if value is None or value is False:
            continue
        option = "--" + name.rstrip("_").replace("_", "-")
        if option == "--json":
            raise TypeError("json is what the function returns")
        if value is True:
            arguments.append(option)
        elif isinstance(value, Mapping):
            arguments.extend(f"{option}={key}={_text(entry)}" for key, entry in value.items())
        elif isinstance(value, (str, os.PathLike)) or not isinstance(value, Iterable):
            arguments.append(f"{option}={_text(value)}")
        else:
            arguments.extend(f"{option}={_text(entry)}" for entry in value)
    return arguments


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return os.fspath(value) if isinstance(value, os.PathLike) else str(value)
