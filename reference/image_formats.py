"""Writes one small image of every variety that cameras, scanners and editors produce, and its pixels as RGB.

The images are written with Pillow, tifffile and imagecodecs. What none of them can write (interlaced PNG, chunks in
unusual places, PNM) is written here from the format's definition. The expected pixels are OpenCV's (`imread` with its
default flags, which the reference pipelines use), or Pillow's if OpenCV does not read a variety or reads it differently;
the column `reader` of the table names the package. `zeg-image/tests/formats.rs` compares the decoder with them.

Writes the images, formats.csv and expected.safetensors (one tensor `[height, width, 3]`, uint8, per image) to
crates/zeg-image/tests/golden/formats. Run from the repository root:

    pip install opencv-python-headless==4.10.0.84 pillow==13.0.0 tifffile imagecodecs safetensors numpy
    python reference/image_formats.py
"""

import struct
import sys
import zlib
from pathlib import Path

import cv2
import imagecodecs
import numpy as np
import PIL
import tifffile
from PIL import Image, ImageOps
from safetensors.numpy import save_file

GOLDEN = Path("crates/zeg-image/tests/golden/formats")
WIDTH, HEIGHT = 16, 12
Y, X = np.mgrid[:HEIGHT, :WIDTH]
# Smooth ramps with a bright corner: these show orientation and channel order, and lossy formats change them little.
SCENE = np.stack([X * 15, Y * 20, 240 - X * 8 - Y * 8], -1).astype(np.uint8)
SCENE[:4, :4] = [250, 240, 230]
GREY = SCENE[..., 1]
ALPHA = ((X + Y) * 9).astype(np.uint8)
DEEP = SCENE.astype(np.uint16) * 256 + 77
INDEX = ((X + 2 * Y) % 16).astype(np.uint8)
COLOURS = np.stack([np.arange(16) * 16, 255 - np.arange(16) * 10, np.arange(16) * 5 + 40], -1).astype(np.uint8)
RGB = Image.fromarray(SCENE)

table = []  # (file, reader, largest difference allowed)
expected = {}


def pillow(path):
    """Reads an image upright and without alpha, which is dropped and not blended, as everywhere in this project."""
    image = Image.open(path)
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I;16"):
        deep = np.asarray(image).astype(np.uint16)
        return np.repeat((deep >> 8).astype(np.uint8)[..., None], 3, -1)
    if image.mode == "P":
        image = image.convert("RGBA" if "transparency" in image.info else "RGB")
    return np.asarray(image)[..., :3] if image.mode == "RGBA" else np.asarray(image.convert("RGB"))


def opencv(path):
    return cv2.cvtColor(cv2.imread(str(path)), cv2.COLOR_BGR2RGB)


def record(name, reader="opencv", tolerance=0):
    """Records the pixels that `reader` gives for a written file; `reader` may be the pixels themselves."""
    path = GOLDEN / name
    if isinstance(reader, np.ndarray):
        pixels, reader = reader, "definition"
    else:
        pixels = {"opencv": opencv, "pillow": pillow}[reader](path)
    table.append((name, reader, tolerance))
    expected[name] = np.ascontiguousarray(pixels)


def save(name, image, reader="opencv", tolerance=0, **options):
    image.save(GOLDEN / name, **options)
    record(name, reader, tolerance)


def store(name, data, reader="opencv", tolerance=0):
    (GOLDEN / name).write_bytes(data)
    record(name, reader, tolerance)


def grey_to_rgb(grey):
    return np.repeat(np.asarray(grey, np.uint8)[..., None], 3, -1)


def exif(orientation):
    tags = Image.Exif()
    tags[0x0112] = orientation
    return tags.tobytes()


