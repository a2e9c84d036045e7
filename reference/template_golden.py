"""Writes the 80 ImageNet prompt templates of CLIP's authors, as in the package open_clip.

Writes imagenet_templates.txt to crates/zeg-vocab/tests/golden. Run from the repository root:

    pip install open_clip_torch==3.3.0
    python reference/template_golden.py
"""

from importlib.metadata import version
from pathlib import Path

from open_clip.zero_shot_metadata import OPENAI_IMAGENET_TEMPLATES

GOLDEN = Path("crates/zeg-vocab/tests/golden/imagenet_templates.txt")
HEAD = f"# made by `python reference/template_golden.py` with open_clip_torch {version('open_clip_torch')}\n"

GOLDEN.write_text(HEAD + "".join(f"{template('{}')}\n" for template in OPENAI_IMAGENET_TEMPLATES))
