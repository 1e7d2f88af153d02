"""What to do to which convolution and for how long: `Settings`, the shipped ones, and how "auto" finds one for a size.

A YAML file names groups of convolutions instead of single ones: ``down_blocks.N``, ``mid_block`` and ``up_blocks.N``
stand for both 3x3 convolutions of each of the block's resnets, and ``+s`` at the end adds the block's down- or
upsampler. Any other key is the full name of one convolution; where keys overlap, the later one holds.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from scalecrafter.freeu import FreeU
from scalecrafter.pipeline import model_family, training_size
from scalecrafter.redilate import Factor, per_axis
from scalecrafter.schedule import REFERENCE_STEPS, factors_at

SHIPPED = Path(__file__).parent / "settings"
RESNETS = {"down": 2, "mid": 2, "up": 3}
GROUP = re.compile(r"^(?:(down|up)_blocks\.\d+|(mid)_block)(\+s)?$")
AREA_RATIO = {"x4": 4.0, "x6_25": 6.25, "x8": 8.0, "x16": 16.0}


@dataclass(frozen=True)
class Settings:
    """Settings of the method for one model family and size. The parts can be switched off one by one.

    Every tau is a window in reference steps, 0 (never) to 50 (always, but for t = 0 itself, which is step 50: only
    schedulers without an offset call the U-Net with it, last).

    Args:
        dilation: full name of a U-Net convolution -> its factor d >= 1, or [vertical, horizontal] factors.
        tau: re-dilation is active while the reference step is below this.
        progressive: shrink d over the window, max(ceil(d (tau - i) / tau), 2).
        noise_damped_dilation: factors of the base pass of noise-damped guidance (paper section 3.4).
        noise_damped_tau: guidance is noise-damped while the reference step is below this.
        dispersed: names of dilated convolutions whose kernels are dispersed as well (paper section 3.3); what the
            larger kernel does not span remains as dilation.
        dispersed_tau: they are dispersed while the reference step is below this.
        dispersed_size: side of the dispersed kernels, odd, above 3.
        dispersion_eta: weight of the pixel errors in `dispersion_transform`.
        freeu: FreeU's factors, or None.

    Raises:
        ValueError: a factor below 1, a tau outside 0 to 50, a dispersed name that is not dilated, or a wrong type.
    """

    dilation: Mapping[str, Factor] = field(default_factory=dict)
    tau: int = 0
    progressive: bool = False
    noise_damped_dilation: Mapping[str, Factor] = field(default_factory=dict)
    noise_damped_tau: int = 0
    dispersed: tuple[str, ...] = ()
    dispersed_tau: int = 0
    dispersed_size: int = 5
    dispersion_eta: float = 0.05
    freeu: FreeU | None = None

    def __post_init__(self) -> None:
        # bool is a kind of int: without the type checks, `tau: yes` in a YAML file would pass as 1.
        for name in ("tau", "noise_damped_tau", "dispersed_tau"):
            tau = getattr(self, name)
            if not (type(tau) is int and 0 <= tau <= REFERENCE_STEPS):
                raise ValueError(f"{name} counts reference steps, an integer from 0 to 50, not {tau!r}")
        if type(self.progressive) is not bool:
            raise ValueError(f"progressive must be true or false, not {self.progressive!r}")
        if type(self.dispersed_size) is not int or self.dispersed_size < 5 or self.dispersed_size % 2 == 0:
            raise ValueError(f"dispersed_size is the side of a kernel, odd and above 3, not {self.dispersed_size!r}")
        if not is_number(self.dispersion_eta) or self.dispersion_eta < 0:
            raise ValueError(f"dispersion_eta weighs an error, a number of at least 0, not {self.dispersion_eta!r}")
        for name in ("dilation", "noise_damped_dilation"):
            table = {key: checked_factor(key, d) for key, d in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(table))
        for name in self.dispersed:
            if name not in self.dilation and name not in self.noise_damped_dilation:
                raise ValueError(f"{name} is dispersed but not dilated: dispersion takes over a part of the dilation")
        object.__setattr__(self, "dispersed", tuple(self.dispersed))

    def __reduce__(self) -> tuple[Any, ...]:
        return Settings.from_mapping, (self.to_dict(),)  # a mapping proxy can be neither pickled nor copied

    def at(self, step: int, *, base_pass: bool = False) -> tuple[dict[str, Factor], tuple[str, ...]]:
        """What a U-Net call does at a reference step: factors of dilated layers, and which are dispersed as well."""
        if base_pass:
            factors = factors_at(self.noise_damped_dilation, self.noise_damped_tau, self.progressive, step)
        else:
            factors = factors_at(self.dilation, self.tau, self.progressive, step)
        dispersed = self.dispersed if step < self.dispersed_tau else ()
        return factors, tuple(name for name in dispersed if name in factors)

    def effective(self) -> Settings:
        """The settings without what changes no picture: factors of one, tables without a window, dispersion where and
        when nothing is dilated, and the options of what is off. Equal where they draw alike.
        """
        dilation = dilating(self.dilation) if self.tau else {}
        damped = dilating(self.noise_damped_dilation) if self.noise_damped_tau else {}
        tau = self.tau if dilation else 0
        dispersed = tuple(name for name in self.dispersed if name in dilation or name in damped)
        last = max(tau, self.noise_damped_tau if damped else 0)
        dispersed_tau = min(self.dispersed_tau, last) if dispersed else 0
        return replace(
            self,
            dilation=dilation,
            tau=tau,
            progressive=self.progressive and bool(dilation or damped),
            noise_damped_dilation=damped,
            dispersed=dispersed if dispersed_tau else (),
            dispersed_tau=dispersed_tau,
            dispersed_size=self.dispersed_size if dispersed_tau else Settings.dispersed_size,
            dispersion_eta=self.dispersion_eta if dispersed_tau else Settings.dispersion_eta,
        )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> Settings:
        """From parsed YAML; groups in the tables and in ``dispersed`` are expanded.

        Raises:
            ValueError: not a mapping, an unknown key, or a value that `Settings` refuses.
        """
        if not isinstance(values, Mapping):
            raise ValueError(f"settings are a mapping with dilation, tau, ..., not a {type(values).__name__}")
        known = [f.name for f in fields(cls)]
        unknown = sorted(str(key) for key in values if key not in known)
        if unknown:
            raise ValueError(f"unknown settings {', '.join(unknown)}: known are {', '.join(known)}")
        parsed = dict(values)
        for name in ("dilation", "noise_damped_dilation"):
            table = values.get(name) or {}
            if not isinstance(table, Mapping):
                raise ValueError(f"{name} maps names of convolutions to factors; it is no {type(table).__name__}")
            parsed[name] = expand(table)
        dispersed = values.get("dispersed") or ()
        if isinstance(dispersed, (str, Mapping)) or not isinstance(dispersed, Iterable):
            raise ValueError(f"dispersed is a list of names of convolutions, not {dispersed!r}")
        parsed["dispersed"] = tuple(expand(dict.fromkeys(dispersed, 1)))
        freeu = values.get("freeu")
        if freeu is not None and not isinstance(freeu, FreeU):
            try:
                parsed["freeu"] = FreeU(**freeu)
            except TypeError:
                raise ValueError(f"freeu has b1, b2, s1, s2 and form, not {freeu!r}") from None
        return cls(**parsed)

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
        """Plain values, as in a YAML file without groups."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("dilation", "noise_damped_dilation"):
            values[name] = {k: list(d) if isinstance(d, tuple) else d for k, d in values[name].items()}
        freeu = None if self.freeu is None else asdict(self.freeu)
        return values | {"dispersed": list(self.dispersed), "freeu": freeu}


