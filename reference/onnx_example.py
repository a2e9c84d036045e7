"""Segments an image with an exported model, and with class names that the export did not know.

Run        zeg export clip-vit-b-16 --method clearclip --dynamic-size -o clip.onnx
           zeg embed --model clip-vit-b-16 --classes "dog, sofa|couch, wall" -o names.safetensors
           python onnx_example.py clip.onnx names.safetensors photo.jpg labels.png
Packages   numpy, pillow, onnxruntime, safetensors
"""

import json
import sys

import numpy as np
import onnxruntime
from PIL import Image
from safetensors import safe_open

model, table, photo, output = sys.argv[1:]
session = onnxruntime.InferenceSession(model)
about = session.get_modelmeta().custom_metadata_map

# Class embeddings, and the names that belong to their rows.
with safe_open(table, "numpy") as file:
    embeddings = file.get_tensor("embeddings").astype(np.float32)
    names = json.loads(file.metadata()["classes"])

# The image: short side as in the program, then the mean and the standard deviation of the metadata.
image = Image.open(photo).convert("RGB")
scale = json.loads(about["zeg.resize"])["short-side"] / min(image.size)
resized = image.resize([round(side * scale) for side in image.size], Image.BILINEAR)
mean, std = (np.array(json.loads(about[f"zeg.image_{key}"]), np.float32) for key in ("mean", "std"))
pixels = ((np.asarray(resized, np.float32) - mean) / std).transpose(2, 0, 1)[None]

scores = session.run(["scores"], {"image": pixels, "class_embeddings": embeddings})[0][0]  # [classes, height, width]
seen = set(json.loads(about["zeg.seen_classes"]))
scores -= np.array([float(about["zeg.seen_offset"]) * (name in seen) for name in names], np.float32)[:, None, None]

labels = Image.fromarray(scores.argmax(0).astype(np.uint8)).resize(image.size, Image.NEAREST)
labels.save(output)
for index, name in enumerate(names):
    print(f"{name}: {100 * np.mean(np.asarray(labels) == index):.1f} %")
