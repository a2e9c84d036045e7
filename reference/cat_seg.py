"""Reimplements CAT-Seg in PyTorch: writes golden numbers of a tiny model, and times the forward pass at published size.

Packages   Python 3.11, torch 2.15.0, safetensors 0.8.0, numpy 2.4.6
Golden     python reference/cat_seg.py golden crates/zeg-model/tests/golden/cat_seg.safetensors
Time       python reference/cat_seg.py time --classes 20 --threads 1

Written from the formulas of the paper (Cho et al., CVPR 2024) and of the released code (looked up, not copied), as plainly
as they are: the class axis is filled with real tokens, guidance is concatenated, every class is decoded by itself. The
golden numbers are computed in float64 and stored as float32; weights are float16 values, which float32 holds exactly.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import safetensors.torch
import torch
from torch.nn import functional

CLIP = "sem_seg_head.predictor.clip_model.visual."
HEAD = "sem_seg_head.predictor.transformer."

TINY = dict(
    width=32, blocks=4, heads=2, patch=4, stored=3, side=24, dim=12, taps=(0, 2),
    hidden=16, layers=2, attention_heads=2, window=3, appearance=6, text=8,
    decoder=(32, 16), features=(10, 6), guidance=(4, 4), limit=6, classes=4, many=9, image=40,
)
PUBLISHED = dict(
    width=768, blocks=12, heads=12, patch=16, stored=14, side=384, dim=512, taps=(3, 7),
    hidden=128, layers=2, attention_heads=4, window=12, appearance=128, text=128,
    decoder=(64, 32), features=(256, 128), guidance=(32, 16), limit=256, classes=20, many=0, image=384,
)


def shapes(c):
    """Returns the shapes of all parameters by their published names."""
    w, d, h = c["width"], c["dim"], c["hidden"]
    found = {
        f"{CLIP}conv1.weight": (w, 3, c["patch"], c["patch"]),
        f"{CLIP}class_embedding": (w,),
        f"{CLIP}positional_embedding": (1 + c["stored"] ** 2, w),
        f"{CLIP}proj": (w, d),
        "upsample1.weight": (w, c["features"][0], 2, 2),
        "upsample1.bias": (c["features"][0],),
        "upsample2.weight": (w, c["features"][1], 4, 4),
        "upsample2.bias": (c["features"][1],),
    }
    for name in ("ln_pre", "ln_post"):
        found |= {f"{CLIP}{name}.{p}": (w,) for p in ("weight", "bias")}
    for block in range(c["blocks"]):
        at = f"{CLIP}transformer.resblocks.{block}."
        for part in "qkv":
            found[f"{at}attn.{part}_proj_weight"] = (w, w)
        found[f"{at}attn.in_proj_bias"] = (3 * w,)
        linear(found, f"{at}attn.out_proj", w, w)
        linear(found, f"{at}mlp.c_fc", w, 4 * w)
        linear(found, f"{at}mlp.c_proj", 4 * w, w)
        for name in ("ln_1", "ln_2"):
            found |= {f"{at}{name}.{p}": (w,) for p in ("weight", "bias")}
    convolution(found, f"{HEAD}conv1", 1, h, 7)
    convolution(found, f"{HEAD}guidance_projection.0", d, c["appearance"], 3)
    linear(found, f"{HEAD}text_guidance_projection.0", d, c["text"])
    for stage in (0, 1):
        convolution(found, f"{HEAD}decoder_guidance_projection.{stage}.0", c["features"][stage], c["guidance"][stage], 3)
    for layer in range(c["layers"]):
        swin, among = f"{HEAD}layers.{layer}.swin_block.", f"{HEAD}layers.{layer}.attention."
        for block in ("block_1", "block_2"):
            at = f"{swin}{block}."
            for part in "qk":
                linear(found, f"{at}attn.{part}", h + c["appearance"], h)
            linear(found, f"{at}attn.v", h, h)
            linear(found, f"{at}attn.proj", h, h)
            linear(found, f"{at}mlp.fc1", h, 4 * h)
            linear(found, f"{at}mlp.fc2", 4 * h, h)
            for name in ("norm1", "norm2"):
                found |= {f"{at}{name}.{p}": (h,) for p in ("weight", "bias")}
        found |= {f"{swin}guidance_norm.{p}": (c["appearance"],) for p in ("weight", "bias")}
        found[f"{among}padding_tokens"] = (1, 1, h)
        found[f"{among}padding_guidance"] = (1, 1, c["text"])
        for part in "qk":
            linear(found, f"{among}attention.{part}", h + c["text"], h)
        linear(found, f"{among}attention.v", h, h)
        linear(found, f"{among}MLP.0", h, 4 * h)
        linear(found, f"{among}MLP.2", 4 * h, h)
        for name in ("norm1", "norm2"):
            found |= {f"{among}{name}.{p}": (h,) for p in ("weight", "bias")}
    inputs = (h, c["decoder"][0])
    for stage in (0, 1):
        at, own = f"{HEAD}decoder{stage + 1}.", inputs[stage] - c["guidance"][stage]
        found |= {f"{at}up.weight": (inputs[stage], own, 2, 2), f"{at}up.bias": (own,)}
        out = c["decoder"][stage]
        found[f"{at}conv.double_conv.0.weight"] = (out, inputs[stage], 3, 3)
        found[f"{at}conv.double_conv.3.weight"] = (out, out, 3, 3)
        for norm in (1, 4):
            found |= {f"{at}conv.double_conv.{norm}.{p}": (out,) for p in ("weight", "bias")}
    convolution(found, f"{HEAD}head", c["decoder"][1], 1, 3)
    return found


def linear(found, name, inputs, outputs):
    found |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def convolution(found, name, inputs, outputs, side):
    found |= {f"{name}.weight": (outputs, inputs, side, side), f"{name}.bias": (outputs,)}


def random_weights(c, seed):
    """Returns float16 values in float64, of a size that keeps activations near 1."""
    rng, weights = np.random.default_rng(seed), {}
    for name, shape in shapes(c).items():
        values = rng.uniform(-1, 1, shape)
        is_norm = any(p.startswith(("ln_", "norm", "guidance_norm")) for p in name.split(".")) or ".double_conv.1." in name
        if name.endswith("weight") and (is_norm or ".double_conv.4." in name):
            values = 1 + 0.2 * values
        elif name.endswith("bias"):
            values = 0.1 * values
        elif len(shape) < 2 or "embedding" in name or "padding" in name:
            values = 0.5 * values
        else:
            inputs = shape[0] if name.endswith(("proj", "upsample1.weight", "upsample2.weight")) else np.prod(shape[1:])
            values = values * (3 / inputs) ** 0.5
        if name.endswith("transformer.conv1.weight"):
            values = 8 * values  # cosines are small
        weights[name] = torch.from_numpy(values.astype(np.float16).astype(np.float64))
    return weights


class CatSeg:
    def __init__(self, c, weights):
        self.c, self.w = c, weights

    def linear(self, name, x):
        return functional.linear(x, self.w[f"{name}.weight"], self.w[f"{name}.bias"])

    def conv(self, name, x):
        weight = self.w[f"{name}.weight"]
        return functional.conv2d(x, weight, self.w.get(f"{name}.bias"), padding=weight.shape[-1] // 2)

    def up(self, name, x):
        weight = self.w[f"{name}.weight"]
        return functional.conv_transpose2d(x, weight, self.w[f"{name}.bias"], stride=weight.shape[-1])

    def norm(self, name, x):
        return functional.layer_norm(x, x.shape[-1:], self.w[f"{name}.weight"], self.w[f"{name}.bias"], 1e-5)

    def tower(self, image):
        """Returns dense features [1, dim, g, g] and the maps after both tapped blocks."""
        c, w = self.c, self.w
        x = functional.conv2d(image, w[f"{CLIP}conv1.weight"], stride=c["patch"])
        g = x.shape[-1]
        x = x.flatten(2).transpose(1, 2)
        table = w[f"{CLIP}positional_embedding"]
        grid = table[1:].T.reshape(1, c["width"], c["stored"], c["stored"])
        grid = functional.interpolate(grid, (g, g), mode="bicubic", align_corners=False)
        positions = torch.cat([table[:1], grid.flatten(2)[0].T])
        x = torch.cat([w[f"{CLIP}class_embedding"].expand(1, 1, -1), x], 1) + positions
        x = self.norm(f"{CLIP}ln_pre", x)
        taps = []
        for block in range(c["blocks"]):
            at = f"{CLIP}transformer.resblocks.{block}."
            y = self.norm(f"{at}ln_1", x)
            biases = w[f"{at}attn.in_proj_bias"].chunk(3)
            q, k, v = (functional.linear(y, w[f"{at}attn.{p}_proj_weight"], b) for p, b in zip("qkv", biases))
            if block == c["blocks"] - 1:
                x = self.linear(f"{at}attn.out_proj", v) + x[:, :1]
            else:
                q, k, v = (t.unflatten(-1, (c["heads"], -1)).transpose(1, 2) for t in (q, k, v))
                y = functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
                x = x + self.linear(f"{at}attn.out_proj", y)
            hidden = self.linear(f"{at}mlp.c_fc", self.norm(f"{at}ln_2", x))
            x = x + self.linear(f"{at}mlp.c_proj", hidden * torch.sigmoid(1.702 * hidden))
            if block in c["taps"]:
                taps.append(x[:, 1:].transpose(1, 2).unflatten(2, (g, g)))
        x = self.norm(f"{CLIP}ln_post", x) @ w[f"{CLIP}proj"]
        return x[:, 1:].transpose(1, 2).unflatten(2, (g, g)), taps

    def window_attention(self, at, x, guidance, shift):
        """x, guidance: [T, g, g, channels]"""
        c, (t, g, _, h) = self.c, x.shape
        side = c["window"]
        y = torch.cat([x, guidance], -1)
        q, k, v = self.linear(f"{at}.q", y), self.linear(f"{at}.k", y), self.linear(f"{at}.v", x)

        def cut(z):
            z = torch.roll(z, (-shift, -shift), (1, 2))
            z = z.reshape(t, g // side, side, g // side, side, -1).transpose(2, 3)
            return z.reshape(t, -1, side * side, c["attention_heads"], z.shape[-1] // c["attention_heads"]).transpose(2, 3)

        q, k, v = cut(q), cut(k), cut(v)
        logits = q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5
        if shift:
            band = torch.zeros(g, dtype=torch.long)
            band[g - side:], band[g - shift:] = 1, 2
            region = (3 * band[:, None] + band[None]).to(logits.dtype)
            region = region.reshape(g // side, side, g // side, side).transpose(1, 2).reshape(-1, side * side)
            apart = (region[:, :, None] != region[:, None]).to(logits.dtype)
            logits = logits - 100 * apart[None, :, None]
        out = (logits.softmax(-1) @ v).transpose(2, 3).reshape(t, g // side, g // side, side, side, h)
        out = torch.roll(out.transpose(2, 3).reshape(t, g, g, h), (shift, shift), (1, 2))
        return self.linear(f"{at}.proj", out)

    def spatial(self, at, x, appearance):
        guidance = self.norm(f"{at}guidance_norm", appearance).expand(len(x), -1, -1, -1)
        for name, shift in (("block_1", 0), ("block_2", self.c["window"] // 2)):
            at_block = f"{at}{name}."
            x = x + self.window_attention(f"{at_block}attn", self.norm(f"{at_block}norm1", x), guidance, shift)
            hidden = functional.gelu(self.linear(f"{at_block}mlp.fc1", self.norm(f"{at_block}norm2", x)))
            x = x + self.linear(f"{at_block}mlp.fc2", hidden)
        return x

    def among_classes(self, at, x, text, pool):
        """x: [T, h, g, g]; text: [T, channels]"""
        c, (t, h, g, _) = self.c, x.shape
        pooled = functional.avg_pool2d(x, pool)
        side = pooled.shape[-1]
        y = pooled.flatten(2).permute(2, 0, 1)  # [positions, T, h]
        missing = max(c["limit"] - t, 0)
        y = torch.cat([y, self.w[f"{at}padding_tokens"].expand(len(y), missing, -1)], 1)
        guide = torch.cat([text[None], self.w[f"{at}padding_guidance"].expand(1, missing, -1)], 1).expand(len(y), -1, -1)
        z = self.norm(f"{at}norm1", y)
        guided = torch.cat([z, guide], -1)
        parts = self.linear(f"{at}attention.q", guided), self.linear(f"{at}attention.k", guided), self.linear(f"{at}attention.v", z)
        q, k, v = (p.unflatten(-1, (c["attention_heads"], -1)).transpose(1, 2) for p in parts)
        q, k = functional.elu(q) + 1, functional.elu(k) + 1
        out = q @ (k.transpose(-1, -2) @ v) / (q @ k.sum(2)[..., None] + 1e-6)
        y = y + out.transpose(1, 2).flatten(2)
        y = y + self.linear(f"{at}MLP.2", torch.relu(self.linear(f"{at}MLP.0", self.norm(f"{at}norm2", y))))
        maps = y[:, :t].permute(1, 2, 0).unflatten(2, (side, side))
        return x + functional.interpolate(maps, (g, g), mode="bilinear", align_corners=True)

    def forward(self, image, text, pool=1):
        """image: [1, 3, h, w]; text: unit rows [T, dim]; returns logits [T, 4g, 4g]."""
        c = self.c
        image = functional.interpolate(image, (c["side"], c["side"]), mode="bilinear", align_corners=False)
        dense, taps = self.tower(image)
        g = dense.shape[-1]
        cost = torch.einsum("td,dyx->tyx", text, functional.normalize(dense[0], dim=0))
        kept = torch.arange(len(text))
        if len(text) > c["limit"]:
            kept = cost.flatten(1).amax(1).topk(c["limit"]).indices
        x = self.conv(f"{HEAD}conv1", cost[kept][:, None])  # [T, h, g, g]
        appearance = torch.relu(self.conv(f"{HEAD}guidance_projection.0", dense)).permute(0, 2, 3, 1)
        guide = torch.relu(self.linear(f"{HEAD}text_guidance_projection.0", text[kept]))
        for layer in range(c["layers"]):
            at = f"{HEAD}layers.{layer}."
            x = self.spatial(f"{at}swin_block.", x.permute(0, 2, 3, 1), appearance).permute(0, 3, 1, 2)
            x = self.among_classes(f"{at}attention.", x, guide, pool)
        for stage, name in enumerate(("upsample1", "upsample2")):
            at = f"{HEAD}decoder{stage + 1}."
            own = torch.relu(self.conv(f"{HEAD}decoder_guidance_projection.{stage}.0", self.up(name, taps[stage])))
            x = self.up(f"{at}up", x)
            x = torch.cat([x, own.expand(len(x), -1, -1, -1)], 1)
            for conv, norm in ((0, 1), (3, 4)):
                x = self.conv(f"{at}conv.double_conv.{conv}", x)
                name_of = f"{at}conv.double_conv.{norm}"
                x = functional.group_norm(x, x.shape[1] // 16, self.w[f"{name_of}.weight"], self.w[f"{name_of}.bias"], 1e-5)
                x = torch.relu(x)
        logits = torch.full((len(text), 4 * g, 4 * g), -100.0, dtype=x.dtype)
        logits[kept] = self.conv(f"{HEAD}head", x)[:, 0]
        return logits


def unit_rows(rng, count, dim):
    rows = rng.normal(size=(count, dim)).astype(np.float32).astype(np.float64)
    rows = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(np.float32)
    return torch.from_numpy(rows.astype(np.float64))


def golden(path):
    c, rng = TINY, np.random.default_rng(1)
    weights = random_weights(c, 0)
    model = CatSeg(c, weights)
    image = torch.from_numpy(rng.normal(size=(1, 3, c["image"], c["image"])).astype(np.float32).astype(np.float64))
    text, many = unit_rows(rng, c["classes"], c["dim"]), unit_rows(rng, c["many"], c["dim"])
    tensors = {f"weights.{name}": value.half() for name, value in weights.items()}
    tensors |= {"image": image.float(), "text": text.float(), "many": many.float()}
    tensors["logits"] = model.forward(image, text).float()
    tensors["logits_pooled"] = model.forward(image, text, 2).float()
    tensors["logits_many"] = model.forward(image, many).float()
    assert (tensors["logits_many"][:, 0, 0] == -100).sum() == c["many"] - c["limit"]
    safetensors.torch.save_file({k: v.contiguous() for k, v in tensors.items()}, path)


def measure(classes, threads, runs):
    torch.set_num_threads(threads)
    c, rng = dict(PUBLISHED, classes=classes), np.random.default_rng(1)
    weights = {name: value.float() for name, value in random_weights(c, 0).items()}
    model = CatSeg(c, weights)
    image = torch.from_numpy(rng.normal(size=(1, 3, c["image"], c["image"])).astype(np.float32))
    text = unit_rows(rng, classes, c["dim"]).float()
    with torch.inference_mode():
        seconds = []
        for _ in range(runs + 1):
            started = time.perf_counter()
            model.forward(image, text)
            seconds.append(time.perf_counter() - started)
    print(f"{classes} classes, one window, {threads} threads: {min(seconds[1:]):.2f} s (best of {runs})")


def main():
    parser = argparse.ArgumentParser()
    commands = parser.add_subparsers(dest="command", required=True)
    commands.add_parser("golden").add_argument("path", type=Path)
    timing = commands.add_parser("time")
    timing.add_argument("--classes", type=int, default=20)
    timing.add_argument("--threads", type=int, default=1)
    timing.add_argument("--runs", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.command == "golden":
        golden(arguments.path)
    else:
        measure(arguments.classes, arguments.threads, arguments.runs)


if __name__ == "__main__":
    main()
