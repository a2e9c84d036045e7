"""Writes ZegCLIP checkpoints as mmcv's runner saved them, in the two container formats of torch.save that zeg reads.

Packages   torch 2.15.0, safetensors 0.8.0, numpy 2.4.6
Used by    clip_formats.py; it is not a program

Names and the order of dimensions are those of the released models; the sizes are given by `Sizes`.
"""

from collections import OrderedDict

import numpy as np
import safetensors.torch
import torch
from torch import nn
from torch.nn import functional


def zegclip_head(sizes, generator):
    """Returns the tensors of a ZegCLIP beyond those of CLIP: prompts of the encoder, and the decode head."""
    shapes = {
        "backbone.prompt_embeddings": (1, sizes.prompts, sizes.width),
        "backbone.deep_prompt_embeddings": (sizes.layers - 1, sizes.prompts, sizes.width),
        "backbone.prompt_proj": (sizes.width, sizes.width),
        "backbone.prompt_norm": (sizes.width,),
        "decode_head.q_proj": (sizes.embed, 2 * sizes.embed),
    }
    dim = sizes.embed
    for layer in range(3):
        stem = f"decode_head.decoder_1.layers.{layer}"
        shapes |= {f"{stem}.multihead_attn.{part}": (dim, dim) for part in ("q", "k", "v", "proj")}
        shapes[f"{stem}.linear1"] = (sizes.feed_forward, dim)
        shapes[f"{stem}.linear2"] = (dim, sizes.feed_forward)
        shapes[f"{stem}.self_attn.in_proj_"] = (3 * dim, dim)
        shapes[f"{stem}.self_attn.out_proj"] = (dim, dim)
        shapes |= {f"{stem}.norm{number}": (dim,) for number in (1, 2, 3)}
    out = OrderedDict()
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("embeddings"):
            out[name] = 0.5 * noise
            continue
        dot = "" if name.endswith("_") else "."
        out[f"{name}{dot}weight"] = 1 + 0.1 * noise if len(shape) == 1 else noise / shape[1] ** 0.5
        out[f"{name}{dot}bias"] = 0.1 * torch.randn(shape[0], generator=generator)
    return OrderedDict((name, value.half().float()) for name, value in out.items())


def resized_positions(table, side):
    """Resizes `[1 + s * s, width]` to `[1 + side * side, width]` bilinearly, rounded to float16."""
    old = int((table.shape[0] - 1) ** 0.5)
    grid = table[1:].t().reshape(1, -1, old, old)
    grid = functional.interpolate(grid, size=(side, side), mode="bilinear", align_corners=False)
    return torch.cat([table[:1], grid.flatten(2)[0].t()]).half().float()


def mmcv_checkpoint(state, dtype, trained):
    """Returns the content that mmcv 1.4's runner saves: information on the run, the weights, and the optimiser's state."""
    weights = OrderedDict((name, value.to(dtype)) for name, value in state.items())
    weights["decode_head.loss_decode.criterion.empty_weight"] = torch.tensor([1.0] * 15 + [0.1])
    weights._metadata = OrderedDict([("", {"version": 1}), ("backbone", {"version": 1})])  # as state_dict() sets it
    moments = {}
    for number, name in enumerate(trained):
        value = torch.full(state[name].shape[-1:], 2.0**-number)
        moments[number] = {"step": 20000, "exp_avg": value, "exp_avg_sq": value * value}
    meta = {
        "env_info": "sys.platform: linux\nPython: 3.7.10\nPyTorch: 1.10.1\nMMCV: 1.4.4\nMMSegmentation: 0.24.0",
        "config": "dataset_type = 'ZeroPascalVOCDataset20'\nimg_size = 512\n",
        "seed": None,
        "exp_name": "vpt_seg_zero_vit-b_512x512_20k_12_10.py",
        "mmcv_version": "1.4.4",
        "mmseg_version": "0.24.0+9ba4bb5",
        "time": "Fri Mar 24 12:00:00 2023",
        "epoch": 4,
        "iter": 20000,
        "CLASSES": ("aeroplane", "bicycle", "bird"),
        "PALETTE": [[128, 0, 0], [0, 128, 0], [128, 128, 0]],
        "hook_msgs": {"best_score": np.float64(0.843), "last_ckpt": "./work_dirs/zegclip/iter_20000.pth"},
    }
    group = {
        "lr": 0.0002,
        "betas": (0.9, 0.999),
        "eps": 1e-08,
        "weight_decay": 0.01,
        "amsgrad": False,
        "params": list(moments),
    }
    return {"meta": meta, "state_dict": weights, "optimizer": {"state": moments, "param_groups": [group]}}


def write_mmcv(folder, weights, sizes, dtype, generator):
    folder.mkdir(parents=True, exist_ok=True)
    head = zegclip_head(sizes, generator)
    state = OrderedDict()
    for name, value in weights.items():
        if name == "visual.positional_embedding":
            value = resized_positions(value, sizes.zegclip_resolution // sizes.patch)
        if name.startswith("visual."):
            state["backbone." + name.removeprefix("visual.")] = value
        elif name != "logit_scale":
            state["text_encoder." + name] = value
    state |= head
    parts = {
        "zegclip.pth": ("backbone.", "text_encoder.", "decode_head."),
        "zegclip_legacy.pth": ("backbone.",),
    }
    for name, prefixes in parts.items():
        chosen = OrderedDict((key, value) for key, value in state.items() if key.startswith(prefixes))
        checkpoint = mmcv_checkpoint(chosen, dtype, [key for key in chosen if key in head][:4])
        torch.save(checkpoint, folder / name, _use_new_zipfile_serialization=name == "zegclip.pth")
        back = torch.load(folder / name, weights_only=False)["state_dict"]
        for key, value in chosen.items():
            assert torch.equal(back[key].float(), value), f"{name}: {key}"
    head["backbone.positional_embedding"] = state["backbone.positional_embedding"]
    stored = {key: value.half() for key, value in head.items() if ".layers.1." not in key and ".layers.2." not in key}
    safetensors.torch.save_file(stored, folder / "head.safetensors")


def write_dtypes(folder):
    """Writes tensors of every dtype that torch stores, and views whose elements a reader has to gather."""
    ramp = torch.arange(-6, 18, dtype=torch.float32).reshape(4, 6) / 4
    tensors = OrderedDict()
    for dtype in ("float16", "bfloat16", "float32", "float64", "int8", "uint8", "int16", "int32", "int64"):
        tensors[dtype] = (ramp.abs() if dtype == "uint8" else ramp).to(getattr(torch, dtype))
    tensors["bool"] = ramp > 0
    tensors["scalar"] = torch.tensor(2.5)
    tensors["empty"] = torch.zeros(0, 6)
    tensors["transposed"] = ramp.t()  # strides [1, 6] of a shared storage
    tensors["offset"] = ramp[1:3]  # the same storage, from its 6th element on
    tensors["columns"] = ramp[:, 1::2]  # strides [6, 2]
    tensors["expanded"] = torch.tensor([[1.5], [-2.0]]).expand(2, 3)  # strides [1, 0]
    tensors["parameter"] = nn.Parameter(ramp[0].clone())
    torch.save({"state_dict": tensors}, folder / "dtypes.pth")
    torch.save({"state_dict": tensors}, folder / "dtypes_legacy.pth", _use_new_zipfile_serialization=False)
    plain = {key: value.detach().float().contiguous().clone() for key, value in tensors.items()}
    safetensors.torch.save_file(plain, folder / "dtypes.safetensors")
