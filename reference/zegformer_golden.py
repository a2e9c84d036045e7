"""Selects the smaller tensors of ZegFormer's reference vectors for the repository, without large intermediate results.

    python reference/zegformer_golden.py VECTORS/zegformer crates/zeg-parity/tests/golden/zegformer
"""

import json
import pathlib
import shutil
import struct
import sys

KEPT = {
    "state": lambda name: True,
    "clipvisual": lambda name: True,
    "cliptext": lambda name: True,
    "gzsseval": lambda name: True,
    "optstep": lambda name: False,
    "train": lambda name: not name.startswith(("mid.", "in.sem_seg")) or name in ("mid.res5", "mid.hs", "mid.pos_embed"),
    "infer": lambda name: name.startswith(("in.", "text.", "seen", "unseen", "out.pred_logits"))
    or "class_scores" in name or "argmax" in name or "image_features" in name or "boxes" in name,
}


def main(source, target):
    target.mkdir(parents=True, exist_ok=True)
    shutil.copy(source / "a_meta.json", target)
    for part, kept in KEPT.items():
        data = (source / f"a_{part}.safetensors").read_bytes()
        length = struct.unpack("<Q", data[:8])[0]
        header, body = json.loads(data[8 : 8 + length]), data[8 + length :]
        shorter, values = {"__metadata__": header.pop("__metadata__")}, b""
        for name, entry in sorted(header.items(), key=lambda item: item[1]["data_offsets"][0]):
            if kept(name):
                start, end = entry["data_offsets"]
                shorter[name] = {**entry, "data_offsets": [len(values), len(values) + end - start]}
                values += body[start:end]
        if len(shorter) > 1:
            text = json.dumps(shorter).encode()
            text += b" " * (-len(text) % 8)
            (target / f"a_{part}.safetensors").write_bytes(struct.pack("<Q", len(text)) + text + values)


if __name__ == "__main__":
    main(pathlib.Path(sys.argv[1]), pathlib.Path(sys.argv[2]))
