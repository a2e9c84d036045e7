"""Defines a CLIP with random weights and OpenAI's names, which the other scripts write to files.

Packages   torch 2.15.0, numpy 2.4.6
Used by    clip_formats.py, training_free.py; it is not a program
"""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn
from torch.nn import functional

HEAD_WIDTH = 64


@dataclass
class Sizes:
    width: int
    layers: int
    patch: int
    resolution: int
    embed: int
    text_width: int
    text_layers: int
    context: int
    vocab: int
    zegclip_resolution: int
    prompts: int
    feed_forward: int

    @property
    def grid(self):
        return self.resolution // self.patch


SIZES = {
    "small": Sizes(64, 2, 8, 32, 32, 64, 1, 16, 96, 48, 3, 16),
    "full": Sizes(768, 12, 16, 224, 512, 512, 12, 77, 49408, 512, 10, 2048),
}


class Attention(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.empty(3 * width))
        self.out_proj = nn.Linear(width, width)

    def forward(self, x, mask):
        batch, tokens, width = x.shape
        packed = functional.linear(x, self.in_proj_weight, self.in_proj_bias)
        packed = packed.reshape(batch, tokens, 3, width // HEAD_WIDTH, HEAD_WIDTH).permute(2, 0, 3, 1, 4)
        query, key, value = packed.unbind(0)  # [batch, heads, tokens, 64] each
        scores = query @ key.transpose(-1, -2) * HEAD_WIDTH**-0.5 + mask
        joined = (scores.softmax(-1) @ value).transpose(1, 2).reshape(batch, tokens, width)
        return self.out_proj(joined)


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.c_fc = nn.Linear(width, 4 * width)
        self.c_proj = nn.Linear(4 * width, width)

    def forward(self, x):
        x = self.c_fc(x)
        return self.c_proj(x * torch.sigmoid(1.702 * x))


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.attn = Attention(width)
        self.ln_1 = nn.LayerNorm(width)
        self.mlp = Mlp(width)
        self.ln_2 = nn.LayerNorm(width)

    def forward(self, x, mask):
        x = x + self.attn(self.ln_1(x), mask)
        return x + self.mlp(self.ln_2(x))


class Transformer(nn.Module):
    def __init__(self, width, layers):
        super().__init__()
        self.resblocks = nn.ModuleList(Block(width) for _ in range(layers))

    def forward(self, x, mask):
        for block in self.resblocks:
            x = block(x, mask)
        return x


class Visual(nn.Module):
    def __init__(self, sizes):
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(sizes.width))
        self.positional_embedding = nn.Parameter(torch.empty(1 + sizes.grid**2, sizes.width))
        self.proj = nn.Parameter(torch.empty(sizes.width, sizes.embed))
        self.conv1 = nn.Conv2d(3, sizes.width, sizes.patch, sizes.patch, bias=False)
        self.ln_pre = nn.LayerNorm(sizes.width)
        self.transformer = Transformer(sizes.width, sizes.layers)
        self.ln_post = nn.LayerNorm(sizes.width)

    def forward(self, images):
        patches = self.conv1(images).flatten(2).transpose(1, 2)  # [batch, patches, width]
        first = self.class_embedding.expand(patches.shape[0], 1, -1)
        x = self.ln_pre(torch.cat([first, patches], 1) + self.positional_embedding)
        x = self.transformer(x, torch.zeros(()))
        return self.ln_post(x[:, 0]) @ self.proj


class Clip(nn.Module):
    """A CLIP whose state dict has OpenAI's names."""

    def __init__(self, sizes):
        super().__init__()
        self.visual = Visual(sizes)
        self.transformer = Transformer(sizes.text_width, sizes.text_layers)
        self.token_embedding = nn.Embedding(sizes.vocab, sizes.text_width)
        self.positional_embedding = nn.Parameter(torch.empty(sizes.context, sizes.text_width))
        self.ln_final = nn.LayerNorm(sizes.text_width)
        self.text_projection = nn.Parameter(torch.empty(sizes.text_width, sizes.embed))
        self.logit_scale = nn.Parameter(torch.empty(()))
        self.register_buffer("input_resolution", torch.tensor(sizes.resolution))
        self.register_buffer("context_length", torch.tensor(sizes.context))
        self.register_buffer("vocab_size", torch.tensor(sizes.vocab))

    def encode_image(self, images):
        return self.visual(images)

    def encode_text(self, tokens):
        x = self.token_embedding(tokens) + self.positional_embedding
        causal = torch.full((tokens.shape[1], tokens.shape[1]), float("-inf")).triu(1)
        x = self.ln_final(self.transformer(x, causal))
        return x[torch.arange(x.shape[0]), tokens.argmax(-1)] @ self.text_projection

    def forward(self, images, tokens):
        image = functional.normalize(self.encode_image(images), dim=-1)
        text = functional.normalize(self.encode_text(tokens), dim=-1)
        logits = self.logit_scale.exp() * image @ text.t()
        return logits, logits.t()


def randomise(module, generator):
    """Fills every parameter with numbers that float16 represents exactly."""
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if name == "logit_scale":
            noise = torch.tensor(4.6052)  # e^4.6052 = 100
        elif ".ln_" in f".{name}" or ".norm" in f".{name}":
            noise = 0.1 * noise + (1 if name.endswith("weight") else 0)
        elif parameter.dim() < 2:
            noise = 0.1 * noise
        elif "embed" in name or "prompt_embeddings" in name:
            noise = 0.5 * noise
        else:  # matrices: preserve the scale of their input; `proj` and `text_projection` are [in, out]
            inward = 0 if name.endswith(("visual.proj", "text_projection")) else slice(1, None)
            noise = noise / np.prod(parameter.shape[inward]) ** 0.5
        parameter.data = noise.half().float()


def is_half(name):
    """Returns whether OpenAI's archives store a tensor as float16: convolution, linear layers, attention, projections."""
    norms = (".ln_", "ln_final", "embedding")
    return not any(part in name for part in norms) and name != "logit_scale"


def inputs(sizes, generator):
    """Returns normalised images [2, 3, side, side] and token ids [3, context]: start, words, end, zeros."""
    images = torch.randn(2, 3, sizes.resolution, sizes.resolution, generator=generator)
    tokens = torch.zeros(3, sizes.context, dtype=torch.int64)
    for row, words in enumerate((1, 5, sizes.context - 2)):
        tokens[row, 0] = sizes.vocab - 2
        tokens[row, 1 : 1 + words] = torch.randint(1, sizes.vocab - 2, (words,), generator=generator)
        tokens[row, 1 + words] = sizes.vocab - 1
    return images, tokens
