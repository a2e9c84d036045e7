"""Writes small weight files, their pickles and their headers to the corpora of the fuzz targets.

Command    python fuzz/weight_seeds.py        (standard library only; Python 3.11)

The files are the golden files of the crate zeg-weights, made by reference/clip_formats.py and
reference/hostile_weights.py. Files above 64 kB are left out, because most bytes that a fuzzer would change in them are
weights.
"""

import struct
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent
GOLDEN = ROOT.parent / "crates/zeg-weights/tests/golden"
LARGEST = 64 << 10
SUFFIXES = {".pt", ".pth", ".bin", ".safetensors"}


def write(target, name, data):
    if len(data) <= LARGEST:
        folder = ROOT / "corpus" / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def main():
    for path in sorted(GOLDEN.rglob("*")):
        if path.suffix not in SUFFIXES:
            continue
        data = path.read_bytes()
        write("torch_archive", path.name, data)
        if path.suffix == ".safetensors" and len(data) > 8:
            (length,) = struct.unpack("<Q", data[:8])
            if length < len(data):
                count = min(len(data) - 8 - length, 0xFFFF)
                write("safetensors_header", path.name, struct.pack("<H", count) + data[8 : 8 + length])
        elif data.startswith(b"PK") and zipfile.is_zipfile(path):
            with zipfile.ZipFile(path) as archive:
                for entry in archive.namelist():
                    if entry.endswith("data.pkl"):
                        # Without storages, the list of storage keys is empty.
                        write("pickle", path.name, archive.read(entry) + b"\x80\x02].")
        elif data.startswith(b"\x80"):
            # The object begins after the third pickle, which describes the machine.
            end = data.find(b"type_sizes")
            end = data.find(b".", end)
            write("pickle", path.name, data[end + 1 :])


if __name__ == "__main__":
    main()
