"""Writes tiny downloads in the official formats of six data sets, and the label maps that must result from them.

Masks are written by the packages that read the real ones (scipy for MATLAB files, pycocotools for run lengths, Pillow for
PNG files). What no package can write (big-endian MATLAB files, arrays stored in a smaller type than their own) is written
here from the format's definition. The expected classes are computed with numpy from tables of class names or from the
published pairs of ids, not from the tables of the crate. `zeg-data/tests/prepare_downloads.rs` converts the downloads and
compares the results.

Writes the folders and expected.json to crates/zeg-data/tests/golden/prepare. Run from the repository root:

    pip install numpy==2.4.6 scipy==1.17.1 pillow==13.0.0 pycocotools==2.0.11
    python reference/prepare_formats.py
"""

import json
import shutil
import struct
import sys
from pathlib import Path

import numpy as np
import PIL
import pycocotools
import scipy
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.io import savemat
from scipy.sparse import csc_matrix

GOLDEN = Path("crates/zeg-data/tests/golden/prepare")
WIDTH, HEIGHT = 23, 17
Y, X = np.mgrid[:HEIGHT, :WIDTH]
EXPECTED = {}


def expect(download, file, labels, ignore=None):
    """Records an expected label map; pixels with the value `ignore` become 65535, the ignore index of the loaders."""
    labels = np.asarray(labels, dtype=np.int64)
    if ignore is not None:
        labels = np.where(labels == ignore, 65535, labels)
    height, width = labels.shape
    entry = {"width": width, "height": height, "labels": labels.ravel().tolist()}
    EXPECTED.setdefault(download, {})[file] = entry


def folder(*parts):
    path = GOLDEN.joinpath(*parts)
    path.mkdir(parents=True, exist_ok=True)
    return path


