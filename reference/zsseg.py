"""Writes crops, boxes and combined scores of zsseg, computed with NumPy from the formulas of the paper and its code.

    python reference/zsseg.py crates/zeg-model/tests/golden/zsseg.safetensors

The bicubic kernel is that of PyTorch (a = -0.75, half-pixel centres, borders clamped, no antialiasing).
"""

import pathlib
import sys

import numpy as np
from safetensors.numpy import save_file

MEAN = np.array([0.48145466, 0.4578275, 0.40821073]) * 255
STD = np.array([0.26862954, 0.26130258, 0.27577711]) * 255
SIZE, PADDED, GRID, SIDE = (30, 50), (32, 64), (8, 16), 12
WEIGHT = 0.7
SEEN = np.array([1, 0, 1])


def bilinear(x, size):
    """Resizes the last two axes, half-pixel centres, borders clamped."""
    for axis, length in ((-2, size[0]), (-1, size[1])):
        n = x.shape[axis]
        place = np.maximum((np.arange(length) + 0.5) * n / length - 0.5, 0)
        low = np.minimum(place.astype(int), n - 1)
        high = np.minimum(low + 1, n - 1)
        share = (place - low).reshape((-1, 1) if axis == -2 else (1, -1))
        x = np.take(x, low, axis) * (1 - share) + np.take(x, high, axis) * share
    return x


def kernel(d, a=-0.75):
    d = np.abs(d)
    near = (a + 2) * d**3 - (a + 3) * d**2 + 1
    far = a * d**3 - 5 * a * d**2 + 8 * a * d - 4 * a
    return np.where(d <= 1, near, np.where(d < 2, far, 0))


def bicubic(x, size):
    for axis, length in ((-2, size[0]), (-1, size[1])):
        n = x.shape[axis]
        place = (np.arange(length) + 0.5) * n / length - 0.5
        matrix = np.zeros((length, n))
        for row, p in enumerate(place):
            for k in range(int(np.floor(p)) - 1, int(np.floor(p)) + 3):
                matrix[row, min(max(k, 0), n - 1)] += kernel(p - k)
        x = matrix @ x if axis == -2 else x @ matrix.T
    return x


def box(inside):
    rows, columns = np.where(inside.any(1))[0], np.where(inside.any(0))[0]
    return columns[0], rows[0], columns[-1] + 1, rows[-1] + 1


def crop(image, share, bounds, fill):
    left, top, right, bottom = bounds
    shown = image * share + (1 - share) * fill[:, None, None]
    normalised = (shown - MEAN[:, None, None]) / STD[:, None, None]
    return bicubic(normalised[:, top:bottom, left:right], (SIDE, SIDE))


def expanded(bounds, factor):
    left, top, right, bottom = bounds
    x, y = (left + right) / 2, (top + bottom) / 2
    w, h = (right - left) * factor / 2, (bottom - top) * factor / 2
    low = lambda v: max(int(v), 0)
    return low(x - w), low(y - h), min(int(x + w), SIZE[1]), min(int(y + h), SIZE[0])


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def main(target):
    random = np.random.default_rng(7)
    image = random.integers(0, 256, (3, *SIZE), dtype=np.uint8)
    masks = bilinear(random.normal(0, 4, (4, 3, 5)), GRID)
    masks[1] = -3  # empty
    masks = masks.astype(np.float32)
    p = 1 / (1 + np.exp(-bilinear(masks.astype(np.float64), PADDED)))[:, : SIZE[0], : SIZE[1]]
    inside = p > 0.5
    valid = np.where(inside.any((1, 2)))[0]
    boxes = np.array([box(inside[q]) for q in valid])
    pixels = image.astype(np.float64)
    crops = lambda share, bounds, fill: np.stack([crop(pixels, share(q), bounds(i), fill) for i, q in enumerate(valid)])
    hard, soft = (lambda q: inside[q]), (lambda q: p[q])
    own = random.normal(0, 2, (4, 4)).astype(np.float32)
    clip = random.normal(0, 2, (len(valid), 3)).astype(np.float32)
    a = softmax(own.astype(np.float64))[:, :3]
    b = np.ones_like(a)
    b[valid] = softmax(clip.astype(np.float64))
    scores = np.where(SEEN, a**WEIGHT * b ** (1 - WEIGHT), a ** (1 - WEIGHT) * b**WEIGHT)
    numbers = {
        "image": image,
        "masks": masks,
        "valid": valid.astype(np.int64),
        "boxes": boxes.astype(np.int64),
        "crops": crops(hard, lambda i: boxes[i], MEAN),
        "crops_black": crops(hard, lambda i: boxes[i], np.zeros(3)),
        "crops_soft": crops(soft, lambda i: boxes[i], MEAN),
        "crops_expanded": crops(hard, lambda i: expanded(boxes[i], 1.5), MEAN),
        "own": own,
        "clip": clip,
        "scores": scores,
    }
    numbers = {k: v.astype(np.float32) if v.dtype == np.float64 else np.ascontiguousarray(v) for k, v in numbers.items()}
    save_file(numbers, target)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]))
