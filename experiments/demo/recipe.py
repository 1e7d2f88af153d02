"""The same image without the page: a method's options as YAML, and the Python lines that draw it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, is_dataclass
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import yaml

from baselines.sampler import Sampler
from baselines.scalecrafter import ScaleCrafter
from experiments.demo.choice import Choice, settings_of
from experiments.setup.compose import compose_config, plain_values
from experiments.setup.processes import own_device
from experiments.setup.runs import Workload
from scalecrafter.pipeline import dtype_argument

FILE = "settings.yaml"
NEEDED = ("steps", "guidance_scale", "eta")  # of a sampler: what a call of a pipeline takes


def recipe_yaml(overrides: Sequence[str], workload: Workload) -> str:
    """ScaleCrafter's settings, as `scalecrafter.enable` takes them, or another method's file for conf/method."""
    if isinstance(workload.method, ScaleCrafter):
        size = f"{workload.height}x{workload.width} (height x width)"
        return f"# ScaleCrafter at {size}\n" + dumped(settings_of(workload).to_dict())
    return dumped({"name": workload.method_name, "object": method_node(overrides, workload)})


def dumped(values: Any) -> str:
    return yaml.safe_dump(values, sort_keys=False)


def method_node(overrides: Sequence[str], workload: Workload) -> Any:
    """Class and options of a method other than ScaleCrafter."""
    values = plain_values(compose_config([*overrides, f"method={workload.method_name}"]))
    return values["method"]["object"]


def python_lines(overrides: Sequence[str], workload: Workload, choice: Choice) -> str:
    """A program that draws ``image``, a PIL image, next to a file `FILE` with ScaleCrafter's settings."""
    code = Code()
    code.load(workload)
    if isinstance(workload.method, ScaleCrafter) and has_only(workload.sampler, NEEDED):
        code.imports.add("import scalecrafter")
        settings = "" if is_automatic(workload.method) else f', settings="{FILE}"'
        arguments = ", ".join(
            f"{name}={value!r}"
            for name, value in {
                "height": choice.height,
                "width": choice.width,
                **workload.sampler.arguments(workload.model.shape, 1),
            }.items()
            if (name, value) != ("eta", 0.0)
        )
        generator = f"torch.Generator().manual_seed({choice.seed})"
        code.imports.add("import torch")
        code.sample(
            workload,
            [f"scalecrafter.enable(pipe{settings})"],
            f"image = pipe({choice.prompt!r}, {arguments}, generator={generator}).images[0]",
        )
    else:
        code.sample_by_contract(overrides, workload, choice)
    return code.text()


def is_automatic(method: ScaleCrafter) -> bool:
    """Whether these are the settings that the library finds by itself."""
    changes = [value for value in method.changes.values() if value is not None]
    return method.settings == "auto" and not method.tables and not changes and method.radius is None


def has_only(sampler: Sampler, names: Collection[str]) -> bool:
    """Whether the other options of a sampler are left as they are."""
    return all(f.name in names or getattr(sampler, f.name) == f.default for f in fields(sampler))


class Code:
    """Lines of Python and what they import."""

    def __init__(self) -> None:
        self.imports: set[str] = set()
        self.lines: list[str] = []

    def text(self) -> str:
        plain = sorted(line for line in self.imports if line.startswith("import"))
        named = sorted(self.imports - set(plain))
        return "\n".join([*plain, *named, "", *self.lines]) + "\n"

    def load(self, workload: Workload) -> None:
        """Lines that make ``pipe``, as `experiments.setup.models.load_pipeline` does."""
        source, kind = workload.model.source, type(workload.model.shape).__name__
        self.imports |= {"import torch", f"from diffusers import {kind}"}
        options = {"revision": source.revision, "config": source.config} if source.path is None else {}
        call, place = "from_pretrained", shown_path(source.path) if source.path else str(source.id)
        if source.path and Path(source.path).is_file():
            call, options = "from_single_file", {"config": source.config or source.id}
        elif source.path is None or any(Path(source.path).glob(f"unet/*.{source.variant}.safetensors")):
            options["variant"] = source.variant
        given = "".join(f", {name}={value!r}" for name, value in options.items() if value is not None)
        if kind == "StableDiffusionPipeline":
            given += ", safety_checker=None"
        given += f", {dtype_argument()}=torch.{workload.model.dtype}"
        device = own_device()
        self.lines.append(f"pipe = {kind}.{call}({place!r}{given})" + (f".to({device!r})" if device != "cpu" else ""))
        if source.vae:
            self.imports.add("from diffusers import AutoencoderKL")
            load = f"AutoencoderKL.from_pretrained({source.vae!r}, {dtype_argument()}=torch.{workload.model.dtype})"
            self.lines.append(f"pipe.vae = {load}.to(pipe.device)")
        if source.scheduler:
            self.imports.add("from diffusers import DDIMScheduler")
            self.lines.append("pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config)")

    def sample(self, workload: Workload, contexts: list[str], line: str) -> None:
        """A line inside these contexts, and in tiles if the image is decoded so."""
        if workload.model.tiles(workload.height, workload.width):
            self.imports.add("from scalecrafter.decode import tiled_decoding")
            contexts = [*contexts, "tiled_decoding(pipe.vae)"]
        if contexts:
            self.lines.append(f"with {', '.join(contexts)}:")
        self.lines.append(f"{'    ' * bool(contexts)}{line}")

    def sample_by_contract(self, overrides: Sequence[str], workload: Workload, choice: Choice) -> None:
        """Lines that sample with any method of the benchmark."""
        self.imports |= {"from PIL import Image", "from baselines.method import Request"}
        if isinstance(workload.method, ScaleCrafter):
            self.imports.add("from baselines.scalecrafter import ScaleCrafter")
            method = f'ScaleCrafter("{FILE}")'
        else:
            method = self.made(method_node(overrides, workload))
        sampler = self.made_dataclass(workload.sampler)
        request = f"Request([{choice.prompt!r}], [{choice.seed}], {choice.height}, {choice.width}, {sampler})"
        self.lines.append(f"request = {request}  # prompts, seeds, height, width")
        self.sample(workload, [], f"image = Image.fromarray({method}.generate(pipe, request)[0])")

    def made(self, node: Any) -> str:
        """An expression for what Hydra makes of a node, without arguments that are the defaults."""
        if not isinstance(node, Mapping) or "_target_" not in node:
            return repr(node)
        module, _, name = node["_target_"].rpartition(".")
        self.imports.add(f"from {module} import {name}")
        parameters = signature(getattr(import_module(module), name)).parameters
        given = {key: value for key, value in node.items() if key != "_target_"}
        given = {key: value for key, value in given.items() if parameters[key].default != value}
        return f"{name}({', '.join(f'{key}={self.made(value)}' for key, value in given.items())})"

    def made_dataclass(self, value: Any) -> str:
        """An expression for a dataclass, without fields that are the defaults."""
        if not is_dataclass(value):
            return repr(value)
        self.imports.add(f"from {type(value).__module__} import {type(value).__name__}")
        given = {f.name: getattr(value, f.name) for f in fields(value) if getattr(value, f.name) != f.default}
        shown = ", ".join(f"{name}={self.made_dataclass(each)}" for name, each in given.items())
        return f"{type(value).__name__}({shown})"


def shown_path(path: str) -> str:
    """Relative to the working folder if it is inside."""
    place = Path(path).absolute()
    return place.relative_to(Path.cwd()).as_posix() if place.is_relative_to(Path.cwd()) else path
