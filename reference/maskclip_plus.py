"""Reimplements a small MaskCLIP+ in PyTorch and writes golden numbers.

Packages   Python 3.11, torch 2.15.0, safetensors 0.8.0
Golden     python reference/maskclip_plus.py crates/zeg-model/tests/golden/maskclip_plus.safetensors

The student is a dilated ResNet-V1c with DeepLabV3+ and a learned background, the guide is a residual CLIP tower; weights have
the names of the published checkpoints. Everything follows the paper (Zhou, Loy, Dai, ECCV 2022) and a description of the
released code; nothing is taken from the code itself.

  student    stem of three 3x3 convolutions (the first at stride 2), 3x3 max pooling at stride 2; strides 1, 2, 1, 1; the 3x3
             of later blocks of stages 3 and 4 have the dilations 2 and 4, that of the first block half of it
  decoder    mean of the map, 1x1, and separable 3x3 at the dilations 12, 24, 36, side by side; 3x3; enlarged and joined with
             1x1 of the first stage; two separable 3x3. Every convolution is followed by batch normalisation and ReLU
  guide      stem of three convolutions, means of 2x2; strides are means of 2x2 after the second convolution of a block and
             before its shortcut; then the value and output projections of the attention pooling, and its key projection
  scores     cosines; prompt denoising and key smoothing as in `refined`
Golden numbers are computed in float64 and stored as float32.
"""

import argparse

import safetensors.torch
import torch
from torch.nn import functional

DIM, CLASSES = 8, 4
STUDENT = {"blocks": (1, 1, 2, 2), "stem": 6, "inner": 2, "output": 8}
GUIDE = {"blocks": (1, 1, 1, 1), "stem": 4, "inner": 2, "output": 8}
LOW_LEVEL = 5


class Weights(dict):
    """Random weights that are drawn when they are first asked for, exact in float32."""

    def __init__(self):
        super().__init__()
        self.random = torch.Generator().manual_seed(20)

    def draw(self, name, shape, scale, offset=0.0):
        if name not in self:
            value = torch.randn(shape, generator=self.random) * scale + offset
            self[name] = value.float().double()
        return self[name]

    def kernel(self, name, output, inputs, side):
        return self.draw(f"{name}.weight", (output, inputs, side, side), (2.0 / (inputs * side * side)) ** 0.5)

    def norm(self, name, channels, scale):
        if f"{name}.running_var" not in self:
            variance = torch.rand(channels, generator=self.random) + 0.5
            self[f"{name}.running_var"] = variance.float().double()
        return (
            self.draw(f"{name}.running_mean", (channels,), 0.1),
            self[f"{name}.running_var"],
            self.draw(f"{name}.weight", (channels,), 0.1 * scale, scale),
            self.draw(f"{name}.bias", (channels,), 0.1),
        )


