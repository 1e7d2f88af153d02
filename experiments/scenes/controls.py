"""Control rows of a table on scenes: real images scored as if they had been generated, untouched or corrupted.

`RealScenes` is the floor that a perfect generator would reach with the same number of images; with a corruption it
shows how much of a known fault each score sees.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from baselines.method import Calls, Request
from eval.corruptions import CORRUPTIONS, STEPS, corrupt
from experiments.scenes.rendered import renderer_digest
from experiments.scenes.renderer.scene import BACKGROUNDS, COLOURS, OBJECTS, Scene, render


@dataclass(frozen=True)
class RealScenes:
    """A rendered scene with the prompted factors and the seed of the image; the reference never contains it.

    Args:
        corruption: a kind of `eval.corruptions`; None leaves the images as they are.
        step: strength of the corruption, 1 to 4.

    Raises:
        ValueError: unknown corruption or step; from `generate`, a prompt that is not a caption of a scene.
    """

    corruption: str | None = None
    step: int = 2

    def __post_init__(self) -> None:
        if self.corruption not in (None, *CORRUPTIONS) or self.step not in STEPS:
            raise ValueError(
                f"corruption is null or one of {', '.join(CORRUPTIONS)}, and step is 1 to {STEPS[-1]}, not "
                f"{self.corruption!r} and {self.step}"
            )

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        described = {} if self.corruption is None else {"corruption": self.corruption, "step": self.step}
        return described | {"renderer": renderer_digest()}

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """None: no U-Net is involved."""
        return []

    def generate(self, pipe: Any, request: Request) -> NDArray[np.uint8]:
        images = []
        for prompt, seed in zip(request.prompts, request.seeds, strict=True):
            if prompt not in captions():
                raise ValueError(f"method=real renders captions of scenes, and {prompt!r} is none: use prompts=scenes")
            factors = captions()[prompt]
            image = render(Scene(*factors, seed=seed), request.height, request.width)
            if self.corruption is not None:
                image = corrupt(image, self.corruption, self.step, str(seed))
            images.append(image)
        return np.stack(images)


@cache
def captions() -> dict[str, tuple[str, str, str]]:
    """(object, colour, background) of every caption."""
    factors = [(o, c, b) for o in OBJECTS for c in COLOURS for b in BACKGROUNDS]
    return {Scene(*each, seed=0).caption: each for each in factors}
