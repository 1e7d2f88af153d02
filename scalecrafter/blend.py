"""Settings between tables: at each step a layer has the weighted mean of the factors that it has in them.

Windows and progressive rounding act within each table, on the table's own factors, so that the mean is a continuous
function of the weights at every step.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, fields, replace
from reprlib import repr as short
from typing import Any

from scalecrafter.checks import is_number
from scalecrafter.redilate import Factor, per_axis
from scalecrafter.settings import Settings, parsed

OF_TABLES = ("dilation", "tau", "progressive", "noise_damped_dilation", "noise_damped_tau")
OPTIONS = ("noise_damped_tau", "dispersed", "dispersed_tau", "dispersed_size", "dispersion_eta", "freeu")


@dataclass(frozen=True)
class Part:
    """A table and how much of it is in force.

    Args:
        settings: factors and windows of the main and of the base pass; other parts of the method are dropped.
        weights: (vertical, horizontal), 0 to 1, of the excess of factors over one.

    Raises:
        ValueError: weights that are not two numbers from 0 to 1.
    """

    settings: Settings
    weights: tuple[float, float]

    def __post_init__(self) -> None:
        weights = tuple(self.weights) if isinstance(self.weights, (tuple, list)) else ()
        if len(weights) != 2 or not all(is_number(weight) and 0 <= weight <= 1 for weight in weights):
            raise ValueError(f"weights of a part are two numbers from 0 to 1, not {short(self.weights)}")
        table = Settings(**{name: getattr(self.settings, name) for name in OF_TABLES})
        object.__setattr__(self, "settings", table.effective())
        object.__setattr__(self, "weights", weights)

    def factors(self, step: int, base_pass: bool) -> dict[str, Factor]:
        """As `Settings.factors`. Where the table's guidance is not damped, its base pass is its main pass."""
        return self.settings.factors(step, base_pass=base_pass and step < self.settings.noise_damped_tau)


@dataclass(frozen=True)
class Blend(Settings):
    """Settings whose factor along an axis is 1 + the sum of weight (scale d - 1) over the parts that dilate a layer.

    ``dilation`` and ``noise_damped_dilation`` are the factors at step 0, and ``tau`` is the end of the last window:
    they follow from the parts, as does that nothing is rounded again. Everything else is given, as for `Settings`.

    Args:
        parts: tables and their weights, which add up to at most 1 along each axis; what is missing is not dilated.
        scale: multiplies the tables' factors above one, 1 or more.

    Raises:
        ValueError: as `Settings`, or weights or a scale outside these ranges.
    """

    dilation: Mapping[str, Factor] = field(init=False, default_factory=dict)
    tau: int = field(init=False, default=0)
    progressive: bool = field(init=False, default=False)
    noise_damped_dilation: Mapping[str, Factor] = field(init=False, default_factory=dict)
    parts: tuple[Part, ...] = ()
    scale: float = 1.0

    def __post_init__(self) -> None:
        if not is_number(self.scale) or self.scale < 1:
            raise ValueError(f"scale must be a number of at least 1, not {short(self.scale)}")
        if any(sum(part.weights[axis] for part in self.parts) > 1 + 1e-9 for axis in (0, 1)):
            raise ValueError("the weights of the parts add up to more than 1")
        object.__setattr__(self, "parts", tuple(self.parts))
        object.__setattr__(self, "tau", max((part.settings.tau for part in self.parts), default=0))
        for name, base_pass in (("dilation", False), ("noise_damped_dilation", True)):
            object.__setattr__(self, name, mean_factors(self.parts, self.scale, 0, base_pass))
        super().__post_init__()

    def factors(self, step: int, *, base_pass: bool = False) -> dict[str, Factor]:
        if base_pass and step >= self.noise_damped_tau:
            return {}
        return mean_factors(self.parts, self.scale, step, base_pass)

    def effective(self) -> Settings:
        flat = Settings(**{f.name: getattr(self, f.name) for f in fields(Settings)}).effective()
        return replace(self, **{name: getattr(flat, name) for name in OPTIONS})

    def changed(self, values: Mapping[str, Any]) -> Settings:
        """As `Settings.changed`: changes of factors and windows apply to every part, all others to the whole."""
        arguments = parsed(values)
        table = {name: value for name, value in values.items() if name in OF_TABLES}
        parts = merged(Part(part.settings.changed(table), part.weights) for part in self.parts)
        options = {name: arguments[name] if name in values else getattr(self, name) for name in OPTIONS}
        if are_one_table(parts, self.scale):
            return replace(parts[0].settings, **options)
        return Blend(parts=parts, scale=self.scale, **options)

    def to_dict(self) -> dict[str, Any]:
        """Plain values that `Settings.load` accepts: the parts in place of what follows from them."""
        values = super().to_dict()
        parts = [{"weights": list(part.weights), "settings": part.settings.to_dict()} for part in self.parts]
        return {"parts": parts, "scale": self.scale} | {name: values[name] for name in OPTIONS}


def mean_factors(parts: Iterable[Part], scale: float, step: int, base_pass: bool) -> dict[str, Factor]:
    """Dilated layers and their factors at a step, by the formula of `Blend`, to six decimals: weights are fractions
    whose sums are not exact, and a whole factor takes a shorter way through a convolution.
    """
    excess: dict[str, list[float]] = {}
    for part in parts:
        for name, factor in part.factors(step, base_pass).items():
            sides = excess.setdefault(name, [0.0, 0.0])
            for axis, d in enumerate(per_axis(factor)):
                sides[axis] += part.weights[axis] * (scale * d - 1 if d > 1 else 0)
    factors = {name: (round(1 + sides[0], 6), round(1 + sides[1], 6)) for name, sides in excess.items()}
    return {name: d[0] if d[0] == d[1] else d for name, d in factors.items() if d != (1, 1)}


def merged(parts: Iterable[Part]) -> tuple[Part, ...]:
    """The parts in order, those with equal settings as one with the sum of their weights."""
    found: list[Part] = []
    for part in parts:
        for index, other in enumerate(found):
            if other.settings == part.settings:
                vertical, horizontal = (min(1.0, a + b) for a, b in zip(other.weights, part.weights, strict=True))
                found[index] = Part(part.settings, (vertical, horizontal))
                break
        else:
            found.append(part)
    return tuple(found)


def are_one_table(parts: tuple[Part, ...], scale: float) -> bool:
    """Whether a blend of these parts is nothing but a table itself."""
    return scale == 1 and len(parts) == 1 and parts[0].weights == (1, 1)


def load_blend(values: Mapping[str, Any]) -> Blend:
    """A blend from the mapping that `Blend.to_dict` returns; ValueError for any other."""
    given = {name: value for name, value in values.items() if name not in ("parts", "scale")}
    for name in OF_TABLES:
        if name in given and name not in OPTIONS:
            raise ValueError(f"{name} follows from the parts of these settings: leave it out, or change the parts")
    options = {name: value for name, value in parsed(given).items() if name in OPTIONS}
    parts = values["parts"]
    if not isinstance(parts, list):
        raise ValueError(f"parts must be a list, not {short(parts)}")
    for part in parts:
        if not isinstance(part, Mapping) or set(part) != {"settings", "weights"}:
            raise ValueError(f"a part has settings and weights, not {short(part)}")
    made = tuple(Part(Settings.load(part["settings"]), part["weights"]) for part in parts)
    return Blend(parts=made, scale=values.get("scale", 1.0), **options)
