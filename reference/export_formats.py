"""Makes golden files of the export formats, and checks zeg's exports with the packages that read them.

Packages   Python 3.11; pycocotools 2.0.11, label-studio-converter 0.0.59, datumaro 1.13.12, scikit-image 0.26.0,
           Pillow 12.3.0, numpy 2.4.6
Set up     python3 -m venv venv
           venv/bin/pip install pycocotools==2.0.11 label-studio-converter==0.0.59 datumaro==1.13.12 scikit-image pillow
Golden     python reference/export_formats.py make
               writes rle.json (by pycocotools) and cases.json (label maps to export)
           ZEG_EXPORT_GOLDEN=write cargo test -p zeg-export --test formats
               writes zeg's exports of cases.json beside it
           python reference/export_formats.py check
               reads these with the packages named above and compares them with the label maps
           All files are in crates/zeg-export/tests/golden.
Fuzzing    python reference/export_formats.py make --folder DIR --count 300 --seed 5
           ZEG_EXPORT_FOLDER=DIR cargo test -p zeg-export --test formats -- --ignored
           python reference/export_formats.py check --folder DIR
"""

import argparse
import json
import os
import tempfile
import warnings
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
from PIL import Image
from pycocotools import mask as coco_mask

GOLDEN = Path(__file__).parent.parent / "crates/zeg-export/tests/golden"
IGNORE = 65535
NAMES = ["background", 'say "miau" & <purr>', "مركبة كبيرة", "don't", "tab\there", "人 & 犬"]
PALETTE = [[0, 0, 0], [51, 136, 255], [255, 85, 17], [0, 153, 68], [238, 187, 0], [170, 68, 204]]


# ---- making ----------------------------------------------------------------------------------------------------


def blobs(rng, height, width, classes, ignored):
    """Returns a label map of smooth regions with holes and specks; some pixels are unlabelled."""
    fields = rng.random((classes, height, width))
    for _ in range(int(rng.integers(0, 4))):
        padded = np.pad(fields, ((0, 0), (1, 1), (1, 1)), "edge")
        shifted = [padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]
        fields = np.mean(shifted, 0)
    labels = fields.argmax(0)
    labels[rng.random((height, width)) < ignored] = IGNORE
    return labels


def make_cases(folder, count, seed):
    rng = np.random.default_rng(seed)
    maps = [
        np.zeros((1, 1), int),
        np.array([[IGNORE]]),
        np.array([[0, 1, 1, IGNORE, 0, 2, 2, 2, 0]]),
        np.array([[0, 1, 1, IGNORE, 0, 2, 2, 2, 0]]).T,
        np.pad(np.pad(np.full((3, 4), 2), 2, constant_values=1), 1, constant_values=3),
        np.indices((5, 6)).sum(0) % 2,
    ]
    while len(maps) < count:
        height, width = (int(side) for side in rng.integers(1, 40, 2))
        maps.append(blobs(rng, height, width, int(rng.integers(1, len(NAMES) + 1)), rng.choice([0, 0, 0.1, 0.4])))
    images = [
        {
            "path": f"street & <1>/image {index} é.png",
            "width": labels.shape[1],
            "height": labels.shape[0],
            "labels": labels.ravel().tolist(),
        }
        for index, labels in enumerate(maps)
    ]
    cases = {"about": about(), "names": NAMES, "palette": PALETTE, "images": images}
    (folder / "cases.json").write_text(json.dumps(cases, ensure_ascii=False) + "\n", "utf-8")


def about():
    return "made by `python reference/export_formats.py make`"


