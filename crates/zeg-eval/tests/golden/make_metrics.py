"""Turns reference metric vectors (safetensors and JSON) into the small golden file metrics.json.

Packages   none, Python 3.8 or later
Run        python3 make_metrics.py misc_zegclip.safetensors misc_zegclip.json > metrics.json

The vectors hold the raw label maps and predictions of three images, and what mmsegmentation 0.24 computes from them in
single precision, with its option that moves labels down by one and ignores label 0.
"""

import json
import struct
import sys

FORMATS = {"I64": "q", "U8": "B", "F32": "f"}


def read_tensors(path):
    with open(path, "rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
        data = file.read()
    tensors = {}
    for name, entry in header.items():
        if name.startswith("metric."):
            start, end = entry["data_offsets"]
            code = FORMATS[entry["dtype"]]
            tensors[name[len("metric.") :]] = [
                value for (value,) in struct.iter_unpack("<" + code, data[start:end])
            ]
    return tensors


def main():
    tensors = read_tensors(sys.argv[1])
    with open(sys.argv[2]) as file:
        expected = json.load(file)["metric"]
    images = sum(name.startswith("pred") for name in tensors)
    golden = {
        "about": "made with: python3 make_metrics.py misc_zegclip.safetensors misc_zegclip.json",
        "raw_labels": [tensors[f"raw_label{image}"] for image in range(images)],
        "predictions": [tensors[f"pred{image}"] for image in range(images)],
        **{name: [int(v) for v in tensors["total_" + name]] for name in ("intersect", "label", "pred", "union")},
        **expected,
    }
    print(json.dumps(golden).replace(', "', ',\n"'))


if __name__ == "__main__":
    main()
