"""Writes one random CLIP in every format in which CLIP and ZegCLIP weights are published, with its image and text features.

Packages   Python 3.11, torch 2.15.0, transformers 5.23.0, open_clip_torch 3.3.0, safetensors 0.8.0, numpy 2.4.6
Golden     python reference/clip_formats.py --size small crates/zeg-weights/tests/golden
Full size  python reference/clip_formats.py --size full --sharded FOLDER   (ViT-B/16, about 5 GB)

All files hold the same random numbers, from a seed and rounded to float16, so that float16 stores them exactly.

    openai/vit.pt                    TorchScript archive with OpenAI's names; matrices float16, the rest float32
    huggingface/                     transformers' CLIPModel: model.safetensors, config.json, preprocessor_config.json
    open_clip/                       open_clip's CLIP as safetensors with open_clip_config.json; QuickGELU
    open_clip_gelu_custom_text/      the same numbers as torch.save's .bin; exact GELU, names with `text.`
    mmcv/zegclip.pth                 {meta, state_dict, optimizer} as mmcv writes it; zip form
    mmcv/zegclip_legacy.pth          the stream form of torch before 1.6; only `backbone.*`
    mmcv/head.safetensors            some of the tensors beyond CLIP: prompts, one layer, the resized position embeddings
    dtypes.pth, dtypes_legacy.pth    tensors of every dtype, views, shared storages
    dtypes.safetensors               their values as float32
    expected.safetensors             images, token ids, and the features of both, computed by the packages

Features are computed in float32, three times: by the archive, by transformers and by open_clip. The script fails
unless they agree to 1e-5 of the features' root mean square.

A second run writes the same bytes, except for the legacy forms, which name storages by their memory address.

The text feature is taken at the end token. OpenAI and open_clip take the position of the highest id. transformers takes
the first position whose id is `eos_token_id`; with the value 2, which is in older config.json files, it also takes the
highest id. Here the end token is the highest id of the vocabulary, and `eos_token_id` names it.
"""

import argparse
import json
import warnings
from collections import OrderedDict
from pathlib import Path

import numpy as np
import open_clip
import safetensors.torch
import torch
import transformers
from mmcv_formats import write_dtypes, write_mmcv
from random_clip import HEAD_WIDTH, SIZES, Clip, inputs, is_half, randomise
from torch.nn import functional

MEAN = [0.48145466, 0.4578275, 0.40821073]  # statistics of CLIP's training images
STD = [0.26862954, 0.26130258, 0.27577711]


def write_openai(path, clip, images, tokens):
    path.parent.mkdir(parents=True, exist_ok=True)
    inputs = {"forward": (images, tokens), "encode_image": images, "encode_text": tokens}
    traced = torch.jit.trace_module(clip, inputs)
    for name, parameter in traced.named_parameters():
        if is_half(name):
            parameter.data = parameter.data.half()
    traced.save(path)
    loaded = torch.jit.load(path).float()
    return loaded.encode_image(images), loaded.encode_text(tokens)


def to_hugging_face(weights):
    """Converts OpenAI's names and layouts to those of transformers."""
    out = {"logit_scale": weights["logit_scale"]}
    plain = {
        "visual.class_embedding": "vision_model.embeddings.class_embedding",
        "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
        "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
        "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
        "positional_embedding": "text_model.embeddings.position_embedding.weight",
    }
    for end in ("weight", "bias"):
        plain[f"visual.ln_pre.{end}"] = f"vision_model.pre_layrnorm.{end}"
        plain[f"visual.ln_post.{end}"] = f"vision_model.post_layernorm.{end}"
        plain[f"ln_final.{end}"] = f"text_model.final_layer_norm.{end}"
    inner = {
        "attn.out_proj": "self_attn.out_proj",
        "ln_1": "layer_norm1",
        "ln_2": "layer_norm2",
        "mlp.c_fc": "mlp.fc1",
        "mlp.c_proj": "mlp.fc2",
    }
    for name, value in weights.items():
        if name in plain:
            out[plain[name]] = value
        elif name in ("visual.proj", "text_projection"):
            out[name.replace("visual.proj", "visual_projection") + ".weight"] = value.t().contiguous()
        elif "resblocks" in name:
            tower = "vision_model" if name.startswith("visual.") else "text_model"
            layer, rest = name.split("resblocks.")[1].split(".", 1)
            if "in_proj" in rest:
                for part, rows in zip("qkv", value.chunk(3), strict=True):
                    end = rest.rsplit("_", 1)[1]
                    out[f"{tower}.encoder.layers.{layer}.self_attn.{part}_proj.{end}"] = rows.clone()
            else:
                stem, end = rest.rsplit(".", 1)
                out[f"{tower}.encoder.layers.{layer}.{inner[stem]}.{end}"] = value
    return out


