"""Which words of a prompt a crop shows, from the cross-attention maps of the whole image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from baselines.patches.crops import Corner


@dataclass(frozen=True)
class Word:
    """A word of a prompt, and where it is in the image: a (rows, columns) boolean mask of the whole."""

    text: str
    mask: Tensor


def word_tokens(tokenizer: Any, prompt: str) -> list[tuple[str, list[int]]]:
    """Words of a prompt as CLIP's tokenizer splits it, without punctuation, each with the positions of its tokens in
    the text embedding. What does not fit into the embedding is left out.
    """
    ids = tokenizer(prompt, add_special_tokens=False).input_ids[: tokenizer.model_max_length - 2]
    found, start = [], 0
    for end, token in enumerate(tokenizer.convert_ids_to_tokens(ids), 1):
        special = token in tokenizer.all_special_tokens
        if token.endswith("</w>") or special:
            text = "" if special else tokenizer.decode(ids[start:end]).strip()
            if any(character.isalnum() for character in text):
                found.append((text, [1 + i for i in range(start, end)]))  # 0 is the start of the text
            start = end
    return found


def opened(mask: Tensor, times: int) -> Tensor:
    """Morphological opening of a (rows, columns) boolean mask with a square of 3x3: so many erosions, then as many
    dilations. What is outside neither erodes nor dilates.
    """
    x = mask.float()[None, None]
    for sign in (-1, 1):
        for _ in range(times):
            x = sign * functional.max_pool2d(sign * x, 3, stride=1, padding=1)
    return x[0, 0] > 0.5


def foreground(attention: Tensor, times: int) -> Tensor:
    """Where a (rows, columns) map of attention is above its mean, `opened`: a boolean mask."""
    exact = attention.double()  # in which the mean of equal values is that value
    return opened(exact > exact.mean(), times)


def locate_words(tokenizer: Any, prompt: str, attention: Tensor, opening: int | None) -> list[Word]:
    """Words of a prompt in its (tokens, rows, columns) attention; a word's map is the mean of its tokens'.

    ``opening``: see `opened`; None: once for every 16 rows or columns of the shorter side.
    """
    times = min(attention.shape[1:]) // 16 if opening is None else opening
    return [
        Word(text, foreground(attention[tokens].mean(0), times)) for text, tokens in word_tokens(tokenizer, prompt)
    ]


def crop_prompts(
    words: Sequence[Word], corners: Sequence[Corner], crop: Corner, size: Corner, coverage: float
) -> list[str]:
    """For each crop the words whose mask covers at least this share of it, in their order, joined by spaces.

    Args:
        corners: (top, left) of the crops in a latent of ``size``; a part beyond its border is not covered.
        crop: rows and columns of a crop.
    """
    if not words:
        return [""] * len(corners)
    masks = torch.stack([word.mask for word in words]).float()
    whole = functional.interpolate(masks[None], size, mode="nearest-exact")[0]
    prompts = []
    for corner in corners:
        rows, columns = (slice(max(0, start), start + side) for start, side in zip(corner, crop, strict=True))
        shares = whole[:, rows, columns].sum((1, 2)) / (crop[0] * crop[1])
        prompts.append(" ".join(word.text for word, share in zip(words, shares, strict=True) if share >= coverage))
    return prompts
