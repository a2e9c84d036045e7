"""Extracts the golden tensors of the image pipeline from the reference vectors.

    python make_pipe.py misc_zegclip.safetensors pipe.safetensors

The input was made by running ZegCLIP's own pipeline (mmcv's cv2 calls, mmsegmentation 0.24 `Resize` and
`Normalize`) on three synthetic images a, b, c:
  bgr, label         the image [h, w, 3] and its labels [h, w], uint8
  resized_bgr        the image after the test-time resize (short side 64, 48, 80)
  train_scale_*      image and labels after the training resize into the box 280×70
  normalized_rgb_hwc resized_bgr as RGB, ImageNet statistics, float32; for b only, to keep the file small
"""

import sys

from safetensors.numpy import load_file, save_file

tensors = load_file(sys.argv[1])
kept = {
    name: tensor
    for name, tensor in tensors.items()
    if name.startswith("pipe.") and ("normalized" not in name or name.startswith("pipe.b."))
}
save_file(kept, sys.argv[2])
