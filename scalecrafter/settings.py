"""What to dilate, by how much and for how long: `Settings`, the shipped ones, and how "auto" finds one for a size.

A YAML file names groups of convolutions instead of single ones: ``down_blocks.N``, ``mid_block`` and ``up_blocks.N``
stand for both 3x3 convolutions of each of the block's resnets, and ``+s`` at the end adds the block's down- or
upsampler. Any other key is the full name of one convolution; where keys overlap, the later one holds.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from scalecrafter.schedule import REFERENCE_STEPS

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
        tau: re-dilation is active while the reference step is below this; 0 never, 50 always (but for t = 0 itself,
            which is step 50: only schedulers without an offset call the U-Net with it, last).
        progressive: shrink d over the window, max(ceil(d (tau - i) / tau), 2).

    Raises:
        ValueError: a factor below 1, a tau outside 0 to 50, or a value of another type.
    """

    dilation: Mapping[str, float] = field(default_factory=dict)
    tau: int = 0
    progressive: bool = False

    def __post_init__(self) -> None:
        # bool is a kind of int: without the type checks, `tau: yes` in a YAML file would pass as 1.
        if not (type(self.tau) is int and 0 <= self.tau <= REFERENCE_STEPS):
            raise ValueError(f"tau counts reference steps, an integer from 0 to 50, not {self.tau!r}")
        if type(self.progressive) is not bool:
            raise ValueError(f"progressive must be true or false, not {self.progressive!r}")
        for name, d in self.dilation.items():
            if isinstance(d, bool) or not (isinstance(d, (int, float)) and math.isfinite(d) and d >= 1):
                raise ValueError(f"dilation of {name} must be a number of at least 1, not {d!r}")
        explicit = {name: float(d) for name, d in self.dilation.items()}
        object.__setattr__(self, "dilation", MappingProxyType(explicit))

    def __reduce__(self) -> tuple[Any, ...]:
        return Settings.from_mapping, (self.to_dict(),)  # a mapping proxy can be neither pickled nor copied

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Settings:
        """From parsed YAML; groups in ``dilation`` are expanded.

        Raises:
            ValueError: not a mapping, an unknown key, or a value that `Settings` refuses.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"settings are a mapping with dilation, tau, progressive, not a {type(values).__name__}")
        known = [f.name for f in fields(cls)]
        unknown = sorted(str(key) for key in values if key not in known)
        if unknown:
            raise ValueError(f"unknown settings {', '.join(unknown)}: known are {', '.join(known)}")
        table = values.get("dilation") or {}
        if not isinstance(table, Mapping):
            raise ValueError(f"dilation maps names of convolutions to factors; it is no {type(table).__name__}")
        return cls(**{**values, "dilation": expand(table)})

    @classmethod
    def from_yaml(cls, path: Path | str) -> Settings:
        """From a YAML file; ValueError names the file if it is not one, or holds what `from_mapping` refuses."""
        try:
            return cls.from_mapping(yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {})
        except (yaml.YAMLError, ValueError) as error:
            raise ValueError(f"{path}: {' '.join(str(error).split())}") from error

    @classmethod
    def from_name(cls, name: str) -> Settings:
        """Shipped settings; ValueError lists the names."""
        if name not in available_settings():
            raise ValueError(f"no settings {name!r}: choose from {', '.join(available_settings())}")
        return cls.from_yaml(SHIPPED / f"{name}.yaml")

    def to_dict(self) -> dict[str, Any]:
        return {"dilation": dict(self.dilation), "tau": self.tau, "progressive": self.progressive}


def expand(groups: Mapping[str, float]) -> dict[str, float]:
    """Group keys (module docstring) -> full names of convolutions."""
    table: dict[str, float] = {}
    for key, d in groups.items():
        match = GROUP.match(str(key))
        if not match:
            table[str(key)] = d
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


def load_settings(name: str | Path) -> Settings:
    """Shipped settings by name, or a YAML file by path; ValueError lists what exists."""
    name = str(name)
    if name in available_settings():
        return Settings.from_name(name)
    if name.endswith((".yaml", ".yml")) and Path(name).is_file():
        return Settings.from_yaml(name)
    raise ValueError(f"no settings {name!r}: choose from auto, {', '.join(available_settings())} or a YAML file")


def pixels_per_cell(pipe: Any) -> int:
    """Side in pixels of a cell of the U-Net's input; 1 for a pipeline that has no autoencoder."""
    return getattr(pipe, "vae_scale_factor", 1)


def training_size(pipe: Any) -> tuple[int, int]:
    """(height, width) in pixels that the pipeline's U-Net was trained for; ValueError if its config does not say."""
    cells = pipe.unet.config.sample_size
    if cells is None:
        raise ValueError("the U-Net's config has no sample_size, so its training size is unknown")
    height, width = (cells, cells) if isinstance(cells, int) else cells
    return height * pixels_per_cell(pipe), width * pixels_per_cell(pipe)


def model_family(unet: Any) -> str | None:
    """sd15, sd21, sdxl or scenes, by the U-Net's shape; None if it is none of them."""
    width = unet.config.cross_attention_dim  # one for each block in some models, which are none of the families
    return FAMILIES.get((width, len(unet.config.block_out_channels))) if isinstance(width, int) else None


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


def resolve_settings(settings: str | Path | Settings, pipe: Any, height: int, width: int) -> Settings:
    """Settings from "auto", a shipped name, a YAML path or a `Settings`."""
    if isinstance(settings, Settings):
        return settings
    return auto_settings(pipe, height, width) if settings == "auto" else load_settings(settings)


def nearest_names(name: str, known: list[str]) -> str:
    """`` (did you mean ...?)`` or nothing."""
    near = difflib.get_close_matches(name, known, n=3, cutoff=0.6)
    return f" (did you mean {', '.join(near)}?)" if near else ""
