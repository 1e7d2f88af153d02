"""DemoFusion (Du et al., CVPR 2024): phases of growing size, each guided by the last one's image, by crops of the
training size for detail, and by dilated views of the whole latent for structure.

The public code steps every crop and view by the scheduler and averages the results. A step of DDIM, Euler, DPM++ and
similar schedulers is affine in the prediction, so averaging the predictions gives the same latents, with every such
scheduler.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from baselines.cascade.engine import Cascade
from baselines.cascade.images import enlarged_latents
from baselines.cascade.parts import Part, cosine
from baselines.cascade.sampling import Sampling
from baselines.cascade.sizes import Size
from baselines.method import Calls, Request
from baselines.multidiffusion import check_affine, place_windows, window_size
from baselines.patches.crops import Crops, jittered
from baselines.patches.phases import phase_sizes, scale_of
from baselines.patches.views import blurred, dilated_views, interleave, pad_to_multiple, statistics, with_statistics
from baselines.windows import Windows, calls_on_parts, predict_parts
from scalecrafter.pipeline import is_sdxl, latent_size, vae_scale_factor


@dataclass(frozen=True)
class DemoFusion(Cascade):
    """Every component can be switched off.

    Args:
        size_condition: as in `Cascade`.
        count: number of sizes; None: one at every multiple of the training size; 2: no phase between the first and
            the last.
        residual_exponent: of the cosine weight of the last phase's noised image (alpha 1); None: no such residual.
        windows: predict crops of the training size.
        dilated: predict dilated views; with ``windows`` too, the two are mixed.
        fusion_exponent: of the cosine weight of the dilated views in that mixture (alpha 2).
        sigma: of the Gaussian filter before the views are taken, in latent pixels at the first step; 0: no filter.
        blur_exponent: of the cosine by which sigma falls to a hundredth (alpha 3).
        filter_reach: the filter has 2 reach (s - 1) + 1 weights per side in phase s: 1 in the public code, 2 in the
            paper.
        stride: latent pixels between crops; None: half a crop.
        jitter: most latent pixels by which crops move in each step; None: a quarter of what neighbours overlap.
        renormalise: give each phase's latent the mean and standard deviation of the first one's.
        crop_coordinates: SDXL only: condition each crop on its position in the image.
        part_batch: crops or views per U-Net call; affects speed and memory only.

    Raises:
        ValueError: neither crops nor views, or a number outside its range.
    """

    size_condition: str = "target"
    residual_exponent: float | None = 3.0
    windows: bool = True
    dilated: bool = True
    fusion_exponent: float = 1.0
    sigma: float = 1.0
    blur_exponent: float = 1.0
    filter_reach: int = 1
    stride: int | None = None
    jitter: int | None = None
    renormalise: bool = True
    crop_coordinates: bool = True
    part_batch: int = field(default=16, compare=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.windows or self.dilated):
            raise ValueError("windows and dilated are both off, so nothing would be predicted: switch one on")
        if self.sigma < 0 or self.filter_reach < 1 or self.part_batch < 1:
            raise ValueError("sigma must be at least 0, filter_reach and part_batch at least 1")

    # Sizes and cost.

    def sizes(self, pipe: Any, base: Size, target: Size) -> list[Size]:
        return phase_sizes(pipe, *target, self.count)

    def parts(self, pipe: Any, sizes: Sequence[Size], steps: int) -> Sequence[Part]:
        return [Part(steps)] * len(sizes)

    def strides(self, pipe: Any) -> tuple[int, int]:
        """(vertical, horizontal) latent pixels between crops."""
        height, width = window_size(pipe)
        return (max(1, height // 2), max(1, width // 2)) if self.stride is None else (self.stride, self.stride)

    def grid(self, pipe: Any, size: Size) -> Windows:
        """The grid of crops in a phase, none larger than its latent; ValueError if the stride leaves gaps."""
        latent = latent_size(pipe, size)
        height, width = (min(pair) for pair in zip(window_size(pipe), latent, strict=True))
        vertical, horizontal = (min(pair) for pair in zip(self.strides(pipe), (height, width), strict=True))
        return Windows.cover(*latent, height, width, (vertical, horizontal), circular=False)

    def margin(self, pipe: Any) -> tuple[int, int]:
        """Most rows and columns by which a crop moves; ValueError if neighbours could part."""
        overlaps = [side - step for side, step in zip(window_size(pipe), self.strides(pipe), strict=True)]
        if min(overlaps) < 0:
            raise ValueError(f"stride must be 1 to {min(window_size(pipe))}, a crop's side, not {self.stride}")
        vertical, horizontal = (overlap // 4 if self.jitter is None else self.jitter for overlap in overlaps)
        if min(vertical, horizontal) < 0 or 2 * max(vertical, horizontal) > min(overlaps):
            raise ValueError(f"jitter must be 0 to {min(overlaps) // 2}, half of what crops overlap")
        return vertical, horizontal

    def unused(self, pipe: Any) -> set[str]:
        """Options without effect, given the others and the model."""
        off = set() if self.windows else {"stride", "jitter", "crops", "crop_coordinates"}
        off |= set() if self.dilated and self.sigma else {"sigma", "blur_exponent", "filter_reach"}
        off |= set() if self.windows and self.dilated else {"fusion_exponent"}
        return off | (set() if is_sdxl(pipe) else {"crop_coordinates"})  # only SDXL is conditioned on them

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        options = super().describe(pipe, height, width)
        check_affine(pipe)
        options |= {"stride": list(self.strides(pipe)), "jitter": list(self.margin(pipe))}
        later = phase_sizes(pipe, height, width, self.count)[1:]
        options |= {"crops": [len(self.grid(pipe, size)) for size in later]}
        return {name: value for name, value in options.items() if name not in self.unused(pipe)}

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """The first phase's calls on its whole latent, then those on crops and on views."""
        first, *later = super().calls(pipe, request)
        calls = [first]
        for whole in later:
            rows, columns, times = whole.height, whole.width, whole.times
            factor, s = vae_scale_factor(pipe), scale_of(pipe, rows, columns)
            grid = self.grid(pipe, (rows * factor, columns * factor))
            if self.windows:
                crop = (grid.height, grid.width)
                calls += calls_on_parts(len(grid), times, self.part_batch, request.samples, crop)
            if self.dilated:
                view = (-(-rows // s), -(-columns // s))
                calls += calls_on_parts(s * s, times, self.part_batch, request.samples, view)
        return calls

    # What happens in a phase.

    def relay(self, sampling: Sampling, latents: Tensor, clean: Tensor) -> Tensor:
        return enlarged_latents(sampling.pipe, latents, sampling.stage.size)

    def before_call(self, sampling: Sampling, latents: Tensor, t: Any) -> Tensor:
        return sampling.blended(latents, t, self.residual_exponent)

    def end_stage(self, sampling: Sampling, latents: Tensor) -> Tensor:
        if sampling.stage.index == 0:
            sampling.memory["statistics"] = statistics(latents)
            return latents
        return with_statistics(latents, *sampling.memory["statistics"]) if self.renormalise else latents

    def predict(self, sampling: Sampling, inputs: Tensor, t: Any) -> Tensor:
        if sampling.stage.index == 0:
            return super().predict(sampling, inputs, t)
        weight = cosine(sampling.pipe.scheduler, t)
        share = weight**self.fusion_exponent if self.windows else 1.0
        local = self.predict_crops(sampling, inputs, t) if self.windows else torch.zeros_like(inputs)
        if not self.dilated:
            return local
        return (1 - share) * local + share * self.predict_views(sampling, inputs, t, weight)

    def predict_parts(self, sampling: Sampling, parts: list[Tensor], t: Any, change: Any = None) -> list[Tensor]:
        """Predictions of parts of the latent, both halves if guided."""
        pairs = [sampling.conditions.doubled(part) for part in parts]
        return predict_parts(sampling.pipe.unet, pairs, (t,), sampling.arguments, self.part_batch, change)

    def crops(self, sampling: Sampling) -> Crops:
        """Crops at the offsets of this step."""
        pipe = sampling.pipe
        grid, margin = self.grid(pipe, sampling.stage.size), self.margin(pipe)
        corners = tuple(jittered(grid, margin, generator) for generator in sampling.generators)
        return Crops(grid.height, grid.width, margin, corners)

    def predict_crops(self, sampling: Sampling, inputs: Tensor, t: Any) -> Tensor:
        """The mean of all crops' predictions, (N, C, rows, columns)."""
        crops = self.crops(sampling)
        change = partial(self.condition, sampling, crops)
        pairs = self.predict_parts(sampling, crops.cut(inputs), t, change)
        return crops.average([self.guided_crop(sampling, pair) for pair in pairs], *inputs.shape[2:])

    def guided_crop(self, sampling: Sampling, pair: Tensor) -> Tensor:
        """The prediction of a crop, from both halves if guided."""
        return self.guide_halves(sampling, pair)

    def condition(
        self, sampling: Sampling, crops: Crops, conditions: dict[str, Any], indices: range
    ) -> dict[str, Any]:
        """The conditions of a call on these crops: SDXL is told where each lies, at the border if beyond it."""
        if not (self.crop_coordinates and is_sdxl(sampling.pipe)):
            return conditions
        places = [[(max(0, top), max(0, left)) for top, left in corners] for corners in crops.corners]
        halves, images = range(2 if sampling.conditions.guided else 1), range(len(places))
        rows = [places[image][index] for index in indices for _ in halves for image in images]
        return place_windows(conditions, rows, 1, vae_scale_factor(sampling.pipe))

    def predict_views(self, sampling: Sampling, inputs: Tensor, t: Any, weight: float) -> Tensor:
        """The predictions of dilated views of the blurred latent, put together to (N, C, rows, columns)."""
        rows, columns = inputs.shape[2:]
        scale = scale_of(sampling.pipe, rows, columns)
        seen = pad_to_multiple(inputs, scale)
        if self.sigma > 0:
            sigma = self.sigma * (0.99 * weight**self.blur_exponent + 0.01)
            seen = blurred(seen, 2 * self.filter_reach * (scale - 1) + 1, sigma)
        views = self.predict_each(sampling, dilated_views(seen, scale), t)
        return interleave(views, scale)[..., -rows:, -columns:]

    def predict_each(self, sampling: Sampling, views: list[Tensor], t: Any) -> list[Tensor]:
        """The prediction of each view."""
        return [self.guide_halves(sampling, pair) for pair in self.predict_parts(sampling, views, t)]
