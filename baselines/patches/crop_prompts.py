"""Encoded prompts of a batch's crops, and calls in which each crop has its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from baselines.cascade.sampling import encode_prompts


@dataclass(frozen=True)
class CropPrompts:
    """Encoded prompts of each image's crops.

    Args:
        which: for each image, which of the encoded prompts each crop has.
        text: (prompts, tokens, channels).
        pooled: (prompts, channels) with SDXL.
    """

    which: list[list[int]]
    text: Tensor
    pooled: Tensor | None

    def condition(self, conditions: dict[str, Any], indices: range) -> dict[str, Any]:
        """Conditions of a call on these crops, with each crop's own prompt in its conditional half."""
        text = self.put(conditions["encoder_hidden_states"], self.text, indices)
        found = conditions | {"encoder_hidden_states": text}
        if self.pooled is not None:
            added = conditions["added_cond_kwargs"]
            pooled = self.put(added["text_embeds"], self.pooled, indices)
            found["added_cond_kwargs"] = added | {"text_embeds": pooled}
        return found

    def put(self, values: Tensor, encoded: Tensor, indices: range) -> Tensor:
        """Replace the last half of each crop's rows in (crops halves images, ...) values."""
        chosen = torch.tensor([[own[index] for own in self.which] for index in indices], device=encoded.device)
        halves = values.unflatten(0, (len(indices), -1, len(self.which)))
        return torch.cat([halves[:, :-1], encoded[chosen][:, None].to(values)], 1).flatten(0, 2)


def encode_crop_prompts(pipe: Any, lines: Sequence[Sequence[str]]) -> CropPrompts:
    """Encode each image's prompts of crops, every distinct one once."""
    distinct = list(dict.fromkeys(prompt for own in lines for prompt in own))
    conditions = encode_prompts(pipe, distinct, guided=False)
    which = [[distinct.index(prompt) for prompt in own] for own in lines]
    return CropPrompts(which, conditions.text, conditions.pooled)
