"""Images as users pass them: files, bytes, arrays, images of Pillow."""

from __future__ import annotations

import os
import sys
from typing import Any

from zeg import _zeg
from zeg._errors import ImageError, NotInstalledError

_SHAPES = "an image is [height, width], or [height, width, channels] with 1, 3 or 4 channels"
_UINT8 = "convert it to uint8 with values from 0 to 255"
# Half a step of 8 bits, as for files with floating-point samples.
_TOLERANCE = 0.5 / 255


def load(image: Any, name: str | None = None) -> _zeg.Image:
    """Returns the image that an argument stands for."""
    if isinstance(image, _zeg.Image):
        return image
    if isinstance(image, (str, os.PathLike)):
        return _zeg.Image.open(os.fspath(image))
    name = "image" if name is None else name
    if isinstance(image, (bytes, bytearray, memoryview)):
        return _zeg.Image.decode(bytes(image), name)
    if _is_pillow(image):
        return _from_pillow(image, name)
    if hasattr(image, "__array__") or hasattr(image, "__array_interface__"):
        return _from_array(_numpy().asarray(image), name)
    if hasattr(image, "__dlpack__"):
        return _from_array(_from_dlpack(image), name)
    if hasattr(image, "read"):
        return _from_reader(image, name)
    raise ImageError(
        f"an object of the type {type(image).__name__} is no image",
        "give a path, the bytes of a file, an array of uint8 or an image of Pillow",
    )


def _numpy() -> Any:
    try:
        import numpy
    except ImportError as error:
        raise NotInstalledError(
            "arrays need numpy, which cannot be imported",
            "`pip install numpy`, or give a path, bytes or an image of Pillow",
        ) from error
    return numpy


def _from_reader(reader: Any, name: str) -> _zeg.Image:
    try:
        content = reader.read()
    except (OSError, ValueError) as error:
        raise ImageError(f"{name}: the file cannot be read: {error}", "open it again with open(path, 'rb')") from error
    if not isinstance(content, bytes):
        raise ImageError(f"{name}: the file is opened as text", "open it with open(path, 'rb')")
    return _zeg.Image.decode(content, name)


def _is_pillow(image: Any) -> bool:
    pillow = sys.modules.get("PIL.Image")
    return pillow is not None and isinstance(image, pillow.Image)


def _from_pillow(image: Any, name: str) -> _zeg.Image:
    if image.mode.startswith(("I", "F")):
        raise ImageError(
            f"{name}: the mode {image.mode} of Pillow has no fixed range of values",
            "convert it to the mode RGB or L with values from 0 to 255, or give the path of the file",
        )
    if 0 in image.size:
        raise ImageError(f"{name}: an image of {image.width}×{image.height} pixels", _SHAPES)
    try:
        # Alpha is dropped, as from files; Pillow puts no colour behind it.
        pixels = image.convert("RGB").tobytes()
    except (OSError, ValueError, SyntaxError) as error:
        raise ImageError(f"{name}: the image cannot be read: {error}", "open the file again, or give its path") from error
    return _zeg.Image.from_bytes(pixels, image.width, image.height, name)


def _from_dlpack(image: Any) -> Any:
    try:
        return _numpy().from_dlpack(image)
    except (BufferError, RuntimeError, TypeError, ValueError) as error:
        raise ImageError(
            f"the array cannot be taken over: {error}", "bring it to the memory of the CPU first, such as with .cpu()"
        ) from error


def _from_array(array: Any, name: str) -> _zeg.Image:
    numpy = _numpy()
    shape = "×".join(str(side) for side in array.shape)
    if array.ndim not in (2, 3) or 0 in array.shape:
        raise ImageError(f"{name}: an array of the shape {shape or '()'}", _SHAPES)
    if array.ndim == 3 and array.shape[2] not in (1, 3, 4):
        first = array.shape[0] in (1, 3, 4)
        hint = "channels come last: image.transpose(1, 2, 0)" if first else _SHAPES
        raise ImageError(f"{name}: an array of the shape {shape}", hint)
    array = _as_uint8(numpy, array, name)
    if array.ndim == 2:
        array = array[:, :, None]
    if array.shape[2] == 4:
        array = array[:, :, :3]
    if array.shape[2] == 1:
        array = numpy.broadcast_to(array, (*array.shape[:2], 3))
    # Removes gaps and negative strides; an array in order stays what it is.
    return _zeg.Image.from_array(numpy.ascontiguousarray(array), name)


def _as_uint8(numpy: Any, array: Any, name: str) -> Any:
    if array.dtype == numpy.uint8:
        return array
    if array.dtype.kind != "f":
        raise ImageError(f"{name}: an array of {array.dtype}", _UINT8)
    colours = array[:, :, :3] if array.ndim == 3 else array
    least, largest = float(colours.min()), float(colours.max())
    if not (least >= -_TOLERANCE and largest <= 1 + _TOLERANCE):
        raise ImageError(
            f"{name}: an array of {array.dtype} with values from {least:g} to {largest:g}; they must be from 0 to 1",
            _UINT8,
        )
    scaled = numpy.clip(colours.astype(numpy.float32), 0, 1) * numpy.float32(255)
    return (scaled + numpy.float32(0.5)).astype(numpy.uint8)
