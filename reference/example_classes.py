"""Writes golden numbers of classes that are given by example images: the discriminants and the rows that scores use.

Packages   numpy 2.4.6, safetensors 0.8.0
Golden     python reference/example_classes.py crates/zeg-model/tests/golden/example_classes.safetensors

Written from the formulas with NumPy, float64, on random unit patches. For a class, m is the mean over its images of the
mean of an image's patches inside the mask, and o the mean of all its patches outside. n is the mean of what is not of the
class: (1 - share) times the mean of the other classes' m, and share times o. S is the covariance of the patches inside
around their class's m, every class, every image of a class and every patch of an image with the same weight, plus
shrinkage times the mean variance on the diagonal.

    w = S^-1 (m - n) / ((m - n)' S^-1 (m - n))      b = -w'n      so that w'n + b = 0 and w'm + b = 1
    score of a patch p = p't + weight (p'w + b)

t is the unit class embedding; for a class without a name, the mean of those of the classes with one. The inverse is
computed by an eigendecomposition, which the program does not use.
"""

import argparse
from pathlib import Path

import numpy as np
import safetensors.numpy

DIM = 24
SETTINGS = {"usual": (0.1, 1.0, 0.5), "other": (0.4, 0.25, 0.2)}  # weight, shrinkage, share of the patches outside
# Per class: whether it has a name, and the patches inside and outside the mask of each example.
CLASSES = [
    (True, [(7, 5), (3, 0)]),
    (True, []),
    (False, [(4, 6)]),
    (True, [(1, 0)]),
    (True, [(9, 2), (2, 2), (5, 3)]),
]


def unit(rows):
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def discriminants(examples, shrinkage, share):
    """Returns w [classes, dim] and b [classes]; zeros for classes without examples."""
    given = [number for number, images in enumerate(examples) if images]
    mean = {c: np.mean([inside.mean(0) for inside, _ in examples[c]], axis=0) for c in given}
    covariance = np.zeros((DIM, DIM))
    for c in given:
        of_images = [(inside - mean[c]).T @ (inside - mean[c]) / len(inside) for inside, _ in examples[c]]
        covariance += np.mean(of_images, axis=0) / len(given)
    covariance += shrinkage * np.trace(covariance) / DIM * np.eye(DIM)
    values, vectors = np.linalg.eigh(covariance)
    inverse = vectors / values @ vectors.T
    w, b = np.zeros((len(examples), DIM)), np.zeros(len(examples))
    for c in given:
        others = np.mean([mean[other] for other in given if other != c], axis=0)
        outside = np.concatenate([rows for _, rows in examples[c]])
        other = share * outside.mean(0) + (1 - share) * others if len(outside) else others
        difference = mean[c] - other
        w[c] = inverse @ difference / (difference @ inverse @ difference)
        b[c] = -w[c] @ other
    return w, b


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    random = np.random.default_rng(21)
    text = unit(random.normal(size=(len(CLASSES), DIM))).astype(np.float32)
    patches = unit(random.normal(size=(11, DIM))).astype(np.float32)
    out = {"text": text, "patches": patches, "named": np.array([named for named, _ in CLASSES], np.float32)}
    examples = []
    for number, (_, images) in enumerate(CLASSES):
        centre = random.normal(size=DIM)
        own = []
        for index, counts in enumerate(images):
            rows = [unit(place * centre + random.normal(size=(count, DIM))) for place, count in zip((1, 0), counts)]
            rows = [values.astype(np.float32) for values in rows]
            for name, values in zip(("inside", "outside"), rows):
                out[f"class{number}.example{index}.{name}"] = values
            own.append([values.astype(np.float64) for values in rows])
        examples.append(own)
    base = unit(text.astype(np.float64))
    named = np.array([named for named, _ in CLASSES])
    base[~named] = base[named].mean(0)
    for name, (weight, shrinkage, share) in SETTINGS.items():
        w, b = discriminants(examples, shrinkage, share)
        rows = base + weight * w
        out[f"{name}.patch_rows"] = rows.astype(np.float32)
        out[f"{name}.bias"] = (weight * b).astype(np.float32)
        out[f"{name}.scores"] = (patches.astype(np.float64) @ rows.T + weight * b).astype(np.float32)
    out["image_rows"] = base.astype(np.float32)
    file.parent.mkdir(parents=True, exist_ok=True)
    about = {"made_by": f"python reference/example_classes.py, numpy {np.__version__}"}
    safetensors.numpy.save_file(out, file, about)
    print(f"{file.stat().st_size:,} bytes, numpy {np.__version__}")


if __name__ == "__main__":
    main()