def write_hugging_face(folder, weights, sizes, images, tokens, sharded):
    both = {"hidden_act": "quick_gelu", "layer_norm_eps": 1e-5, "projection_dim": sizes.embed}
    config = transformers.CLIPConfig(
        projection_dim=sizes.embed,
        vision_config={
            "hidden_size": sizes.width,
            "intermediate_size": 4 * sizes.width,
            "num_hidden_layers": sizes.layers,
            "num_attention_heads": sizes.width // HEAD_WIDTH,
            "image_size": sizes.resolution,
            "patch_size": sizes.patch,
            **both,
        },
        text_config={
            "vocab_size": sizes.vocab,
            "hidden_size": sizes.text_width,
            "intermediate_size": 4 * sizes.text_width,
            "num_hidden_layers": sizes.text_layers,
            "num_attention_heads": sizes.text_width // HEAD_WIDTH,
            "max_position_embeddings": sizes.context,
            "bos_token_id": sizes.vocab - 2,
            "eos_token_id": sizes.vocab - 1,
            "pad_token_id": sizes.vocab - 1,
            **both,
        },
    )
    model = transformers.CLIPModel(config)
    model.load_state_dict(to_hugging_face(weights), strict=True)
    model.half().save_pretrained(folder)
    edges = {"height": sizes.resolution, "width": sizes.resolution}
    transformers.CLIPImageProcessor(
        size={"shortest_edge": sizes.resolution}, crop_size=edges, image_mean=MEAN, image_std=STD
    ).save_pretrained(folder)
    if sharded:
        model.save_pretrained(folder.with_name("huggingface_sharded"), max_shard_size="100MB")
    # The published files also contain the position ids, as integers.
    path = folder / "model.safetensors"
    tensors = safetensors.torch.load_file(path)
    tensors["text_model.embeddings.position_ids"] = torch.arange(sizes.context)[None]
    tensors["vision_model.embeddings.position_ids"] = torch.arange(1 + sizes.grid**2)[None]
    safetensors.torch.save_file(tensors, path, {"format": "pt"})
    loaded = transformers.CLIPModel.from_pretrained(folder, dtype=torch.float32).eval()
    image = loaded.visual_projection(loaded.vision_model(images).pooler_output)
    text = loaded.text_projection(loaded.text_model(tokens).pooler_output)
    return image, text


def write_open_clip(folder, weights, sizes, images, tokens, gelu):
    """Writes open_clip's format; with `gelu`, with the exact GELU, a custom text tower (`text.*`) and torch.save's format."""
    folder.mkdir(parents=True, exist_ok=True)
    model_cfg = {
        "embed_dim": sizes.embed,
        "vision_cfg": {
            "image_size": sizes.resolution,
            "layers": sizes.layers,
            "width": sizes.width,
            "patch_size": sizes.patch,
        },
        "text_cfg": {
            "context_length": sizes.context,
            "vocab_size": sizes.vocab,
            "width": sizes.text_width,
            "heads": sizes.text_width // HEAD_WIDTH,
            "layers": sizes.text_layers,
        },
    }
    text_names = ("transformer.", "token_embedding.", "positional_embedding", "ln_final.", "text_projection")
    if gelu:
        model_cfg["custom_text"] = True
        weights = {("text." + k if k.startswith(text_names) else k): v for k, v in weights.items()}
        kind, path = open_clip.CustomTextCLIP, folder / "open_clip_pytorch_model.bin"
    else:
        model_cfg["quick_gelu"] = True
        kind, path = open_clip.CLIP, folder / "open_clip_model.safetensors"
    settings = {key: value for key, value in model_cfg.items() if key != "custom_text"}
    model = kind(**settings)
    model.load_state_dict(weights, strict=True)
    stored = {name: value.half() for name, value in model.state_dict().items()}
    if gelu:
        torch.save(OrderedDict(stored), path)
        back = torch.load(path)
    else:
        safetensors.torch.save_file(stored, path)
        back = safetensors.torch.load_file(path)
    preprocess = {"mean": MEAN, "std": STD, "interpolation": "bicubic", "resize_mode": "shortest"}
    config = {"model_cfg": model_cfg, "preprocess_cfg": preprocess}
    (folder / "open_clip_config.json").write_text(json.dumps(config, indent=2) + "\n")
    model = kind(**settings).eval()
    model.load_state_dict({name: value.float() for name, value in back.items()}, strict=True)
    return model.encode_image(images), model.encode_text(tokens)


