"""Exceptions and warnings of the package."""

from __future__ import annotations

import re
import warnings
from typing import Any


class ZegError(Exception):
    """An error of this package.

    ``hint`` says what to do about it, or is ``None``.
    """

    def __init__(self, message: str, hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\nhint: {self.hint}"


class ImageError(ZegError, ValueError):
    """An image cannot be read, or an array is no image."""


class ImageFileError(ImageError, OSError):
    """The file of an image does not exist, or cannot be opened."""


class ClassError(ZegError, ValueError):
    """A class list is empty, or a name of it cannot be used."""


class ModelError(ZegError):
    """A model cannot be loaded."""


class SettingsError(ZegError, ValueError):
    """The value of a setting cannot be used."""


class TooLargeError(ZegError, MemoryError):
    """The work would take more memory than the machine has."""


class NotInstalledError(ZegError, ImportError):
    """A package that this call needs is not installed."""


class ForkedError(ZegError, RuntimeError):
    """The process was forked after it had started threads that are not in the child."""


class InternalError(ZegError, RuntimeError):
    """This package did something wrong."""


class CommandError(ZegError):
    """A command failed.

    ``exit_code`` is that of the program; ``document`` is its JSON, where a command lists which of several things failed.
    """

    def __init__(
        self,
        message: str,
        hint: str | None = None,
        exit_code: int = 1,
        document: dict[str, Any] | None = None,
    ) -> None:
        super().__init__(message, hint)
        self.exit_code = exit_code
        self.document = document

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.hint, self.exit_code, self.document)


class ZegWarning(UserWarning):
    """Something about a result that a user should know, such as an assumption about a file."""


_KINDS = {
    "other": ZegError,
    "image": ImageError,
    "file": ImageFileError,
    "classes": ClassError,
    "model": ModelError,
    "settings": SettingsError,
    "memory": TooLargeError,
    "not_installed": NotInstalledError,
    "forked": ForkedError,
    "internal": InternalError,
}


_QUOTED = re.compile(r"(`[^`]*`)")
_NUMBER = r"-?[0-9]+(?:\.[0-9]+)?"


def in_python(text: str) -> str:
    """Returns a sentence of the program with the names of arguments in place of its options.

    A command in backticks is one for a shell, and stays as it is.
    """
    return "".join(part if part.startswith("`zeg ") else _with_arguments(part) for part in _QUOTED.split(text))


def _with_arguments(text: str) -> str:
    whole = re.fullmatch(r"`--([a-z][a-z-]*) (\S+)`", text)
    if whole:
        name, value = whole.group(1).replace("-", "_"), whole.group(2)
        return f"`{name}={value}`" if re.fullmatch(_NUMBER, value) else f'`{name}="{value}"`'
    text = re.sub(r"--(activation|precision|device) ([a-z0-9-]+)(?= overrides)", r'\1="\2"', text)
    text = text.replace("--model", "model")
    # Between an option and its number stands a blank in the program, and nothing in Python.
    text = re.sub(rf"--([a-z][a-z-]*) (?={_NUMBER}\b)", r"--\1", text)
    return re.sub(r"--([a-z][a-z-]*)", lambda found: found.group(1).replace("-", "_") + "=", text)


def make(kind: str, message: str, hint: str | None) -> ZegError:
    """Returns the exception of a kind; the native module calls this."""
    return _KINDS[kind](in_python(message), None if hint is None else in_python(hint))


def warn(notices: list[str], stacklevel: int = 3) -> None:
    """Issues a warning for every notice."""
    for notice in notices:
        warnings.warn(in_python(notice), ZegWarning, stacklevel=stacklevel + 1)
