"""Writes the seeds of the fuzz targets: small inputs of every form that a reader accepts, and some that it must refuse.

Command    python fuzz/make_seeds.py        (standard library only; Python 3.11)

The seeds are kept in the repository and replayed by a test (crates/zeg-cli/tests/fuzz_seeds.rs); all together must stay
below 2 MB. Images, labels and weights come from the golden files that other scripts made; files above 8 kB are left out.
"""

import json
import struct
import zipfile
from pathlib import Path

ROOT = Path(__file__).parent
CRATES = ROOT.parent / "crates"
LARGEST = 8 << 10


def write(target, name, data):
    if len(data) <= LARGEST:
        folder = ROOT / "seeds" / target
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)


def text(target, name, content, first=None):
    start = b"" if first is None else bytes([first])
    write(target, name, start + content.encode())


def class_forms():
    forms = {
        "text": (0, "# rooms\nsofa, couch | settee\ntv # set\n"),
        "csv": (1, "id,name,synonyms\n0,sofa,couch\n1,\"tv, set\",\n"),
        "tsv": (2, "id\tname\n0\tsofa\n1\ttv\n"),
        "json-list": (3, '["sofa", "tv"]'),
        "json-objects": (3, '[{"id": 1, "name": "sofa", "synonyms": ["couch"]}, {"id": 2, "name": "tv"}]'),
        "json-map": (3, '{"0": "sofa", "1": "tv"}'),
        "json-coco": (3, '{"categories": [{"id": 1, "name": "sofa", "supercategory": "furniture"}]}'),
        "jsonl": (4, '{"name": "sofa"}\n{"name": "tv"}\n'),
        "yaml-list": (5, "- sofa\n- tv\n"),
        "yaml-map": (5, "names:\n  0: sofa\n  1: tv\n"),
        "yaml-flow": (5, "names: [sofa, tv]\nnc: 2\n"),
        "toml": (6, 'background = ["wall"]\n[[class]]\nname = "sofa"\nsynonyms = ["couch"]\ncolor = "#0aFF80"\nthreshold = 0.5\n'),
        "numbered": (7, "0: sofa\n1: tv\n"),
        "json-deep": (3, "[" * 200 + "]" * 200),
        "carriage-returns": (0, "sofa\rtv\r"),
    }
    for name, (form, content) in forms.items():
        text("class_forms", name, content, form)


def segment(marker, payload):
    return bytes([0xFF, marker]) + struct.pack(">H", len(payload) + 2) + payload


def jpeg():
    for path in sorted((CRATES / "zeg-image/tests/golden").rglob("*.jpg")):
        write("jpeg", f"file-{path.name}", b"\x00" + path.read_bytes())
    scans = {"zeros": bytes(16), "ones": b"\xff\x00" * 12, "mixed": bytes(range(0, 250, 7)), "restart": b"\x5a\xff\xd0\xa5"}
    for name, data in scans.items():
        write("jpeg", f"baseline-{name}", b"\x01" + data)
        write("jpeg", f"progressive-{name}", b"\x02" + data)
    # A further scan after the first: spectral selection 1 to 63, and a refinement.
    further = segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + bytes(8) + segment(0xDA, bytes([1, 1, 0, 0, 0, 0x10])) + b"\x55"
    write("jpeg", "progressive-scans", b"\x02" + bytes(6) + further)

    def pieces(*parts):
        return b"\x03" + b"".join(bytes([marker, len(payload)]) + payload for marker, payload in parts)

    tables = [(0xDB, bytes([0]) + bytes([1]) * 64), (0xC4, bytes([0x00, 0, 2, 2] + [0] * 13 + [0, 1, 3, 6])),
              (0xC4, bytes([0x10, 0, 2, 2] + [0] * 13 + [0, 1, 0x11, 0xF0]))]
    three = bytes([8, 0, 16, 0, 16, 3, 1, 0x22, 0, 2, 0x11, 0, 3, 0x11, 0])
    scan_of_three = bytes([3, 1, 0, 2, 0, 3, 0, 0, 63, 0])
    frames = {"baseline": 0xC0, "extended": 0xC1, "progressive": 0xC2, "lossless": 0xC3, "arithmetic": 0xC9}
    for name, marker in frames.items():
        write("jpeg", f"segments-{name}", pieces(*tables, (marker, three), (0xDA, scan_of_three)) + bytes(24))
    write("jpeg", "segments-non-interleaved", pieces(*tables, (0xC0, three), (0xDA, bytes([1, 1, 0, 0, 63, 0])))
          + bytes(12) + segment(0xDA, bytes([1, 2, 0, 0, 63, 0])) + bytes(6) + segment(0xDA, bytes([1, 3, 0, 0, 63, 0])) + bytes(6))
    write("jpeg", "segments-exif", pieces((0xE1, b"Exif\0\0II*\0\x08\0\0\0\x01\0\x12\x01\x03\0\x01\0\0\0\x06\0\0\0\0\0\0\0"),
                                          *tables, (0xC0, three), (0xDA, scan_of_three)) + bytes(24))
    write("jpeg", "segments-restart-interval", pieces(*tables, (0xDD, b"\0\x01"), (0xC0, three), (0xDA, scan_of_three)) + b"\0\0\xff\xd0\0\0")
    write("jpeg", "segments-height-later", pieces(*tables, (0xC0, bytes([8, 0, 0, 0, 16, 1, 1, 0x11, 0])), (0xDA, bytes([1, 1, 0, 0, 63, 0])))
          + bytes(6) + segment(0xDC, b"\0\x10"))


