"""The result of an image."""

from __future__ import annotations

import contextlib
import json
import os
import threading
from typing import TYPE_CHECKING, Any

from zeg import _zeg
from zeg._errors import NotInstalledError, SettingsError

if TYPE_CHECKING:
    import numpy
    from numpy.typing import NDArray

#: Opacity of the colours in overlays, as ``zeg segment`` has it.
OPACITY = 0.55
#: Smallest region in annotations, in pixels, as ``zeg segment`` has it.
MIN_AREA = 16


class Segmentation:
    """The labels of an image.

    The arrays are moved to numpy without a copy and may be changed: what is drawn or exported later is read from them.
    """

    _core: _zeg.Segmentation
    name: str

    def __init__(self) -> None:
        raise TypeError("write segmenter.segment(image, classes)")

    @classmethod
    def _of(cls, core: _zeg.Segmentation, name: str) -> Segmentation:
        segmentation = cls.__new__(cls)
        segmentation._core, segmentation.name = core, name
        return segmentation

    @property
    def labels(self) -> NDArray[numpy.uint16]:
        """The class index of every pixel, uint16 ``[height, width]``; ``zeg.UNLABELLED`` where there is none."""
        return self._core.labels

    @property
    def confidence(self) -> NDArray[numpy.float32]:
        """The score of the best class at every pixel, float32 ``[height, width]``, from 0 to 1."""
        return self._core.confidence

    @property
    def scores(self) -> NDArray[numpy.float32] | None:
        """The scores of all classes, float32 ``[classes, height, width]``, if ``scores=True`` asked for them."""
        return self._core.scores

    @property
    def names(self) -> list[str]:
        """The names of the classes, by label."""
        return self._core.names

    @property
    def colours(self) -> list[tuple[int, int, int]]:
        """The colours of the classes, by label: red, green, blue."""
        return [(red, green, blue) for red, green, blue in self._core.colours]

    @property
    def size(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self._core.size

    @property
    def tied(self) -> bool:
        """Whether all classes have the same score at every pixel, so that the labels mean nothing."""
        return self._core.tied

    @property
    def areas(self) -> dict[str, int]:
        """Number of pixels of each class that occurs, largest first."""
        return {entry["name"]: entry["pixels"] for entry in self.summary()["classes"]}

    def summary(self) -> dict[str, Any]:
        """Returns area, confidence and regions of each class, as ``zeg segment --write summary`` does."""
        return json.loads(self._core.summary(self.name))

    def overlay(self, opacity: float = OPACITY, *, legend: bool = False) -> NDArray[numpy.uint8]:
        """Returns the image with class colours, uint8 ``[height, width, 3]``.

        - ``opacity``: from 0 to 1
        - ``legend``: adds a strip with the names of the classes below the image
        """
        drawn = self._core.overlay(opacity)
        height, width = self.size
        return drawn if legend else drawn[:height, :width]

    def to_png(self, path: str | os.PathLike[str] | None = None, *, overlay: bool = False) -> bytes:
        """Returns the label map as PNG, with a palette and the class names; the same bytes as ``zeg segment`` writes.

        - ``path``: a file to write as well; it appears whole or not at all
        - ``overlay``: the image with class colours and a legend in place of the label map
        """
        content = self._core.overlay_png(OPACITY) if overlay else self._core.labels_png()
        if path is not None:
            write_whole(path, content)
        return content

    def to_coco(
        self, file_name: str | None = None, *, polygons: bool = False, min_area: int = MIN_AREA
    ) -> dict[str, Any]:
        """Returns a document of COCO with the image and its regions; ``zeg.merge_coco`` joins several.

        - ``file_name``: name of the image; ``None`` is that of its file
        - ``polygons``: outlines in place of run-length codes
        - ``min_area``: smallest region, in pixels
        """
        if isinstance(min_area, bool) or not isinstance(min_area, int) or min_area < 0:
            raise SettingsError(f"min_area={min_area!r}", "give a number of pixels")
        name = self.name if file_name is None else os.fspath(file_name)
        content = self._core.export("coco-polygons" if polygons else "coco", name, min_area)
        return json.loads(content)

    def to_supervision(self) -> Any:
        """Returns ``supervision.Detections`` with one mask for each class that occurs; needs the package supervision."""
        try:
            import numpy
            import supervision
        except ImportError as error:
            raise NotInstalledError(
                f"to_supervision needs supervision, which cannot be imported: {error}", "`pip install supervision`"
            ) from error
        found = [label for label in numpy.unique(self.labels) if label != _zeg.UNLABELLED]
        if not found:
            return supervision.Detections.empty()
        masks = numpy.stack([self.labels == label for label in found])
        return supervision.Detections(
            xyxy=supervision.mask_to_xyxy(masks).astype(float),
            mask=masks,
            confidence=numpy.array([self.confidence[mask].mean() for mask in masks]),
            class_id=numpy.array(found, dtype=int),
            data={"class_name": numpy.array([self.names[label] for label in found])},
        )

    def _repr_png_(self) -> bytes:
        return self.to_png(overlay=True)

    def __repr__(self) -> str:
        height, width = self.size
        return f"<zeg.Segmentation of {self.name}: {width}×{height}, {len(self.names)} classes>"


def write_whole(path: str | os.PathLike[str], content: bytes) -> None:
    """Writes a file that appears whole or not at all, even if the process is killed."""
    folder, name = os.path.split(os.fspath(path))
    temporary = os.path.join(folder, f".{name}.{os.getpid()}-{threading.get_ident()}.part")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
