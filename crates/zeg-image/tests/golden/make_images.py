"""Writes one small image of each kind that the decoder must support, with Pillow.

    python make_images.py .        # run in tests/golden; needs pillow and numpy

All show the same 48×32 scene: red, green and blue ramps with a white square near the top left corner, so
that the tests notice a wrong orientation or channel order.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image

out = Path(sys.argv[1])
y, x = np.mgrid[0:32, 0:48]
scene = np.stack([x * 5, y * 8, 255 - x * 5], axis=-1).astype(np.uint8)
scene[4:12, 4:12] = 255
rgb = Image.fromarray(scene)
grey = rgb.convert("L")

rgb.save(out / "baseline.jpg", quality=92)
rgb.save(out / "progressive.jpg", quality=92, progressive=True)
rgb.save(out / "restart.jpg", quality=92, restart_marker_blocks=2)
grey.save(out / "grey.jpg", quality=92)
rgb.convert("CMYK").save(out / "cmyk.jpg", quality=92)
# Rotated by 90° to the left, with the EXIF orientation 6, which rotates it back.
exif = Image.Exif()
exif[0x0112] = 6
rgb.transpose(Image.Transpose.ROTATE_90).save(out / "orientation6.jpg", quality=92, exif=exif)

for extension in ["png", "bmp", "tiff", "gif"]:
    rgb.save(out / f"rgb.{extension}")
rgb.save(out / "rgb.webp", lossless=True)
alpha = rgb.copy()
alpha.putalpha(Image.fromarray((x * 5).astype(np.uint8)))
alpha.save(out / "alpha.png")
Image.fromarray((x * 1300 + y).astype(np.uint16)).save(out / "grey16.png")

# Labels: the index of a pixel is (x + y) modulo the number of values.
for bits in [1, 2, 4, 8]:
    labels = Image.fromarray(((x + y)[:, :45] % 2**bits).astype(np.uint8), "P")
    labels.putpalette([value for index in range(2**bits) for value in (index, 0, 255 - index)])
    labels.save(out / f"indexed{bits}.png", bits=bits)
grey.save(out / "grey8.png")
Image.fromarray(((x + y) % 2).astype(bool)).save(out / "grey1.png")
grey.convert("LA").save(out / "grey_alpha.png")
