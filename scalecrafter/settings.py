"""Which convolutions are dilated, by how much and for how long: `Settings`, and the YAML files it is loaded from.

YAML files may name groups of convolutions: ``down_blocks.N``, ``mid_block`` and ``up_blocks.N`` stand for both 3x3
convolutions of each of the block's resnets, and the suffix ``+s`` adds the block's down- or upsampler. Any other key
is the full name of one convolution. Where keys overlap, the later one wins.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from reprlib import repr as short
from types import MappingProxyType
from typing import Any

import yaml

from scalecrafter.checks import is_number
from scalecrafter.freeu import FreeU
from scalecrafter.redilate import Factor, per_axis
from scalecrafter.schedule import REFERENCE_STEPS, factors_at

SHIPPED = Path(__file__).parent / "settings"
RESNETS = {"down": 2, "mid": 2, "up": 3}
GROUP = re.compile(r"^(?:(down|up)_blocks\.\d+|(mid)_block)(\+s)?$")


@dataclass(frozen=True)
class Settings:
    """Settings of the method for one model family and size. Each part can be switched off on its own.

    Every tau is a window in reference steps, 0 (never) to 50 (always).

    Args:
        dilation: full name of a U-Net convolution -> its factor d >= 1, or [vertical, horizontal] factors.
        tau: layers are re-dilated while the reference step is below this.
        progressive: shrink d over the window, max(ceil(d (tau - i) / tau), 2).
        noise_damped_dilation: factors of the base pass of noise-damped guidance (paper section 3.4).
        noise_damped_tau: guidance is noise-damped while the reference step is below this.
        dispersed: names of dilated convolutions whose kernels are dispersed as well (paper section 3.3); what the
            larger kernel does not span remains as dilation.
        dispersed_tau: kernels are dispersed while the reference step is below this.
        dispersed_size: side of the dispersed kernels, odd, above 3.
        dispersion_eta: weight of the pixel errors in `dispersion_transform`.
        freeu: FreeU's factors, or None.

    Raises:
        ValueError: factor below 1, tau outside 0 to 50, dispersed layer that is not dilated, or wrong type.
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
        # bool is a subclass of int: without the type checks, `tau: yes` in a YAML file would pass as 1.
        for name in ("tau", "noise_damped_tau", "dispersed_tau"):
            tau = getattr(self, name)
            if not (type(tau) is int and 0 <= tau <= REFERENCE_STEPS):
                raise ValueError(
                    f"{name} counts reference steps and must be an integer from 0 to 50, not {short(tau)}"
                )
        if type(self.progressive) is not bool:
            raise ValueError(f"progressive must be true or false, not {short(self.progressive)}")
        if type(self.dispersed_size) is not int or self.dispersed_size < 5 or self.dispersed_size % 2 == 0:
            raise ValueError(f"dispersed_size must be odd and above 3, not {short(self.dispersed_size)}")
        if not is_number(self.dispersion_eta) or self.dispersion_eta < 0:
            raise ValueError(f"dispersion_eta must be a number of at least 0, not {short(self.dispersion_eta)}")
        for name in ("dilation", "noise_damped_dilation"):
            table = {key: checked_factor(key, d) for key, d in getattr(self, name).items()}
            object.__setattr__(self, name, MappingProxyType(table))
        for name in self.dispersed:
            if name not in self.dilation and name not in self.noise_damped_dilation:
                raise ValueError(f"{name} is dispersed but not dilated: dispersion replaces part of a dilation")
        object.__setattr__(self, "dispersed", tuple(self.dispersed))

    def __reduce__(self) -> tuple[Any, ...]:
        return Settings.load, (self.to_dict(),)  # mapping proxies can be neither pickled nor copied

    def factors(self, step: int, *, base_pass: bool = False) -> dict[str, Factor]:
        """Factors of the layers dilated at a reference step.

        Args:
            step: reference step, 0 (pure noise) to 49.
            base_pass: in the base pass of noise-damped guidance instead of the main pass.

        Returns:
            Full name of each dilated convolution -> its factor, or (vertical, horizontal) factors.
        """
        if base_pass:
            return factors_at(self.noise_damped_dilation, self.noise_damped_tau, self.progressive, step)
        return factors_at(self.dilation, self.tau, self.progressive, step)

    def at(self, step: int, *, base_pass: bool = False) -> tuple[dict[str, Factor], tuple[str, ...]]:
        """`factors`, with the same arguments, and the names of those layers that are dispersed as well."""
        factors = self.factors(step, base_pass=base_pass)
        dispersed = self.dispersed if step < self.dispersed_tau else ()
        return factors, tuple(name for name in dispersed if name in factors)

    def acts_at(self, step: int) -> bool:
        """Whether any part of the method can change the prediction at a reference step."""
        return self.freeu is not None or step < max(self.tau, self.noise_damped_tau)

    def effective(self) -> Settings:
        """The same settings without the parts that change no image, so that equivalent settings compare equal.

        Dropped are factors of one, tables without a window, dispersion where or when nothing is dilated, and the
        options of parts that are off.
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

    @staticmethod
    def load(source: str | Path | Mapping[str, Any]) -> Settings:
        """Load shipped settings by name, a YAML file by path, or a parsed mapping; groups of layers are expanded.

        Raises:
            ValueError: no such settings, an unknown key, or a value that `Settings` refuses; names the file if any.
        """
        if not isinstance(source, (str, Path)):
            return from_values(source)
        path = settings_path(str(source))
        return from_text(path.read_bytes(), str(path))

    def changed(self, values: Mapping[str, Any]) -> Settings:
        """The same settings with other values of some fields, given as in a YAML file; ValueError as `load`."""
        return Settings.load(self.to_dict() | dict(values))

    def to_dict(self) -> dict[str, Any]:
        """Plain values as in a YAML file, with groups expanded."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        for name in ("dilation", "noise_damped_dilation"):
            values[name] = {k: list(d) if isinstance(d, tuple) else d for k, d in values[name].items()}
        freeu = None if self.freeu is None else asdict(self.freeu)
        return values | {"dispersed": list(self.dispersed), "freeu": freeu}