def npy(shape, kind, values, order="False"):
    header = f"{{'descr': '{kind}', 'fortran_order': {order}, 'shape': {shape}, }}".encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\n"
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + values


def safetensors(header, data):
    encoded = json.dumps(header).encode()
    return struct.pack("<Q", len(encoded)) + encoded + data


def embedding_tables():
    four = struct.pack("<6f", 1, 0, 0, 0, 1, 0)
    tables = {
        "npy-f4": npy((2, 3), "<f4", four),
        "npy-f8": npy((2, 3), "<f8", struct.pack("<6d", *range(6))),
        "npy-f2": npy((2, 3), "<f2", struct.pack("<6e", *range(6))),
        "npy-big-endian": npy((2, 3), ">f4", four),
        "npy-fortran": npy((2, 3), "<f4", four, "True"),
        "npy-short": npy((2, 3), "<f4", four[:9]),
        "npy-huge": npy((9223372036854775808, 4), "<f4", four),
        "npy-large": npy((1099511627776, 3), "<f4", four),
        "npy-long-header": b"\x93NUMPY\x02\x00\xf0\xff\xff\xff{'descr': '<f4'",
        "npy-vector": npy("(6,)", "<f4", four),
        "npy-object": npy((2, 3), "|O", four),
        "npy-nan": npy((2, 3), "<f4", struct.pack("<6f", *[float("nan")] * 6)),
        "named": safetensors({"__metadata__": {"classes": '["cat", "dog"]'},
                              "embeddings": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}, four),
        "list": safetensors({"__metadata__": {"classes": "voc20"},
                             "embeddings": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}, four),
        "unnamed": safetensors({"embeddings": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}}, four),
        "overlap": safetensors({"embeddings": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 99]}}, four),
    }
    for name, table in tables.items():
        write("embedding_table", name, b"\x02" + table)


def experiments():
    for path in sorted((ROOT.parent / "configs").rglob("*.toml")):
        if path.parent.name in {"voc12", "mini-world"}:
            write("experiment", f"{path.parent.name}-{path.stem}", path.read_bytes())
    base = (ROOT.parent / "configs/mini-world/zegclip-inductive.toml").read_text()
    for name, old, new in [
        ("infinite-rate", "[training]", "[training]\nschedule = { base = inf }"),
        ("unknown-key", "steps", "stepz"),
        ("renamed-key", "[training]", "[training]\ncached-views = 2"),
        ("large-sizes", "\ncrop", "\ncrop = 9223372036854775807 #"),
    ]:
        text("experiment", name, base.replace(old, new, 1))


