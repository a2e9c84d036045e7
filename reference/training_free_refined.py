"""Writes golden numbers of the later training-free methods: SC-CLIP, PEARL's rotation, the class token's vote, PAMR.

Packages   those of training_free.py
Golden     python reference/training_free_refined.py crates/zeg-model/tests/golden/training_free_refined.safetensors

Written from the papers' formulas with PyTorch, float64, on a small random CLIP tower (training_free.py has the tower):

    SC-CLIP    arXiv 2411.15869: local outlier factors and repair of anomaly tokens, middle similarity beside keys to
               keys, aggregation by the middle similarity, a second pass of the last block over the sum of middle blocks
    PEARL      arXiv 2603.21528, first step: keys are rotated towards queries (orthogonal Procrustes, Newton-Schulz)
    PAMR       CVPR 2020, on random scores and a random image
"""

import argparse
from pathlib import Path

import safetensors.torch
import torch
import training_free as dense
from random_clip import Clip, Sizes, randomise
from torch.nn import functional


NEIGHBOURS, SHARE = 10, 0.05
MIDDLE_TEMPERATURE = 0.1
POLAR_STEPS = 8
VOTE = 0.45
DISTANCES, STEPS, SOFTNESS = (1, 2, 4, 8, 12, 24), 10, 0.1


def tokens_of_blocks(weights, images):
    """Returns the outputs of all blocks but the last, each [batch, 1 + h * w, width], and the grid."""
    out = []
    for count in range(1, dense.layers_of(weights)):
        fewer = {name: value for name, value in weights.items() if number_of(name) <= count}
        x, grid = dense.before_last_block(fewer, images)
        out.append(x)
    return out, grid


def number_of(name):
    """Returns the number of the block that a weight belongs to, or 0."""
    parts = name.split(".resblocks.")
    return int(parts[1].split(".")[0]) if len(parts) == 2 else 0


def outlier_factors(x, neighbours):
    """Local outlier factors of the rows of x, [rows, width] -> [rows] (Breunig et al., 2000)."""
    rows = x.shape[0]
    distance = (x[:, None] - x[None]).norm(dim=-1)
    near = []
    for row in range(rows):
        order = [other for other in distance[row].argsort(stable=True).tolist() if other != row]
        near.append(order[:neighbours])
    reach = [distance[row, near[row][-1]] for row in range(rows)]
    density = []
    for row in range(rows):
        reached = [torch.maximum(distance[row, other], reach[other]) for other in near[row]]
        density.append(1 / torch.stack(reached).mean())
    return torch.stack([torch.stack([density[other] for other in near[row]]).mean() / density[row] for row in range(rows)])


def repair(x, grid, neighbours, share):
    """Replaces anomalies among the patches of x, [1 + h * w, width], by the mean of sound patches around them."""
    height, width = grid
    patches = x[1:]
    factors = outlier_factors(patches, neighbours)
    count = max(1, round(share * len(patches)))
    bad = set(factors.argsort(descending=True, stable=True)[:count].tolist())
    out = x.clone()
    for patch in bad:
        top, left = divmod(patch, width)
        around = [
            row * width + column
            for row in range(max(0, top - 1), min(height, top + 2))
            for column in range(max(0, left - 1), min(width, left + 2))
        ]
        sound = [other for other in around if other not in bad]
        if sound:
            out[1 + patch] = patches[sound].mean(0)
    return out


def polar(matrix, steps):
    """The orthogonal factor of square matrices [..., d, d] by `steps` Newton-Schulz iterations."""
    x = matrix / matrix.square().sum((-1, -2), keepdim=True).sqrt()
    for _ in range(steps):
        x = 1.5 * x - 0.5 * x @ x.transpose(-1, -2) @ x
    return x


def pamr(image, maps, distances, steps, softness):
    """image [3, h, w] from 0 to 1, maps [k, h, w]; coordinates are clamped."""
    _, height, width = maps.shape
    offsets = [
        (down * distance, right * distance)
        for distance in distances
        for down in (-1, 0, 1)
        for right in (-1, 0, 1)
        if (down, right) != (0, 0)
    ]

    def moved(values, down, right):
        rows = (torch.arange(height) + down).clamp(0, height - 1)
        columns = (torch.arange(width) + right).clamp(0, width - 1)
        return values[:, rows][:, :, columns]

    around = torch.stack([moved(image, *offset) for offset in offsets])
    spread = torch.cat([around, image[None]]).std(0)
    weights = (-(around - image).abs() / (1e-8 + softness * spread)).mean(1).softmax(0)
    for _ in range(steps):
        maps = sum(weight * moved(maps, *offset) for weight, offset in zip(weights, offsets, strict=True))
    return maps


