"""The embedded world: procedural scenes, and a small Stable Diffusion pipeline trained on them by this project."""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
