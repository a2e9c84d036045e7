"""Writes golden numbers of photometric distortion, computed by OpenCV.

OpenCV converts long rows with vector instructions and the remainder of a row one pixel at a time. From HSV to RGB, the
vector code truncates and the scalar code rounds. All rows here are long, as in real images.

Writes rgb_to_hsv.csv, hsv_to_rgb.csv and photometric.csv to crates/zeg-data/tests/golden. Run from the repository root:

    pip install opencv-python-headless==4.10.0.84 numpy==2.4.6
    python reference/hsv_golden.py
"""

from pathlib import Path

import cv2
import numpy as np

GOLDEN = Path("crates/zeg-data/tests/golden")
HEAD = f"# made by `python reference/hsv_golden.py` with OpenCV {cv2.__version__}\n"


def colours():
    """Returns corners and edges of the colour cube, greys, and random colours: [1, 1024, 3], RGB."""
    levels = [0, 1, 2, 63, 127, 128, 254, 255]
    cube = [(r, g, b) for r in levels for g in levels for b in levels]
    greys = [(n, n, n) for n in range(0, 256, 5)]
    rng = np.random.default_rng(7)
    dark = rng.integers(0, 24, (150, 3))
    bright = rng.integers(0, 256, (350, 3))
    return np.array([*cube, *greys, *dark, *bright], np.uint8)[None, :1024]


def write_table(name, head, source, target):
    rows = np.concatenate([source, target], -1)[0]
    text = "\n".join(",".join(map(str, row)) for row in rows)
    (GOLDEN / name).write_text(f"{HEAD}# {head}\n{text}\n")


def write_hsv():
    rgb = colours()
    hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
    write_table("rgb_to_hsv.csv", "r,g,b,h,s,v", rgb, hsv)
    # Hues and saturations that no RGB colour of this value has, as the distortions produce them.
    rng = np.random.default_rng(8)
    hsv[..., 0] = (hsv[..., 0].astype(int) + rng.integers(-18, 18, hsv.shape[:2])) % 180
    hsv[..., 1] = np.clip(hsv[..., 1] * rng.uniform(0.5, 1.5, hsv.shape[:2]), 0, 255)
    write_table("hsv_to_rgb.csv", "h,s,v,r,g,b", hsv, cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB))


def scaled(image, factor=1.0, amount=0.0):
    """Scales and shifts in float32, then clips and truncates to bytes."""
    changed = image.astype(np.float32) * np.float32(factor) + np.float32(amount)
    return np.clip(changed, 0, 255).astype(np.uint8)


def distort(rgb, brightness, contrast_before, saturation, hue, contrast_after):
    if brightness is not None:
        rgb = scaled(rgb, amount=brightness)
    if contrast_before is not None:
        rgb = scaled(rgb, factor=contrast_before)
    if saturation is not None:
        hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = scaled(hsv[..., 1], factor=saturation)
        rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if hue is not None:
        hsv = cv2.cvtColor(rgb, cv2.COLOR_RGB2HSV)
        hsv[..., 0] = (hsv[..., 0].astype(int) + hue) % 180
        rgb = cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB)
    if contrast_after is not None:
        rgb = scaled(rgb, factor=contrast_after)
    return rgb


def write_photometric():
    y, x = np.mgrid[:4, :64]
    image = np.stack([x * 4, y * 85, (x * 7 + y * 11) % 256], -1).astype(np.uint8)
    cases = [
        (None, None, None, None, None),
        (-17.3, None, None, None, None),
        (31.9, 1.37, None, None, None),
        (None, None, 0.62, None, None),
        (None, None, 1.48, None, None),
        (None, None, None, -18, None),
        (None, None, None, 17, None),
        (8.25, None, 1.21, -7, 0.71),
    ]
    lines = [
        HEAD.rstrip(),
        "# two lines a case: brightness, contrast before, saturation, hue, contrast after;",
        "# then the distorted image of 64x4 pixels, RGB, row-major",
    ]
    for case in cases:
        lines.append(",".join("" if value is None else str(value) for value in case))
        lines.append(",".join(map(str, distort(image, *case).ravel())))
    (GOLDEN / "photometric.csv").write_text("\n".join(lines) + "\n")


GOLDEN.mkdir(parents=True, exist_ok=True)
write_hsv()
write_photometric()