def relative_rms(one, other):
    """Returns the root mean square of the difference, relative to that of the values."""
    return ((one - other).square().mean() / other.square().mean()).sqrt().item()


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n", 1)[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--size", choices=SIZES, default="small")
    parser.add_argument("--sharded", action="store_true", help="also write the Hugging Face format in shards of 100 MB")
    arguments = parser.parse_args()
    warnings.filterwarnings("ignore", category=FutureWarning)  # torch.jit is no longer developed
    print(f"torch {torch.__version__}, transformers {transformers.__version__}, open_clip {open_clip.__version__}")
    print(f"safetensors {safetensors.__version__}, numpy {np.__version__}")

    sizes, folder = SIZES[arguments.size], arguments.folder
    folder.mkdir(parents=True, exist_ok=True)
    generator = torch.Generator().manual_seed(20230324)
    clip = Clip(sizes).eval().requires_grad_(False)
    randomise(clip, generator)
    weights = OrderedDict((name, value.data) for name, value in clip.named_parameters())
    images, tokens = inputs(sizes, generator)

    with torch.no_grad():
        features = {
            "openai": write_openai(folder / "openai/vit.pt", clip, images, tokens),
            "huggingface": write_hugging_face(
                folder / "huggingface", weights, sizes, images, tokens, arguments.sharded
            ),
            "open_clip": write_open_clip(folder / "open_clip", weights, sizes, images, tokens, gelu=False),
        }
        gelu = write_open_clip(folder / "open_clip_gelu_custom_text", weights, sizes, images, tokens, gelu=True)
        # The published files are float32; float16 keeps the golden files small.
        dtype = torch.float16 if arguments.size == "small" else torch.float32
        write_mmcv(folder / "mmcv", weights, sizes, dtype, generator)
    write_dtypes(folder)

    image, text = features["open_clip"]
    expected = {"images": images, "tokens": tokens}
    for package, (other_image, other_text) in features.items():
        distance = max(relative_rms(other_image, image), relative_rms(other_text, text))
        print(f"{package:12} differs from open_clip by {distance:.1e}")
        assert distance < 1e-5, package
    print(f"{'gelu':12} differs from open_clip by {relative_rms(gelu[0], image):.1e} and {relative_rms(gelu[1], text):.1e}")
    for prefix, pair in {"": (image, text), "gelu.": gelu}.items():
        for kind, value in zip(("image", "text"), pair, strict=True):
            expected[f"{prefix}{kind}_features"] = value
            expected[f"{prefix}{kind}_features_normalised"] = functional.normalize(value, dim=-1)
    command = f"python reference/clip_formats.py --size {arguments.size}"
    safetensors.torch.save_file(expected, folder / "expected.safetensors", {"made_by": command})
    files = [path for path in sorted(folder.rglob("*")) if path.is_file() and "hostile" not in path.parts]
    for path in files:
        print(f"{path.stat().st_size:>12,}  {path.relative_to(folder)}")
    print(f"{sum(path.stat().st_size for path in files):>12,}  in all")


if __name__ == "__main__":
    main()
