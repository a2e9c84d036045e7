"""Times ZegCLIP, CLIP-RC, ZegFormer or CAT-Seg (ViT-B/16, 20 classes) in PyTorch, ONNX Runtime, OpenVINO and zeg, one after the other.

Run        python reference/bench_peers.py --zeg target/release/zeg --threads 2 --json peers.json
           python reference/bench_peers.py --zeg target/release/zeg --method clip-rc --engines torch
           python reference/bench_peers.py --zeg target/release/zeg --method zegformer --engines torch --rounds 2
           python reference/bench_peers.py --zeg target/release/zeg --method cat-seg --engines torch,torch-compile --rounds 3
           python reference/bench_peers.py --zeg target/release/zeg --training --batch 4 --rounds 2
           python reference/bench_peers.py --before ../zeg-before --engines "" --rounds 7
Packages   torch, numpy; onnx, onnxscript, onnxruntime, openvino and nncf for the engines of those names
Writes     a table, and JSON with every time

Every engine is a separate process that loads the same random weights (a file with the parameter names of the released
checkpoints) and then waits. In each round every engine computes the same image once, in turn, so that a slowdown of the
machine affects all of them. A result consists of wall-clock seconds and CPU seconds of all threads (medians over the
rounds), the peak memory of the process, the seconds from the start of the process to its first result, and the largest
difference of a score from PyTorch's.

The engine `onnxruntime-zeg` computes the graph that `zeg export` writes of the same weights, for ZegCLIP and CLIP-RC; the
other engines of ONNX Runtime and OpenVINO compute PyTorch's export of the model below.

For ZegFormer and CAT-Seg, every engine has its own random weights, so its times are comparable but its scores are not. Images are
512×512; for CAT-Seg they are 640×640, of which the evaluation script makes five crops.

`openvino-bf16` lets OpenVINO compute in bf16, as `zeg --precision bf16` does; the other engines compute in f32 or with 8-bit integers.

zeg is started anew in every round (one warm-up run, one measured run), because its benchmark is a command. Its memory is
that of these runs; the memory of the other engines includes loading their packages.

With --before, the program of another checkout is measured in the same rounds, so that a change can be judged on a machine
that other work slows down.
"""

import argparse
import json
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

import numpy as np

import peers_cat_seg

WIDTH, LAYERS, HEADS, PATCH, SIZE = 768, 12, 12, 16, 512
DIM, PROMPTS, CLASSES, SEEN = 512, 10, 20, 15
DECODER_LAYERS, DECODER_HEADS, HIDDEN = 3, 8, 2048
FOCAL, DICE = 100.0, 1.0
REGIONS = 16  # region tokens of CLIP-RC, on a 4×4 lattice
CONFIGS = {"zegformer": "configs/voc12/zegformer-r50.toml", "cat-seg": "configs/coco-stuff164k/cat-seg-vitb.toml"}
ENGINES = ["torch", "torch-compile", "onnxruntime", "onnxruntime-int8", "onnxruntime-zeg", "openvino", "openvino-bf16", "openvino-int8"]


