"""Prompts that a model knows: examples, and warnings about those that it does not."""

from __future__ import annotations

import re
from functools import cache
from itertools import product
from typing import Any

from experiments.prompts import load_prompts
from experiments.scenes.renderer.scene import BACKGROUNDS, COLOURS, OBJECTS, Scene, sample_scenes
from experiments.setup.compose import compose_config, plain_values

EXAMPLES = 6
BLOCK = len(OBJECTS) * len(COLOURS) * len(BACKGROUNDS)
WORD = re.compile(r"\w+")


def examples(model: str) -> list[str]:
    """Some prompts for a model of this name: the caption of a scene with each object, or those of prompts=demo."""
    if model == "scenes":
        return list({scene.object: scene.caption for scene in sample_scenes(BLOCK, seed=1)}.values())
    values = plain_values(compose_config(["prompts=demo", f"prompts.limit={EXAMPLES}"]))
    return [prompt.text for prompt in load_prompts(values["prompts"])]


@cache
def vocabulary() -> frozenset[str]:
    """All words of the captions that the scenes model was trained on."""
    scenes = product(OBJECTS, COLOURS, BACKGROUNDS, (1.0, 2.0))
    captions = (Scene(o, c, b, seed=0, zoom=zoom).caption for o, c, b, zoom in scenes)
    return frozenset(word for caption in captions for word in WORD.findall(caption))


def warnings(prompt: str, model: str, tokenizer: Any) -> list[str]:
    """Sentences on what a model will not understand of a prompt.

    Args:
        model: its name.
        tokenizer: of its text encoder.
    """
    if not prompt.strip():
        return ["The prompt is empty, so the images show whatever the model draws by itself."]
    found = []
    unknown = [word for word in dict.fromkeys(WORD.findall(prompt.lower())) if word not in vocabulary()]
    if model == "scenes" and unknown:
        found.append(
            f"This small model knows {', '.join(OBJECTS)}; the colours {', '.join(COLOURS)}; and "
            f"{', '.join(BACKGROUNDS)}. It does not know: {', '.join(unknown[:8])}."
        )
    elif len(tokenizer(prompt, verbose=False).input_ids) > tokenizer.model_max_length:
        found.append(f"The prompt is too long: the model reads its first {tokenizer.model_max_length - 2} tokens.")
    return found
