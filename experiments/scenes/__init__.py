"""The embedded world: procedural scenes with captions, and a small Stable Diffusion pipeline trained on them.

Scene descriptions and sizes come in; rendered images, features, counts and the committed pipeline go out.
"""

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
SEARCH_RECORD = Path(__file__).parents[2] / "docs/scenes_search.csv"  # what `experiments.search` has tried
