"""Class lists as users write them."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any, Union

from zeg._errors import ClassError

ClassEntry = Union[str, Iterable[str], Mapping[str, Any]]
Classes = Union[str, "os.PathLike[str]", Iterable[ClassEntry], Mapping[str, Any]]
Entry = tuple[list[str], bool, Union[list[int], None], Union[float, None]]

_HINT = 'write a name ("sofa|couch"), a list of names, or a dictionary with "name"'
_KEYS = ("name", "synonyms", "background", "colour", "color", "threshold")


def read(classes: Classes | None, argument: str = "classes") -> str | list[Entry] | None:
    """Returns a class list in the form that the native module takes.

    Text is taken as the program takes it: names separated by commas with ``|`` between synonyms, the path of a class
    file, or the name of a list such as ``voc20``. A mapping has names as keys and colours as values.
    """
    if classes is None and argument != "classes":
        return None
    if isinstance(classes, (str, os.PathLike)):
        return os.fspath(classes)
    if isinstance(classes, Mapping):
        return [
            _entry({"name": name, "colour": colour}, argument, position)
            for position, (name, colour) in enumerate(classes.items())
        ]
    if isinstance(classes, (bytes, bytearray)) or not isinstance(classes, Iterable):
        raise ClassError(f"{argument} is {_article(classes)}", _HINT)
    entries = [_entry(entry, argument, position) for position, entry in enumerate(classes)]
    if not entries and argument == "classes":
        raise ClassError("the class list is empty", 'name what to segment: classes=["dog", "sofa"]')
    return entries


def settled(classes: Any) -> Any:
    """Returns a class list that can be read several times, which an iterator cannot."""
    if isinstance(classes, Iterable) and not isinstance(classes, (str, bytes, os.PathLike, Mapping)):
        return list(classes)
    return classes


def _entry(entry: Any, argument: str, position: int) -> Entry:
    place = f"{argument}[{position}]"
    if isinstance(entry, str):
        return entry.split("|"), False, None, None
    if isinstance(entry, Mapping):
        return _from_mapping(entry, place)
    if isinstance(entry, (bytes, bytearray)) or not isinstance(entry, Iterable):
        raise ClassError(f"{place} is {_article(entry)}", _HINT)
    names = list(entry)
    for name in names:
        if not isinstance(name, str):
            raise ClassError(f"{place} has {_article(name)} among its names", _HINT)
    if not names:
        raise ClassError(f"{place} has no name", _HINT)
    return names, False, None, None


def _from_mapping(entry: Mapping[str, Any], place: str) -> Entry:
    for key in entry:
        if key not in _KEYS:
            raise ClassError(f"{place} has the key {key!r}", f"keys are {', '.join(_KEYS)}")
    name = entry.get("name")
    if not isinstance(name, str):
        raise ClassError(f"{place} has {_article(name)} as its name", _HINT)
    synonyms = entry.get("synonyms", ())
    if isinstance(synonyms, str):
        synonyms = synonyms.split("|")
    synonyms = list(synonyms)
    if not all(isinstance(synonym, str) for synonym in synonyms):
        raise ClassError(f"{place} has a synonym that is no text", _HINT)
    threshold = entry.get("threshold")
    if threshold is not None:
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)) or not 0 <= threshold <= 1:
            raise ClassError(f"{place} has the threshold {threshold!r}", "a threshold is a number from 0 to 1")
        threshold = float(threshold)
    colour = _colour(entry.get("colour", entry.get("color")), place)
    return name.split("|") + synonyms, bool(entry.get("background", False)), colour, threshold


def _colour(colour: Any, place: str) -> list[int] | None:
    hint = 'write a colour as "#rrggbb" or (red, green, blue) from 0 to 255'
    if colour is None:
        return None
    if isinstance(colour, str):
        digits = colour.removeprefix("#")
        if len(digits) != 6 or any(digit not in "0123456789abcdefABCDEF" for digit in digits):
            raise ClassError(f"{place} has the colour {colour!r}", hint)
        return list(bytes.fromhex(digits))
    try:
        values = [int(value) for value in colour]
    except (TypeError, ValueError):
        values = []
    if len(values) != 3 or not all(0 <= value <= 255 for value in values):
        raise ClassError(f"{place} has the colour {colour!r}", hint)
    return values


def _article(value: object) -> str:
    return "None" if value is None else f"of the type {type(value).__name__}"