def parameter_shapes(method):
    """Yields names and shapes of the parameters in the released checkpoints that inference uses."""
    grid = SIZE // PATCH
    decoders = ["decoder_1"]
    if method == "clip-rc":
        decoders = ["decoder_q", "decoder_v"]
        yield "backbone.region_level_bridge", (REGIONS, WIDTH)
        yield "decode_head.lateral_proj.weight", (DIM, 3 * DIM)
        yield "decode_head.lateral_proj.bias", (DIM,)
    yield "backbone.conv1.weight", (WIDTH, 3, PATCH, PATCH)
    yield "backbone.class_embedding", (WIDTH,)
    yield "backbone.positional_embedding", (1 + grid * grid, WIDTH)
    yield "backbone.proj", (WIDTH, DIM)
    yield "backbone.prompt_embeddings", (1, PROMPTS, WIDTH)
    yield "backbone.deep_prompt_embeddings", (LAYERS - 1, PROMPTS, WIDTH)
    yield "decode_head.q_proj.weight", (DIM, 2 * DIM)
    yield "decode_head.q_proj.bias", (DIM,)
    for norm in ("ln_pre", "ln_post", "prompt_norm"):
        yield f"backbone.{norm}.weight", (WIDTH,)
        yield f"backbone.{norm}.bias", (WIDTH,)
    linear = {"backbone.prompt_proj": (WIDTH, WIDTH)}
    for i in range(LAYERS):
        block = f"backbone.transformer.resblocks.{i}"
        yield f"{block}.attn.in_proj_weight", (3 * WIDTH, WIDTH)
        yield f"{block}.attn.in_proj_bias", (3 * WIDTH,)
        for norm in ("ln_1", "ln_2"):
            yield f"{block}.{norm}.weight", (WIDTH,)
            yield f"{block}.{norm}.bias", (WIDTH,)
        linear[f"{block}.attn.out_proj"] = (WIDTH, WIDTH)
        linear[f"{block}.mlp.c_fc"] = (4 * WIDTH, WIDTH)
        linear[f"{block}.mlp.c_proj"] = (WIDTH, 4 * WIDTH)
    layers = [f"{decoder}.layers.{i}" for decoder in decoders for i in range(DECODER_LAYERS)]
    if method == "clip-rc":
        recovery = "decode_head.recovery_decoder"  # for training; released checkpoints hold it
        linear |= {f"{recovery}.{name}": (DIM, DIM) for name in ("linear_q_in", "linear_k_in", "linear_k_out")}
        linear[f"{recovery}.linear_q_out"] = (2 * DIM, DIM)
        layers += [f"recovery_decoder.{name}.0" for name in ("decouple_q", "decouple_v")]
    for layer in (f"decode_head.{layer}" for layer in layers):
        for name in ("q", "k", "v", "proj"):
            linear[f"{layer}.multihead_attn.{name}"] = (DIM, DIM)
        linear[f"{layer}.linear1"] = (HIDDEN, DIM)
        linear[f"{layer}.linear2"] = (DIM, HIDDEN)
        for norm in ("norm2", "norm3"):
            yield f"{layer}.{norm}.weight", (DIM,)
            yield f"{layer}.{norm}.bias", (DIM,)
    for name, shape in linear.items():
        yield f"{name}.weight", shape
        yield f"{name}.bias", shape[:1]


def write_weights(path, method):
    """Writes random weights as a safetensors file."""
    rng = np.random.default_rng(0)
    header, blobs, offset = {}, [], 0
    for name, shape in parameter_shapes(method):
        values = rng.standard_normal(shape, dtype=np.float32)
        if name.endswith(".weight") and len(shape) == 1:
            values = 1 + 0.1 * values
        elif name.endswith("bias"):
            values *= 0.05
        elif len(shape) == 2 and name.endswith(("weight", "proj")):
            values *= shape[1] ** -0.5
        elif name == "backbone.conv1.weight":
            values *= (3 * PATCH * PATCH) ** -0.5
        else:
            values *= 0.3
        blob = values.tobytes()
        header[name] = {"dtype": "F32", "shape": shape, "data_offsets": [offset, offset + len(blob)]}
        blobs.append(blob)
        offset += len(blob)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    with open(path, "wb") as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        file.writelines(blobs)


def read_weights(path):
    with open(path, "rb") as file:
        length = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(length))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
    for name, entry in header.items():
        start, end = entry["data_offsets"]
        yield name, np.array(data[start:end]).view(np.float32).reshape(entry["shape"])


def image_side(method):
    return peers_cat_seg.CANVAS if method == "cat-seg" else SIZE


def inputs(batch, method="zegclip"):
    """Returns images of noise and class embeddings of unit length."""
    side = image_side(method)
    rng = np.random.default_rng(1)
    text = rng.standard_normal((CLASSES, DIM), dtype=np.float32)
    text /= np.linalg.norm(text, axis=1, keepdims=True)
    return rng.standard_normal((batch, 3, side, side), dtype=np.float32), text


