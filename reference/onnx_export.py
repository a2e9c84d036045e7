"""Compares exported ONNX graphs with the program's own scores, in ONNX Runtime and OpenVINO.

Run        cargo build --workspace --example onnx_scores
           python reference/onnx_export.py --tool target/debug/examples/onnx_scores --folder cases
           python reference/onnx_export.py --tool … --folder cases --clip clip.safetensors --text voc12_single.npy \\
               --text-classes voc20 --images VOCdevkit/VOC2012/JPEGImages
Packages   numpy, pillow, onnx, onnxruntime, openvino; safetensors for --random
Writes     a line for every comparison, and fails if one misses its bound

Every case exports a model, checks the file with onnx.checker and strict shape inference, and computes the scores of
images in both runtimes. Scores must be within 1e-4 of the root of their mean square (f32), and labels equal except
where the two best scores differ by less than the largest difference; in 16-bit floats and 8-bit integers, 99 % of the
labels must be equal. Images are made by rule unless --images names a folder; they are cut to the sizes of the cases, so
that resizing is no part of the comparison.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import numpy as np
import onnx
import onnxruntime
import openvino
from PIL import Image

BOUND = 1e-4
LABELS = 0.99
WORLD = "striped red disc, plain blue square, dotted green, yellow, purple triangle"


def made_image(seed, height, width):
    """Returns smooth colours with some rectangles, by rule."""
    random = np.random.default_rng(seed)
    small = random.integers(0, 256, (5, 6, 3), dtype=np.uint8)
    image = np.asarray(Image.fromarray(small).resize((width, height), Image.BICUBIC)).copy()
    for _ in range(4):
        y, x = random.integers(0, height - 4), random.integers(0, width - 4)
        h, w = random.integers(4, height // 2 + 4), random.integers(4, width // 2 + 4)
        image[y : y + h, x : x + w] = random.integers(0, 256, 3)
    return Image.fromarray(image)


def images_of(arguments, folder, count, sizes):
    """Writes the images of a case; returns their paths."""
    sources = sorted(pathlib.Path(arguments.images).glob("*.jpg"))[:: arguments.every] if arguments.images else []
    paths = []
    for index in range(count):
        height, width = sizes[index % len(sizes)]
        path = folder / f"image{index}_{height}x{width}.png"
        if not path.exists():
            if sources:
                image = Image.open(sources[index % len(sources)]).convert("RGB").resize((width, height), Image.BILINEAR)
            else:
                image = made_image(index, height, width)
            image.save(path)
        paths.append(path)
    return paths


class OnnxRuntime:
    name = "onnxruntime"

    def __init__(self, path):
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        # Without it, activations before 8-bit matrices are rounded to 8 bits as well.
        options.add_session_config_entry("session.qdq_matmulnbits_accuracy_level", "1")
        self.session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])

    def __call__(self, inputs):
        names = [output.name for output in self.session.get_outputs()]
        return dict(zip(names, self.session.run(None, inputs)))


class OpenVino:
    name = "openvino"

    def __init__(self, path):
        core = openvino.Core()
        self.names = [output.name for output in onnx.load(str(path), load_external_data=False).graph.output]
        self.model = core.compile_model(core.read_model(str(path)), "CPU", {"INFERENCE_PRECISION_HINT": "f32", "DYNAMIC_QUANTIZATION_GROUP_SIZE": 0})

    def __call__(self, inputs):
        found = self.model(inputs)
        # An output has the names of all values that it equals, so its place tells which one it is.
        return {name: found[index] for index, name in enumerate(self.names)}


def check_file(path):
    """Checks a file and the inference of its shapes; returns its inputs and metadata."""
    onnx.checker.check_model(str(path), full_check=True)
    model = onnx.load(str(path), load_external_data=False)
    onnx.shape_inference.infer_shapes(model, check_type=True, strict_mode=True, data_prop=True)
    return {i.name for i in model.graph.input}, {p.key: p.value for p in model.metadata_props}


def prepared(image, metadata):
    """Returns an image as the graph takes it."""
    pixels = np.asarray(image.convert("RGB"))
    if metadata["zeg.layout"].startswith("NHWC"):
        return pixels[None]
    mean, std = (np.array(json.loads(metadata[f"zeg.image_{key}"]), np.float32) for key in ("mean", "std"))
    return ((pixels.astype(np.float32) - mean) / std).transpose(2, 0, 1)[None].astype(np.float32)


def seen_offsets(metadata, names):
    """Returns the offset of every class that the graph has not subtracted yet."""
    if metadata["zeg.seen_offset_applied"] == "true":
        return np.zeros(len(names), np.float32)
    seen = {name.lower() for name in json.loads(metadata["zeg.seen_classes"])}
    return np.array([float(metadata["zeg.seen_offset"]) * (name.lower() in seen) for name in names], np.float32)


def run_parts(engines, inputs, metadata, names):
    """Runs the graphs one after the other; each takes what it knows of the inputs and of earlier outputs."""
    known = dict(inputs)
    for engine, wanted in engines:
        known |= engine({name: known[name] for name in wanted})
    if "crop_logits" in known:
        known["scores"] = combined(known, metadata, names)
    return known["scores"]


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def combined(found, metadata, names):
    """Combines both graphs of ZegFormer: the queries' own class scores and CLIP's, then masks times scores."""
    own = found["class_logits"][0].astype(np.float64)  # [queries, classes + 1], "no object" last
    clip = np.concatenate([found["crop_logits"], own[:, -1:]], 1)  # "no object" is the query's own
    own, clip = softmax(own)[:, :-1], softmax(clip)[:, :-1]
    more = float(metadata["zeg.trust"])
    seen = {name.lower() for name in json.loads(metadata["zeg.seen_classes"])}
    seen = np.array([name.lower() in seen for name in names])
    both = own ** (1 - more) * clip**more
    if metadata["zeg.fusion"] == "clip-alone":
        both = clip
    elif metadata["zeg.fusion"] == "seen-unseen" and seen.any():
        both[:, seen] = own[:, seen] ** more * clip[:, seen].mean(1, keepdims=True) ** (1 - more)
    masks = enlarged(found["masks"][0], 4)
    shares = 1 / (1 + np.exp(-masks))
    return np.einsum("qc,qhw->chw", both.astype(np.float32), shares)[None]


def enlarged(maps, factor):
    """Enlarges maps bilinearly with half-pixel centres: [count, h, w] to [count, factor * h, factor * w]"""

    def matrix(length):
        places = np.clip((np.arange(length * factor) + 0.5) / factor - 0.5, 0, length - 1)
        return np.maximum(1 - np.abs(places[:, None] - np.arange(length)), 0).astype(np.float32)

    return matrix(maps.shape[1]) @ maps @ matrix(maps.shape[2]).T


def compare(found, expected):
    """Returns the difference as a share of the root of the mean square, and the shares of equal labels, without ties."""
    found, expected = found.astype(np.float64), expected.astype(np.float64)
    difference = np.sqrt(np.mean((found - expected) ** 2)) / np.sqrt(np.mean(expected**2))
    most = np.abs(found - expected).max()
    labels, right = found.argmax(0), expected.argmax(0)
    wrong = labels != right
    if len(expected) > 1:
        best = np.sort(expected, 0)[-2:]
        unexplained = wrong & (best[1] - best[0] > 2 * most)
    else:
        unexplained = wrong
    return difference, most, 1 - wrong.mean(), int(unexplained.sum())


def run_case(arguments, name, model, settings, sizes, engines=(OnnxRuntime, OpenVino)):
    """Exports a model and compares the scores; returns whether all are within their bounds."""
    folder = pathlib.Path(arguments.folder)
    folder.mkdir(parents=True, exist_ok=True)
    output = folder / f"{name}.onnx"
    paths = images_of(arguments, folder, arguments.count, sizes)
    command = [arguments.tool, model, output, *(f"{key}={value}" for key, value in settings.items()), *paths]
    done = subprocess.run([str(part) for part in command], capture_output=True, text=True)
    if done.returncode:
        print(f"{name}: {done.stderr.strip()[:300]}")
        return False
    files = done.stdout.split()
    checked = [check_file(path) for path in files]
    metadata = checked[0][1]
    embeddings = np.load(output.with_suffix(".classes.npy"))
    names = json.loads(metadata["zeg.classes"]) if "zeg.classes" in metadata else arguments.names[settings["classes"]]
    exact = settings.get("precision", "f32") == "f32"
    good = True
    for engine in engines:
        try:
            loaded = [(engine(path), inputs) for path, (inputs, _) in zip(files, checked)]
        except Exception as error:
            print(f"{name:34} {engine.name:12} cannot load: {str(error)[:300]}")
            good = False
            continue
        worst = [0.0, 0.0, 1.0, 0]
        for path in paths:
            image = prepared(Image.open(path), metadata)
            scores = run_parts(loaded, {"image": image, "class_embeddings": embeddings}, metadata, names)[0]
            expected = np.load(output.with_suffix(f".{path.stem}.npy"))
            scores = scores[:, : expected.shape[1], : expected.shape[2]]
            scores = np.clip(scores - seen_offsets(metadata, names)[:, None, None], 0, 1)
            difference, most, equal, unexplained = compare(scores, expected)
            worst = [max(worst[0], difference), max(worst[1], most), min(worst[2], equal), worst[3] + unexplained]
        passes = (worst[0] <= BOUND and worst[3] == 0) if exact else worst[2] >= LABELS
        good &= bool(passes)
        print(
            f"{name:34} {engine.name:12} {'ok ' if passes else 'BAD'} of RMS {worst[0]:.1e}  most {worst[1]:.1e}"
            f"  labels {100 * worst[2]:.3f} %  unexplained {worst[3]}",
            flush=True,
        )
    return good


def mini_cases(models):
    """Yields the cases on MiniCLIP, and on models that were trained on it for a few steps."""
    any_size = [(64, 64), (96, 72), (61, 83)]
    one = [(64, 64)]
    of = {"zegclip": "zegclip-inductive", "clip-rc": "clip-rc-inductive", "cat-seg": "cat-seg", "zegformer": "zegformer"}
    for method, run in of.items():
        if not (models / run / "model.safetensors").exists():
            continue
        model = models / run / "model.safetensors"
        yield f"{method}-fixed", model, {"size": 64, "classes": "mini-world"}, one
        yield f"{method}-dynamic", model, {"classes": "mini-world", "batch": "any" if "clip" in method else 1}, any_size
        yield f"{method}-one-class", model, {"size": 64, "classes": "mini-one", "hold": "yes"}, one
        if method != "zegformer":
            yield f"{method}-split", model, {"size": 64, "classes": "mini-world", "split": "yes"}, one
        yield f"{method}-bytes", model, {"size": 64, "classes": "mini-world", "preprocessing": "yes", "hold": "yes"}, one
        yield f"{method}-bytes-dynamic", model, {"classes": "mini-world", "preprocessing": "yes"}, any_size
        yield f"{method}-f16", model, {"size": 64, "classes": "mini-world", "precision": "f16"}, one
        yield f"{method}-int8", model, {"size": 64, "classes": "mini-world", "precision": "int8-qdq"}, one
        opset = 23 if method != "zegformer" else 21  # ONNX Runtime has no newer RoiAlign
        yield f"{method}-opset-{opset}", model, {"classes": "mini-world", "opset": opset, "external-data": "yes"}, any_size
    methods = ["combined", "clip", "maskclip", "sclip", "naclip", "clearclip", "sc-clip", "pearl"]
    methods += ["maskclip:denoising-0.5;smoothing-0.9"]
    for method in methods:
        label = method.split(":")[0] + ("-refined" if ":" in method else "")
        settings = {"method": method, "classes": "mini-world"}
        yield f"{label}-fixed", "mini", settings | {"size": 64}, one
        yield f"{label}-larger", "mini", settings | {"size": "96x72"}, [(96, 72)]
        yield f"{label}-dynamic", "mini", settings | {"batch": "any"}, any_size
        if ":" in method:
            continue  # a class that is suppressed or not is no matter of small differences
        yield f"{label}-f16", "mini", settings | {"size": 64, "precision": "f16"}, one
        yield f"{label}-int8", "mini", settings | {"size": 64, "precision": "int8-qdq"}, one
    yield "clearclip-split", "mini", {"method": "clearclip", "classes": "mini-world", "split": "yes", "size": 64}, one


def clip_cases(arguments):
    """Yields the cases on a tower of published size and its class embeddings."""
    settings = {"text": arguments.text, "text-classes": arguments.text_classes, "classes": arguments.text_classes}
    for method in ["combined", "clip", "maskclip", "sclip", "naclip", "clearclip", "sc-clip", "pearl"]:
        with_method = settings | {"method": method}
        yield f"clip-{method}-fixed", arguments.clip, with_method | {"size": 224}, [(224, 224)]
        yield f"clip-{method}-dynamic", arguments.clip, with_method, [(224, 304), (304, 224), (211, 330)]
        yield f"clip-{method}-f16", arguments.clip, with_method | {"size": 224, "precision": "f16"}, [(224, 224)]
        yield f"clip-{method}-int8", arguments.clip, with_method | {"size": 224, "precision": "int8-qdq"}, [(224, 224)]


def trained_cases(arguments):
    """Yields the cases on trained models of published size, with a table of class embeddings."""
    settings = {"text": arguments.text, "text-classes": arguments.text_classes, "classes": arguments.text_classes}
    sizes = {"fixed": ({"size": 224}, [(224, 224)]), "dynamic": ({}, [(224, 304), (304, 224), (211, 330)])}
    for model in arguments.trained:
        for form, (more, images) in sizes.items():
            yield f"{pathlib.Path(model).stem}-{form}", model, settings | more, images
        for precision in ["f16", "int8-qdq"]:
            more = {"size": 224, "precision": precision}
            yield f"{pathlib.Path(model).stem}-{precision}", model, settings | more, [(224, 224)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tool", required=True, help="the example onnx_scores")
    parser.add_argument("--folder", default="onnx-cases")
    parser.add_argument("--models", default="runs", help="folder with models of the mini world, each in a folder of its name")
    parser.add_argument("--clip", help="CLIP weights of published size")
    parser.add_argument("--trained", nargs="*", default=[], help="trained models of published size")
    parser.add_argument("--text", help="table of their class embeddings")
    parser.add_argument("--text-classes", default="voc20")
    parser.add_argument("--images", help="folder with JPEG files")
    parser.add_argument("--every", type=int, default=1, help="take every N-th image of the folder")
    parser.add_argument("--count", type=int, default=3, help="number of images")
    parser.add_argument("--only", default="", help="run cases whose names contain this")
    arguments = parser.parse_args()
    arguments.names = {}
    if arguments.clip:
        cases = clip_cases(arguments)
    elif arguments.trained:
        cases = trained_cases(arguments)
    else:
        cases = mini_cases(pathlib.Path(arguments.models))
    results = []
    for name, model, settings, sizes in cases:
        if arguments.only not in name:
            continue
        lists = {"mini-world": WORLD, "mini-one": "plain blue square"}
        settings = settings | {"classes": lists.get(settings["classes"], settings["classes"])}
        arguments.names[settings["classes"]] = [part.strip() for part in settings["classes"].split(",")]
        results.append(run_case(arguments, name, model, settings, sizes))
    print(f"{sum(results)} of {len(results)} cases are within their bounds")
    return 0 if results and all(results) else 1


if __name__ == "__main__":
    sys.exit(main())