def make_rle(folder):
    rng = np.random.default_rng(1)
    masks = {
        "one outside": np.zeros((1, 1)),
        "one inside": np.ones((1, 1)),
        "empty": np.zeros((5, 7)),
        "full": np.ones((5, 7)),
        "one column": np.ones((9, 1)),
        "one row": np.ones((1, 9)),
        "a column in the middle": np.eye(9)[4:5].repeat(6, 0),
        "a row in the middle": np.eye(9)[4:5].repeat(6, 0).T,
        "last pixel": np.eye(6)[5:6].T @ np.eye(6)[5:6],
        "checks": np.indices((6, 7)).sum(0) % 2,
        "long runs": np.pad(np.ones((200, 150)), 60),
        "very long runs": np.pad(np.ones((40_000, 3)), ((20_000, 7), (0, 0))),
    }
    for index in range(30):
        height, width = rng.integers(1, 30, 2)
        masks[f"random {index}"] = rng.random((height, width)) < rng.choice([0.1, 0.5, 0.9])
    rows = []
    for name, mask in masks.items():
        mask = np.asfortranarray(mask.astype(np.uint8))
        encoded = coco_mask.encode(mask)
        rows.append(
            {
                "name": name,
                "width": mask.shape[1],
                "height": mask.shape[0],
                "rows": run_lengths(mask.ravel()),
                "counts": uncompressed(encoded),
                "text": encoded["counts"].decode(),
                "area": int(coco_mask.area(encoded)),
                "bbox": [int(value) for value in coco_mask.toBbox(encoded)],
            }
        )
    (folder / "rle.json").write_text(json.dumps({"about": about(), "masks": rows}) + "\n")


def uncompressed(encoded):
    """Returns the counts of a mask from its decoded pixels, and checks that pycocotools encodes them to the same text."""
    counts = run_lengths(coco_mask.decode(encoded).ravel("F"))
    again = coco_mask.frPyObjects({"counts": counts, "size": encoded["size"]}, *encoded["size"])
    assert again["counts"] == encoded["counts"]
    return counts


def run_lengths(pixels):
    """Returns the numbers of pixels outside, inside, outside, … in turn."""
    edges = np.flatnonzero(np.diff(pixels)) + 1
    counts = np.diff([0, *edges, len(pixels)]).tolist()
    return ([0] if pixels[0] else []) + counts


# ---- checking --------------------------------------------------------------------------------------------------


class Cases:
    def __init__(self, folder):
        self.folder = folder
        cases = json.loads((folder / "cases.json").read_text("utf-8"))
        self.names, self.palette = cases["names"], cases["palette"]
        self.images = cases["images"]
        self.maps = [np.array(one["labels"]).reshape(one["height"], one["width"]) for one in self.images]

    def confidence(self, index):
        count = self.maps[index].size
        return (np.arange(count) * 7 % 101 / 100).astype(np.float32).reshape(self.maps[index].shape)

    def regions(self, index):
        """Returns the masks of the regions connected by edges or corners, by class."""
        from skimage.measure import label

        labels = self.maps[index]
        found = {}
        for value in np.unique(labels[labels != IGNORE]):
            parts = label(labels == value, connectivity=2)
            found[int(value)] = [parts == part for part in range(1, parts.max() + 1)]
        return found


def same_masks(expected, found):
    """Returns whether two lists contain the same masks in any order."""
    key = lambda mask: np.ascontiguousarray(mask.astype(np.uint8)).tobytes()
    return sorted(map(key, expected)) == sorted(map(key, found))


def from_polygons(polygons, height, width):
    encoded = coco_mask.frPyObjects([list(map(float, one)) for one in polygons], height, width)
    return coco_mask.decode(coco_mask.merge(encoded)).astype(bool)