def clip_transformer():
    """Builds CLIP's transformer blocks; the modules have the names of the weights."""
    import torch
    from torch import nn
    from torch.nn import functional

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.in_proj_weight = nn.Parameter(torch.empty(3 * WIDTH, WIDTH))
            self.in_proj_bias = nn.Parameter(torch.zeros(3 * WIDTH))
            self.out_proj = nn.Linear(WIDTH, WIDTH)

        def forward(self, x, mask):
            batch, tokens, _ = x.shape
            qkv = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
            q, k, v = qkv.view(batch, tokens, 3, HEADS, WIDTH // HEADS).permute(2, 0, 3, 1, 4)
            attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=mask)
            return self.out_proj(attended.transpose(1, 2).reshape(batch, tokens, WIDTH))

    class Mlp(nn.Module):
        def __init__(self):
            super().__init__()
            self.c_fc = nn.Linear(WIDTH, 4 * WIDTH)
            self.c_proj = nn.Linear(4 * WIDTH, WIDTH)

        def forward(self, x):
            hidden = self.c_fc(x)
            return self.c_proj(hidden * torch.sigmoid(1.702 * hidden))

    class Block(nn.Module):
        def __init__(self):
            super().__init__()
            self.ln_1 = nn.LayerNorm(WIDTH)
            self.attn = Attention()
            self.ln_2 = nn.LayerNorm(WIDTH)
            self.mlp = Mlp()

        def forward(self, x, mask):
            x = x + self.attn(self.ln_1(x), mask)
            return x + self.mlp(self.ln_2(x))

    class Transformer(nn.Module):
        def __init__(self):
            super().__init__()
            self.resblocks = nn.ModuleList(Block() for _ in range(LAYERS))

    return Transformer()


