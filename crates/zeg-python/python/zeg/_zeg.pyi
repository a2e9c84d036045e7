"""The native part of the package; use the package itself."""

import os
from collections.abc import Callable, Sequence
from typing import Any

import numpy
from numpy.typing import NDArray

VERSION: str
UNLABELLED: int

_Entry = tuple[list[str], bool, list[int] | None, float | None]
_ClassList = str | list[_Entry]

class Image:
    name: str
    notices: list[str]
    size: tuple[int, int]
    @staticmethod
    def open(path: str | os.PathLike[str]) -> Image: ...
    @staticmethod
    def decode(bytes: bytes, name: str) -> Image: ...
    @staticmethod
    def from_array(array: NDArray[numpy.uint8], name: str) -> Image: ...
    @staticmethod
    def from_bytes(bytes: bytes, width: int, height: int, name: str) -> Image: ...

class Segmenter:
    method: str
    notices: list[str]
    def __new__(cls, settings: dict[str, Any]) -> Segmenter: ...
    def segment(
        self,
        image: Image,
        classes: _ClassList,
        background: _ClassList | None,
        threshold: float | None,
        scales: Sequence[float],
        flip: bool,
        scores: bool,
    ) -> tuple[Segmentation, list[str]]: ...
    def encode(self, image: Image, scales: Sequence[float], flip: bool) -> Encoding: ...

class Encoding:
    size: tuple[int, int]
    nbytes: int
    def ask(
        self, classes: _ClassList, background: _ClassList | None, threshold: float | None, scores: bool
    ) -> tuple[Segmentation, list[str]]: ...

class Segmentation:
    labels: NDArray[numpy.uint16]
    confidence: NDArray[numpy.float32]
    scores: NDArray[numpy.float32] | None
    names: list[str]
    colours: list[tuple[int, int, int]]
    size: tuple[int, int]
    tied: bool
    def labels_png(self) -> bytes: ...
    def overlay_png(self, opacity: float) -> bytes: ...
    def overlay(self, opacity: float) -> NDArray[numpy.uint8]: ...
    def summary(self, name: str) -> str: ...
    def export(self, format: str, name: str, min_area: int) -> bytes: ...

def main(start: list[str], arguments: list[str]) -> int: ...
def cache_folder() -> os.PathLike[str] | None: ...
def run_command(
    arguments: list[str], on_step: Callable[[dict[str, Any]], object] | None
) -> tuple[int, str | None, list[str]]: ...
