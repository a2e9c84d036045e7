"""Prints the run-length codes of polygons by pycocotools 2.0.11, for the tests of crates/zeg-image/src/rle_polygon.rs.

    pip install pycocotools && python reference/coco_polygons.py
"""

from pycocotools import mask

POLYGONS = [
    (4, 3, [1, 0, 3, 0, 3, 2, 1, 2]),
    (10, 8, [1.2, 1.7, 8.9, 2.1, 7.4, 6.8, 2.2, 6.1]),
    (10, 8, [-3.5, -2, 14, 3.3, 4, 12]),
    (12, 9, [2, 2, 2, 2, 9.5, 2, 9.5, 7, 6, 3, 2, 7]),
    (7, 7, [0, 0, 7, 7, 7, 0, 0, 7]),
    (20, 15, [10.01, 1.49, 18.5, 13.51, 1.5, 13.5, 10.0, 6.0]),
    (5, 5, [1, 1, 1, 1, 1, 1]),
    (6, 4, [5.5, 0.5, 5.5, 3.5, 0.5, 3.5]),
]

for width, height, points in POLYGONS:
    code = mask.frPyObjects([points], height, width)[0]
    print(f'({width}, {height}, &{[float(p) for p in points]}, {code["counts"].decode()!r}),')
