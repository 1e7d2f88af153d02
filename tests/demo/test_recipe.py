"""The lines that draw an image without the page are executed, and draw it."""

import ast
from dataclasses import replace

import numpy as np
import pytest
import yaml
from hydra.utils import instantiate

from baselines.method import Request
from experiments.demo.choice import Choice, method_names, workload_of
from experiments.demo.parts import Parts
from experiments.demo.recipe import FILE, python_lines, recipe_yaml
from scalecrafter import Settings

CHOICE = Choice('a "red" house in the snow', 5, 64, 96, 3)


def run_lines(overrides, choice, folder, monkeypatch):
    """The image of the lines, in a folder with the settings."""
    workload = workload_of(overrides, choice)
    (folder / FILE).write_text(recipe_yaml(overrides, workload), encoding="utf-8")
    monkeypatch.chdir(folder)
    names = {}
    exec(python_lines(overrides, workload, choice), names)
    return np.asarray(names["image"])


def assert_same(image, other):
    """Up to the order of sums: the benchmark keeps weights in another memory layout."""
    difference = np.abs(image.astype(int) - other)
    assert difference.max() <= 1
    assert np.count_nonzero(difference) <= 0.001 * difference.size


def assert_lines_are_true(overrides, choice, folder, monkeypatch):
    """They draw what the benchmark's method draws."""
    workload = workload_of(overrides, choice)
    request = Request([choice.prompt], [choice.seed], choice.height, choice.width, workload.sampler)
    image = workload.method.generate(workload.model.load(), request)[0]
    assert_same(run_lines(overrides, choice, folder, monkeypatch), image)


def test_the_lines_draw_the_same_image(small, tmp_path, monkeypatch):
    assert_lines_are_true(small, CHOICE, tmp_path, monkeypatch)


def told(method):
    """The class of a method and its options; of an option that is an object without a value, its class."""
    options = {name: type(o) if type(o).__eq__ is object.__eq__ else o for name, o in vars(method).items()}
    return type(method), options


@pytest.mark.parametrize("method", [name for name in method_names() if name != "scalecrafter"])
def test_the_lines_have_the_method_of_the_benchmark(small, method):
    """And its request: then the image is the same, as it is below for one of them. The pipeline is not loaded."""
    choice = replace(CHOICE, method=method)
    workload = workload_of(small, choice)
    lines = ast.parse(python_lines(small, workload, choice))
    (load,) = (node for node in lines.body if ast.unparse(node).startswith("pipe = "))
    lines.body.remove(load)
    (call,) = (node for node in ast.walk(lines.body.pop()) if ast.unparse(node).endswith(".generate(pipe, request)"))
    names = {}
    exec(ast.unparse(lines), names)
    assert told(eval(ast.unparse(call.func.value), names)) == told(workload.method)
    assert names["request"] == Request([CHOICE.prompt], [CHOICE.seed], 64, 96, workload.sampler)


def test_so_they_do_with_other_parts_and_between_tables(small, tmp_path, monkeypatch):
    parts = Parts(cutoff=False, dispersion=True, noise_damping=True)
    choice = replace(CHOICE, height=80, width=96, parts=parts)
    assert_lines_are_true(small, choice, tmp_path, monkeypatch)


@pytest.mark.parametrize(
    "options",
    [["sampler.scheduler=euler", "sampler.negative_prompt=blurry", "scalecrafter.tau=10"], ["model.scheduler=ddim"]],
    ids=" ".join,
)
def test_so_they_do_with_options_of_the_command_line(small, options, tmp_path, monkeypatch):
    assert_lines_are_true([*small, *options], CHOICE, tmp_path, monkeypatch)


@pytest.mark.parametrize("method", ["scalecrafter", "sdedit"])
def test_large_images_are_decoded_in_tiles(small, method, tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.setup.architecture.TILE", 8)
    overrides, choice = [*small, "model.tiled_above=32"], replace(CHOICE, method=method)
    assert "tiled_decoding(pipe.vae)" in python_lines(overrides, workload_of(overrides, choice), choice)
    assert_lines_are_true(overrides, choice, tmp_path, monkeypatch)


def test_settings_that_the_library_finds_are_not_given(small):
    """Stable Diffusion's own at this size: one line switches the method on."""
    assert "scalecrafter.enable(pipe):" in python_lines(small, workload_of(small, CHOICE), CHOICE)


def test_the_yaml_is_what_the_library_and_the_benchmark_read(small):
    workload = workload_of(small, replace(CHOICE, parts=Parts(cutoff=False)))
    loaded = Settings.load(yaml.safe_load(recipe_yaml(small, workload)))
    assert loaded == workload.method.resolve(workload.model.shape, 64, 96)
    workload = workload_of(small, replace(CHOICE, method="freescale"))
    node = yaml.safe_load(recipe_yaml(small, workload))
    assert node["name"] == "freescale"
    assert instantiate(node["object"], _convert_="all") == workload.method