# --- the methods -----------------------------------------------------------------------------------------------------


def middle_similarity(middle):
    """Mean cosine similarity of patches: tokens [1, 1 + n, width] of some blocks -> [n, n]."""
    units = [functional.normalize(x[0, 1:], dim=-1) for x in middle]
    return torch.stack([unit @ unit.t() for unit in units]).mean(0)


def with_class(weights):
    """Adds a class token that attends to itself alone: [n, n] -> [1 + n, 1 + n]."""
    whole = functional.pad(weights, (1, 0, 1, 0))
    whole[0, 0] = 1
    return whole


def one_pass(weights, x, grid, terms, similar=None, mend=False, aggregate=False):
    """The last block's attention path with the summed terms: [1, 1 + n, width] -> the same shape."""
    block = f"visual.transformer.resblocks.{dense.layers_of(weights) - 1}"
    if mend:
        x = repair(x[0], grid, NEIGHBOURS, SHARE)[None]
    query, key, value = dense.projections(weights, block, x)
    smooth = None if similar is None else with_class((similar / MIDDLE_TEMPERATURE).softmax(-1))
    total = 0
    for term in terms:
        if term == "queries":
            total = total + dense.affinity(query, query)
        elif term == "keys":
            total = total + dense.affinity(key, key)
        elif term == "middle":
            total = total + smooth
        elif term == "rotated":
            centred = key - key.mean(-2, keepdim=True)
            towards = query - query.mean(-2, keepdim=True)
            rotation = polar(centred.transpose(-1, -2) @ towards, POLAR_STEPS)
            total = total + dense.affinity(query, centred @ rotation)
    y = dense.merge(weights, block, total @ value)
    return smooth @ y if aggregate else y


def encode(weights, images, method):
    """Returns unit patches [1, n, dim], the unit image embedding [1, dim] and the grid."""
    blocks, grid = tokens_of_blocks(weights, images)
    layers = dense.layers_of(weights)
    middle = blocks[layers // 3 : max(layers - 2, layers // 3 + 1)]
    last, total = blocks[-1], sum(middle)
    if method == "sc-clip":
        similar = middle_similarity(middle)
        args = (grid, ("keys", "middle"), similar, True, True)
        y = one_pass(weights, last, *args) + one_pass(weights, total, *args)
    elif method == "pearl":
        y = one_pass(weights, last, grid, ("rotated",))
    else:
        y = one_pass(weights, last, grid, ("queries",)) + one_pass(weights, total, grid, ("queries",))
    own = dense.to_joint(weights, dense.last_block(weights, last, grid, "clip", "full"))
    return dense.to_joint(weights, y)[:, 1:], own[:, 0], grid


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("file", type=Path)
    file = parser.parse_args().file
    generator = torch.Generator().manual_seed(12)
    clip = Clip(Sizes(64, 6, 8, 32, 32, 64, 1, 16, 96, 32, 3, 16)).requires_grad_(False)
    randomise(clip, generator)
    weights = {name: value.double() for name, value in clip.named_parameters() if name.startswith("visual.")}
    image = torch.randn(1, 3, 40, 56, generator=generator)
    text = functional.normalize(torch.randn(5, 32, generator=generator), dim=-1)
    out = {f"weights.{name}": value.half() for name, value in weights.items()}
    out |= {"image": image, "text": text}
    for method in ("sc-clip", "pearl", "combined"):
        patches, own, grid = encode(weights, image.double(), method)
        cosines = patches @ text.double().t()
        if method == "combined":
            cosines = cosines + VOTE * (own @ text.double().t())[:, None]
        out[f"{method}.patches"] = patches.float()
        out[f"{method}.global"] = own.float()
        out[f"{method}.logits"] = (dense.LOGIT_SCALE * cosines).transpose(1, 2).unflatten(2, grid).float()
    pixels = torch.randint(0, 256, (3, 21, 30), generator=generator)
    maps = torch.rand(2, 21, 30, generator=generator)
    pixels[:, :, 15:] = pixels[:, :, 15:] // 8 + 200  # a calmer half
    refined = pamr(pixels.double() / 255, maps.double(), DISTANCES, STEPS, SOFTNESS)
    out |= {"pamr.pixels": pixels.float(), "pamr.maps": maps, "pamr.refined": refined.float()}
    file.parent.mkdir(parents=True, exist_ok=True)
    about = {"made_by": f"python reference/training_free_refined.py, torch {torch.__version__}"}
    safetensors.torch.save_file({key: value.contiguous() for key, value in out.items()}, file, about)
    print(f"{file.stat().st_size:,} bytes, torch {torch.__version__}")


if __name__ == "__main__":
    with torch.no_grad():
        main()
