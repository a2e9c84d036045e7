"""Writes one tiny state dict in the wrappers and under the prefixes that training programs use.

Packages   Python 3.11's standard library only
Golden     python reference/wrapped_weights.py crates/zeg-weights/tests/golden/wrapped

plain.pth is the state dict itself; every other file holds the same tensors, except unknown_key.pth, which no reader can
understand without being told the key.
"""

import argparse
import struct
from pathlib import Path

from hostile_weights import MARK, Raw, pickled, put, tensor, zipped

NAMES = ("visual.conv1.weight", "visual.proj", "token_embedding.weight", "text_projection")
GOOD = struct.pack("<4f", 1, 2, 3, 4)


def model(prefix=""):
    return {prefix + name: tensor((2, 2), (2, 1)) for name in NAMES}


def other():
    """Returns a state dict with other values: each tensor is a transposed view."""
    return {name: tensor((2, 2), (1, 2)) for name in NAMES}


def listed(value):
    return Raw(b"]" + MARK + put(value) + b"e")


FILES = {
    "plain": model(),
    "compiled_ddp": {"state_dict": model("_orig_mod.module.")},
    "lightning": {"epoch": 3, "state_dict": model("clip_model.")},
    "ema": {"ema": model()},
    "state_dict_ema": {"epoch": 3, "state_dict_ema": model()},
    "net": {"net": model(), "step": 7},
    "weights": {"weights": model()},
    "params": {"params": model()},
    "deepspeed": {"module": model(), "optimizer": {}},
    "nested": {"model": {"state_dict": model("module.")}},
    "list": listed(model()),
    "model_and_ema": {"model": model(), "model_ema": other()},
    "unknown_key": {"epoch": 3, "stuff": model()},
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in FILES.items():
        (folder / f"{name}.pth").write_bytes(zipped(pickled(value), data=GOOD))


if __name__ == "__main__":
    main()