def check_coco(cases, name):
    from pycocotools.coco import COCO

    data = COCO(str(cases.folder / name))
    assert [c["name"] for c in data.loadCats(data.getCatIds())] == cases.names
    assert [c["color"] for c in data.loadCats(data.getCatIds())] == cases.palette
    annotations = 0
    for index, image in enumerate(cases.images):
        image = data.loadImgs([index + 1])[0]
        assert (image["file_name"], image["width"], image["height"]) == (
            image["path"], image["width"], image["height"],
        )
        regions = cases.regions(index)
        found = data.loadAnns(data.getAnnIds(imgIds=[index + 1]))
        annotations += len(found)
        by_class = {}
        for one in found:
            mask = data.annToMask(one).astype(bool)
            by_class.setdefault(one["category_id"] - 1, []).append(mask)
            assert one["area"] == mask.sum() and one["iscrowd"] == 0
            box = coco_mask.toBbox(coco_mask.encode(np.asfortranarray(mask.astype(np.uint8))))
            assert one["bbox"] == box.tolist(), (one["bbox"], box)
            assert abs(one["score"] - cases.confidence(index)[mask].mean(dtype=float)) < 1e-4
        assert by_class.keys() == regions.keys()
        assert all(same_masks(regions[label], by_class[label]) for label in regions), index
    assert annotations == len(data.anns)
    return annotations


def check_label_studio(cases, tasks_name, config_name, tool):
    from label_studio_converter import brush

    root = ElementTree.parse(cases.folder / config_name).getroot()
    tag = root.find(tool)
    labels = tag.findall("Label")
    assert [one.get("value") for one in labels] == cases.names
    assert [one.get("background") for one in labels] == ["#%02x%02x%02x" % tuple(c) for c in cases.palette]
    tasks = json.loads((cases.folder / tasks_name).read_text("utf-8"))
    assert len(tasks) == len(cases.images)
    count, ids = 0, set()
    for index, task in enumerate(tasks):
        labels = cases.maps[index]
        height, width = labels.shape
        (prediction,) = task["predictions"]
        drawn = np.full(labels.shape, IGNORE)
        for one in prediction["result"]:
            count += 1
            ids.add(one["id"])
            assert one["from_name"] == tag.get("name") and one["to_name"] == tag.get("toName")
            assert (one["original_width"], one["original_height"]) == (width, height)
            if tool == "BrushLabels":
                assert one["type"] == "brushlabels" and one["value"]["format"] == "rle"
                channels = brush.decode_rle(one["value"]["rle"]).reshape(height, width, 4)
                assert set(np.unique(channels)) <= {0, 255}
                assert (channels == channels[..., :1]).all()
                mask, names = channels[..., 3] > 0, one["value"]["brushlabels"]
            else:
                assert one["type"] == "polygonlabels" and one["value"]["closed"]
                points = np.array(one["value"]["points"]) / 100 * [width, height]
                assert np.abs(points - points.round()).max() < 0.01
                mask = from_polygons([points.round().ravel()], height, width)
                names = one["value"]["polygonlabels"]
            assert (drawn[mask] == IGNORE).all()
            drawn[mask] = cases.names.index(*names)
        assert (drawn == labels).all(), index
    assert len(ids) == count
    return count


def check_cvat(cases, name):
    from datumaro.components.annotation import AnnotationType
    from datumaro.plugins.data_formats.cvat.base import CvatBase

    root = ElementTree.parse(cases.folder / name).getroot()
    colours = [one.text for one in root.iter("color")]
    assert colours == ["#%02x%02x%02x" % tuple(c) for c in cases.palette]
    count = 0
    with tempfile.TemporaryDirectory() as folder:
        folder = Path(folder)
        for image in cases.images:  # datumaro requires the images to exist
            path = folder / "images" / image["path"]
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (image["width"], image["height"])).save(path)
        (folder / "annotations.xml").write_bytes((cases.folder / name).read_bytes())
        data = CvatBase(str(folder / "annotations.xml"))
        categories = data.categories()[AnnotationType.label]
        assert [one.name for one in categories] == cases.names
        items = {item.id: item for item in data}
        assert len(items) == len(cases.images)
        for index, image in enumerate(cases.images):
            labels = cases.maps[index]
            drawn = np.full(labels.shape, IGNORE)
            for one in items[os.path.splitext(image["path"])[0]].annotations:
                count += 1
                if one.type == AnnotationType.mask:
                    mask = one.image.astype(bool)
                else:
                    mask = from_polygons([one.points], *labels.shape)
                assert (drawn[mask] == IGNORE).all()
                drawn[mask] = one.label
            assert (drawn == labels).all(), index
    return count


