"""MultiDiffusion (Bar-Tal et al., 2023): denoise windows of the training size and average where they overlap.

The paper averages the stepped latents of the windows. A step of DDIM, Euler, DPM++ and their like is affine in the
noise prediction, with the same coefficients in every window. So averaging the predictions, at the root of the U-Net,
gives the same latents, and every such scheduler and pipeline works.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from baselines.method import Calls, Request, UNetMethod
from baselines.windows import Windows
from scalecrafter.batch import map_batch
from scalecrafter.pipeline import pixels_per_cell, sampling_timesteps, training_size

Forward = Callable[..., Any]


@contextmanager
def replaced_forward(unet: nn.Module, replacement: Callable[[Forward], Forward]) -> Iterator[None]:
    """``replacement(plain forward)`` in place of a module's forward, until the context is left."""
    own, plain = unet.__dict__.get("forward"), unet.forward
    unet.forward = replacement(plain)
    try:
        yield
    finally:
        if own is None:
            del unet.forward
        else:
            unet.forward = own


def check_affine(pipe: Any) -> None:
    """ValueError if a step of the pipeline's scheduler is not affine in the prediction."""
    for option in ("thresholding", "clip_sample"):
        if pipe.scheduler.config.get(option):
            raise ValueError(
                f"{type(pipe.scheduler).__name__} has {option} on, so that its step is not affine in the prediction "
                f"and windows cannot be averaged: use a scheduler with {option}=False"
            )


def window_size(pipe: Any) -> tuple[int, int]:
    """(height, width) in cells of what the U-Net was trained on."""
    height, width = training_size(pipe)
    return height // pixels_per_cell(pipe), width // pixels_per_cell(pipe)


@dataclass(frozen=True)
class MultiDiffusion(UNetMethod):
    """Windows of the training size.

    Args:
        stride: cells between windows; None is an eighth of a window's sides, as in the paper.
        circular: windows run over the right border to the left one (panoramas of 360 degrees).
        crop_coordinates: SDXL: tell each window the place it has in the picture, as crop coordinates.
        window_batch: windows in one U-Net call; changes speed and memory only.
    """

    stride: int | None = None
    circular: bool = False
    crop_coordinates: bool = False
    window_batch: int = field(default=8, compare=False)

    def strides(self, pipe: Any) -> tuple[int, int]:
        """Cells between windows, (vertical, horizontal)."""
        if self.stride is not None:
            return self.stride, self.stride
        height, width = window_size(pipe)
        return max(1, height // 8), max(1, width // 8)

    def windows(self, pipe: Any, height: int, width: int) -> Windows:
        """The windows for a picture of this size in pixels; ValueError if they cannot cover it."""
        cell = pixels_per_cell(pipe)
        size = (height // cell, width // cell)
        return Windows.cover(*size, *window_size(pipe), self.strides(pipe), self.circular)

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        check_affine(pipe)
        if self.window_batch < 1:
            raise ValueError(f"window_batch must be at least 1, not {self.window_batch}")
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.compare}
        if pipe.unet.config.addition_embed_type != "text_time":
            del options["crop_coordinates"]  # only SDXL's U-Net knows them
        windows = self.windows(pipe, height, width)
        window = {"window": [windows.height, windows.width], "stride": list(self.strides(pipe))}
        return super().describe(pipe, height, width) | options | window

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """Windows, ``window_batch`` in a call."""
        windows, steps = self.windows(pipe, request.height, request.width), request.sampler.steps
        return self.calls_of(len(windows), times=len(sampling_timesteps(pipe, steps)), pipe=pipe, request=request)

    def calls_of(self, count: int, *, times: int, pipe: Any, request: Request, gradient: bool = False) -> list[Calls]:
        """``times`` times ``count`` windows."""
        full, rest = divmod(count, self.window_batch)
        kinds = ((times * full, self.window_batch), (times, rest))
        size = window_size(pipe)
        return [
            Calls(repeated, windows * request.samples, *size, differentiated=gradient)
            for repeated, windows in kinds
            if repeated and windows
        ]

    @contextmanager
    def enable(self, pipe: Any, *, height: int, width: int) -> Iterator[None]:
        check_affine(pipe)
        windows = self.windows(pipe, height, width)

        def replacement(plain: Forward) -> Forward:
            return partial(self.call, plain, pipe, windows)

        with replaced_forward(pipe.unet, replacement):
            yield

    def call(self, plain: Forward, pipe: Any, windows: Windows, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The U-Net's forward: windows in, their averaged prediction out."""
        check_inputs(windows, sample, kwargs)
        parts = [windows.cut(sample, index) for index in range(len(windows))]
        return as_output(windows.average(self.predict(plain, pipe, windows, parts, args, kwargs)), kwargs)

    def predict(
        self,
        plain: Forward,
        pipe: Any,
        windows: Windows,
        parts: list[Tensor],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        indices: list[int] | None = None,
    ) -> list[Tensor]:
        """Noise prediction of each of ``parts``, which are the windows ``indices`` (None: all), several in a call."""
        predictions: list[Tensor] = []
        indices = list(range(len(parts))) if indices is None else indices
        for start in range(0, len(parts), self.window_batch):
            chosen = parts[start : start + self.window_batch]
            count, batch = len(chosen), len(chosen[0])
            batched_args, batched = map_batch((args, kwargs), batch, partial(tiled, count=count))
            if self.crop_coordinates and "time_ids" in (batched.get("added_cond_kwargs") or {}):
                corners = [windows.corners[i] for i in indices[start : start + count]]
                batched = place_windows(batched, corners, batch, pixels_per_cell(pipe))
            output = plain(torch.cat(chosen), *batched_args, **{**batched, "return_dict": False})[0]
            predictions += output.split(batch)
        return predictions


def tiled(x: Tensor, count: int) -> Tensor:
    """A batch, ``count`` times in a row."""
    return torch.cat([x] * count)


def place_windows(kwargs: dict[str, Any], corners: list[tuple[int, int]], batch: int, cell: int) -> dict[str, Any]:
    """SDXL's (original size, crop top left, target size) with each window's corner in pixels as its crop."""
    added = kwargs["added_cond_kwargs"]
    time_ids = added["time_ids"].clone()
    crops = torch.tensor(corners, device=time_ids.device, dtype=time_ids.dtype) * cell
    time_ids[:, 2:4] = crops.repeat_interleave(batch, dim=0)
    return kwargs | {"added_cond_kwargs": added | {"time_ids": time_ids}}


def check_inputs(windows: Windows, sample: Tensor, kwargs: dict[str, Any]) -> None:
    """ValueError for a call that cannot be cut into windows."""
    if sample.shape[2:] != (windows.rows, windows.columns):
        raise ValueError(
            f"the U-Net was called on {sample.shape[2]}x{sample.shape[3]} cells, but the method was enabled for "
            f"{windows.rows}x{windows.columns}: ask the pipeline for the same size"
        )
    if any(
        kwargs.get(f"{kind}_additional_residual{s}") is not None
        for kind, s in (("down_block", "s"), ("mid_block", ""))
    ):
        raise ValueError("ControlNet and T2I-Adapter residuals are made for the whole picture, not for windows of it")


def as_output(prediction: Tensor, kwargs: dict[str, Any]) -> Any:
    """A prediction in the form that the caller of a U-Net asked for."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

    return UNet2DConditionOutput(sample=prediction) if kwargs.get("return_dict", True) else (prediction,)