def jpegs():
    save("rgb_444.jpg", RGB, tolerance=3, quality=95, subsampling=0)
    # libjpeg interpolates subsampled colours, other decoders repeat them; near edges they differ by some grey levels.
    save("rgb_420.jpg", RGB, tolerance=14, quality=95, subsampling=2)
    save("rgb_422_progressive.jpg", RGB, tolerance=14, quality=95, subsampling=1, progressive=True)
    save("rgb_direct.jpg", RGB, tolerance=3, quality=95, keep_rgb=True)
    save("grey.jpg", Image.fromarray(GREY), tolerance=2, quality=95)
    save("odd_size.jpg", RGB.crop((0, 0, 13, 11)), tolerance=14, quality=95)
    ink = np.stack([SCENE[..., 0], SCENE[..., 1], SCENE[..., 2], (X * 4).astype(np.uint8)], -1)
    # Pillow writes CMYK as Adobe's programs do: inverted, with Adobe's marker.
    save("cmyk_adobe.jpg", Image.fromarray(ink, "CMYK"), "pillow", tolerance=5, quality=95)
    ycck = imagecodecs.jpeg8_encode(255 - ink, level=95, colorspace="CMYK", outcolorspace="YCCK", subsampling="444")
    store("ycck_adobe.jpg", ycck, "pillow", tolerance=5)
    for orientation in range(1, 9):
        name = f"orientation{orientation}.jpg"
        save(name, RGB, tolerance=3, quality=95, subsampling=0, exif=exif(orientation))


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def packed(samples, depth):
    """Returns rows of samples `[height, width, channels]` as PNG stores them, each after its filter byte 0."""
    rows = []
    for row in samples.reshape(samples.shape[0], -1):
        if depth == 16:
            data = row.astype(">u2").tobytes()
        else:
            bits = ((row[:, None] >> np.arange(depth - 1, -1, -1)) & 1).astype(np.uint8)
            data = np.packbits(bits.ravel()).tobytes()
        rows.append(b"\0" + data)
    return b"".join(rows)


def png(samples, colour, depth, before=b"", after=b"", interlaced=False):
    """Returns a PNG file; `before` and `after` are chunks around the pixels."""
    samples = samples.reshape(*samples.shape[:2], -1)
    if interlaced:
        passes = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
        parts = [samples[y::step_y, x::step_x] for y, x, step_y, step_x in passes]
        data = b"".join(packed(part, depth) for part in parts if part.size)
    else:
        data = packed(samples, depth)
    head = struct.pack(">IIBBBBB", samples.shape[1], samples.shape[0], depth, colour, 0, 0, int(interlaced))
    pixels = chunk(b"IDAT", zlib.compress(data, 9))
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + before + pixels + after + chunk(b"IEND", b"")


def pngs():
    grey, rgb, palette, grey_alpha, rgba = 0, 2, 3, 4, 6
    for depth in (1, 2, 4):
        store(f"grey{depth}.png", png(INDEX % 2**depth, grey, depth))
        colours = chunk(b"PLTE", COLOURS[: 2**depth].tobytes())
        store(f"palette{depth}.png", png(INDEX % 2**depth, palette, depth, colours))
    store("grey8.png", png(GREY, grey, 8))
    store("grey16.png", png(DEEP[..., 0], grey, 16))
    store("rgb8.png", png(SCENE, rgb, 8))
    store("rgb16.png", png(DEEP, rgb, 16))
    deep_alpha = ALPHA.astype(np.uint16) * 256
    store("grey_alpha8.png", png(np.dstack([GREY, ALPHA]), grey_alpha, 8))
    store("grey_alpha16.png", png(np.dstack([DEEP[..., 0], deep_alpha]), grey_alpha, 16))
    store("rgba8.png", png(np.dstack([SCENE, ALPHA]), rgba, 8))
    store("rgba16.png", png(np.dstack([DEEP, deep_alpha]), rgba, 16))
    colours = chunk(b"PLTE", COLOURS.tobytes())
    transparent = chunk(b"tRNS", bytes(range(0, 256, 16)))
    store("palette_transparent.png", png(INDEX, palette, 8, colours + transparent))
    store("grey_transparent.png", png(GREY, grey, 8, chunk(b"tRNS", struct.pack(">H", 40))))
    store("rgb_transparent.png", png(SCENE, rgb, 8, chunk(b"tRNS", struct.pack(">HHH", 250, 240, 230))))
    store("interlaced_rgb8.png", png(SCENE, rgb, 8, interlaced=True))
    store("interlaced_palette4.png", png(INDEX, palette, 4, colours, interlaced=True))
    store("interlaced_grey16.png", png(DEEP[..., 1], grey, 16, interlaced=True))
    turned = chunk(b"eXIf", exif(6)[6:])
    store("orientation6.png", png(SCENE, rgb, 8, turned), "pillow")
    store("orientation6_after.png", png(SCENE, rgb, 8, after=turned), "pillow")


