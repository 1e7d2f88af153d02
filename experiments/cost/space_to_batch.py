"""`python -m experiments.cost.space_to_batch`: would interleaved images be faster than a dilated convolution?

With a whole factor d, stride 1 and sides that d divides, every dth row and column of an image sees only itself: the
d^2 images between them can be convolved densely, as a batch, with the same result. Each time is the fastest of several
repeats, of both in turn.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from eval.files import write_atomically
from experiments.setup.command_line import command
from experiments.setup.identity import environment
from scalecrafter.redilate import redilated_conv2d

# (channels, side) of the levels of Stable Diffusion 1.5 at 1024x1024, and its factors at 4 and 16 times the area.
LAYERS = ((320, 128), (640, 64), (1280, 32))
FACTORS = (2, 4)


def interleaved_conv2d(x: Tensor, weight: Tensor, bias: Tensor | None, d: int) -> Tensor:
    """`redilated_conv2d` with factor ``d`` and stride 1 as one dense convolution of d^2 images.

    Args:
        x: (N, C_in, H, W), both sides divisible by ``d``; memory format channels_last stays.
        weight: (C_out, C_in, k, k), k odd.
        bias: (C_out,) or None.
    """
    samples, channels, height, width = x.shape
    grid = x.view(samples, channels, height // d, d, width // d, d).permute(3, 5, 0, 1, 2, 4)
    last = x.is_contiguous(memory_format=torch.channels_last)
    images = grid.reshape(-1, channels, height // d, width // d)
    images = images.contiguous(memory_format=torch.channels_last) if last else images
    y = F.conv2d(images, weight, bias, padding=weight.shape[-1] // 2)
    back = y.view(d, d, samples, len(weight), height // d, width // d).permute(2, 3, 4, 0, 5, 1)
    whole = back.reshape(samples, len(weight), height, width)
    return whole.contiguous(memory_format=torch.channels_last) if last else whole


def fastest(functions: Sequence[Callable[[], Tensor]], repeats: int) -> list[float]:
    """Seconds of each, after a warm-up."""
    times: list[list[float]] = [[] for _ in functions]
    for _ in range(repeats + 1):
        for function, found in zip(functions, times, strict=True):
            started = time.perf_counter()
            function()
            if torch.cuda.is_available():
                torch.cuda.synchronize()
            found.append(time.perf_counter() - started)
    return [min(found[1:]) for found in times]


@torch.no_grad()
def measured(dtype: torch.dtype, last: bool, batch: int, repeats: int) -> list[dict[str, float | str]]:
    """A row for each layer and factor."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    rows: list[dict[str, float | str]] = []
    for channels, side in LAYERS:
        weight = torch.randn(channels, channels, 3, 3, device=device, dtype=dtype) / channels
        x, bias = torch.randn(batch, channels, side, side, device=device, dtype=dtype), weight[:, 0, 0, 0]
        if last:
            x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
        for d in FACTORS:
            one = partial(redilated_conv2d, x, weight, bias, dilation=d)
            other = partial(interleaved_conv2d, x, weight, bias, d)
            dilated, dense = fastest((one, other), repeats)
            layer = f"{channels} channels, {side}x{side}, d = {d}"
            rows.append({"layer": layer, "dilated": dilated, "interleaved": dense, "ratio": dense / dilated})
    return rows


def main(argv: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m experiments.cost.space_to_batch", description=__doc__)
    parser.add_argument("--dtypes", nargs="+", default=["float32"], help="of torch, as float32 bfloat16 float16")
    parser.add_argument("--batch", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--results", type=Path, default=Path("results"), help="folder for benchmark_space_to_batch.json"
    )
    arguments = parser.parse_args(argv)
    formats = {"contiguous": False, "channels_last": True}
    found = {
        f"{dtype}, {name}": measured(getattr(torch, dtype), last, arguments.batch, arguments.repeats)
        for dtype in arguments.dtypes
        for name, last in formats.items()
    }
    about = {"batch": arguments.batch, "threads": torch.get_num_threads(), **environment()}
    text = json.dumps({"environment": about, "layers": found}, indent=2)
    write_atomically(arguments.results / "benchmark_space_to_batch.json", f"{text}\n".encode())
    print(text)


if __name__ == "__main__":
    command(main)