def from_text(text: str | bytes, source: str) -> Settings:
    """`Settings` from YAML; ValueError as `Settings.load`, which says that they are from ``source``."""
    try:
        return from_values(yaml.safe_load(text) or {})
    except RecursionError as error:
        raise ValueError(f"{source}: nested too deeply to be settings") from error
    except (yaml.YAMLError, ValueError) as error:
        raise ValueError(f"{source}: {' '.join(str(error).split())}") from error


def from_values(values: Mapping[str, Any]) -> Settings:
    """`Settings` from parsed YAML, or a `Blend` where they have parts."""
    if isinstance(values, Mapping) and "parts" in values:
        from scalecrafter.blend import load_blend

        return load_blend(values)
    return Settings(**parsed(values))


def parsed(values: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of `Settings` from parsed YAML; groups in the tables and in ``dispersed`` are expanded."""
    if not isinstance(values, Mapping):
        raise ValueError(f"settings are a mapping with dilation, tau, ..., not a {type(values).__name__}")
    known = [f.name for f in fields(Settings)]
    unknown = sorted(str(key) for key in values if key not in known)
    if unknown:
        raise ValueError(f"unknown settings {', '.join(unknown)}: known are {', '.join(known)}")
    arguments = dict(values)
    for name in ("dilation", "noise_damped_dilation"):
        table = values.get(name) or {}
        if not isinstance(table, Mapping):
            raise ValueError(f"{name} must map names of convolutions to factors, not be a {type(table).__name__}")
        arguments[name] = expand(table)
    dispersed = values.get("dispersed") or ()
    listed = isinstance(dispersed, Iterable) and not isinstance(dispersed, (str, Mapping))
    if not listed or not all(isinstance(name, str) for name in dispersed):
        raise ValueError(f"dispersed must be a list of names of convolutions, not {short(dispersed)}")
    arguments["dispersed"] = tuple(expand(dict.fromkeys(dispersed, 1)))
    freeu = values.get("freeu")
    if freeu is not None and not isinstance(freeu, FreeU):
        try:
            arguments["freeu"] = FreeU(**freeu)
        except TypeError:
            raise ValueError(f"freeu has b1, b2, s1, s2 and form, not {short(freeu)}") from None
    return arguments


def dilating(table: Mapping[str, Factor]) -> dict[str, Factor]:
    """The entries with a factor above one."""
    return {name: factor for name, factor in table.items() if per_axis(factor) != (1, 1)}


def checked_factor(name: str, d: Any) -> Factor:
    """A factor from YAML as floats, a pair only if its two differ; ValueError if it is below 1 or no number."""
    pair = tuple(d) if isinstance(d, (tuple, list)) else (d, d)
    if len(pair) != 2 or not all(is_number(side) and side >= 1 for side in pair):
        raise ValueError(f"dilation of {name} must be a number of at least 1, or two of them, not {short(d)}")
    return float(pair[0]) if pair[0] == pair[1] else (float(pair[0]), float(pair[1]))


def expand(groups: Mapping[str, Any]) -> dict[str, Any]:
    """Replace groups of convolutions (module docstring) by their full names."""
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


def settings_path(source: str) -> Path:
    """The file of shipped settings by name, or of a path; ValueError lists the available names."""
    if source in available_settings():
        return SHIPPED / f"{source}.yaml"
    if source.endswith((".yaml", ".yml")) and Path(source).is_file():
        return Path(source)
    raise ValueError(f"no settings {source!r}: choose from auto, {', '.join(available_settings())} or a YAML file")
