"""MultiDiffusion (Bar-Tal et al., 2023): denoise windows of the training size and average where they overlap.

The paper averages the windows' latents after the scheduler step. A step of DDIM, Euler, DPM++ and similar schedulers
is affine in the noise prediction, with the same coefficients in every window. Averaging the predictions at the root of
the U-Net therefore gives the same latents, with every such scheduler and pipeline.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from functools import partial
from typing import Any

import torch
from torch import Tensor

from baselines.method import Calls, Request, UNetMethod
from baselines.windows import Windows, calls_on_parts, predict_parts
from scalecrafter.patching import Forward, replaced_forward
from scalecrafter.pipeline import is_sdxl, latent_size, sampling_timesteps, training_size, vae_scale_factor


def check_affine(pipe: Any) -> None:
    """ValueError if the scheduler's step is not affine in the prediction."""
    for option in ("thresholding", "clip_sample"):
        if pipe.scheduler.config.get(option):
            raise ValueError(
                f"{type(pipe.scheduler).__name__} has {option} on, so its step is not affine in the prediction and "
                f"predictions cannot be averaged: use a scheduler with {option}=False"
            )


def window_size(pipe: Any) -> tuple[int, int]:
    """(height, width) of the latents that the U-Net was trained on."""
    return latent_size(pipe, training_size(pipe))


@dataclass(frozen=True)
class MultiDiffusion(UNetMethod):
    """Averaged windows of the training size.

    Args:
        stride: latent pixels between windows or, below 1, their share of the window's sides; None: an eighth, as in
            the paper.
        circular: windows wrap around the right border (360-degree panoramas).
        crop_coordinates: SDXL only: condition each window on its position in the image, as crop coordinates.
        window_batch: windows per U-Net call; affects speed and memory only.
    """

    stride: float | None = None
    circular: bool = False
    crop_coordinates: bool = False
    window_batch: int = field(default=8, compare=False)

    def strides(self, pipe: Any) -> tuple[int, int]:
        """(vertical, horizontal) latent pixels between windows; ValueError unless they are whole."""
        stride = 1 / 8 if self.stride is None else self.stride
        if 0 < stride < 1:
            height, width = window_size(pipe)
            return max(1, int(height * stride)), max(1, int(width * stride))
        if stride != int(stride):
            raise ValueError(f"stride is whole latent pixels, or a share of the window below 1, not {stride}")
        return int(stride), int(stride)

    def windows(self, pipe: Any, height: int, width: int) -> Windows:
        """The windows for an image of this size in pixels; ValueError if they cannot cover it."""
        latent = latent_size(pipe, (height, width))
        return Windows.cover(*latent, *window_size(pipe), self.strides(pipe), self.circular)

    def describe(self, pipe: Any, height: int, width: int) -> dict[str, Any]:
        check_affine(pipe)
        if self.window_batch < 1:
            raise ValueError(f"window_batch must be at least 1, not {self.window_batch}")
        options = {f.name: getattr(self, f.name) for f in fields(self) if f.compare}
        if not is_sdxl(pipe):
            del options["crop_coordinates"]  # only SDXL's U-Net is conditioned on them
        windows = self.windows(pipe, height, width)
        window = {"window": [windows.height, windows.width], "stride": list(self.strides(pipe))}
        return super().describe(pipe, height, width) | options | window

    def calls(self, pipe: Any, request: Request) -> list[Calls]:
        """Calls on windows, ``window_batch`` at a time."""
        windows, steps = self.windows(pipe, request.height, request.width), request.sampler.steps
        return self.calls_for(len(windows), times=len(sampling_timesteps(pipe, steps)), pipe=pipe, request=request)

    def calls_for(self, count: int, *, times: int, pipe: Any, request: Request) -> list[Calls]:
        """The calls for ``count`` windows, ``times`` times over."""
        return calls_on_parts(count, times, self.window_batch, request.samples, window_size(pipe))

    @contextmanager
    def enable(self, pipe: Any, *, height: int, width: int) -> Iterator[None]:
        check_affine(pipe)
        windows = self.windows(pipe, height, width)

        def replacement(plain: Forward) -> Forward:
            return partial(self.call, plain, pipe, windows)

        with replaced_forward(pipe.unet, replacement):
            yield

    def call(self, plain: Forward, pipe: Any, windows: Windows, sample: Tensor, *args: Any, **kwargs: Any) -> Any:
        """The U-Net's forward: predict every window, then average."""
        check_inputs(windows, sample, kwargs)
        parts = [windows.crop(sample, index) for index in range(len(windows))]
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
        """Noise prediction of each of ``parts``, the windows ``indices`` (None: all), in batches."""
        corners = [windows.corners[i] for i in (range(len(parts)) if indices is None else indices)]

        def placed(conditions: dict[str, Any], chosen: range) -> dict[str, Any]:
            return place_windows(conditions, [corners[i] for i in chosen], len(parts[0]), vae_scale_factor(pipe))

        change = placed if self.crop_coordinates and is_sdxl(pipe) else None
        return predict_parts(plain, parts, args, kwargs, self.window_batch, change)


def place_windows(kwargs: dict[str, Any], corners: list[tuple[int, int]], batch: int, factor: int) -> dict[str, Any]:
    """Set the crop coordinates in SDXL's time_ids to each window's corner in pixels."""
    added = kwargs["added_cond_kwargs"]
    time_ids = added["time_ids"].clone()
    crops = torch.tensor(corners, device=time_ids.device, dtype=time_ids.dtype) * factor
    time_ids[:, 2:4] = crops.repeat_interleave(batch, dim=0)
    return kwargs | {"added_cond_kwargs": added | {"time_ids": time_ids}}


def check_inputs(windows: Windows, sample: Tensor, kwargs: dict[str, Any]) -> None:
    """ValueError for a U-Net call that cannot be cropped into windows."""
    if sample.shape[2:] != (windows.rows, windows.columns):
        raise ValueError(
            f"the U-Net was called on a latent of {sample.shape[2]}x{sample.shape[3]}, but the method was enabled for "
            f"{windows.rows}x{windows.columns}: call the pipeline with the same size"
        )
    if any(
        kwargs.get(f"{kind}_additional_residual{s}") is not None
        for kind, s in (("down_block", "s"), ("mid_block", ""))
    ):
        raise ValueError(
            "ControlNet and T2I-Adapter residuals are for the whole image and cannot be cropped into windows"
        )


def as_output(prediction: Tensor, kwargs: dict[str, Any]) -> Any:
    """A prediction as the output type that the U-Net's caller asked for."""
    from diffusers.models.unets.unet_2d_condition import UNet2DConditionOutput

    return UNet2DConditionOutput(sample=prediction) if kwargs.get("return_dict", True) else (prediction,)