def dilating(table: Mapping[str, Factor]) -> dict[str, Factor]:
    """The layers with a factor above one."""
    return {name: factor for name, factor in table.items() if per_axis(factor) != (1, 1)}


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def checked_factor(name: str, d: Any) -> Factor:
    pair = tuple(d) if isinstance(d, (tuple, list)) else (d, d)
    if len(pair) != 2 or not all(is_number(side) and side >= 1 for side in pair):
        raise ValueError(f"dilation of {name} must be a number of at least 1, or two of them, not {d!r}")
    return float(pair[0]) if pair[0] == pair[1] else (float(pair[0]), float(pair[1]))


def expand(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Group keys (module docstring) -> full names of convolutions."""
    table: dict[str, Any] = {}
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
    areas = {f"{family}_{name}": area for name, area in AREA_RATIO.items()}
    names = [name for name in available_settings() if name in areas]
    if not names:
        raise ValueError(
            "no settings are known for this model's shape: pass settings= a Settings object or a YAML file"
        )
    nearest = min(names, key=lambda name: abs(math.log(areas[name] / ratio)))
    settings, scale = load_settings(nearest), math.sqrt(ratio / areas[nearest])
    if scale == 1:
        return settings
    return replace(
        settings,
        dilation=scaled(settings.dilation, scale),
        noise_damped_dilation=scaled(settings.noise_damped_dilation, scale),
    )


def scaled(table: Mapping[str, Factor], scale: float) -> dict[str, Factor]:
    """Factors times ``scale``, to two decimals, at least one; a factor of one stays."""

    def side(d: float) -> float:
        return max(1.0, round(d * scale, 2)) if d > 1 else d

    return {name: (side(per_axis(d)[0]), side(per_axis(d)[1])) for name, d in table.items()}


def resolve_settings(settings: str | Path | Settings, pipe: Any, height: int, width: int) -> Settings:
    """Settings from "auto", a shipped name, a YAML path or a `Settings`."""
    if isinstance(settings, Settings):
        return settings
    return auto_settings(pipe, height, width) if settings == "auto" else load_settings(settings)