def dataset_descriptions():
    for path in sorted((ROOT.parent / "configs/datasets").glob("*.toml")):
        write("dataset_toml", path.stem, path.read_bytes())
    start = 'name = "mine"\nimages = "img/{id}.jpg"\nlabels = "ann/{id}.png"\n'
    descriptions = {
        "index": start + 'kind = "index"\nzero-is = "ignore"\nclasses = ["a", "b"]\nignore = [255, 0]\n',
        "values": start + 'kind = "index"\nclasses = [{ name = "a", value = 7 }, { name = "b", value = 9, synonyms = ["c"] }]\n',
        "palette": start + 'kind = "palette"\nclasses = [{ name = "a", color = "#ff0000" }, { name = "b", color = [0, 1, 2] }]\n'
                   'ignore-colours = ["#000000"]\n',
        "binary": start + 'kind = "binary"\nthreshold = 128\nclasses = ["background", "polyp"]\nmetric = "dice"\n',
        "splits": start + 'kind = "index"\nclasses = "voc20"\nunseen = "none"\n[splits]\ntrain = ["1", "2"]\nval = "val.txt"\n'
                  'test = { images = "t/{id}.jpg", labels = ["u/{id}.png", "v/{id}.png"] }\n',
        "pattern": start.replace("img/", "{a,b}/**/[0-9]*") + 'kind = "index"\nclasses = ["a"]\n',
        "threshold-out-of-range": start + 'kind = "binary"\nthreshold = -1\nclasses = ["a", "b"]\n',
    }
    for name, content in descriptions.items():
        text("dataset_toml", name, content)


def split_lists():
    lists = {
        "plain": "2007_000001\n2007_000002\n", "windows": "\ufeffa\r\nb\r\n", "carriage-returns": "a\rb\r", "blank": "\n \n",
        "twice": "a\nb\na\n", "upwards": "../a\n", "absolute": "/etc/passwd\n", "folders": "x/a\nx/b c\n",
        "pairs": "img/a.jpg ann/a.png\nimg/b.jpg ann/b.png\n", "long": "a" * 5000, "nul": "a\0b\n",
    }
    for name, content in lists.items():
        text("split_list", name, content)
    write("split_list", "latin-1", b"caf\xe9\n")


def run_lengths():
    golden = CRATES / "zeg-data/tests/golden/prepare/context_json/trainval_merged.json"
    document = json.loads(golden.read_text())
    for number, annotation in enumerate(document["annos_segmentation"][:4]):
        height, width = annotation["segmentation"]["size"]
        write("rle", f"mask-{number}", bytes([width, height]) + annotation["segmentation"]["counts"].encode())
    for name, data in {"empty": b"\x00\x00", "all": b"\x02\x020T1", "cut-off": b"\x10\x10o", "negative": b"\x04\x04O", "long": b"\x04\x04" + b"o" * 40}.items():
        write("rle", name, data)
    write("coco_json", "whole", golden.read_bytes())
    small = {"images": document["images"][:1], "annos_segmentation": document["annos_segmentation"][:1]}
    write("coco_json", "one", json.dumps(small).encode())
    first = small["annos_segmentation"][0]
    for name, change in {
        "size-of-other": {"segmentation": {"size": [1, 1], "counts": "1"}},
        "huge-size": {"segmentation": {"size": [4294967295, 4294967295], "counts": "1"}},
        "counts-list": {"segmentation": {"size": [2, 2], "counts": [1, 3]}},
        "polygon": {"segmentation": [[0, 0, 4, 0, 4, 4]]},
        "unknown-image": {"image_id": 1},
        "negative-category": {"category_id": -1},
    }.items():
        write("coco_json", name, json.dumps({**small, "annos_segmentation": [{**first, **change}]}).encode())
    write("coco_json", "cut-off", json.dumps(small).encode()[:-20])


def golden_files():
    for path in sorted((CRATES / "zeg-image/tests/golden").rglob("*")):
        if path.suffix in {".png", ".tif", ".tiff", ".bmp", ".gif", ".webp", ".pgm", ".ppm", ".pam", ".qoi", ".pbm"}:
            write("image", path.name, path.read_bytes())
        if path.suffix in {".png", ".tif"}:
            write("label_png", path.name, path.read_bytes())
    for path in sorted((CRATES / "zeg-weights/tests/golden").rglob("*")):
        if path.suffix not in {".pt", ".pth", ".bin", ".safetensors"}:
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
            end = data.find(b".", data.find(b"type_sizes"))
            write("pickle", path.name, data[end + 1 :])


if __name__ == "__main__":
    for make in [class_forms, jpeg, embedding_tables, experiments, dataset_descriptions, split_lists, run_lengths, golden_files]:
        make()