def image(path, width=WIDTH, height=HEIGHT):
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([x * 255 // width, y * 255 // height, (x + y) % 256], axis=-1)
    Image.fromarray(pixels.astype(np.uint8)).save(path, quality=60)


def blobs(values, seed):
    """Returns a label map of all `values` in patches, in which exchanged rows and columns would be noticed."""
    return np.asarray(values)[((X // 3) + 5 * (Y // 2) + X * Y // 40 + seed) % len(values)]


def voc_colours(labels):
    """Returns VOC's colours: the bits of a label are distributed to red, green and blue from the highest bit down."""
    colours = np.zeros((*labels.shape, 3), dtype=np.uint8)
    for bit in range(8):
        for channel in range(3):
            index = 3 * bit + channel
            if index < 8:
                colours[..., channel] |= (((labels >> index) & 1) << (7 - bit)).astype(np.uint8)
    return colours


def indexed(path, labels):
    image = Image.fromarray(labels.astype(np.uint8), mode="P")
    image.putpalette(voc_colours(np.arange(256)).ravel().tolist())
    image.save(path)


# A MATLAB 5 writer for the varieties that scipy does not write.


def element(order, kind, data):
    if 0 < len(data) <= 4:
        return struct.pack(order + "I", len(data) << 16 | kind) + data.ljust(4, b"\0")
    return struct.pack(order + "II", kind, len(data)) + data + b"\0" * (-len(data) % 8)


def matrix(order, name, class_, rows, columns, body):
    head = element(order, 6, struct.pack(order + "II", class_, 0))
    head += element(order, 5, struct.pack(order + "ii", rows, columns))
    return element(order, 14, head + element(order, 1, name.encode()) + body)


def struct_of(order, name, fields):
    names = b"".join(field.encode().ljust(32, b"\0") for field, _ in fields)
    body = element(order, 5, struct.pack(order + "i", 32)) + element(order, 1, names)
    return matrix(order, name, 2, 1, 1, body + b"".join(content for _, content in fields))


def mat_file(order, *variables):
    version = struct.pack(order + "H", 0x0100) + (b"IM" if order == "<" else b"MI")
    return b"MATLAB 5.0 MAT-file, by hand".ljust(124) + version + b"".join(variables)


def save_mat(path, variables, compressed):
    savemat(path, variables, do_compression=compressed)
    # The text at the beginning contains the time; it is replaced, so that every run writes the same bytes.
    path.write_bytes(b"MATLAB 5.0 MAT-file, by scipy".ljust(116) + path.read_bytes()[116:])


def voc():
    images = folder("voc", "VOCdevkit", "VOC2012", "JPEGImages")
    masks = folder("voc", "VOCdevkit", "VOC2012", "SegmentationClass")
    lists = folder("voc", "VOCdevkit", "VOC2012", "ImageSets", "Segmentation")
    sbd = folder("voc", "benchmark_RELEASE", "dataset")
    cls = folder("voc", "benchmark_RELEASE", "dataset", "cls")
    img = folder("voc", "benchmark_RELEASE", "dataset", "img")
    own = {"2007_000001": [0, 1, 20, 255], "2007_000002": [0, 5, 255], "2007_000003": [0, 15, 9]}
    for seed, (name, values) in enumerate(own.items()):
        labels = blobs(values, seed)
        image(images / f"{name}.jpg")
        if name == "2007_000002":
            Image.fromarray(voc_colours(labels)).save(masks / f"{name}.png")
        else:
            indexed(masks / f"{name}.png", labels)
        expect("voc", f"SegmentationClass/{name}.png", labels, 255)
    (lists / "train.txt").write_text("2007_000001\n2007_000002\n")
    (lists / "val.txt").write_text("2007_000003\n")
    (lists / "trainval.txt").write_text("2007_000001\n2007_000002\n2007_000003\n")

    def boundaries():
        cells = np.empty((20, 1), dtype=object)
        for cell in range(20):
            cells[cell, 0] = csc_matrix((X % 7 == cell % 7).astype(bool))
        return cells

    sbd_masks = {f"2008_00000{n}": blobs([0, n, 20 - n], n).astype(np.uint8) for n in range(1, 5)}
    sbd_masks["2007_000003"] = blobs([0, 3], 3).astype(np.uint8)  # in VOC's val split, so it must not be used
    for name, labels in sbd_masks.items():
        present = np.unique(labels[labels > 0]).astype(np.uint8).reshape(-1, 1)
        if name.endswith("3") and name.startswith("2008"):
            content = [
                ("Boundaries", matrix(">", "", 1, 0, 0, b"")),
                ("Segmentation", matrix(">", "", 9, HEIGHT, WIDTH, element(">", 2, labels.T.tobytes()))),
                ("CategoriesPresent", matrix(">", "", 9, len(present), 1, element(">", 2, present.tobytes()))),
            ]
            (cls / f"{name}.mat").write_bytes(mat_file(">", struct_of(">", "GTcls", content)))
        else:
            content = {"Boundaries": boundaries(), "Segmentation": labels, "CategoriesPresent": present}
            save_mat(cls / f"{name}.mat", {"GTcls": content}, not name.endswith("2"))
        if name.startswith("2008"):
            expect("voc", f"SegmentationClassAug/{name}.png", labels)
        # One image is in VOC's folder, the others are only in SBD's.
        image((images if name == "2008_000001" else img) / f"{name}.jpg")
    (img / "2007_000003.jpg").unlink()
    (sbd / "train.txt").write_text("2008_000002\n2008_000001\n2007_000003\n")
    (sbd / "val.txt").write_text("2008_000004\n2008_000003\n")


def coco():
    names = "street sign, hat, shoe, eye glasses, plate, mirror, window, desk, door, blender, hair brush".split(", ")
    # labels.txt of COCO-Stuff counts from 1, the label maps from 0.
    unused = {"street sign": 12, "hat": 26, "shoe": 29, "eye glasses": 30, "plate": 45, "mirror": 66, "window": 68,
              "desk": 69, "door": 71, "blender": 83, "hair brush": 91}
    raw = np.array([k for k in range(182) if k + 1 not in {unused[name] for name in names}] + [255])
    train_id = {int(value): index for index, value in enumerate(raw[:-1])} | {255: 255}
    for split, name, width in [("train", "000000000009", 20), ("train", "000000000025", 20), ("val", "000000000139", 20)]:
        values = raw if name != "000000000025" else raw[:7]
        labels = np.resize(values, (10, width)).astype(np.uint8)
        masks = folder("coco", "stuffthingmaps", f"{split}2017")
        Image.fromarray(labels).save(masks / f"{name}.png")
        image(folder("coco", f"{split}2017") / f"{name}.jpg", width, 10)
        expected = np.vectorize(train_id.get)(labels)
        expect("coco", f"annotations/{split}2017/{name}_labelTrainIds.png", expected, 255)


# mmsegmentation's 60 names in their order, and the ids its converter lists (in the order of its source).
CONTEXT_NAMES = (
    "background aeroplane bag bed bedclothes bench bicycle bird boat book bottle building bus cabinet car cat ceiling chair "
    "cloth computer cow cup curtain dog door fence floor flower food grass ground horse keyboard light motorbike mountain "
    "mouse person plate platform pottedplant road rock sheep shelves sidewalk sign sky snow sofa table track train tree truck "
    "tvmonitor wall water window wood"
).split()
CONTEXT_IDS = sorted(
    [0, 2, 259, 260, 415, 324, 9, 258, 144, 18, 19, 22, 23, 397, 25, 284, 158, 159, 416, 33, 162, 420, 454, 295, 296, 427, 44,
     45, 46, 308, 59, 440, 445, 31, 232, 65, 354, 424, 68, 326, 72, 458, 34, 207, 80, 355, 85, 347, 220, 349, 360, 98, 187,
     104, 105, 366, 189, 368, 113, 115]
)  # fmt: skip
RELEASE_NAMES = (
    "background aeroplane bicycle bird boat bottle bus car cat chair cow table dog horse motorbike person pottedplant sheep "
    "sofa train tvmonitor bag bed bench book building cabinet ceiling cloth computer cup door fence floor flower food grass "
    "ground keyboard light mountain mouse curtain platform sign plate road rock shelves sidewalk sky snow bedclothes track "
    "tree truck wall water window wood"
).split()


def context_classes(ids):
    """Returns the position among the sorted ids, or 0 for other ids."""
    place = np.searchsorted(CONTEXT_IDS, ids)
    found = np.asarray(CONTEXT_IDS)[np.minimum(place, 59)] == ids
    return np.where(found, place, 0)


def context_images(download, names):
    images = folder(download, "VOCdevkit", "VOC2010", "JPEGImages")
    for name in names:
        image(images / f"{name}.jpg")
    lists = folder(download, "VOCdevkit", "VOC2010", "ImageSets", "Main")
    (lists / "train.txt").write_text(f"{names[0]}\n2009_999999\n")
    (lists / "val.txt").write_text("".join(f"{name}\n" for name in names[1:]))


def context():
    names = ["2008_000002", "2008_000003", "2008_000007"]
    context_images("context_json", names)
    context_images("context_mat", names)
    context_images("context_png", names)
    context_images("context_release", names)

    # (a) run lengths
    phases = dict(zip(names, ["train", "val", "val"])) | {"2008_000008": "test"}
    identifier = {name: int(name.replace("_", "")) for name in phases}
    annotations, number = [], 0
    for seed, name in enumerate(names):
        ids = np.zeros((HEIGHT, WIDTH), dtype=np.int64)
        for category in [284, 2, 458, 360, 7 if seed == 1 else 189]:
            mask = ((X - 4 * seed) ** 2 + (Y * 3 - category % 40) ** 2 < 150 + category % 90).astype(np.uint8)
            ids[mask == 1] = category  # later masks are on top of earlier ones
            lengths = coco_mask.encode(np.asfortranarray(mask))
            segmentation = {"size": lengths["size"], "counts": lengths["counts"].decode()}
            if category == 458:
                flat = np.concatenate([[0], mask.ravel(order="F"), [2]])
                edges = np.flatnonzero(np.diff(flat))
                runs = np.diff(np.concatenate([[0], edges])).tolist()
                segmentation = {"counts": runs, "size": [HEIGHT, WIDTH]}
            number += 1
            annotations.append({
                "id": number, "image_id": identifier[name], "category_id": category, "area": int(mask.sum()), "iscrowd": 0,
                "bbox": [0, 0, 1, 1], "segmentation": segmentation, "parts": [{"part_id": 1, "segmentation": {"size": [1, 1]}}],
            })  # fmt: skip
        expect("context_json", f"SegmentationClassContext/{name}.png", context_classes(ids))
    annotations = annotations[1::2] + annotations[::2]  # the masks of one image need not be consecutive
    annotations.sort(key=lambda annotation: (annotation["id"] - 1) % 5)
    images = [
        {"file_name": f"{name}.jpg", "image_id": identifier[name], "phase": phase, "height": HEIGHT, "width": WIDTH,
         "date_captured": None} for name, phase in phases.items()
    ]  # fmt: skip
    content = {"info": {"version": "4.0"}, "annos_segmentation": annotations, "images": images, "annos_occlusion": [[]],
               "categories": [{"category_id": 2, "name": "aeroplane"}], "parts": []}  # fmt: skip
    (GOLDEN / "context_json" / "trainval_merged.json").write_text(json.dumps(content))

    # (b) MATLAB files
    mats = folder("context_mat", "trainval")
    for seed, name in enumerate(names):
        ids = blobs([1, 2, 259, 459, 458, 33, 34, 300][seed:], seed)
        if seed == 2:  # a matrix of doubles, stored as two-byte integers
            data = element("<", 4, ids.T.astype("<u2").tobytes())
            other = matrix("<", "other", 4, 1, 2, element("<", 4, struct.pack("<HH", 104, 105)))
            array = matrix("<", "LabelMap", 6, HEIGHT, WIDTH, data)
            (mats / f"{name}.mat").write_bytes(mat_file("<", other, array))
        elif seed == 1:
            data = element(">", 4, ids.T.astype(">u2").tobytes())
            (mats / f"{name}.mat").write_bytes(mat_file(">", matrix(">", "LabelMap", 11, HEIGHT, WIDTH, data)))
        else:
            save_mat(mats / f"{name}.mat", {"LabelMap": ids.astype(np.uint16)}, True)
        expect("context_mat", f"SegmentationClassContext/{name}.png", context_classes(ids))

    # (c) PNGs of the 459 ids; one fits 8 bits
    masks = folder("context_png", "VOCdevkit", "VOC2010", "SegmentationClassContext")
    for seed, name in enumerate(names):
        ids = blobs([0, 2, 9, 18, 255] if seed == 0 else [259, 420, 424, 1, 255], seed)
        depth = np.uint8 if seed == 0 else np.uint16
        Image.fromarray(ids.astype(depth)).save(masks / f"{name}.png")
        expect("context_png", f"SegmentationClassContext/{name}.png", context_classes(ids))

    # (d) the release's own order of the 59
    masks = folder("context_release", "59_context_labels")
    for seed, name in enumerate(names):
        numbers = blobs(list(range(60)), seed)
        Image.fromarray(numbers.astype(np.uint8)).save(masks / f"{name}.png")
        classes = np.array([CONTEXT_NAMES.index(name) for name in RELEASE_NAMES])[numbers]
        expect("context_release", f"SegmentationClassContext/{name}.png", classes)


def ade_full():
    # A few of the 847 pairs, taken from the published list.
    train_id = {2978: 0, 312: 1, 2420: 2, 1831: 11, 401: 14, 2733: 88, 3144: 99, 3105: 259, 64: 127, 14: 94, 3148: 846, 6: 263}
    files = [("training", "urban", "street", "ADE_train_00000001", 60, 40), ("validation", "home_or_hotel", "bedroom",
             "ADE_val_00000001", 30, 44), ("validation", "home_or_hotel", "bedroom", "ADE_val_00000002", 21, 20)]  # fmt: skip
    for split, group, scene, name, width, height in files:
        y, x = np.mgrid[:height, :width]
        values = np.array([*train_id, 0, 1, 2977])
        objects = values[(x // 4 + 3 * (y // 5)) % len(values)]
        colours = np.stack([objects // 256 * 10 + x % 10, objects % 256, (x * y) % 256], axis=-1)
        place = folder("ade_full", "ADE20K_2021_17_01", "images", "ADE", split, group, scene)
        Image.fromarray(colours.astype(np.uint8)).save(place / f"{name}_seg.png")
        image(place / f"{name}.jpg", width, height)
        classes = np.vectorize(lambda value: train_id.get(value, 65535))(objects)
        if min(width, height) > 24:  # the tests shrink to 24
            if width >= height:
                target = (round(width / height * 24), 24)
            else:
                target = (24, round(height / width * 24))
            columns = np.arange(target[0]) * width // target[0]
            rows = np.arange(target[1]) * height // target[1]
            classes = classes[rows][:, columns]
        expect("ade_full", f"annotations_detectron2/{split}/{name}.png", classes)
    masks = folder("ade_full", "ADE20K_2021_17_01", "images", "ADE", "training", "urban", "street", "ADE_train_00000001")
    (masks / "instance_000_ADE_train_00000001.png").write_bytes(b"not looked at")


def cityscapes():
    names = ("road sidewalk building wall fence pole traffic_light traffic_sign vegetation terrain sky person rider car truck "
             "bus train motorcycle bicycle").split()  # fmt: skip
    # labels.py of the official scripts: names by label id, from 0.
    by_id = ("unlabeled ego_vehicle rectification_border out_of_roi static dynamic ground road sidewalk parking rail_track "
             "building wall fence guard_rail bridge tunnel pole polegroup traffic_light traffic_sign vegetation terrain sky "
             "person rider car truck bus caravan trailer train motorcycle bicycle").split()  # fmt: skip
    classes = np.array([names.index(name) if name in names else 255 for name in by_id])
    for split, city, name in [("train", "aachen", "aachen_000000_000019"), ("val", "munster", "munster_000000_000019")]:
        labels = blobs(list(range(34)), 1)
        place = folder("cityscapes", "gtFine", split, city)
        Image.fromarray(labels.astype(np.uint8)).save(place / f"{name}_gtFine_labelIds.png")
        pixels = np.stack([X * 10, Y * 10, X + Y], axis=-1).astype(np.uint8)
        Image.fromarray(pixels).save(folder("cityscapes", "leftImg8bit", split, city) / f"{name}_leftImg8bit.png")
        expect("cityscapes", f"gtFine/{split}/{city}/{name}_gtFine_labelTrainIds.png", classes[labels], 255)


def ade20k():
    for split, name in [("training", "ADE_train_00000001"), ("validation", "ADE_val_00000001")]:
        labels = blobs([0, 1, 75, 150], 2)
        Image.fromarray(labels.astype(np.uint8)).save(folder("ade20k", "nested", "annotations", split) / f"{name}.png")
        image(folder("ade20k", "nested", "images", split) / f"{name}.jpg")
        expect("ade20k", f"annotations/{split}/{name}.png", labels)


if __name__ == "__main__":
    shutil.rmtree(GOLDEN, ignore_errors=True)
    for download in (voc, coco, context, ade20k, ade_full, cityscapes):
        download()
    (GOLDEN / "expected.json").write_text(json.dumps(EXPECTED, separators=(",", ":")))
    version = getattr(pycocotools, "__version__", "2.0")
    print(f"Python {sys.version.split()[0]}, numpy {np.__version__}, scipy {scipy.__version__}, Pillow {PIL.__version__}, {version}")
    total = sum(file.stat().st_size for file in GOLDEN.rglob("*") if file.is_file())
    print(f"{total} bytes in {GOLDEN}")
