"""Image-text metadata, or the `prompts` node of a configuration, comes in; prompts with stable ids go out.

`load` serves a run; all other modules serve `python -m experiments.prompts build`, which samples a manifest.
"""

from experiments.prompts.load import Prompt, load_prompts, prompt_seed, prompts_identity

__all__ = ["Prompt", "load_prompts", "prompt_seed", "prompts_identity"]
