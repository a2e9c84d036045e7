"""Reimplements dense CLIP without training in PyTorch: writes golden numbers, and measures on PASCAL VOC.

Packages   Python 3.11, torch 2.15.0, safetensors 0.8.0, numpy 2.4.6, pillow 13.0.0
Golden     python reference/training_free.py golden crates/zeg-model/tests/golden/training_free.safetensors
Measure    python reference/training_free.py voc --voc VOCdevkit/VOC2012 --weights CLIP.safetensors --text TEXT.npy

The model is a CLIP image tower with its last block replaced. For the input tokens x of this block (class token first), q,
k and v are the projections of ln_1(x), per head of d channels; A v goes through the attention's output projection.

    clip       A = softmax(q k' / sqrt(d))                            CLIP's own attention
    maskclip   A = 1, so every token has its own value                MaskCLIP, Zhou et al., ECCV 2022
    sclip      A = softmax(q q' / sqrt(d)) + softmax(k k' / sqrt(d))  SCLIP, Wang et al., ECCV 2024
    naclip     A = softmax(k k' / sqrt(d) + w)                        NACLIP, Hajimiri et al., WACV 2025
    clearclip  A = softmax(q q' / sqrt(d))                            ClearCLIP, Lan et al., ECCV 2024

w is exp(-distance^2 / (2 * 5^2)) between patches, with distances in patches, and 0 for pairs with the class token.

Details from the public descriptions and the released code of the methods (looked up, not copied):
  - NACLIP adds the Gaussian to the scaled logits, before the softmax; it is not normalised (1 at distance 0); rows and
    columns of the class token get 0; the default sigma is 5. Its last block ("reduced") is only the attention, without
    residual and MLP. On VOC it uses a short side of 336, windows of 224 with stride 112, CLIP's mean and deviation, and
    cosines averaged over windows, scaled by 40 before the softmax; then PAMR as refinement (not here). 83.03 mIoU on VOC20.
  - SCLIP adds the two softmaxes without halving the sum, and has residual and MLP.
  - Both resize the position embeddings bicubically; this script resizes them bilinearly with half-pixel centres.
  - Both average the embeddings of 80 prompt templates; this script uses one template.
`full` has residual and MLP around the attention; `attention-only` is only the projected A v.

Golden numbers are computed in float64 and stored as float32; float16 represents the weights exactly.
"""

import argparse
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from PIL import Image
from random_clip import Clip, Sizes, randomise
from torch.nn import functional

MODES = ("clip", "maskclip", "sclip", "naclip", "clearclip")
LAST_BLOCKS = ("attention-only", "full")
SIGMA = 5.0
LOGIT_SCALE = 100.0
NORMS = {  # mean and deviation of channels in 0..1
    "imagenet": ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    "clip": ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)),
}


def layer_norm(weights, name, x):
    return functional.layer_norm(x, x.shape[-1:], weights[f"{name}.weight"], weights[f"{name}.bias"], 1e-5)


def linear(weights, name, x):
    return functional.linear(x, weights[f"{name}.weight"], weights[f"{name}.bias"])