class Network:
    """Layers by name; in training they use the statistics of the batch and record new running means."""

    def __init__(self, weights, prefix, training):
        self.weights, self.prefix, self.training = weights, prefix, training
        self.running = {}

    def normed(self, conv, norm, x, output, side, stride=1, dilation=1, groups=1, scale=1.0):
        kernel = self.weights.kernel(self.prefix + conv, output, x.shape[1] // groups, side)
        x = functional.conv2d(x, kernel, None, stride, side // 2 * dilation, dilation, groups)
        mean, variance, weight, bias = self.weights.norm(self.prefix + norm, output, scale)
        if self.training:
            values = x.transpose(0, 1).flatten(1)
            new_mean, sample = values.mean(1), values.var(1, unbiased=True)
            self.running[f"{self.prefix}{norm}.running_mean"] = 0.9 * mean + 0.1 * new_mean
            self.running[f"{self.prefix}{norm}.running_var"] = 0.9 * variance + 0.1 * sample
            mean, variance = new_mean, values.var(1, unbiased=False)
        column = lambda v: v[None, :, None, None]
        return (x - column(mean)) / column(variance + 1e-5).sqrt() * column(weight) + column(bias)

    def module(self, name, x, output, side, **more):
        return self.normed(f"{name}.conv", f"{name}.bn", x, output, side, **more).relu()

    def separable(self, name, x, output, dilation):
        channels = x.shape[1]
        x = self.module(f"{name}.depthwise_conv", x, channels, 3, dilation=dilation, groups=channels)
        return self.module(f"{name}.pointwise_conv", x, output, 1)


def student(weights, images, training):
    """Returns features [batch, dim, h/4, w/4] and new running means."""
    net, sizes = Network(weights, "backbone.", training), STUDENT
    x = images
    for index, channels in enumerate((sizes["stem"] // 2, sizes["stem"] // 2, sizes["stem"])):
        stride = 2 if index == 0 else 1
        x = net.normed(f"stem.{3 * index}", f"stem.{3 * index + 1}", x, channels, 3, stride=stride).relu()
    x = functional.max_pool2d(x, 3, 2, 1)
    low = None
    for stage, (stride, dilation) in enumerate(((1, 1), (2, 1), (1, 2), (1, 4))):
        inner, output = sizes["inner"] << stage, sizes["output"] << stage
        for block in range(sizes["blocks"][stage]):
            name = f"layer{stage + 1}.{block}"
            stride = stride if block == 0 else 1
            spread = max(dilation // 2, 1) if block == 0 else dilation
            y = net.normed(f"{name}.conv1", f"{name}.bn1", x, inner, 1).relu()
            y = net.normed(f"{name}.conv2", f"{name}.bn2", y, inner, 3, stride=stride, dilation=spread).relu()
            y = net.normed(f"{name}.conv3", f"{name}.bn3", y, output, 1, scale=0.3)
            if stride != 1 or x.shape[1] != output:
                x = net.normed(f"{name}.downsample.0", f"{name}.downsample.1", x, output, 1, stride=stride)
            x = (x + y).relu()
        low = x if low is None else low
    head = Network(weights, "decode_head.decode_module.", training)
    resized = lambda x, size: functional.interpolate(x, size, mode="bilinear", align_corners=False)
    pooled = head.module("image_pool.1", x.mean((2, 3), keepdim=True), DIM, 1)
    branches = [resized(pooled, x.shape[2:]), head.module("aspp_modules.0", x, DIM, 1)]
    branches += [head.separable(f"aspp_modules.{i + 1}", x, DIM, d) for i, d in enumerate((12, 24, 36))]
    x = head.module("bottleneck", torch.cat(branches, 1), DIM, 3)
    low = head.module("c1_bottleneck", low, LOW_LEVEL, 1)
    x = torch.cat([resized(x, low.shape[2:]), low], 1)
    for index in range(2):
        x = head.separable(f"sep_bottleneck.{index}", x, DIM, 1)
    return x, net.running | head.running


def guide(weights, images):
    """Returns features [batch, dim, h/32, w/32] and keys [batch, places, width]."""
    net, sizes = Network(weights, "decode_head.clip.", False), GUIDE
    x = images
    for index, channels in enumerate((sizes["stem"] // 2, sizes["stem"] // 2, sizes["stem"])):
        stride = 2 if index == 0 else 1
        x = net.normed(f"stem.{3 * index}", f"stem.{3 * index + 1}", x, channels, 3, stride=stride).relu()
    x = functional.avg_pool2d(x, 2)
    for stage in range(4):
        inner, output = sizes["inner"] << stage, sizes["output"] << stage
        for block in range(sizes["blocks"][stage]):
            name = f"layer{stage + 1}.{block}"
            halves = stage > 0 and block == 0
            shrunk = (lambda x: functional.avg_pool2d(x, 2)) if halves else (lambda x: x)
            y = net.normed(f"{name}.conv1", f"{name}.bn1", x, inner, 1).relu()
            y = net.normed(f"{name}.conv2", f"{name}.bn2", y, inner, 3).relu()
            y = net.normed(f"{name}.conv3", f"{name}.bn3", shrunk(y), output, 1, scale=0.5)
            if halves or x.shape[1] != output:
                x = net.normed(f"{name}.downsample.1", f"{name}.downsample.2", shrunk(x), output, 1)
            x = (x + y).relu()
    width = sizes["output"] << 3

    def projected(name, x, output):
        kernel = weights.draw(f"decode_head.{name}_proj.weight", (output, x.shape[1], 1, 1), width**-0.5)
        bias = weights.draw(f"decode_head.{name}_proj.bias", (output,), 0.1)
        return functional.conv2d(x, kernel, bias)

    projected("q", x, width)
    keys = projected("k", x, width).flatten(2).transpose(1, 2)
    return projected("c", projected("v", x, width), DIM), keys


def refined(cosines, keys, denoising, smoothing):
    """Refines cosines [batch, classes, places]."""
    scores = cosines.clone()
    if denoising > 0:
        highest = (100 * scores).softmax(1).amax(2)
        scores[highest < denoising] = -100.0
    if smoothing > 0:
        scores = (100 * scores).softmax(1)
        unit = keys / keys.norm(dim=1, keepdim=True).clamp_min(1e-12)
        similar = unit @ unit.transpose(1, 2)
        smoothed = torch.einsum("bij,bcj->bci", similar, scores)
        scores = torch.where(scores.amax(1, keepdim=True) < smoothing, smoothed, scores)
    return scores


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("output")
    output = parser.parse_args().output
    weights = Weights()
    images = torch.randn(2, 3, 64, 96, generator=weights.random).float().double()
    text = functional.normalize(torch.randn(CLASSES, DIM, generator=weights.random), dim=1).float().double()
    background = weights.draw("decode_head.bg_embeddings", (1, DIM), 1.0)
    golden = {"images": images, "text": text}

    features, running = student(weights, images, training=True)
    golden["train.features"] = features
    kept = ("backbone.stem.1.", "backbone.layer4.1.bn2.", "decode_head.decode_module.image_pool.1.bn.")
    golden |= {f"train.{name}": value for name, value in running.items() if name.startswith(kept)}
    rows = torch.cat([text[:1], functional.normalize(background, dim=1), text[2:]])
    features, _ = student(weights, images, training=False)
    golden["eval.logits"] = torch.einsum("cd,bdhw->bchw", rows, features)

    features, keys = guide(weights, images)
    cosines = torch.einsum("cd,bdp->bcp", text, functional.normalize(features.flatten(2), dim=1))
    for name, denoising, smoothing in (("plain", 0, 0), ("pd", 0.5, 0), ("ks", 0, 1.0), ("kspd", 0.5, 1.0)):
        golden[f"guide.{name}"] = refined(cosines, keys, denoising, smoothing).unflatten(2, features.shape[2:])
    golden |= {f"state.{name}": value for name, value in weights.items()}
    safetensors.torch.save_file({name: value.float().contiguous() for name, value in golden.items()}, output)


if __name__ == "__main__":
    main()
