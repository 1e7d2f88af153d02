"""The embedded world: procedural scenes with captions, and a small Stable Diffusion pipeline trained on them.

Scene descriptions and sizes come in; rendered images, classifier features and the committed pipeline go out.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
