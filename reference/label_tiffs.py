"""Writes label maps as TIFF in the varieties that segmentation tools write, to test `decode_labels`.

The value at column x and row y is (37 x + 101 y) mod 847, or mod 251 in 8-bit files; zeg-image/tests/label_tiffs.rs
computes the same values. The files go to crates/zeg-image/tests/golden/label_tiffs. Run from the repository root:

    pip install pillow==13.0.0 numpy==2.4.6 tifffile==2026.3.3 imagecodecs==2026.3.6
    python reference/label_tiffs.py
"""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image

GOLDEN = Path("crates/zeg-image/tests/golden/label_tiffs")
WIDTH, HEIGHT = 37, 23
Y, X = np.mgrid[:HEIGHT, :WIDTH]
DEEP = ((37 * X + 101 * Y) % 847).astype(np.uint16)
BYTES = ((37 * X + 101 * Y) % 251).astype(np.uint8)


def main():
    GOLDEN.mkdir(parents=True, exist_ok=True)

    def write(name, values, **settings):
        tifffile.imwrite(GOLDEN / name, values, metadata=None, software=False, **settings)

    # Pillow's format for 16-bit arrays, in which ADE20K-Full is usually prepared.
    Image.fromarray(DEEP).save(GOLDEN / "grey16_pillow.tif")
    Image.fromarray(BYTES).save(GOLDEN / "grey8_pillow.tif")
    Image.fromarray(DEEP).save(GOLDEN / "grey16_pillow_lzw.tif", compression="tiff_lzw")
    write("grey16_big_endian.tif", DEEP, byteorder=">")
    write("grey16_big_tiff.tif", DEEP, bigtiff=True)
    write("grey16_deflate_predictor.tif", DEEP, compression="zlib", predictor=True)
    write("grey16_tiles.tif", DEEP, tile=(16, 16), compression="lzw")
    write("grey8_packbits.tif", BYTES, compression="packbits")
    # Labels are the stored values: neither the inverted scale nor the palette is applied.
    write("grey8_white_is_zero.tif", BYTES, photometric="miniswhite")
    colours = np.stack([np.arange(256) * k % 65536 for k in (257, 4000, 999)]).astype(np.uint16)
    write("palette8.tif", BYTES, photometric="palette", colormap=colours)
    # Files that cannot be label maps.
    write("rgb8.tif", np.stack([BYTES] * 3, -1), photometric="rgb")
    write("float32.tif", DEEP.astype(np.float32))
    write("grey8_jpeg.tif", BYTES, compression="jpeg")


if __name__ == "__main__":
    main()
