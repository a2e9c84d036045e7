"""Selects the smaller tensors of zsseg's reference vectors for the repository, without large intermediate results.

    python reference/zsseg_golden.py VECTORS/zsseg crates/zeg-parity/tests/golden/zsseg
"""

import pathlib
import sys

import zegformer_golden

RESULTS = ("class_scores", "image_features", "clip_logits", "boxes", "valid", "argmax")

zegformer_golden.KEPT = {
    "state": lambda name: True,
    "clip": lambda name: True,
    "text": lambda name: True,
    "labels": lambda name: True,
    "prompt": lambda name: True,
    "train": lambda name: not name.startswith("mid.") or name in ("mid.res5", "mid.hs", "mid.class_embed"),
    "infer": lambda name: name.startswith(("in.", "text.", "out.class_embed"))
    or any(part in name for part in RESULTS),
}

if __name__ == "__main__":
    zegformer_golden.main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
