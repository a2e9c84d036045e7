"""Zero-shot semantic segmentation: labels every pixel of an image with class names given as text.

>>> import zeg
>>> segmenter = zeg.Segmenter.load("mini")
>>> segmenter.method
'training-free (combined)'
"""

from zeg._commands import evaluate, export, info, segment_files, train
from zeg._errors import (
    ClassError,
    CommandError,
    ForkedError,
    ImageError,
    ImageFileError,
    InternalError,
    ModelError,
    NotInstalledError,
    SettingsError,
    TooLargeError,
    ZegError,
    ZegWarning,
)
from zeg._results import merge_coco
from zeg._segmentation import Segmentation
from zeg._segmenter import Encoding, Segmenter
from zeg._zeg import UNLABELLED
from zeg._zeg import VERSION as __version__

__all__ = [
    "UNLABELLED",
    "ClassError",
    "CommandError",
    "Encoding",
    "ForkedError",
    "ImageError",
    "ImageFileError",
    "InternalError",
    "ModelError",
    "NotInstalledError",
    "Segmentation",
    "Segmenter",
    "SettingsError",
    "TooLargeError",
    "ZegError",
    "ZegWarning",
    "__version__",
    "evaluate",
    "export",
    "info",
    "merge_coco",
    "segment_files",
    "train",
]
