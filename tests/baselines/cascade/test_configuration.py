"""The files in conf/method/ hold every option of a cascade, at its default, and the command line changes them."""

from dataclasses import fields

import numpy as np
import pytest
from diffusers import DDIMScheduler
from hydra.utils import instantiate

from baselines.cascade.diffusehigh import DiffuseHigh
from baselines.cascade.frecas import FreCaS
from baselines.cascade.freescale import FreeScale
from baselines.cascade.megafusion import MegaFusion
from baselines.cascade.rectifiedhr import RectifiedHR
from baselines.cascade.sdedit import SDEdit
from experiments.setup.compose import compose_config
from tests.tiny import generate, tiny_pipeline

METHODS = {
    "sdedit": SDEdit(),
    "sdedit_rgb": SDEdit(space="rgb"),
    "megafusion": MegaFusion(),
    "diffusehigh": DiffuseHigh(),
    "rectifiedhr": RectifiedHR(),
    "frecas": FreCaS(),
    "freescale": FreeScale(),
}


@pytest.mark.parametrize("name", METHODS)
def test_file_holds_every_option_at_its_default(name):
    node = compose_config([f"method={name}"]).method.object
    assert instantiate(node, _convert_="all") == METHODS[name]
    assert set(node) - {"_target_"} == {field.name for field in fields(METHODS[name])}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_runs_on_sd21_with_v_prediction(name, tmp_path):
    pipe = tiny_pipeline(tmp_path, "sd21")
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="v_prediction")
    steps = 3 if name == "megafusion" else 2  # one for each size
    images = generate(METHODS[name], pipe, [1], (64, 64), steps=steps)
    assert images.shape == (1, 64, 64, 3)
    pipe.scheduler = DDIMScheduler.from_config(pipe.scheduler.config, prediction_type="epsilon")
    assert not np.array_equal(generate(METHODS[name], pipe, [1], (64, 64), steps=steps), images)


def test_command_line_changes_options():
    node = compose_config(["method=frecas", "method.object.ends=[300,0]", "method.object.map_weight=0"]).method.object
    assert instantiate(node, _convert_="all") == FreCaS(ends=[300, 0], map_weight=0)
