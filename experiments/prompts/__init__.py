"""Prompts with stable ids: where they come from, and `python -m experiments.prompts build`, which draws them from
metadata of image-text sets.

`load` is what a run needs. The rest is the build, in the order of its steps: `sources` and `images` read batches of
rows under the names of `columns`; `usable` leaves out what `filters` and `denylist` say and what `text` cannot clean;
`sample` ranks the others by a hash (`hashing`) and keeps the first; `build` writes them with their provenance.
"""

from experiments.prompts.load import Prompt, load_prompts, prompt_seed, prompts_identity

__all__ = ["Prompt", "load_prompts", "prompt_seed", "prompts_identity"]
