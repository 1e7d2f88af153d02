"""AccDiffusion (Lin et al., ECCV 2024): DemoFusion whose crops are prompted with what they show, and whose dilated
views exchange their pixels before each prediction.

Which words a crop shows is read from the cross-attention of the first phase.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from baselines.cascade.attention import at_level
from baselines.cascade.sampling import Sampling
from baselines.patches.attention_maps import Maps, cross_attentions, recorded
from baselines.patches.crop_prompts import CropPrompts, encode_crop_prompts
from baselines.patches.crops import Crops
from baselines.patches.demofusion import DemoFusion
from baselines.patches.views import permutations
from baselines.patches.words import Word, crop_prompts, locate_words
from scalecrafter.pipeline import latent_size


@dataclass(frozen=True)
class AccDiffusion(DemoFusion):
    """DemoFusion with two more components, each of which can be switched off.

    Args:
        content_prompts: prompt each crop with the words that it shows.
        coverage: least share of a crop that a word's foreground covers (c).
        attention_level: of the U-Net's cross-attention that is read, 0 for the outermost.
        opening: erosions and dilations of each foreground; None: one for every 16 rows of the attention map.
        shuffle: permute the views' values at each position and channel before predicting, and the predictions back.
        jitter_once: draw the crops' offsets once for a phase, as the public code does, instead of in every step.
        crop_guidance_scale: guidance of the crops; None: as everywhere.
    """

    content_prompts: bool = True
    coverage: float = 0.3
    attention_level: int = 2
    opening: int | None = None
    shuffle: bool = True
    jitter_once: bool = False
    crop_guidance_scale: float | None = None

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 <= self.coverage <= 1 or (self.opening or 0) < 0:
            raise ValueError("coverage must be from 0 to 1, and opening at least 0")

    @property
    def prompted(self) -> bool:
        """Whether there are crops with prompts of their own."""
        return self.windows and self.content_prompts

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        described = super().describe(pipe, height, width)
        if self.prompted:
            cross_attentions(pipe.unet, self.attention_level)
        return described

    def unused(self, pipe: Any) -> set[str]:
        off = set() if self.prompted else {"coverage", "attention_level", "opening"}
        off |= set() if self.windows else {"content_prompts", "jitter_once", "crop_guidance_scale"}
        return super().unused(pipe) | off | (set() if self.dilated else {"shuffle"})

    def changed_unet(self, sampling: Sampling, t: Any) -> AbstractContextManager[Any]:
        """Calls of the first phase are recorded."""
        if not self.prompted or len(sampling.stages) == 1:
            return super().changed_unet(sampling, t)
        maps = sampling.memory.setdefault("maps", Maps(len(sampling.generators)))
        return recorded(maps, cross_attentions(sampling.pipe.unet, self.attention_level))

    def end_stage(self, sampling: Sampling, latents: Tensor) -> Tensor:
        latents = super().end_stage(sampling, latents)
        if sampling.stage.index == 0 and "maps" in sampling.memory:
            latent = latent_size(sampling.pipe, sampling.stage.size)
            attention = sampling.memory["maps"].mean(*at_level(latent, self.attention_level))
            pairs, tokenizer = zip(sampling.request.prompts, attention, strict=True), sampling.pipe.tokenizer
            sampling.memory["words"] = [locate_words(tokenizer, prompt, each, self.opening) for prompt, each in pairs]
        return latents

    def relay(self, sampling: Sampling, latents: Tensor, clean: Tensor) -> Tensor:
        for of_last_phase in ("crops", "prompts"):
            sampling.memory.pop(of_last_phase, None)
        return super().relay(sampling, latents, clean)

    def crops(self, sampling: Sampling) -> Crops:
        crops = sampling.memory.get("crops") or super().crops(sampling)
        if self.jitter_once:
            sampling.memory["crops"] = crops
        return crops

    def crop_prompts(self, sampling: Sampling, crops: Crops) -> CropPrompts:
        """What this phase's crops show, at their places in the grid if their offsets change from step to step."""
        if "prompts" not in sampling.memory:
            words: list[list[Word]] = sampling.memory["words"]
            grid = self.grid(sampling.pipe, sampling.stage.size)
            corners = crops.corners if self.jitter_once else (grid.corners,) * len(words)
            crop, whole = (grid.height, grid.width), (grid.rows, grid.columns)
            lines = [crop_prompts(w, at, crop, whole, self.coverage) for w, at in zip(words, corners, strict=True)]
            sampling.memory["prompts"] = encode_crop_prompts(sampling.pipe, lines)
        found: CropPrompts = sampling.memory["prompts"]
        return found

    def condition(
        self, sampling: Sampling, crops: Crops, conditions: dict[str, Any], indices: range
    ) -> dict[str, Any]:
        conditions = super().condition(sampling, crops, conditions, indices)
        return self.crop_prompts(sampling, crops).condition(conditions, indices) if self.prompted else conditions

    def guided_crop(self, sampling: Sampling, pair: Tensor) -> Tensor:
        if self.crop_guidance_scale is None or not sampling.conditions.guided:
            return super().guided_crop(sampling, pair)
        uncond, cond = pair.chunk(2)
        return uncond + self.crop_guidance_scale * (cond - uncond)

    def predict_each(self, sampling: Sampling, views: list[Tensor], t: Any) -> list[Tensor]:
        """Permuted across the views at each position and channel, predicted, and permuted back."""
        if not self.shuffle:
            return super().predict_each(sampling, views, t)
        stack = torch.stack(views)
        drawn = [permutations(len(views), stack.shape[2:], generator) for generator in sampling.generators]
        order = torch.stack(drawn, 1).to(stack.device)
        predictions = torch.stack(super().predict_each(sampling, list(stack.gather(0, order)), t))
        return list(predictions.gather(0, order.argsort(0)))