def webps():
    save("lossy.webp", RGB, tolerance=8, quality=95)
    save("lossless.webp", RGB, lossless=True)
    rgba = Image.fromarray(np.dstack([SCENE, ALPHA]))
    save("lossless_alpha.webp", rgba, lossless=True, exact=True)
    save("lossy_alpha.webp", rgba, tolerance=8, quality=95, exact=True)
    save("orientation6.webp", RGB, "pillow", lossless=True, exif=exif(6))
    other = Image.fromarray(255 - SCENE)
    save("animated.webp", RGB, "pillow", lossless=True, save_all=True, append_images=[other], duration=100)


def tiff(name, data, reader="opencv", tolerance=0, **options):
    tifffile.imwrite(GOLDEN / name, data, metadata=None, **options)
    record(name, reader, tolerance)


def tiffs():
    tiff("rgb8.tiff", SCENE, photometric="rgb")
    tiff("rgb8_big_endian.tiff", SCENE, photometric="rgb", byteorder=">")
    tiff("rgb8_bigtiff.tiff", SCENE, "pillow", photometric="rgb", bigtiff=True)
    for compression in ("lzw", "deflate", "packbits"):
        tiff(f"rgb8_{compression}.tiff", SCENE, photometric="rgb", compression=compression)
    tiff("rgb8_predictor.tiff", SCENE, photometric="rgb", compression="lzw", predictor=True)
    tiff("rgb8_tiled.tiff", np.tile(SCENE, (3, 3, 1)), photometric="rgb", tile=(16, 32))
    tiff("rgb8_strips.tiff", SCENE, photometric="rgb", rowsperstrip=5)
    tiff("rgb8_planar.tiff", np.moveaxis(SCENE, -1, 0), "pillow", photometric="rgb", planarconfig="separate")
    tiff("rgba8.tiff", np.dstack([SCENE, ALPHA]), "pillow", photometric="rgb", extrasamples=["unassalpha"])
    # OpenCV reads 16-bit RGB through libtiff's 8-bit interface, which rounds.
    tiff("rgb16.tiff", DEEP, tolerance=1, photometric="rgb")
    tiff("rgb16_lzw.tiff", DEEP, tolerance=1, photometric="rgb", compression="lzw", predictor=True)
    tiff("grey8.tiff", GREY, photometric="minisblack")
    tiff("grey16.tiff", DEEP[..., 0], photometric="minisblack")
    tiff("grey8_white_is_zero.tiff", GREY, photometric="miniswhite")
    ink = np.dstack([SCENE, (X * 4).astype(np.uint8)])
    tiff("cmyk8.tiff", ink, "pillow", tolerance=1, photometric="separated")
    colours = np.zeros((3, 256), np.uint16)
    colours[:, :16] = COLOURS.T.astype(np.uint16) * 257
    tiff("palette8.tiff", INDEX, "pillow", photometric="palette", colormap=colours)
    tiff("palette8_big_endian.tiff", INDEX, "pillow", photometric="palette", colormap=colours, byteorder=">")
    tiff("palette8_bigtiff.tiff", INDEX, "pillow", photometric="palette", colormap=colours, bigtiff=True)
    indexed = Image.fromarray(INDEX, "P")
    indexed.putpalette(COLOURS.tobytes())
    save("palette8_lzw.tiff", indexed, "pillow", compression="tiff_lzw")
    tiff("rgb8_jpeg.tiff", SCENE, "pillow", tolerance=5, photometric="rgb", compression="jpeg")
    save("ycbcr_jpeg.tiff", RGB, "pillow", tolerance=14, compression="jpeg", quality=95)
    for orientation in range(2, 9):
        tag = [(274, "H", 1, orientation, True)]
        tiff(f"orientation{orientation}.tiff", SCENE, "pillow", photometric="rgb", extratags=tag)
    bilevel = Image.fromarray(INDEX % 3 == 0)
    save("bilevel.tiff", bilevel)
    save("bilevel_group4.tiff", bilevel, compression="group4")


