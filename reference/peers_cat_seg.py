"""CAT-Seg (ViT-B/16 at 384, first two aggregation layers as published) in PyTorch, for reference/bench_peers.py.

Written from the paper (arXiv 2303.11797) and the shapes of the released checkpoint. Weights are random. The forward pass is
that of the evaluation script: four windows of 384×384 of an image of 640×640 and the image as a whole, as one batch of five,
class aggregation without pooling and padded to 256 classes, probabilities averaged.
"""

CROP, CANVAS, STRIDE, GRID = 384, 640, 256, 24
HIDDEN, HEADS, WINDOW, PAD = 128, 4, 12, 256


def build(transformer, width, dim, patch):
    """Returns the module; its forward takes an image [1, 3, 640, 640] and class embeddings [classes, dim]."""
    import torch
    from torch import nn
    from torch.nn import functional

    def heads(x):
        return x.unflatten(-1, (HEADS, -1)).transpose(-3, -2)

    class WindowAttention(nn.Module):
        """A Swin block over one class's map; image features guide queries and keys."""

        def __init__(self, shift):
            super().__init__()
            self.shift = shift
            self.norm1, self.norm2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
            self.q, self.k = nn.Linear(2 * HIDDEN, HIDDEN), nn.Linear(2 * HIDDEN, HIDDEN)
            self.v, self.proj = nn.Linear(HIDDEN, HIDDEN), nn.Linear(HIDDEN, HIDDEN)
            self.fc1, self.fc2 = nn.Linear(HIDDEN, 4 * HIDDEN), nn.Linear(4 * HIDDEN, HIDDEN)
            side, half = GRID // WINDOW, WINDOW // 2
            region = torch.zeros(GRID)
            region[GRID - WINDOW : GRID - half], region[GRID - half :] = 1, 2
            region = (3 * region[:, None] + region).view(side, WINDOW, side, WINDOW).transpose(1, 2).reshape(-1, WINDOW * WINDOW)
            mask = torch.where(region[:, :, None] == region[:, None], 0.0, -100.0)
            self.register_buffer("mask", mask[None, :, None])  # [1, windows, 1, tokens, tokens]

        def cut(self, x):
            """[n, 24, 24, channels] to [n, windows, tokens, channels]"""
            if self.shift:
                x = x.roll((-self.shift, -self.shift), (1, 2))
            side = GRID // WINDOW
            x = x.unflatten(2, (side, WINDOW)).unflatten(1, (side, WINDOW)).transpose(2, 3)
            return x.reshape(len(x), side * side, WINDOW * WINDOW, -1)

        def join(self, x):
            side = GRID // WINDOW
            x = x.view(len(x), side, side, WINDOW, WINDOW, -1).transpose(2, 3).reshape(len(x), GRID, GRID, -1)
            return x.roll((self.shift, self.shift), (1, 2)) if self.shift else x

        def forward(self, x, guidance):
            h = self.norm1(x)
            guided = self.cut(torch.cat([h, guidance], -1))
            q, k, v = heads(self.q(guided)), heads(self.k(guided)), heads(self.v(self.cut(h)))
            attended = functional.scaled_dot_product_attention(q, k, v, attn_mask=self.mask if self.shift else None)
            x = x + self.join(self.proj(attended.transpose(-3, -2).flatten(-2)))
            return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))

    class Layer(nn.Module):
        def __init__(self):
            super().__init__()
            self.guidance_norm = nn.LayerNorm(HIDDEN)
            self.plain, self.shifted = WindowAttention(0), WindowAttention(WINDOW // 2)
            self.norm1, self.norm2 = nn.LayerNorm(HIDDEN), nn.LayerNorm(HIDDEN)
            self.q, self.k = nn.Linear(2 * HIDDEN, HIDDEN), nn.Linear(2 * HIDDEN, HIDDEN)
            self.v = nn.Linear(HIDDEN, HIDDEN)
            self.fc1, self.fc2 = nn.Linear(HIDDEN, 4 * HIDDEN), nn.Linear(4 * HIDDEN, HIDDEN)
            self.padding, self.padding_guidance = nn.Parameter(torch.zeros(HIDDEN)), nn.Parameter(torch.zeros(HIDDEN))

        def classes(self, x, text):
            """Linear attention over classes at every position: x [crops, positions, classes, channels]."""
            missing = max(PAD - x.shape[2], 0)
            y = torch.cat([x, self.padding.expand(*x.shape[:2], missing, -1)], 2)
            text = torch.cat([text, self.padding_guidance.expand(missing, -1)], 0).expand(*y.shape[:2], -1, -1)
            h = self.norm1(y)
            guided = torch.cat([h, text], -1)
            q, k = functional.elu(heads(self.q(guided))) + 1, functional.elu(heads(self.k(guided))) + 1
            v = heads(self.v(h))
            total = q @ k.sum(-2)[..., None] + 1e-6
            y = y + ((q @ (k.transpose(-1, -2) @ v)) / total).transpose(-3, -2).flatten(-2)
            y = y + self.fc2(functional.relu(self.fc1(self.norm2(y))))
            return y[:, :, : x.shape[2]]

        def forward(self, x, appearance, text):
            """x [crops, classes, 24, 24, channels], appearance [crops, 24, 24, channels], text [classes, channels]"""
            crops, classes = x.shape[:2]
            guidance = self.guidance_norm(appearance)[:, None].expand(-1, classes, -1, -1, -1).flatten(0, 1)
            x = self.shifted(self.plain(x.flatten(0, 1), guidance), guidance).unflatten(0, (crops, classes))
            y = self.classes(x.flatten(2, 3).transpose(1, 2), text)
            return x + y.transpose(1, 2).unflatten(2, (GRID, GRID))

    class Up(nn.Module):
        def __init__(self, channels, up, guidance, out):
            super().__init__()
            self.up = nn.ConvTranspose2d(channels, up, 2, 2)
            self.convolutions = nn.Sequential(
                nn.Conv2d(up + guidance, out, 3, padding=1, bias=False), nn.GroupNorm(out // 16, out), nn.ReLU(),
                nn.Conv2d(out, out, 3, padding=1, bias=False), nn.GroupNorm(out // 16, out), nn.ReLU(),
            )  # fmt: skip

        def forward(self, x, guidance, classes):
            guidance = guidance[:, None].expand(-1, classes, -1, -1, -1).flatten(0, 1)
            return self.convolutions(torch.cat([self.up(x), guidance], 1))

    class CatSeg(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv1 = nn.Conv2d(3, width, patch, patch, bias=False)
            self.class_embedding = nn.Parameter(torch.randn(width))
            self.positions = nn.Parameter(0.1 * torch.randn(1 + GRID * GRID, width))
            self.ln_pre, self.ln_post = nn.LayerNorm(width), nn.LayerNorm(width)
            self.transformer = transformer
            for weight in (w for block in self.transformer.resblocks for w in block.parameters() if w.dim() > 1):
                nn.init.normal_(weight, std=0.02)
            self.proj = nn.Parameter(width**-0.5 * torch.randn(width, dim))
            self.upsample1, self.upsample2 = nn.ConvTranspose2d(width, 256, 2, 2), nn.ConvTranspose2d(width, 128, 4, 4)
            self.embed = nn.Conv2d(1, HIDDEN, 7, padding=3)
            self.appearance, self.text = nn.Conv2d(dim, HIDDEN, 3, padding=1), nn.Linear(dim, HIDDEN)
            self.guides = nn.ModuleList([nn.Conv2d(256, 32, 3, padding=1), nn.Conv2d(128, 16, 3, padding=1)])
            self.layers = nn.ModuleList([Layer(), Layer()])
            self.decoders = nn.ModuleList([Up(HIDDEN, 96, 32, 64), Up(64, 48, 16, 32)])
            self.head = nn.Conv2d(32, 1, 3, padding=1)

        def encode(self, crops):
            patches = self.conv1(crops).flatten(2).transpose(1, 2)
            first = self.class_embedding.expand(len(crops), 1, width)
            x = self.ln_pre(torch.cat([first, patches], 1) + self.positions)
            taps = []
            *blocks, last = self.transformer.resblocks
            for i, block in enumerate(blocks):
                x = block(x, None)
                if i in (3, 7):
                    taps.append(x[:, 1:].transpose(1, 2).unflatten(2, (GRID, GRID)))
            value = functional.linear(last.ln_1(x), last.attn.in_proj_weight[-width:], last.attn.in_proj_bias[-width:])
            x = last.attn.out_proj(value) + x[:, :1]  # the class token of the block's input instead of the residual
            x = x + last.mlp(last.ln_2(x))
            dense = (self.ln_post(x) @ self.proj)[:, 1:].transpose(1, 2).unflatten(2, (GRID, GRID))
            return dense, taps

        def logits(self, crops, text):
            dense, (early, late) = self.encode(crops)
            guides = [self.upsample1(early), self.upsample2(late)]
            cost = torch.einsum("bdhw,td->bthw", functional.normalize(dense, dim=1), functional.normalize(text, dim=-1))
            classes = len(text)
            x = self.embed(cost.flatten(0, 1)[:, None]).unflatten(0, (len(crops), classes)).permute(0, 1, 3, 4, 2)
            appearance = functional.relu(self.appearance(dense)).permute(0, 2, 3, 1)
            words = functional.relu(self.text(functional.normalize(text, dim=-1)))
            for layer in self.layers:
                x = layer(x, appearance, words)
            x = x.permute(0, 1, 4, 2, 3).flatten(0, 1)
            for decoder, project, guide in zip(self.decoders, self.guides, guides):
                x = decoder(x, functional.relu(project(guide)), classes)
            return self.head(x).unflatten(0, (len(crops), classes))[:, :, 0]

        def forward(self, images, text):
            def resize(x, side):
                return functional.interpolate(x, size=(side, side), mode="bilinear", align_corners=False)

            starts = [(y, x) for y in (0, STRIDE) for x in (0, STRIDE)]
            windows = [images[:, :, y : y + CROP, x : x + CROP] for y, x in starts]
            scores = resize(self.logits(torch.cat([*windows, resize(images, CROP)]), text), CROP).sigmoid()
            canvas, cover = scores.new_zeros(1, len(text), CANVAS, CANVAS), scores.new_zeros(CANVAS, CANVAS)
            for (y, x), window in zip(starts, scores):
                canvas[0, :, y : y + CROP, x : x + CROP] += window
                cover[y : y + CROP, x : x + CROP] += 1
            return (canvas / cover + resize(scores[-1:], CANVAS)) / 2

    return CatSeg().eval()