def projections(weights, block, x):
    """Returns q, k and v of ln_1(x): [batch, heads, tokens, 64] each."""
    batch, tokens, width = x.shape
    packed = functional.linear(
        layer_norm(weights, f"{block}.ln_1", x),
        weights[f"{block}.attn.in_proj_weight"],
        weights[f"{block}.attn.in_proj_bias"],
    )
    return packed.reshape(batch, tokens, 3, width // 64, 64).permute(2, 0, 3, 1, 4).unbind(0)


def affinity(one, other, bias=0.0):
    """Returns the softmax of the scaled products plus `bias`: [batch, heads, tokens, 64] twice -> [..., tokens, tokens]."""
    return (one @ other.transpose(-1, -2) * one.shape[-1] ** -0.5 + bias).softmax(-1)


def merge(weights, block, heads):
    """Applies the output projection: [batch, heads, tokens, 64] -> [batch, tokens, width]."""
    joined = heads.transpose(1, 2).flatten(2)
    return linear(weights, f"{block}.attn.out_proj", joined)


def feed_forward(weights, block, x):
    hidden = linear(weights, f"{block}.mlp.c_fc", layer_norm(weights, f"{block}.ln_2", x))
    return x + linear(weights, f"{block}.mlp.c_proj", hidden * torch.sigmoid(1.702 * hidden))


def nearness(grid, sigma, dtype):
    """Returns the Gaussian of the distance between patches, with 0 for the class token: [1 + h * w, 1 + h * w]."""
    rows, columns = torch.meshgrid(*(torch.arange(side, dtype=dtype) for side in grid), indexing="ij")
    places = torch.stack([rows.flatten(), columns.flatten()], 1)
    bell = torch.exp(-torch.cdist(places, places).square() / (2 * sigma**2))
    return functional.pad(bell, (1, 0, 1, 0))


def layers_of(weights):
    return len([name for name in weights if name.endswith(".attn.in_proj_weight")])


def before_last_block(weights, images):
    """Returns the input tokens [batch, 1 + h * w, width] of the last block for images [batch, 3, height, width],
    and the grid (h, w)."""
    kernel = weights["visual.conv1.weight"]
    patches = functional.conv2d(images, kernel, stride=kernel.shape[-1])
    grid = patches.shape[-2:]
    table = weights["visual.positional_embedding"]
    side = round((table.shape[0] - 1) ** 0.5)
    square = table[1:].reshape(1, side, side, -1).permute(0, 3, 1, 2)
    if grid != (side, side):
        square = functional.interpolate(square, size=grid, mode="bilinear", align_corners=False)
    patches = (patches + square).flatten(2).transpose(1, 2)
    first = (weights["visual.class_embedding"] + table[0]).expand(images.shape[0], 1, -1)
    x = layer_norm(weights, "visual.ln_pre", torch.cat([first, patches], 1))
    for number in range(layers_of(weights) - 1):
        block = f"visual.transformer.resblocks.{number}"
        query, key, value = projections(weights, block, x)
        x = x + merge(weights, block, affinity(query, key) @ value)
        x = feed_forward(weights, block, x)
    return x, grid


def last_block(weights, x, grid, mode, kept):
    """Returns the tokens after the replaced block, in the same shape [batch, 1 + h * w, width]."""
    block = f"visual.transformer.resblocks.{layers_of(weights) - 1}"
    query, key, value = projections(weights, block, x)
    if mode == "clip":
        value = affinity(query, key) @ value
    elif mode == "sclip":
        value = (affinity(query, query) + affinity(key, key)) @ value
    elif mode == "naclip":
        value = affinity(key, key, nearness(grid, SIGMA, x.dtype)) @ value
    elif mode == "clearclip":
        value = affinity(query, query) @ value
    y = merge(weights, block, value)
    return y if kept == "attention-only" else feed_forward(weights, block, x + y)


def to_joint(weights, x):
    """Projects tokens [batch, 1 + h * w, width] to unit rows in the joint space, [batch, 1 + h * w, dim]."""
    return functional.normalize(layer_norm(weights, "visual.ln_post", x) @ weights["visual.proj"], dim=-1)


def logits_of(joint, text, grid):
    """Returns logits [batch, classes, h, w] of unit tokens [batch, 1 + h * w, dim] and texts [classes, dim]."""
    cosines = joint[:, 1:] @ functional.normalize(text, dim=-1).t()
    return LOGIT_SCALE * cosines.transpose(1, 2).unflatten(2, grid)


# --- golden numbers --------------------------------------------------------------------------------------------------


def golden(arguments):
    generator = torch.Generator().manual_seed(11)
    clip = Clip(Sizes(128, 3, 8, 32, 32, 64, 1, 16, 96, 32, 3, 16)).requires_grad_(False)
    randomise(clip, generator)
    weights = {name: value.double() for name, value in clip.named_parameters() if name.startswith("visual.")}
    image = torch.randn(1, 3, 40, 56, generator=generator)
    text = functional.normalize(torch.randn(5, 32, generator=generator), dim=-1)

    # At the resolution of the position embeddings, the class token after the unchanged block is CLIP's image embedding.
    square = torch.randn(2, 3, 32, 32, generator=generator)
    x, grid = before_last_block(weights, square.double())
    ours = to_joint(weights, last_block(weights, x, grid, "clip", "full"))[:, 0]
    theirs = functional.normalize(clip.encode_image(square), dim=-1)
    assert (ours - theirs).abs().max() < 1e-5, "the class token differs from CLIP's image embedding"

    x, grid = before_last_block(weights, image.double())
    out = {f"weights.{name}": value.half() for name, value in weights.items()}
    out |= {"image": image, "text": text, "tokens": x.float()}
    for mode in MODES:
        for kept in LAST_BLOCKS:
            joint = to_joint(weights, last_block(weights, x, grid, mode, kept))
            out[f"{mode}.{kept}.patches"] = joint[:, 1:].float()
            out[f"{mode}.{kept}.logits"] = logits_of(joint, text.double(), grid).float()
    arguments.file.parent.mkdir(parents=True, exist_ok=True)
    about = {"made_by": f"python reference/training_free.py golden, torch {torch.__version__}"}
    safetensors.torch.save_file({key: value.contiguous() for key, value in out.items()}, arguments.file, about)
    print(f"{arguments.file.stat().st_size:,} bytes, torch {torch.__version__}")


# --- PASCAL VOC ------------------------------------------------------------------------------------------------------


def read_weights(path):
    """Reads OpenAI's `visual.*`, or a compact file whose matrices are int8 rows with one `.scale` each."""
    stored = safetensors.torch.load_file(path)
    weights = {}
    for name, value in stored.items():
        if name.endswith(".scale") or not name.startswith("visual."):
            continue
        scale = stored.get(f"{name}.scale")
        value = value.float()
        if scale is not None:
            value = (value * scale[:, None]).half().float()
            value = value.t() if name == "visual.proj" else value  # stored as its transpose
        weights[name] = value.contiguous()
    width = weights["visual.class_embedding"].shape[0]
    kernel = weights["visual.conv1.weight"]
    if kernel.dim() == 2:  # compact: [width, 3 * patch * patch]
        patch = round((kernel.shape[1] / 3) ** 0.5)
        weights["visual.conv1.weight"] = kernel.reshape(width, 3, patch, patch)
    return weights


def window_starts(length, crop, stride):
    """Returns the starts of windows with this stride; the last window is moved back inside the image."""
    count = max(length - crop + stride - 1, 0) // stride + 1
    return [max(min(number * stride, length - crop), 0) for number in range(count)]


def read_image(path, arguments):
    """Returns the image, resized and normalised, [1, 3, height, width], and its original (height, width)."""
    pixels = torch.from_numpy(np.array(Image.open(path).convert("RGB"))).permute(2, 0, 1)[None].float() / 255
    own = pixels.shape[-2:]
    if arguments.whole:
        size = (arguments.whole, arguments.whole)
    else:
        size = [int(side * arguments.short_side / min(own) + 0.5) for side in own]
    pixels = functional.interpolate(pixels, size=size, mode="bilinear", align_corners=False)
    mean, deviation = (torch.tensor(values).reshape(1, 3, 1, 1) for values in NORMS[arguments.norm])
    return (pixels - mean) / deviation, own


def windows_of(image, arguments):
    """Cuts [1, 3, height, width] into windows [windows, 3, crop, crop]; returns them and their starts."""
    height, width = image.shape[-2:]
    crop = (height, width) if arguments.whole else (min(arguments.crop, height), min(arguments.crop, width))
    rows = window_starts(height, crop[0], arguments.stride)
    starts = [(y, x) for y in rows for x in window_starts(width, crop[1], arguments.stride)]
    windows = [image[0, :, y : y + crop[0], x : x + crop[1]] for y, x in starts]
    return torch.stack(windows), starts


def stitch(logits, starts, crop, size, own):
    """Averages logits [windows, classes, h, w] on the resized image, then resizes to the image's original size."""
    total, count = torch.zeros(logits.shape[1], *size), torch.zeros(size)
    upright = functional.interpolate(logits, size=crop, mode="bilinear", align_corners=False)
    for window, (y, x) in zip(upright, starts, strict=True):
        total[:, y : y + crop[0], x : x + crop[1]] += window
        count[y : y + crop[0], x : x + crop[1]] += 1
    mean = (total / count)[None]
    return functional.interpolate(mean, size=own, mode="bilinear", align_corners=False)[0]


class Score:
    """Pixel counts by true and predicted label, for labels 1..classes; background (0) and 255 are ignored."""

    def __init__(self, classes):
        self.table = np.zeros((classes, classes), np.int64)

    def add(self, label, answer):
        classes = len(self.table)
        counted = (label > 0) & (label <= classes)
        places = (label[counted].astype(np.int64) - 1) * classes + answer[counted]
        self.table += np.bincount(places, minlength=classes**2).reshape(classes, classes)

    def numbers(self):
        """Returns pAcc and mIoU in percent; classes that are neither in the truth nor predicted are left out."""
        both = np.diag(self.table)
        union = self.table.sum(0) + self.table.sum(1) - both
        return 100 * both.sum() / self.table.sum(), 100 * np.mean(both[union > 0] / union[union > 0])


def voc(arguments):
    torch.set_num_threads(arguments.threads)
    weights = read_weights(arguments.weights)
    text = torch.from_numpy(np.load(arguments.text)).float()
    names = (arguments.voc / "ImageSets/Segmentation/val.txt").read_text().split()[: arguments.limit]
    scores = {(mode, kept): Score(len(text)) for mode in arguments.mode for kept in arguments.last_block}
    for name in names:
        image, own = read_image(arguments.voc / f"JPEGImages/{name}.jpg", arguments)
        label = np.array(Image.open(arguments.voc / f"SegmentationClass/{name}.png"))
        windows, starts = windows_of(image, arguments)
        x, grid = before_last_block(weights, windows)
        for (mode, kept), score in scores.items():
            joint = to_joint(weights, last_block(weights, x, grid, mode, kept))
            canvas = stitch(logits_of(joint, text, grid), starts, windows.shape[-2:], image.shape[-2:], own)
            score.add(label, canvas.argmax(0).numpy())
    if arguments.whole:
        mode_text = f"whole {arguments.whole}"
    else:
        mode_text = f"{arguments.short_side}/{arguments.crop}/{arguments.stride}"
    print(f"torch {torch.__version__}; {len(names)} images; {mode_text}; {arguments.norm}")
    for (mode, kept), score in scores.items():
        accuracy, overlap = score.numbers()
        print(f"{mode:9} {kept:15} pAcc {accuracy:6.2f}  mIoU {overlap:6.2f}", flush=True)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    tasks = parser.add_subparsers(required=True)
    task = tasks.add_parser("golden", help="write the golden numbers")
    task.add_argument("file", type=Path)
    task.set_defaults(run=golden)
    task = tasks.add_parser("voc", help="measure on PASCAL VOC's 20 classes without background")
    task.add_argument("--voc", type=Path, required=True, help="the folder VOC2012")
    task.add_argument("--weights", type=Path, required=True, help="safetensors with OpenAI's names `visual.*`")
    task.add_argument("--text", type=Path, required=True, help=".npy of 20 class embeddings")
    task.add_argument("--mode", choices=MODES, nargs="+", default=list(MODES))
    task.add_argument("--last-block", choices=LAST_BLOCKS, nargs="+", default=list(LAST_BLOCKS))
    task.add_argument("--norm", choices=NORMS, default="clip")
    task.add_argument("--short-side", type=int, default=336)
    task.add_argument("--crop", type=int, default=224)
    task.add_argument("--stride", type=int, default=112)
    task.add_argument("--whole", type=int, help="no windows; resize the image to a square of this side")
    task.add_argument("--limit", type=int, help="use only this many first images of val.txt")
    task.add_argument("--threads", type=int, default=1)
    task.set_defaults(run=voc)
    arguments = parser.parse_args()
    with torch.no_grad():
        arguments.run(arguments)


if __name__ == "__main__":
    main()
