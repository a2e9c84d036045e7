"""Draws the example images that the page of `zeg serve` shows for MiniCLIP.

Packages   Python 3.11 or later, nothing else
Run        python3 reference/page_examples.py
               writes crates/zeg-serve/assets/examples/mini-1.png, -2 and -3

The images are made like those of the mini world (crates/zeg-data/src/mini_world): shapes with a colour and a texture over a
cluttered grey background, with the colours and patterns of names.rs and texture.rs, but larger and wider, so that people see
something. Everything follows from the numbers below and a seed.
"""

import math
import random
import struct
import zlib
from pathlib import Path

FOLDER = Path(__file__).resolve().parent.parent / "crates/zeg-serve/assets/examples"
WIDTH, HEIGHT = 384, 256
SUB = 3  # samples per pixel along a side
COLOURS = {
    "red": (216, 36, 36),
    "orange": (245, 138, 20),
    "yellow": (240, 222, 40),
    "green": (44, 164, 60),
    "cyan": (44, 204, 212),
    "blue": (40, 80, 222),
    "purple": (132, 52, 184),
    "pink": (245, 130, 190),
}
# name, shape, centre, radius, rotation in radians; from back to front
SCENES = {
    "mini-1.png": [
        ("striped red", "disc", (98, 92), 58, 0.3),
        ("plain blue", "star", (286, 96), 64, 0.15),
        ("dotted green", "square", (196, 182), 50, 0.35),
    ],
    "mini-2.png": [
        ("checked yellow", "hexagon", (96, 160), 60, 0.1),
        ("plain purple", "disc", (178, 78), 44, 0.0),
        ("striped cyan", "square", (298, 150), 58, -0.3),
    ],
    "mini-3.png": [
        ("striped orange", "hexagon", (88, 88), 58, 0.2),
        ("checked green", "disc", (212, 168), 60, 0.4),
        ("plain purple", "star", (316, 78), 60, 0.5),
    ],
}


def inside(shape, x, y):
    """Returns whether a point, in radii from the centre, lies in a shape."""
    if shape == "disc":
        return x * x + y * y < 1
    if shape == "square":
        return max(abs(x), abs(y)) < 0.86
    angle, distance = math.atan2(y, x), math.hypot(x, y)
    if shape == "hexagon":
        part = (angle % (math.pi / 3)) - math.pi / 6
        return distance * math.cos(part) < 0.88
    # A star of five points, between two radii.
    part = abs(((angle + math.pi / 2) % (2 * math.pi / 5)) - math.pi / 5) / (math.pi / 5)
    tip, waist = (1.0, 0.0), (0.5 * math.cos(math.pi / 5), 0.5 * math.sin(math.pi / 5))
    a = (1 - part) * math.pi / 5
    px, py = distance * math.cos(a), distance * math.sin(a)
    return (waist[0] - tip[0]) * (py - tip[1]) - (waist[1] - tip[1]) * (px - tip[0]) > 0


def second_tone(texture, x, y, radius):
    """Returns whether a point, in pixels along the object's axes, has the second tone of a pattern."""
    period = 0.52 * radius
    u, v = (x / period) % 1 - 0.5, (y / period) % 1 - 0.5
    stripe, column = abs(v) > 0.25, abs(u) > 0.25
    return {"plain": False, "striped": stripe, "checked": stripe != column, "dotted": math.hypot(u, v) < 0.33}[texture]


def surface(colour):
    """Returns the two tones of a colour: light colours get a dark second tone."""
    luma = 0.299 * colour[0] + 0.587 * colour[1] + 0.114 * colour[2]
    far = 12 if luma > 125 else 250
    return colour, tuple(channel + (far - channel) * 0.8 for channel in colour)


def clutter(rng):
    """Returns a function of the background: two layers of random values, interpolated between the corners of cells."""
    layers = []
    for cells, strength in ((4, 0.5), (9, 0.28)):
        nodes = {}
        for row in range(cells + 1):
            for column in range(2 * cells + 1):
                brightness = rng.uniform(-1, 1) * 90 * strength
                nodes[row, column] = [brightness + rng.uniform(-1, 1) * 45 * strength for _ in range(3)]
        layers.append((cells, nodes))

    def at(x, y):
        found = [128.0, 128.0, 128.0]
        for cells, nodes in layers:
            across, down = x * cells / HEIGHT, y * cells / HEIGHT
            column, row = min(int(across), 2 * cells - 1), min(int(down), cells - 1)
            a, b = across - column, down - row
            for channel in range(3):
                upper = nodes[row, column][channel] * (1 - a) + nodes[row, column + 1][channel] * a
                lower = nodes[row + 1, column][channel] * (1 - a) + nodes[row + 1, column + 1][channel] * a
                found[channel] += upper * (1 - b) + lower * b
        return found

    return at


def draw(scene, seed):
    rng = random.Random(seed)
    background = clutter(rng)
    rows = []
    for y in range(HEIGHT):
        row = bytearray()
        for x in range(WIDTH):
            ground, total = background(x + 0.5, y + 0.5), [0.0, 0.0, 0.0]
            for sub in range(SUB * SUB):
                px, py = x + (sub % SUB + 0.5) / SUB, y + (sub // SUB + 0.5) / SUB
                value = ground
                for name, shape, (cx, cy), radius, rotation in scene:
                    dx, dy = px - cx, py - cy
                    if dx * dx + dy * dy > 1.5 * radius * radius:
                        continue
                    along = math.cos(rotation) * dx + math.sin(rotation) * dy
                    down = math.cos(rotation) * dy - math.sin(rotation) * dx
                    if inside(shape, along / radius, down / radius):
                        texture, colour = name.split()
                        tones = surface(COLOURS[colour])
                        value = tones[second_tone(texture, along, down, radius)]
                for channel in range(3):
                    total[channel] += value[channel]
            light = 1 - 0.12 * (x / WIDTH + y / HEIGHT) / 2
            noise = rng.gauss(0, 2.5)
            row += bytes(max(0, min(255, round(channel / SUB**2 * light + noise))) for channel in total)
        rows.append(bytes(row))
    return rows


def write_png(path, rows):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    packed, above = bytearray(), bytes(3 * WIDTH)
    for row in rows:
        # The filter "up" suits noise over slow changes.
        packed += b"\2" + bytes((a - b) & 255 for a, b in zip(row, above))
        above = row
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(packed), 9)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    print(path.name, path.stat().st_size, "bytes")


if __name__ == "__main__":
    for seed, (name, scene) in enumerate(SCENES.items()):
        write_png(FOLDER / name, draw(scene, seed))