def build_torch(weights, method):
    """Builds the model in PyTorch; the modules have the names of the weights."""
    import torch
    from torch import nn
    from torch.nn import functional

    def region_mask():
        """Returns the mask: a region token and the patches of its cell attend to each other; no other token attends to it."""
        grid, side = SIZE // PATCH, int(REGIONS**0.5)
        start = 1 + PROMPTS
        first = start + grid * grid
        mask = torch.zeros(first + REGIONS, first + REGIONS)
        mask[first:, :] = mask[:, first:] = -torch.inf
        for region in range(REGIONS):
            token = first + region
            mask[token, token] = 0
            for row in range(grid // side):
                top, left = region // side * (grid // side) + row, region % side * (grid // side)
                cell = slice(start + top * grid + left, start + top * grid + left + grid // side)
                mask[token, cell] = mask[cell, token] = 0
        return mask

    class Encoder(nn.Module):
        def __init__(self):
            super().__init__()
            grid = SIZE // PATCH
            self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
            self.class_embedding = nn.Parameter(torch.empty(WIDTH))
            self.positional_embedding = nn.Parameter(torch.empty(1 + grid * grid, WIDTH))
            self.ln_pre = nn.LayerNorm(WIDTH)
            self.transformer = clip_transformer()
            self.ln_post = nn.LayerNorm(WIDTH)
            self.proj = nn.Parameter(torch.empty(WIDTH, DIM))
            self.prompt_embeddings = nn.Parameter(torch.empty(1, PROMPTS, WIDTH))
            self.deep_prompt_embeddings = nn.Parameter(torch.empty(LAYERS - 1, PROMPTS, WIDTH))
            self.prompt_proj = nn.Linear(WIDTH, WIDTH)
            self.prompt_norm = nn.LayerNorm(WIDTH, eps=1e-6)
            self.mask = None
            if method == "clip-rc":
                self.region_level_bridge = nn.Parameter(torch.empty(REGIONS, WIDTH))
                self.mask = region_mask()

        def forward(self, images):
            batch = images.shape[0]
            patches = self.conv1(images).flatten(2).transpose(1, 2)
            positions = self.positional_embedding
            # The class embedding is added twice, as released.
            first = (2 * self.class_embedding + positions[0]).expand(batch, 1, WIDTH)
            parts = [first, patches + positions[1:]]
            if self.mask is not None:
                parts.append(self.region_level_bridge.expand(batch, REGIONS, WIDTH))
            x = self.ln_pre(torch.cat(parts, 1))
            for i, block in enumerate(self.transformer.resblocks):
                fresh = self.prompt_embeddings if i == 0 else self.deep_prompt_embeddings[i - 1 : i]
                fresh = functional.dropout(self.prompt_proj(fresh).expand(batch, -1, -1), 0.1, self.training)
                rest = x[:, 1:] if i == 0 else x[:, 1 + PROMPTS :]
                x = block(torch.cat([x[:, :1], fresh, rest], 1), self.mask)
            end = x.shape[1] - (REGIONS if self.mask is not None else 0)
            x = torch.cat([self.prompt_norm(x[:, :end]), x[:, end:]], 1)
            x = functional.normalize(self.ln_post(x) @ self.proj, dim=-1)
            return x[:, 0], x[:, 1 + PROMPTS : end], x[:, end:]

    class CrossAttention(nn.Module):
        def __init__(self):
            super().__init__()
            self.q, self.k, self.v, self.proj = (nn.Linear(DIM, DIM) for _ in range(4))

        def logits(self, queries, memory):
            """Returns attention logits before the softmax, averaged over heads."""
            scale = (DIM // DECODER_HEADS) ** -0.5 / DECODER_HEADS
            return (self.q(queries) * scale) @ self.k(memory).transpose(1, 2)

        def forward(self, queries, memory):
            def split(x):
                return x.view(x.shape[0], x.shape[1], DECODER_HEADS, -1).transpose(1, 2)

            q, k, v = split(self.q(queries)), split(self.k(memory)), split(self.v(memory))
            attended = functional.scaled_dot_product_attention(q, k, v, dropout_p=0.1 * self.training)
            return self.proj(attended.transpose(1, 2).reshape(queries.shape))

    class DecoderLayer(nn.Module):
        def __init__(self):
            super().__init__()
            self.multihead_attn = CrossAttention()
            self.linear1 = nn.Linear(DIM, HIDDEN)
            self.linear2 = nn.Linear(HIDDEN, DIM)
            self.norm2, self.norm3 = nn.LayerNorm(DIM), nn.LayerNorm(DIM)

        def forward(self, x, memory):
            def drop(y):
                return functional.dropout(y, 0.1, self.training)

            x = self.norm2(x + drop(self.multihead_attn(x, memory)))
            hidden = drop(functional.relu(self.linear1(x)))
            return self.norm3(x + drop(self.linear2(hidden)))

    class Decoder(nn.Module):
        def __init__(self):
            super().__init__()
            self.layers = nn.ModuleList(DecoderLayer() for _ in range(DECODER_LAYERS))

    class Head(nn.Module):
        def __init__(self):
            super().__init__()
            self.q_proj = nn.Linear(2 * DIM, DIM)
            self.decoder_1 = Decoder()

        def forward(self, image, patches, _regions, text):
            text = text.expand(image.shape[0], -1, -1)
            queries = self.q_proj(torch.cat([text * image[:, None], text], -1))
            *layers, last = self.decoder_1.layers
            for layer in layers:
                queries = layer(queries, patches)
            side = SIZE // PATCH
            masks = last.multihead_attn.logits(queries, patches)  # the value path of the last layer is not used
            return masks.view(image.shape[0], text.shape[1], side, side)

    class RegionHead(nn.Module):
        """The head of CLIP-RC: one query per region and class, decoded together with the patches."""

        def __init__(self):
            super().__init__()
            self.q_proj = nn.Linear(2 * DIM, DIM)
            self.lateral_proj = nn.Linear(3 * DIM, DIM)
            self.decoder_q, self.decoder_v = Decoder(), Decoder()

        def forward(self, image, patches, regions, text):
            batch, tokens, _ = patches.shape
            side, lattice = SIZE // PATCH, int(REGIONS**0.5)
            clues = (regions + image[:, None])[:, :, None] * text  # [batch, regions, classes, dim]
            q = self.q_proj(torch.cat([clues, text.expand_as(clues)], -1)).flatten(1, 2)
            stretched = regions.transpose(1, 2).unflatten(2, (lattice, lattice))
            stretched = functional.interpolate(stretched, size=(side, side), mode="bilinear", align_corners=False)
            lateral = [stretched.flatten(2).transpose(1, 2), image[:, None].expand(batch, tokens, DIM), patches]
            v = self.lateral_proj(torch.cat(lateral, -1))
            for of_queries, of_patches in zip(self.decoder_q.layers, self.decoder_v.layers):
                q, v = of_queries(q, v), of_patches(v, q)
            masks = (q @ v.transpose(1, 2)).unflatten(1, (REGIONS, text.shape[0])).mean(1)
            return masks.view(batch, text.shape[0], side, side)

    class ZegClip(nn.Module):
        def __init__(self):
            super().__init__()
            self.backbone = Encoder()
            self.decode_head = RegionHead() if method == "clip-rc" else Head()

        def masks(self, images, text):
            masks = self.decode_head(*self.backbone(images), text)
            return functional.interpolate(masks, size=(SIZE, SIZE), mode="bilinear", align_corners=False)

        def forward(self, images, text):
            return torch.sigmoid(self.masks(images, text))

    model = ZegClip()
    state = {name: torch.from_numpy(values) for name, values in read_weights(weights)}
    model.load_state_dict({name: tensor for name, tensor in state.items() if "recovery_decoder" not in name})
    return model.eval()


def build_zegformer():
    """Builds ZegFormer with a ResNet-50, 100 mask queries and CLIP on all their crops, with its own random weights.

    Crops are made by interpolation instead of RoIAlign, which is not in PyTorch itself; this is a thousandth of the work.
    """
    import torch
    from torch import nn
    from torch.nn import functional

    queries, hidden, side = 100, 256, 224

    def conv(inputs, outputs, size, stride=1, norm=None):
        layers = [nn.Conv2d(inputs, outputs, size, stride, size // 2, bias=False)]
        layers += [nn.GroupNorm(32, outputs)] if norm == "group" else [nn.BatchNorm2d(outputs)]
        return nn.Sequential(*layers)

    class Bottleneck(nn.Module):
        def __init__(self, inputs, width, stride):
            super().__init__()
            self.a, self.b = conv(inputs, width, 1), conv(width, width, 3, stride)
            self.c = conv(width, 4 * width, 1)
            self.skip = conv(inputs, 4 * width, 1, stride) if stride > 1 or inputs != 4 * width else nn.Identity()

        def forward(self, x):
            y = functional.relu(self.b(functional.relu(self.a(x))))
            return functional.relu(self.c(y) + self.skip(x))

    def stage(inputs, width, count, stride):
        blocks = [Bottleneck(inputs, width, stride)] + [Bottleneck(4 * width, width, 1) for _ in range(count - 1)]
        return nn.Sequential(*blocks)

    class DecoderLayer(nn.Module):
        def __init__(self):
            super().__init__()
            self.own = nn.MultiheadAttention(hidden, 8, batch_first=True)
            self.cross = nn.MultiheadAttention(hidden, 8, batch_first=True)
            self.up, self.down = nn.Linear(hidden, HIDDEN), nn.Linear(HIDDEN, hidden)
            self.norms = nn.ModuleList(nn.LayerNorm(hidden) for _ in range(3))

        def forward(self, x, positions, memory, keys):
            q = x + positions
            x = self.norms[0](x + self.own(q, q, x, need_weights=False)[0])
            x = self.norms[1](x + self.cross(x + positions, keys, memory, need_weights=False)[0])
            return self.norms[2](x + self.down(functional.relu(self.up(x))))

    class ZegFormer(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem = conv(3, 64, 7, 2)
            sizes = [(64, 64, 3, 1), (256, 128, 4, 2), (512, 256, 6, 2), (1024, 512, 3, 2)]
            self.stages = nn.ModuleList(stage(*size) for size in sizes)
            self.lateral = nn.ModuleList(conv(c, hidden, 1, norm="group") for c in (256, 512, 1024))
            self.out = nn.ModuleList(conv(hidden, hidden, 3, norm="group") for _ in range(3))
            self.top = conv(2048, hidden, 3, norm="group")
            self.features = nn.Conv2d(hidden, hidden, 3, padding=1)
            self.project = nn.Conv2d(2048, hidden, 1)
            self.positions = nn.Parameter(torch.randn(queries, hidden))
            self.layers = nn.ModuleList(DecoderLayer() for _ in range(6))
            self.embed = nn.Linear(hidden, DIM)
            self.masks = nn.Sequential(
                nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(), nn.Linear(hidden, hidden)
            )
            grid = side // PATCH
            self.conv1 = nn.Conv2d(3, WIDTH, PATCH, PATCH, bias=False)
            self.class_embedding = nn.Parameter(torch.randn(WIDTH))
            self.positional_embedding = nn.Parameter(0.1 * torch.randn(1 + grid * grid, WIDTH))
            self.ln_pre, self.ln_post = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
            self.transformer = clip_transformer()
            for weight in (w for block in self.transformer.resblocks for w in block.parameters() if w.dim() > 1):
                nn.init.normal_(weight, std=0.02)
            self.proj = nn.Parameter(WIDTH**-0.5 * torch.randn(WIDTH, DIM))

        def clip(self, crops):
            patches = self.conv1(crops).flatten(2).transpose(1, 2)
            first = (self.class_embedding + self.positional_embedding[0]).expand(len(crops), 1, WIDTH)
            x = self.ln_pre(torch.cat([first, patches + self.positional_embedding[1:]], 1))
            for block in self.transformer.resblocks:
                x = block(x, None)
            return functional.normalize(self.ln_post(x[:, 0]) @ self.proj, dim=-1)

        def forward(self, images, text):
            x = functional.max_pool2d(functional.relu(self.stem(images)), 3, 2, 1)
            levels = []
            for part in self.stages:
                x = part(x)
                levels.append(x)
            y = functional.relu(self.top(x))
            for lateral, out, level in reversed(list(zip(self.lateral, self.out, levels))):
                size = level.shape[-2:]
                y = functional.relu(out(lateral(level) + functional.interpolate(y, size=size, mode="nearest")))
            memory = self.project(x).flatten(2).transpose(1, 2)
            positions = self.positions.expand(len(images), -1, -1)
            q = torch.zeros_like(positions)
            for layer in self.layers:
                q = layer(q, positions, memory, memory)
            masks = torch.einsum("bqc,bchw->bqhw", self.masks(q), self.features(y))
            masks = functional.interpolate(masks, size=(SIZE, SIZE), mode="bilinear", align_corners=False)
            own = functional.normalize(self.embed(q), dim=-1) @ text.T
            crops = (images * (masks[0, :, None].sigmoid() > 0.5)).float()
            crops = functional.interpolate(crops, size=(side, side), mode="bilinear", align_corners=False)
            clip_logits = self.clip(crops) @ text.T
            scores = (100 * own).softmax(-1) ** 0.6 * (100 * clip_logits).softmax(-1) ** 0.4
            return torch.einsum("bqk,bqhw->bkhw", scores, masks.sigmoid())

    return ZegFormer().eval()


def export_onnx(weights, folder, method):
    """Exports the model to ONNX once, in a separate process, so that no engine's time or memory includes it."""
    path = pathlib.Path(folder) / f"{method}.onnx"
    if not path.is_file():
        import torch

        example = tuple(torch.from_numpy(x) for x in inputs(1, method))
        torch.onnx.export(
            build_torch(weights, method), example, str(path), input_names=["images", "text"], output_names=["scores"], dynamo=True
        )
    return str(path)


def export_by_zeg(weights, folder, method, zeg):
    """Exports the same weights with `zeg export`."""
    path = pathlib.Path(folder) / f"{method}-zeg.onnx"
    if not path.is_file():
        command = [zeg, "export", weights, "--size", str(SIZE), "--quiet", "-o", str(path)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return str(path)


def torch_engine(weights, folder, threads, batch, compiled, method):
    import torch

    torch.set_num_threads(threads)
    if method == "cat-seg":
        model = peers_cat_seg.build(clip_transformer(), WIDTH, DIM, PATCH)
    else:
        model = build_zegformer() if method == "zegformer" else build_torch(weights, method)
    if compiled:
        model = torch.compile(model)
    images, text = (torch.from_numpy(x) for x in inputs(batch, method))

    def run():
        with torch.inference_mode():
            return model(images, text).numpy()

    return run


def torch_training(weights, threads, batch):
    """Returns a function for one step of the released recipe: prompts and head are trained, the encoder is frozen."""
    import torch
    from torch.nn import functional

    torch.set_num_threads(threads)
    model = build_torch(weights, "zegclip").train()
    trained = []
    for name, parameter in model.named_parameters():
        prompt = name.startswith(("backbone.prompt", "backbone.deep_prompt"))
        parameter.requires_grad = prompt or name.startswith("decode_head.")
        trained += [parameter] * parameter.requires_grad
    optimizer = torch.optim.AdamW(trained, lr=2e-4, weight_decay=0.01)
    images, text = inputs(batch)
    images, text = torch.from_numpy(images), torch.from_numpy(text[:SEEN])
    labels = torch.from_numpy(np.random.default_rng(2).integers(0, SEEN + 1, (batch, SIZE, SIZE)))
    truth = functional.one_hot(labels, SEEN + 1)[..., :SEEN].permute(0, 3, 1, 2).float()

    def run():
        optimizer.zero_grad()
        masks = model.masks(images, text)
        p = torch.sigmoid(masks)
        entropy = functional.binary_cross_entropy_with_logits(masks, truth, reduction="none")
        error = p * (1 - truth) + (1 - p) * truth
        alpha = 0.25 * truth + 0.75 * (1 - truth)
        focal = (alpha * error**2 * entropy).flatten(2).mean(2).sum()
        overlap = 2 * (p * truth).sum((2, 3)) + 1
        dice = (1 - overlap / (p.sum((2, 3)) + truth.sum((2, 3)) + 1)).sum()
        loss = (FOCAL * focal + DICE * dice) / (batch * SEEN)
        loss.backward()
        optimizer.step()
        return np.array([loss.item()])

    return run


def onnxruntime_engine(weights, folder, threads, batch, variant, method, zeg):
    import onnxruntime

    names = ["images", "text"]
    if variant == "zeg":
        path, names = export_by_zeg(weights, folder, method, zeg), ["image", "class_embeddings"]
    else:
        path = export_onnx(weights, folder, method)
    if variant == "int8":
        from onnxruntime.quantization import QuantType, quantize_dynamic

        float_path, path = path, str(pathlib.Path(folder) / f"{method}-int8.onnx")
        if not os.path.isfile(path):
            quantize_dynamic(float_path, path, weight_type=QuantType.QInt8, per_channel=True, op_types_to_quantize=["MatMul", "Gemm"])
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    given = dict(zip(names, inputs(batch)))
    return lambda: session.run(None, given)[0]


def openvino_engine(weights, folder, threads, batch, precision, method):
    import openvino

    core = openvino.Core()
    model = core.read_model(export_onnx(weights, folder, method))
    images, text = inputs(batch)
    if precision == "int8":
        import nncf

        calibration = nncf.Dataset([{"images": images, "text": text}])
        kind = nncf.ModelType.TRANSFORMER
        model = nncf.quantize(model, calibration, model_type=kind, subset_size=1, fast_bias_correction=True)
    settings = {"INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": "bf16" if precision == "bf16" else "f32"}
    compiled = core.compile_model(model, "CPU", settings)
    return lambda: compiled({"images": images, "text": text})[0]


def worker(args):
    """Loads an engine, then runs it once for every line on standard input."""
    if args.worker == "export":
        export_onnx(args.weights, args.folder, args.method)
        return
    if args.training:
        run = torch_training(args.weights, args.threads, args.batch)
    else:
        kind, _, variant = args.worker.partition("-")
        settings = args.weights, args.folder, args.threads, args.batch
        if kind == "onnxruntime":
            run = onnxruntime_engine(*settings, variant, args.method, args.zeg)
        else:
            make = {"torch": torch_engine, "openvino": openvino_engine}[kind]
            run = make(*settings, variant, args.method)
    result = run()
    np.save(pathlib.Path(args.folder) / f"{args.worker}.npy", result)
    print(json.dumps({"ready": True}), flush=True)
    for _ in sys.stdin:
        wall, cpu = time.perf_counter(), time.process_time()
        run()
        times = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu}
        status = pathlib.Path("/proc/self/status").read_text()
        peak = next(line for line in status.splitlines() if line.startswith("VmHWM"))
        print(json.dumps(times | {"peak_mb": int(peak.split()[1]) * 1024 / 1e6}), flush=True)


class Peer:
    """A worker process of one engine."""

    def __init__(self, engine, args, weights, folder):
        command = [sys.executable, __file__, "--worker", engine, "--weights", weights, "--folder", folder]
        command += ["--zeg", args.zeg]
        command += ["--threads", str(args.threads), "--batch", str(args.batch), "--method", args.method]
        command += ["--training"] * args.training
        environment = os.environ | {"OMP_NUM_THREADS": str(args.threads)}
        log = open(pathlib.Path(folder) / f"{engine}.log", "w")
        started = time.perf_counter()
        self.process = subprocess.Popen(
            command, env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True
        )
        self.ready = self.answer() is not None
        self.cold = time.perf_counter() - started

    def answer(self):
        for line in self.process.stdout:
            if line.startswith("{"):
                return json.loads(line)
        return None

    def run(self):
        print(file=self.process.stdin, flush=True)
        return self.answer()


class Zeg:
    """The engine `zeg bench`, one process per round."""

    def __init__(self, args, weights, precision, checkout=None):
        program = args.zeg if checkout is None else str(pathlib.Path(checkout).resolve() / "target/release/zeg")
        self.command = [program, "bench"]
        self.checkout = checkout
        if args.training:
            self.command += [args.config, "--training", "--micro-batch", str(min(args.micro_batch, args.batch))]
        elif args.method in CONFIGS:
            config = CONFIGS[args.method]
            self.command += [config, "--classes", str(CLASSES), "--precision", precision]
        else:
            self.command += [weights, "--classes", str(CLASSES), "--precision", precision]
        self.command += ["--size", str(image_side(args.method)), "--batch", str(args.batch), "--threads", str(args.threads)]
        self.command += ["--runs", "1", "--json", "-"]
        self.ready, self.cold = True, None

    def run(self):
        started = time.perf_counter()
        printed = subprocess.run(self.command, check=True, stdout=subprocess.PIPE, text=True, cwd=self.checkout)
        found = json.loads(printed.stdout)
        cold = time.perf_counter() - started - found["median_s"]
        self.cold = cold if self.cold is None else self.cold  # the first start, as for the other engines
        return {"wall": found["median_s"], "cpu": found["cpu_median_s"], "peak_mb": found["peak_mb"]}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--zeg", default="target/release/zeg", help="path of zeg")
    parser.add_argument("--before", metavar="FOLDER", help="another checkout with target/release/zeg, measured in turn with this one")
    parser.add_argument("--method", choices=["zegclip", "clip-rc", *CONFIGS], default="zegclip", help="model of the forward passes")
    parser.add_argument("--engines", default=",".join(ENGINES), help="engines to compare, separated by commas")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--training", action="store_true", help="time training steps instead of forward passes; only PyTorch")
    parser.add_argument("--config", default="configs/voc12/zegclip-inductive.toml", help="experiment that zeg trains")
    parser.add_argument("--micro-batch", type=int, default=1, help="images that zeg processes at once in training")
    parser.add_argument("--json", help="file for all measured times")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    parser.add_argument("--weights", help=argparse.SUPPRESS)
    parser.add_argument("--folder", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.worker:
        return worker(args)

    with tempfile.TemporaryDirectory() as folder:
        weights = str(pathlib.Path(folder) / "weights.safetensors")
        write_weights(weights, args.method)
        if not args.training and any(engine.startswith(("onnx", "openvino")) for engine in args.engines.split(",")):
            command = [sys.executable, __file__, "--worker", "export", "--weights", weights, "--folder", folder]
            subprocess.run(command + ["--method", args.method], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        peers = {"zeg": Zeg(args, weights, "f32")}
        if not args.training:
            peers["zeg-bf16"] = Zeg(args, weights, "bf16")
            peers["zeg-int8"] = Zeg(args, weights, "int8")
        if args.before:
            for name, precision in [("zeg", "f32")] if args.training else [("zeg", "f32"), ("zeg-int8", "int8")]:
                peers[f"{name}-before"] = Zeg(args, weights, precision, args.before)
        engines = [engine for engine in args.engines.split(",") if engine]
        for engine in [engine for engine in engines if engine == "torch"] if args.training else engines:
            peer = Peer(engine, args, weights, folder)
            if peer.ready:
                peers[engine] = peer
            else:
                log = (pathlib.Path(folder) / f"{engine}.log").read_text().strip().splitlines()
                print(f"{engine}: left out: {log[-1] if log else 'no answer'}", file=sys.stderr)
        runs = {name: [] for name in peers}
        for _ in range(args.rounds):
            for name, peer in peers.items():
                runs[name].append(peer.run())
        report(args, peers, runs, folder)
    return None


def report(args, peers, runs, folder):
    reference = np.load(pathlib.Path(folder) / "torch.npy") if "torch" in peers else None
    what = "training step" if args.training else f"{args.method}, forward"
    print(f"{what}, batch {args.batch}, {args.threads} threads, medians of {args.rounds} rounds")
    print(f"{'engine':18} {'wall s':>8} {'of torch':>8} {'cpu s':>8} {'of torch':>8} {'peak MB':>8} {'cold s':>7} {'differs':>8}")
    results = {}
    for name, peer in peers.items():
        result = {key: statistics.median(run[key] for run in runs[name]) for key in ("wall", "cpu", "peak_mb")}
        stored = pathlib.Path(folder) / f"{name}.npy"
        if reference is not None and stored.is_file():
            result["difference"] = float(np.abs(np.load(stored) - reference).max())
        results[name] = result | {"cold": peer.cold, "runs": runs[name]}
    base = results.get("torch")
    for name, result in results.items():
        def ratio(key):
            return f"{result[key] / base[key]:8.2f}" if base else " " * 8

        difference = f"{result['difference']:8.1e}" if "difference" in result else ""
        print(
            f"{name:18} {result['wall']:8.3f} {ratio('wall')} {result['cpu']:8.3f} {ratio('cpu')} "
            f"{result['peak_mb']:8.0f} {result['cold']:7.1f} {difference}"
        )
    if args.json:
        versions = {name: module.__version__ for name, module in sys.modules.items() if name == "numpy"}
        pathlib.Path(args.json).write_text(json.dumps({"arguments": vars(args), "versions": versions, "results": results}, indent=1))


if __name__ == "__main__":
    main()