def bmps_and_gifs():
    save("rgb8.bmp", RGB)
    save("grey8.bmp", Image.fromarray(GREY))
    save("bilevel.bmp", Image.fromarray(INDEX % 3 == 0))
    indexed = Image.fromarray(INDEX, "P")
    indexed.putpalette(COLOURS.tobytes())
    save("palette8.bmp", indexed)
    save("rgba8.bmp", Image.fromarray(np.dstack([SCENE, ALPHA])))
    save("palette.gif", indexed, "pillow", interlace=0)
    save("interlaced.gif", indexed, "pillow", interlace=1)
    other = indexed.point(lambda value: 15 - value)
    save("animated.gif", indexed, "pillow", save_all=True, append_images=[other], duration=100)


def pnms():
    size = f"{WIDTH} {HEIGHT}\n".encode()
    numbers = lambda values: (" ".join(map(str, values.ravel())) + "\n").encode()
    bits = INDEX % 2
    store("bitmap.pbm", b"P4\n# a comment\n" + size + np.packbits(bits, -1).tobytes())
    store("bitmap_text.pbm", b"P1\n" + size + numbers(bits))
    store("grey.pgm", b"P5\n" + size + b"255\n" + GREY.tobytes())
    store("grey_text.pgm", b"P2\n" + size + b"255\n" + numbers(GREY))
    store("grey16.pgm", b"P5\n" + size + b"65535\n" + DEEP[..., 0].astype(">u2").tobytes())
    store("rgb.ppm", b"P6\n" + size + b"255\n" + SCENE.tobytes())
    store("rgb_text.ppm", b"P3\n" + size + b"255\n" + numbers(SCENE))
    head = f"P7\nWIDTH {WIDTH}\nHEIGHT {HEIGHT}\nDEPTH 3\nMAXVAL 255\nTUPLTYPE RGB\nENDHDR\n".encode()
    store("rgb.pam", head + SCENE.tobytes(), SCENE)
    store("rgb.qoi", imagecodecs.qoi_encode(SCENE), SCENE)
    store("rgba.qoi", imagecodecs.qoi_encode(np.dstack([SCENE, ALPHA])), SCENE)


def main():
    GOLDEN.mkdir(parents=True, exist_ok=True)
    for write in (jpegs, pngs, webps, tiffs, bmps_and_gifs, pnms):
        write()
    versions = (
        f"Pillow {PIL.__version__}, OpenCV {cv2.__version__}, tifffile {tifffile.__version__}, "
        f"imagecodecs {imagecodecs.__version__}, numpy {np.__version__}"
    )
    lines = [f"# made by `python reference/image_formats.py` with {versions}", "# file,reader,largest difference"]
    lines += [",".join(map(str, row)) for row in table]
    (GOLDEN / "formats.csv").write_text("\n".join(lines) + "\n")
    save_file(expected, GOLDEN / "expected.safetensors")
    if "--compare" in sys.argv:
        compare()


def compare():
    """Prints the files for which OpenCV and Pillow disagree."""
    for name, _, _ in table:
        results = {}
        for reader in (opencv, pillow):
            try:
                results[reader.__name__] = reader(GOLDEN / name).astype(int)
            except Exception as error:  # noqa: BLE001
                results[reader.__name__] = str(error)[:60]
        first, second = results.values()
        if isinstance(first, str) or isinstance(second, str):
            print(f"{name}: {[r if isinstance(r, str) else 'ok' for r in (first, second)]}")
        elif first.shape != second.shape:
            print(f"{name}: {first.shape} {second.shape}")
        elif (first != second).any():
            print(f"{name}: differ by {abs(first - second).max()}")


main()
