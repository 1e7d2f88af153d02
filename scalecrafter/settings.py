"""What to dilate, by how much and for how long: `Settings`, the shipped ones, and how "auto" finds one for a size.

A YAML file names groups of convolutions instead of single ones: ``down_blocks.N``, ``mid_block`` and ``up_blocks.N``
stand for both 3x3 convolutions of each of the block's resnets, and ``+s`` at the end adds the block's down- or
upsampler. Any other key is the full name of one convolution.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

SHIPPED = Path(__file__).parent / "settings"
RESNETS = {"down": 2, "mid": 2, "up": 3}
GROUP = re.compile(r"^(?:(down|up)_blocks\.\d+|(mid)_block)(\+s)?$")
# Cross-attention width and number of levels tell the families apart.
FAMILIES = {(768, 4): "sd15", (1024, 4): "sd21", (2048, 3): "sdxl", (64, 4): "scenes"}
AREA_RATIO = {"x4": 4.0, "x6_25": 6.25, "x8": 8.0, "x16": 16.0}


@dataclass(frozen=True)
class Settings:
    """Settings of the method for one model family and size.

    Args:
        dilation: full name of a U-Net convolution -> its factor d >= 1.
        tau: re-dilation is active while the reference step (0 to 49) is below this; 0 never, 50 always.
        progressive: shrink d over the window, max(ceil(d (tau - i) / tau), 2).

    Raises:
        ValueError: a factor below 1 or a tau outside 0 to 50.
    """

    dilation: Mapping[str, float] = field(default_factory=dict)
    tau: int = 0
    progressive: bool = False

    def __post_init__(self) -> None:
        if not (isinstance(self.tau, int) and 0 <= self.tau <= 50):
            raise ValueError(f"tau counts reference steps, an integer from 0 to 50, not {self.tau!r}")
        for name, d in self.dilation.items():
            if not (isinstance(d, (int, float)) and math.isfinite(d) and d >= 1):
                raise ValueError(f"dilation of {name} must be a number of at least 1, not {d!r}")
        explicit = {name: float(d) for name, d in self.dilation.items()}
        object.__setattr__(self, "dilation", MappingProxyType(explicit))

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Settings:
        """From parsed YAML; groups in ``dilation`` are expanded. Unknown keys raise ValueError."""
        unknown = set(values) - {"dilation", "tau", "progressive"}
        if unknown:
            raise ValueError(f"unknown settings {', '.join(sorted(unknown))}: known are dilation, tau, progressive")
        return cls(**{**values, "dilation": expand(values.get("dilation") or {})})

    @classmethod
    def from_yaml(cls, path: Path | str) -> Settings:
        return cls.from_mapping(yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {})

    def to_dict(self) -> dict[str, Any]:
        return {"dilation": dict(self.dilation), "tau": self.tau, "progressive": self.progressive}


def expand(groups: Mapping[str, float]) -> dict[str, float]:
    """Group keys (module docstring) -> full names of convolutions."""
    table: dict[str, float] = {}
    for key, d in groups.items():
        match = GROUP.match(key)
        if not match:
            table[key] = d
            continue
        kind, block = match[1] or match[2], key.removesuffix("+s")
        for resnet in range(RESNETS[kind]):
            table |= {f"{block}.resnets.{resnet}.conv{number}": d for number in (1, 2)}
        if match[3]:
            table[f"{block}.{kind}samplers.0.conv"] = d
    return table


def available_settings() -> list[str]:
    """Names of the shipped settings."""
    return sorted(path.stem for path in SHIPPED.glob("*.yaml"))


def load_settings(name: str) -> Settings:
    """Shipped settings by name, or a YAML file by path; ValueError lists what exists."""
    if name in available_settings():
        return Settings.from_yaml(SHIPPED / f"{name}.yaml")
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return Settings.from_yaml(name)
    raise ValueError(f"no settings {name!r}: choose from auto, {', '.join(available_settings())} or a YAML file")


def training_size(pipe: Any) -> tuple[int, int]:
    """(height, width) in pixels that the pipeline's U-Net was trained for."""
    cells = pipe.unet.config.sample_size
    height, width = (cells, cells) if isinstance(cells, int) else cells
    return height * pipe.vae_scale_factor, width * pipe.vae_scale_factor


def model_family(unet: Any) -> str | None:
    """sd15, sd21, sdxl or scenes, by the U-Net's shape; None if it is none of them."""
    return FAMILIES.get((unet.config.cross_attention_dim, len(unet.config.block_out_channels)))


def auto_settings(pipe: Any, height: int, width: int) -> Settings:
    """Settings for any size: those shipped for the family with the nearest area, factors scaled to this area.

    Every factor above one is multiplied by the square root of (area asked for / area of the shipped settings), so that
    the receptive field grows with the picture, and never falls below one. At the training area nothing is dilated.
    """
    train_height, train_width = training_size(pipe)
    ratio = height * width / (train_height * train_width)
    if ratio <= 1:
        return Settings()
    family = model_family(pipe.unet)
    names = [name for name in available_settings() if family and name.startswith(f"{family}_")]
    if not names:
        raise ValueError(
            "no settings are known for this model's shape: pass settings= a Settings object or a YAML file"
        )
    areas = {name: AREA_RATIO[name.split("_", 1)[1]] for name in names}
    nearest = min(names, key=lambda name: abs(math.log(areas[name] / ratio)))
    settings, scale = load_settings(nearest), math.sqrt(ratio / areas[nearest])
    if scale == 1:
        return settings
    scaled = {name: max(1.0, round(d * scale, 2)) for name, d in settings.dilation.items()}
    return replace(settings, dilation=scaled)


def resolve_settings(settings: str | Settings, pipe: Any, height: int, width: int) -> Settings:
    """Settings from "auto", a shipped name, a YAML path or a `Settings`."""
    if isinstance(settings, Settings):
        return settings
    return auto_settings(pipe, height, width) if settings == "auto" else load_settings(settings)


def nearest_names(name: str, known: list[str]) -> str:
    """`` (did you mean ...?)`` or nothing."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f" (did you mean {', '.join(near)}?)" if near else ""