def check_summaries(cases):
    for index, labels in enumerate(cases.maps):
        found = json.loads((cases.folder / f"summary/{index}.summary.json").read_text("utf-8"))
        regions = cases.regions(index)
        assert (found["width"], found["height"]) == labels.shape[::-1]
        assert abs(found["unlabelled"] - (labels == IGNORE).mean()) < 1e-7
        assert {one["label"] for one in found["classes"]} == regions.keys()
        sizes = [one["pixels"] for one in found["classes"]]
        assert sizes == sorted(sizes, reverse=True)
        for one in found["classes"]:
            inside = labels == one["label"]
            assert one["name"] == cases.names[one["label"]]
            assert one["pixels"] == inside.sum() and one["regions"] == len(regions[one["label"]])
            assert abs(one["share"] - inside.mean()) < 1e-7
            assert abs(one["confidence"] - cases.confidence(index)[inside].mean(dtype=float)) < 1e-4
    return len(cases.maps)


def check_probabilities(cases):
    """Checks the probabilities, which tests/formats.rs generates in the order class, row, column."""
    classes = json.loads((cases.folder / "probability/classes.json").read_text("utf-8"))
    assert classes == cases.names
    files = 0
    for index, labels in enumerate(cases.maps):
        shape = (len(cases.names), *labels.shape)
        expected = (np.arange(np.prod(shape)) * 11 % 257 / 256).reshape(shape)
        found = np.load(cases.folder / f"probability/{index}.probability.npy")
        assert found.dtype == np.float16 and found.shape == shape
        assert (found == expected.astype(np.float16)).all()
        for label, name in enumerate(cases.names):
            image = Image.open(cases.folder / f"probability/{index}.probability.{label:03}.png")
            assert image.mode == "I;16" and image.text["zeg:class"] == name
            assert (np.array(image) == np.round(expected[label] * 65535)).all()
            files += 1
    return files


def check_named_png(cases):
    image = Image.open(cases.folder / "named.png")
    assert image.mode == "P" and json.loads(image.text["zeg:classes"]) == cases.names
    assert image.text["Software"].startswith("zeg ")
    labels = cases.maps[4]
    assert (np.array(image) == np.where(labels == IGNORE, 255, labels)).all()
    assert image.getpalette()[: 3 * len(cases.palette)] == sum(cases.palette, [])
    return 1


def check(folder):
    warnings.filterwarnings("ignore")
    cases = Cases(folder)
    print(len(cases.images), "images")
    print("coco.json", check_coco(cases, "coco.json"))
    print("coco_polygons.json", check_coco(cases, "coco_polygons.json"))
    print("label_studio.json", check_label_studio(cases, "label_studio.json", "label_studio.xml", "BrushLabels"))
    polygons = check_label_studio(
        cases, "label_studio_polygons.json", "label_studio_polygons.xml", "PolygonLabels"
    )
    print("label_studio_polygons.json", polygons)
    print("cvat.xml", check_cvat(cases, "cvat.xml"))
    print("cvat_polygons.xml", check_cvat(cases, "cvat_polygons.xml"))
    print("summary", check_summaries(cases))
    print("named.png", check_named_png(cases))
    if (folder / "probability").exists():
        print("probability", check_probabilities(cases))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["make", "check"])
    parser.add_argument("--folder", type=Path, default=GOLDEN)
    parser.add_argument("--count", type=int, default=9)
    parser.add_argument("--seed", type=int, default=3)
    args = parser.parse_args()
    if args.what == "make":
        args.folder.mkdir(parents=True, exist_ok=True)
        make_cases(args.folder, args.count, args.seed)
        make_rle(args.folder)
    else:
        check(args.folder)


if __name__ == "__main__":
    main()
